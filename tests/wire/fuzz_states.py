# SPDX-License-Identifier: Apache-2.0
"""What is fuzzed with a state behind it: messages in any order into replicas, into a session, into a forming group.

The messages are well-formed more often than not, and speak of what is nearly there: other sessions, lanes and handles,
numbers a bit or very far ahead, objects of another kind. Targets are as in fuzz_targets.py.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any, Final

from dthreading.errors import ProtocolError
from dthreading.session import ACQUIRE, GET, PUT, READ, RELEASE, WAIT_EVENT, ClientSession, PendingCall, Target
from dthreading.wire import codec, limits
from dthreading.wire import messages as wire
from dthreading.wire.framing import FrameDecoder
from replicas.machine.core import Machine
from replicas.objects import KINDS, OPERATION_NAMES
from replicas.objects.registry import GONE
from replicas.paxos import messages as paxos
from replicas.paxos.values import Configuration, Member, encode_ballot, encode_configuration
from replicas.replica.formation import Census, Formation, Phase
from replicas.replica.messages import codec as peers
from tests.replica.harness import Group
from tests.wire import fuzz_words as words

FROM_CLIENT: Final = (*wire.COMMANDS, wire.Keepalive, wire.CloseAtEnd)
OPERATIONS: Final = (*sorted(OPERATION_NAMES), "__init__", "dump", "", "x" * (limits.OP_BYTES_MAX + 1))
KIND_NAMES: Final = (*sorted(KINDS), "Nothing", "")

FRAMES_PER_CASE: Final = 150
GARBAGE_CONNECTIONS: Final = 4
HONEST: Final = 1


class _Checked(deque[tuple[int, int, Any]]):
    """What replicas say to each other passes as bytes: whatever clients do, no replica says what another refuses."""

    def append(self, flight: tuple[int, int, Any]) -> None:
        source, target, message = flight
        back = peers.decode(peers.encode(message))
        assert words.sight(back) == words.sight(message), message
        super().append((source, target, back))


# --- clients who say anything -------------------------------------------------------------------------------------


class _Crowd:
    """A group, one honest client, and a few connections that say anything."""

    damaged = 0.1
    """How much of it."""

    def __init__(self, luck: random.Random, size: int) -> None:
        self.luck = luck
        self.group = Group(size)
        self.group.queue = _Checked()
        self.leader = self.group.leader()
        self.home = luck.choice(list(self.group.replicas))
        self.session = self.group.open(self.home, HONEST)
        self.group.say(self.home, HONEST, wire.Attach(self.session, 1, "honest", "mine", "Lock", (), 0, True))
        self.calls = 0
        self.next_connection = HONEST + 1
        self.connections: dict[int, int] = {}
        self.known: list[int] = [self.session, 0, 2**63]
        self.nonces: list[bytes] = [b"", b"x" * 16]
        self.frames = 0

    def honest_call(self, operation: str, *arguments: Any) -> Any:
        self.calls += 1
        self.group.say(self.home, HONEST, wire.Call(self.session, 0, self.calls, 1, operation, arguments, False))
        for _ in range(100):
            replies = [reply for reply in self.group.replies(HONEST) if reply.number == self.calls]
            if replies:
                assert replies[-1].status == wire.Status.OK, replies[-1]
                return replies[-1].value
            self.group.pass_ms(20)
        raise AssertionError("the honest client is not served any more")

    def is_served(self) -> None:
        assert HONEST not in self.group.hung_up, self.group.hung_up
        fence = self.honest_call("acquire", True, 1)
        assert type(fence) is int, fence
        self.honest_call("release", fence)

    def garbage(self) -> None:
        luck = self.luck
        if len(self.connections) < GARBAGE_CONNECTIONS:
            self.connections[self.next_connection] = luck.choice(list(self.group.replicas))
            self.next_connection += 1
        connection, home = luck.choice(list(self.connections.items()))
        message = self.message(connection)
        body = codec.encode(message)
        if luck.random() < self.damaged:
            body = words.damaged(luck, body)
        self.frames += 1
        replica = self.group.replicas[home]
        try:
            if len(body) > limits.COMMAND_BYTES_MAX:
                raise ProtocolError("a frame that is too large")
            heard = codec.decode(body)
            if type(heard) not in FROM_CLIENT:
                raise ProtocolError("not from a client")
            codec.check_ints_of_caller(body, heard)
            replica.client_said(connection, heard, body)  # type: ignore[arg-type]
        except ProtocolError:
            self.gone(connection)
        if luck.random() < 0.5:
            self.group.settle()
            self.listen()

    def gone(self, connection: int) -> None:
        self.group.replicas[self.connections.pop(connection)].client_gone(connection)

    def listen(self) -> None:
        for connection in list(self.connections):
            if connection in self.group.hung_up:
                self.gone(connection)
        for connection, said in self.group.said.items():
            for message in said:
                assert len(codec.encode(message)) <= limits.FRAME_BYTES_MAX
                if isinstance(message, wire.Opened):
                    self.known.append(message.session)
            if connection != HONEST:
                said.clear()

    def message(self, connection: int) -> Any:
        """Something that a client may say, about what is nearly there."""
        luck = self.luck
        cls = luck.choice(FROM_CLIENT)
        message = words.message(luck, cls)
        changes: dict[str, Any] = {}
        link = self.group.replicas[self.connections[connection]]._hosting.link(connection)
        if hasattr(message, "session"):
            own = link.session if link.session is not None else self.known[-1]
            changes["session"] = own if luck.random() < 0.8 else luck.choice(self.known)
        if cls is wire.Open or (link.session is None and luck.random() < 0.5):
            nonce = luck.choice((luck.randbytes(16), luck.choice(self.nonces)))
            self.nonces.append(nonce)
            return wire.Open(nonce, words.integer(luck), luck.choice(("n", "m", "honest")), words.text(luck))
        for field, most in (("lane", 4), ("number", 12), ("handle", 5)):
            if hasattr(message, field) and luck.random() < 0.9:
                changes[field] = luck.randrange(most)
        if cls is wire.Attach and luck.random() < 0.9:
            changes |= {
                "kind": luck.choice(KIND_NAMES),
                "lifetime": luck.randrange(-1, 4),
                "namespace": luck.choice("nm"),
            }
            changes |= {"name": luck.choice("xyz"), "arguments": arguments(luck)}
        if cls is wire.Call and luck.random() < 0.9:
            changes |= {"operation": luck.choice(OPERATIONS), "arguments": arguments(luck)}
        return message._replace(**changes)

    def check(self) -> None:
        """All replicas have the same state, nothing broke, and its snapshot gives the same state back."""
        self.group.pass_ms(2_000)
        self.listen()
        self.is_served()
        self.group.pass_ms(500)
        machines = [replica.machine for replica in self.group.replicas.values()]
        assert len({machine.digest for machine in machines}) == 1, "they differ"
        whole = machines[0].dump()
        assert all(machine.dump() == whole for machine in machines), "they differ, and their digests do not"
        assert Machine.restore([whole]).dump() == whole, "its snapshot is not itself"
        broken = [known for known in machines[0].registry.objects.values() if known.fault not in {None, GONE}]
        assert not broken, broken[0].fault


def arguments(luck: random.Random) -> tuple[Any, ...]:
    """What operations and kinds take, more or less."""
    one = (True, False, 1, 2, 3, 0, -1, b"item", None, "", (1, "a"), 1.5, 2**200)
    return tuple(
        words.plain(luck, 2) if luck.random() < 0.1 else luck.choice(one)
        for _ in range(luck.choice((0, 0, 1, 1, 2, 3, 4, 17)))
    )


def clients(luck: random.Random) -> int:
    """Garbage on several connections to a group, and an honest client who must not notice."""
    crowd = _Crowd(luck, luck.choice((1, 3, 3)))
    for step in range(FRAMES_PER_CASE):
        crowd.garbage()
        if step % 25 == 24:
            crowd.group.pass_ms(luck.choice((20, 100, 600)))
            crowd.listen()
            crowd.is_served()
        if luck.random() < 0.03 and crowd.connections:
            crowd.gone(luck.choice(list(crowd.connections)))
    crowd.check()
    return crowd.frames


# --- operators who ask anything -----------------------------------------------------------------------------------

QUESTIONS: Final = (
    "status", "locks", "sessions", "delete", "members.list", "members.add", "members.replace", "members.remove",
    "members.transfer", "members.join", "members.", "members.nothing", "",
)  # fmt: skip


def operators(luck: random.Random) -> int:
    """Questions that people's programs may ask, with any arguments: an answer, or ProtocolError. What they change is
    theirs to change, so nobody else is looked after here; but all replicas still agree.
    """
    group = Group(3)
    group.queue = _Checked()
    group.cut |= {(number, other) for number in group.replicas for other in range(4, 100)}  # newcomers never come
    group.leader()
    asked: dict[int, int] = {}
    for number in range(1, 40):
        home = luck.choice(list(group.replicas))
        some = (words.text(luck), "r1", "r2", "r9", b"1", b"9" * 16, b"", words.integer(luck), True, None)
        given = tuple(luck.choice(some) for _ in range(luck.choice((0, 1, 2, 2, 3, 3, 4))))
        if luck.random() < 0.1:
            given = (words.deep(luck),)
        query = wire.Query(luck.choice((number, words.integer(luck))), luck.choice(QUESTIONS), given)
        try:
            body = codec.encode(query)
            heard = codec.decode(body)
            assert isinstance(heard, wire.Query)
            group.replicas[home].client_said(100 + number, heard, body)
        except (ProtocolError, TypeError):  # the daemon says ProtocolError for a question with too many arguments
            group.replicas[home].client_gone(100 + number)
        else:
            asked[100 + number] = home
        group.settle()
        if luck.random() < 0.2:
            group.pass_ms(luck.choice((20, 200)))
        for said in group.said.values():
            assert all(len(codec.encode(message)) <= limits.FRAME_BYTES_MAX for message in said)
        if asked and luck.random() < 0.3:
            connection, home = asked.popitem()
            group.replicas[home].client_gone(connection)
    applied = min(replica.machine.applied for replica in group.replicas.values())
    digests = {replica.machine.digest for replica in group.replicas.values() if replica.machine.applied == applied}
    assert len(digests) == 1
    return 39


# --- replicas who say anything ------------------------------------------------------------------------------------


def replicas(luck: random.Random) -> int:
    """Words of replicas to each other that no member said. A member is believed, so what contradicts the receiver's
    state may meet an assert, and that ends this case; nothing else may escape.
    """
    group = Group(3)
    group.cut |= {(number, 4) for number in group.replicas}  # a stranger to this group: nothing goes back to it
    leader = group.leader()
    session = group.open(leader, HONEST)
    group.attach(leader, HONEST, session)
    table = peers._checks.table
    for count in range(1, 30):
        target = luck.choice(list(group.replicas))
        source = luck.choice([1, 2, 3, 4])
        message = near(luck, group.replicas[target], words.message(luck, luck.choice(list(table.values()))), source)
        body = peers.encode(message)
        try:
            heard = peers.decode(words.damaged(luck, body) if luck.random() < 0.1 else body)
        except ProtocolError:
            continue
        if isinstance(heard, Census):
            continue  # the shell's Formation hears those: see `formation`
        try:
            group.replicas[target].peer_said(source, heard)
            group.settle()
            if luck.random() < 0.3:
                group.pass_ms(luck.choice((20, 200, 1500)))
        except AssertionError:
            return count
    return 30


def near(luck: random.Random, replica: Any, message: Any, source: int) -> Any:
    """The message with ballots and slots that are nearly the receiver's, and pages whose parts fit together."""
    about = replica.paxos.chosen
    changes: dict[str, Any] = {}
    for field in type(message)._fields:
        value = getattr(message, field)
        if luck.random() < 0.1:
            continue
        if field in {"ballot", "promised"}:
            changes[field] = replica.paxos.promised._replace(
                round=max(0, replica.paxos.promised.round + luck.randrange(-1, 3))
            )
            if luck.random() < 0.7:
                changes[field] = changes[field]._replace(replica=source)
        elif type(value) is int:
            changes[field] = max(0, about + luck.randrange(-2, 4))
    message = message._replace(**changes)
    if isinstance(message, paxos.Accept | paxos.Chosen) and luck.random() < 0.9:
        values = tuple(entry_value(luck) for _ in message.values)
        kinds = bytes(kind for kind, _ in values)
        message = message._replace(first=max(1, message.first), kinds=kinds, values=tuple(data for _, data in values))
    if isinstance(message, paxos.Promise) and luck.random() < 0.9:
        first = max(message.from_slot, message.chosen + 1)
        entries = []
        for slot, entry in enumerate(message.entries, first):
            kind, data = entry_value(luck)
            entries.append(entry._replace(slot=slot, ballot=message.ballot, kind=kind, value=data))
        message = message._replace(entries=tuple(entries), next_slot=0)
    return message


