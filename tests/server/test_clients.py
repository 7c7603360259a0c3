# SPDX-License-Identifier: Apache-2.0
"""What strangers may do to a replica's port: nothing, at a price that has a name; and healthy clients never notice."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable

import pytest

from dthreading.errors import LimitExceeded, ProtocolError, from_wire
from dthreading.wire import limits
from dthreading.wire.auth import Connector
from dthreading.wire.codec import decode, encode
from dthreading.wire.framing import FrameDecoder, frame
from dthreading.wire.messages import (
    Alive,
    Answer,
    Challenge,
    Hello,
    Keepalive,
    Opened,
    Proof,
    Query,
    Rejected,
    Reply,
    Role,
    Status,
    Welcome,
)
from replicas.daemon import clients as clients_module
from replicas.daemon import connections as connections_module
from replicas.daemon.clients import Clients
from replicas.daemon.connections import Outgoing
from replicas.daemon.journal import Muffler
from replicas.daemon.loop import Loop

SECRET = bytes(range(32))


class FakeHost:
    """Answers each Keepalive with Alive, and notes the rest."""

    def __init__(self) -> None:
        self.clients: Clients
        self.clock_s = 100.0
        self.gone = asyncio.Event()
        self.replicas: list[object] = []
        self.heard: list[object] = []

    def now_s(self) -> float:
        return self.clock_s

    def came(self) -> None:
        pass

    def welcome(self) -> Welcome:
        return Welcome("c", 1, "", ())

    def client_said(self, connection: int, message: object, body: bytes) -> None:
        assert decode(body) == message
        self.heard.append(message)
        if isinstance(message, Keepalive):
            self.clients.send(connection, Alive(message.session, message.beat))

    def client_gone(self, connection: int) -> None:
        self.gone.set()

    def asked(self, connection: int, query: Query, body: bytes) -> None:
        if query.question != "known":
            raise ProtocolError("unknown question")
        self.clients.send(connection, Answer(query.number, {}))

    def replica_came(self, connection: object) -> None:
        self.replicas.append(connection)


class Stranger:
    """The client's end, with asyncio's streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.decoder = FrameDecoder()
        self.bodies: list[bytes] = []

    async def hear(self) -> object:
        while not self.bodies:
            data = await asyncio.wait_for(self.reader.read(65536), 10)
            if not data:
                raise EOFError
            self.bodies += self.decoder.feed(data)
        return decode(self.bodies.pop(0))

    def say(self, message: object) -> None:
        self.writer.write(frame(encode(message)))

    async def shake_hands(self, role: Role = Role.CLIENT, secret: bytes | None = SECRET) -> object:
        connector = Connector(role, secret, os.urandom(16))
        self.say(connector.hello())
        challenge = await self.hear()
        assert isinstance(challenge, Challenge)
        self.say(connector.challenged(challenge))
        return await self.hear()

    async def is_cut(self) -> bool:
        """Whether the server ends the connection (waits for it)."""
        try:
            while await asyncio.wait_for(self.reader.read(65536), 10):
                pass
        except ConnectionError:
            pass
        return True

    async def is_served(self, beat: int) -> bool:
        self.say(Keepalive(7, beat))
        return await self.hear() == Alive(7, beat)


class Bench:
    def __init__(self, host: FakeHost, clients: Clients, port: int) -> None:
        self.host = host
        self.clients = clients
        self.port = port
        self.strangers: list[Stranger] = []

    async def connect(self) -> Stranger:
        stranger = Stranger(*await asyncio.open_connection("127.0.0.1", self.port))
        self.strangers.append(stranger)
        return stranger


