# SPDX-License-Identifier: Apache-2.0
"""What a leader owes the clients of the whole group: their leases, and answers that only a true leader may give.

A leader serves from the moment that its own LEADS entry is applied here. Whoever was heard of under an earlier leader
is unknown to it, so it gives everyone a full term. Nothing here is replicated: what a lease's end means is decided by
apply, from the `Expire` entry that this file proposes.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from dthreading.wire.messages import Call
from replicas.machine import commands
from replicas.machine.core import Effects, Machine
from replicas.paxos.types import Ballot
from replicas.replica.leases import LATE_MS, Leases

__all__ = ["ENDED_AT_ONCE", "Reading", "Tenure", "Vouching"]

ENDED_AT_ONCE: Final = 200
"""The most leases that one look ends. When a new leader has given everybody a full term, or a site has lost its power,
a hundred thousand may run out in one moment: proposed together, they kept everybody else waiting for seconds.
"""


class Vouching(NamedTuple):
    """A keepalive that is acknowledged once a heartbeat round that began after it has confirmed the leader."""

    source: int | None
    """The follower that the client is connected to; None: this replica."""
    session: int
    beat: int
    heard_ms: int


class Reading(NamedTuple):
    """A read that needs no entry. It is answered after such a round, from a state that has reached `slot`."""

    connection: int
    call: Call
    body: bytes
    slot: int
    """The last slot proposed before it came: a thread sees what it did itself, an undo that it left behind included."""


class Tenure:
    """One leader's time of serving under one ballot.

    Args:
        machine: the state in which this replica's LEADS was just applied; a leader never exchanges it.
        ballot: the one in force.
        namespace_term_ms: how long after its last session a namespace's automatic objects are put back.
        now_ms: from here everyone has a full term.

    """

    def __init__(self, machine: Machine, ballot: Ballot, namespace_term_ms: int, now_ms: int) -> None:
        assert machine.ballot_in_force == ballot
        self._machine = machine
        self._ballot = ballot
        self._namespace_term_ms = namespace_term_ms
        self._sessions: Leases[int] = Leases()
        self._namespaces: Leases[str] = Leases()
        # Sessions that an Expire was proposed for. From then on nothing of them is acknowledged: a client whose
        # keepalive came after it must not believe in a lease that the log is about to end.
        self._doomed: set[int] = set()
        self._waiting: list[Reading] = []
        for session in machine.sessions:
            self._renew(session, now_ms)
        for namespace in machine.idle_namespaces:
            self._namespaces.renew(namespace, now_ms, namespace_term_ms)

    # --- leases

    def applied(self, effects: Effects, now_ms: int) -> None:
        """An entry was applied: sessions may have come, come back, or ended."""
        for session, _ in effects.opened:
            self._came_back(session, now_ms)
        for session in effects.resumed:
            self._came_back(session, now_ms)
        for session in effects.ended:
            self._doomed.discard(session)
            self._sessions.drop(session)
        for namespace in effects.idle:
            self._namespaces.renew(namespace, now_ms, self._namespace_term_ms)

    def vouches_for(self, session: int) -> bool:
        """Whether a keepalive of this session may still be acknowledged."""
        return session in self._machine.sessions and session not in self._doomed

    def heard(self, vouching: Vouching) -> bool:
        """A confirmed keepalive: the lease runs from when it was heard. False: it is not to be acknowledged."""
        if not self.vouches_for(vouching.session):
            return False
        self._renew(vouching.session, vouching.heard_ms)
        return True

    def expired(self, now_ms: int, late_ms: int) -> list[bytes]:
        """What is to be proposed since leases have run out; `late_ms` is by how much this look comes too late.

        A leader that was paused was not listening: the pause is added to every deadline, and nobody is expired before
        the sockets are drained, for the keepalive that is waited for may lie in them.
        """
        if late_ms > LATE_MS:
            self._sessions.slept(late_ms)
            self._namespaces.slept(late_ms)
            return []
        proposals: list[bytes] = []
        for session in self._sessions.due(now_ms, ENDED_AT_ONCE):
            known = self._machine.sessions.get(session)
            if known is not None:
                self._doomed.add(session)
                proposals.append(commands.expire(session, known.epoch, self._ballot))
        for namespace in self._namespaces.due(now_ms, ENDED_AT_ONCE):
            epoch = self._machine.idle_namespaces.get(namespace)
            if epoch is not None:
                proposals.append(commands.reset(namespace, epoch, self._ballot))
        return proposals

    def _came_back(self, session: int, now_ms: int) -> None:
        # Its epoch was raised, so an Expire that is on its way will be ignored.
        self._doomed.discard(session)
        self._renew(session, now_ms)

    def _renew(self, session: int, heard_ms: int) -> None:
        known = self._machine.sessions.get(session)
        if known is not None:
            self._sessions.renew(session, heard_ms, known.ttl_ms)

    # --- reads

    def confirmed(self, reading: Reading) -> None:
        """Leadership was still ours after the read had come."""
        self._waiting.append(reading)

    def answerable(self) -> list[Reading]:
        """Confirmed reads whose slot is applied, each once."""
        if not self._waiting:
            return []
        applied = self._machine.applied
        ready = [reading for reading in self._waiting if reading.slot <= applied]
        self._waiting = [reading for reading in self._waiting if reading.slot > applied]
        return ready

    def abandoned(self) -> list[Reading]:
        """The tenure is over: the confirmed reads that were not answered."""
        waiting, self._waiting = self._waiting, []
        return waiting
