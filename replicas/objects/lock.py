# SPDX-License-Identifier: Apache-2.0
"""Lock and RLock: one holder, one line of waiters, a new fence at every grant.

A holder is (session, thread); the thread is a token minted by the client and means something within its session only.
For a Lock the thread is kept for people to see: any thread of any client may release it, as in `threading`.
"""

# ruff: noqa: ARG002 - the door gives every operation its call and every hook its facts, wanted or not

from __future__ import annotations

from typing import Any

from replicas.objects.base import Caller, Host, Refused, Replicated, operation
from replicas.objects.waiting import Waiter, WaitQueue

__all__ = ["Lock", "Ownable", "RLock"]


class Ownable(Replicated):
    """What Lock and RLock share, and what a Condition needs of either."""

    def __init__(self, host: Host, *arguments: Any) -> None:
        super().__init__(host, *arguments)
        if arguments:
            raise Refused("type", f"{self.kind}() takes no arguments")
        # Invariants: the holder's session is alive. bool(waiting) implies that there is a holder. count > 0 exactly
        # when there is a holder. `fence` is that of the latest grant, and stays when a holder releases; it is 0 when
        # a holder was lost and nobody followed, so that whoever names the old fence hears LockLost.
        self.owner: int | None = None
        self.thread = 0
        self.count = 0
        self.fence = 0
        self.waiting = WaitQueue(self)

    @operation(reads=True)
    def locked(self, call: Caller) -> bool:
        """Whether anybody holds it."""
        return self.owner is not None

    @operation(reads=True)
    def holder(self, call: Caller) -> tuple[int, int, int, int] | None:
        """(session, thread, fence, depth) of the hold; None when it is free."""
        return None if self.owner is None else (self.owner, self.thread, self.fence, self.count)

    # --- for a Condition over this lock

    def owned_by(self, session: int, thread: int) -> bool:
        """What "owned" means to a Condition."""
        raise NotImplementedError

    def give_up(self) -> int:
        """Frees the lock whatever its depth, and returns that depth."""
        depth = self.count
        self._pass_on()
        return depth

    def readmit(self, waiter: Waiter) -> None:
        """A Condition's waiter wants the lock again: now if it is free, else at the end of the line.

        Its payload begins with the depth to restore. Its owner's `reacquired` is called when it holds the lock.
        """
        if self.owner is None:
            self._grant(waiter)
        else:
            self.waiting.park(waiter)

    def check_fence(self, fence: int | None) -> None:
        """Whoever names a fence that is not the latest one has lost what it held."""
        if fence is not None and fence != self.fence:
            raise Refused("lock_lost", f"{self.kind} {self.name!r}: the hold with fence {fence} was lost")

    # --- how it changes hands

    def _take(self, session: int, thread: int, count: int) -> int:
        assert self.owner is None
        fence = self.host.next_fence()
        assert fence > self.fence, "fences increase"
        self.owner, self.thread, self.count, self.fence = session, thread, count, fence
        self.host.stake(session, self)
        return fence

    def _pass_on(self) -> None:
        """The holder holds it no more: the first in line does, if anybody waits."""
        assert self.owner is not None
        self.host.unstake(self.owner, self)
        self.owner, self.thread, self.count = None, 0, 0
        waiter = self.waiting.unpark()
        if waiter is not None:
            self._grant(waiter)

    def _grant(self, waiter: Waiter) -> None:
        fence = self._take(waiter.session, waiter.thread, waiter.payload[0])
        if waiter.owner is self:
            waiter.answer(self._granted(waiter, fence))
        else:
            waiter.owner.reacquired(waiter, fence)

    def _granted(self, waiter: Waiter, fence: int) -> Any:
        """The answer to an acquire of ours that had to wait."""
        raise NotImplementedError

    # --- the door's hooks

    def session_ended(self, session: int) -> None:
        if self.owner == session:
            self._pass_on()
            if self.owner is None:
                self.fence = 0

    def holders(self) -> tuple[int, ...]:
        return () if self.owner is None else (self.owner,)

    def is_initial(self) -> bool:
        return self.owner is None

    def sight(self) -> dict[str, Any]:
        return {"fence": self.fence, "thread": self.thread, "count": self.count}

    def dump(self) -> tuple[Any, ...]:
        return (self.owner, self.thread, self.count, self.fence)

    def load(self, state: tuple[Any, ...]) -> None:
        self.owner, self.thread, self.count, self.fence = state


