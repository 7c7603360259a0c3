# SPDX-License-Identifier: Apache-2.0
"""All orders of a small history, one after the other: slow, and too simple to be wrong. For comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dthreading.testing.models import Model
from dthreading.testing.recorded import SESSION_ENDED, Call


@dataclass(frozen=True)
class Point:
    """One moment of a call."""

    call: Call
    part: str
    rank: int


def has_an_order(model: Model, calls: Sequence[Call]) -> bool:
    """Whether any order of the calls' moments, with or without those whose outcome is unknown, explains them."""
    model.prepare(calls)
    points = [
        Point(call, part, rank)
        for call in calls
        for rank, part in enumerate(model.parts(call) if call.operation != SESSION_ENDED else ("",))
    ]
    return _extend(model, model.initial(), points, set())


def _extend(model: Model, state: Any, points: list[Point], over: set[str]) -> bool:
    must = [point for point in points if point.call.is_settled]
    if not must:
        return True
    first_end = min(point.call.returned for point in must if point.call.returned is not None)
    for point in points:
        call = point.call
        if call.called >= first_end or call.session in over:
            continue
        if any(other.call is call and other.rank < point.rank for other in points):
            continue
        if call.after is not None and any(other.call.number == call.after for other in points):
            continue
        rest = [other for other in points if other is not point]
        ended = over | {call.session} if call.operation == SESSION_ENDED else over
        if any(_extend(model, following, rest, ended) for following in model.steps(state, call, point.part)):
            return True
    return False
