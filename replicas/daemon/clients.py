# SPDX-License-Identifier: Apache-2.0
"""The connections that came to us: strangers until their handshake is done, then clients, operators or other replicas.

The only file that decides how much a stranger may cost: so many descriptors, so many bytes, so many seconds. What
clients say goes to the sans-IO replica as it came; what a replica says goes to `Peers`.
"""

from __future__ import annotations

import itertools
import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol

from dthreading.errors import ProtocolError
from dthreading.wire import limits
from dthreading.wire.auth import Acceptor
from dthreading.wire.codec import check_ints_of_caller, decode, encode
from dthreading.wire.messages import (
    COMMANDS,
    Answer,
    CloseAtEnd,
    Keepalive,
    MoveOn,
    Query,
    Rejected,
    Reply,
    Role,
    Status,
    ToClient,
    ToReplica,
    Welcome,
)
from replicas.daemon.connections import Connection, Outgoing

if TYPE_CHECKING:
    from replicas.daemon.journal import Muffler

__all__ = ["Clients", "Host"]

HANDSHAKE_S: Final = 5.0
"""From accept to proof. A stranger who sends nothing, or half a frame, is gone after it."""

UNREAD_BYTES_MAX: Final = 4 * limits.FRAME_BYTES_MAX
"""What may wait for one client that does not read. Twice the largest answer, and room for the others of its threads."""

WHY_CHARACTERS_MAX: Final = 500
"""Of what is logged about a connection's end: it may name what came on it."""

QUESTIONS_MAX: Final = 64
"""What an operator may ask before the first of it is answered: an answer takes as much as a frame, and one read of the
socket may bring thousands of questions. Our own programs ask one after the other."""

FROM_CLIENT: Final = frozenset({*COMMANDS, Keepalive, CloseAtEnd})


class Host(Protocol):
    """What the connections need of the daemon around them."""

    def now_s(self) -> float: ...
    def came(self) -> None: ...
    def welcome(self) -> Welcome: ...
    def client_said(self, connection: int, message: ToReplica, body: bytes) -> None: ...
    def client_gone(self, connection: int) -> None: ...
    def asked(self, connection: int, query: Query, body: bytes) -> None: ...
    def replica_came(self, connection: Connection) -> None: ...


class Clients:
    """All accepted connections. `accept` makes one for each socket; `sweep` ends those that never say who they are."""

    def __init__(self, host: Host, outgoing: Outgoing, secret: bytes | None, muffler: Muffler, most: int) -> None:
        self.host = host
        self.outgoing = outgoing
        self.secret = secret
        self._muffler = muffler
        self._most = most
        self.numbers = itertools.count(1)
        # Invariant: a connection stands in _all until it is lost, and in _strangers (oldest first) until its handshake
        # is done; in _clients, by number, from then on if it is a client or an operator.
        self._all: set[_Accepted] = set()
        self._strangers: OrderedDict[_Accepted, float] = OrderedDict()
        self._clients: dict[int, _Accepted] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def accept(self) -> Connection:
        """A connection for a socket that was just accepted: the factory asyncio asks for."""
        return _Accepted(self)

    def send(self, number: int, message: ToClient) -> None:
        """To the client of connection `number`, if it is still there."""
        connection = self._clients.get(number)
        if connection is None:
            return
        if isinstance(message, Answer):
            connection.questions -= 1
        body = encode(message)
        if len(body) > limits.FRAME_BYTES_MAX:
            body = encode(_instead_of(message, len(body)))
        connection.send(body)

    def hang_up(self, number: int, reason: str) -> None:
        """The replica wants this client gone; with a reason, that goes to the log."""
        connection = self._clients.get(number)
        if connection is not None:
            if reason:
                self.complain(connection, reason)
            connection.hang_up()

    def move_on(self, reason: str) -> None:
        """Tell every client to go to another replica: this one is stopping."""
        body = encode(MoveOn(reason))
        for connection in self._clients.values():
            connection.send(body)

    def close(self) -> None:
        """End every connection."""
        for connection in list(self._all):
            connection.hang_up()

    def sweep(self) -> float | None:
        """Cut the strangers whose time is up; when to sweep again, or None when no stranger is left."""
        now = self.host.now_s()
        while self._strangers:
            connection, deadline = next(iter(self._strangers.items()))
            if deadline > now:
                return deadline
            self._forget_stranger(connection, f"said nothing valid within {HANDSHAKE_S:g} s")
        return None

    def complain(self, connection: Connection, why: str) -> None:
        """One line in the log about a connection that we end."""
        why = why[:WHY_CHARACTERS_MAX]
        self._muffler.warn(self.host.now_s(), f"ended the connection from {connection.peer_name}: {why}")

    # --- for the connections

    def came(self, connection: _Accepted) -> None:
        self._all.add(connection)
        self._strangers[connection] = self.host.now_s() + HANDSHAKE_S
        self.host.came()
        if len(self._all) <= self._most:
            return
        # A stranger makes room before anybody who showed that he may be here.
        oldest = next(iter(self._strangers))
        self._forget_stranger(oldest, f"made room: {self._most} connections are the most (--connections-max)")

    def _forget_stranger(self, connection: _Accepted, why: str) -> None:
        del self._strangers[connection]
        self.complain(connection, why)
        connection.cut()

    def gone(self, connection: _Accepted) -> None:
        self._all.discard(connection)
        self._strangers.pop(connection, None)
        if self._clients.pop(connection.number, None) is not None:  # operators, too: a replica may have noted one
            self.host.client_gone(connection.number)

    def authenticated(self, connection: _Accepted) -> None:
        self._strangers.pop(connection, None)
        if connection.role is Role.REPLICA:
            self.host.replica_came(connection)
        else:
            self._clients[connection.number] = connection


