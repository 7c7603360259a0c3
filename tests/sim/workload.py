# SPDX-License-Identifier: Apache-2.0
"""What the simulated clients do with the primitives, and what must hold while they do it.

Each check is about what a *user* could see: who believes to be inside, by its own session's clock; which item came out
how often; whether anybody waits for ever. None looks into the replicas.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from dthreading.session import calls
from dthreading.session.core import ClientSession
from dthreading.wire.messages import Lifetime
from tests.sim.client import Ask, Outcome, SimulatedClient, Sleep, Thread


def target(kind: str, name: str, *arguments: Any) -> calls.Target:
    """A proxy's target. Each thread makes its own, as each process does."""
    return calls.Target("simulated", name, kind, arguments, Lifetime.NAMED)


class Inside:
    """Who believes to be inside of something that holds at most `limit`."""

    def __init__(self, name: str, limit: int = 1) -> None:
        self.name = name
        self.limit = limit
        self.entered = 0
        self.stale_refused = 0
        self.stale_accepted = 0
        self._believers: dict[object, tuple[SimulatedClient, ClientSession]] = {}
        self._fences: set[int] = set()
        self._fenced_last = 0
        self._unfenced_last = 0

    def enter(self, who: object, client: SimulatedClient, outcome: Outcome) -> None:
        """`who` was granted entry, in that session."""
        session = outcome.session
        assert session is not None
        if not session.holds(client.now()):
            return  # it knows already that it is too late
        self.entered += 1
        believing = [
            (other.name, belief.id)
            for other, belief in self._believers.values()
            if other.alive and belief.holds(other.now())
        ]
        assert len(believing) < self.limit, f"{client.name} enters {self.name}, where {believing} believe to be"
        self._believers[who] = (client, session)

    def leave(self, who: object) -> None:
        """`who` is about to give it up."""
        self._believers.pop(who, None)

    def granted(self, fence: int) -> None:
        """No two grants ever carry one fencing token."""
        assert fence not in self._fences, f"{self.name} was granted twice with fence {fence}"
        self._fences.add(fence)

    def write(self, fence: int) -> None:
        """A write that reaches a resource late: the one that checks the token refuses it, its unfenced twin does
        not."""
        if fence < self._fenced_last:
            self.stale_refused += 1
        self._fenced_last = max(self._fenced_last, fence)
        if fence < self._unfenced_last:
            self.stale_accepted += 1
        self._unfenced_last = fence


def lock_user(client: SimulatedClient, number: int, inside: Inside, busy: Callable[[], bool]) -> Thread:
    """Takes one lock again and again, sometimes with a timeout or without waiting, and sits inside for a while."""
    luck = client._kernel.random
    lock = target("Lock", inside.name)
    me = object()
    while busy():
        yield Sleep(luck.expovariate(1 / 0.05))
        manner, blocking = calls.ACQUIRE, True
        timeout = luck.choice((None, None, 0.01, 0.2))
        if luck.random() < 0.15:
            manner, blocking, timeout = calls.TRY_ACQUIRE, False, None
        outcome = yield Ask(lock, "acquire", (blocking, number), manner, timeout)
        if outcome.how != "ok" or outcome.value is False:
            continue
        fence = outcome.value
        inside.granted(fence)
        inside.enter(me, client, outcome)
        yield Sleep(luck.choice((0.0, 0.002, 0.05)))
        inside.write(fence)
        inside.leave(me)
        if outcome.session is client.session and not client.session.over:
            # A stale release is never sent by the client: it knows that the hold died with the session.
            released = yield Ask(lock, "release", (fence,), calls.RELEASE)
            assert released.how in {"ok", "lost"} or released.value == "lock_lost", released


def semaphore_user(client: SimulatedClient, number: int, inside: Inside, busy: Callable[[], bool]) -> Thread:
    """Like `lock_user`, among as many as the semaphore lets in."""
    luck = client._kernel.random
    semaphore = target("BoundedSemaphore", inside.name, inside.limit)
    me = object()
    while busy():
        yield Sleep(luck.expovariate(1 / 0.05))
        outcome = yield Ask(semaphore, "acquire", (True, number), calls.ACQUIRE, luck.choice((None, 0.05)))
        if outcome.how != "ok" or outcome.value is not True:
            continue
        inside.enter(me, client, outcome)
        yield Sleep(luck.choice((0.0, 0.02)))
        inside.leave(me)
        if outcome.session is client.session and not client.session.over:
            yield Ask(semaphore, "release", (1,), calls.CHANGE)


