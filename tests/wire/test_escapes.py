# SPDX-License-Identifier: Apache-2.0
"""What fuzzing and reading have found that got past the one ProtocolError, each kept as its smallest case.

All of these are well-formed frames: what is wrong with them shows only in what they say, to whom, and when.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgpack
import pytest

from dthreading.errors import LimitExceeded, ProtocolError
from dthreading.session import ACQUIRE, ClientSession, PendingCall, State, Target
from dthreading.wire import codec, limits, values
from dthreading.wire import messages as wire
from replicas.daemon import clients
from replicas.daemon.peers import Introduction, _introductions
from replicas.paxos import messages as paxos
from replicas.paxos.values import Ballot, Configuration, Entry, Member, encode_ballot, encode_configuration
from replicas.replica.formation import Census, Formation, Phase
from replicas.replica.forwarding import Forwarding
from replicas.replica.hosting import Hosting
from replicas.replica.messages import Forward, SnapshotPart, SnapshotRequest
from replicas.replica.messages import codec as peers
from tests.replica.harness import Group

LARGEST = 2**63 - 1

# --- from clients ---------------------------------------------------------------------------------------------------


def test_what_a_client_may_send_fits_what_replicas_wrap_around_it() -> None:
    """A command of exactly a frame became a Forward or an Accept above one, and ended the replica that sent it."""
    command = bytes(limits.COMMAND_BYTES_MAX)
    ballot = Ballot(LARGEST, LARGEST)
    wrapped = [
        Forward(LARGEST, LARGEST, (command,)),
        paxos.Accept(ballot, LARGEST, LARGEST, b"\1", (command,), LARGEST, LARGEST, LARGEST),
        paxos.Chosen(LARGEST, b"\1", (command,), LARGEST, ballot),
        paxos.Promise(ballot, LARGEST, (Entry(LARGEST, ballot, 1, command),), LARGEST, (LARGEST,) * 5000, LARGEST),
    ]
    for message in wrapped:
        assert len(peers.encode(message)) <= limits.FRAME_BYTES_MAX
    call = wire.Call(LARGEST, LARGEST, LARGEST, LARGEST, "put", (True, bytes(limits.ITEM_BYTES_MAX), None), True)
    assert len(codec.encode(call)) < limits.COMMAND_BYTES_MAX


def test_a_client_s_frame_is_refused_above_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """On its prefix, by the connection; another replica may send a whole frame."""
    expected = {}
    for role in wire.Role:
        stranger = _accepted(role, monkeypatch)
        expected[role] = stranger._decoder.body_bytes_max
    assert expected[wire.Role.CLIENT] == expected[wire.Role.ADMIN] == limits.COMMAND_BYTES_MAX
    assert expected[wire.Role.REPLICA] == limits.FRAME_BYTES_MAX


def _accepted(role: wire.Role, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An accepted connection whose handshake is done; what it says goes nowhere."""
    from dthreading.wire.auth import Connector

    monkeypatch.setattr(clients._Accepted, "send", lambda self, body: said.append(codec.decode(body)))
    said: list[Any] = []

    class Nobody:
        def __getattr__(self, name: str) -> Any:
            return (lambda *_: wire.Welcome("", 1, "", ())) if name == "welcome" else lambda *_: 0.0

    table = clients.Clients(Nobody(), Nobody(), None, Nobody(), 10)  # type: ignore[arg-type]
    accepted = clients._Accepted(table)
    connector = Connector(role, None, b"n" * 16)
    accepted.got(codec.encode(connector.hello()))
    accepted.got(codec.encode(connector.challenged(said[0])))
    assert isinstance(said[-1], wire.Welcome)
    return accepted


