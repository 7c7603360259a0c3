# SPDX-License-Identifier: Apache-2.0
"""A simulated client's connection: the shipping Dialer and Route, over a link that is a number in messages.

TCP's own work (order, an end that both sides hear of sooner or later) is done by the network and by the counts that
messages carry. There is no handshake; a replica says first who leads.
"""

from __future__ import annotations

import random
import select
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NoReturn

from dthreading.dialing import Dialer
from dthreading.errors import ProtocolError, from_wire
from dthreading.route import Route
from dthreading.session.core import ClientSession
from dthreading.wire import codec, messages
from tests.sim.group import ConnectionEnded, ToClient, ToReplica
from tests.sim.kernel import Kernel
from tests.sim.network import Network

__all__ = ["Line"]

SEEN = {
    "did not answer within": "client: gave up a replica that did not answer",
    "has acknowledged no keepalive": "client: gave up a replica that acknowledged no keepalive",
    "closed the connection": "client: a replica ended the connection",
    "moving to the leader": "client: moved to the leader",
    "session was over": "client: had a new session before it had hung up for the former one",
}


class Way:
    """What a Finder is to a Dialer, where every name means a replica at once."""

    hint = ""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.name = ""

    def dial_at(self) -> float:
        return self.route.dial_at

    def next(self, now: float) -> tuple[str]:
        self.name = self.route.next(now)
        return (self.name,)

    def failed(self, now: float) -> None:
        self.route.failed(self.name, now)

    def succeeded(self) -> None:
        self.route.succeeded(self.name)


class SimulatedLink:
    """What a Link is to a Dialer."""

    wants_to_write = spoiled = catching_up = False
    unsent = b""
    role = SimpleNamespace(ours=True)

    def __init__(self, name: str, number: int, say: Callable[[SimulatedLink, bytes | None], None]) -> None:
        self.name = self.peer = name
        self.number = number
        self.outbox: deque[bytes] = deque()
        self.inbox: list[messages.Message] = []
        self.welcome: messages.Welcome | None = None
        self.broken: str | None = None
        self.silent = False
        """The replica does not hear of its end."""
        self.said = self.heard = self.written = 0
        self._say = say

    def read(self, *, receive: bool) -> list[messages.Message]:
        """As Link.read."""
        assert receive
        said, self.inbox = self.inbox, []
        for message in said:
            if type(message) is messages.Rejected:
                raise from_wire(message.code, message.reason)
        return said

    def flush(self) -> bool:
        """Everything that the session has to say leaves."""
        while self.outbox and self.broken is None:
            self.said += 1
            self._say(self, self.outbox.popleft()[4:])
        return True

    flush_last = flush

    def writable(self) -> NoReturn:
        """There is always room."""
        raise AssertionError

    def close(self) -> bool:
        """As Link.close."""
        self.broken = self.broken or "this client closed it"
        if not self.silent:
            self._say(self, None)
        return True


class SeenDialer(Dialer):
    """The shipping one, and what it gives connections up for."""

    def __init__(self, kernel: Kernel, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._kernel = kernel

    def drop(self, session: ClientSession | None, now: float, why: str, *, failed: bool = True) -> None:
        for part, name in SEEN.items():
            if part in why and self.current is not None:
                self._kernel.seen[name] += 1
        super().drop(session, now, why, failed=failed)


class Line:
    """One client's connection, if it has one.

    Args:
        node: the client's number in the network.
        replicas: those that it was configured with; some may never have existed.

    """

    def __init__(
        self, kernel: Kernel, network: Network, node: int, replicas: list[int], ttl_ms: int, luck: random.Random
    ) -> None:
        self._kernel = kernel
        self._network = network
        self._node = node
        self._route = Route([f"r{replica}" for replica in luck.sample(replicas, len(replicas))], luck.random)
        self._follows = luck.random() < 0.5
        """Whether it goes to the leader. All do; here half of them stay where they are, or followers had no clients."""
        self.dialer = SeenDialer(kernel, Way(self._route), ttl_ms / 1000, connect=self._connect, fresh=luck.randbytes)

    @property
    def link(self) -> SimulatedLink | None:
        """The connection in use, or the one that is being made."""
        return self.dialer.current  # type: ignore[return-value]

    @property
    def connection(self) -> int:
        """Its number; 0: none."""
        return 0 if self.link is None else self.link.number

    @property
    def replica(self) -> int:
        """The one that it leads to; 0: none."""
        return 0 if self.link is None else int(self.link.name[1:])

    def knows(self, address: str) -> bool:
        """Whether it may try that server some time."""
        return address in self._route._servers

    def next_at(self, session: ClientSession) -> float:
        """When `tend` is due."""
        return self.dialer.next_at(session)

    def tend(self, session: ClientSession, now: float) -> None:
        """As a turn of the service thread."""
        self.dialer.tend(session, now)
        link = self.link
        if link is not None and link.welcome is None:
            # A Welcome says what the first words of a replica say here: until then it is what is known already.
            leader, servers = self._route._leader, tuple(self._route._servers)
            link.welcome = messages.Welcome("", int(link.name[1:]), leader, servers)
            self._take_in(session, now)

    def _take_in(self, session: ClientSession, now: float) -> None:
        self.dialer.serve(session, select.POLLIN, lambda: now)
        assert not isinstance(self.dialer.trouble, ProtocolError), self.dialer.trouble

    def _connect(self, server: str) -> SimulatedLink:
        return SimulatedLink(server, self._kernel.fresh(), self._write)

    def drop(self, session: ClientSession, now: float, *, silently: bool = False) -> None:
        """The connection breaks. `silently`: the replica does not hear of it, and what is under way still arrives."""
        if self.link is not None:
            self.link.silent = silently
            self.dialer.drop(session, now, "it broke", failed=False)

    def avoid(self, now: float) -> None:
        """The present replica is taken for unreachable: the next connection is to another one."""
        if self.link is not None:
            self._route.failed(self.link.name, now)

    def heard(self, message: ToClient | ConnectionEnded, session: ClientSession, now: float) -> bool:
        """Something came. False: it is of a connection that is over."""
        link = self.link
        if link is None or message.connection != link.number or link.broken is not None:
            return False
        if isinstance(message, ConnectionEnded):
            link.broken = f"{link.name} closed the connection"
        elif message.count != link.heard + 1:
            link.broken = f"something that {link.name} said is lost"
        else:
            link.heard += 1
            self._obey(codec.decode(message.body), session, now)
        return True

    def _obey(self, message: messages.Message, session: ClientSession, now: float) -> None:
        if type(message) is messages.Leader and not self._follows:
            message = messages.Leader("")
        assert self.link is not None
        self.link.inbox.append(message)
        self._take_in(session, now)

    def flush(self) -> None:
        """Everything that the session has to say leaves."""
        self.dialer.flush(lambda: 0.0)

    def end(self) -> None:
        """The other end hears that this one is no more."""
        if self.link is not None:
            self._write(self.link, None)

    def _write(self, link: SimulatedLink, body: bytes | None) -> None:
        said = ConnectionEnded(link.number) if body is None else ToReplica(link.number, link.said, body)
        self._say(said, int(link.name[1:]))

    def _say(self, message: ToReplica | ConnectionEnded, replica: int) -> None:
        self._network.send(self._node, replica, message, message.connection)
