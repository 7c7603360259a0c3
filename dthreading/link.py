# SPDX-License-Identifier: Apache-2.0
"""One connection to one replica: the handshake, frames to messages, and a write end that many threads share. (Who
reads is decided in `reading`.)

`outbox` takes frames from any thread; whoever has put one in calls `flush`, which writes all that is there in one
system call, or leaves it to the thread that is writing already (which looks again before it goes). The write lock
belongs to this connection and to nothing else: a thread may be stopped for ever while it writes (a signal handler that
waits for an answer, Ctrl-C at the wrong instruction), and then the whole connection is given up for a new one. The
protocol makes that harmless, since everything unanswered is sent again, and nothing happens twice.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Final

from dthreading.errors import DThreadingError, ProtocolError, from_wire
from dthreading.reading import ReadRole
from dthreading.wire.auth import Connector
from dthreading.wire.codec import decode, encode
from dthreading.wire.framing import FrameDecoder, frame
from dthreading.wire.limits import FRAME_BYTES_MAX, HANDSHAKE_FRAME_BYTES_MAX
from dthreading.wire.messages import Challenge, Message, Rejected, Role, Welcome

if TYPE_CHECKING:
    from dthreading.resolve import Endpoint

__all__ = ["LAST_S", "Link"]

READ_BYTES: Final = 65536
"""What one read takes at most: a larger buffer would be mapped and unmapped on each call."""

LAST_S: Final = 0.5
"""How long to wait for another thread's write when our last words are to leave: it is all but done."""

WRITE_BYTES: Final = 256 * 1024
"""About how much is joined for one write: enough to fill any socket, little enough to copy."""


NO_SIGNAL: Final = getattr(socket, "MSG_NOSIGNAL", 0)
"""A replica that has hung up must not end a program that has SIGPIPE at its default, as command-line tools do. (macOS
has no such flag.)"""