@pytest.mark.parametrize("known", [False, True], ids=["unknown", "mismatch"])
def test_no_answer_repeats_so_much_that_it_is_larger_than_a_frame(known: bool) -> None:
    """The name of a kind or of an operation came back in the error, four times as long where it had to be quoted."""
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    if known:
        group.attach(leader, 7, session)
    endless = "\0" * 1_000_000
    group.say(leader, 7, wire.Call(session, 0, 1, 1, endless, (), False))
    group.say(leader, 7, wire.Attach(session, 2, "test", "x", endless, (), 0, True))
    group.say(leader, 7, wire.Call(session, 0, 2, 2, "acquire", (True, 1), False))
    replies = group.replies(7)
    assert [reply.status for reply in replies] == [wire.Status.ERROR] * 2
    assert max(len(codec.encode(reply)) for reply in replies) < 2_000


def test_a_call_on_a_handle_with_thousands_of_digits_breaks_nothing() -> None:
    """The handle is named in the error; where that failed, apply did, on every replica and again after a restart."""
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    call = wire.Call(session, 0, 1, 2**20_000, "acquire", (True, 1), False)
    with pytest.raises(ProtocolError):
        codec.decode(codec.encode(call))
    group.replicas[leader]._submit(codec.encode(call), 7)
    group.settle()
    group.pass_ms(1000)
    assert len({replica.machine.digest for replica in group.replicas.values()}) == 1


def test_a_session_is_nobody_else_s_even_in_one_breath_with_a_guess() -> None:
    """What follows a Resume at once is not heard before that was judged: its nonce may be wrong."""
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    group.attach(leader, 7, session)
    thief = group.replicas[leader]
    for message in (wire.Resume(session, b"a guess"), wire.Close(session)):
        thief.client_said(8, message, codec.encode(message))
    group.settle()
    assert 8 in group.hung_up
    assert all(session in replica.machine.sessions for replica in group.replicas.values())
    group.say(leader, 7, wire.Call(session, 0, 1, 1, "locked", (), False))
    assert group.replies(7)[-1] == wire.Reply(0, 1, wire.Status.OK, False)


def test_what_a_follower_passes_on_is_what_a_leader_takes() -> None:
    """More small commands at once than an array may have: the leader cut the link, and again after each new one."""
    hosting = Hosting()
    forwarding = Forwarding(hosting, 0)
    bodies = [codec.encode(wire.Detach(5, handle)) for handle in range(limits.ELEMENTS_MAX + 5)]
    for body in bodies:
        hosting.add(body, 1)
        forwarding.add(body)
    taken = [peers.decode(peers.encode(forward)) for forward in forwarding.take()]
    assert [body for forward in taken for body in forward.bodies] == bodies  # type: ignore[union-attr]
    assert [forward.number for forward in taken] == list(range(len(taken)))  # type: ignore[union-attr]


# --- from replicas --------------------------------------------------------------------------------------------------

GOOD = Configuration("group", 1, (Member(1, "a", b"1"), Member(2, "b", b"2")), b"")
BALLOT = Ballot(3, 1)


def census(phase: int, configuration: Configuration) -> Census:
    return Census(phase, ("a", "b"), b"1", configuration)


