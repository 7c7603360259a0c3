# SPDX-License-Identifier: Apache-2.0
"""Phase 1: promises, pages, what is proposed again, and who has to catch up first."""

from __future__ import annotations

import pytest

from replicas.paxos import limits, log
from replicas.paxos.messages import Fetch, Prepare, PreVote, PreVoteGranted, Promise, Refuse
from replicas.paxos.types import Ballot, Durable, EntryKind, Promised, Role
from replicas.paxos.values import Entry, encode_ballot
from tests.paxos.bench import Bench, accept, configuration, core, entry, only, settle


def candidate(durable: Durable, ids: tuple[int, ...] = (1, 2, 3)):
    """Replica 1 after a granted pre-vote, with its own promise on disk and its Prepares sent."""
    paxos = core(1, ids, durable)
    paxos.tick(260)
    wanted = only(paxos.take().send_now, PreVote)[0].ballot
    for voter in ids[1:]:
        paxos.step(voter, PreVoteGranted(wanted, durable.chosen))
    prepares = only(settle(paxos), Prepare)
    assert prepares
    return paxos, prepares[0]


def proposed(paxos):
    """What stands in the log above the floor, as (kind, value)."""
    return [(e.kind, e.value) for e in paxos._log.span(paxos.chosen + 1, paxos._log.last)]


def leads(slot: int, ballot: tuple[int, int]) -> Entry:
    """The beginning of a reign, as its own leader proposed it."""
    return Entry(slot, Ballot(*ballot), EntryKind.LEADS, encode_ballot(Ballot(*ballot)))


def test_a_promise_leaves_only_when_it_is_on_disk() -> None:
    """Persistent before any message that depends on it: else a crash forgets a promise that a leader counts on."""
    paxos = core()
    paxos.step(2, Prepare(Ballot(1, 2), 1, False))
    output = paxos.take()
    assert Promised(Ballot(1, 2)) in output.persist
    assert only(output.send_after_sync, Promise)
    assert not only(output.send_now, Promise)


def test_a_prepare_leaves_only_when_the_own_promise_is_on_disk() -> None:
    """Its promise is durable before Prepare leaves: a restarted leader must never use one ballot for two values."""
    paxos = core()
    paxos.tick(260)
    ballot = only(paxos.take().send_now, PreVote)[0].ballot
    paxos.step(2, PreVoteGranted(ballot, 0))
    output = paxos.take()
    assert Promised(ballot) in output.persist
    assert not only(output.send_now, Prepare)
    assert len(only(output.send_after_sync, Prepare)) == 2


def test_the_own_promise_counts_only_from_its_sync_on() -> None:
    """A candidate is an acceptor like the others: its vote before its sync would be an answer that can be forgotten."""
    paxos = core()
    paxos.tick(260)
    ballot = only(paxos.take().send_now, PreVote)[0].ballot
    paxos.step(2, PreVoteGranted(ballot, 0))
    batch = paxos.take().batch
    paxos.step(2, Promise(ballot, 1, (), 0, (), 0))
    assert paxos.role is Role.CANDIDATE
    paxos.synced(batch)
    assert paxos.role is Role.LEADER


def test_a_lower_prepare_is_refused_with_the_promise() -> None:
    """A refused Prepare answers Refuse(promised)."""
    paxos = core(durable=Durable(promised=Ballot(5, 3)))
    paxos.step(2, Prepare(Ballot(4, 2), 1, False))
    assert only(settle(paxos), Refuse) == [Refuse(Ballot(5, 3), 0)]


def test_the_value_with_the_highest_ballot_is_proposed_again() -> None:
    """For each slot the new leader takes the value with the highest accepted ballot, and proposes it under its own."""
    old = Durable(promised=Ballot(3, 1), entries=(entry(1, (2, 2), b"mine"), entry(2, (3, 1), b"newest")))
    paxos, prepare = candidate(old)
    reports = (entry(1, (3, 3), b"newer"), entry(2, (1, 2), b"old"))
    paxos.step(2, Promise(prepare.ballot, 1, reports, 0, (), 0))
    assert [value for _, value in proposed(paxos)][:2] == [b"newer", b"newest"]
    assert {e.ballot for e in paxos._log.span(1, paxos._log.last)} == {prepare.ballot}


