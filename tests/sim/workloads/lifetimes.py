# SPDX-License-Identifier: Apache-2.0
"""Objects that come and go: private ones handed from process to process, automatic ones that end with their namespace,
and attachments by the dozen.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from dthreading.session import calls
from dthreading.wire.messages import Lifetime
from tests.sim.client import Ask, SimulatedClient, Sleep, Thread
from tests.sim.workloads.base import Scene, Workload, lives

NAMESPACES = 5
"""Few enough that clients meet in them, and so many that one is empty for a lease now and then."""


class Handed(Workload):
    """Private locks. Whoever makes one tells the others its name, as a pickle would, and lets go of it at will."""

    def __init__(self, name: str, scene: Scene) -> None:
        super().__init__(name, scene)
        self._made = 0
        self._known: list[str] = []

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        yield self._user(client, luck, think_s)
        yield self._user(client, luck, think_s)

    def _user(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        while self.scene.busy():
            yield self.scene.thinks(luck, think_s)
            creates = not self._known or luck.random() < 0.3
            if creates:
                self._made += 1
                name = f"private {self.name} {self._made}"
            else:
                name = luck.choice(self._known[-4:])
            lock = calls.Target("simulated", name, "Lock", (), int(Lifetime.PRIVATE), create=creates)
            seen = yield Ask(lock, "locked", (), calls.READ)
            if seen.how != "ok":
                assert seen.how == "interrupted" or (seen.value == "gone" and not creates), seen
                self.scene.saw("private: gone before it was used", int(seen.value == "gone"))
                self._let_go(client, lock)
                continue
            if creates:
                self._known.append(name)
            for _ in range(luck.choice((1, 2))):
                patience = luck.choice((None, 0.2))
                outcome = yield Ask(lock, "acquire", (True, number), calls.ACQUIRE, patience)
                if outcome.how == "error":
                    assert outcome.value == "gone", outcome
                    self.scene.saw("private: gone with its last session")
                    break
                if outcome.how != "ok" or outcome.value is False:
                    continue
                yield Sleep(luck.choice((0.0, 0.05, 0.5)))
                if lives(client, outcome):
                    yield Ask(lock, "release", (outcome.value,), calls.RELEASE)
            self._let_go(client, lock)

    @staticmethod
    def _let_go(client: SimulatedClient, lock: calls.Target) -> None:
        """The last reference to the proxy is gone."""
        client.session.detach(lock)


class Automatic(Workload):
    """Events and semaphores that were not named, in the namespaces of several programs."""

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        yield self._user(client, luck, think_s)

    def _user(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        while self.scene.busy():
            yield self.scene.thinks(luck, think_s)
            namespace = f"{self.name} {luck.randrange(NAMESPACES)}"
            lifetime = luck.choice((Lifetime.AUTOMATIC, Lifetime.AUTOMATIC, Lifetime.NAMED))
            event = calls.Target(namespace, "module.event", "Event", (), int(Lifetime.AUTOMATIC))
            permits = calls.Target(namespace, "module.permits", "Semaphore", (1,), int(lifetime))
            yield Ask(event, luck.choice(("set", "clear")), (), calls.CHANGE)
            yield Ask(event, "wait", (number,), calls.WAIT_EVENT, 0.1)
            yield Ask(permits, "acquire", (True, number), calls.ACQUIRE, 0.1)
            yield Ask(permits, "release", (luck.choice((1, 1, 2)),), calls.CHANGE)
            for proxy in (event, permits):
                if luck.random() < 0.7:
                    client.session.detach(proxy)


class Misfits(Workload):
    """One name for whatever comes: who finds there another kind, or other arguments, is told so and harms nobody."""

    faces: tuple[tuple[str, tuple[int, ...]], ...] = (
        ("Lock", ()),
        ("Semaphore", (1,)),
        ("Semaphore", (2,)),
        ("Event", ()),
    )

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        yield self._user(client, luck, think_s)

    def _user(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        while self.scene.busy():
            yield self.scene.thinks(luck, 1.5 * think_s)
            kind, arguments = luck.choice(self.faces)
            lifetime = luck.choice((Lifetime.AUTOMATIC, Lifetime.PRIVATE))
            thing = calls.Target("simulated", f"misfit {self.name}", kind, arguments, int(lifetime))
            if kind == "Event":
                outcome = yield Ask(thing, luck.choice(("set", "clear")), (), calls.CHANGE)
            else:
                outcome = yield Ask(thing, "acquire", (False, number), calls.TRY_ACQUIRE)
                yield Sleep(luck.choice((0.0, 0.3, 1.0)))
                if outcome.how == "ok" and outcome.value is not False and lives(client, outcome):
                    given = (1, outcome.session.id) if kind == "Semaphore" else (outcome.value,)
                    yield Ask(thing, "release", given, calls.CHANGE if kind == "Semaphore" else calls.RELEASE)
            self.scene.saw("misfit: another has that name", int(outcome.value == "mismatch"))
            client.session.detach(thing)


class Crowd(Workload):
    """Many short-lived threads, each with proxies of its own: lanes are borrowed and come back, handles grow."""

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        yield self._mother(client, luck, think_s)

    def _mother(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        while self.scene.busy():
            yield self.scene.thinks(luck, 3 * think_s)
            for _ in range(luck.choice((2, 5, 9))):
                client.spawn(self._child(client, luck.choice((0.0, 0.05))))
            self.scene.saw("crowd: threads were started")

    def _child(self, client: SimulatedClient, holds_s: float) -> Thread:
        number = self.scene.thread_number()
        lock = calls.Target("simulated", f"crowd {self.name}", "Lock", (), int(Lifetime.NAMED))
        outcome = yield Ask(lock, "acquire", (True, number), calls.ACQUIRE, 0.5)
        if outcome.how == "ok" and outcome.value is not False:
            yield Sleep(holds_s)
            if lives(client, outcome):
                yield Ask(lock, "release", (outcome.value,), calls.RELEASE)
        client.session.detach(lock)
