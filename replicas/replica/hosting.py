# SPDX-License-Identifier: Apache-2.0
"""The clients connected to this replica: which connection speaks for which session, and what was passed on for them.

Everything here is local to one replica and may be lost at any moment: a client that reconnects anywhere sends its calls
again. What a client said is kept until apply has seen it, and is passed on again to every new leader; the key is the
command's own bytes, so a copy of something still on its way costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from dthreading.wire.messages import Call

__all__ = ["PENDING_PER_CONNECTION_MAX", "Hosting", "Link"]

PENDING_PER_CONNECTION_MAX: Final = 100_000
"""Commands of one client that apply has not seen yet. More than its lanes allow twice over: such a client is hung
up."""


class Link:
    """One client connection after its handshake."""

    __slots__ = ("close_at_end", "nonce", "pending", "session")

    def __init__(self) -> None:
        self.session: int | None = None
        self.nonce: bytes | None = None
        """Of the Open that is on its way."""
        self.close_at_end = False
        self.pending = 0


class _Pending(NamedTuple):
    """A command on its way."""

    connection: int | None
    call: Call | None
    """What its bytes say, if that is known: so it need not be read once more when it is applied."""


class Hosting:
    """The tables of one replica's clients. No decisions: `replica.Replica` takes those."""

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}
        self._connection_of_session: dict[int, int] = {}
        self._connection_of_nonce: dict[bytes, int] = {}
        # Invariant: insertion order is the order of arrival, so what is passed on again keeps each client's order.
        self._pending: dict[bytes, _Pending] = {}

    def link(self, connection: int) -> Link:
        """The connection's state, made on first sight."""
        link = self._links.get(connection)
        if link is None:
            link = self._links[connection] = Link()
        return link

    def is_here(self, connection: int) -> bool:
        """Whether that connection was seen and has not ended."""
        return connection in self._links

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
        """An Open with this nonce came from the connection, which waits for no earlier one of its own any more."""
        link = self.link(connection)
        self._forget_opening(link, connection)
        link.nonce = nonce
        self._connection_of_nonce[nonce] = connection

    def judged(self, nonce: bytes) -> int | None:
        """Apply has judged an Open. Returns the connection that waits for it, if that is here."""
        return self._connection_of_nonce.pop(nonce, None)

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
        self._forget_opening(link, connection)
        return link

    def add(self, body: bytes, connection: int | None, call: Call | None = None) -> bool:
        """Notes a command until it is applied. False when the same bytes are already on their way: they speak for this
        connection from now on.
        """
        pending = self._pending
        known = pending.get(body)
        if known is not None:
            self._discount(known.connection)
        pending[body] = _Pending(connection, call)
        if connection is not None:
            self.link(connection).pending += 1
        return known is None

    def is_pending(self, body: bytes) -> bool:
        """Whether a command with these bytes is on its way from here."""
        return body in self._pending

    def call(self, body: bytes) -> Call | None:
        """What these bytes say, if they are a call of a client of this replica."""
        pending = self._pending.get(body)
        return None if pending is None else pending.call

    def applied(self, body: bytes) -> int | None:
        """Apply has seen these bytes, wherever they came from. Returns the connection here that sent them, if any."""
        pending = self._pending.pop(body, None)
        if pending is None or pending.connection is None:
            return None
        link = self._links.get(pending.connection)
        if link is None:
            return None
        link.pending -= 1
        return pending.connection

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

    def _forget_opening(self, link: Link, connection: int) -> None:
        if link.nonce is not None and self._connection_of_nonce.get(link.nonce) == connection:
            del self._connection_of_nonce[link.nonce]

    def _unbind(self, session: int, connection: int) -> None:
        if self._connection_of_session.get(session) == connection:
            del self._connection_of_session[session]