def test_a_slot_that_nobody_knows_becomes_a_noop() -> None:
    """Else a no-op: the log is contiguous, and nothing was chosen there."""
    paxos, prepare = candidate(Durable())
    paxos.step(2, Promise(prepare.ballot, 1, (entry(3, (1, 2), b"x"),), 0, (), 0))
    assert proposed(paxos)[:3] == [(EntryKind.NOOP, b""), (EntryKind.NOOP, b""), (EntryKind.COMMAND, b"x")]


def test_nothing_older_is_proposed_again_behind_the_beginning_of_a_reign() -> None:
    """A leader proposes LEADS behind all that may have been chosen before it. What stands behind that under an older
    ballot was never chosen; proposed again, it would be chosen without what its own leader had proposed before it.
    (Zab's "primary order": a call must not be applied when the attachment it follows is not.)
    """
    stale = (entry(1, (11, 1), b"call"), entry(2, (11, 1), b"attach"), entry(3, (11, 1), b"call on that"))
    paxos, prepare = candidate(Durable(promised=Ballot(12, 2), entries=stale))
    reign = leads(2, (12, 2))
    paxos.step(2, Promise(prepare.ballot, 1, (entry(1, (12, 2), b"call"), reign), 0, (), 0))
    assert paxos.role is Role.LEADER
    assert proposed(paxos)[:3] == [(EntryKind.COMMAND, b"call"), (EntryKind.LEADS, reign.value), (EntryKind.NOOP, b"")]


def test_nothing_older_is_proposed_again_behind_a_reign_that_was_chosen() -> None:
    """The same when LEADS is known to be chosen: what it was chosen before is behind the floor."""
    reign = leads(1, (12, 2))
    kept = (reign, entry(2, (11, 1), b"call on what was lost"))
    paxos, prepare = candidate(Durable(promised=Ballot(12, 2), entries=kept, chosen=1))
    paxos.step(2, Promise(prepare.ballot, 2, (), 1, (), 0))
    assert paxos.role is Role.LEADER
    assert proposed(paxos)[0] == (EntryKind.NOOP, b"")


def test_what_a_reign_itself_proposed_is_proposed_again() -> None:
    """Behind LEADS, and under its ballot or a later one, a value may have been chosen."""
    reign = leads(1, (12, 2))
    kept = (reign, entry(2, (12, 2), b"own"), entry(3, (13, 3), b"later"))
    paxos, prepare = candidate(Durable(promised=Ballot(13, 3), entries=kept))
    paxos.step(2, Promise(prepare.ballot, 1, (), 0, (), 0))
    assert [value for _, value in proposed(paxos)][1:3] == [b"own", b"later"]


def test_a_reign_that_was_proposed_again_begins_where_it_began() -> None:
    """A later leader has proposed that LEADS again and gone no further: what stands behind it was chosen under its own
    ballot, perhaps, and that of the later leader says nothing about it.
    """
    again = leads(1, (12, 2))._replace(ballot=Ballot(13, 3))
    paxos, prepare = candidate(Durable(promised=Ballot(13, 3), entries=(again, entry(2, (12, 2), b"own"))))
    paxos.step(2, Promise(prepare.ballot, 1, (), 0, (), 0))
    assert [value for _, value in proposed(paxos)][1] == b"own"


def test_a_promise_counts_when_its_last_page_has_come() -> None:
    """Promises come in pages; a value on the second page may be the chosen one."""
    paxos, prepare = candidate(Durable())
    paxos.step(2, Promise(prepare.ballot, 1, (entry(1, (1, 2), b"a"),), 0, (), 2))
    assert paxos.role is Role.CANDIDATE
    assert only(settle(paxos), Prepare) == [Prepare(prepare.ballot, 2, False)]
    paxos.step(2, Promise(prepare.ballot, 2, (entry(2, (1, 2), b"b"),), 0, (), 0))
    assert paxos.role is Role.LEADER
    assert [value for _, value in proposed(paxos)][:2] == [b"a", b"b"]


