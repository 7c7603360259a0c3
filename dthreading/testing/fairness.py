# SPDX-License-Identifier: Apache-2.0
"""First come, first served, as far as callers can tell: who had been told that it waits before another even asked.

Three signs that a later one went first, each beyond doubt:

1. The earlier one got nothing: it was still waiting, or gave up, after the later one had come back served.
2. Both were granted a lock, and the fences say that the later one was first.
3. Both took from a queue, and the later one got an item that had been put before the earlier one's was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dthreading.testing.recorded import Call, Outcome, freeze

__all__ = ["check"]

LINES = {"acquire": "acquire", "put": "put", "get": "get"}
"""Who stands in one line: those of one operation. (An Event serves all at once; a Condition's line is the model's.)"""


def check(name: str, calls: Sequence[Call]) -> None:
    """Raises AssertionError where a waiter of that object was overtaken."""
    puts = {freeze(call.argument(0, None)): call for call in calls if call.operation == "put"}
    repeated = len(puts) != sum(call.operation == "put" for call in calls)
    for line in LINES:
        waiters = [call for call in calls if call.operation == line and call.parked is not None]
        others = sorted([call for call in calls if call.operation == line], key=lambda call: call.called)
        for earlier in waiters:
            for later in others:
                if earlier.parked is None or later.called < earlier.parked:
                    continue
                if earlier.returned is not None and later.called > earlier.returned:
                    break
                why = _overtaken(earlier, later, {} if repeated else puts)
                if why is not None:
                    raise AssertionError(f"{name}: {why}:\n    {earlier} (waiting since {earlier.parked})\n    {later}")


def _served(call: Call) -> bool:
    return call.outcome is Outcome.RETURNED and call.value is not False


def _overtaken(earlier: Call, later: Call, puts: dict[Any, Call]) -> str | None:
    if not _served(later) or later.returned is None:
        return None
    if earlier.outcome is Outcome.UNKNOWN:
        return None  # when it stopped waiting nobody can tell
    if not _served(earlier):
        gone = earlier.returned is not None and earlier.returned < later.returned
        return None if gone else "who had waited before got nothing, and who came later was served"
    assert earlier.returned is not None
    if earlier.operation == "acquire" and type(earlier.value) is int and type(later.value) is int:
        return "who came later has the smaller fence" if later.value < earlier.value else None
    if earlier.operation == "get":
        first, second = puts.get(freeze(later.value)), puts.get(freeze(earlier.value))
        if first is not None and second is not None and first.returned is not None and first.returned < second.called:
            return "who came later got what was put before"
    return None
