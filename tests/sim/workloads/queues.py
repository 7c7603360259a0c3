# SPDX-License-Identifier: Apache-2.0
"""Items on their way through a queue that redelivers: none lost, none twice unless its taker was lost."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

from dthreading.session import calls
from tests.sim.client import Ask, SimulatedClient, Sleep, Thread
from tests.sim.workloads.base import Scene, Workload, lives, padded, target

CAPACITY = 5


class Goods(Workload):
    """Producers and consumers; consumers go on until nothing is left."""

    def __init__(self, name: str, scene: Scene) -> None:
        super().__init__(name, scene)
        self.put: set[bytes] = set()
        self.unknown: set[bytes] = set()
        self.done: set[bytes] = set()
        self.perhaps_done: set[bytes] = set()
        """Whose task_done was sent, and perhaps applied although nobody was left to hear of it."""
        self.taken: Counter[bytes] = Counter()
        self.may_repeat: Counter[bytes] = Counter()
        self._producers: set[SimulatedClient] = set()
        self._made = 0

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        yield self._producer(client, luck, think_s)
        for _ in range(luck.choice((1, 2))):
            yield self._consumer(client, luck, think_s)

    def gone(self, client: SimulatedClient) -> None:
        self._producers.discard(client)

    def settled(self) -> bool:
        return not self._producers and self.put <= self.done | self.perhaps_done

    def _producer(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        """Puts items, and notes of which it does not know whether they are in."""
        number = self.scene.thread_number()
        queue = target("Queue", f"goods {self.name}", CAPACITY, True)
        self._producers.add(client)
        while self.scene.busy():
            yield self.scene.thinks(luck, think_s)
            self._made += 1
            item = padded(luck, b"item %d" % self._made)
            self.unknown.add(item)
            waits = luck.random() < 0.8
            manner, patience = (calls.PUT, luck.choice((None, 0.1))) if waits else (calls.PUT_NOWAIT, None)
            outcome = yield Ask(queue, "put", (waits, item, None, number), manner, patience)
            if outcome.how == "ok":
                self.unknown.discard(item)
                self.put.add(item)
                self.scene.pass_the_word(luck, client, queue, "qsize", "state")
            elif outcome.how == "error":
                assert outcome.value == "full", outcome
                self.unknown.discard(item)
        self._producers.discard(client)

    def _consumer(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        """Takes items and does them; goes on after the others have stopped until there are no more."""
        number = self.scene.thread_number()
        queue = target("Queue", f"goods {self.name}", CAPACITY, True)
        while self.scene.busy() or not self.settled():
            outcome = yield Ask(queue, "get", (True, number), calls.GET, luck.choice((0.3, think_s)))
            if outcome.how != "ok":
                assert outcome.how == "interrupted" or outcome.value == "empty", outcome
                continue
            item = outcome.value
            if not lives(client, outcome):
                continue  # it stood still with the answer in its hands, and another may have taken and done it since
            self._take(item)
            # From here until task_done is applied the item comes again if this session ends.
            self.may_repeat[item] += 1
            self.scene.pass_the_word(luck, client, queue, "qsize", "state")
            yield Sleep(luck.choice((0.0, 0.01, 0.3, 1.0)))
            looks = luck.random() < 0.5
            if looks and not lives(client, outcome):
                continue
            self.perhaps_done.add(item)
            done = yield Ask(queue, "task_done", (number, outcome.session.id), calls.CHANGE)
            if done.how == "ok":
                self.done.add(item)
                self.may_repeat[item] -= 1
            self.scene.saw("queue: a task of a lost session was refused", int(done.value == "lock_lost"))

    def _take(self, item: bytes) -> None:
        """A consumer got `item`: once, and once more for each consumer that was lost with it."""
        assert item in self.put or item in self.unknown, f"{item!r} was never put"
        self.taken[item] += 1
        assert self.taken[item] <= 1 + self.may_repeat[item], f"{item!r} came out twice, and nobody was lost with it"
        self.scene.saw("queue: redelivered", int(self.taken[item] > 1))
