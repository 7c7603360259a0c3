# SPDX-License-Identifier: Apache-2.0
"""The reign that a snapshot holds: consensus must know of it, although its LEADS is in no log any more. And whose
reign a leader serves in.
"""

from __future__ import annotations

from replicas.machine.core import Machine
from replicas.paxos.core import Paxos
from replicas.paxos.messages import Accepted, PreVote, PreVoteGranted, Promise
from replicas.paxos.types import Ballot, Configuration, Durable, Entry, EntryKind, Member, Timing
from replicas.paxos.values import encode_ballot
from replicas.replica.core import Replica

CONFIGURATION = Configuration("test", 1, tuple(Member(i, f"r{i}", bytes([i])) for i in (1, 2, 3)), b"")
REIGN = Ballot(12, 2)
STALE = Entry(6, Ballot(11, 1), EntryKind.COMMAND, b"never chosen, and it follows on what is lost")


def _machine(slot: int) -> Machine:
    machine = Machine(CONFIGURATION)
    machine.applied, machine.ballot_in_force = slot, (REIGN.round, REIGN.replica)
    return machine


def _replica(durable: Durable, machine: Machine) -> Replica:
    paxos = Paxos(replica=1, configuration=CONFIGURATION, durable=durable, timing=Timing(), luck=lambda: 0.5, now_ms=0)
    return Replica(paxos=paxos, machine=machine, namespace_term_ms=5_000, now_ms=0)


def _becomes_leader(core: Replica) -> Entry:
    """What it proposes first."""
    core.tick(260)
    (ballot,) = {message.ballot for _, message in core.take().send_now if isinstance(message, PreVote)}
    core.peer_said(2, PreVoteGranted(ballot, 5))
    core.synced(core.take().batch)
    core.peer_said(2, Promise(ballot, 6, (), 5, (), 0))
    return core.paxos._log.get(6)


def test_a_replica_that_starts_from_a_snapshot_proposes_nothing_older_than_its_reign() -> None:
    """An old suffix on its disk stands behind the reign's beginning, wherever that is kept."""
    durable = Durable(promised=REIGN, entries=(STALE,), snapshot_slot=5, configuration=CONFIGURATION, chosen=5)
    assert _becomes_leader(_replica(durable, _machine(5))).kind == EntryKind.NOOP


def test_a_replica_that_has_fetched_a_snapshot_proposes_nothing_older_than_its_reign() -> None:
    """The same for one that comes while it runs."""
    old = tuple(Entry(slot, Ballot(11, 1), EntryKind.COMMAND, b"old") for slot in range(1, 6))
    core = _replica(Durable(promised=Ballot(11, 1), entries=(*old, STALE)), Machine(CONFIGURATION))
    core.take()
    core.snapshot_installed(5, CONFIGURATION, 0, REIGN, _machine(5))
    core.synced(core.take().batch)
    assert _becomes_leader(core).kind == EntryKind.NOOP


def test_a_leader_that_proposes_the_reign_of_another_of_its_round_again_does_not_serve_in_that() -> None:
    """Both stood at one moment, and the other one came no further than its LEADS."""
    durable, other = Durable(promised=Ballot(11, 1)), Ballot(12, 1)
    paxos = Paxos(replica=3, configuration=CONFIGURATION, durable=durable, timing=Timing(), luck=lambda: 0.5, now_ms=0)
    core = Replica(paxos=paxos, machine=Machine(CONFIGURATION), namespace_term_ms=5_000, now_ms=0)
    core.tick(260)
    core.take()
    ballot = Ballot(12, 3)
    core.peer_said(2, PreVoteGranted(ballot, 0))
    core.synced(core.take().batch)
    core.peer_said(2, Promise(ballot, 1, (Entry(1, other, EntryKind.LEADS, encode_ballot(other)),), 0, (), 0))
    core.synced(core.take().batch)
    core.peer_said(2, Accepted(ballot, 1, 1, 0))
    core.take()
    assert core.paxos.leads
    assert core.machine.ballot_in_force == other
    assert core._tenure is None
    core.peer_said(2, Accepted(ballot, 2, 2, 0))
    core.take()
    assert core.machine.ballot_in_force == ballot
    assert core._tenure is not None
