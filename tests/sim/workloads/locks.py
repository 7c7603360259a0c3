# SPDX-License-Identifier: Apache-2.0
"""A Lock that threads take again and again, and the resource that it guards; and what a stale release does: nothing."""

from __future__ import annotations

import random
from collections.abc import Iterable

from dthreading.session import calls
from tests.sim.client import Ask, SimulatedClient, Sleep, Thread
from tests.sim.workloads.base import Inside, Resource, Scene, Workload, lives, target


class LockUse(Workload):
    """Mutual exclusion under leases, and fences that are never given twice."""

    def __init__(self, name: str, scene: Scene) -> None:
        super().__init__(name, scene)
        self.inside = Inside(f"lock {name}")
        self.resource = Resource(f"lock {name}", scene)

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        yield self._user(client, luck, think_s)

    def _user(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        lock = target("Lock", f"lock {self.name}")
        me = object()
        while self.scene.busy():
            yield self.scene.thinks(luck, think_s)
            manner, blocking = calls.ACQUIRE, True
            timeout = luck.choice((None, None, 0.01, 0.2))
            if luck.random() < 0.15:
                manner, blocking, timeout = calls.TRY_ACQUIRE, False, None
            outcome = yield Ask(lock, "acquire", (blocking, number), manner, timeout)
            if outcome.how != "ok" or outcome.value is False:
                assert outcome.how in {"ok", "interrupted"}, outcome
                continue
            fence = outcome.value
            self.scene.pass_the_word(luck, client, lock, "locked", "holder")
            self.resource.granted(fence)
            self.inside.enter(me, client, outcome)
            read = self.resource.read(fence)
            yield Sleep(luck.choice((0.0, 0.002, 0.05, 0.3, 0.3, 3.0 * (luck.random() < 0.4))))
            # Nobody looks at the lease before the write, as nobody does whose process stands still just here.
            self.resource.write(fence, read)
            self.inside.leave(me)
            if lives(client, outcome):
                released = yield Ask(lock, "release", (fence,), calls.RELEASE)
                assert released.how in {"ok", "lost", "interrupted"} or released.value == "lock_lost", released
                self.scene.pass_the_word(luck, client, lock, "locked", "holder")
                continue
            self.scene.saw("lock: lost while it was held")
            if luck.random() < 0.5:
                # A proxy would not even send it. The group frees nobody else's hold by it all the same.
                stale = yield Ask(lock, "release", (fence,), calls.RELEASE)
                self.scene.saw("lock: a stale release was refused", int(stale.value == "lock_lost"))


class NestedUse(Workload):
    """An RLock, taken as often as wished; given up and taken back as deep as it was, as a Condition of the standard
    library does over it."""

    def __init__(self, name: str, scene: Scene) -> None:
        super().__init__(name, scene)
        self.inside = Inside(f"rlock {name}")

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        yield self._user(client, luck, think_s)

    def _user(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        lock = target("RLock", f"rlock {self.name}")
        me = object()
        while self.scene.busy():
            yield self.scene.thinks(luck, think_s)
            blocking = luck.random() < 0.8
            manner = calls.ACQUIRE if blocking else calls.TRY_ACQUIRE
            timeout = luck.choice((None, 0.1)) if blocking else None
            acquire = Ask(lock, "acquire", (blocking, number), manner, timeout)
            outcome = yield acquire
            if outcome.how != "ok" or outcome.value is False:
                continue
            self.scene.pass_the_word(luck, client, lock, "holder")
            depth = 1
            for _ in range(luck.choice((0, 0, 1, 2))):
                client.interrupt_answers += luck.random() < 0.05
                deeper = yield acquire
                if deeper.how != "ok" or deeper.value is False or not lives(client, deeper):
                    break
                depth = depth + 1 if deeper.session is outcome.session else 1  # or the first hold has died
                outcome = deeper
                assert deeper.value[1] == depth, f"{depth} deep, and the answer is {deeper.value}"
            self.inside.enter(me, client, outcome)
            yield Sleep(luck.choice((0.0, 0.01, 0.1)))
            self.inside.leave(me)
            fence = outcome.value[0]
            if luck.random() < 0.3 and lives(client, outcome):
                saved = yield Ask(lock, "release_save", (number, fence), calls.RELEASE)
                if saved.how == "ok":
                    assert saved.value == (depth, fence), saved
                    yield Sleep(luck.choice((0.0, 0.05)))
                    outcome = yield Ask(lock, "acquire_restore", (number, depth), calls.RESTORE)
                    if outcome.how != "ok":
                        continue
                    self.scene.saw("rlock: restored", int(depth > 1))
                    fence = outcome.value
                    self.inside.enter(me, client, outcome)
                    yield Sleep(0.01)
                    self.inside.leave(me)
                # Interrupted, it may or may not have happened; who releases what is free gets an error and no more.
            while depth and lives(client, outcome):
                left = yield Ask(lock, "release", (fence, number), calls.RELEASE)
                if left.how not in {"ok", "interrupted"}:
                    break
                depth -= 1
                assert left.how == "interrupted" or left.value == depth, (left, depth)
