# SPDX-License-Identifier: Apache-2.0
"""The judges of tables, rounds, streams and leases find what they are there for, and nothing where all is well."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dthreading.wire import messages as wire
from dthreading.wire.codec import encode
from replicas.paxos.messages import Accept, Accepted
from replicas.paxos.types import Ballot
from replicas.replica.core import Replica
from replicas.replica.messages import Forward, Vouched
from tests.replica.harness import Group
from tests.sim.checkers.leases import LeaseSeen
from tests.sim.checkers.rounds import Rounds
from tests.sim.checkers.tables import Tables
from tests.sim.soundness import consensus_is_sound, snapshot_is_sound


def leader_with_clients() -> tuple[Group, Replica, int]:
    """A leader, at which two clients are connected, of whom the first has a session of that id."""
    group = Group()
    leader = group.leader()
    session = group.open(leader, 5)
    group.open(leader, 6)
    group.pass_ms(100)
    return group, group.replicas[leader], session


def _is_sound(core: Replica) -> None:
    disk = {entry.slot: entry for entry in core.paxos._log.span(core.paxos.first_kept, core.paxos._log.last)}
    consensus_is_sound(core.paxos, disk, core.paxos.promised)
    Tables(core).are_sound([], {5: None, 6: None})


def _is_barred(core: Replica) -> None:
    assert core.paxos.propose(b"x") is not None
    assert core.paxos._leadership is not None
    core.paxos._leadership.barrier = core.paxos._leadership.last


def _does_not_lead(core: Replica) -> None:
    core.paxos._stand_back()


LIES: dict[str, Callable[[Replica, int], object]] = {
    "leads in another configuration": lambda core, _: setattr(
        core.paxos._leadership, "configuration", core.paxos.configuration._replace(epoch=7)
    ),
    "has proposed beyond": lambda core, _: setattr(core.paxos._leadership, "barrier", core.paxos.chosen - 1),
    "which changes no members": lambda core, _: _is_barred(core),
    "was never there in this reign": lambda core, _: core.paxos._confirmations._rounds.append((10**6, ["read"])),
    "somebody waits for its word": lambda core, _: _does_not_lead(core) or core.paxos._confirmations.ask("read"),
    "a round of its reign is under way": lambda core, _: (
        _does_not_lead(core) or core.paxos._confirmations._rounds.append((1, ["read"]))
    ),
    "knows a LEADS above its promise": lambda core, _: core.paxos.reigned(Ballot(99, 1)),
    "which is gone": lambda core, session: core._hosting._links.pop(core._hosting.connection(session) or 0),
    "nobody speaks to session": lambda core, session: core._hosting._connection_of_session.pop(session),
    "has ended, and is connected": lambda core, session: core.machine.sessions.pop(session),
    "lives for ever": lambda core, session: core._tenure._sessions.drop(session),  # type: ignore[union-attr]
    "of a lease of": lambda core, _: core._tenure._sessions.slept(60_000),  # type: ignore[union-attr]
    "is opened for connection": lambda core, _: core._hosting._connection_of_nonce.update({b"n": 77}),
    "to its clients it is a newcomer": lambda core, _: setattr(core, "_learns", True),
    "it serves under another ballot": lambda core, _: setattr(core.machine, "ballot_in_force", (0, 0)),
}


@pytest.mark.parametrize("said", LIES)
def test_tables_that_do_not_agree_are_found(said: str) -> None:
    """Each is told by its own sentence, and none where nothing was touched."""
    _, core, session = leader_with_clients()
    _is_sound(core)
    LIES[said](core, session)
    with pytest.raises(AssertionError, match=said):
        _is_sound(core)


def test_what_a_replica_counts_itself_for_is_on_its_disk() -> None:
    """And so is its promise."""
    group, core, _ = leader_with_clients()
    group.isolate(core.paxos.replica)
    assert core.paxos.propose(b"x") is not None
    core.synced(core.take().batch)
    with pytest.raises(AssertionError, match="and its disk has None"):
        consensus_is_sound(core.paxos, {}, core.paxos.promised)
    with pytest.raises(AssertionError, match="a promise that is not on its disk"):
        consensus_is_sound(core.paxos, {}, Ballot(0, 0))


def test_a_snapshot_promises_what_its_slots_were_chosen_under() -> None:
    """Else whoever starts from it would hear a leader that knows nothing of them."""
    _, core, _ = leader_with_clients()
    paxos = core.paxos
    snapshot_is_sound(paxos, paxos.chosen, paxos.promised)
    with pytest.raises(AssertionError, match="below"):
        snapshot_is_sound(paxos, paxos.chosen, Ballot(0, 1))


def test_a_client_that_is_not_told_of_its_sessions_end_is_found() -> None:
    """Its session was here a turn ago."""
    _, core, session = leader_with_clients()
    tables = Tables(core)
    tables.are_sound([], {5: None, 6: None})
    core.machine.sessions.drop(core.machine.sessions[session])
    core._hosting.ended(session)
    with pytest.raises(AssertionError, match="is not told"):
        tables.are_sound([], {5: None, 6: None})
    tables.are_sound([(5, wire.Ended(session))], {5: None, 6: None})


def test_a_learner_that_has_forgotten_whom_it_was_told_of_is_found() -> None:
    """It asks nobody who is left then, or has no link with them."""
    group = Group(1)
    group.leader()
    core = group.replicas[group.join("r2")]
    group.take(2)
    tables = Tables(core)
    tables.are_sound([], {}, core.acquaintance.links(core.machine))
    core.acquaintance.met(3, "r3", core.machine)
    core.acquaintance._seen = core.machine.roster.changes
    with pytest.raises(AssertionError, match=r"it never asks \{3\}"):
        tables.are_sound([], {})
    core.paxos.guides += (3,)
    with pytest.raises(AssertionError, match=r"it has no link with \{3\}"):
        tables.are_sound([], {})
    tables.are_sound([], {}, core.acquaintance.links(core.machine))


# --- rounds and streams


class Quiet:
    """A leader of three under (2, 1), that takes whatever comes."""

    def __init__(self) -> None:
        configuration = SimpleNamespace(ids=(1, 2, 3), quorum=2)
        self.paxos = SimpleNamespace(replica=1, ballot=Ballot(2, 1), leads=True, configuration=configuration)
        self._streams = SimpleNamespace(takes=lambda source, forward: True)
        self._hosting = SimpleNamespace(_links={5: SimpleNamespace(session=9)})

    def client_said(self, connection: int, message: Any, body: bytes) -> None:
        """Nothing comes of it."""

    def peer_said(self, source: int, message: Any) -> None:
        """Nothing comes of it."""


def _quiet() -> tuple[Any, Rounds]:
    core: Any = Quiet()
    return core, Rounds(core, lambda name: name == (9, 1, 1), {3})


def _beats(core: Any, rounds: Rounds, beat: int, *members: int) -> None:
    rounds.sent(Accept(core.paxos.ballot, 1, 1, b"", (), 0, 0, beat))
    for member in members:
        core.peer_said(member, Accepted(core.paxos.ballot, 0, 0, beat))


def test_an_alive_and_a_read_need_a_round_that_began_after_them() -> None:
    """One that is under way may have passed its voters by already."""
    core, rounds = _quiet()
    alive, read = wire.Alive(9, 4), wire.Reply(2, 7, wire.Status.OK, True)
    rounds.sent(Accept(core.paxos.ballot, 1, 1, b"", (), 0, 0, 1))
    core.client_said(5, wire.Keepalive(9, 4), b"")
    core.client_said(5, wire.Call(9, 2, 7, 1, "locked", (), False), b"")
    core.peer_said(2, Accepted(core.paxos.ballot, 0, 0, 1))
    for words in ([(5, alive)], [(5, read)]):
        with pytest.raises(AssertionError, match=r"1 of .* have confirmed it"):
            rounds.says(words, [])
    with pytest.raises(AssertionError, match="was not asked"):
        rounds.says([], [(2, Vouched(9, 5))])
    _beats(core, rounds, 2, 2)
    rounds.says([(5, alive), (5, read)], [(2, Vouched(9, 4))])
    core.paxos.ballot = Ballot(3, 1)
    with pytest.raises(AssertionError, match="was not asked"):
        rounds.says([(5, alive)], [])


def test_a_call_that_the_log_has_answered_needs_no_round() -> None:
    core, rounds = _quiet()
    core.client_said(5, wire.Call(9, 1, 1, 1, "release", (), False), b"")
    rounds.says([(5, wire.Reply(1, 1, wire.Status.OK, None))], [])


def test_streams_have_no_gap_and_belong_to_one_reign_and_one_life() -> None:
    core, rounds = _quiet()
    takes = core._streams.takes
    assert takes(2, Forward(7, 0, ()))
    assert takes(2, Forward(7, 1, ()))
    with pytest.raises(AssertionError, match="and has taken"):
        takes(2, Forward(7, 3, ()))
    core.paxos.ballot = Ballot(3, 1)
    with pytest.raises(AssertionError, match="and has taken None"):
        takes(2, Forward(7, 2, ()))
    with pytest.raises(AssertionError, match="of a former life"):
        rounds.sent(Forward(3, 0, ()))


# --- leases


def test_a_lease_counts_from_the_keepalive_that_was_acknowledged() -> None:
    seen = LeaseSeen()
    seen.says(1, encode(wire.Open(b"n", 2000, "", "")), 10.0)
    seen.says(2, encode(wire.Open(b"n", 2000, "", "")), 10.9)
    session: Any = SimpleNamespace(id=9, _lease=SimpleNamespace(_deadline=11.9, ttl_s=2.0))
    seen.heard(wire.Opened(b"n", 9, 2000), session)
    session._lease._deadline = 12.8
    with pytest.raises(AssertionError, match=r"it counts from 10\.0"):
        seen.heard(wire.Opened(b"n", 9, 2000), session)
    seen.says(2, encode(wire.Keepalive(9, 1)), 11.0)
    seen.says(2, encode(wire.Keepalive(9, 2)), 11.5)
    seen.heard(wire.Alive(9, 1), session)
    session._lease._deadline = 13.4
    with pytest.raises(AssertionError, match=r"it counts from 11\.0"):
        seen.heard(wire.Alive(9, 1), session)


def test_no_call_stands_behind_the_detach_of_its_object() -> None:
    """But on another connection, where the Detach is said again as well."""
    seen = LeaseSeen()
    call = encode(wire.Call(9, 0, 1, 4, "set", (), False))
    seen.says(1, call, 0.0)
    seen.says(1, encode(wire.Detach(9, 4)), 0.0)
    with pytest.raises(AssertionError, match="behind its Detach"):
        seen.says(1, call, 0.0)
    seen.says(2, call, 0.0)
