# SPDX-License-Identifier: Apache-2.0
"""The daemon's loop: what its sockets owe to whoever uses them, and in which order things happen."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from replicas.daemon import loop as loop_module
from replicas.daemon.loop import Loop, Server, Stream

LARGE = bytes(range(256)) * 40_000
"""More than any socket takes at once."""


class Talker(asyncio.BufferedProtocol):
    """Notes what happens to it."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.heard = bytearray()
        self.happened: list[str] = []
        self.ended = asyncio.Event()
        self.on_data: Callable[[], None] = lambda: None
        self._buffer = bytearray(65536)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.happened.append("made")

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.heard += self._buffer[:nbytes]
        self.on_data()

    def pause_writing(self) -> None:
        self.happened.append("pause")

    def resume_writing(self) -> None:
        self.happened.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.happened.append("lost")
        self.ended.set()


class Pair:
    """Two talkers that are connected."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        ours, theirs = socket.socketpair()
        self.ours, self.theirs = Talker(), Talker()
        for end, talker in ((ours, self.ours), (theirs, self.theirs)):
            end.setblocking(False)
            Stream(loop, end, talker)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - whatever it is, it takes some turns of the loop
                await asyncio.sleep(0)


def run(story: Callable[[Loop], Awaitable[None]]) -> list[BaseException]:
    """Run it in a loop; what callbacks raised."""
    raised: list[BaseException] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        loop.set_exception_handler(lambda _, context: raised.append(context["exception"]))
        await story(loop)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())
    return raised


def test_all_that_is_written_arrives_in_order_and_the_writer_hears_when_to_pause() -> None:
    async def story(loop: Loop) -> None:
        pair = Pair(loop)
        pair.ours.transport.set_write_buffer_limits(high=100_000, low=1_000)
        pair.theirs.transport.pause_reading()
        pair.ours.transport.write(LARGE)
        pair.ours.transport.write(b"and more")
        assert pair.ours.happened == ["made", "pause"]
        assert pair.ours.transport.get_write_buffer_size() > 100_000
        for _ in range(10):
            await asyncio.sleep(0)
        assert not pair.theirs.heard
        pair.theirs.transport.resume_reading()
        await pair.until(lambda: len(pair.theirs.heard) == len(LARGE) + 8)
        assert pair.theirs.heard == LARGE + b"and more"
        assert pair.ours.happened == ["made", "pause", "resume"]
        assert pair.ours.transport.get_write_buffer_size() == 0
        pair.ours.transport.abort()
        await pair.theirs.ended.wait()

    assert run(story) == []


def test_close_lets_what_was_written_leave_and_abort_does_not() -> None:
    async def story(loop: Loop) -> None:
        pair = Pair(loop)
        pair.ours.transport.write(LARGE)
        pair.ours.transport.close()
        pair.ours.transport.write(b"too late")
        assert pair.ours.transport.is_closing()
        assert "lost" not in pair.ours.happened, "all has to leave first"
        await asyncio.gather(pair.ours.ended.wait(), pair.theirs.ended.wait())
        assert pair.theirs.heard == LARGE
        other = Pair(loop)
        other.ours.transport.write(LARGE)
        other.ours.transport.abort()
        await other.theirs.ended.wait()
        assert len(other.theirs.heard) < len(LARGE)

    assert run(story) == []


def test_the_end_is_told_once_and_never_in_the_middle_of_something() -> None:
    async def story(loop: Loop) -> None:
        pair = Pair(loop)
        for _ in range(2):
            pair.ours.transport.close()
            pair.ours.transport.abort()
        assert pair.ours.happened == ["made"]
        await pair.ours.ended.wait()
        await pair.theirs.ended.wait()
        assert pair.ours.happened == pair.theirs.happened == ["made", "lost"]

    assert run(story) == []


def test_nothing_is_heard_after_the_end_though_it_had_arrived_before() -> None:
    """Two connections are ready in one select, and serving the first ends the second."""

    async def story(loop: Loop) -> None:
        pairs = [Pair(loop), Pair(loop)]
        for one, other in (pairs, pairs[::-1]):
            one.ours.on_data = other.ours.transport.abort
        for pair in pairs:
            pair.theirs.transport.write(b"!")
        await asyncio.gather(*(pair.theirs.ended.wait() for pair in pairs[:1] if pair.ours.transport.is_closing()))
        await pairs[0].until(lambda: any(pair.ours.heard for pair in pairs))
        assert sum(bool(pair.ours.heard) for pair in pairs) == 1
        for pair in pairs:
            pair.ours.transport.abort()
            await pair.theirs.ended.wait()

    assert run(story) == []


def test_soon_comes_after_all_that_was_ready_and_before_the_next_wait() -> None:
    async def story(loop: Loop) -> None:
        order: list[str] = []
        pairs = [Pair(loop) for _ in range(3)]
        for pair in pairs:

            def heard() -> None:
                order.append("heard")
                if order.count("heard") == 1:
                    loop.soon(lambda: order.append("turn"))

            pair.ours.on_data = heard
            pair.theirs.transport.write(b"!")
        await pairs[0].until(lambda: "turn" in order)
        assert order == ["heard", "heard", "heard", "turn"]
        outside: list[str] = []
        loop.soon(lambda: outside.append("turn"))
        assert not outside
        await asyncio.sleep(0)
        assert outside == ["turn"]
        for pair in pairs:
            pair.ours.transport.abort()
            await pair.theirs.ended.wait()

    assert run(story) == []


@pytest.mark.parametrize("asked", ["an event", "a callback", "a timer", "another thread's callback"])
def test_what_is_asked_of_asyncio_while_a_socket_is_served_ends_the_wait(asked: str) -> None:
    """Nothing else happens afterwards, and the next timer is far away: without that it would be waited for."""

    async def story(loop: Loop) -> None:
        pair, happened = Pair(loop), asyncio.Event()
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(happened.set,))
        pair.ours.on_data = {
            "an event": happened.set,
            "a callback": lambda: loop.call_soon(happened.set),
            "a timer": lambda: loop.call_later(0.001, happened.set),
            "another thread's callback": thread.start,
        }[asked]
        pair.theirs.transport.write(b"!")
        async with asyncio.timeout(60):
            await happened.wait()
        pair.ours.transport.abort()
        await pair.theirs.ended.wait()

    assert run(story) == []


def test_sockets_that_are_always_ready_keep_no_timer_waiting() -> None:
    async def story(loop: Loop) -> None:
        pair, rung = Pair(loop), asyncio.Event()
        for talker in (pair.ours, pair.theirs):
            talker.on_data = lambda talker=talker: talker.transport.write(b"!")  # type: ignore[misc]
        pair.ours.transport.write(b"!")
        loop.call_later(0.01, rung.set)
        async with asyncio.timeout(60):
            await rung.wait()
        assert len(pair.theirs.heard) > 1
        pair.ours.transport.abort()
        await pair.theirs.ended.wait()

    assert run(story) == []


def test_a_descriptor_that_is_used_again_at_once_is_not_taken_for_the_one_before() -> None:
    """Of two that are ready, the first one's bytes end the second, and a new connection takes its number."""

    async def story(loop: Loop) -> None:
        pairs = [Pair(loop), Pair(loop)]
        made: list[Pair] = []
        for one, other in (pairs, pairs[::-1]):

            def replace(other: Pair = other) -> None:
                other.ours.transport.abort()
                made.append(Pair(loop))

            one.ours.on_data = replace
        descriptors = {pair.ours.transport.get_extra_info("socket").fileno() for pair in pairs}
        for pair in pairs:
            pair.theirs.transport.write(b"!")
        await pairs[0].until(lambda: made)
        new = made[0]
        assert {talker.transport.get_extra_info("socket").fileno() for talker in (new.ours, new.theirs)} & descriptors
        new.theirs.transport.write(b"hello")
        await new.until(lambda: new.ours.heard == b"hello")
        for pair in (*pairs, *made):
            pair.ours.transport.abort()
            await pair.theirs.ended.wait()

    assert run(story) == []


