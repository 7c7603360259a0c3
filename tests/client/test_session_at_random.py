# SPDX-License-Identifier: Apache-2.0
"""Two client sessions and the real replicated state between them, over connections that break at any word.

No replicas, network or clock: what a client has said is applied when chance says so, also late from a connection that
is half open, or never. In the end everything arrives; and then the state holds just what the clients believe, every
lane is free, and each item is with whoever took it or in its queue. `SESSION_RUNS` in the environment for more.
"""

from __future__ import annotations

import os
import random
from collections import deque
from typing import Any

import pytest

from dthreading.session import ACQUIRE, CHANGE, GET, PUT_SIMPLE, RELEASE, ClientSession, Manner, PendingCall, Target
from dthreading.wire import codec
from dthreading.wire import messages as wire
from dthreading.wire.framing import FrameDecoder
from dthreading.wire.messages import Lifetime, Status
from replicas.machine.core import Machine
from replicas.paxos.values import Ballot, Entry, EntryKind, encode_ballot

RUNS = int(os.environ.get("SESSION_RUNS", "200"))
STEPS = 250
TTL_MS = 10_000
KINDS = (("Lock", "lock", ()), ("Queue", "queue", (0, False)), ("SimpleQueue", "simple", ()), ("Event", "event", ()))


class Connection:
    """What is on its way, in both directions."""

    def __init__(self) -> None:
        self.outbox: deque[bytes] = deque()
        self.up: deque[bytes] = deque()
        self.down: deque[Any] = deque()
        self.detached: set[int] = set()
        self.said: set[bytes] = set()
        self.hung_up = False
        """By the other end, or it is silent: the session has come back elsewhere (perhaps an old word came late)."""

    def flush(self) -> list[bytes]:
        data = b"".join(self.outbox)
        self.outbox.clear()
        bodies = list(FrameDecoder().feed(data))
        self.up += bodies
        return bodies


class Group:
    """The replicated state, and where each session's client is connected."""

    def __init__(self) -> None:
        self.machine = Machine()
        self._bound: dict[int, Connection] = {}
        self._opening: dict[bytes, Connection] = {}
        self._apply(EntryKind.LEADS, encode_ballot(Ballot(1, 1)))

    def _apply(self, kind: int, value: bytes) -> Any:
        effects = self.machine.apply(Entry(self.machine.applied + 1, Ballot(1, 1), kind, value))
        assert not effects.faults, effects.faults
        return effects

    def arrives(self, connection: Connection) -> None:
        """The next word of that connection: into the log with it, and what comes of it is said."""
        body = connection.up.popleft()
        message = codec.decode(body)
        if isinstance(message, wire.Keepalive):
            if self._bound.get(message.session) is connection:
                connection.down.append(wire.Alive(message.session, message.beat))
            return
        if isinstance(message, wire.Open):
            self._opening[message.nonce] = connection
        effects = self._apply(EntryKind.COMMAND, body)
        for session, nonce in effects.opened:
            self._bind(session, self._opening[nonce])
        for session in effects.resumed:
            self._bind(session, connection)
        for session, reply in effects.replies:
            if session in self._bound:
                self._bound[session].down.append(reply)

    def _bind(self, session: int, connection: Connection) -> None:
        former = self._bound.get(session)
        if former is not None and former is not connection:
            former.hung_up = True
        self._bound[session] = connection


