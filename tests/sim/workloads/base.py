# SPDX-License-Identifier: Apache-2.0
"""What all workloads share: the scene they play in, how long a thread thinks, and who believes to be inside of what.

A check is about what a *user* could see: none looks into the replicas.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from dthreading.session import calls
from dthreading.session.core import ClientSession
from dthreading.wire.messages import Lifetime
from tests.sim.client import Outcome, SimulatedClient, Sleep, Thread
from tests.sim.kernel import Kernel


def target(kind: str, name: str, *arguments: Any) -> calls.Target:
    """A proxy's target. Each thread makes its own, as each process does."""
    return calls.Target("simulated", name, kind, arguments, Lifetime.NAMED)


class Scene:
    """What every workload of one world may use."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.peace = False
        self._numbers = 0

    def busy(self) -> bool:
        """Whether new work is to be begun."""
        return not self.peace

    def thread_number(self) -> int:
        """What a thread calls itself; unlike all others."""
        self._numbers += 1
        return self._numbers


class Workload:
    """One kind of use of one object, by threads of many clients.

    Args:
        name: of the object, or the beginning of the names of all it uses.
        scene: the world, as far as it matters.

    """

    def __init__(self, name: str, scene: Scene) -> None:
        self.name = name
        self.scene = scene

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        """What one client process runs of it. Threads end by themselves soon after `scene.busy()` has become False."""
        raise NotImplementedError

    def gone(self, client: SimulatedClient) -> None:
        """That process was killed."""

    def settled(self) -> bool:
        """In peace: whether nothing is owed to anybody any more."""
        return True

    def check(self) -> None:
        """At the end of all; raises AssertionError for what can only be judged then."""


THINK_S_MAX = 10.0
"""Nobody sleeps through the peace."""


def thinks(luck: random.Random, think_s: float) -> Sleep:
    """Mostly a long while and often next to nothing: that is how threads come to meet."""
    if luck.random() < 0.3:
        return Sleep(luck.expovariate(1 / 0.01))
    return Sleep(min(THINK_S_MAX, luck.expovariate(1 / (1.4 * think_s))))


class Inside:
    """Who believes to be inside of something that holds at most `limit`."""

    def __init__(self, name: str, limit: int = 1) -> None:
        self.name = name
        self.limit = limit
        self.entered = 0
        self._believers: dict[object, tuple[SimulatedClient, ClientSession]] = {}

    def enter(self, who: object, client: SimulatedClient, outcome: Outcome) -> bool:
        """`who` was granted entry, in that session. False: it knows already that it is too late."""
        session = outcome.session
        assert session is not None
        if not session.holds(client.now()):
            return False
        self.entered += 1
        believing = [
            (other.name, belief.id)
            for other, belief in self._believers.values()
            if other.alive and belief.holds(other.now())
        ]
        assert len(believing) < self.limit, f"{client.name} enters {self.name}, where {believing} believe to be"
        self._believers[who] = (client, session)
        return True

    def leave(self, who: object) -> None:
        """`who` is about to give it up."""
        self._believers.pop(who, None)


class Resource:
    """What a lock guards, as a user would build it: writes carry the fence, and stale ones are refused.

    Its unfenced twin takes every write, and shows what would have been spoilt.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.stale_refused = 0
        self.stale_accepted = 0
        self._granted: set[int] = set()
        self._fenced_last = 0
        self._unfenced_last = 0

    def granted(self, fence: int) -> None:
        """No two grants ever carry one fencing token."""
        assert fence not in self._granted, f"{self.name} was granted twice with fence {fence}"
        self._granted.add(fence)

    def write(self, fence: int) -> None:
        """A write that may reach the resource late."""
        if fence < self._fenced_last:
            self.stale_refused += 1
        self._fenced_last = max(self._fenced_last, fence)
        if fence < self._unfenced_last:
            self.stale_accepted += 1
        self._unfenced_last = fence