def run(story: Callable[[Bench], Awaitable[None]], *, most: int = 100) -> None:
    """A listening `Clients` in a fresh loop, and everything closed afterwards."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        host = FakeHost()
        host.clients = Clients(host, Outgoing(loop.soon), SECRET, Muffler(), most)
        listening = socket.create_server(("127.0.0.1", 0))
        server = loop.serve(listening, host.clients.accept, 100)
        bench = Bench(host, host.clients, listening.getsockname()[1])
        try:
            await story(bench)
        finally:
            for stranger in bench.strangers:
                stranger.writer.close()
                await asyncio.gather(stranger.writer.wait_closed(), return_exceptions=True)
            server.close()
            listening.close()
            host.clients.close()
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


@pytest.fixture(autouse=True)
def _heard_log(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("dthreading").propagate = True
    caplog.set_level("INFO")


def test_a_client_with_the_secret_is_served(caplog: pytest.LogCaptureFixture) -> None:
    async def story(bench: Bench) -> None:
        stranger = await bench.connect()
        assert await stranger.shake_hands() == Welcome("c", 1, "", ())
        assert await stranger.is_served(1)
        stranger.writer.close()
        await asyncio.wait_for(bench.host.gone.wait(), 10)

    run(story)
    assert caplog.records == [], "a client that comes and goes is no news"


BAD_BYTES = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a huge length": b"\xff\xff\xff\xff",
    "a length above a stranger's": (limits.HANDSHAKE_FRAME_BYTES_MAX + 1).to_bytes(4, "big"),
    "an empty frame": b"\0\0\0\0",
    "no msgpack": frame(b"\xc1\xc1\xc1"),
    "no message": frame(b"\x93\x01\x02\x03"),
    "an unknown tag": frame(b"\x92\xcd\x7f\xff\x01"),
    "a proof before the hello": frame(encode(Proof(b"x" * 32))),
    "a call before the handshake": frame(encode(Keepalive(1, 1))),
    "another magic": frame(encode(Hello("redis", 1, 0, b"n" * 16))),
    "a role that is none": frame(encode(Hello("dthreading", 1, 9, b"n" * 16))),
    "a short nonce": frame(encode(Hello("dthreading", 1, 0, b"n"))),
    "nested arrays": frame(b"\x91" * 4000),
}


@pytest.mark.parametrize("what", BAD_BYTES)
def test_bad_bytes_end_that_connection_with_one_line_and_nothing_else(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(bench: Bench) -> None:
        healthy = await bench.connect()
        await healthy.shake_hands()
        stranger = await bench.connect()
        stranger.writer.write(BAD_BYTES[what])
        assert await stranger.is_cut()
        assert await healthy.is_served(1)

    run(story)
    (record,) = caplog.records
    assert "ended the connection from 127.0.0.1:" in record.getMessage()


def test_random_bytes_by_the_hundred_are_a_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    """A stranger must not be able to fill the disk with our log."""

    async def story(bench: Bench) -> None:
        luck = random.Random(4)
        healthy = await bench.connect()
        await healthy.shake_hands()
        for beat in range(100):
            stranger = await bench.connect()
            # A first byte that makes the length impossible, so that every one of them ends by itself.
            stranger.writer.write(b"\x7f" + luck.randbytes(luck.randrange(3, 300)))
            assert await stranger.is_cut()
            assert await healthy.is_served(beat)

    run(story)
    assert 0 < len(caplog.records) <= 12


def test_bad_bytes_after_the_handshake_end_a_client_too() -> None:
    async def story(bench: Bench) -> None:
        stranger = await bench.connect()
        await stranger.shake_hands()
        stranger.say(Keepalive(7, 1))
        stranger.writer.write(frame(encode(Query(1, "known", ()))))
        assert await stranger.is_cut()
        await asyncio.wait_for(bench.host.gone.wait(), 10)
        assert bench.host.heard == [Keepalive(7, 1)], "what came before it was in order"

    run(story)


def test_another_version_is_told_what_to_do() -> None:
    async def story(bench: Bench) -> None:
        stranger = await bench.connect()
        stranger.say(Hello("dthreading", 99, 0, b"n" * 16))
        answer = await stranger.hear()
        assert isinstance(answer, Rejected)
        assert "version 1" in answer.reason
        assert "version 99" in answer.reason
        assert await stranger.is_cut()

    run(story)


def test_who_does_not_know_the_secret_is_told_so_and_no_more() -> None:
    async def story(bench: Bench) -> None:
        stranger = await bench.connect()
        stranger.say(Hello("dthreading", 1, 0, b"n" * 16))
        challenge = await stranger.hear()
        assert isinstance(challenge, Challenge)
        assert SECRET not in challenge.proof
        stranger.say(Proof(challenge.proof))  # the acceptor's own proof, sent back
        answer = await stranger.hear()
        assert isinstance(answer, Rejected)
        assert answer.code == "not_authenticated"
        assert await stranger.is_cut()
        assert bench.host.heard == []

    run(story)


def test_a_silent_stranger_and_half_a_frame_are_gone_after_the_deadline() -> None:
    async def story(bench: Bench) -> None:
        silent, half = await bench.connect(), await bench.connect()
        half.writer.write(frame(encode(Hello("dthreading", 1, 0, b"n" * 16)))[:9])
        healthy = await bench.connect()
        await healthy.shake_hands()
        due_s = bench.clients.sweep()
        assert due_s == bench.host.clock_s + clients_module.HANDSHAKE_S
        bench.host.clock_s = due_s
        assert bench.clients.sweep() is None
        assert await silent.is_cut()
        assert await half.is_cut()
        assert await healthy.is_served(1), "a client may be silent for as long as it likes"

    run(story)


def test_strangers_make_room_for_clients() -> None:
    """Whoever fills the table without saying who he is cannot keep out those who may come in."""

    async def story(bench: Bench) -> None:
        healthy = await bench.connect()
        await healthy.shake_hands()
        crowd = [await bench.connect() for _ in range(12)]
        late = await bench.connect()
        assert isinstance(await late.shake_hands(), Welcome)
        assert await crowd[0].is_cut(), "the oldest stranger goes first"
        assert await late.is_served(1)
        assert await healthy.is_served(2)

    run(story, most=8)


def test_a_client_that_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(clients_module, "UNREAD_BYTES_MAX", 100_000)

    async def story(bench: Bench) -> None:
        stranger = await bench.connect()
        await stranger.shake_hands()
        stranger.writer.transport.pause_reading()
        while not bench.host.gone.is_set():
            bench.clients.send(1, Reply(0, 1, Status.OK, bytes(200_000)))
            await asyncio.sleep(0)

    run(story)
    assert "does not read" in caplog.text


def test_one_that_says_no_more_and_reads_no_more_is_gone_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has closed its end for writing, and what waits for it fits no socket: a descriptor and megabytes, for ever."""
    monkeypatch.setattr(connections_module, "LINGER_S", 0.01)

    async def story(bench: Bench) -> None:
        stranger = await bench.connect()
        await stranger.shake_hands()
        stranger.writer.transport.pause_reading()
        for _ in range(10):
            bench.clients.send(1, Reply(0, 1, Status.OK, bytes(1_000_000)))
        bench.clients.outgoing.flush()
        stranger.writer.write_eof()
        await asyncio.wait_for(bench.host.gone.wait(), 10)
        assert len(bench.clients) == 0

    run(story)


