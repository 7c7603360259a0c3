# SPDX-License-Identifier: Apache-2.0
"""Threads that meet under a Condition: whoever returns from wait holds the lock, alone."""

from __future__ import annotations

import random
from collections.abc import Iterable

from dthreading.session import calls
from tests.sim.client import Ask, SimulatedClient, Thread
from tests.sim.workloads.base import Inside, Scene, Workload, target, thinks


class Meeting(Workload):
    """Lock, wait or notify, unlock."""

    def __init__(self, name: str, scene: Scene) -> None:
        super().__init__(name, scene)
        self.inside = Inside(f"room {name}")
        self.notified = 0
        self.woken = 0

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        yield self._user(client, luck, think_s)

    def _user(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        room = f"room {self.name}"
        lock = target("RLock", room)
        condition = target("Condition", f"meeting {self.name}", "simulated", room, "RLock")
        me = object()
        while self.scene.busy():
            yield thinks(luck, think_s)
            outcome = yield Ask(lock, "acquire", (True, number), calls.ACQUIRE)
            if outcome.how != "ok" or outcome.value is False:
                continue
            fence = outcome.value[0]
            self.inside.enter(me, client, outcome)
            if luck.random() < 0.6:
                self.inside.leave(me)
                timeout = luck.choice((0.05, 0.4, 3.0))
                wait = Ask(condition, "wait", (lock, number, fence), calls.WAIT_CONDITION, timeout, (lock,))
                outcome = yield wait
                if outcome.how != "ok":
                    continue
                notified, fence = outcome.value
                self.woken += notified
                self.inside.enter(me, client, outcome)
            elif client.session is outcome.session:
                count = luck.choice((1, -1))
                told = yield Ask(condition, "notify", (lock, number, count, fence), calls.RELEASE, None, (lock,))
                self.notified += told.how == "ok"
            self.inside.leave(me)
            if outcome.session is client.session and not client.session.over:
                yield Ask(lock, "release", (fence, number), calls.RELEASE)
