# SPDX-License-Identifier: Apache-2.0
"""Lock, RLock and Condition as models: who holds, who waits to hold, and who waits to be notified."""

from __future__ import annotations

from typing import Any

from tests.sim.checkers.models import Caller, Model, Raises, Waiting


class Lock(Model):
    """One holder; who waits is served in the order of coming. A Lock may be released by anybody."""

    kind = "Lock"
    reads = ("locked", "holder")
    undoable = frozenset({"acquire"})

    def made(self) -> None:
        self.holder: tuple[int, int] | None = None
        self.depth = 0
        self.fence: Any = 0
        self.waiting = self.line()
        self.pins = 0

    def kept(self) -> bool:
        return super().kept() or self.pins > 0

    def do_acquire(self, caller: Caller, blocking: bool, thread: int) -> Any:
        if self.holder is None:
            return self.answer(caller.operation, self.take(caller.session, thread, 1))
        return self.park(caller, self.waiting, thread, 1) if blocking else False

    def do_release(self, caller: Caller, fence: int | None) -> None:
        self.same(fence)
        if self.holder is None:
            raise Raises("runtime")
        self.pass_on()

    def answer(self, operation: str, fence: Any) -> Any:
        """What an acquire returns."""
        return fence

    def take(self, session: int, thread: int, depth: int) -> Any:
        """It is that thread's from now on."""
        assert self.holder is None
        self.holder, self.depth = (session, thread), depth
        self.fence = self.reference.pledge(self)
        self.reference.has(session, self)
        return self.fence

    def same(self, fence: int | None) -> None:
        """Whoever names another grant than the latest has lost what it held."""
        if fence is not None and fence != self.fence:
            raise Raises("lock_lost")

    def owned(self, session: int, thread: int) -> bool:
        """As a Condition asks: a Lock is owned when anybody has it."""
        return self.holder is not None

    def pass_on(self) -> None:
        """Free; the first in line has it, if there is one."""
        assert self.holder is not None
        self.reference.has_not(self.holder[0], self)
        self.holder, self.depth = None, 0
        waiting = self.first(self.waiting)
        if waiting is not None:
            self.grant(waiting)

    def grant(self, waiting: Waiting) -> None:
        """To one who waited."""
        fence = self.take(waiting.caller.session, waiting.thread, waiting.data)
        if isinstance(waiting.owner, Condition):
            waiting.owner.has_lock_again(waiting, fence)
        else:
            self.told(waiting, self.answer(waiting.caller.operation, fence))

    def taken_back(self, caller: Caller, value: Any) -> None:
        if value is not False and value == self.fence and self.holder is not None and self.holder[0] == caller.session:
            self.pass_on()

    def ended(self, session: int) -> None:
        if self.holder is not None and self.holder[0] == session:
            self.pass_on()
            if self.holder is None:
                self.fence = 0

    def initial(self) -> bool:
        return self.holder is None

    def view(self) -> tuple[Any, ...]:
        holding = None if self.holder is None else (*self.holder, self.fence, self.depth)
        return (self.holder is not None, holding)


class RLock(Lock):
    """Its thread may take it again; nobody else may release it."""

    kind = "RLock"
    undoable = frozenset({"acquire", "acquire_restore"})

    def do_acquire(self, caller: Caller, blocking: bool, thread: int) -> Any:
        if self.owned(caller.session, thread):
            self.depth += 1
            return (self.fence, self.depth)
        return super().do_acquire(caller, blocking, thread)

    def do_release(self, caller: Caller, fence: int | None, thread: int = 0) -> Any:
        self._mine(caller, fence, thread)
        if self.depth > 1:
            self.depth -= 1
            return self.depth
        self.pass_on()
        return 0

    def do_release_save(self, caller: Caller, thread: int, fence: int | None = None) -> Any:
        self._mine(caller, fence, thread)
        saved = (self.depth, self.fence)
        self.pass_on()
        return saved

    def do_acquire_restore(self, caller: Caller, thread: int, depth: int) -> Any:
        if self.owned(caller.session, thread):
            raise Raises("runtime")
        if self.holder is None:
            return self.take(caller.session, thread, depth)
        return self.park(caller, self.waiting, thread, depth)

    def _mine(self, caller: Caller, fence: int | None, thread: int) -> None:
        self.same(fence)
        if not self.owned(caller.session, thread):
            raise Raises("runtime")

    def owned(self, session: int, thread: int) -> bool:
        return self.holder == (session, thread)

    def answer(self, operation: str, fence: Any) -> Any:
        return fence if operation == "acquire_restore" else (fence, 1)

    def taken_back(self, caller: Caller, value: Any) -> None:
        if caller.operation == "acquire_restore":
            super().taken_back(caller, value)
        elif value is not False and value[0] == self.fence and self.holder and self.holder[0] == caller.session:
            self.depth -= 1
            if not self.depth:
                self.pass_on()


