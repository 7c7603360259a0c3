# SPDX-License-Identifier: Apache-2.0
"""Semaphore and BoundedSemaphore: permits, who has taken how many, and what of that returns when a session ends."""

# ruff: noqa: ARG002 - the door gives every operation its call and every hook its facts, wanted or not

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from replicas.objects.base import Caller, Host, Refused, Replicated, operation
from replicas.objects.waiting import WaitQueue

__all__ = ["BoundedSemaphore", "Semaphore"]


class Semaphore(Replicated):
    """`threading.Semaphore`.

    A session's permits (what it took less what it gave) return when it ends. But where a semaphore counts things that
    one program makes and another uses up, a dead user's takes must not come back as things that nobody made: once any
    session has given more than it took, nothing returns any more.
    """

    kind = "Semaphore"

    def __init__(self, host: Host, *arguments: Any) -> None:
        super().__init__(host, *arguments)
        if len(arguments) != 1 or type(arguments[0]) is not int:
            raise Refused("type", f"{self.kind}() takes its initial value")
        if arguments[0] < 0:
            raise Refused("value", "semaphore initial value must be >= 0")
        # Invariants: bool(waiting) implies available == 0. taken holds live sessions with a positive count only, and
        # nobody when the semaphore is a counter.
        self.available: int = arguments[0]
        self.taken: dict[int, int] = {}
        self.is_counter = not self.available  # what nobody made cannot be taken
        self.waiting = WaitQueue(self)

    @operation(undo=True)
    def acquire(self, call: Caller, blocking: bool, thread: int = 0) -> Any:
        """Answers True; False when it may not wait."""
        if self.available:
            self.available -= 1
            self._took(call.session)
            return True
        return call.park(self.waiting, None, thread) if blocking else False

    @operation
    def release(self, call: Caller, n: int, taken_in: int = 0) -> None:
        """Gives `n` permits, taken before or not. `taken_in`: the session in which they were, as far as is known. If
        that one is over they have come back by themselves: unless nothing does, as where things are counted.
        """
        if n < 1:
            raise Refused("value", "n must be one or more")
        owner = taken_in or call.session
        if owner != call.session and not self.is_counter and self.taken.get(owner, 0) < n:
            raise Refused("lock_lost", f"what session {owner} had taken went back when that was over")
        self.check_bound(n)
        self._gave(owner, n)
        self._add(n)

    @operation(reads=True)
    def value(self, call: Caller) -> int:
        """How many permits are free."""
        return self.available

    def check_bound(self, n: int) -> None:
        """Refuses a release that is too much."""

    def _add(self, n: int) -> None:
        self.available += n
        while self.available and (waiter := self.waiting.unpark()) is not None:
            self.available -= 1
            self._took(waiter.session)
            waiter.answer(True)

    def _took(self, session: int) -> None:
        if self.is_counter:
            return
        count = self.taken.get(session, 0)
        if not count:
            self.host.stake(session, self)
        self.taken[session] = count + 1

    def _gave(self, session: int, n: int) -> None:
        if self.is_counter:
            return
        left = self.taken.pop(session, 0) - n
        if left < 0:
            self.is_counter = True
            for other in (session, *self.taken):
                self.host.unstake(other, self)
            self.taken.clear()
        elif left:
            self.taken[session] = left
        else:
            self.host.unstake(session, self)

    # --- the door's hooks

    def undo(self, operation: str, session: int, lane: int, answer: Any) -> None:
        if answer is not True:
            return
        try:
            self.check_bound(1)
        except Refused:
            return  # somebody else has released what this caller took; then all are free, and no account has any
        self._gave(session, 1)
        self._add(1)

    def session_ended(self, session: int) -> None:
        count = self.taken.pop(session, 0)
        if count:
            self._add(count)

    def holders(self) -> tuple[int, ...]:
        return tuple(self.taken)

    def is_initial(self) -> bool:
        return self.available == self.arguments[0] and not self.taken

    def sight(self) -> dict[str, Any]:
        return {"value": self.available, "initial": self.arguments[0], "counter": self.is_counter}

    def dump(self) -> tuple[Any, ...]:
        return (self.available, self.is_counter)

    def load(self, state: tuple[Any, ...]) -> None:
        self.available, self.is_counter = state

    def dump_rows(self) -> Iterable[Any]:
        return list(self.taken.items())

    def load_row(self, row: Any) -> None:
        session, count = row
        self.taken[session] = count


class BoundedSemaphore(Semaphore):
    """`threading.BoundedSemaphore`: never more permits than it began with."""

    kind = "BoundedSemaphore"

    def check_bound(self, n: int) -> None:
        if self.available + n > self.arguments[0]:
            raise Refused("value", "Semaphore released too many times")
