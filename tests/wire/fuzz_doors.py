# SPDX-License-Identifier: Apache-2.0
"""What is fuzzed at the door: bytes of strangers, clients, operators and replicas to a daemon's accepted connections.

The connections are the daemon's own; the sockets under them are not there, and the replica behind them is one of one.
An honest client between the others is asked for at the end. Targets are as in fuzz_targets.py.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

from dthreading.errors import ProtocolError
from dthreading.wire import codec
from dthreading.wire import messages as wire
from dthreading.wire.auth import Connector
from dthreading.wire.framing import FrameDecoder, frame
from replicas.daemon.clients import HANDSHAKE_S, Clients
from replicas.daemon.connections import READ_BYTES
from replicas.daemon.peers import Introduction, _introductions
from replicas.replica.messages import codec as peers
from tests.replica.harness import Group
from tests.wire import fuzz_words as words

SECRET: Final = b"s" * 32
STEPS: Final = 60
CONNECTIONS_MAX: Final = 8


class _Transport:
    """The socket: keeps what was written, and whether it was closed."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        assert high > low > 0

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None


class _House:
    """A daemon without its loop: what connections need of it, and the log lines it would have written."""

    def __init__(self) -> None:
        self.group = Group(1)
        self.group.leader()
        self.replica = self.group.replicas[1]
        self.clock_s = 1.0
        self.lines: list[str] = []
        self.clients = Clients(self, self, SECRET, self, CONNECTIONS_MAX)  # type: ignore[arg-type]

    # Outgoing: one write for each connection, at once.
    def add(self, connection: Any) -> None:
        asyncio.get_running_loop().call_soon(connection.flush)

    # Muffler.
    def warn(self, now_s: float, line: str) -> None:
        assert now_s == self.clock_s
        self.lines.append(line)

    # Host, as daemon/server.py does it.
    def now_s(self) -> float:
        return self.clock_s

    def came(self) -> None:
        pass

    def welcome(self) -> wire.Welcome:
        return wire.Welcome("test", 1, "r1", ("r1",))

    def client_said(self, connection: int, message: Any, body: bytes) -> None:
        self.replica.client_said(connection, message, body)

    def client_gone(self, connection: int) -> None:
        self.replica.client_gone(connection)

    def asked(self, connection: int, query: wire.Query, body: bytes) -> None:
        try:
            self.client_said(connection, query, body)
        except TypeError:
            raise ProtocolError("arguments that it does not take") from None

    def replica_came(self, connection: Any) -> None:
        def introduced(body: bytes) -> None:
            _introductions.decode(body)
            connection.got = lambda body: peers.decode(body) and None

        connection.got = introduced

    def turn(self) -> None:
        """What the replica has to say leaves."""
        self.group.take(1)
        for connection, messages in self.group.said.items():
            for message in messages:
                self.clients.send(connection, message)
        self.group.said.clear()
        for connection, reason in self.group.hung_up.items():
            self.clients.hang_up(connection, reason)
        self.group.hung_up.clear()


class _Guest:
    """The other end of one connection."""

    def __init__(self, house: _House, luck: random.Random, role: wire.Role) -> None:
        self.house = house
        self.luck = luck
        self.connector = Connector(role, SECRET, luck.randbytes(16))
        self.role = role
        self.connection: Any = house.clients.accept()
        self.transport = _Transport()
        self.decoder = FrameDecoder()
        self.frames = 0
        self.connection.connection_made(self.transport)

    def send(self, data: bytes) -> None:
        """The bytes arrive, cut anywhere; nothing arrives at a connection that the house has closed."""
        while data and not self.transport.closed:
            size = min(len(data), self.luck.choice((1, 3, 4, 5, 40, READ_BYTES)) if len(data) < 5000 else READ_BYTES)
            self.connection.get_buffer(-1)[:size] = data[:size]
            self.connection.buffer_updated(size)
            data = data[size:]

    def say(self, body: bytes) -> None:
        self.frames += 1
        self.send(frame(body or b"\0"))

    async def hear(self) -> list[Any]:
        self.house.turn()
        await asyncio.sleep(0)  # what was put to this turn's write is written
        said = [codec.decode(body) for body in self.decoder.feed(bytes(self.transport.written))]
        self.transport.written.clear()
        return said

    async def shake_hands(self) -> None:
        self.say(codec.encode(self.connector.hello()))
        for message in await self.hear():
            if isinstance(message, wire.Challenge):
                self.say(codec.encode(self.connector.challenged(message)))

    async def misbehave(self) -> None:
        luck = self.luck
        match luck.randrange(6):
            case 0:
                await self.shake_hands()
            case 1:
                self.send(luck.randbytes(luck.choice((1, 4, 9, 200))))
            case 2:
                self.send(luck.choice((0, 4097, 2**24, 2**24 + 1, 2**32 - 1)).to_bytes(4, "big"))
            case 3 if self.role is wire.Role.REPLICA:
                body = _introductions.encode(words.message(luck, Introduction))
                self.say(body if luck.random() < 0.7 else words.body(luck, peers._checks.table))
            case 3 if self.role is wire.Role.ADMIN:
                question = luck.choice(("status", "locks", "sessions", "delete", "members", "", "x"))
                self.say(codec.encode(wire.Query(words.integer(luck), question, words.plain(luck, 1) and ("a", "b"))))
            case _:
                self.say(words.body(luck, dict(codec.TAGS)))

    def leave(self) -> None:
        self.connection.connection_lost(None)


async def _story(luck: random.Random) -> int:
    house = _House()
    honest = _Guest(house, luck, wire.Role.CLIENT)
    await honest.shake_hands()
    await honest.hear()
    honest.say(codec.encode(wire.Open(b"honest", 10_000, "n", "l")))
    opened = next(message for message in await honest.hear() if isinstance(message, wire.Opened))
    guests: list[_Guest] = []
    frames = 0
    for _ in range(STEPS):
        if len(guests) < 2 * CONNECTIONS_MAX and luck.random() < 0.4:
            guests.append(_Guest(house, luck, luck.choice(list(wire.Role))))
        if guests:
            await luck.choice(guests).misbehave()
            house.turn()
        if luck.random() < 0.05:
            house.clock_s += luck.choice((0.1, HANDSHAKE_S))
            house.clients.sweep()
        for guest in [guest for guest in guests if guest.transport.closed or luck.random() < 0.01]:
            frames += guest.frames
            guest.leave()
            guests.remove(guest)
        assert len(house.clients._strangers) <= CONNECTIONS_MAX
    honest.say(codec.encode(wire.Keepalive(opened.session, 1)))
    heard = await honest.hear()
    house.group.pass_ms(100)
    heard += await honest.hear()
    assert not honest.transport.closed
    assert wire.Alive(opened.session, 1) in heard, "the honest client is not served any more"
    for guest in (*guests, honest):
        guest.leave()
    assert not house.clients._all
    assert not house.clients._strangers
    assert len(house.clients) == 0
    assert house.replica._hosting.connections == ()
    return frames + sum(guest.frames for guest in guests)


def doors(luck: random.Random) -> int:
    """Bytes of every sort on a crowd of connections."""
    return asyncio.run(_story(luck))


DOORS: Final = {"doors": doors}
