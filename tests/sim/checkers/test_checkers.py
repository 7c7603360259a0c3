# SPDX-License-Identifier: Apache-2.0
"""Each judge of a simulated world must find what it is there for: a bug planted in the product, or a false history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dthreading.session import calls
from dthreading.session.calls import PendingCall, Target
from dthreading.session.core import ClientSession
from dthreading.session.lanes import Lane
from dthreading.testing.linearizability import Verdict
from dthreading.wire import messages as wire
from dthreading.wire.messages import Lifetime, Status
from replicas.machine import commands, sessions
from replicas.machine.calls import Calls
from replicas.machine.core import Machine
from replicas.objects.condition import Condition
from replicas.objects.deliveries import Deliveries
from replicas.objects.lock import Ownable
from replicas.objects.waiting import WaitQueue
from replicas.paxos.types import Durable
from replicas.paxos.values import Ballot, Entry, EntryKind, encode_ballot
from tests.sim.checkers import Watch
from tests.sim.checkers.kept import Kept
from tests.sim.checkers.watch import nobody_waits_for_what_is_free
from tests.sim.client import Ask
from tests.sim.kernel import Kernel
from tests.sim.workloads import Scene
from tests.sim.workloads.base import Resource

BALLOT = Ballot(1, 1)


class Group:
    """Watched machines, and a log that is written by hand. Sessions 2 and 3 are those of two clients."""

    def __init__(self, machines: int = 1) -> None:
        self.watch = Watch(Kernel(0))
        self.machines = [Machine() for _ in range(machines)]
        for replica, machine in enumerate(self.machines, 1):
            self.watch.machine(replica, machine)
        self.entry(EntryKind.LEADS, encode_ballot(BALLOT))
        for nonce in (b"one", b"two"):
            self.says(wire.Open(nonce, 2000, "simulated", nonce.decode()))

    def entry(self, kind: EntryKind, value: bytes) -> None:
        """Every machine applies it."""
        for machine in self.machines:
            machine.apply(Entry(machine.applied + 1, BALLOT, kind, value))

    def says(self, *said: Any) -> None:
        """A client's words, or a leader's."""
        for message in said:
            self.entry(EntryKind.COMMAND, commands.codec.encode(message))

    def attach(self, handle: int, kind: str, *arguments: Any) -> None:
        """For both sessions."""
        for session in (2, 3):
            self.says(wire.Attach(session, handle, "simulated", f"{kind} {handle}", kind, arguments, 0, True))

    def call(self, session: int, lane: int, number: int, handle: int, operation: str, *arguments: Any) -> None:
        """One call."""
        self.says(wire.Call(session, lane, number, handle, operation, arguments, False))


def two_at_a_lock() -> Group:
    """Session 2 holds it, and lanes 0, 1, 2 of session 3 wait in that order."""
    group = Group()
    group.attach(1, "Lock")
    group.call(2, 0, 1, 1, "acquire", True, 7)
    for lane in range(3):
        group.call(3, lane, 1, 1, "acquire", True, lane)
    return group


# --- the log: planted bugs


def test_a_log_that_is_right_passes() -> None:
    """Or the tests below would prove nothing."""
    group = two_at_a_lock()
    group.call(2, 0, 2, 1, "release", 1)
    group.says(wire.Withdraw(3, 1, 1, False), wire.Withdraw(3, 0, 1, True), wire.Close(3))
    group.watch.finish(group.machines)


def _last_first(self: WaitQueue) -> Any:
    if not self._line:
        return None
    _, waiter = self._line.popitem(last=True)
    waiter.queue = None
    return waiter


def _forget_the_next(self: Ownable) -> None:
    assert self.owner is not None
    self.host.unstake(self.owner, self)
    self.owner, self.thread, self.count = None, 0, 0


def _no_copies(self: Calls, session: Any, index: int, number: int) -> Any:
    return session.lanes.setdefault(index, sessions.Lane(number))


@pytest.mark.parametrize(
    ("owner", "name", "instead"),
    [
        pytest.param(WaitQueue, "unpark", _last_first, id="last come, first served"),
        pytest.param(Ownable, "_pass_on", _forget_the_next, id="a wake-up is lost"),
    ],
)
def test_an_unfair_or_forgetful_lock_is_found(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, instead: Callable[..., Any]
) -> None:
    """FIFO, and no lost wake-up: whoever may go on is told in the very entry that lets it."""
    monkeypatch.setattr(owner, name, instead)
    group = two_at_a_lock()
    with pytest.raises(AssertionError, match="it should answer"):
        group.call(2, 0, 2, 1, "release", 1)


def test_a_call_that_is_done_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most once, from (session, lane, number)."""
    monkeypatch.setattr(Calls, "_new_number", _no_copies)
    group = Group()
    group.attach(1, "Semaphore", 0)
    group.call(2, 0, 1, 1, "release", 1)
    with pytest.raises(AssertionError, match=r"Semaphore 1'\) shows \(2,\), not \(1,\)"):
        group.call(2, 0, 1, 1, "release", 1)


