# SPDX-License-Identifier: Apache-2.0
"""Barriers among threads of all clients: they fill, break, are reset and aborted, and run actions."""

from __future__ import annotations

import random
from collections.abc import Iterable

from dthreading.session import calls
from dthreading.signals import CHANGE_IN_TURN
from tests.sim.client import Ask, SimulatedClient, Sleep, Thread
from tests.sim.workloads.base import Scene, Workload, insist, lives, target


class Gathering(Workload):
    """Everybody's last word is to abort it; so in the end nobody waits."""

    parties = 3

    def __init__(self, name: str, scene: Scene) -> None:
        super().__init__(name, scene)
        self.indices = [0] * self.parties
        self.acting: tuple[SimulatedClient, object] | None = None

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        for _ in range(2):
            yield self._party(client, luck, think_s)
        yield self._closer(client)

    def gone(self, client: SimulatedClient) -> None:
        if self.acting is not None and self.acting[0] is client:
            self.acting = None

    def _party(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        barrier = target("Barrier", f"barrier {self.name}", self.parties)
        while self.scene.busy():
            yield self.scene.thinks(luck, think_s / 2)
            has_action = luck.random() < 0.3
            patience = luck.choice((None, None, 3.0, 0.5, 0.1))
            outcome = yield Ask(barrier, "wait", (has_action, number), calls.WAIT_BARRIER, patience)
            if outcome.how == "ok":
                index, runs = outcome.value
                assert has_action or not runs
                self.indices[index] += 1
                if runs:
                    yield from self._act(client, barrier, outcome, luck)
                self.scene.saw("barrier: all came", int(index == self.parties - 1))
            elif outcome.how != "interrupted" and self.scene.busy() and luck.random() < 0.7:
                assert outcome.how == "lost" or outcome.value == "broken", outcome
                self.scene.saw("barrier: lost a session that waited", int(outcome.how == "lost"))
                yield Ask(barrier, "reset", (), CHANGE_IN_TURN, None)
            elif luck.random() < 0.1:
                yield Ask(barrier, "abort", (), CHANGE_IN_TURN, None)
            elif luck.random() < 0.2:
                yield Ask(barrier, "state", (), calls.READ)
        yield from insist(Ask(barrier, "abort", (), CHANGE_IN_TURN))

    def _closer(self, client: SimulatedClient) -> Thread:
        """Or two parties, who are all there are in a small world, would wait for a third."""
        barrier = target("Barrier", f"barrier {self.name}", self.parties)
        while self.scene.busy():
            yield Sleep(1.0)
        yield from insist(Ask(barrier, "abort", (), CHANGE_IN_TURN))

    def _act(self, client: SimulatedClient, barrier: calls.Target, outcome: object, luck: random.Random) -> Thread:
        """The action: one at a time, as far as those who run it know."""
        me = (client, object())
        self.acting = me
        self.scene.saw("barrier: a party runs the action")
        yield Sleep(luck.choice((0.0, 0.05, 0.4, 1.5)))
        well = luck.random() < 0.8
        if lives(client, outcome):  # type: ignore[arg-type]
            assert self.acting is me, "two actions at one time"
            done = yield Ask(barrier, "action_done", (well,), calls.CHANGE)
            self.scene.saw("barrier: an action failed", int(done.how == "ok" and not well))


class Pairs(Gathering):
    """The smallest that anybody waits at."""

    parties = 2


class Alone(Gathering):
    """Of one party: nobody waits for others, but at its door."""

    parties = 1