MALFORMED = {
    "fewer kinds than values": paxos.Accept(BALLOT, 1, 1, b"", (b"x",), 0, 0, 0),
    "more kinds than values": paxos.Accept(BALLOT, 1, 1, b"\1\1", (b"x",), 0, 0, 0),
    "an unknown kind": paxos.Accept(BALLOT, 1, 1, b"\x04", (b"x",), 0, 0, 0),
    "a LEADS that is no ballot": paxos.Accept(BALLOT, 1, 1, b"\3", (b"x",), 0, 0, 0),
    "no configuration": paxos.Accept(BALLOT, 1, 1, b"\2", (b"\xff" * 9,), 0, 0, 0),
    "a configuration that is not text": paxos.Accept(
        BALLOT, 1, 1, b"\2", (encode_configuration(GOOD).replace(b"group", b"\xff\xff\xff\xff\xff"),), 0, 0, 0
    ),
    "a configuration of nobody": paxos.Accept(
        BALLOT, 1, 1, b"\2", (encode_configuration(GOOD._replace(members=())),), 0, 0, 0
    ),
    "the same member twice": paxos.Accept(
        BALLOT, 1, 1, b"\2", (encode_configuration(GOOD._replace(members=GOOD.members[:1] * 2)),), 0, 0, 0
    ),
    "a slot below the first": paxos.Accept(BALLOT, 1, 0, b"\1", (b"x",), 0, 0, 0),
    "chosen with fewer kinds": paxos.Chosen(1, b"", (b"x",), 1, BALLOT),
    "chosen of an unknown kind": paxos.Chosen(1, b"\xff", (b"x",), 1, BALLOT),
    "a negative slot": paxos.Fetch(-1),
    "a ballot beyond 63 bits": paxos.Refuse(Ballot(2**63, 1), 0),
    "a ballot of nobody": paxos.PreVote(Ballot(5, -1)),
    "promised entries with a gap": paxos.Promise(
        BALLOT, 1, (Entry(1, BALLOT, 1, b""), Entry(3, BALLOT, 1, b"")), 0, (), 0
    ),
    "promised entries of an unknown kind": paxos.Promise(BALLOT, 1, (Entry(1, BALLOT, 9, b""),), 0, (), 0),
    "a page that leads nowhere": paxos.Promise(BALLOT, 5, (), 0, (), 5),
    "a phase that is none": census(3, GOOD),
    "prepared for nothing": census(Phase.PREPARED, Configuration("", 0, (), b"")),
    "prepared for two of the same incarnation": census(
        Phase.PREPARED, GOOD._replace(members=tuple(member._replace(incarnation=b"1") for member in GOOD.members))
    ),
    "prepared for the same member twice": census(Phase.PREPARED, GOOD._replace(members=GOOD.members[:1] * 2)),
    "an epoch beyond 63 bits": census(Phase.FORMED, GOOD._replace(epoch=2**64)),
    "a negative offset": SnapshotRequest(1, -1),
    "a part before the beginning": SnapshotPart(1, b"", -1, b"", False),
    "a negative number": Forward(1, -1, ()),
}

WELL_FORMED = [
    paxos.Accept(BALLOT, 1, 1, b"\0\1\2\3", (b"", b"x", encode_configuration(GOOD), encode_ballot(BALLOT)), 0, 0, 0),
    paxos.Accept(BALLOT, 1, 1, b"", (), 0, 0, 0),
    paxos.Chosen(1, b"\1", (b"x",), 1, BALLOT),
    paxos.Promise(BALLOT, 1, (Entry(1, BALLOT, 1, b""), Entry(2, BALLOT, 3, encode_ballot(BALLOT))), 0, (1, 2), 3),
    paxos.Promise(BALLOT, 7, (), 9, (), 0),
    census(Phase.EMPTY, Configuration("", 0, (), b"")),
    census(Phase.PREPARED, GOOD),
]


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_word_of_a_replica_ends_its_connection_and_not_us(message: Any) -> None:
    """A replica that knows the secret is believed; but what cannot be true of any state is no message."""
    with pytest.raises(ProtocolError):
        peers.decode(peers.encode(message))


@pytest.mark.parametrize("message", WELL_FORMED, ids=lambda message: type(message).__name__)
def test_a_well_formed_word_of_a_replica_comes_through(message: Any) -> None:
    assert peers.decode(peers.encode(message)) == message


# --- from servers ---------------------------------------------------------------------------------------------------


def opened(arguments: tuple[Any, ...] = ()) -> tuple[ClientSession, PendingCall, deque[bytes]]:
    """A session with one call on its way, numbered 1 on lane 0."""
    session = ClientSession(namespace="n", label="", ttl_ms=10_000)
    outbox: deque[bytes] = deque()
    session.connected(outbox, b"n" * 16, 0.0)
    session.step(wire.Opened(b"n" * 16, 5, 10_000), 0.0)
    call = PendingCall(Target("n", "x", "Lock", arguments, 0), "acquire", (True, 1), ACQUIRE)
    session.submit(call)
    return session, call, outbox