class Goods:
    """Items on their way through a queue that redelivers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.put: set[bytes] = set()
        self.unknown: set[bytes] = set()
        self.done: set[bytes] = set()
        self.perhaps_done: set[bytes] = set()
        """Whose task_done was sent, and perhaps applied although nobody was left to hear of it."""
        self.taken: Counter[bytes] = Counter()
        self.may_repeat: Counter[bytes] = Counter()
        self.producers: set[SimulatedClient] = set()
        self._made = 0

    def make(self) -> bytes:
        """A new item, unlike all others."""
        self._made += 1
        return b"item %d" % self._made

    def take(self, item: bytes) -> None:
        """A consumer got `item`: once, and once more for each consumer that was lost with it."""
        assert item in self.put or item in self.unknown, f"{item!r} was never put"
        self.taken[item] += 1
        assert self.taken[item] <= 1 + self.may_repeat[item], f"{item!r} came out twice, and nobody was lost with it"

    def settled(self) -> bool:
        """Whether nobody puts any more and every item that was surely put is done."""
        return not self.producers and self.put <= self.done | self.perhaps_done


def producer(client: SimulatedClient, goods: Goods, busy: Callable[[], bool]) -> Thread:
    """Puts items, and notes of which it does not know whether they are in."""
    luck = client._kernel.random
    queue = target("Queue", goods.name, 5, True)
    goods.producers.add(client)
    while busy():
        yield Sleep(luck.expovariate(1 / 0.1))
        item = goods.make()
        goods.unknown.add(item)
        outcome = yield Ask(queue, "put", (True, item), calls.PUT, luck.choice((None, 0.1)))
        if outcome.how == "ok":
            goods.unknown.discard(item)
            goods.put.add(item)
        elif outcome.how == "error":
            assert outcome.value == "full", outcome
            goods.unknown.discard(item)
    goods.producers.discard(client)


def consumer(client: SimulatedClient, goods: Goods, busy: Callable[[], bool], keep: Callable[[], bool]) -> Thread:
    """Takes items and does them; goes on after the others have stopped until there are no more."""
    luck = client._kernel.random
    queue = target("Queue", goods.name, 5, True)
    while busy() or keep():
        outcome = yield Ask(queue, "get", (True,), calls.GET, 0.3)
        if outcome.how != "ok":
            assert outcome.value == "empty", outcome
            continue
        item, session = outcome.value, outcome.session
        goods.take(item)
        # From here until task_done is applied the item comes again if this session ends.
        goods.may_repeat[item] += 1
        yield Sleep(luck.choice((0.0, 0.01)))
        if session is not client.session or client.session.over:
            continue
        goods.perhaps_done.add(item)
        done = yield Ask(queue, "task_done", (), calls.CHANGE)
        if done.how == "ok":
            goods.done.add(item)
            goods.may_repeat[item] -= 1


class Meeting:
    """Threads that wait for a turn under a Condition, and one that gives it: no wake-up may be lost."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.notified = 0
        self.woken = 0


def condition_user(
    client: SimulatedClient, number: int, meeting: Meeting, inside: Inside, busy: Callable[[], bool]
) -> Thread:
    """Locks, waits or notifies, unlocks. Whoever returns from wait holds the lock, alone."""
    luck = client._kernel.random
    lock = target("RLock", inside.name)
    condition = target("Condition", meeting.name, "simulated", inside.name, "RLock")
    me = object()
    while busy():
        yield Sleep(luck.expovariate(1 / 0.05))
        outcome = yield Ask(lock, "acquire", (True, number), calls.ACQUIRE)
        if outcome.how != "ok" or outcome.value is False:
            continue
        fence = outcome.value[0]
        inside.enter(me, client, outcome)
        if luck.random() < 0.6:
            inside.leave(me)
            wait = Ask(
                condition, "wait", (lock, number, fence), calls.WAIT_CONDITION, luck.choice((0.05, 0.4)), (lock,)
            )
            outcome = yield wait
            if outcome.how != "ok":
                continue
            notified, fence = outcome.value
            meeting.woken += notified
            inside.enter(me, client, outcome)
        elif client.session is outcome.session:
            told = yield Ask(
                condition, "notify", (lock, number, luck.choice((1, -1)), fence), calls.RELEASE, None, (lock,)
            )
            meeting.notified += told.how == "ok"
        inside.leave(me)
        if outcome.session is client.session and not client.session.over:
            yield Ask(lock, "release", (fence, number), calls.RELEASE)