class Client:
    """A process's session; what its threads did, and what they hold by it."""

    def __init__(self, group: Group, name: str, luck: random.Random) -> None:
        self.group, self.name, self.luck = group, name, luck
        self.session = ClientSession(namespace="n", label=name, ttl_ms=TTL_MS)
        self.now = luck.uniform(0, 1000)
        self.connection: Connection | None = None
        self.old: list[Connection] = []
        self.targets = [Target("n", name, kind, arguments, Lifetime.NAMED) for kind, name, arguments in KINDS]
        self.calls: list[PendingCall] = []
        self.unwaited: list[PendingCall] = []
        self.fence: int | None = None
        self.put: set[bytes] = set()
        self.got: list[bytes] = []
        self._said: dict[Any, float] = {}
        """When a keepalive (by its beat) or an opening (by its nonce) has left for the first time."""
        self._lease_since = 0.0
        self._count = 0

    # --- the connection

    def connect(self) -> None:
        self.connection = Connection()
        self._count += 1
        self.session.connected(self.connection.outbox, f"{self.name} {self._count}".encode(), self.now)
        self.flush()

    def cut(self) -> None:
        """It ends; what was said may be lost from any word on, or come late."""
        assert self.connection is not None
        self.flush()
        for _ in range(
            self.luck.choice((0, 0, len(self.connection.up), self.luck.randint(0, len(self.connection.up))))
        ):
            self.connection.up.pop()
        self.old.append(self.connection)
        self.connection = None
        self.session.disconnected()

    def flush(self) -> None:
        connection = self.connection
        if connection is None:
            return
        used = {*self.session.handles, *(call.target for call in self.session.pending)}
        assert self.session._unproved.keys() <= used, "what nobody is attached to is attached again"
        for body in connection.flush():
            message = codec.decode(body)
            connection.said.add(body)
            if isinstance(message, wire.Keepalive):
                self._said.setdefault(message.beat, self.now)
                for beat, word in self.session._unanswered._words:
                    said = beat >= message.beat or word[4:] in connection.said
                    assert said, f"with beat {message.beat} a word is forgotten that this connection has not said"
            elif isinstance(message, wire.Open):
                self._said.setdefault(message.nonce, self.now)
            elif isinstance(message, wire.Detach):
                connection.detached.add(message.handle)
            elif isinstance(message, wire.Call):
                assert message.handle not in connection.detached, f"{message} is said behind its Detach"

    def hears(self) -> None:
        """The next word of the group."""
        assert self.connection is not None
        message = self.connection.down.popleft()
        call = next((call for call in self.calls if call.lane is not None and not call.settled), None)
        if isinstance(message, wire.Reply) and call is not None and self.luck.random() < 0.5:
            if not self.session.answered(call, message, self.now):
                self.session.step(message, self.now)
        else:
            self.session.step(message, self.now)
        if isinstance(message, wire.Alive):
            self._lease_since = max(self._lease_since, self._said.get(message.beat, 0.0))
        elif isinstance(message, wire.Opened):
            self._lease_since = max(self._lease_since, self._said[message.nonce])
        if self.session.id:
            left = self.session._lease._deadline - self._lease_since
            assert left <= TTL_MS / 1000, f"{self.name} believes in {left} s of a lease of {TTL_MS} ms"
        self.flush()

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.session.tick(self.now)
        assert not self.session.over, self.session.why_over
        self.flush()

    # --- its threads

    def begin(self, target: Target, operation: str, *arguments: Any, manner: Manner, unwaited: bool = False) -> None:
        call = PendingCall(target, operation, arguments, manner)
        call.unwaited = unwaited
        if not self.session.begin(call):
            self.session.submit(call)
        (self.unwaited if unwaited else self.calls).append(call)
        self.flush()

    def does(self) -> None:
        """One of its threads makes a call, or goes on with one."""
        lock, queue, simple, event = self.targets
        match self.luck.randrange(12):
            case 0 | 1 if self.fence is None and not any(call.target is lock for call in self.calls):
                self.begin(lock, "acquire", True, 1, manner=ACQUIRE)
            case 2 | 3 if self.fence is not None:
                self.begin(lock, "release", self.fence, manner=RELEASE)
                self.fence = None
            case 4 | 5:
                self._count += 1
                item = f"{self.name} {self._count}".encode()
                self.put.add(item)
                unwaited = self.luck.random() < 0.7
                self.begin(simple, "put", True, item, None, 1, manner=PUT_SIMPLE, unwaited=unwaited)
            case 6 | 7:
                self.begin(self.luck.choice((simple, simple, queue)), "get", True, 1, manner=GET)
            case 8:
                self.begin(event, "set", manner=CHANGE, unwaited=True)
                if self.luck.random() < 0.5 and not any(call.target is event for call in self.calls):
                    self.detach(3)
            case 9 | 10 as which if self.waiting:
                call = self.luck.choice(self.waiting)
                if which == 9:
                    self.session.withdraw(call)
                else:
                    self.calls.remove(call)
                    self.session.abandon(call)
                    index = self.targets.index(call.target) if call.target in self.targets else 0
                    if index and self.luck.random() < 0.5 and not any(call.target is one.target for one in self.calls):
                        self.detach(index)
            case _:
                self.end(self.luck.random() < 0.2)
        self.flush()

    def detach(self, index: int) -> None:
        """The last proxy of an object is gone, and another is made."""
        kind, name, arguments = KINDS[index]
        self.session.detach(self.targets[index])
        self.targets[index] = Target("n", name, kind, arguments, Lifetime.NAMED)

    def end(self, interrupted: bool = False) -> None:
        """Whoever has an answer takes it; or is interrupted just then, and gives it back."""
        for call in [call for call in self.calls if call.settled]:
            self.calls.remove(call)
            status, value, operation = call.status, call.value, call.operation
            assert not call.lost
            assert call.error is None, call.error
            assert status == Status.OK or value[0] in {"empty", "runtime"}, (call.target, operation, value)
            if call.lane is None:
                continue  # never sent
            self.session.finish(call)
            if interrupted and call.manner.hands_out:
                self.session.reclaim(call)
                if not call.finished:
                    self.session.abandon(call)
                    continue
            if operation == "acquire" and status == Status.OK and value is not False:
                self.fence = value
            elif operation == "get" and status == Status.OK:
                self.got.append(value)

    @property
    def waiting(self) -> list[PendingCall]:
        """Calls whose callers may go any time."""
        return [call for call in self.calls if call.manner.hands_out]

    @property
    def ways(self) -> list[Connection]:
        """The old ones, on which something may come late, and the present one."""
        return [*self.old, *([self.connection] if self.connection is not None else [])]

    @property
    def left_s(self) -> float:
        """Of its lease, as it believes."""
        if not self.session.id:
            return self.session._opening_since + TTL_MS / 1000 - self.now if self._said else TTL_MS / 1000
        return self.session._lease._deadline - self.now

    @property
    def at_rest(self) -> bool:
        session = self.session
        return not self.calls and session.id != 0 and not session.pending and not session._lanes.lent()


