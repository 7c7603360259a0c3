# SPDX-License-Identifier: Apache-2.0
"""An Event that goes up and down, and those who wait for it: all who wait when it goes up are let go."""

from __future__ import annotations

import random
from collections.abc import Iterable

from dthreading.session import calls
from tests.sim.client import Ask, SimulatedClient, Sleep, Thread
from tests.sim.workloads.base import Workload, insist, target


class Signal(Workload):
    """The last word of everybody who lowers the flag is to raise it; so in the end nobody waits."""

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        yield self._signaller(client, luck, think_s)
        yield self._waiter(client, luck, think_s)

    def _signaller(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        event = target("Event", f"event {self.name}")
        while self.scene.busy():
            yield self.scene.thinks(luck, think_s)
            yield Ask(event, "set", (), calls.CHANGE)
            self.scene.pass_the_word(luck, client, event, "is_set")
            yield Sleep(luck.choice((0.0, 0.0, 0.1, 1.0)))
            yield Ask(event, "clear", (), calls.CHANGE)
            self.scene.pass_the_word(luck, client, event, "is_set")
        yield from insist(Ask(event, "set", (), calls.CHANGE))

    def _waiter(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        number = self.scene.thread_number()
        event = target("Event", f"event {self.name}")
        while self.scene.busy():
            yield self.scene.thinks(luck, think_s)
            if luck.random() < 0.25:
                yield Ask(event, "is_set", (), calls.READ)
                continue
            patience = luck.choice((None, None, 0.3))
            outcome = yield Ask(event, "wait", (number,), calls.WAIT_EVENT, patience)
            assert outcome.how == "interrupted" or outcome.value is True or patience is not None, outcome
