# SPDX-License-Identifier: Apache-2.0
"""Condition: waiters in two lines. They wait here to be notified, and then in their lock's own line to hold it again.

wait() is one command: it frees the lock and parks. notify(), or the caller's time running out, moves the waiter to the
line of the lock; the answer comes when it holds the lock, as deep as before. A notify is never spent on a waiter that
has gone: one that was notified and goes before it holds the lock hands its notify on, and so does one whose client has
not shown that it knows: it may have been dead for a lease already when the notify came.
"""

# ruff: noqa: ARG002 - the door gives every operation its call and every hook its facts, wanted or not

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from replicas.objects.base import Caller, Host, Refused, Replicated, operation
from replicas.objects.lock import Ownable
from replicas.objects.waiting import Waiter, WaitQueue

__all__ = ["Condition"]

TOGETHER_MAX: Final = 65_000
"""The most sessions and lanes that have not heard of their notifies in one record: an array has at most ELEMENTS_MAX
elements. More of them are rows."""


class Condition(Replicated):
    """`threading.Condition` over the lock that its arguments name: (namespace, name, kind)."""

    kind = "Condition"

    def __init__(self, host: Host, *arguments: Any) -> None:
        super().__init__(host, *arguments)
        if len(arguments) != 3 or any(type(argument) is not str for argument in arguments):
            raise Refused("type", "Condition() takes the namespace, the name and the kind of its lock")
        # A waiter's payload is (depth to restore, notified, the lock's number).
        # Invariant: whoever waits, here or in the lock's line, has pinned the lock and this condition.
        self.waiting = WaitQueue(self)
        # By session, the lanes whose answer says "notified" and may not have arrived. Invariant: none is empty.
        self.unheard: dict[int, dict[int, None]] = {}

    @operation(follow=True)
    def wait(self, call: Caller, lock: int, thread: int, fence: int | None) -> Any:
        """Answers (notified, fence of the new hold)."""
        owned = self._owned(call, lock, thread, fence, "cannot wait on un-acquired lock")
        self.host.touch(owned)
        self.host.pin(owned)
        self.host.pin(self)
        parked = call.park(self.waiting, (owned.count, False, owned.number), thread)
        owned.give_up()
        return parked

    @operation
    def notify(self, call: Caller, lock: int, thread: int, n: int, fence: int | None) -> None:
        """Notifies the first `n` who wait; all of them when `n` is -1."""
        owned = self._owned(call, lock, thread, fence, "cannot notify on un-acquired lock")
        self.host.touch(owned)
        self._notify(len(self.waiting) if n == -1 else n)

    @operation(reads=True)
    def waiters(self, call: Caller) -> int:
        """How many wait to be notified."""
        return len(self.waiting)

    def _owned(self, call: Caller, handle: int, thread: int, fence: int | None, complaint: str) -> Ownable:
        lock = self.host.attached(call.session, handle)
        if not isinstance(lock, Ownable) or (lock.namespace, lock.name, lock.kind) != self.arguments:
            namespace, name, kind = self.arguments
            raise Refused("mismatch", f"Condition {self.name!r} is over {kind} {name!r} of {namespace!r}, not this one")
        lock.check_fence(fence)
        if not lock.owned_by(call.session, thread):
            raise Refused("runtime", complaint)
        return lock

    def _notify(self, n: int) -> None:
        for _ in range(min(n, len(self.waiting))):
            waiter = self.waiting.unpark()
            assert waiter is not None
            depth, _, number = waiter.payload
            waiter.amend((depth, True, number))
            self._back_to_lock(waiter)

    def _lock_of(self, waiter: Waiter) -> Ownable | None:
        """The lock that the waiter gave up; None when that one was deleted (another may have its name now)."""
        lock = self.host.find(*self.arguments[:2])
        if lock is None or lock.number != waiter.payload[2]:
            return None
        assert isinstance(lock, Ownable)
        self.host.touch(lock)
        return lock

    def _back_to_lock(self, waiter: Waiter) -> None:
        lock = self._lock_of(waiter)
        if lock is not None and lock.fault is None:
            lock.readmit(waiter)
            return
        self._unpin(waiter)
        fault = lock.fault if lock is not None else None
        waiter.refuse(fault or Refused("gone", f"the lock of Condition {self.name!r} was deleted"))

    def _unpin(self, waiter: Waiter) -> None:
        lock = self._lock_of(waiter)
        if lock is not None:
            self.host.unpin(lock)
        self.host.unpin(self)

    # --- the door's hooks

    def reacquired(self, waiter: Waiter, fence: int) -> None:
        self.host.touch(self)
        self._unpin(waiter)
        if waiter.payload[1]:
            if waiter.session not in self.unheard:
                self.host.stake(waiter.session, self)
            self.unheard.setdefault(waiter.session, {})[waiter.lane] = None
        waiter.answer((waiter.payload[1], fence))

    def acknowledged(self, session: int, lane: int) -> None:
        lanes = self.unheard.get(session, {})
        lanes.pop(lane, None)
        if session in self.unheard and not lanes:
            del self.unheard[session]
            self.host.unstake(session, self)

    def session_ended(self, session: int) -> None:
        self._notify(len(self.unheard.pop(session, ())))

    def holders(self) -> tuple[int, ...]:
        return tuple(self.unheard)

    def withdrawn(self, waiter: Waiter) -> None:
        if waiter.queue is self.waiting:
            waiter.leave()
            self._back_to_lock(waiter)
        # Else it stands in the lock's line already, and its answer comes when it holds the lock.

    def abandoned(self, waiter: Waiter, queue: WaitQueue | None) -> None:
        self._unpin(waiter)
        if waiter.payload[1]:
            self._notify(1)

    def is_initial(self) -> bool:
        return not self.unheard

    def dump(self) -> tuple[Any, ...]:
        return tuple((session, *lanes) for session, lanes in self.unheard.items()) if self._fits_one_record else ()

    def load(self, state: tuple[Any, ...]) -> None:
        for row in state:
            self.load_row(row)

    def dump_rows(self) -> Iterable[Any]:
        if self._fits_one_record:
            return ()
        unheard = ((session, list(lanes)) for session, lanes in self.unheard.items())
        most = TOGETHER_MAX - 1
        return [(session, *lanes[at : at + most]) for session, lanes in unheard for at in range(0, len(lanes), most)]

    def load_row(self, row: Any) -> None:
        session, *lanes = row
        self.unheard.setdefault(session, {}).update(dict.fromkeys(lanes))

    @property
    def _fits_one_record(self) -> bool:
        return sum(map(len, self.unheard.values()), len(self.unheard)) <= TOGETHER_MAX