def test_an_operator_asks_and_a_bad_question_ends_only_him() -> None:
    async def story(bench: Bench) -> None:
        operator = await bench.connect()
        await operator.shake_hands(Role.ADMIN)
        operator.say(Query(3, "known", ()))
        assert await operator.hear() == Answer(3, {})
        operator.say(Query(4, "unknown", ()))
        assert await operator.is_cut()

    run(story)


def test_an_answer_too_large_for_a_frame_says_so() -> None:
    async def story(bench: Bench) -> None:
        operator = await bench.connect()
        await operator.shake_hands(Role.ADMIN)
        bench.clients.send(1, Answer(1, bytes(limits.FRAME_BYTES_MAX + 1)))
        answer = await operator.hear()
        assert isinstance(answer, Answer)
        assert "too large" in answer.value["error"]

    run(story)


def test_a_large_frame_is_for_those_who_are_known() -> None:
    async def story(bench: Bench) -> None:
        stranger = await bench.connect()
        await stranger.shake_hands(Role.REPLICA)
        assert len(bench.host.replicas) == 1
        client = await bench.connect()
        await client.shake_hands()
        opened = Opened(b"n" * 200_000, 1, 1)
        client.writer.write(frame(encode(opened)))
        assert await client.is_cut(), "a replica's word from a client"

    run(story)


def test_an_answer_that_fits_no_frame_is_one_clear_error() -> None:
    """An older log may hold a call that is answered so: whoever sends it again must not end replica after replica."""

    async def story(bench: Bench) -> None:
        stranger = await bench.connect()
        await stranger.shake_hands()
        assert await stranger.is_served(1)
        (number,) = bench.clients._clients
        bench.clients.send(number, Reply(3, 4, Status.ERROR, ("mismatch", "x" * limits.FRAME_BYTES_MAX, ())))
        reply = await stranger.hear()
        assert isinstance(reply, Reply)
        assert reply[:3] == (3, 4, Status.ERROR)
        with pytest.raises(LimitExceeded, match="FRAME_BYTES_MAX"):
            raise from_wire(*reply.value)
        assert await stranger.is_served(2)

    run(story)


def test_an_operator_is_answered_before_he_asks_much_more() -> None:
    """A read of the socket brings thousands of questions, and an answer may take as much as a frame."""

    async def story(bench: Bench) -> None:
        asked: list[int] = []

        def ask(connection: int, query: Query, body: bytes) -> None:
            asked.append(query.number)
            if connection == first:
                bench.clients.send(connection, Answer(query.number, {}))

        bench.host.asked = ask  # type: ignore[method-assign]
        patient, hasty = await bench.connect(), await bench.connect()
        for operator in (patient, hasty):
            await operator.shake_hands(Role.ADMIN)
        first, second = bench.clients._clients
        for number in range(3 * clients_module.QUESTIONS_MAX):
            patient.say(Query(number, "locks", ()))
            assert await patient.hear() == Answer(number, {})
        asked.clear()
        hasty.writer.write(b"".join(frame(encode(Query(number, "locks", ()))) for number in range(3000)))
        assert await hasty.is_cut()
        assert len(asked) == clients_module.QUESTIONS_MAX
        bench.clients.send(second, Answer(1, {}))

    run(story)
