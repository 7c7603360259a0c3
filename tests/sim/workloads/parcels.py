# SPDX-License-Identifier: Apache-2.0
"""Queue, LifoQueue and PriorityQueue with tasks and joiners, other sizes and an end; and SimpleQueue.

Each item comes out once; an answer that may not have arrived is the one exception, and only after its session's end.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Generator, Iterable
from typing import ClassVar

from dthreading.session import calls
from tests.sim.client import Ask, Outcome, SimulatedClient, Sleep, Thread
from tests.sim.workloads.base import Scene, Workload, insist, padded, target

CAPACITY = 2


class Parcels(Workload):
    """Producers, consumers and those who wait for all to be done. A queue that was shut down is followed by another."""

    kind: ClassVar = "Queue"

    def __init__(self, name: str, scene: Scene) -> None:
        super().__init__(name, scene)
        self.generation = 0
        self._put: set[bytes] = set()
        self._taken: Counter[bytes] = Counter()

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        yield self._producer(client, luck, think_s)
        for _ in range(luck.choice((1, 2))):
            yield self._consumer(client, luck, think_s)
        if luck.random() < 0.4:
            yield self._joiner(client, luck, think_s)
        yield self._closer()

    def _queue(self, generation: int | None = None) -> calls.Target:
        which = self.generation if generation is None else generation
        # Every other one redelivers what its takers have not done.
        redelivers = (which + self.scene.kernel.seed) % 2 == 0
        return target(self.kind, f"{self.kind} {self.name} {which}", CAPACITY, redelivers)

    def _producer(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        while self.scene.busy():
            yield self.scene.thinks(luck, think_s)
            generation, queue, way = self.generation, self._queue(), luck.random()
            if way < 0.05:
                yield Ask(queue, "set_maxsize", (luck.choice((0, 1, CAPACITY)),), calls.CHANGE)
            elif way < 0.1:
                yield Ask(queue, luck.choice(("qsize", "state")), (), calls.READ)
            elif way < 0.12:
                over = yield Ask(queue, "shutdown", (luck.random() < 0.5,), calls.CHANGE)
                if over.how == "ok" and self.generation == generation:
                    self.generation += 1
                continue
            item = padded(luck, b"parcel %d.%d" % (number, len(self._put)))
            self._put.add(item)
            waits = way < 0.8
            manner, patience = (calls.PUT, luck.choice((None, 0.2))) if waits else (calls.PUT_NOWAIT, None)
            arguments = (waits, item, luck.randrange(4) if self.kind == "PriorityQueue" else None, number)
            outcome = yield Ask(queue, "put", arguments, manner, patience)
            self._judge(outcome, "full", generation)
            self.scene.pass_the_word(luck, client, queue, "qsize", "state")
        yield from self._close()

    def _closer(self) -> Thread:
        """Producers may all be waiting for room when the consumers have gone home."""
        while self.scene.busy():
            yield Sleep(1.0)
        yield from self._close()

    def _close(self) -> Generator[Ask, Outcome, None]:
        """Whoever still waits at any of them is let go, and what comes back from now on is thrown away."""
        every = [Ask(self._queue(each), "shutdown", (True,), calls.CHANGE) for each in range(self.generation + 1)]
        yield from insist(*every)

    def _consumer(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        while self.scene.busy():
            if luck.random() < 0.3:
                yield self.scene.thinks(luck, think_s)
                continue  # in peace nobody ends a queue that is followed by another so late
            generation, queue = self.generation, self._queue()
            waits = luck.random() < 0.9
            manner, patience = (calls.GET, luck.choice((None, 0.3, think_s))) if waits else (calls.GET_NOWAIT, None)
            outcome = yield Ask(queue, "get", (waits, number), manner, patience)
            self._judge(outcome, "empty", generation)
            if outcome.how != "ok":
                yield Sleep(0.05 if waits else 1.0)
                continue
            self._take(outcome.value)
            held = [outcome]
            while len(held) < 3 and luck.random() < 0.3:
                more = yield Ask(queue, "get", (False, number), calls.GET_NOWAIT)
                self._judge(more, "empty", generation)
                if more.how != "ok":
                    break
                self._take(more.value)
                held.append(more)
            yield Sleep(luck.choice((0.0, 0.02, 0.3, 1.0)))
            for one in held:
                yield from self._done(queue, number, one)

    def _done(self, queue: calls.Target, number: int, got: Outcome) -> Generator[Ask, Outcome, None]:
        done = yield Ask(queue, "task_done", (number, got.session.id), calls.CHANGE)
        # Too many can only be where the queue has been shut down at once: it counts what is in hands no more.
        assert done.how in {"ok", "lost"} or done.value in {"lock_lost", "value"}, done

    def _joiner(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        while self.scene.busy():
            yield self.scene.thinks(luck, think_s)
            if not self.scene.busy():
                break
            joined = yield Ask(self._queue(), "join", (number,), calls.JOIN)
            assert joined.how in {"ok", "interrupted"} or joined.value == "tasks_lost", joined

    def _judge(self, outcome: Outcome, code: str, generation: int) -> None:
        if outcome.how != "error":
            return
        assert outcome.value in {code, "shutdown"}, outcome
        if outcome.value == "shutdown" and self.generation == generation:
            self.generation += 1

    def _take(self, item: bytes) -> None:
        assert item in self._put, f"{item!r} was never put"
        self._taken[item] += 1
        # An answer that nobody has acknowledged goes back with its session, and its thread may have had it in hands.
        self.scene.saw("queue: came back with a lost session", int(self._taken[item] > 1))


class LifoParcels(Parcels):
    """The same through a LifoQueue."""

    kind = "LifoQueue"


class PriorityParcels(Parcels):
    """The same through a PriorityQueue."""

    kind = "PriorityQueue"


PILL = b"pill"


class SimpleParcels(Workload):
    """A SimpleQueue; in the end a pill goes from hand to hand."""

    def __init__(self, name: str, scene: Scene) -> None:
        super().__init__(name, scene)
        self._made = 0

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        yield self._producer(client, luck, think_s)
        yield self._consumer(client, luck, think_s)

    def _put(self, item: bytes, number: int) -> Ask:
        queue = target("SimpleQueue", f"simple {self.name}")
        return Ask(queue, "put", (False, item, None, number), calls.PUT_SIMPLE)

    def _producer(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        while self.scene.busy():
            yield self.scene.thinks(luck, think_s)
            self._made += 1
            yield self._put(b"%d" % self._made, number)
        yield from insist(self._put(PILL, number))

    def _consumer(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        queue = target("SimpleQueue", f"simple {self.name}")
        while True:
            if self.scene.busy():
                yield self.scene.thinks(luck, think_s / 2)
            patience = luck.choice((None, None, 0.5))
            outcome = yield Ask(queue, "get", (True, number), calls.GET, patience)
            if outcome.how == "ok" and outcome.value == PILL:
                break
        yield from insist(self._put(PILL, number))