@pytest.mark.parametrize(
    "reply",
    [
        wire.Reply(0, 1, 9, None),
        wire.Reply(0, 1, -1, None),
        wire.Reply(0, 1, wire.Status.ERROR, None),
        wire.Reply(0, 1, wire.Status.ERROR, ("runtime", "text")),
        wire.Reply(0, 1, wire.Status.ERROR, (1, "text", ())),
        wire.Reply(0, 1, wire.Status.ERROR, ("runtime", "text", None)),
    ],
    ids=repr,
)
def test_a_reply_that_means_nothing_is_a_protocol_error(reply: wire.Reply) -> None:
    """It settles nothing: the connection ends, and the call is sent again on another."""
    session, call, _ = opened()
    with pytest.raises(ProtocolError):
        session.step(reply, 0.1)
    assert not call.settled
    session.step(wire.Reply(0, 1, wire.Status.OK, 7), 0.2)
    assert call.value == 7


@pytest.mark.parametrize("ttl_ms", [2**2000, 2**64, 0, -1])
def test_a_lease_that_cannot_be_is_a_protocol_error(ttl_ms: int) -> None:
    session = ClientSession(namespace="n", label="", ttl_ms=10_000)
    session.connected(deque(), b"n" * 16, 0.0)
    with pytest.raises(ProtocolError):
        session.step(wire.Opened(b"n" * 16, 5, ttl_ms), 0.0)
    assert session.state is State.NEW


@pytest.mark.parametrize("number", [0, -5])
def test_a_session_that_cannot_be_is_a_protocol_error(number: int) -> None:
    """0 is what a session has for an id before it is opened."""
    session = ClientSession(namespace="n", label="", ttl_ms=10_000)
    session.connected(deque(), b"n" * 16, 0.0)
    with pytest.raises(ProtocolError):
        session.step(wire.Opened(b"n" * 16, number, 10_000), 0.0)


# --- from callers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "error"),
    [(object(), TypeError), (2**5000, LimitExceeded), (bytes(limits.COMMAND_BYTES_MAX), LimitExceeded)],
    ids=["object", "int", "bytes"],
)
@pytest.mark.parametrize("connected", [True, False])
def test_an_object_that_cannot_be_named_to_the_group_is_its_caller_s_error(
    argument: Any, error: type[Exception], connected: bool
) -> None:
    """It was found out only after a reconnect, by the thread that serves all others, which ended of it."""
    session, _, outbox = opened()
    if not connected:
        session.disconnected()
    call = PendingCall(Target("n", "y", "Semaphore", (argument,), 0), "acquire", (True, 1), ACQUIRE)
    session.submit(call)
    assert call.settled
    assert isinstance(call.error, error)
    session.disconnected()
    session.connected(outbox, b"m" * 16, 0.1)
    session.step(wire.Resumed(5), 0.1)
    assert session.ready


@pytest.mark.parametrize("argument", [2**5000, bytes(limits.COMMAND_BYTES_MAX)], ids=["int", "bytes"])
def test_a_call_that_no_replica_would_take_is_its_caller_s_error(argument: Any) -> None:
    session, first, _ = opened()
    call = PendingCall(first.target, "put", (True, argument, None), ACQUIRE)
    with pytest.raises(LimitExceeded, match="_BYTES_MAX"):
        session.begin(call)


# --- items ----------------------------------------------------------------------------------------------------------


