# SPDX-License-Identifier: Apache-2.0
"""The judges of words in order, of prompt answers and of disks find what they are there for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dthreading.session.calls import READ, PendingCall, Target
from dthreading.wire import messages as wire
from dthreading.wire.codec import encode
from dthreading.wire.messages import Lifetime
from replicas.paxos.types import Accepted, Ballot, Durable, Entry, EntryKind, Promised
from tests.sim.checkers.kept import Kept
from tests.sim.checkers.promptness import GRACE_US, MENDING_US
from tests.sim.checkers.streams import Streams, Words
from tests.sim.plan import Menu, drawn
from tests.sim.world import World

BALLOT = Ballot(1, 1)


class _Lanes(SimpleNamespace):
    def get(self, index: int) -> Any:
        return self.lanes[index]

    def all(self) -> list[Any]:
        return self.lanes


class _Line:
    """One client that says what it is told to say, to a replica that has applied `at`."""

    def __init__(self) -> None:
        self.at = 0
        self.stands = False
        self.lane = SimpleNamespace(index=0, undo=None, pending=None)
        session: Any = SimpleNamespace(id=2, _lanes=_Lanes(lanes=[self.lane]))
        line = SimpleNamespace(connection=1, replica=1)
        client: Any = SimpleNamespace(name="c1.0", session=session, line=line, _ttl_ms=2000)
        self.client = client
        self.words = Words(client)
        self.streams = Streams(lambda _: self.at, lambda _: self.stands)
        self.says(wire.Keepalive(2, 1))

    def says(self, *said: Any) -> None:
        for message in said:
            self.streams.says(self.words, self.client.line.connection, encode(message), 0)

    def reconnects(self, *again: Any) -> None:
        self.client.line.connection += 1
        self.says(*again, wire.Keepalive(2, 9))


def _call(number: int) -> wire.Call:
    return wire.Call(2, 0, number, 1, "acquire", (True, 1), False)


def test_a_word_that_overtakes_is_found() -> None:
    """The log has the second and not the first."""
    line = _Line()
    line.says(_call(1), _call(2))
    with pytest.raises(AssertionError, match="has overtaken"):
        line.streams.applied(encode(_call(2)))


def test_words_in_order_are_well() -> None:
    """Copies of what is done already change nothing."""
    line = _Line()
    line.says(_call(1), _call(2))
    for number in (1, 2, 1):
        line.streams.applied(encode(_call(number)))


def test_a_read_that_misses_what_was_said_before_is_found() -> None:
    """It is answered while an undo that left before it is in nobody's log."""
    line = _Line()
    target = Target("simulated", "a", "Lock", (), Lifetime.NAMED)
    read = PendingCall(target, "locked", (), READ)
    body = encode(wire.Call(2, 1, 1, 1, "locked", (), False))
    read.frame = b"1234" + body
    line.streams.asks(read)
    line.says(wire.Withdraw(2, 0, 1, True))
    line.streams.says(line.words, 1, body, 0)
    with pytest.raises(AssertionError, match="which it said first"):
        line.streams.read_answered(line.words, None, read)  # type: ignore[arg-type]


def test_an_answer_that_is_not_told_is_found() -> None:
    """The replica has applied slot 7, where the call was answered, and acknowledges a later keepalive."""
    line = _Line()
    line.lane.pending = SimpleNamespace(number=1, operation="acquire", target="a lock")
    line.at = 7
    line.says(wire.Keepalive(2, 2))
    line.streams.acknowledged(line.words, 1, {(2, 0, 1): (7, 0)})
    with pytest.raises(AssertionError, match="was not told of the answer"):
        line.streams.acknowledged(line.words, 2, {(2, 0, 1): (7, 0)})


@pytest.mark.parametrize("lost", [wire.Detach(2, 1), wire.Acknowledge(2, ((0, 1),))])
def test_a_lost_word_that_is_not_said_again_is_found(lost: Any) -> None:
    """The connection broke, and nobody knows whether it came."""
    line = _Line()
    line.says(lost)
    line.reconnects(lost)
    with pytest.raises(AssertionError, match="did not say again"):
        line.reconnects()


def test_a_lost_undo_is_said_again_while_anything_stands() -> None:
    """Even when the session itself has forgotten it."""
    line = _Line()
    line.says(wire.Withdraw(2, 0, 1, True))
    line.reconnects()
    line.says(wire.Withdraw(2, 0, 2, True))
    line.stands = True
    with pytest.raises(AssertionError, match="did not say again"):
        line.reconnects()


def _entry(slot: int, value: bytes) -> Entry:
    return Entry(slot, BALLOT, int(EntryKind.COMMAND), value)


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (Durable(), "went back to promise"),
        (Durable(promised=BALLOT), "is gone"),
        (Durable(promised=BALLOT, entries=(_entry(1, b"y"),)), "and now"),
        (Durable(promised=BALLOT, entries=(_entry(1, b"x"),), doubtful=frozenset({1})), "an undamaged disk"),
    ],
)
def test_a_disk_that_does_not_keep_what_it_was_told_is_found(found: Durable, what: str) -> None:
    """Whatever became durable is there in the next life, as it was."""
    kept = Kept()
    records = [Promised(BALLOT), Accepted(_entry(1, b"x"))]
    kept.wrote(records)
    kept.synced(records)
    with pytest.raises(AssertionError, match=what):
        kept.found(found, spoilt=False)


def test_what_was_written_later_may_be_there() -> None:
    """Nobody knows how far a write got that was not synced."""
    kept = Kept()
    kept.wrote([Accepted(_entry(1, b"x"))])
    kept.synced([Accepted(_entry(1, b"x"))])
    kept.wrote([Accepted(_entry(1, b"y"))])
    kept.found(Durable(entries=(_entry(1, b"y"),)), spoilt=False)
    kept.found(Durable(entries=(_entry(1, b"y"),), doubtful=frozenset({1})), spoilt=True)


def _calm_world() -> World:
    plan = drawn(5, Menu({}, {"lock:a": 1.0}), replicas=3, clients=2, trouble_us=20_000_000, core_only=False)
    clients = tuple(part._replace(think_s=0.2) for part in plan.clients)
    return World(plan._replace(clients=clients, delay_us=(100, 1_000), straggle=0.0, moments=()))


def test_a_forgotten_call_is_found_though_all_is_well() -> None:
    """A replica drops one command of a client, and nothing breaks that would have it said again."""
    world = _calm_world()
    for host in world.hosts.values():
        host.start()
    for part in world.plan.clients:
        world._play(part)
    world.kernel.run_until(MENDING_US)
    client = world.clients[0]
    host = world.hosts[client.line.replica]
    said = host.core.client_said
    forgotten: list[Any] = []

    def forgets(connection: int, message: Any, body: bytes) -> None:
        if type(message) is wire.Call and not forgotten:
            forgotten.append(message)
        else:
            said(connection, message, body)

    host.core.client_said = forgets
    with pytest.raises(AssertionError, match=r"has overtaken|still waits for"):
        world.kernel.run_until(3 * MENDING_US + GRACE_US)
    assert forgotten


def test_a_calm_world_is_prompt() -> None:
    """The same without that."""
    world = _calm_world()
    world.run()
    assert world.watch.promptness._freshest_us > 0
