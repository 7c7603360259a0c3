# SPDX-License-Identifier: Apache-2.0
"""The one fair wait queue, and who stands in it. Every primitive that makes a caller wait uses it, and nothing else.

A wait queue is an OrderedDict, because all three moves must cost the same however many wait: to the end, off the front,
out of the middle. (A plain dict is not enough: `next(iter(d))` walks over every entry deleted before it.)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from replicas.objects.base import Operation, Refused, Replicated

__all__ = ["WaitQueue", "Waiter"]


class Waiter:
    """One parked call. (session, lane, number) names it; it stands in exactly one queue until it is answered."""

    __slots__ = ("lane", "number", "operation", "owner", "payload", "queue", "session", "thread")

    def __init__(
        self, owner: Replicated, operation: Operation, session: int, lane: int, number: int, thread: int, payload: Any
    ) -> None:
        self.owner = owner
        """The object whose operation parked; a Condition's waiter stands in its lock's queue for a while."""
        self.operation = operation
        self.session = session
        self.lane = lane
        self.number = number
        self.thread = thread
        self.payload = payload
        """What the owner must remember of the call: plain values, changed by `amend` only."""
        self.queue: WaitQueue | None = None

    def answer(self, value: Any) -> None:
        """The call returns `value`. The waiter must have left its queue."""
        self.owner.host.answer(self, value)

    def refuse(self, refusal: Refused) -> None:
        """The call raises `refusal`. The waiter must have left its queue."""
        self.owner.host.refuse(self, refusal)

    def amend(self, payload: Any) -> None:
        """Replaces the payload. It is its session's, so the host hears of it first."""
        self.owner.host.touch_session(self.session)
        self.payload = payload

    def leave(self) -> None:
        """Out of whatever queue it stands in."""
        assert self.queue is not None
        self.queue.remove(self)


class WaitQueue:
    """First come, first served; O(1) whatever its length.

    Args:
        owner: the object it belongs to, which lists its queues by the order they were made in.

    """

    __slots__ = ("_line", "owner")

    def __init__(self, owner: Replicated) -> None:
        self.owner = owner
        # None until somebody waits: most objects are never waited for, and an empty OrderedDict weighs half a KB.
        # Invariant: every waiter in it has this queue as its `queue`.
        self._line: OrderedDict[tuple[int, int], Waiter] | None = None
        owner.queues += (self,)

    def __len__(self) -> int:
        return len(self._line) if self._line is not None else 0

    def __bool__(self) -> bool:
        return bool(self._line)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self._line.values() if self._line is not None else ())

    def __reversed__(self) -> Iterator[Waiter]:
        return reversed(self._line.values() if self._line is not None else ())

    def park(self, waiter: Waiter) -> None:
        """To the end of the line."""
        assert waiter.queue is None, "a waiter stands in one queue"
        if self._line is None:
            self._line = OrderedDict()
        key = (waiter.session, waiter.lane)
        assert key not in self._line, "a lane waits once"
        self._line[key] = waiter
        waiter.queue = self

    def unpark(self) -> Waiter | None:
        """The first in line, out of it; None when nobody waits."""
        if not self._line:
            return None
        _, waiter = self._line.popitem(last=False)
        waiter.queue = None
        return waiter

    def remove(self, waiter: Waiter) -> None:
        """Out of the line, wherever in it."""
        assert waiter.queue is self
        assert self._line is not None
        del self._line[waiter.session, waiter.lane]
        waiter.queue = None

    def unpark_all(self) -> Iterator[Waiter]:
        """Everybody who waits now, in order, each out of the line before it is handed out."""
        for _ in range(len(self)):
            waiter = self.unpark()
            assert waiter is not None
            yield waiter
