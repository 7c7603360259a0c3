# SPDX-License-Identifier: Apache-2.0
"""The same steps on the standard library's objects and on ours, and what is compared after each.

For every thread: whether it waits; if it has come back, what its call returned, or which exception with which text. And
what everybody may read: sizes, counts, flags.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import dthreading
import dthreading.queue
from tests.stateful.baton import Baton, BatonLock, Worker
from tests.stateful.reference import reference
from tests.stateful.stepped import processes

OURS = SimpleNamespace(
    **{
        name: getattr(dthreading, name)
        for name in ("Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier")
    },
    **{name: getattr(dthreading.queue, name) for name in ("Queue", "LifoQueue", "PriorityQueue", "SimpleQueue")},
)

Work = Callable[[dict[str, Any], "World"], Any]

compared = [0]
"""How many steps have been compared, in all duels of this process."""


class World:
    """What a program can reach besides the primitives, in either world; an action may wait at the gate."""

    def __init__(self, baton: Baton) -> None:
        self.gate = BatonLock(baton)
        self.actions = 0
        self.action_fails = False
        self.flag = False

    def action(self) -> None:
        self.actions += 1
        with self.gate:
            pass
        if self.action_fails:
            raise ZeroDivisionError("the action failed")


Make = Callable[[Any, World, Callable[[str], dict[str, Any]]], dict[str, Any]]
"""Given the module, the world and what gives an object's name: the objects, by what the steps call them."""


class Side:
    """One of the two."""

    def __init__(self, threads: int) -> None:
        self.baton = Baton(threads)
        self.world = World(self.baton)
        self.objects: list[dict[str, Any]] = []
        """For each thread what its process has."""

    def begin(self, thread: int, work: Callable[[dict[str, Any], World], Any]) -> None:
        self.baton.begin(self.baton.workers[thread], lambda: work(self.objects[thread], self.world))

    def state(self, thread: int) -> tuple[Any, ...]:
        worker = self.baton.workers[thread]
        return ("waits",) if self.baton.is_waiting(worker) else worker.outcome