def test_an_item_of_tuples_in_tuples_does_not_end_the_getter() -> None:
    """Each level is unpacked inside the one around it, in C, and the stack was at its end before Python noticed."""
    body = msgpack.packb([])
    for _ in range(3000):
        body = msgpack.packb(msgpack.ExtType(2, body))
    with pytest.raises(ProtocolError):
        values.decode_item(values.PLAIN + body)


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 3000,
        b"\xc7\x01\x02\xc1",
        b"\xc7\x01\x02\x05",
        b"\xa1\xff",
        b"\1\1",
    ],
    ids=repr,
)
def test_a_damaged_item_is_a_protocol_error(rest: bytes) -> None:
    with pytest.raises(ProtocolError):
        values.decode_item(values.PLAIN + rest)


def test_the_deepest_item_that_is_sent_as_plain_values_comes_back() -> None:
    item: Any = 5
    for _ in range(limits.NESTING_MAX):
        item = (item,)
    body = values.encode_item(item)
    assert body[:1] == values.PLAIN
    assert values.decode_item(body) == item


# --- while a group is formed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [b"1", b"2"])
def test_no_group_is_formed_of_copies_of_one_directory(copied: bytes) -> None:
    """An image with a formatted directory in it, started twice: such a group ran until its first restart, and never
    again, since a directory no longer knew which of the members it is.
    """
    forming = Formation(
        addresses=("a", "b", "c"), replica=1, incarnation=b"1", formation=None, cluster="c", settings=b"", now_ms=0
    )
    for source, incarnation in ((2, b"2"), (3, copied)):
        forming.step(source, Census(Phase.EMPTY, ("a", "b", "c"), incarnation, Configuration("", 0, (), b"")))
    output = forming.take()
    assert forming.phase is Phase.EMPTY
    assert output.persist is None
    assert "copies of one" in str(output.notice)
    forming.step(3, Census(Phase.EMPTY, ("a", "b", "c"), b"3", Configuration("", 0, (), b"")))
    assert forming.phase is Phase.PREPARED, "mended by clearing one of them"


# --- at the door ----------------------------------------------------------------------------------------------------


def test_an_operator_who_leaves_is_forgotten() -> None:
    """Each one that deleted something stayed in the replica's tables for ever."""
    import asyncio
    import random

    from tests.wire.fuzz_doors import _Guest, _House

    async def story() -> tuple[int, ...]:
        house = _House()
        operator = _Guest(house, random.Random(1), wire.Role.ADMIN)
        await operator.shake_hands()
        operator.say(codec.encode(wire.Query(1, "delete", ("n", "x"))))
        assert wire.Answer(1, False) in await operator.hear()
        operator.leave()
        return house.replica._hosting.connections

    assert asyncio.run(story()) == ()


def test_an_introduction_as_long_as_a_frame_is_refused() -> None:
    """The refusal named its group, and became longer than a frame may be, which ended the replica that refused."""
    endless = "x" * (limits.FRAME_BYTES_MAX - 100)
    for introduction in (
        Introduction(endless, 1, b"i" * 16, 2, "a:1"),
        Introduction("group", 1, b"i" * 16, 2, endless),
        Introduction("group", 2**64, b"i" * 16, 2, "a:1"),
        Introduction("group", 1, endless.encode(), 2, "a:1"),
    ):
        with pytest.raises(ProtocolError):
            _introductions.decode(_introductions.encode(introduction))
    whole = Introduction("group", 1, b"i" * 16, 2, "a:1")
    assert _introductions.decode(_introductions.encode(whole)) == whole


def test_a_line_of_the_log_about_a_stranger_is_short() -> None:
    """What it sent is named in it, and must not fill the disk."""
    lines: list[str] = []

    class Quiet:
        def now_s(self) -> float:
            return 0.0

        def warn(self, now_s: float, line: str) -> None:
            lines.append(line)

        peer_name = "somebody"

    quiet: Any = Quiet()
    clients.Clients(quiet, quiet, None, quiet, 10).complain(quiet, "no question " + "x" * 1_000_000)
    assert lines[0].startswith("ended the connection from somebody: no question xxx")
    assert len(lines[0]) < 2_000
