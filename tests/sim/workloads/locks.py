# SPDX-License-Identifier: Apache-2.0
"""A lock that threads take again and again, and the resource that it guards."""

from __future__ import annotations

import random
from collections.abc import Iterable

from dthreading.session import calls
from tests.sim.client import Ask, SimulatedClient, Sleep, Thread
from tests.sim.workloads.base import Inside, Resource, Scene, Workload, target, thinks


class LockUse(Workload):
    """Mutual exclusion under leases, and fences that are never given twice."""

    def __init__(self, name: str, scene: Scene) -> None:
        super().__init__(name, scene)
        self.inside = Inside(f"lock {name}")
        self.resource = Resource(f"lock {name}")

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        yield self._user(client, luck, think_s)

    def _user(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        lock = target("Lock", f"lock {self.name}")
        me = object()
        while self.scene.busy():
            yield thinks(luck, think_s)
            manner, blocking = calls.ACQUIRE, True
            timeout = luck.choice((None, None, 0.01, 0.2))
            if luck.random() < 0.15:
                manner, blocking, timeout = calls.TRY_ACQUIRE, False, None
            outcome = yield Ask(lock, "acquire", (blocking, number), manner, timeout)
            if outcome.how != "ok" or outcome.value is False:
                continue
            fence = outcome.value
            self.resource.granted(fence)
            self.inside.enter(me, client, outcome)
            yield Sleep(luck.choice((0.0, 0.002, 0.05, 0.3)))
            self.resource.write(fence)
            self.inside.leave(me)
            if outcome.session is client.session and not client.session.over:
                # A stale release is never sent by the client: it knows that the hold died with the session.
                released = yield Ask(lock, "release", (fence,), calls.RELEASE)
                assert released.how in {"ok", "lost"} or released.value == "lock_lost", released