def entry_value(luck: random.Random) -> tuple[int, bytes]:
    """An entry's kind and a value that goes with it."""
    from replicas.paxos.values import Ballot

    kind = luck.choice((0, 1, 1, 1, 2, 3))
    if kind == 3:
        return kind, encode_ballot(Ballot(luck.randrange(5), luck.randrange(5)))
    if kind == 2:
        members = tuple(Member(number, f"r{number}", b"%d" % number) for number in range(1, luck.randrange(2, 5)))
        return kind, encode_configuration(Configuration("test", luck.randrange(4), members, luck.randbytes(3)))
    return kind, luck.randbytes(luck.randrange(20)) if luck.random() < 0.5 else words.body(luck, dict(codec.TAGS))


# --- a server who says anything -----------------------------------------------------------------------------------

TO_CLIENT: Final = (
    wire.Opened,
    wire.Resumed,
    wire.Ended,
    wire.Reply,
    wire.Alive,
    wire.Leader,
    wire.Answer,
    wire.Welcome,
)
MANNERS: Final = (ACQUIRE, RELEASE, GET, PUT, READ, WAIT_EVENT)


def servers(luck: random.Random) -> int:
    """A session whose server is confused: only ProtocolError escapes, and all calls are served by a better one."""
    session = ClientSession(namespace="n", label="l", ttl_ms=10_000)
    targets = [Target("n", name, "Lock", (), 0) for name in "abc"]
    calls: list[PendingCall] = []
    now, nonce, outbox = 0.0, b"n" * 16, deque[bytes]()
    session.connected(outbox, nonce, now)
    frames = luck.randrange(5, 60)
    for _ in range(frames):
        now += luck.choice((0.0, 0.0, 0.1, 1.0))
        dice = luck.random()
        if session.over:
            break
        if dice < 0.2:
            call = PendingCall(luck.choice(targets), "acquire", (True, 1), luck.choice(MANNERS), tell=dice < 0.1)
            calls.append(call)
            if not session.begin(call):
                session.submit(call)
        elif dice < 0.3:
            session.disconnected()
            outbox, nonce = deque(), luck.randbytes(16)
            session.connected(outbox, nonce, now)
        elif dice < 0.4 and calls:
            touch(luck, session, luck.choice(calls))
        else:
            try:
                session.step(codec.decode(codec.encode(confused(luck, session, nonce))), now)
            except ProtocolError:
                session.disconnected()
                session.connected(outbox := deque(), nonce := luck.randbytes(16), now)
    sent = FrameDecoder(limits.COMMAND_BYTES_MAX).feed(b"".join(outbox))
    assert all(codec.decode(body) for body in sent)
    if not session.over:
        serve(session, now, nonce if not session.id else b"")
    assert all(call.settled or call.abandoned for call in calls), "a call hangs"
    return frames