def test_an_error_in_one_callback_goes_to_the_handler_and_hurts_no_other() -> None:
    async def story(loop: Loop) -> None:
        pairs = [Pair(loop) for _ in range(2)]

        def broken() -> None:
            raise ZeroDivisionError

        pairs[0].ours.on_data = broken
        for pair in pairs:
            pair.theirs.transport.write(b"!")
        await pairs[1].until(lambda: all(pair.ours.heard for pair in pairs))
        for pair in pairs:
            pair.ours.transport.abort()
            await pair.theirs.ended.wait()

    assert [type(error) for error in run(story)] == [ZeroDivisionError]


def test_connect_and_serve(tmp_path: Path) -> None:
    async def story(loop: Loop) -> None:
        path = str(tmp_path / "socket")
        local = socket.socket(socket.AF_UNIX)
        local.bind(path)
        internet = socket.create_server(("127.0.0.1", 0))
        for listening, address in ((local, path), (internet, ("localhost", internet.getsockname()[1]))):
            accepted: list[Talker] = []

            def make(accepted: list[Talker] = accepted) -> Talker:
                accepted.append(Talker())
                return accepted[-1]

            server = loop.serve(listening, make, 10)
            talker = Talker()
            stream = await loop.connect(address, talker)
            stream.write(b"hello")
            pair = Pair(loop)
            await pair.until(lambda: accepted and accepted[0].heard == b"hello")
            raw = stream.get_extra_info("socket")
            if isinstance(address, tuple):
                assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert stream.get_extra_info("peername") == internet.getsockname()
            server.close()
            server.close()
            stream.close()
            await accepted[0].ended.wait()
            pair.ours.transport.abort()
            await pair.theirs.ended.wait()
            listening.close()
        with pytest.raises(ConnectionRefusedError):
            await loop.connect(("127.0.0.1", internet_port(internet)), Talker())

    def internet_port(closed: socket.socket) -> int:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            return int(nobody.getsockname()[1])

    assert run(story) == []


