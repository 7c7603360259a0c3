# SPDX-License-Identifier: Apache-2.0
"""A simulated client's connection, and the way to the next one: what dthreading/dialing.py does, with the very Route.

A connection is a number in messages: TCP's own work (order, an end that both sides hear of sooner or later) is done by
the network and by the counts that messages carry. There is no handshake; a replica says first who leads.
"""

from __future__ import annotations

import random
from collections import deque

from dthreading.dialing import ATTEMPT_S_MAX, ATTEMPT_S_MIN
from dthreading.route import Route
from dthreading.session.core import ClientSession
from dthreading.session.lease import State
from dthreading.wire import codec, messages
from tests.sim.group import ConnectionEnded, ToClient, ToReplica
from tests.sim.kernel import Kernel
from tests.sim.network import Network

__all__ = ["Line"]


class Line:
    """One client's connection, if it has one.

    Args:
        node: the client's number in the network.
        replicas: those that it was configured with; some may never have existed.

    """

    def __init__(
        self, kernel: Kernel, network: Network, node: int, replicas: list[int], ttl_ms: int, luck: random.Random
    ) -> None:
        self.connection = 0
        """Its number; 0: none."""
        self._kernel = kernel
        self._network = network
        self._node = node
        self._luck = luck
        self._route = Route([f"r{replica}" for replica in luck.sample(replicas, len(replicas))], luck.random)
        self._follows = luck.random() < 0.5
        """Whether it goes to the leader. All do; here half of them stay where they are, or followers had no clients."""
        self._attempt_s = max(ATTEMPT_S_MIN, min(ttl_ms / 6000, ATTEMPT_S_MAX))
        self._server = ""
        self._dialing = False
        self._give_up_at = 0.0
        self._said = self._heard = 0
        self._outbox: deque[bytes] = deque()

    @property
    def replica(self) -> int:
        """The one that it leads to; 0: none."""
        return int(self._server[1:]) if self.connection else 0

    def knows(self, address: str) -> bool:
        """Whether it may try that server some time."""
        return address in self._route._servers

    def next_at(self, session: ClientSession) -> float:
        """When `tend` is due."""
        if not self.connection:
            return self._route.dial_at
        if self._dialing or session.state is State.JEOPARDY:
            return self._give_up_at
        return float("inf")

    def tend(self, session: ClientSession, now: float) -> None:
        """As Dialer.tend."""
        if session.over:
            self.flush()
            self.drop(session, now)
            return
        if self.connection:
            self._look_after(session, now)
        if not self.connection and now >= self._route.dial_at:
            self._connect(session, now)

    def _look_after(self, session: ClientSession, now: float) -> None:
        if self._dialing:
            if now >= self._give_up_at:
                self._kernel.seen["client: gave up a replica that did not answer"] += 1
                self.drop(session, now, failed=True)
        elif session.state is State.JEOPARDY and now >= self._give_up_at:
            self._kernel.seen["client: gave up a replica that acknowledged no keepalive"] += 1
            self.drop(session, now, failed=True)
        elif self._route.should_move(self._server, self._server, now):
            self.drop(session, now)

    def _connect(self, session: ClientSession, now: float) -> None:
        self._server = self._route.next(now)
        self.connection = self._kernel.fresh()
        self._dialing = True
        self._give_up_at = now + self._attempt_s
        self._said = self._heard = 0
        self._outbox = deque()
        session.connected(self._outbox, self._luck.randbytes(16), now)

    def drop(self, session: ClientSession, now: float, *, failed: bool = False, silently: bool = False) -> None:
        """As Dialer.drop. `silently`: the replica does not hear of it, and what is under way still arrives."""
        if not self.connection:
            return
        if not silently:
            self._say(ConnectionEnded(self.connection))
        self.connection = 0
        session.disconnected()
        if not self._dialing:
            self._route.lost(now)
        if failed:
            self._route.failed(self._server, now)

    def avoid(self, now: float) -> None:
        """The present replica is taken for unreachable: the next connection is to another one."""
        self._route.failed(self._server, now)

    def heard(self, message: ToClient | ConnectionEnded, session: ClientSession, now: float) -> bool:
        """Something came. False: it is of a connection that is over."""
        if message.connection != self.connection:
            return False
        if isinstance(message, ConnectionEnded):
            self._kernel.seen["client: a replica ended the connection"] += 1
            self.drop(session, now, failed=True)
        elif message.count != self._heard + 1:
            self.drop(session, now)
        else:
            self._heard += 1
            self._obey(codec.decode(message.body), session, now)
        return True

    def _obey(self, message: messages.Message, session: ClientSession, now: float) -> None:
        match message:
            case messages.MoveOn() | messages.Rejected():
                self.drop(session, now, failed=True)
            case messages.Leader(address=address):
                self._route.leads(address if self._follows else "")
            case messages.Servers(addresses=addresses):
                self._route.told(addresses)
            case _:
                session.step(message, now)
                if self._dialing and session.ready:
                    self._route.succeeded(self._server)
                    self._dialing = False
                    self._give_up_at = now + self._attempt_s

    def flush(self) -> None:
        """Everything that the session has to say leaves."""
        while self.connection and self._outbox:
            self._said += 1
            self._say(ToReplica(self.connection, self._said, self._outbox.popleft()[4:]))

    def end(self) -> None:
        """The other end hears that this one is no more."""
        if self.connection:
            self._say(ConnectionEnded(self.connection))

    def _say(self, message: ToReplica | ConnectionEnded) -> None:
        self._network.send(self._node, int(self._server[1:]), message, message.connection)