def touch(luck: random.Random, session: ClientSession, call: PendingCall) -> None:
    """What a caller may do with its call."""
    if call.settled:
        if call.lane is not None and not call.finished and not call.abandoned and call.lane.call is call:
            session.finish(call)
    elif not call.abandoned:
        luck.choice((session.withdraw, session.abandon))(call)


def confused(luck: random.Random, session: ClientSession, nonce: bytes) -> Any:
    """A server's word that is about this session, or nearly."""
    message = words.message(luck, luck.choice(TO_CLIENT))
    changes: dict[str, Any] = {}
    if hasattr(message, "session") and luck.random() < 0.8 and not isinstance(message, wire.Ended):
        changes["session"] = session.id if session.id and luck.random() < 0.9 else 7
    if hasattr(message, "nonce") and luck.random() < 0.8:
        changes |= {"nonce": session._nonce, "ttl_ms": luck.choice((10_000, 10_000, 500, words.integer(luck)))}
    if isinstance(message, wire.Reply) and luck.random() < 0.9:
        changes |= {"lane": luck.randrange(4), "number": luck.randrange(1, 6), "status": luck.randrange(-1, 4)}
    if isinstance(message, wire.Alive) and luck.random() < 0.8:
        changes["beat"] = luck.randrange(1, 20)
    return message._replace(**changes)


