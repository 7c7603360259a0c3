# SPDX-License-Identifier: Apache-2.0
"""Random histories that are right, made without the models: the standard library's own objects answer, one at a time.

Each process begins a call, has it take effect some time later (a call that would block is tried again until it can),
and comes back some time after that. So the intervals overlap in every way, and a right order is known to exist.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from random import Random
from typing import Any

from dthreading.testing.history import History
from dthreading.testing.recorded import Call

BLOCKED = object()
"""What an attempt gives when the call cannot go on yet."""


class World:
    """Processes that use one object, drawn from `seed`."""

    def __init__(self, seed: int, processes: int, calls: int) -> None:
        self.luck = Random(seed)
        self.history = History()
        self.processes = [f"p{i}" for i in range(processes)]
        self.calls = calls
        self.items = itertools.count(1)
        self.declare()

    def declare(self) -> None:
        """Makes the object."""
        raise NotImplementedError

    def wish(self, process: str) -> tuple[str, tuple[Any, ...]]:
        """What `process` calls next, and with what."""
        raise NotImplementedError

    def attempt(self, call: Call, *, late: bool) -> Any:
        """Has it take effect: what it returns, an exception to raise, or BLOCKED. `late`: its time may be up."""
        raise NotImplementedError

    def run(self) -> History:
        """All calls begun; those that have not come back by the end stay open."""
        begun: dict[str, Call] = {}
        done: dict[str, Any] = {}
        left = self.calls
        turns = 20 * self.calls  # it may come to a standstill, as programs do
        while turns:
            turns -= 1
            if not left:
                turns = min(turns, 40)
            process = self.luck.choice(self.processes)
            if process in done:
                self._come_back(begun.pop(process), done.pop(process))
            elif process in begun:
                answer = self.attempt(begun[process], late=self.luck.random() < 0.5)
                if answer is not BLOCKED:
                    done[process] = answer
            elif left:
                begun[process] = self.history.invoke(process, "it", *self.wish(process))
                left -= 1
        return self.history

    def _come_back(self, call: Call, answer: Any) -> None:
        if self.luck.random() < 0.03 and call.operation != "wait":
            self.history.unknown(call)
        elif isinstance(answer, Exception):
            self.history.raised(call, answer)
        else:
            self.history.returned(call, answer)


def timed(luck: Random, forever: Any) -> tuple[Any, ...]:
    """(may wait, for how long)."""
    return luck.choice(((), (False,), (True, forever), (True, 0.1)))


class Locks(World):
    """A Lock with fences; sometimes released by who does not hold it, or when nobody does."""

    def declare(self) -> None:
        self.history.declare("it", "Lock")
        self.lock = threading.Lock()
        self.fences = itertools.count(1)
        self.fenced = self.luck.random() < 0.5
        self.holder = ""

    def wish(self, process: str) -> tuple[str, tuple[Any, ...]]:
        if self.holder == process or self.luck.random() < 0.05:
            return "release", ()
        return self.luck.choice((("acquire", timed(self.luck, -1)),) * 4 + (("locked", ()),))

    def attempt(self, call: Call, *, late: bool) -> Any:
        if call.operation == "locked":
            return self.lock.locked()
        if call.operation == "release":
            try:
                self.lock.release()
            except RuntimeError as error:
                return error
            self.holder = ""
            return None
        if self.lock.acquire(False):
            self.holder = call.process
            return next(self.fences) if self.fenced else True
        never = call.argument(0, True) is False
        return False if never or (late and call.argument(1, -1) != -1) else BLOCKED


class RLocks(World):
    """An RLock with a Condition, by hand: the standard library's needs threads of its own."""

    def declare(self) -> None:
        self.history.declare("it", "RLock")
        self.history.declare("condition", "Condition", "it")
        self.owner, self.depth = "", 0
        self.line: list[int] = []
        self.notified: set[int] = set()
        self.left: set[int] = set()
        self.saved: dict[int, int] = {}

    def wish(self, process: str) -> tuple[str, tuple[Any, ...]]:
        if self.owner == process and self.luck.random() < 0.7:
            return self.luck.choice(
                (("release", ()), ("release", ()), ("wait", (None,)), ("wait", (0.1,)), ("notify", (1,)),
                 ("notify_all", ()), ("acquire", ()))
            )  # fmt: skip
        return self.luck.choice((("acquire", ()), ("acquire", (False,)), ("acquire", (True, 0.1)), ("release", ())))

    def run(self) -> History:
        history = super().run()
        for call in history.calls:
            if call.operation in {"wait", "notify", "notify_all"}:
                call.object = "condition"
        return history

    def attempt(self, call: Call, *, late: bool) -> Any:
        owns = self.owner == call.process
        match call.operation:
            case "acquire":
                if owns or not self.owner:
                    self.owner, self.depth = call.process, self.depth + 1
                    return True
                never = call.argument(0, True) is False
                return False if never or (late and call.argument(1, -1) != -1) else BLOCKED
            case "release":
                if not owns:
                    return RuntimeError()
                self.depth -= 1
                self.owner = call.process if self.depth else ""
                return None
            case "wait":
                return self._wait(call, owns=owns, late=late)
        if not owns:
            return RuntimeError()
        n = len(self.line) if call.operation == "notify_all" else call.arguments[0]
        self.notified.update(self.line[:n])
        del self.line[:n]
        return None

    def _wait(self, call: Call, *, owns: bool, late: bool) -> Any:
        if call.number not in self.saved:
            if not owns:
                return RuntimeError()
            self.saved[call.number] = self.depth
            self.line.append(call.number)
            self.owner, self.depth = "", 0
        elif call.number in self.line:
            if late and call.arguments[0] is not None:
                self.line.remove(call.number)
                self.left.add(call.number)
        elif not self.owner:
            self.owner, self.depth = call.process, self.saved[call.number]
            return call.number in self.notified
        return BLOCKED