class Duel:
    """Both, with `threads` threads, which belong to `process_count` processes in ours."""

    def __init__(self, threads: int, process_count: int, make: Make, reads: Callable[[dict[str, Any]], Any]) -> None:
        self.threads = range(threads)
        self._reads = reads
        self._stack = ExitStack()
        self.theirs = Side(threads)
        self.theirs.objects = [make(reference(self.theirs.baton), self.theirs.world, lambda _: {})] * threads
        self._stack.callback(self.theirs.baton.end)
        self.ours = Side(threads)
        self.processes = self._stack.enter_context(processes(self.ours.baton, process_count))
        made = [
            self.processes.make(process, lambda: make(OURS, self.ours.world, lambda name: {"name": name}))
            for process in range(process_count)
        ]
        self.ours.objects = [made[thread % process_count] for thread in self.threads]
        place = {worker: thread % process_count for thread, worker in enumerate(self.ours.baton.workers)}
        self.ours.baton.on_turn = lambda worker: self._enter(place, worker)
        self.story: list[str] = []

    def _enter(self, place: dict[Worker, int], worker: Worker) -> None:
        self.processes.enter(place[worker])

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.theirs, self.ours

    def has_stale_hold(self, thread: int) -> bool:
        """Whether the thread's process has a Lock on record that somebody else's process has released since.

        Whoever names such a hold hears LockLost and changes nothing; in the standard library, which knows no holders of
        a Lock, it would release it under whoever has it now. This is meant, so it is not compared.
        """
        it = self.ours.objects[thread]["it"]
        if it._proxy_kind != "Lock":
            return False
        lock = self.processes.group.machine.find(it._proxy_target.namespace, "it")
        return lock is not None and any(hold.fence != lock.fence for hold in it._proxy_holds._by_thread.values())

    def is_acting(self) -> bool:
        """Whether a barrier's action is running."""
        it = self.ours.objects[0]["it"]
        found = self.processes.group.machine.find(it._proxy_target.namespace, "it")
        return it._proxy_kind == "Barrier" and found is not None and found.runner is not None

    @property
    def may_act_for_long(self) -> bool:
        """Whether a barrier's action would wait at the gate: there it keeps out whom an interrupt has just struck."""
        return self.theirs.world.gate.locked()

    @property
    def idle(self) -> list[int]:
        """The threads that may be given something to do."""
        return [thread for thread in self.threads if self.theirs.state(thread) != ("waits",)]

    def step(self, thread: int, text: str, work: Callable[[dict[str, Any], World], Any]) -> None:
        """The thread does that in both worlds."""
        for side in self.sides:
            side.begin(thread, work)
        self._compare(f"thread {thread}: {text}")

    def everywhere(self, text: str, act: Callable[[Side], Any]) -> None:
        """Something happens to both worlds."""
        for side in self.sides:
            act(side)
            side.baton.settle()
        self._compare(text)

    def pass_time(self, seconds: float) -> None:
        """So much."""
        self.everywhere(f"{seconds} s pass", lambda side: side.baton.pass_time(seconds))

    # --- what strikes in the middle of a call

    @property
    def waiting(self) -> list[int]:
        """The threads that may be interrupted: those that wait, but for those whom a running action keeps out."""
        if self.is_acting():
            return []
        return [thread for thread in self.threads if self.theirs.state(thread) == ("waits",)]

    def interrupt(self, thread: int) -> None:
        """Ctrl-C where it waits."""
        self.everywhere(f"Ctrl-C in thread {thread}", lambda side: side.baton.interrupt(side.baton.workers[thread]))

    def race_interrupt(self, struck: int, thread: int, text: str, work: Work, *, on_the_way: bool) -> None:
        """Ctrl-C in `struck`, and `thread` does something that may let it go on.

        Args:
            struck: waits.
            thread: does `work` in both worlds, before anybody has heard of the interrupt.
            text: says what.
            work: that.
            on_the_way: `struck` has left, and the group has not heard so; else it has not had its turn yet.

        """
        for side in self.sides:
            worker = side.baton.workers[struck]
            if on_the_way and side is self.ours:
                self.processes.group.on_the_way = deque()
                side.baton.interrupt(worker)
                side.baton.settle()
            else:
                side.baton.doom(worker)
            side.begin(thread, work)
            if side is self.ours:
                self.processes.group.arrive()
            if side.baton.is_doomed(worker) and side.baton.is_waiting(worker):
                side.baton.interrupt(worker)
            side.baton.settle()
        how = "which is on its way" if on_the_way else "before its turn"
        self._compare(f"Ctrl-C in thread {struck}, {how}, and thread {thread}: {text}")

    def race_timeouts(self, seconds: float, thread: int, text: str, work: Work) -> None:
        """Time passes, and `thread` does something before anybody has heard whose time is up."""
        self.theirs.baton.delay(seconds)
        self.theirs.begin(thread, work)
        self.processes.group.on_the_way = deque()
        self.ours.baton.pass_time(seconds)
        self.ours.begin(thread, work)
        self.processes.group.arrive()
        self.ours.baton.settle()
        self._compare(f"{seconds} s pass, and at their end thread {thread}: {text}")

    def restore(self) -> None:
        """Our replica begins again from its snapshot."""
        self.processes.group.begin_again()
        self._compare("the replica restarts from its snapshot")

    def _compare(self, text: str) -> None:
        compared[0] += 1
        self.processes.enter(0)
        seen = [
            ([side.state(thread) for thread in self.threads], self._reads(side.objects[0]), side.world.actions)
            for side in self.sides
        ]
        self.story.append(f"{text}: {seen[1]}")
        if seen[0] != seen[1]:
            story = "\n    ".join(self.story)
            raise AssertionError(
                f"after\n    {story}\nthe standard library has\n    {seen[0]}\nand we have\n    {seen[1]}"
            )

    def end(self) -> None:
        """Threads and processes leave."""
        self._stack.close()