class World:
    """Two clients, from a seed."""

    def __init__(self, seed: int) -> None:
        self.luck = random.Random(seed)
        self.group = Group()
        self.clients = [Client(self.group, name, random.Random(f"{seed} {name}")) for name in ("a", "b")]

    def run(self) -> None:
        for _ in range(STEPS):
            self._step(self.luck.choice(self.clients), self.luck.random())
        self._make_peace()
        self._nothing_is_left()

    def _step(self, client: Client, chance: float) -> None:
        ways = [way for way in client.ways if way.up]
        if client.connection is None:
            client.connect() if chance < 0.5 else client.passes(0.2)
        elif chance < 0.03 or client.connection.hung_up:
            client.cut()
        elif chance < 0.4 and ways:
            self.group.arrives(self.luck.choice(ways))
        elif chance < 0.7 and client.connection.down:
            client.hears()
        elif chance < 0.75 and client.left_s > 2.5:
            client.passes(self.luck.choice((0.1, 1.0, 2.0)))
        elif chance > 0.75:
            client.does()
        if client.left_s < 4:
            self._arrives(client)  # its lease is to last

    def _arrives(self, client: Client) -> None:
        """Everything that is on its way, but for what others have said."""
        if client.connection is None:
            client.connect()
        for _ in range(2):
            while any(way.up for way in client.ways) or client.connection.down or client.connection.hung_up:
                for way in client.ways:
                    while way.up:
                        self.group.arrives(way)
                while client.connection.down:
                    client.hears()
                if client.connection.hung_up:
                    client.cut()
                    client.connect()
            client.passes(3.4)
        client.old.clear()

    def _make_peace(self) -> None:
        for _ in range(12):
            for client in self.clients:
                self._arrives(client)
                client.end()
                for call in client.waiting:
                    client.session.withdraw(call)
                client.flush()
        for client in self.clients:
            assert client.at_rest, (client.name, client.calls, client.session.pending, client.session._lanes.lent())
            failed = [call.operation for call in client.unwaited if call.status != Status.OK]
            assert not failed, f"{failed} have failed, which nobody would ever hear of"

    def _nothing_is_left(self) -> None:
        machine = self.group.machine
        objects = machine.registry.objects
        for client in self.clients:
            known = machine.sessions[client.session.id]
            assert set(known.handles) == set(client.session.handles.values()), f"{client.name} is attached otherwise"
            assert not known.waits
            lock = objects.get(("n", "lock"))
            holds = lock is not None and lock.owner == client.session.id  # type: ignore[attr-defined]
            assert holds == (client.fence is not None), f"{client.name} believes in {client.fence}, {lock}"
        for client in self.clients:
            way = client.connection
            assert way is not None
            client.session.close()
            client.flush()
            while way.up:
                self.group.arrives(way)
        reader = Client(self.group, "reader", self.luck)
        left = set()
        while True:
            reader.begin(reader.targets[2], "get", False, 1, manner=GET)
            self._arrives(reader)
            before = len(reader.got)
            reader.end()
            if len(reader.got) == before:
                break
            left.add(reader.got[-1])
        put = set[bytes]().union(*(client.put for client in self.clients))
        got = [item for client in self.clients for item in client.got]
        assert len(got) == len(set(got)), "an item was taken twice"
        assert left == put - set(got), f"{put - set(got) - left} are gone, {left - (put - set(got))} have come back"


@pytest.mark.parametrize("seed", range(RUNS))
def test_a_session_keeps_its_words(seed: int) -> None:
    """Whatever is lost, late or said twice."""
    World(seed).run()