def serve(session: ClientSession, now: float, nonce: bytes) -> None:
    """A server that does as it should, until nothing waits."""
    session.disconnected()
    session.connected(deque(), b"last" * 4, now)
    if session.id:
        session.step(wire.Resumed(session.id), now)
    else:
        session.step(wire.Opened(session._nonce, 7, 10_000), now)
    for _ in range(3):
        for call in session.pending:
            if call.lane is not None:
                session.step(wire.Reply(call.lane.index, call.number, 0, True), now)


# --- a group that is being formed ---------------------------------------------------------------------------------


def formation(luck: random.Random) -> int:
    """Censuses that nobody took: one that names us otherwise never forms a group with us, and what is written is read
    back by our next life.
    """
    addresses = ("a", "b", "c")[: luck.choice((1, 2, 3))]
    own = luck.randrange(1, len(addresses) + 1)

    def born(held: bytes | None) -> Formation:
        who: dict[str, Any] = {"addresses": addresses, "replica": own, "incarnation": b"%d" % own}
        return Formation(**who, formation=held, cluster="c", settings=b"", now_ms=0)

    forming, held = born(None), None
    for count in range(40):
        census = words.message(luck, Census)
        members = tuple(Member(number, name, b"%d" % number) for number, name in enumerate(addresses, 1))
        right = Configuration("c", 1, members, b"")
        if luck.random() < 0.8:
            wrong = right._replace(cluster=words.text(luck), members=members[: luck.randrange(4)])
            census = Census(luck.randrange(3), addresses, b"%d" % luck.randrange(4), luck.choice((right, right, wrong)))
        try:
            heard = peers.decode(peers.encode(census))
        except ProtocolError:
            continue
        assert isinstance(heard, Census)
        before = forming.phase
        forming.step(luck.randrange(5), heard)
        forming.tick(count * 100)
        output = forming.take()
        assert forming.phase >= before
        held = output.persist or held
        for _, said in output.send:
            assert peers.decode(peers.encode(said)) == said
        if forming.phase > Phase.EMPTY:
            assert forming.configuration.members[own - 1].incarnation == b"%d" % own
        if luck.random() < 0.1:
            again = born(held)
            assert (again.phase, again.configuration) == (forming.phase, forming.configuration)
            forming = again
    return 40


STATEFUL: Final = {
    "clients": clients,
    "operators": operators,
    "replicas": replicas,
    "servers": servers,
    "formation": formation,
}
