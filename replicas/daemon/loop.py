# SPDX-License-Identifier: Apache-2.0
"""The daemon's event loop: asyncio's, with sockets that are served before asyncio hears of them.

Of a replica's time most went to what asyncio does around each event: a handle and a context for every callback, a walk
through its timers, and a second `epoll_wait` for the turn that follows a read. So connections are served inside
`select`: whatever is ready is read and stepped in at once, what `soon` was asked for follows when all of it is done,
and then comes the next wait, all that without asyncio until there is something for it. Timers, signals, threads and
coroutines are asyncio's as ever; a connection cannot tell the difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import select
import selectors
import socket
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["Loop", "Server", "Stream"]

ACCEPT_PAUSE_S: Final = 1.0
"""How long nobody is accepted when the machine has no descriptor or memory left for one more."""

SHORT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

UNREAD_BYTES_HIGH: Final = 64 * 1024
"""asyncio's own limit, until a connection sets another."""

Protocol = asyncio.BufferedProtocol
_READ: Final = select.EPOLLIN
_WRITE: Final = select.EPOLLOUT


class _Selector(selectors.EpollSelector):
    """asyncio's own descriptors; and beside them our sockets, which are served while it waits."""

    def __init__(self) -> None:
        super().__init__()
        self._all = select.epoll()
        """Our sockets, and all that is asyncio's as one of them."""
        self._all.register(self.fileno(), _READ)
        self._sockets: dict[int, Callable[[int], object]] = {}
        self.serving = False
        self.wanted = False
        """Whether asyncio has something to do."""
        self.due: deque[Callable[[], object]] = deque()
        self.crashed: Callable[[Exception], None]

    def watch(self, descriptor: int, events: int, ready: Callable[[int], object]) -> None:
        """Call `ready(events)` whenever some of them have happened, or the descriptor has broken."""
        self._all.register(descriptor, events)
        self._sockets[descriptor] = ready

    def watch_for(self, descriptor: int, events: int) -> None:
        """Other events than before."""
        self._all.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Watch it no more."""
        del self._sockets[descriptor]
        self._all.unregister(descriptor)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        due, sockets, poll, run = self.due, self._sockets, self._all.poll, self._run
        until_s = None if timeout is None else monotonic() + timeout
        self.serving, self.wanted = True, False
        try:
            while True:
                for descriptor, events in poll(timeout):
                    ready = sockets.get(descriptor)
                    if ready is not None:
                        run(ready, events)
                    elif descriptor == self.fileno():
                        self.wanted = True
                    # Else it was closed a moment ago, by what another one brought.
                while due:
                    run(due.popleft())
                if self.wanted:
                    return super().select(0)
                if until_s is not None:
                    timeout = until_s - monotonic()
                    if timeout <= 0:
                        return []
        finally:
            self.serving = False

    def close(self) -> None:
        self._all.close()
        super().close()

    def _run(self, action: Callable[..., object], *arguments: int) -> None:
        try:
            action(*arguments)
        except Exception as error:  # noqa: BLE001 - as asyncio does: one callback's error is not the loop's
            self.crashed(error)


class Loop(asyncio.SelectorEventLoop):
    """asyncio's event loop with sockets of our own. TCP and Unix streams only, and no TLS."""

    def __init__(self) -> None:
        self.sockets = _Selector()
        super().__init__(self.sockets)
        self.sockets.crashed = self._crashed

    def soon(self, action: Callable[[], object]) -> None:
        """When everything that is ready now was served."""
        if self.sockets.serving:
            self.sockets.due.append(action)
        else:
            self.call_soon(action)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task whose error is told at once. asyncio tells of it when the task is forgotten, which may be never."""
        task = self.create_task(work, name=name)
        task.add_done_callback(_raise_its_error)
        return task

    def serve(self, listening: socket.socket, make: Callable[[], Protocol], backlog: int) -> Server:
        """Accept connections, each with a protocol of its own."""
        return Server(self, listening, make, backlog)

    async def connect(self, address: tuple[str, int] | str, protocol: Protocol) -> Stream:
        """Connect to a host and port, or to a Unix socket's path; the first of a name's addresses that answers.

        Raises:
            OSError: what the last of them said.

        """
        if isinstance(address, str):
            return await self._connect(socket.AF_UNIX, address, protocol)
        try:
            found = await self.getaddrinfo(*address, type=socket.SOCK_STREAM)
        except (RuntimeError, UnicodeError) as error:  # no thread can be had to look it up, or it is no name at all
            raise OSError(errno.EAGAIN, str(error)) from error
        for count, (family, _, _, _, place) in enumerate(found, 1):
            try:
                return await self._connect(family, place, protocol)
            except OSError:
                if count == len(found):
                    raise
        raise OSError(errno.EADDRNOTAVAIL, "a name without an address")

    async def _connect(self, family: int, place: Any, protocol: Protocol) -> Stream:
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            await self.sock_connect(made, place)
        except BaseException:
            made.close()
            raise
        return Stream(self, made, protocol)

    # Whatever gives asyncio something to do ends the wait.

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        self.sockets.wanted = True
        return super().call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        self.sockets.wanted = True
        return super().call_at(when, callback, *args, context=context)

    def stop(self) -> None:
        self.sockets.wanted = True
        super().stop()

    def _crashed(self, error: Exception) -> None:
        self.call_exception_handler({"message": "an error while a socket was served", "exception": error})


def _raise_its_error(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.result()


class Server:
    """Accepts, until it is closed."""

    def __init__(self, loop: Loop, listening: socket.socket, make: Callable[[], Protocol], backlog: int) -> None:
        self._loop = loop
        self._listening = listening
        self._make = make
        self._backlog = backlog
        self._watched = False
        self._pause: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        listening.listen(backlog)
        self._watch()

    def close(self) -> None:
        """Accept nobody any more. The listening socket is its owner's to close."""
        if self._pause is not None:
            self._pause.cancel()
        if self._watched:
            self._watched = False
            self._loop.sockets.forget(self._listening.fileno())

    def _watch(self) -> None:
        self._watched = True
        self._loop.sockets.watch(self._listening.fileno(), _READ, self._ready)

    def _ready(self, events: int) -> None:
        del events
        for _ in range(self._backlog):
            try:
                accepted, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # It stays ready, and there is nothing to be done about it: later, perhaps.
                self.close()
                self._pause = self._loop.call_later(ACCEPT_PAUSE_S, self._watch)
                if error.errno not in SHORT_OF:
                    raise
                return
            accepted.setblocking(False)
            Stream(self._loop, accepted, self._make())


