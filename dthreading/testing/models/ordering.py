# SPDX-License-Identifier: Apache-2.0
"""A guess at the order in which items went through a queue, from when each was put and taken.

Two puts that overlap say nothing of their order, and the gets that do may come much later. A search that guesses wrong
at the puts would find out only then, and have everything between to do again. So the guess is made with both in view.
It decides what is tried first, never what is found right.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from dthreading.testing.recorded import Call

__all__ = ["order_of_items"]

WINDOW_MAX = 64
"""Of the items that may be next, how many are looked at: no more overlap in a history that can be searched."""


class _Journey(NamedTuple):
    put: Call
    get: Call | None

    @property
    def got(self) -> tuple[float, float]:
        """From when to when it was taken; late and for ever if nobody is known to have."""
        if self.get is None:
            return float("inf"), float("inf")
        return self.get.called, end_of(self.get)


def end_of(call: Call) -> float:
    """The position where the call came back."""
    return float("inf") if call.returned is None else call.returned


def order_of_items(calls: Iterable[Call], items: dict[int, Any], got: dict[int, Any]) -> tuple[list[Call], list[Call]]:
    """The puts in the order of their items, and the gets that took them, likewise."""
    calls = list(calls)
    takers: defaultdict[Any, deque[Call]] = defaultdict(deque)
    for call in calls:
        if call.number in got:
            takers[got[call.number]].append(call)
    puts = [call for call in calls if call.number in items and call.is_settled and call.value is None]
    journeys = []
    for call in sorted(puts, key=lambda put: put.called):
        waiting = takers[items[call.number]]
        journeys.append(_Journey(call, waiting.popleft() if waiting else None))
    order = _sort(journeys)
    return [journey.put for journey in order], [journey.get for journey in order if journey.get is not None]


def _sort(journeys: list[_Journey]) -> list[_Journey]:
    """One after the other: the next is one that nothing left over surely precedes, neither at the put nor the get."""
    remaining = dict(enumerate(journeys))
    first_put = [(end_of(journey.put), index) for index, journey in remaining.items()]
    first_got = [(journey.got[1], index) for index, journey in remaining.items()]
    heapq.heapify(first_put)
    heapq.heapify(first_got)
    order = []
    while remaining:
        while first_put[0][1] not in remaining:
            heapq.heappop(first_put)
        while first_got[0][1] not in remaining:
            heapq.heappop(first_got)
        chosen = best = None
        for looked, (index, journey) in enumerate(remaining.items()):
            if looked == WINDOW_MAX or journey.put.called > first_put[0][0]:
                break
            if journey.got[0] <= first_got[0][0] and (best is None or journey.got[1] < best):
                chosen, best = index, journey.got[1]
        order.append(remaining.pop(next(iter(remaining)) if chosen is None else chosen))
    return order
