# SPDX-License-Identifier: Apache-2.0
"""The call slots of a session and their free list. The only home of the rule how a lane is lent out and comes back.

Nothing here takes a lock: a call made inside any other call of the same thread would find it taken for ever. Each step
is one operation of a container that is atomic in C, and an exception (Ctrl-C) may strike between any two of them.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING

from dthreading.errors import LimitExceeded
from dthreading.wire.limits import LANES_PER_SESSION_MAX

if TYPE_CHECKING:
    from dthreading.session.calls import PendingCall

__all__ = ["Lane", "Lanes"]


class Lane:
    """One call slot."""

    __slots__ = ("acknowledging", "call", "index", "number", "unacknowledged", "undo")

    def __init__(self, index: int) -> None:
        self.index = index
        self.number = 0
        self.call: PendingCall | None = None
        """The last call here; in a free lane it is finished, or None."""
        self.undo: PendingCall | None = None
        """A call whose undo may not have been applied yet. Until then the lane is not lent out."""
        self.unacknowledged = 0
        """The number of the last answer, if it carried an item; 0: none."""
        self.acknowledging = False
        """It stands in the list of lanes to look at with the next keepalive."""

    @property
    def pending(self) -> PendingCall | None:
        """The call that waits for an answer here."""
        call = self.call
        return None if call is None or call.settled else call


class Lanes:
    """All lanes of a session. The one that came back last is lent out first, so a quiet session uses few."""

    def __init__(self) -> None:
        self._all: dict[int, Lane] = {}
        self.free: deque[Lane] = deque()
        """Lanes that are nobody's: to give one back is to append it, which is one step."""
        self._numbers = itertools.count(0)

    def borrow(self) -> Lane:
        """A lane that is nobody's; the caller owns it until it stands in `free` again.

        Raises:
            LimitExceeded: too many calls at one time.

        """
        try:
            return self.free.pop()
        except IndexError:
            index = next(self._numbers)
        if index >= LANES_PER_SESSION_MAX:
            raise LimitExceeded(f"LANES_PER_SESSION_MAX = {LANES_PER_SESSION_MAX} calls at one time are the most")
        lane = self._all[index] = Lane(index)
        return lane

    def take_back(self, lane: Lane) -> bool:
        """Borrows this very lane; False when somebody else has it."""
        try:
            self.free.remove(lane)
        except ValueError:
            return False
        return True

    def get(self, index: int) -> Lane | None:
        """The lane of that number, if there is one."""
        return self._all.get(index)

    def in_flight(self) -> int:
        """How many answers are on their way to somebody, the one that an undo is done among them."""
        if len(self._all) == len(self.free):
            return 0
        return sum([lane.undo is not None or lane.pending is not None for lane in self.all()])

    def lent(self) -> int:
        """How many lanes are somebody's: never fewer than are in flight, and counted at once."""
        return len(self._all) - len(self.free)

    def all(self) -> list[Lane]:
        """Every lane there is now."""
        return list(self._all.values())

    def undos_first(self) -> list[Lane]:
        """All, to be said again: a thread whose call was interrupted may have asked for more on another lane since."""
        return sorted(self.all(), key=lambda lane: lane.undo is None)