def test_a_page_that_came_twice_or_late_does_not_count() -> None:
    """Only the page that was asked for takes a vote on; a doubled first page must not stand for the last."""
    paxos, prepare = candidate(Durable(), (1, 2, 3, 4, 5))
    page = Promise(prepare.ballot, 1, (entry(1, (1, 2), b"a"),), 0, (), 2)
    paxos.step(2, page)
    paxos.step(2, page)
    paxos.step(2, page._replace(from_slot=5, next_slot=0))
    paxos.step(3, page._replace(ballot=Ballot(0, 1), next_slot=0))
    paxos.step(9, page._replace(next_slot=0))
    assert paxos.role is Role.CANDIDATE


def test_an_acceptor_promises_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """No message grows with the log."""
    monkeypatch.setattr(log, "PAGE_ENTRIES", 2)
    old = Durable(promised=Ballot(1, 3), entries=tuple(entry(s, (1, 3), b"%d" % s) for s in range(1, 4)))
    paxos = core(durable=old)
    paxos.step(2, Prepare(Ballot(2, 2), 1, False))
    first = only(settle(paxos), Promise)[0]
    assert [e.slot for e in first.entries] == [1, 2]
    assert first.next_slot == 3
    paxos.step(2, Prepare(Ballot(2, 2), 3, False))
    second = only(settle(paxos), Promise)[0]
    assert [e.slot for e in second.entries] == [3]
    assert second.next_slot == 0


def test_a_page_is_limited_in_bytes_but_never_empty() -> None:
    """A single value above the limit still travels, alone."""
    big = bytes(limits.PAGE_BYTES + 1)
    old = Durable(promised=Ballot(1, 3), entries=tuple(entry(s, (1, 3), big) for s in (1, 2)))
    paxos = core(durable=old)
    paxos.step(2, Prepare(Ballot(2, 2), 1, False))
    promise = only(settle(paxos), Promise)[0]
    assert len(promise.entries) == 1
    assert promise.next_slot == 2


def test_a_promise_tells_only_what_is_above_the_floor() -> None:
    """At or below its floor the acceptor says "chosen": those slots may be gone from its entries."""
    old = Durable(promised=Ballot(1, 3), entries=tuple(entry(s, (1, 3), b"%d" % s) for s in (1, 2, 3)), chosen=2)
    paxos = core(durable=old)
    paxos.step(2, Prepare(Ballot(2, 2), 1, False))
    promise = only(settle(paxos), Promise)[0]
    assert [e.slot for e in promise.entries] == [3]
    assert promise.chosen == 2


def test_a_candidate_that_lags_fetches_before_it_stands() -> None:
    """A candidate that lags fetches chosen entries first, best during pre-vote."""
    paxos = core()
    paxos.tick(260)
    ballot = only(paxos.take().send_now, PreVote)[0].ballot
    paxos.step(2, PreVoteGranted(ballot, 7))
    output = paxos.take()
    assert output.send_now == [(2, Fetch(1))]
    assert not output.persist, "it does not promise before it has caught up"


def test_a_candidate_that_lags_a_promise_does_not_lead() -> None:
    """A voter's floor says that slots are chosen whose values it did not send: a leader would fill them with no-ops."""
    paxos, prepare = candidate(Durable())
    paxos.step(2, Promise(prepare.ballot, 1, (), 3, (), 0))
    assert paxos.role is Role.CANDIDATE
    assert only(settle(paxos), Fetch) == [Fetch(1)]


def test_the_floor_of_a_promise_is_that_of_its_last_page() -> None:
    """It may rise from page to page, and what lies between the two stands in no page: a leader would fill that with
    no-ops.
    """
    paxos, prepare = candidate(Durable())
    paxos.step(2, Promise(prepare.ballot, 1, (entry(1, (1, 2), b"a"),), 0, (), 2))
    settle(paxos)
    paxos.step(2, Promise(prepare.ballot, 2, (entry(4, (1, 2), b"d"),), 3, (), 0))
    assert paxos.role is Role.CANDIDATE
    assert only(settle(paxos), Fetch) == [Fetch(1)]


def test_votes_of_a_candidacy_are_asked_for_again() -> None:
    """A lost Prepare or PreVote must not cost an election timeout."""
    bench = Bench(3)
    bench[1]._election.deadline_ms = 0
    bench.tick(1, 1)
    bench.pump(lambda source, target, message: not isinstance(message, PreVoteGranted))
    assert bench[1].role is Role.CANDIDATE
    bench.tick(120, 1)
    bench.pump(lambda source, target, message: not isinstance(message, Promise))
    assert bench[1]._candidacy is not None
    assert bench[1]._candidacy.preparing
    bench.tick(120, 1)
    bench.pump()
    assert bench[1].ready


