# SPDX-License-Identifier: Apache-2.0
"""Programs that hold one thing while they wait for another, always in one order, so none of them may ever be stuck."""

from __future__ import annotations

import random
from collections.abc import Iterable

from dthreading.session import calls
from tests.sim.client import Ask, Outcome, SimulatedClient, Sleep, Thread
from tests.sim.workloads.base import Inside, Resource, Scene, Workload, lives, target


class Philosophers(Workload):
    """Forks are numbered, and everybody takes the lower one first; a butler lets in one fewer than could be stuck."""

    forks = 4

    def __init__(self, name: str, scene: Scene) -> None:
        super().__init__(name, scene)
        self.inside = [Inside(f"fork {name} {fork}") for fork in range(self.forks)]
        self.plate = Resource(f"plate {name}", scene)

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        yield self._philosopher(client, luck, think_s)

    def _philosopher(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        butler = target("BoundedSemaphore", f"butler {self.name}", self.forks - 1)
        while self.scene.busy():
            yield self.scene.thinks(luck, 2 * think_s)
            held: list[tuple[calls.Target, Outcome]] = []
            with_butler = luck.random() < 0.5
            if with_butler:
                let_in = yield Ask(butler, "acquire", (True, number), calls.ACQUIRE)
                if let_in.how != "ok":
                    continue
            # With the highest fork first, someone would wait for his neighbour and he for him.
            for fork in sorted(luck.sample(range(self.forks), luck.choice((2, 2, 3)))):
                lock = target("Lock", f"fork {self.name} {fork}")
                patience = luck.choice((None, None, 1.0))
                outcome = yield Ask(lock, "acquire", (True, number), calls.ACQUIRE, patience)
                if outcome.how != "ok" or outcome.value is False:
                    break
                held.append((lock, outcome))
                self.inside[fork].enter((number, fork), client, outcome)
            yield Sleep(luck.choice((0.0, 0.05, 0.2)))
            self.scene.saw("mixed: held one and had another", int(len(held) > 1))
            for lock, outcome in reversed(held):
                self.inside[int(lock.name[-1])].leave((number, int(lock.name[-1])))
                if lives(client, outcome):
                    yield Ask(lock, "release", (outcome.value,), calls.RELEASE)
            if with_butler and lives(client, let_in):
                yield Ask(butler, "release", (1, let_in.session.id), calls.CHANGE)


class Pipeline(Workload):
    """A worker takes from one queue and puts into the next while it holds a lock that guards what it writes between."""

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        yield self._source(client, luck, think_s)
        yield self._worker(client, luck, think_s)

    def _ends(self) -> tuple[calls.Target, calls.Target]:
        return target("Queue", f"pipe {self.name} in", 3, True), target("Queue", f"pipe {self.name} out", 3, False)

    def _source(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        into, out_of = self._ends()
        while self.scene.busy():
            yield self.scene.thinks(luck, think_s)
            yield Ask(into, "put", (True, b"x", None, number), calls.PUT, 0.5)
            yield Ask(out_of, "get", (True, number), calls.GET, 1.0)

    def _worker(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        into, out_of = self._ends()
        lock = target("RLock", f"pipe {self.name} lock")
        while self.scene.busy():
            yield self.scene.thinks(luck, think_s)
            outcome = yield Ask(lock, "acquire", (True, number), calls.ACQUIRE)
            if outcome.how != "ok":
                continue
            got = yield Ask(into, "get", (True, number), calls.GET, 0.3)
            if got.how == "ok" and lives(client, got):
                yield Ask(out_of, "put", (True, got.value, None, number), calls.PUT, 0.3)
                if lives(client, got):
                    yield Ask(into, "task_done", (number, got.session.id), calls.CHANGE)
            if lives(client, outcome):
                yield Ask(lock, "release", (outcome.value[0], number), calls.RELEASE)