class Lock(Ownable):
    """`threading.Lock`. Acquired, its answer is the fence."""

    kind = "Lock"

    @operation(undo=True)
    def acquire(self, call: Caller, blocking: bool, thread: int) -> Any:
        if self.owner is None:
            return self._take(call.session, thread, 1)
        return call.park(self.waiting, (1,), thread) if blocking else False

    @operation
    def release(self, call: Caller, fence: int | None) -> None:
        """`fence` is that of the hold to end; None: whoever holds it (a lock used as a signal)."""
        self.check_fence(fence)
        if self.owner is None:
            raise Refused("runtime", "release unlocked lock")
        self._pass_on()

    def owned_by(self, session: int, thread: int) -> bool:
        return self.owner is not None  # by somebody, as in the standard library

    def _granted(self, waiter: Waiter, fence: int) -> Any:
        return fence

    def undo(self, operation: str, session: int, lane: int, answer: Any) -> None:
        if self.owner == session and self.fence == answer:
            self._pass_on()


class RLock(Ownable):
    """`threading.RLock`. Acquired, its answer is (fence, depth); the fence is that of the outermost acquire."""

    kind = "RLock"

    @operation(undo=True)
    def acquire(self, call: Caller, blocking: bool, thread: int) -> Any:
        if self.owner is None:
            return (self._take(call.session, thread, 1), 1)
        if self.owned_by(call.session, thread):
            self.count += 1
            return (self.fence, self.count)
        return call.park(self.waiting, (1,), thread) if blocking else False

    @operation
    def release(self, call: Caller, fence: int | None, thread: int) -> int:
        """Returns the depth that is left."""
        self._check_owner(call, fence, thread)
        if self.count > 1:
            self.count -= 1
            return self.count
        self._pass_on()
        return 0

    @operation
    def release_save(self, call: Caller, thread: int, fence: int | None = None) -> tuple[int, int]:
        """For a Condition of the standard library over this lock: frees it whatever its depth; (depth, fence)."""
        self._check_owner(call, fence, thread)
        fence = self.fence
        return (self.give_up(), fence)

    @operation(undo=True)
    def acquire_restore(self, call: Caller, thread: int, count: int) -> Any:
        """The inverse of `release_save`: holds it again, `count` deep; the answer is the new fence."""
        if count < 1:
            raise Refused("value", "the depth to restore must be 1 or more")
        if self.owner is None:
            return self._take(call.session, thread, count)
        if self.owned_by(call.session, thread):
            raise Refused("runtime", "cannot restore a lock that is held")
        return call.park(self.waiting, (count,), thread)

    def owned_by(self, session: int, thread: int) -> bool:
        return self.owner == session and self.thread == thread

    def _check_owner(self, call: Caller, fence: int | None, thread: int) -> None:
        if not self.owned_by(call.session, thread):
            self.check_fence(fence)
            raise Refused("runtime", "cannot release un-acquired lock")
        self.check_fence(fence)

    def _granted(self, waiter: Waiter, fence: int) -> Any:
        return fence if waiter.operation.name == "acquire_restore" else (fence, self.count)

    def undo(self, operation: str, session: int, lane: int, answer: Any) -> None:
        if operation == "acquire_restore" and self.owner == session and self.fence == answer:
            self._pass_on()
        elif operation == "acquire" and answer and self.owner == session and self.fence == answer[0]:
            self.count -= 1
            if not self.count:
                self._pass_on()
