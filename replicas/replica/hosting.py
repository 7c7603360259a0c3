# SPDX-License-Identifier: Apache-2.0
"""The clients connected to this replica: which connection speaks for which session, and what was passed on for them.

Everything here is local to one replica and may be lost at any moment: a client that reconnects anywhere sends its calls
again. What a client said is kept until apply has seen it, and is passed on again to every new leader; the key is the
command's own bytes, so a copy of something still on its way costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["PENDING_PER_CONNECTION_MAX", "Hosting", "Link"]

PENDING_PER_CONNECTION_MAX: Final = 100_000
"""Commands of one client that apply has not seen yet. More than its lanes allow twice over: such a client is hung
up."""


@dataclass(slots=True)
class Link:
    """One client connection after its handshake."""

    session: int | None = None
    nonce: bytes | None = None
    """Of the Open that is on its way."""
    close_at_end: bool = False
    pending: int = 0


class Hosting:
    """The tables of one replica's clients. No decisions: `replica.Replica` takes those."""

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}
        self._connection_of_session: dict[int, int] = {}
        self._connection_of_nonce: dict[bytes, int] = {}
        # Invariant: insertion order is the order of arrival, so what is passed on again keeps each client's order.
        self._pending: dict[bytes, int | None] = {}

    def link(self, connection: int) -> Link:
        """The connection's state, made on first sight."""
        return self._links.setdefault(connection, Link())

    @property
    def connections(self) -> tuple[int, ...]:
        """All connections, in the order they came."""
        return tuple(self._links)

    @property
    def sessions(self) -> tuple[int, ...]:
        """The sessions whose clients are connected here."""
        return tuple(self._connection_of_session)

    def connection(self, session: int) -> int | None:
        """Where the session's client is connected here, if it is."""
        return self._connection_of_session.get(session)

    def opening(self, connection: int, nonce: bytes) -> None:
        """An Open with this nonce came from the connection."""
        self.link(connection).nonce = nonce
        self._connection_of_nonce[nonce] = connection

    def opened(self, nonce: bytes, session: int | None) -> int | None:
        """Apply has judged an Open: its session, or None if refused. Returns its client's connection, if here."""
        connection = self._connection_of_nonce.pop(nonce, None)
        if connection is not None and session is not None:
            self.bind(connection, session)
        return connection

    def bind(self, connection: int, session: int) -> int | None:
        """From now on this connection speaks for the session. Returns the connection that did so before, if another."""
        link = self.link(connection)
        if link.session is not None and link.session != session:
            self._unbind(link.session, connection)
        link.session = session
        former = self._connection_of_session.get(session)
        self._connection_of_session[session] = connection
        return former if former != connection else None

    def ended(self, session: int) -> None:
        """The session is no more: its connection is free for another."""
        connection = self._connection_of_session.pop(session, None)
        if connection is not None and connection in self._links:
            self._links[connection].session = None

    def gone(self, connection: int) -> Link | None:
        """The connection has ended. What it said stays pending: it was accepted, and its client may be waiting for
        it.
        """
        link = self._links.pop(connection, None)
        if link is None:
            return None
        if link.session is not None:
            self._unbind(link.session, connection)
        if link.nonce is not None and self._connection_of_nonce.get(link.nonce) == connection:
            del self._connection_of_nonce[link.nonce]
        return link

    def add(self, body: bytes, connection: int | None) -> bool:
        """Notes a command until it is applied. False when the same bytes are already on their way: they speak for this
        connection from now on.
        """
        known = body in self._pending
        if known:
            self._discount(self._pending[body])
        self._pending[body] = connection
        if connection is not None:
            self.link(connection).pending += 1
        return not known

    def applied(self, body: bytes) -> int | None:
        """Apply has seen these bytes, wherever they came from. Returns the connection here that sent them, if any."""
        connection = self._pending.pop(body, None)
        self._discount(connection)
        return connection if connection in self._links else None

    @property
    def pending(self) -> Iterator[bytes]:
        """Commands that apply has not seen, in the order they came."""
        return iter(self._pending)

    @property
    def pending_count(self) -> int:
        """How many those are."""
        return len(self._pending)

    def _discount(self, connection: int | None) -> None:
        if connection is not None and connection in self._links:
            self._links[connection].pending -= 1

    def _unbind(self, session: int, connection: int) -> None:
        if self._connection_of_session.get(session) == connection:
            del self._connection_of_session[session]
