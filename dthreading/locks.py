# SPDX-License-Identifier: Apache-2.0
"""Lock, RLock, Condition, Semaphore, BoundedSemaphore, Event and Barrier, in the order of the standard library.

A user's call comes in here, has its arguments judged as the running Python judges them, and goes to the group as one
operation of the object that its proxy names; who gets what, and when, is decided in `replicas/objects` alone. Those
that nobody owns stand in `signals`.
"""

# ruff: noqa: SLF001 - proxies know each other; the underscore is for users

from __future__ import annotations

import _thread
import operator
import time
import warnings
from typing import TYPE_CHECKING, ClassVar, TypeVar

from dthreading import naming, runtime
from dthreading.errors import DThreadingError, LockLost
from dthreading.holds import Hold
from dthreading.ownable import Ownable
from dthreading.proxy import Proxy, timeout_in_seconds
from dthreading.session.calls import RELEASE, RESTORE, WAIT_CONDITION
from dthreading.signals import Barrier, BoundedSemaphore, Event, Semaphore
from dthreading.wire.messages import Lifetime

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from dthreading.session.calls import Answer

__all__ = ["Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]

T = TypeVar("T")


class Lock(Ownable):
    """`threading.Lock` for all processes that use the group.

    Args:
        name: the same name is the same lock everywhere. Without it, a lock made at module level or in a class body is
            named after its place, and any other is private (and shared by pickling it).

    """

    __slots__ = ()
    __module__ = "dthreading"
    _proxy_kind: ClassVar = "Lock"

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if blocking is not True or timeout != -1:
            _thread.allocate_lock().acquire(blocking, timeout)
        return self._acquire(blocking, timeout)

    def release(self) -> None:
        """Free the lock; any thread of any process may.

        Raises:
            RuntimeError: it is not locked.
            LockLost: our lease ended while we held it; or another process released it, and it was acquired again.
                Nothing was released: whoever holds it now keeps it.

        """
        hold = None
        if self._proxy_settled:
            hold = self._proxy_holds.of_anybody(runtime.thread_token())
        if hold is None:  # a lock used as a signal: somebody else has acquired it
            self._ask("release", (None,), RELEASE)
            return
        self._check_valid(hold)
        try:
            self._release_once(0, hold)
        except LockLost as lost:
            if not runtime.client().holds_are_valid(hold.session):
                raise
            raise LockLost(
                f"{self._proxy_target}: another process has released the hold with fence {hold.fence}, and somebody"
                " acquired the lock after that; nothing was released now. Where one process acquires and another"
                " releases, in both directions, use a Semaphore(1), whose permits are nobody's"
            ) from lost
        except (DThreadingError, RecursionError):
            raise
        except RuntimeError:
            self._proxy_holds.forget(hold)  # another process released it meanwhile
            raise
        except BaseException:  # Ctrl-C, or what a signal handler raises
            self._finish_release(runtime.thread_token(), hold)
            raise
        self._proxy_holds.forget(hold)

    def _check_entered(self) -> None:
        if self._proxy_settled and self._proxy_holds.inherited:
            # A forked child comes to the end of its parent's `with`: to release would free what the parent holds.
            raise LockLost(f"{self._proxy_target}: this process was forked, and left the hold to its parent")

    def _release_once(self, thread: int, hold: Hold) -> int:  # noqa: ARG002 - of an RLock
        self._ask("release", (hold.fence,), RELEASE)
        return 0

    def _hold_in(self, answer: Answer) -> Hold:
        return Hold(answer.value, answer.session, 1)

    def _is_locked_by_thread(self) -> bool:
        return self.locked()  # to a Condition "owned" means locked by somebody, as in the standard library

    def __repr__(self) -> str:
        locked = self._peek("locked")
        state = "unknown" if locked is None else "locked" if locked else "unlocked"
        cls = type(self)
        return f"<{state} {cls.__module__}.{cls.__qualname__} object {self._proxy_place()}>"


class RLock(Ownable):
    """`threading.RLock` for all processes that use the group: the thread that has it may take it again.

    Args:
        name: as for `Lock`.

    """

    __slots__ = ()
    __module__ = "dthreading"
    _proxy_kind: ClassVar = "RLock"

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if blocking is not True or timeout != -1:
            _thread.RLock().acquire(blocking, timeout)
        hold = self._own_hold()
        if hold is not None:
            self._check_valid(hold)  # deeper into a lock that was lost: no
        return self._acquire(blocking, timeout)

    def release(self) -> None:
        """Go one level up, and free the lock at the last.

        Raises:
            RuntimeError: this thread does not hold it.
            LockLost: our lease ended while we held it.

        """
        hold = self._own_hold()
        if hold is None:
            raise RuntimeError("cannot release un-acquired lock")
        thread = runtime.thread_token()
        try:
            self._check_valid(hold)
            depth = self._release_once(thread, hold)
        except LockLost:
            self._rise(thread, hold, hold.depth - 1)
            raise
        except (DThreadingError, RuntimeError):
            raise
        except BaseException:  # as a Lock's
            self._finish_release(thread, hold)
            raise
        self._rise(thread, hold, depth)

    def _release_once(self, thread: int, hold: Hold) -> int:
        return int(self._ask("release", (hold.fence, thread), RELEASE).value)

    def _rise(self, thread: int, hold: Hold, depth: int) -> None:
        if depth > 0:
            self._proxy_holds.note(thread, hold._replace(depth=depth))
        else:
            self._proxy_holds.forget(hold)

    def _own_hold(self) -> Hold | None:
        return self._proxy_holds.of(runtime.thread_token()) if self._proxy_settled else None

    def _hold_in(self, answer: Answer) -> Hold:
        fence, depth = answer.value
        return Hold(fence, answer.session, depth)

    # --- what Condition, of the standard library as well, and concurrent.futures ask of an RLock

    def _is_owned(self) -> bool:
        hold = self._own_hold()
        return hold is not None and runtime.client().holds_are_valid(hold.session)

    def _recursion_count(self) -> int:
        hold = self._own_hold()
        return hold.depth if hold is not None and runtime.client().holds_are_valid(hold.session) else 0

    def _release_save(self) -> tuple[int, int]:
        hold = self._own_hold()
        if hold is None:
            raise RuntimeError("cannot release un-acquired lock")
        self._check_valid(hold)
        thread = runtime.thread_token()
        depth, fence = self._ask("release_save", (thread, hold.fence), RELEASE).value
        self._proxy_holds.forget(hold)
        return depth, fence

    def _acquire_restore(self, state: tuple[int, int]) -> None:
        thread = runtime.thread_token()
        answer = self._ask("acquire_restore", (thread, state[0]), RESTORE)
        self._proxy_holds.note(thread, Hold(answer.value, answer.session, state[0]))

    def _is_locked_by_thread(self) -> bool:
        return self._is_owned()

    def __repr__(self) -> str:
        held = self._peek("holder") if self._peek("locked") else ()
        state = "unknown" if held is None else "locked" if held else "unlocked"
        # The owner is (session, thread): `dthreading locks` says which process that is.
        owner, depth = (f"{held[0]}/{held[1]}", held[3]) if held else ("0", 0)
        cls = type(self)
        name = f"{cls.__module__}.{cls.__qualname__}"
        return f"<{state} {name} object owner={owner} count={depth} {self._proxy_place()}>"


class Condition(Proxy):
    """`threading.Condition` for all processes that use the group.

    wait() is one command to the group: it frees the lock, waits to be notified, answers once the lock is held again.
    A predicate given to wait_for() is evaluated here: let it read what all processes share, or it shares nothing.

    Args:
        lock: a Lock or RLock of this package; several conditions may share one. Without it, an RLock of its own.
        name: as for `Lock`. A lock that has no name of its own becomes `<name>.lock`.

    """

    __module__ = "dthreading"
    _proxy_kind: ClassVar = "Condition"
    _proxy_probe = ("waiters", ())

    def __init__(self, lock: Lock | RLock | None = None, *, name: str | None = None) -> None:
        if lock is not None and not isinstance(lock, Ownable):
            raise TypeError(
                f"a distributed Condition needs a Lock or RLock of dthreading, not a {type(lock).__qualname__}: its"
                " waiters stand on the servers, which know nothing of a lock of one process"
            )
        self._proxy_init(name)
        if lock is None:
            lock = RLock._proxy_named(self._lock_name())
        elif not lock._proxy_settled and lock._proxy_target.lifetime == Lifetime.PRIVATE:
            lock._proxy_be(self._lock_name(), ())
        self._lock: Lock | RLock = lock

    def _lock_name(self) -> naming.Name:
        target = self._proxy_target
        return naming.Name(f"{target.name}.lock", Lifetime(target.lifetime))

    def _proxy_settle(self) -> None:
        if not self._lock._proxy_settled:
            self._lock._proxy_settle()
        lock = self._lock._proxy_target
        self._proxy_target.arguments = (lock.namespace, lock.name, lock.kind)
        super()._proxy_settle()

    # --- the lock's own

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """The lock's."""
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        """The lock's."""
        self._lock.release()

    def locked(self) -> bool:
        """The lock's."""
        return self._lock.locked()

    @property
    def fence(self) -> int | None:
        """The lock's."""
        return self._lock.fence

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, traceback)

    def _is_owned(self) -> bool:
        return self._lock._is_locked_by_thread()

    def _release_save(self) -> tuple[int, int] | None:
        if isinstance(self._lock, RLock):
            return self._lock._release_save()
        self._lock.release()
        return None

    def _acquire_restore(self, state: tuple[int, int] | None) -> None:
        if isinstance(self._lock, RLock) and state is not None:
            self._lock._acquire_restore(state)
        else:
            self._lock.acquire()

    def _recursion_count(self) -> int:
        return self._lock._recursion_count() if isinstance(self._lock, RLock) else 0

    def _at_fork_reinit(self) -> None:
        self._lock._at_fork_reinit()

    # --- waiting and waking

    def wait(self, timeout: float | None = None) -> bool:
        """Free the lock, wait to be notified or for the time to run out, and hold the lock again.

        Returns:
            Whether it was notified.

        Raises:
            RuntimeError: the lock is not held.
            LockLost: the lease ended meanwhile; the lock is not held.

        """
        seconds = timeout_in_seconds(timeout)
        thread, hold = self._held("cannot wait on un-acquired lock")
        holds = self._lock._proxy_holds
        lock = self._lock._proxy_target
        arguments = (lock, thread, None if hold is None else hold.fence)

        def reacquired(answer: Answer) -> None:
            self._lock._proxy_holds.note(
                thread, Hold(answer.value[1], answer.session, 1 if hold is None else hold.depth)
            )

        if hold is not None:
            holds.forget(hold)
        try:
            answer = self._ask("wait", arguments, WAIT_CONDITION, seconds, (lock,), reacquired)
            reacquired(answer)
            return bool(answer.value[0])
        except BaseException:
            if hold is not None and holds.of(thread) is None:
                holds.note(thread, hold)  # it never began to wait; or the hold is lost, which is not to be forgotten
            raise

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        """Wait until `predicate()` is true, or the time has run out, and return what it said last.

        As in the standard library the time counts from the first wait, and there is one, however little time is given:
        whoever polls with no timeout at all lets others have the lock in between.
        """
        end = None
        remaining = timeout
        result = predicate()
        while not result:
            if end is not None:
                remaining = end - time.monotonic()
                if remaining <= 0:
                    break
            elif timeout is not None:
                end = time.monotonic() + timeout
            self.wait(remaining)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        """Wake up to `n` of those who wait; they return one after the other, as each gets the lock."""
        self._notify(max(0, operator.index(n)))

    def notify_all(self) -> None:
        """Wake all who wait."""
        self._notify(-1)

    def notifyAll(self) -> None:  # noqa: N802 - the standard library's
        """Deprecated: `notify_all`."""
        warnings.warn("notifyAll() is deprecated, use notify_all() instead", DeprecationWarning, stacklevel=2)
        self.notify_all()

    def _notify(self, n: int) -> None:
        thread, hold = self._held("cannot notify on un-acquired lock")
        lock = self._lock._proxy_target
        self._ask("notify", (lock, thread, n, None if hold is None else hold.fence), RELEASE, None, (lock,))

    def _held(self, complaint: str) -> tuple[int, Hold | None]:
        """The calling thread and its hold: of a Lock the hold of any thread will do, as in the standard library."""
        if not self._proxy_settled:
            self._proxy_settle()
        thread = runtime.thread_token()
        if isinstance(self._lock, RLock):
            hold = self._lock._proxy_holds.of(thread)
            if hold is None:
                raise RuntimeError(complaint)
        else:
            hold = self._lock._proxy_holds.of_anybody(thread)
            if self._lock._proxy_holds.inherited:
                raise RuntimeError(complaint)  # our parent held it when it forked us
        if hold is not None:
            self._lock._check_valid(hold)
        return thread, hold

    def __repr__(self) -> str:
        return f"<Condition({self._lock!r}, {self._peek('waiters')}) {self._proxy_place()}>"
