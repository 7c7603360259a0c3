# SPDX-License-Identifier: Apache-2.0
"""The standard library's own classes, over a lock that takes turns (`baton`): what ours are compared with.

Their source is the running interpreter's, class by class; only the lock and the clock that they find in their module
are others. Where the order among waiters is not defined there (who gets a Lock next), it is first come, first served
here, which is one of the orders that it may have, and the one that we promise.

A class's own inner lock goes to whoever has its turn first, so that those whom a full barrier lets through are out of
it before somebody who came to abort it meanwhile is in; the standard library may do it either way.

These differences are meant, and stand here: a Condition's waiter whose time is up leaves the line at that moment (in
the standard library it may still swallow a notification that it then does not report); queues know `shutdown` on every
version, as they do from 3.13 on; and Ctrl-C in the middle of a wait does what our table of outcomes says, where the
standard library leaves it to chance. Who was granted a lock, a permit or an item and is struck before it can say so
gives it back, and the next in line has it (there the notification is lost). A put for which there was room is done, and
then the interrupt is raised. A Condition's wait ends with the lock held, whatever strikes. Ctrl-C at a barrier breaks
it, as a timeout does, unless it was full.
"""

from __future__ import annotations

import _thread
import ast
import inspect
import queue
import threading
from functools import partial
from types import SimpleNamespace
from typing import Any

from tests.stateful.baton import Baton, BatonLock, FreeLock

HAS_SHUTDOWN = hasattr(queue, "ShutDown")


def _classes(module: Any, names: set[str]) -> Any:
    """The code of these classes of that module, to be run elsewhere."""
    tree = ast.parse(inspect.getsource(module))
    body = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in names]
    missing = names - {node.name for node in body}
    assert not missing, missing
    return compile(ast.Module(body, []), module.__file__, "exec")


_THREADING = _classes(threading, {"_RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier"})
_QUEUE = _classes(queue, {"Queue", "LifoQueue", "PriorityQueue", "_PySimpleQueue"})


class _Leaving:
    """Mixed into Condition."""

    goes_on = False
    """Who was notified and is struck does what it waited for, and hears of it then."""

    def wait(self, timeout: float | None = None) -> bool:
        """As the standard library's, but for the line before the lock is taken again."""
        if not self._is_owned():
            raise RuntimeError("cannot wait on un-acquired lock")
        waiter = self._new_lock()
        waiter.acquire()
        self._waiters.append(waiter)
        saved = self._release_save()
        baton, passes_on = waiter._baton, False
        baton.strike()  # put off before, and now it would wait again
        try:
            # Where no time is given, too, whoever got the lock just now comes first: it may there, and so it does here.
            return waiter.acquire_within(None if timeout is None else max(0.0, timeout))
        except KeyboardInterrupt:
            if waiter not in self._waiters and self.goes_on:
                baton.put_off()
                return True
            passes_on = waiter not in self._waiters and isinstance(self._lock, FreeLock)
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            with baton.shield():
                self._acquire_restore(saved)
            if passes_on:
                self.notify()
            if not self.goes_on:
                baton.strike()


class _Breaking:
    """Mixed into Barrier."""

    def _wait(self, timeout: float | None) -> None:
        try:
            super()._wait(timeout)
        except KeyboardInterrupt:
            if self._state == 0:
                self._break()
            raise


class _Putting:
    """Mixed into the queues."""

    baton: Baton

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self.not_full.goes_on = True

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        try:
            super().put(item, block, timeout)
        finally:
            self.baton.strike()


class ShutDown(Exception):
    """Of queues before 3.13."""


class _ShuttingDown:
    """Mixed into the queues of an interpreter before 3.13: its put and get, and that one's shutdown."""

    is_shutdown = False

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self.not_full.wait = partial(self._wait, self.not_full.wait, lambda: False)
        self.not_empty.wait = partial(self._wait, self.not_empty.wait, lambda: bool(self._qsize()))

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if self.is_shutdown:
            raise ShutDown
        super().put(item, block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if self.is_shutdown and not self._qsize():
            raise ShutDown
        return super().get(block, timeout)

    def _wait(self, wait: Any, may_go_on: Any, timeout: float | None = None) -> None:
        """3.13 looks after each wait."""
        wait(timeout)
        if self.is_shutdown and not may_go_on():
            raise ShutDown

    def shutdown(self, immediate: bool = False) -> None:
        with self.mutex:
            self.is_shutdown = True
            if immediate:
                while self._qsize():
                    self._get()
                    if self.unfinished_tasks > 0:
                        self.unfinished_tasks -= 1
                self.all_tasks_done.notify_all()
            self.not_empty.notify_all()
            self.not_full.notify_all()


def reference(baton: Baton) -> SimpleNamespace:
    """The module, as it were: Lock, RLock, Condition, ..., Queue, LifoQueue, PriorityQueue."""
    lock, inner = partial(BatonLock, baton), partial(FreeLock, baton)
    names: dict[str, Any] = {**vars(threading), "_allocate_lock": lock, "Lock": inner, "_time": baton.time}
    exec(_THREADING, names)
    names["RLock"] = rlock = _checking(names["_RLock"])
    names["Condition"] = type("Condition", (_Leaving, names["Condition"]), {"_new_lock": staticmethod(lock)})
    names["Barrier"] = type("Barrier", (_Breaking, names["Barrier"]), {})
    queues = {
        **vars(queue),
        "threading": SimpleNamespace(**{name: names[name] for name in ("Lock", "Condition", "Semaphore")}),
        "time": baton.time,
    }
    exec(_QUEUE, queues)
    for name in ("Queue", "LifoQueue", "PriorityQueue"):
        bases = (queues[name],) if HAS_SHUTDOWN else (_ShuttingDown, queues[name])
        queues[name] = type(name, (_Putting, *bases), {"baton": baton})
    kinds = ("Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier")
    return SimpleNamespace(
        Lock=lock,
        RLock=rlock,
        **{name: names[name] for name in kinds},
        **{name: queues[name] for name in ("Queue", "LifoQueue", "PriorityQueue")},
        SimpleQueue=queues["_PySimpleQueue"],
    )


def _checking(rlock: Any) -> Any:
    """The one in Python does not look at its arguments where it need not wait; the one in C, which all have, does."""

    class RLock(rlock):
        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
            if blocking is not True or timeout != -1:
                _thread.RLock().acquire(blocking, timeout)
            return bool(super().acquire(blocking, timeout))

        __enter__ = acquire

        def locked(self) -> bool:
            return bool(self._block.locked())

    return RLock
