# SPDX-License-Identifier: Apache-2.0
"""Whether the tables of one replica agree with each other: clients and their connections, sessions and their leases,
and whom it takes itself and the others to be.

As in `tests/sim/soundness.py`, they are looked at between any two turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dthreading.wire.messages import Ended
from replicas.paxos.types import Role

if TYPE_CHECKING:
    from replicas.replica.core import Replica
    from replicas.replica.leading import Tenure

__all__ = ["Tables"]


class Tables:
    """What one life of a replica has noted of its clients and, while it leads, of all sessions."""

    def __init__(self, core: Replica) -> None:
        self._core = core
        self._bound: dict[int, int] = {}
        """Session -> connection, as it was one turn ago."""
        self._doomed: dict[int, int] = {}
        """Session -> its epoch when an Expire was proposed for it."""
        self._met: set[int] = set()
        """Whom it was told of while it learns."""
        self._links: frozenset[int] | None = None

    def are_sound(
        self, to_clients: list[tuple[int, Any]], connections: Mapping[int, object], links: dict[int, str] | None = None
    ) -> None:
        """Between two turns, of which the latter says that to clients, leaves these connections, and may wish for other
        links.
        """
        core, hosting = self._core, self._core._hosting
        sessions = core.machine.sessions
        assert hosting._links.keys() <= connections.keys(), f"{hosting._links.keys() - connections.keys()} are gone"
        for nonce, connection in hosting._connection_of_nonce.items():
            assert connection in hosting._links, f"{nonce!r} is opened for connection {connection}, which is gone"
        for session, connection in hosting._connection_of_session.items():
            link = hosting._links.get(connection)
            assert link is not None, f"session {session} is at connection {connection}, which is gone"
            assert link.session == session, f"connection {connection} is that of {link.session}, not of {session}"
            assert session in sessions, f"session {session} has ended, and is connected"
        for connection, link in hosting._links.items():
            if link.session is not None and link.session in sessions:
                assert link.session in hosting._connection_of_session, f"nobody speaks to session {link.session}"
        self._the_ended_are_told(to_clients)
        if links is not None:
            self._links = frozenset(links)
        self._knows_who_is_who()
        self._bound = dict(hosting._connection_of_session)
        if core._tenure is None or not core.paxos.leads:  # (it has just handed over, and notices in its next turn)
            self._doomed.clear()
        else:
            self._tenure_is_sound(core._tenure)

    def _the_ended_are_told(self, to_clients: list[tuple[int, Any]]) -> None:
        core = self._core
        to_clients = to_clients + core._output.to_clients  # (what a snapshot brings that was installed just now)
        for session, connection in self._bound.items():
            if session not in core.machine.sessions and connection in core._hosting._links:
                told = any(type(said) is Ended and said.session == session for _, said in to_clients)
                assert told, f"session {session} has ended, and its client at {connection} is not told"

    def _knows_who_is_who(self) -> None:
        core, paxos, roster = self._core, self._core.paxos, self._core.machine.roster
        learns = paxos.role is Role.LEARNER
        if core._epoch == paxos.configuration.epoch:  # (else it notices in its next turn)
            assert core._learns == learns, f"to its clients it is a {'member' if learns else 'newcomer'}"
        self._met = self._met | core.acquaintance._met.keys() if learns else set()
        if not core._members.due and not core._postponed:
            own = paxos.replica
            others = self._met | roster.members.keys() | roster.newcomers.keys()
            forgotten = {replica for replica in others if not roster.has_left(replica)} - {own, *paxos.guides}
            assert not (forgotten and learns), f"it never asks {forgotten}, of whom it knows"
            others = roster.members.keys() | roster.newcomers.keys() | core.acquaintance._met.keys()
            unlinked = others - {own} - (others if self._links is None else self._links)
            assert not unlinked, f"it has no link with {unlinked}, of whom it knows"

    def _tenure_is_sound(self, tenure: Tenure) -> None:
        core, machine = self._core, self._core.machine
        assert core.paxos.ready, "it serves, and its LEADS is not chosen"
        assert tenure._machine is machine, "it serves from another state"
        assert tenure._ballot == core.paxos.ballot == machine.ballot_in_force, "it serves under another ballot"
        leases = tenure._sessions
        assert leases._heaped.keys() == leases._deadlines.keys()
        for session, known in machine.sessions.items():
            deadline = leases._deadlines.get(session)
            assert deadline is not None or session in tenure._doomed, f"session {session} lives for ever"
            if deadline is not None:
                left_ms = deadline + leases._slept_ms - core._now_ms
                assert left_ms <= known.ttl_ms, f"session {session} has {left_ms} ms of a lease of {known.ttl_ms}"
                assert leases._heaped[session] <= deadline, f"session {session} is looked at too late"
        for session in [session for session in self._doomed if session not in tenure._doomed]:
            del self._doomed[session]
        for session in tenure._doomed:
            epoch = machine.sessions[session].epoch
            assert self._doomed.setdefault(session, epoch) == epoch, f"session {session} came back, and is doomed"