def _instead_of(message: ToClient, size: int) -> ToClient:
    """What is said where that message would fit no frame."""
    if isinstance(message, Answer):
        return Answer(message.number, {"error": "the answer is too large: ask for less (by name)"})
    assert isinstance(message, Reply), f"a {type(message).__name__} of {size} bytes"
    why = f"the answer takes {size} bytes, and FRAME_BYTES_MAX = {limits.FRAME_BYTES_MAX} are the most"
    return Reply(message.lane, message.number, int(Status.ERROR), ("limit", why, ()))


class _Accepted(Connection):
    """One accepted connection, from the first byte on."""

    __slots__ = ("_acceptor", "_clients", "number", "questions", "role")

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients.outgoing, limits.HANDSHAKE_FRAME_BYTES_MAX)
        self._clients = clients
        self._acceptor: Acceptor | None = Acceptor(clients.secret, os.urandom(16))
        self.number = next(clients.numbers)
        self.role: Role | None = None
        self.questions = 0
        """Those of an operator that are not answered yet."""
        self.got = self._shake_hands

    def opened(self) -> None:
        self.limit_unread(UNREAD_BYTES_MAX)
        self._clients.came(self)

    def lost(self) -> None:
        self._clients.gone(self)

    def broken(self, why: str) -> None:
        self._clients.complain(self, why)

    def pause_writing(self) -> None:
        self._clients.complain(self, f"{UNREAD_BYTES_MAX} bytes wait for it and it does not read")
        self.cut()

    def _shake_hands(self, body: bytes) -> None:
        assert self._acceptor is not None
        answer = self._acceptor.step(decode(body))
        if answer is not None:
            self.send(encode(answer))
            if isinstance(answer, Rejected):
                self._clients.complain(self, answer.reason)
                self.hang_up()
            return
        self.role = self._acceptor.role
        self._acceptor = None
        peer = self.role is Role.REPLICA
        self.expect_bodies_up_to(limits.FRAME_BYTES_MAX if peer else limits.COMMAND_BYTES_MAX)
        self.send(encode(self._clients.host.welcome()))
        self.got = self._from_client if self.role is Role.CLIENT else self._from_operator
        self._clients.authenticated(self)

    def _from_client(self, body: bytes) -> None:
        message = decode(body)
        if type(message) not in FROM_CLIENT:
            raise ProtocolError(f"{type(message).__name__} from a client")
        check_ints_of_caller(body, message)
        self._clients.host.client_said(self.number, message, body)  # type: ignore[arg-type]

    def _from_operator(self, body: bytes) -> None:
        message = decode(body)
        if not isinstance(message, Query):
            raise ProtocolError(f"{type(message).__name__} from an operator")
        if self.questions >= QUESTIONS_MAX:
            raise ProtocolError(f"more than QUESTIONS_MAX = {QUESTIONS_MAX} questions that wait for their answers")
        self.questions += 1
        self._clients.host.asked(self.number, message, body)