class Condition(Model):
    """wait() frees its lock, and answers when it holds it again: after a notify, or when time is up."""

    kind = "Condition"
    reads = ("waiters",)
    followed = frozenset({"wait"})

    def made(self) -> None:
        self.waiting = self.line()
        self.pins = 0
        self.locks: dict[Waiting, Lock] = {}
        """Which lock whoever waits gave up: one that was deleted is not another one of that name."""
        self.unnotified: list[Waiting] = []
        """Whoever waits in either line and was not notified."""
        self.unheard: dict[tuple[int, int], bool] = {}
        """(session, lane) of answers that say "notified" and may not have arrived."""

    def kept(self) -> bool:
        return super().kept() or self.pins > 0

    def do_wait(self, caller: Caller, handle: int, thread: int, fence: int | None) -> Any:
        lock = self._lock(caller, handle, thread, fence)
        lock.pins += 1
        self.pins += 1
        # A waiting's data is what the lock needs of it: the depth to restore.
        parked = self.park(caller, self.waiting, thread, lock.depth)
        self.unnotified.append(self.waiting[-1])
        self.locks[self.waiting[-1]] = lock
        lock.pass_on()
        return parked

    def do_notify(self, caller: Caller, handle: int, thread: int, n: int, fence: int | None) -> None:
        self._lock(caller, handle, thread, fence)
        self.notify(len(self.waiting) if n == -1 else n)

    def _lock(self, caller: Caller, handle: int, thread: int, fence: int | None) -> Lock:
        lock = self.reference.meant(caller.session, handle)
        assert isinstance(lock, Lock)
        assert (*lock.key, lock.kind) == self.arguments, "the workloads pass a Condition its own lock"
        lock.same(fence)
        if not lock.owned(caller.session, thread):
            raise Raises("runtime")
        return lock

    def notify(self, n: int) -> None:
        """The first `n` go to the lock's line."""
        for waiting in self.waiting[:n]:
            waiting.leave()
            self.unnotified.remove(waiting)
            self._to_lock(waiting)

    def _to_lock(self, waiting: Waiting) -> None:
        lock = self.locks[waiting]
        if lock.gone:
            self._unpin(waiting)
            self.unnotified = [other for other in self.unnotified if other is not waiting]
            self.refused(waiting, "gone")
        elif lock.holder is None:
            lock.grant(waiting)
        else:
            lock.waiting.append(waiting)
            waiting.line = lock.waiting

    def has_lock_again(self, waiting: Waiting, fence: Any) -> None:
        """It returns, with the lock held."""
        self._unpin(waiting)
        notified = waiting not in self.unnotified
        if notified:
            self.unheard[waiting.caller.session, waiting.caller.lane] = True
            self.reference.has(waiting.caller.session, self)
        else:
            self.unnotified.remove(waiting)
        self.told(waiting, (notified, fence))

    def _unpin(self, waiting: Waiting) -> None:
        self.pins -= 1
        self.locks.pop(waiting).pins -= 1

    def timed_out(self, waiting: Waiting) -> None:
        if waiting.line is self.waiting:
            waiting.leave()
            self._to_lock(waiting)

    def left(self, waiting: Waiting, line: list[Waiting]) -> None:
        self._unpin(waiting)
        if waiting in self.unnotified:
            self.unnotified.remove(waiting)
        else:
            self.notify(1)  # a notify is never spent on whoever has gone

    def heard(self, caller: Caller) -> None:
        self.unheard.pop((caller.session, caller.lane), None)
        if not any(session == caller.session for session, _ in self.unheard):
            self.reference.has_not(caller.session, self)

    def ended(self, session: int) -> None:
        gone = [key for key in self.unheard if key[0] == session]
        for key in gone:
            del self.unheard[key]
        self.notify(len(gone))

    def initial(self) -> bool:
        return not self.unheard

    def view(self) -> tuple[Any, ...]:
        return (len(self.waiting),)
