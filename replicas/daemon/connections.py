# SPDX-License-Identifier: Apache-2.0
"""One socket of the daemon: bytes to frames, and frames to one joined write a turn. Knows no message and no role.

Every connection reads into one buffer that all share, since each read is consumed before the next begins; so ten
thousand idle connections cost no read buffers, and a read never asks the allocator for a quarter of a megabyte.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final, cast

from dthreading.errors import ProtocolError
from dthreading.wire.framing import FrameDecoder, frame

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Connection", "Outgoing"]

READ_BYTES: Final = 65536
"""What one read takes at most. More maps and unmaps memory on each call; less costs calls."""

LINGER_S: Final = 5.0
"""How long a connection that we ended may take to carry off our last words."""

_buffer: Final = memoryview(bytearray(READ_BYTES))


class Outgoing:
    """The connections that have something to say; `flush` writes each of them once.

    A turn of the daemon sets `held` and flushes when it sees fit; outside of turns what was said leaves soon by itself.
    """

    __slots__ = ("_soon", "_waiting", "held")

    def __init__(self, soon: Callable[[Callable[[], None]], object]) -> None:
        self._soon = soon
        self._waiting: list[Connection] = []
        self.held = False

    def add(self, connection: Connection) -> None:
        """`connection` got its first frame since the last flush."""
        if not self._waiting and not self.held:
            self._soon(self.flush)
        self._waiting.append(connection)

    def flush(self) -> None:
        """One write for each connection that has frames to send."""
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            connection.flush()


class Connection(asyncio.BufferedProtocol):
    """The base of every connection. Its owner sets `got`, which takes each frame's body, and overrides what it needs.

    Whatever `got` raises as ProtocolError, and any bad length, ends this connection by `broken`, and nothing else.
    """

    __slots__ = ("_decoder", "_frames", "_outgoing", "_transport", "closed", "got")

    def __init__(self, outgoing: Outgoing, body_bytes_max: int) -> None:
        self._outgoing = outgoing
        self._decoder = FrameDecoder(body_bytes_max)
        self._frames: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self.closed = False
        self.got: Callable[[bytes], None] = self._unexpected

    # --- for the owner

    def send(self, body: bytes) -> None:
        """Put one frame to the write of this turn."""
        if self.closed:
            return
        frames = self._frames
        if not frames:
            self._outgoing.add(self)
        frames.append(frame(body))

    def flush(self) -> None:
        """Hand this turn's frames to the transport in one piece."""
        frames = self._frames
        if not frames or self.closed:
            return
        self._frames = []
        assert self._transport is not None
        self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))

    def hang_up(self) -> None:
        """End the connection, after what was sent so far has left."""
        if self.closed:
            return
        self.flush()
        self.closed = True
        if self._transport is not None:
            self._transport.close()
            if self._transport.get_write_buffer_size():
                # It waits for the other side to read what is left; one that never does must not keep the descriptor.
                asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)

    def cut(self) -> None:
        """End the connection at once; what has not left is lost."""
        self.closed = True
        self._frames.clear()
        if self._transport is not None:
            self._transport.abort()

    def expect_bodies_up_to(self, size: int) -> None:
        """From here on bodies of `size` bytes are in order."""
        self._decoder.body_bytes_max = size

    @property
    def peer_name(self) -> str:
        """Who is at the other end, for log lines."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "a local socket"

    def limit_unread(self, size: int) -> None:
        """Call `pause_writing` once more than `size` bytes wait because the other side does not read."""
        assert self._transport is not None
        self._transport.set_write_buffer_limits(high=size, low=size // 4)

    def set_option(self, level: int, option: int, value: int) -> None:
        """Set a socket option where the connection is TCP."""
        raw = self._transport.get_extra_info("socket") if self._transport is not None else None
        if raw is not None and raw.family in {socket.AF_INET, socket.AF_INET6}:
            raw.setsockopt(level, option, value)

    # --- for whoever overrides

    def opened(self) -> None:
        """The connection is there."""

    def lost(self) -> None:
        """The connection has ended, whoever ended it. Called once."""

    def broken(self, why: str) -> None:
        """The other side sent bytes that are not our protocol; the connection is cut after this."""

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self.closed:  # hung up while it was being connected
            transport.close()
        else:
            self.opened()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.closed = True
        self._frames.clear()
        self.lost()

    def eof_received(self) -> bool:
        self.hang_up()  # it may still read what was sent so far, and not take for ever
        return False

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for body in self._decoder.feed(_buffer[:nbytes]):
                if self.closed:
                    return
                self.got(body)
        except ProtocolError as error:
            self._refuse(str(error))
        else:
            if self._decoder.broken is not None:
                self._refuse(self._decoder.broken)

    def _refuse(self, why: str) -> None:
        if not self.closed:
            self.broken(why)
            self.cut()

    def _unexpected(self, body: bytes) -> None:
        raise ProtocolError(f"a frame of {len(body)} bytes that nobody asked for")
