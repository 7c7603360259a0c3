# SPDX-License-Identifier: Apache-2.0
"""A bounded semaphore of two: never three inside."""

from __future__ import annotations

import random
from collections.abc import Iterable

from dthreading.session import calls
from tests.sim.client import Ask, SimulatedClient, Sleep, Thread
from tests.sim.workloads.base import Inside, Scene, Workload, target, thinks

LIMIT = 2


class SemaphoreUse(Workload):
    """Like a lock's, among as many as the semaphore lets in."""

    def __init__(self, name: str, scene: Scene) -> None:
        super().__init__(name, scene)
        self.inside = Inside(f"semaphore {name}", LIMIT)

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        yield self._user(client, luck, think_s)

    def _user(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        semaphore = target("BoundedSemaphore", f"semaphore {self.name}", LIMIT)
        me = object()
        while self.scene.busy():
            yield thinks(luck, think_s)
            outcome = yield Ask(semaphore, "acquire", (True, number), calls.ACQUIRE, luck.choice((None, 0.05)))
            if outcome.how != "ok" or outcome.value is not True:
                continue
            self.inside.enter(me, client, outcome)
            yield Sleep(luck.choice((0.0, 0.02, 0.3)))
            self.inside.leave(me)
            if outcome.session is client.session and not client.session.over:
                yield Ask(semaphore, "release", (1,), calls.CHANGE)
