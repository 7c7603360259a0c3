# SPDX-License-Identifier: Apache-2.0
"""Real threads of which exactly one runs at a time, by turns that nothing but the program decides; and a clock.

A thread keeps the baton until it waits (`wait`) or has done what it was given (`begin`). Whoever became able to go on
first goes on first. Time stands still but for `pass_time`. So a run is the same each time, and a thread that blocks is
known to block: no clock of the machine is asked and nothing sleeps.

A thread that waits may be struck by Ctrl-C: at once, or in the very moment in which it could have gone on.
"""

from __future__ import annotations

import _thread
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Unwind(BaseException):
    """The run is over; whoever still waits is to leave."""


class Worker:
    """A thread that takes turns. It outlives its runs, since threads are dear."""

    def __init__(self) -> None:
        self.go = _thread.allocate_lock()
        self.go.acquire()
        self.baton: Baton | None = None
        self.work: Callable[[], Any] | None = None
        self.outcome: tuple[Any, ...] = ()
        threading.Thread(target=self._run, name="a simulated thread", daemon=True).start()

    def _run(self) -> None:
        _current.worker = self
        while True:
            self.go.acquire()
            assert self.work is not None
            assert self.baton is not None
            try:
                self.outcome = ("returned", self.work())
            except Unwind:
                self.outcome = ("unwound",)
            except BaseException as error:
                self.outcome = ("raised", type(error).__name__, str(error))
            self.work = None
            self.baton.back.release()


class _Current(threading.local):
    worker: Worker | None = None


_current = _Current()
_idle: list[Worker] = []


def current() -> Worker | None:
    """The worker that runs here; None in the thread that gives out the turns."""
    return _current.worker