def test_a_machine_that_is_short_of_descriptors_accepts_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "ACCEPT_PAUSE_S", 0.0)

    class Listening:
        """A socket that has no descriptor left for the first two."""

        def __init__(self, real: socket.socket) -> None:
            self.real = real
            self.refusals = 2

        def accept(self) -> tuple[socket.socket, Any]:
            if self.refusals:
                self.refusals -= 1
                raise OSError(errno.EMFILE, "too many open files")
            return self.real.accept()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    async def story(loop: Loop) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        accepted: list[Talker] = []

        def make() -> Talker:
            accepted.append(Talker())
            return accepted[-1]

        server = Server(loop, Listening(listening), make, 10)  # type: ignore[arg-type]
        stream = await loop.connect(("127.0.0.1", listening.getsockname()[1]), Talker())
        pair = Pair(loop)
        await pair.until(lambda: accepted)
        pair.ours.transport.abort()
        await pair.theirs.ended.wait()
        stream.close()
        await accepted[0].ended.wait()
        server.close()
        listening.close()

    assert run(story) == []


def test_a_listening_socket_that_is_broken_is_looked_at_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who shares it has shut it down: it is ready for ever, and every look says no."""
    monkeypatch.setattr(loop_module, "ACCEPT_PAUSE_S", 3600.0)

    async def story(loop: Loop) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            server = loop.serve(listening, Talker, 10)
            listening.shutdown(socket.SHUT_RDWR)
            for _ in range(50):
                await asyncio.sleep(0)
            server.close()

    (error,) = run(story)
    assert isinstance(error, OSError)
    assert error.errno == errno.EINVAL


@pytest.mark.parametrize("address", ["/a\0b", ("a\0b", 80), ("a" * 100 + ".example", 80)])
def test_what_cannot_be_an_address_is_one_that_cannot_be_connected_to(address: Any) -> None:
    """Whoever dials is ready for an OSError: such a name may have come from anywhere."""

    async def story(loop: Loop) -> None:
        with pytest.raises(OSError):
            await loop.connect(address, Talker())

    assert run(story) == []