def test_what_a_quorum_accepted_survives_its_leader() -> None:
    """The whole point: a chosen value is found by every later quorum."""
    bench = Bench(5)
    bench.elect(1)
    bench.propose(1, b"kept")
    bench.cut = {(1, 4), (1, 5)}
    bench.pump()
    assert bench.nodes[1].values == [b"kept"]
    bench.down = {1, 2}
    bench.now_ms += 600
    bench.elect(5)
    assert bench.nodes[5].values == [b"kept"]


def test_a_member_of_no_configuration_does_not_count() -> None:
    """The proposer checks who is a voter: a learner's promise is no promise."""
    paxos, prepare = candidate(Durable())
    paxos.step(9, Promise(prepare.ballot, 1, (), 0, (), 0))
    assert paxos.role is Role.CANDIDATE


def test_a_replica_votes_though_it_does_not_know_that_it_is_a_voter() -> None:
    """A replica votes whether or not it knows that it is a voter: it may have missed the entry that made it one."""
    paxos = core(9, (1, 2, 3))
    assert paxos.role is Role.LEARNER
    paxos.step(1, Prepare(Ballot(4, 1), 1, False))
    assert only(settle(paxos), Promise)
    paxos.step(1, accept((4, 1), 1, b"x"))
    assert settle(paxos)
    assert paxos.promised == Ballot(4, 1)


def test_phase_1_starts_anew_when_catching_up_crosses_a_configuration() -> None:
    """If that crosses a configuration entry, phase 1 starts anew in the new epoch: other members vote there."""
    from replicas.paxos.messages import Chosen
    from replicas.paxos.values import encode_configuration

    paxos, prepare = candidate(Durable())
    paxos.step(2, Promise(prepare.ballot, 1, (), 1, (), 0))
    value = encode_configuration(configuration((1, 4, 5), epoch=2))
    paxos.step(2, Chosen(1, bytes([EntryKind.CONFIGURATION]), (value,), 1, Ballot(0, 2)))
    settle(paxos)
    assert paxos.configuration.ids == (1, 4, 5)
    assert paxos.role is not Role.LEADER, "the promise of 2 is worth nothing in the new epoch"


def test_a_promise_that_is_said_again_waits_for_the_disk_like_the_first() -> None:
    """The second time it has nothing of its own to write, and what it says is on its way to the disk all the same."""
    paxos = core()
    paxos.step(2, Prepare(Ballot(5, 2), 1, transfer=False))
    batch = paxos.take().batch
    assert batch
    for durable in (False, True):
        if durable:
            paxos.synced(batch)
        paxos.step(2, Prepare(Ballot(5, 2), 1, transfer=False))
        output = paxos.take()
        assert not output.persist
        assert bool(only(output.send_now, Promise)) == durable
        assert bool(only(output.send_after_sync, Promise)) != durable


def test_whoever_has_answered_in_part_is_asked_for_the_rest() -> None:
    """A lost question for the second page is asked again as that: the first one would be a page that was there."""
    paxos, prepare = candidate(Durable())
    paxos.step(2, Promise(prepare.ballot, 1, (entry(1, (1, 2), b"a"),), 0, (), 2))
    settle(paxos)
    paxos.tick(360)
    again = {target: message for target, message in settle(paxos) if isinstance(message, Prepare)}
    assert again == {2: Prepare(prepare.ballot, 2, False), 3: Prepare(prepare.ballot, 1, False)}
    paxos.step(2, Promise(prepare.ballot, 2, (), 0, (), 0))
    assert paxos.role is Role.LEADER


def test_a_doubt_about_what_the_candidate_knows_to_be_chosen_does_not_matter() -> None:
    """Nobody is asked about it; and where it is not remembered for good, nobody else could ever lead."""
    paxos, prepare = candidate(Durable(promised=Ballot(1, 2), entries=(entry(1, (1, 2), b"a"),), chosen=1))
    paxos.step(3, Promise(prepare.ballot, 2, (), 0, (1,), 0))
    assert paxos.role is Role.LEADER
