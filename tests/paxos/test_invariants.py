# SPDX-License-Identifier: Apache-2.0
"""What is asserted in production: each of these stops a replica rather than let it go on wrongly."""

from __future__ import annotations

import pytest

from replicas.paxos.acceptor import Acceptor
from replicas.paxos.candidate import Candidacy
from replicas.paxos.log import Log, link
from replicas.paxos.messages import MESSAGES, Accept, Prepare, Promise
from replicas.paxos.types import Ballot, Durable, Entry
from tests.paxos.bench import COMMAND, accept, configuration, core, entry, settle


def test_a_promise_never_decreases() -> None:
    """Asserted in production: promised never decreases."""
    acceptor = Acceptor(Durable(promised=Ballot(3, 1)))
    with pytest.raises(AssertionError):
        acceptor.promise(Ballot(2, 9))
    with pytest.raises(AssertionError):
        acceptor.promise(Ballot(3, 1))


def test_one_value_per_slot_and_ballot_in_the_log() -> None:
    """Asserted in production: one value per (slot, ballot)."""
    log = Log(0, 0, [entry(1, (1, 2), b"a")])
    log.put(entry(1, (1, 2), b"a"))
    with pytest.raises(AssertionError, match="two values"):
        log.put(entry(1, (1, 2), b"b"))
    with pytest.raises(AssertionError, match="two kinds"):
        log.put(entry(1, (1, 2), b"a")._replace(kind=0))


def test_one_value_per_slot_and_ballot_among_promises() -> None:
    """Two acceptors that report different values under one ballot: somebody's disk or code is broken."""
    candidacy = Candidacy(
        replica=1, ballot=Ballot(5, 1), configuration=configuration((1, 2, 3)), from_slot=1, preparing=True
    )
    candidacy.promised(2, Promise(Ballot(5, 1), 1, (entry(1, (1, 2), b"a"),), 0, (), 0))
    with pytest.raises(AssertionError, match="two values"):
        candidacy.promised(3, Promise(Ballot(5, 1), 1, (entry(1, (1, 2), b"b"),), 0, (), 0))


def test_one_value_per_slot_and_ballot_from_one_leader() -> None:
    """A leader that sends a slot twice sends the same value."""
    paxos = core()
    paxos.step(2, accept((1, 2), 1, b"a", b"b"))
    paxos.step(2, accept((1, 2), 1, b"a", b"b", b"c"))
    with pytest.raises(AssertionError, match="two values"):
        paxos.step(2, accept((1, 2), 1, b"a", b"X", b"c"))


def test_a_chosen_value_never_changes() -> None:
    """Asserted in production: a chosen value never changes, under whatever ballot."""
    log = Log(0, 0, [entry(1, (1, 2), b"a"), entry(2, (1, 2), b"b")])
    log.choose(1)
    log.put(entry(1, (2, 3), b"a"))
    log.put(entry(2, (2, 3), b"x"))
    with pytest.raises(AssertionError, match="two values"):
        log.put(entry(1, (3, 3), b"x"))


def test_the_log_is_contiguous() -> None:
    """Asserted in production: the log is contiguous, and nothing is written below a snapshot."""
    log = Log(5, 0, [])
    with pytest.raises(AssertionError, match="gap"):
        log.put(entry(7, (1, 2), b"a"))
    with pytest.raises(AssertionError, match="snapshot"):
        log.put(entry(5, (1, 2), b"a"))
    with pytest.raises(AssertionError):
        log.get(6)


def test_nothing_is_chosen_that_is_not_there() -> None:
    """The floor rises, over entries that are in the log."""
    log = Log(0, 0, [entry(1, (1, 2), b"a")])
    with pytest.raises(AssertionError):
        log.choose(2)
    log.choose(1)
    with pytest.raises(AssertionError):
        log.choose(0)


def test_the_hash_chain_tells_different_logs_apart_and_ballots_not() -> None:
    """Running hash chain: over slots, kinds and values. Replicas may hold one chosen value under different ballots."""
    base = entry(1, (1, 2), b"a")
    assert link(0, base) == link(0, base._replace(ballot=Ballot(7, 7)))
    others = (base._replace(value=b"b"), base._replace(kind=0), base._replace(slot=2))
    assert len({link(0, other) for other in (base, *others)}) == 4
    follow = entry(2, (1, 2), b"same")
    assert link(link(0, base), follow) != link(link(0, others[0]), follow), "a difference never heals"


def test_a_heartbeat_with_another_chain_stops_the_follower() -> None:
    """Compared in heartbeats: somebody's log is not the group's, and going on would spread it."""
    paxos = core()
    paxos.step(2, accept((1, 2), 1, b"a"))
    settle(paxos)
    good = link(0, entry(1, (1, 2), b"a"))
    paxos.step(2, accept((1, 2), 2, commit=1, chain=good, beat=1))
    settle(paxos)
    with pytest.raises(AssertionError, match="another value"):
        paxos.step(2, accept((1, 2), 2, commit=1, chain=good + 1, beat=2))


def test_a_chain_ahead_of_the_floor_is_compared_when_it_is_reached() -> None:
    """The follower's disk may be behind when the leader tells."""
    paxos = core()
    paxos.step(2, accept((1, 2), 1, b"a"))
    output = paxos.take()
    paxos.step(2, accept((1, 2), 2, commit=1, chain=1, beat=1))
    with pytest.raises(AssertionError, match="another value"):
        paxos.synced(output.batch)


def test_no_batch_is_synced_that_was_not_handed_out() -> None:
    """No ack before its sync: so no sync that nobody asked for."""
    with pytest.raises(AssertionError):
        Acceptor(Durable()).synced(1)


def test_an_unknown_message_is_our_own_mistake() -> None:
    """At the border it would have been refused."""
    with pytest.raises(AssertionError):
        core().step(2, Entry(1, Ballot(1, 1), COMMAND, b""))


def test_every_message_has_one_tag() -> None:
    """Tags 1 to 19 are consensus'."""
    assert len(set(MESSAGES.values())) == len(MESSAGES)
    assert all(0 < tag < 20 for tag in MESSAGES)
    assert MESSAGES[5] is Accept


def test_a_prepare_by_proxy_is_not_heard() -> None:
    """A ballot belongs to one replica, and nobody else stands for it."""
    paxos = core()
    paxos.step(3, Prepare(Ballot(4, 2), 1, False))
    assert not settle(paxos)
    assert paxos.promised == Ballot(0, 0)


def test_forgetting_twice_is_forgetting_once() -> None:
    """A snapshot's slot may be below what was forgotten already."""
    log = Log(0, 0, [entry(1, (1, 2), b"a"), entry(2, (1, 2), b"b")])
    log.choose(2)
    log.forget(2)
    log.forget(1)
    assert (log.first, log.last, log.chosen) == (3, 2, 2)