def test_a_notification_spent_on_the_dead_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was notified and goes hands its notification on."""
    monkeypatch.setattr(Condition, "session_ended", lambda self, session: None)
    group = Group()
    group.attach(1, "Lock")
    group.attach(2, "Condition", "simulated", "Lock 1", "Lock")
    for fence, (session, lane) in enumerate([(3, 0), (2, 0)], 1):
        group.call(session, lane, 1, 1, "acquire", True, 1)
        group.call(session, lane, 2, 2, "wait", 1, 1, fence)
    group.call(2, 5, 1, 1, "acquire", True, 2)
    group.call(2, 5, 2, 2, "notify", 1, 2, 1, 3)
    group.call(2, 5, 3, 1, "release", 3)
    group.call(2, 6, 1, 2, "waiters")
    with pytest.raises(AssertionError, match="it should answer"):
        group.says(wire.Close(3))


def test_an_item_that_is_lost_with_its_taker_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody has acknowledged comes back to the head."""
    monkeypatch.setattr(Deliveries, "ended", lambda self, session: ([], len(self.takers.pop(session).threads) - 1))
    group = Group()
    group.attach(1, "SimpleQueue")
    group.call(2, 0, 1, 1, "put", False, b"x", None, 1)
    group.call(3, 0, 1, 1, "get", True, 1)
    with pytest.raises(AssertionError, match=r"SimpleQueue 1'\) shows \(0, "):
        group.says(wire.Close(3))


def test_a_fence_that_is_given_twice_is_found() -> None:
    """Fences are one counter of the whole state."""
    group = Group()
    group.attach(1, "Lock")
    group.attach(2, "Lock")
    group.call(2, 0, 1, 1, "acquire", True, 1)
    group.machines[0].fence -= 1
    with pytest.raises(AssertionError, match="is granted with fence 1, after 1"):
        group.call(2, 1, 1, 2, "acquire", True, 1)


# --- the replicas among themselves


def test_two_values_in_one_slot_are_found() -> None:
    """One value a slot, for ever."""
    group = Group()
    other = Machine()
    group.watch.machine(2, other)
    with pytest.raises(AssertionError, match="replica 2: another value at 1"):
        other.apply(Entry(1, BALLOT, EntryKind.NOOP, b""))


def test_another_answer_and_another_state_are_found_at_once() -> None:
    """By the first slot in which they differ."""
    for spoil, complaint in (("digest", "answers otherwise at slot"), ("fence", "is in another state at")):
        group = Group(machines=2)
        group.attach(1, "Lock")
        setattr(group.machines[1], spoil, {"digest": b"spoi", "fence": 99}[spoil])
        with pytest.raises(AssertionError, match=f"replica 2 {complaint}"):
            group.says(wire.Detach(2, 1))


def test_a_quiet_change_of_an_object_is_found() -> None:
    """The called object is compared in each slot, though no answer tells of it."""
    group = Group(machines=2)
    group.attach(1, "Semaphore", 1)
    group.machines[1].registry.objects["simulated", "Semaphore 1"].available = 2  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match="replica 2 is in another state"):
        group.call(2, 0, 1, 1, "acquire", True, 1)


def test_a_promise_that_goes_back_is_found() -> None:
    """What a replica said in one life it says in the next."""
    kept = Kept()
    kept.said(Ballot(5, 2))
    kept.found(Durable(promised=Ballot(5, 2)), spoilt=False)
    with pytest.raises(AssertionError, match="went back"):
        kept.found(Durable(promised=Ballot(4, 3)), spoilt=False)


def test_who_waits_for_what_is_free_is_found() -> None:
    """From what is shown to people, without the models."""
    group = two_at_a_lock()
    machine = group.machines[0]
    nobody_waits_for_what_is_free(machine)
    machine.registry.objects["simulated", "Lock 1"].owner = None  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match="wait for what is free"):
        nobody_waits_for_what_is_free(machine)


# --- leases, and what threads are told


