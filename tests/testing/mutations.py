# SPDX-License-Identifier: Apache-2.0
"""Ways to spoil a history: what a broken group would make callers see."""

from __future__ import annotations

from random import Random

from dthreading.testing.history import History
from dthreading.testing.recorded import Call, Outcome


def swap_values(history: History, luck: Random) -> bool:
    """Two calls of one operation have each other's answers."""
    returned = [call for call in history.calls if call.outcome is Outcome.RETURNED and call.value is not None]
    pairs = [
        (one, other)
        for one in returned
        for other in returned
        if one.number < other.number and one.operation == other.operation and one.value != other.value
    ]
    if not pairs:
        return False
    one, other = luck.choice(pairs)
    one.value, other.value = other.value, one.value
    return True


def change_value(history: History, luck: Random) -> bool:
    """A stale read, an index or item that is another's, a grant that was none."""
    calls = [call for call in history.calls if call.outcome is Outcome.RETURNED and call.value is not None]
    if not calls:
        return False
    call = luck.choice(calls)
    call.value = not call.value if type(call.value) is bool else call.value + luck.choice((-1, 1))
    return True


def drop_call(history: History, luck: Random) -> bool:
    """A call that took effect is not in the history: what it did comes from nowhere."""
    calls = [call for call in history.calls if call.outcome is Outcome.RETURNED]
    if not calls:
        return False
    history.calls.remove(luck.choice(calls))
    return True


def duplicate_grant(history: History, luck: Random) -> bool:
    """What one was given another is given, too, at the same time."""
    grants = [
        call
        for call in history.calls
        if call.operation in {"acquire", "get"} and call.outcome is Outcome.RETURNED and call.value is not False
    ]
    if not grants:
        return False
    grant = luck.choice(grants)
    number = max(call.number for call in history.calls) + 1
    twin = Call(number, "twin", "twin", "", grant.object, grant.operation, grant.arguments, grant.called)
    twin.outcome, twin.value, twin.returned = grant.outcome, grant.value, grant.returned
    history.calls.append(twin)
    return True


def come_too_late(history: History, luck: Random) -> bool:
    """A call that overlapped another begins only when that one has come back."""
    settled = [call for call in history.calls if call.is_settled]
    pairs = [
        (late, early)
        for late in settled
        for early in settled
        if late is not early and late.called < (early.returned or 0) < (late.returned or 0)
    ]
    if not pairs:
        return False
    late, early = luck.choice(pairs)
    late.called = early.returned or 0
    return True


MUTATIONS = (swap_values, change_value, drop_call, duplicate_grant, come_too_late)