class Baton:
    """One run of some workers."""

    def __init__(self, workers: int) -> None:
        self.now = 0.0
        self.back = _thread.allocate_lock()
        self.back.acquire()
        self.workers = [_idle.pop() if _idle else Worker() for _ in range(workers)]
        for worker in self.workers:
            worker.baton, worker.outcome = self, ()
        self.on_turn: Callable[[Worker], None] = lambda _: None
        """Called before a worker runs."""
        self._able: deque[Worker] = deque()
        self._waiting: dict[Worker, float | None] = {}
        self._woken: set[Worker] = set()
        self._struck: set[Worker] = set()
        self._shielded: set[Worker] = set()
        self._over = False

    # --- for whoever gives out the turns

    def begin(self, worker: Worker, work: Callable[[], Any]) -> None:
        """`work` is the worker's from now on, and everybody who can goes on until nobody can."""
        assert worker.work is None
        worker.work, worker.outcome = work, ()
        self._able.append(worker)
        self.settle()

    def settle(self) -> None:
        """Turns, until all wait or are idle."""
        self.pass_time(0)

    def pass_time(self, seconds: float) -> None:
        """Waits whose time is up end, one after the other, each with all that it brings about."""
        end = self.now + seconds
        while True:
            while self._able:
                self._turn(self._able.popleft())
            due = [(at, order, worker) for order, (worker, at) in enumerate(self._waiting.items()) if at is not None]
            at, _, worker = min(due, key=lambda one: one[:2], default=(end + 1, 0, None))
            if worker is None or at > end:
                break
            self.now = max(self.now, at)
            del self._waiting[worker]
            self._able.append(worker)
        self.now = end

    def delay(self, seconds: float) -> None:
        """So much time passes, and whoever's time is up by then notices that after the next thing that is done."""
        self.now += seconds

    def doom(self, worker: Worker) -> None:
        """It waits, and Ctrl-C strikes it as soon as it goes on, for whatever reason."""
        assert worker in self._waiting
        self._struck.add(worker)

    def interrupt(self, worker: Worker) -> None:
        """Ctrl-C strikes it now, where it waits."""
        self.doom(worker)
        if worker not in self._shielded:
            del self._waiting[worker]
            self._able.append(worker)

    def is_doomed(self, worker: Worker) -> bool:
        """Whether Ctrl-C is on its way to it."""
        return worker in self._struck

    def is_waiting(self, worker: Worker) -> bool:
        """Whether it is in the middle of a call, which cannot go on."""
        return worker.work is not None

    def end(self) -> None:
        """Whoever waits leaves; the workers are free for the next run."""
        self._over = True
        for worker in list(self._waiting):
            while worker.work is not None:
                self._turn(worker)
        _idle.extend(self.workers)

    def _turn(self, worker: Worker) -> None:
        self.on_turn(worker)
        worker.go.release()
        self.back.acquire()

    # --- for the workers

    def wait(self, seconds: float | None = None) -> bool:
        """Blocks the calling worker until it is woken: True; or until its time is up: False."""
        worker = current()
        assert worker is not None, "who gives out the turns must not wait"
        if self._over:
            raise Unwind
        self._waiting[worker] = None if seconds is None else self.now + seconds
        self.back.release()
        worker.go.acquire()
        if self._over:
            raise Unwind
        woken = worker in self._woken
        self._woken.discard(worker)
        if worker not in self._shielded:
            self.strike()
        return woken

    def strike(self) -> None:
        """Ctrl-C, if it has come for the calling worker."""
        worker = current()
        if worker in self._struck:
            self._struck.discard(worker)
            raise KeyboardInterrupt

    def put_off(self) -> None:
        """What has just struck the calling worker strikes it later."""
        worker = current()
        assert worker is not None
        self._struck.add(worker)

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Here the calling worker is not to be interrupted; at the next place it is."""
        worker = current()
        assert worker is not None
        self._shielded.add(worker)
        try:
            yield
        finally:
            self._shielded.discard(worker)

    def wake(self, worker: Worker) -> None:
        """It need wait no longer; it goes on when its turn comes."""
        if worker in self._waiting:
            del self._waiting[worker]
            self._woken.add(worker)
            self._able.append(worker)

    def time(self) -> float:
        """In place of `time.monotonic`."""
        return self.now


class BatonLock:
    """`_thread.lock` among workers: first come, first served, handed from one to the next."""

    def __init__(self, baton: Baton) -> None:
        self._baton = baton
        self._locked = False
        self._line: deque[Worker] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if blocking is not True or timeout != -1:
            _thread.allocate_lock().acquire(blocking, timeout)  # its errors, and nothing else
        if not self._locked:
            self._locked = True
            return True
        if not blocking or timeout == 0:
            return False
        return self.acquire_within(None if timeout == -1 else timeout)

    def acquire_within(self, seconds: float | None) -> bool:
        """Of a lock that is locked: waits, be it for no time at all, in which others have their turn."""
        worker = current()
        assert worker is not None
        assert self._locked
        self._line.append(worker)
        try:
            if self._baton.wait(seconds):
                return True  # whoever released it has left it locked, and ours
        except KeyboardInterrupt:
            if worker in self._line:
                self._line.remove(worker)
            else:
                self.release()  # it was ours already: the next one has it
            raise
        self._line.remove(worker)
        return False

    def release(self) -> None:
        if not self._locked:
            _thread.allocate_lock().release()
        if self._line:
            self._baton.wake(self._line.popleft())
        else:
            self._locked = False

    def locked(self) -> bool:
        return self._locked

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class FreeLock(BatonLock):
    """Not handed to the next, but free for whoever has its turn first; and a Condition's waiters, who were in already,
    come before those who are not. `_thread.lock` may do this as well.
    """

    def __init__(self, baton: Baton) -> None:
        super().__init__(baton)
        self._returning: deque[Worker] = deque()

    def acquire_within(self, seconds: float | None) -> bool:
        assert seconds is None, "the standard library's classes wait for their inner locks for ever"
        return self._acquire(self._line)

    def _acquire(self, line: deque[Worker]) -> bool:
        worker = current()
        assert worker is not None
        while self._locked:
            line.append(worker)
            try:
                self._baton.wait()
            except KeyboardInterrupt:
                if worker in line:
                    line.remove(worker)
                elif not self._locked:
                    self._let_in()  # somebody else instead
                raise
        self._locked = True
        return True

    def release(self) -> None:
        assert self._locked
        self._locked = False
        self._let_in()

    def _let_in(self) -> None:
        line = self._returning or self._line
        if line:
            self._baton.wake(line.popleft())

    # What a Condition asks of its lock, where the lock has it.

    def _release_save(self) -> None:
        self.release()

    def _acquire_restore(self, _: None) -> None:
        self._acquire(self._returning)