class Stream(asyncio.Transport):
    """One connected socket, as asyncio's transports are: what is written leaves at once, or when there is room."""

    __slots__ = (
        "_closing",
        "_high",
        "_loop",
        "_lost",
        "_low",
        "_paused",
        "_protocol",
        "_reading",
        "_socket",
        "_unsent",
        "_watched",
    )

    def __init__(self, loop: Loop, connected: socket.socket, protocol: Protocol) -> None:
        super().__init__()
        self._loop = loop
        self._socket = connected
        self._protocol = protocol
        self._unsent = bytearray()
        self._high = UNREAD_BYTES_HIGH
        self._low = UNREAD_BYTES_HIGH // 4
        self._paused = False
        """Whether the protocol was told to write no more."""
        self._reading = True
        self._closing = False
        """Nothing is read or newly written; what is unsent still leaves."""
        self._lost = False
        if connected.family != getattr(socket, "AF_UNIX", None):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watched = 0
        self._watch()
        protocol.connection_made(self)

    # --- asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._closing or not data:
            return
        if not self._unsent:
            try:
                sent = self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self._lose(error)
                return
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
            self._unsent += data
            self._watch()
        else:
            self._unsent += data
        if len(self._unsent) > self._high and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._unsent:
            self._watch()
        else:
            self._lose(None)

    def abort(self) -> None:
        self._lose(None)

    def is_closing(self) -> bool:
        return self._closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "socket":
            return self._socket
        if name == "peername":
            with contextlib.suppress(OSError):
                return self._socket.getpeername()
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = UNREAD_BYTES_HIGH if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def pause_reading(self) -> None:
        self._reading = False
        self._watch()

    def resume_reading(self) -> None:
        self._reading = True
        self._watch()

    # --- the socket

    def _watch(self) -> None:
        """Be told of what we wait for, and of nothing else."""
        if self._lost:
            return
        events = (_READ if self._reading and not self._closing else 0) | (_WRITE if self._unsent else 0)
        former, self._watched = self._watched, events
        sockets, descriptor = self._loop.sockets, self._socket.fileno()
        if events == former:
            return
        if not former:
            sockets.watch(descriptor, events, self._ready)
        elif events:
            sockets.watch_for(descriptor, events)
        else:
            sockets.forget(descriptor)

    def _ready(self, events: int) -> None:
        if events != _READ:
            # A connection that has broken is ready for everything: reading or writing tells what it is.
            if events & ~_READ and self._watched & _WRITE and not self._lost:
                self._write_on()
            if not events & ~_WRITE:
                return
        if self._watched & _READ and not self._closing and not self._lost:
            self._read()

    def _read(self) -> None:
        try:
            count = self._socket.recv_into(self._protocol.get_buffer(-1))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        if count:
            self._protocol.buffer_updated(count)
        else:
            self._protocol.eof_received()
            self.close()

    def _write_on(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        del self._unsent[:sent]
        if not self._unsent:
            if self._closing:
                self._lose(None)
                return
            self._watch()
        if self._paused and len(self._unsent) <= self._low:
            self._paused = False
            self._protocol.resume_writing()

    def _lose(self, error: Exception | None) -> None:
        """The end. The protocol hears of it in a callback of its own: it may be in the middle of something now."""
        if self._lost:
            return
        self._lost = self._closing = True
        self._unsent.clear()
        if self._watched:
            self._loop.sockets.forget(self._socket.fileno())
        self._socket.close()
        self._loop.call_soon(self._protocol.connection_lost, error)
