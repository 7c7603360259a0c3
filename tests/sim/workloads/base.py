# SPDX-License-Identifier: Apache-2.0
"""What all workloads share: the scene they play in, how long a thread thinks, and who believes to be inside of what.

A check is about what a *user* could see: none looks into the replicas. The log is judged in tests/sim/checkers.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Generator, Iterable
from typing import Any

from dthreading.session import calls
from dthreading.session.core import ClientSession
from dthreading.wire.messages import Lifetime
from tests.sim.client import Ask, Outcome, SimulatedClient, Sleep, Thread
from tests.sim.kernel import Kernel


def target(kind: str, name: str, *arguments: Any) -> calls.Target:
    """A proxy's target. Each thread makes its own, as each process does."""
    return calls.Target("simulated", name, kind, arguments, Lifetime.NAMED)


def padded(luck: random.Random, item: bytes) -> bytes:
    """An item, now and then so long that it takes many sectors of a disk, and several messages fill a page."""
    return item if luck.random() < 0.9 else item + b"." * luck.choice((400, 4_000, luck.randint(500, 12_000)))


def lives(client: SimulatedClient, outcome: Outcome) -> bool:
    """Whether the client may use what that outcome gave it: else a proxy would raise LockLost without a call."""
    session = outcome.session
    return session is not None and session is client.session and session.holds(client.now())


def insist(*asks: Ask) -> Generator[Ask, Outcome, None]:
    """One call after the other, each again until somebody has said that it happened."""
    for ask in asks:
        while (yield ask).how in {"lost", "interrupted"}:
            pass


THINK_S_MAX = 10.0
"""Nobody sleeps through the peace."""

WORDS_PASSED = 0.15
"""How often somebody else is told of what was done."""


class Scene:
    """What every workload of one world may use."""

    def __init__(self, kernel: Kernel, *, whole: bool = True, moments: Iterable[int] = ()) -> None:
        self.kernel = kernel
        self.peace = False
        self.whole = whole
        """Whether peace will mend all: else a part of the threads never comes back, and nobody may count on them."""
        self.clients: list[SimulatedClient] = []
        """All processes that there are at present."""
        self._moments = sorted(moments)
        self._numbers = 0
        self._eyes: dict[tuple[SimulatedClient, str, str], calls.Target] = {}

    def busy(self) -> bool:
        """Whether new work is to be begun."""
        return not self.peace

    def saw(self, what: str, times: int = 1) -> None:
        """Something happened that should happen sometimes."""
        if times:
            self.kernel.seen[what] += times

    def thread_number(self) -> int:
        """What a thread calls itself; unlike all others."""
        self._numbers += 1
        return self._numbers

    def thinks(self, luck: random.Random, think_s: float) -> Sleep:
        """Mostly a long while and often next to nothing: that is how threads come to meet. Some of them wake at one
        beat, so that they meet each other, and some when a mishap is about to strike, so that it finds them at work.
        """
        way, now_us = luck.random(), self.kernel.now_us
        if way < 0.25:
            return Sleep(luck.expovariate(1 / 0.01))
        if way < 0.4:
            beat_us = max(1, int(2 * think_s * 1e6))
            return Sleep(min(THINK_S_MAX, (beat_us - now_us % beat_us + luck.randint(0, 20_000)) / 1e6))
        if way < 0.6:
            later_us = now_us + int(luck.uniform(0.3, 2.0) * think_s * 1e6)
            index = bisect_right(self._moments, later_us)
            if index < len(self._moments):
                moment_us = max(now_us, self._moments[index] - luck.randint(-10_000, 60_000))
                return Sleep(min(THINK_S_MAX, 2 * think_s, (moment_us - now_us) / 1e6))
        return Sleep(min(THINK_S_MAX, luck.expovariate(1 / (1.4 * think_s))))

    def pass_the_word(self, luck: random.Random, client: SimulatedClient, done: calls.Target, *reads: str) -> None:
        """Somebody in another process hears of what was done here, by another way than the group, and looks at once."""
        others = [other for other in self.clients if other is not client and other.alive]
        if others and luck.random() < WORDS_PASSED:
            other = luck.choice(others)
            other.spawn(self._look(other, done, luck.choice(reads)))

    def _look(self, client: SimulatedClient, done: calls.Target, read: str) -> Thread:
        key = (client, done.namespace, done.name)
        seen = self._eyes.get(key)
        if seen is None:
            seen = self._eyes[key] = calls.Target(done.namespace, done.name, done.kind, done.arguments, done.lifetime)
        yield Ask(seen, read, (), calls.READ)


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
    """What a lock guards, as a user would build it: reads and writes carry the fence, and stale ones are refused.

    Its unfenced twin takes every write, and shows what would have been spoilt. Both count what their users did: each
    reads the number, and writes one more.
    """

    def __init__(self, name: str, scene: Scene) -> None:
        self.name = name
        self.stale_refused = 0
        self.stale_accepted = 0
        self.spoilt = 0
        """How often somebody else's work was overwritten in the unfenced twin."""
        self._scene = scene
        self._granted: set[int] = set()
        self._fence = 0
        self._fenced = self._written = 0
        self._unfenced = self._unfenced_fence = 0

    def granted(self, fence: int) -> None:
        """No two grants ever carry one fencing token."""
        assert fence not in self._granted, f"{self.name} was granted twice with fence {fence}"
        self._granted.add(fence)

    def read(self, fence: int) -> tuple[int, int]:
        """What the fenced one holds, and the other."""
        self._fence = max(self._fence, fence)
        return self._fenced, self._unfenced

    def write(self, fence: int, read: tuple[int, int]) -> None:
        """One more than was read; it may reach the resource late."""
        if fence < self._fence:
            self.stale_refused += 1
            self._scene.saw("resource: refused a stale write")
        else:
            self._written += 1
            self._fenced = read[0] + 1
            assert self._fenced == self._written, f"{self.name} has lost a write, though all carried their fences"
        if fence < self._unfenced_fence:
            self.stale_accepted += 1
            self._scene.saw("resource: its unfenced twin took a stale write")
        if read[1] != self._unfenced:
            self.spoilt += 1
        self._unfenced_fence = fence
        self._unfenced = read[1] + 1