class Semaphores(World):
    """A Semaphore or a BoundedSemaphore."""

    def declare(self) -> None:
        kind = self.luck.choice((threading.Semaphore, threading.BoundedSemaphore))
        value = self.luck.choice((1, 1, 2, 3))
        self.semaphore = kind(value)
        self.history.declare("it", kind.__name__, value)

    def wish(self, process: str) -> tuple[str, tuple[Any, ...]]:
        return self.luck.choice(
            (("acquire", timed(self.luck, None)), ("release", ()), ("release", (self.luck.randint(1, 2),)))
        )

    def attempt(self, call: Call, *, late: bool) -> Any:
        if call.operation == "release":
            try:
                return self.semaphore.release(*call.arguments)
            except ValueError as error:
                return error
        if self.semaphore.acquire(False):
            return True
        never = call.argument(0, True) is False
        return False if never or (late and call.argument(1, None) is not None) else BLOCKED


class Events(World):
    """An Event."""

    def declare(self) -> None:
        self.event = threading.Event()
        self.history.declare("it", "Event")

    def wish(self, process: str) -> tuple[str, tuple[Any, ...]]:
        return self.luck.choice((("set", ()), ("clear", ()), ("is_set", ()), ("wait", (None,)), ("wait", (0.1,))))

    def attempt(self, call: Call, *, late: bool) -> Any:
        if call.operation != "wait":
            return getattr(self.event, call.operation)()
        if self.event.is_set():
            return True
        return False if late and call.arguments[0] is not None else BLOCKED


class Barriers(World):
    """A Barrier of two or three, by hand."""

    def declare(self) -> None:
        self.parties = self.luck.choice((2, 2, 3))
        self.history.declare("it", "Barrier", self.parties)
        self.arrived: list[int] = []
        self.answers: dict[int, Any] = {}
        self.broken = False

    def wish(self, process: str) -> tuple[str, tuple[Any, ...]]:
        return self.luck.choice(
            (("wait", (None,)),) * 6
            + (("wait", (0.1,)), ("abort", ()), ("reset", ()), ("n_waiting", ()), ("broken", ()))
        )

    def attempt(self, call: Call, *, late: bool) -> Any:
        match call.operation:
            case "n_waiting":
                return len(self.arrived)
            case "broken":
                return self.broken
            case "abort" | "reset":
                self._break()
                self.broken = call.operation == "abort"
                return None
        if call.number in self.answers:
            return self.answers[call.number]
        if call.number in self.arrived:
            if late and call.arguments[0] is not None:
                self._break()
            return BLOCKED
        if self.broken:
            return threading.BrokenBarrierError()
        self.arrived.append(call.number)
        if len(self.arrived) == self.parties:
            self.answers.update({number: index for index, number in enumerate(self.arrived)})
            self.arrived = []
        return BLOCKED

    def _break(self) -> None:
        self.answers.update(dict.fromkeys(self.arrived, threading.BrokenBarrierError()))
        self.arrived, self.broken = [], True


class Queues(World):
    """A Queue of each kind."""

    def declare(self) -> None:
        kind = self.luck.choice((queue.Queue, queue.Queue, queue.LifoQueue, queue.PriorityQueue))
        maxsize = self.luck.choice((0, 1, 2, 5))
        self.queue: Any = kind(maxsize)
        self.history.declare("it", kind.__name__, maxsize)

    def wish(self, process: str) -> tuple[str, tuple[Any, ...]]:
        item = next(self.items)
        if self.luck.random() < 0.2:
            item = self.luck.randint(0, 2)
        wait = timed(self.luck, None)
        return self.luck.choice(
            (("put", (item, *wait)),) * 9
            + (("get", wait),) * 9
            + (("task_done", ()),) * 4
            + (("join", ()), ("qsize", ()))
        )

    def attempt(self, call: Call, *, late: bool) -> Any:
        match call.operation:
            case "put":
                return self._or_blocked(call, 1, lambda: self.queue.put_nowait(call.arguments[0]), late=late)
            case "get":
                return self._or_blocked(call, 0, self.queue.get_nowait, late=late)
            case "join":
                return BLOCKED if self.queue.unfinished_tasks else self.queue.join()
        try:
            return getattr(self.queue, call.operation)()
        except ValueError as error:
            return error

    def _or_blocked(self, call: Call, position: int, attempt: Callable[[], Any], *, late: bool) -> Any:
        try:
            return attempt()
        except (queue.Full, queue.Empty) as error:
            never = call.argument(position, True) is False
            return error if never or (late and call.argument(position + 1, None) is not None) else BLOCKED


WORLDS: tuple[type[World], ...] = (Locks, RLocks, Semaphores, Events, Barriers, Queues)