class Link:
    """A connection, from the call of connect() on.

    Args:
        endpoint: where to.
        secret: for the handshake; None on a Unix socket.

    Raises:
        OSError: there is nobody there.

    """

    def __init__(self, endpoint: Endpoint, secret: bytes | None) -> None:
        self.name = endpoint.name
        self.peer = endpoint.name
        """The address that was reached, as a replica would write it: `localhost:7450` is `127.0.0.1:7450`."""
        self.outbox: deque[bytes] = deque()
        self.connecting = True
        self.welcome: Welcome | None = None
        """The replica's last word of the handshake, once it is there."""
        self.broken: str | None = None
        """Why this connection is of no more use. Any thread may set it, and wakes the service thread."""
        self.unsent = b""
        """What the socket would not take: the service thread goes on with it as soon as there is room."""
        self.role = ReadRole()
        """Who reads."""
        self.inbox: deque[bytes] = deque()
        """Frames that a calling thread has read and that are not for it: the service thread's, before it reads on."""
        self.catching_up = False
        """The service thread is at them: what it has taken from `inbox` may not be done yet."""
        self._connector = Connector(Role.CLIENT, secret, os.urandom(16))
        self._decoder = FrameDecoder(HANDSHAKE_FRAME_BYTES_MAX)
        self._writing = _thread.allocate_lock()
        self._writer = 0
        self.written = 0
        """Counts writes, so that one who waits sees whether there is progress."""
        self.socket = socket.socket(endpoint.family, socket.SOCK_STREAM)
        try:
            self.socket.setblocking(False)
            if endpoint.family != socket.AF_UNIX:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(BlockingIOError):
                self.socket.connect(endpoint.address)
        except BaseException:
            self.socket.close()
            raise

    # --- any thread ---

    def flush(self) -> bool:
        """Writes what waits in the outbox. False: another call is writing, and its thread may never come back to it."""
        while self.outbox and not self.unsent and self.broken is None:
            if not self._writing.acquire(False):
                if self._writer == _thread.get_ident():
                    self.broken = "a call was made inside the write of another, on the same thread"
                return False
            try:
                self._writer = _thread.get_ident()
                self._write()
            except BaseException as error:
                # Ctrl-C, a full memory: nobody knows how much has left.
                self.broken = f"writing was cut short by {type(error).__name__}"
                raise
            finally:
                self._writer = 0
                self._writing.release()
        return True

    def check_stuck(self, written: int) -> None:
        """Somebody has waited a while for the writer of write `written`: if it has not come back, it will not."""
        if self.written == written and not self.flush() and self.broken is None:
            self.broken = "a thread did not come back from a write"

    def _write(self) -> None:
        self.written += 1
        data = self.unsent or self._waiting()
        if not data:
            return
        try:
            sent = self.socket.send(data, NO_SIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.broken = f"writing to {self.name} failed: {error.strerror}"
            return
        self.unsent = data[sent:]

    def _waiting(self) -> bytes:
        """What waits in the outbox, or as much of it as is written at once."""
        outbox = self.outbox
        try:
            first = outbox.popleft()
        except IndexError:
            return b""
        if not outbox:
            return first
        frames, size = [first], len(first)
        while outbox and size < WRITE_BYTES:
            frames.append(outbox.popleft())
            size += len(frames[-1])
        return b"".join(frames)

    # --- whoever has the role of reading ---

    def receive(self) -> list[bytes]:
        """The frames that have come since. That the connection has ended, or what came is no frame, `broken` and
        `spoiled` say.
        """
        try:
            data = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            self.broken = self.broken or f"reading from {self.name} failed: {error.strerror}"
            return []
        if not data:
            self.broken = self.broken or f"{self.name} closed the connection"
            return []
        try:
            return self._decoder.feed(data)
        except ProtocolError:
            if not self.spoiled:
                raise
            return []

    @property
    def spoiled(self) -> bool:
        """Whether something came that is no frame. `read` raises it, after what came before it."""
        return self._decoder.broken is not None

    # --- the service thread ---

    def flush_last(self) -> None:
        """Writes what waits before the connection is closed; waits a moment for a thread that has just written."""
        if not self.flush() and self.broken is None and self._writing.acquire(True, LAST_S):
            self._writing.release()
            self.flush()

    def fileno(self) -> int:
        """For poll."""
        return self.socket.fileno()

    @property
    def wants_to_write(self) -> bool:
        """Whether to wait for room in the socket, or for the end of connect()."""
        return self.connecting or bool(self.unsent)

    def writable(self) -> None:
        """The socket has room, or is connected."""
        if self.connecting:
            code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self.broken = f"connecting to {self.name} failed: {os.strerror(code)}"
                return
            self.connecting = False
            self.peer = self._peer()
            self.outbox.append(frame(encode(self._connector.hello())))
            self.flush()
        elif self._writing.acquire(blocking=False):
            try:
                self._write()
            finally:
                self._writing.release()
            self.flush()

    def read(self, *, receive: bool = True) -> list[Message]:
        """The messages that have come since; handshake frames are handled here.

        Args:
            receive: False: only what calling threads have left to us.

        Raises:
            NotAuthenticated: and other refusals of the handshake.
            ProtocolError: what came is not our protocol.

        """
        if receive:
            self.inbox.extend(self.receive())
        messages: list[Message] = []
        while self.inbox:
            message = decode(self.inbox.popleft())
            if type(message) is Rejected:
                raise _refusal(message, self.name)
            if self.welcome is not None:
                messages.append(message)
            else:
                self._shake_hands(message)
        if self._decoder.broken is not None:
            raise ProtocolError(self._decoder.broken)
        return messages

    def _shake_hands(self, message: Message) -> None:
        match message:
            case Challenge() if not self._connector.satisfied:
                self.outbox.append(frame(encode(self._connector.challenged(message))))
                self.flush()
            case Welcome() if self._connector.satisfied:  # or whoever took the port would just leave the challenge out
                self.welcome = message
                self._decoder.body_bytes_max = FRAME_BYTES_MAX
            case _:
                raise ProtocolError(f"{type(message).__name__} in the middle of a handshake")

    def _peer(self) -> str:
        try:
            address = self.socket.getpeername()
        except OSError:
            return self.name
        return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else self.name

    def close(self, *, at_once: bool = False) -> bool:
        """Lets go of the socket. False: a thread is reading or in the middle of a write; shut down for now, which ends
        both, call again later.

        A descriptor must not be closed under another thread: its number could be another file's by the time of the
        read or write.

        Args:
            at_once: close it all the same, and shut nothing down: in a forked child the connection is the parent's.

        """
        if self.broken is None:
            self.broken = "this client closed it"
        if at_once:
            self.socket.close()
            return True
        if not self.role.take() or not self._writing.acquire(blocking=False):
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            return False
        self.socket.close()
        self._writing.release()
        return True


def _refusal(rejected: Rejected, name: str) -> DThreadingError:
    """The error that a server refuses us with; one of the standard library's is none that it may choose."""
    error = from_wire(rejected.code, f"{name}: {rejected.reason}")
    return error if isinstance(error, DThreadingError) else ProtocolError(f"{name} refused us: {rejected.reason}")
