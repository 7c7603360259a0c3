# SPDX-License-Identifier: Apache-2.0
"""A bounded semaphore of two: never three inside. And a semaphore that counts things, which nobody gives back."""

from __future__ import annotations

import random
from collections.abc import Iterable

from dthreading.session import calls
from tests.sim.client import Ask, SimulatedClient, Sleep, Thread
from tests.sim.workloads.base import Inside, Scene, Workload, insist, target

LIMIT = 2
MANY = 1_000_000
"""More than anybody can be waiting for: whoever still waits in the end is let go."""


class SemaphoreUse(Workload):
    """Like a lock's, among as many as the semaphore lets in."""

    kind = "BoundedSemaphore"

    def __init__(self, name: str, scene: Scene) -> None:
        super().__init__(name, scene)
        self.inside = Inside(f"{self.kind} {name}", LIMIT)

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        for _ in range(2):
            yield self._user(client, luck, think_s)

    def _user(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        semaphore = target(self.kind, f"{self.kind} {self.name}", LIMIT)
        me = object()
        while self.scene.busy():
            yield self.scene.thinks(luck, think_s)
            way = luck.random()
            if way < 0.1:
                seen = yield Ask(semaphore, "value", (), calls.READ)
                assert seen.how != "ok" or 0 <= seen.value <= LIMIT, seen
            waits = way < 0.8
            manner = calls.ACQUIRE if waits else calls.TRY_ACQUIRE
            timeout = luck.choice((None, None, 0.05)) if waits else None
            outcome = yield Ask(semaphore, "acquire", (waits, number), manner, timeout)
            if outcome.how != "ok" or outcome.value is not True:
                continue
            self.inside.enter(me, client, outcome)
            self.scene.pass_the_word(luck, client, semaphore, "value")
            yield Sleep(luck.choice((0.0, 0.02, 0.3, 0.8)))
            self.inside.leave(me)
            given = yield Ask(semaphore, "release", (1, outcome.session.id), calls.CHANGE)
            self.scene.saw("semaphore: a permit of a lost session was refused", int(given.value == "lock_lost"))


class PermitUse(SemaphoreUse):
    """The same with a Semaphore that has no bound: as long as nobody gives more than it took, it leaks nothing, and
    never has a permit too many.
    """

    kind = "Semaphore"


class Tickets(Workload):
    """Some make tickets, several at once, and others use them up: what a dead process used does not come back."""

    def __init__(self, name: str, scene: Scene) -> None:
        super().__init__(name, scene)
        self.made = self.perhaps_made = self.used = 0

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        yield self._maker(client, luck, think_s)
        for _ in range(2):
            yield self._user(client, luck, think_s)

    def _maker(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        tickets = target("Semaphore", f"tickets {self.name}", 0)
        while self.scene.busy():
            yield self.scene.thinks(luck, 1.5 * think_s)
            n = luck.choice((1, 2, 2, 3, 5))
            self.perhaps_made += n
            made = yield Ask(tickets, "release", (n,), calls.CHANGE)
            self.made += n * (made.how == "ok")
            self.scene.pass_the_word(luck, client, tickets, "value")
        self.perhaps_made = self.made = MANY
        yield from insist(Ask(tickets, "release", (MANY,), calls.CHANGE))

    def _user(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        tickets = target("Semaphore", f"tickets {self.name}", 0)
        while self.scene.busy():
            yield self.scene.thinks(luck, think_s)
            patience = luck.choice((None, 4.0, 0.5))
            got = yield Ask(tickets, "acquire", (True, number), calls.ACQUIRE, patience)
            self.used += got.how == "ok" and got.value is True
            # Before any was made, a user's death gives back what it took; once some were, never again.
            assert self.used <= self.perhaps_made, f"{self.used} tickets were used of {self.perhaps_made}"


class Excess(Workload):
    """Semaphores that anybody takes from and gives to, one by one or several at once, whether it took before or not:
    more than was there is refused where that is bounded, and changes nothing.
    """

    kinds = (("BoundedSemaphore", 3), ("BoundedSemaphore", 1), ("Semaphore", 1), ("Semaphore", 3))

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        for _ in range(2):
            yield self._user(client, luck, think_s)

    def _user(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        semaphores = [target(kind, f"{kind} {n} {self.name}", n) for kind, n in self.kinds]
        while self.scene.busy():
            yield self.scene.thinks(luck, think_s)
            semaphore = luck.choice(semaphores)
            way = luck.random()
            if way < 0.5:
                patience = luck.choice((0.05, 1.0, 4.0))
                taken = yield Ask(semaphore, "acquire", (True, number), calls.ACQUIRE, patience)
                assert taken.how in {"ok", "interrupted"}, taken
            elif way < 0.6:
                yield Ask(semaphore, "acquire", (False, number), calls.TRY_ACQUIRE)
            else:
                given = yield Ask(semaphore, "release", (luck.choice((1, 1, 1, 2, 3, 4)),), calls.CHANGE)
                refused = given.how == "error" and given.value == "value"
                assert not refused or semaphore.kind == "BoundedSemaphore", given
                self.scene.saw("semaphore: more than there were was refused", int(refused))
            if luck.random() < 0.15:
                client.session.detach(semaphore)
