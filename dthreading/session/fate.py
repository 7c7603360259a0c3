# SPDX-License-Identifier: Apache-2.0
"""What becomes of a call that is not answered in time, or not in its session: decisions, which its caller carries out.

The answers follow from the call's manner, from whether it may have left this process, and from the clock; nothing else.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from dthreading.session.calls import OnLost

if TYPE_CHECKING:
    from dthreading.session.calls import PendingCall

__all__ = ["Deadline", "Fate", "when_late", "when_lost"]


class Fate(Enum):
    """What its caller does."""

    WITHDRAW = "asks the group to end it, and waits for the verdict"
    LEAVE = "goes on without a verdict, as if it had waited in vain, and leaves an undo behind"
    UNREACHABLE = "raises GroupUnreachable: nobody has answered for one lease"
    AGAIN = "asks it again in a new session"
    VAIN = "has waited in vain: False, or the error that its manner has for that"
    LOST = "raises what its manner says of the loss of a session"


class Deadline:
    """When a call stops waiting, in the time of the client's clock. It never restarts, whatever wakes the waiter, and
    whichever session the call is asked in.
    """

    __slots__ = ("_due", "_unheard", "patience", "timeout")

    def __init__(self, timeout: float, patience: float, now: float) -> None:
        self.timeout = timeout
        self.patience = patience
        self._unheard = now + timeout + patience
        self._due: float | None = None

    def at(self, call: PendingCall) -> float:
        """`timeout` after it was first heard to be parked; until then the way there is allowed `patience` more."""
        if self._due is None and call.parked_at is not None:
            self._due = call.parked_at + self.timeout
        return self._unheard if self._due is None else self._due


def when_late(call: PendingCall) -> Fate:
    """Its time is up, and it has no answer."""
    manner = call.manner
    if not manner.parks:
        return Fate.UNREACHABLE
    if manner.patience and call.sent and call.parked_at is None:
        return Fate.LEAVE
    return Fate.WITHDRAW


def when_lost(call: PendingCall, *, late: bool) -> Fate:
    """Its session has ended before it was answered. `late`: its time is up as well.

    What may have happened is not asked again unless it left nothing behind; what never left this process may be.
    """
    manner = call.manner
    if manner.on_lost is OnLost.LOCK_LOST or (call.sent and manner.on_lost is not OnLost.RETRY):
        return Fate.LOST
    if not late:
        return Fate.AGAIN
    return Fate.VAIN if manner.parks else Fate.UNREACHABLE
