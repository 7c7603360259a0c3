# SPDX-License-Identifier: Apache-2.0
"""The leader's table of deadlines: who must be heard of by when. In memory only; no other file knows when a lease ends.

Expiry itself is a log entry that apply judges (`commands.Expire`); this table only says when to propose one. Time
here is
*lease time*: the shell's clock less all the time this process was found to have slept through. A leader that was paused
for a minute has not been listening for a minute, so nobody's silence in that minute counts against them.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

__all__ = ["LATE_MS", "Leases"]

LATE_MS: Final = 200
"""A tick later than this is a pause of the process, not the noise of a busy machine: its length is added to every
deadline."""

K = TypeVar("K", bound=Hashable)


class Leases(Generic[K]):
    """Deadlines of sessions (or namespaces). Renewing is O(1); the heap is corrected lazily when an old deadline
    comes up.
    """

    def __init__(self) -> None:
        # Invariant: each key of _deadlines has one valid entry in _heap, at or before its deadline: the one in _heaped.
        # Other entries of the heap are left-overs of dropped keys, and pass by when they come up.
        self._deadlines: dict[K, int] = {}
        self._heap: list[tuple[int, int, K]] = []
        self._heaped: dict[K, int] = {}
        self._order = 0
        self._slept_ms = 0

    def __len__(self) -> int:
        return len(self._deadlines)

    def __contains__(self, key: K) -> bool:
        return key in self._deadlines

    def clear(self) -> None:
        """Forgets everybody: this replica leads no more, or begins to."""
        self._deadlines.clear()
        self._heap.clear()
        self._heaped.clear()

    def slept(self, gap_ms: int) -> None:
        """The process did not run for `gap_ms`: every deadline moves on by as much."""
        assert gap_ms >= 0
        self._slept_ms += gap_ms

    def renew(self, key: K, heard_ms: int, term_ms: int) -> None:
        """`key` was heard of at `heard_ms`; its lease runs `term_ms` from then. Never shortens a lease."""
        deadline = heard_ms - self._slept_ms + term_ms
        known = self._deadlines.get(key)
        if known is not None and known >= deadline:
            return
        self._deadlines[key] = deadline
        if known is None:
            self._push(key, deadline)

    def drop(self, key: K) -> None:
        """`key` has no lease any more."""
        self._deadlines.pop(key, None)
        self._heaped.pop(key, None)

    def due(self, now_ms: int, most: int) -> list[K]:
        """Those whose deadline has passed, each once: they leave the table. No more than `most`: the others come up the
        next time, and whoever is heard of until then keeps its lease.
        """
        now = now_ms - self._slept_ms
        due: list[K] = []
        while len(due) < most and self._heap and self._heap[0][0] <= now:
            heaped, _, key = heapq.heappop(self._heap)
            if self._heaped.get(key) != heaped:
                continue
            deadline = self._deadlines[key]
            if deadline > now:
                self._push(key, deadline)
            else:
                self.drop(key)
                due.append(key)
        return due

    def next_ms(self) -> int | None:
        """When to look again, on the shell's clock; None when there is nobody."""
        return self._heap[0][0] + self._slept_ms if self._heap else None

    def _push(self, key: K, deadline: int) -> None:
        self._order += 1
        self._heaped[key] = deadline
        heapq.heappush(self._heap, (deadline, self._order, key))