class FakeClient:
    """As much of a client as the judges look at."""

    def __init__(self, session: int, *, believes: bool = True) -> None:
        self.name, self.alive, self.believes = f"client of {session}", True, believes
        self.session: Any = ClientSession(namespace="simulated", label=self.name, ttl_ms=2000)
        self.session.id = session
        self.session.holds = lambda now: self.believes

    def now(self) -> float:
        """Any time."""
        return 0.0


def told(client: Any, ask: Ask, number: int, status: int, value: Any, *, lane: int = 0) -> PendingCall:
    """A call as it is settled."""
    call = PendingCall(ask.target, ask.operation, ask.arguments, ask.manner)
    call.session, call.lane, call.number = client.session, Lane(lane), number
    call.status, call.value, call.settled = Status(status), value, True
    return call


@pytest.fixture
def client() -> Any:
    return FakeClient(2)


LOCK = Target("simulated", "Lock 1", "Lock", (), int(Lifetime.NAMED))
ACQUIRE = Ask(LOCK, "acquire", (True, 7), calls.ACQUIRE)


def test_a_client_that_believes_in_an_expired_session_is_found(client: Any) -> None:
    """It must know of the loss before the group gives anything away."""
    group = two_at_a_lock()
    group.watch.clients.append(client)
    with pytest.raises(AssertionError, match="its client believes in it"):
        group.says(commands.Expire(2, 1, *BALLOT))


def test_two_who_believe_to_hold_a_lock_are_found(client: Any) -> None:
    """Mutual exclusion, at the moment of the grant and by the holders' own clocks."""
    group = two_at_a_lock()
    group.watch.told.hears(client, ACQUIRE, told(client, ACQUIRE, 1, 0, 1), 0)
    with pytest.raises(AssertionError, match="believes to hold"):
        group.call(3, 7, 1, 1, "release", None)  # somebody else ends the hold, and it passes on


def test_an_answer_that_the_log_does_not_have_is_found(client: Any) -> None:
    """Tampered on its way to the thread; or begun after its own effect was seen; or an error that it may not have."""
    group = two_at_a_lock()
    hears = group.watch.told.hears
    with pytest.raises(AssertionError, match="told 9"):
        hears(client, ACQUIRE, told(client, ACQUIRE, 1, 0, 9), 0)
    with pytest.raises(AssertionError, match="began after slot 50 was seen"):
        hears(client, ACQUIRE, told(client, ACQUIRE, 1, 0, 1), 50)
    with pytest.raises(AssertionError, match="is not in the log"):
        hears(client, ACQUIRE, told(client, ACQUIRE, 99, 0, 1), 0)
    call = told(client, ACQUIRE, 1, 0, 1)
    call.lost = True
    with pytest.raises(AssertionError, match="in a session that lives"):
        hears(client, ACQUIRE, call, 0)


def test_a_stale_read_is_found(client: Any) -> None:
    """A read tells of a state that was current while it lasted."""
    group = Group()
    group.attach(1, "Lock")
    group.call(2, 0, 1, 1, "acquire", True, 7)
    acquired = group.watch.top
    locked = Ask(LOCK, "locked", (), calls.READ)
    group.watch.told.hears(client, locked, told(client, locked, 2, 0, True), acquired)
    group.watch.told.hears(client, locked, told(client, locked, 2, 0, False), 0)
    with pytest.raises(AssertionError, match="answered False; since slot"):
        group.watch.told.hears(client, locked, told(client, locked, 2, 0, False), acquired)


def test_the_black_box_finds_two_holders(client: Any) -> None:
    """Without any knowledge of the log."""
    black_box = Watch(Kernel(0)).black_box
    first, second = FakeClient(2), FakeClient(3)
    for one, fence in ((first, 1), (second, 2)):
        call = told(one, ACQUIRE, 1, 0, fence)
        black_box.asks(one, "main", ACQUIRE, call)  # type: ignore[arg-type]
        black_box.hears(ACQUIRE, call)
    with pytest.raises(AssertionError, match="no order of its calls explains"):
        black_box.finish()
    # Had the first one's session ended meanwhile, there would be nothing to complain of.
    black_box.history.session_lost("client of 2", since=1)
    assert black_box.judge("Lock 1") is Verdict.LINEARIZABLE


def test_a_write_that_gets_lost_behind_fences_is_found() -> None:
    """The guarded resource looks at itself."""
    resource = Resource("file", Scene(Kernel(0)))
    read = resource.read(1)
    resource.write(1, read)
    with pytest.raises(AssertionError, match="has lost a write"):
        resource.write(2, read)
