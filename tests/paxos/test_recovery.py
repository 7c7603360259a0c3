# SPDX-License-Identifier: Apache-2.0
"""What a replica starts from and goes on from: snapshots, truncation, and slots that its disk may have lost."""

from __future__ import annotations

import pytest

from replicas.paxos.messages import Accept, Accepted, Chosen, Fetch, Prepare, Promise
from replicas.paxos.types import NO_BALLOT, Ballot, Durable, Entry, EntryKind, Role
from tests.paxos.bench import COMMAND, Bench, accept, configuration, core, entry, only, settle
from tests.paxos.test_phase1 import candidate


def test_installing_keeps_the_promise_and_every_entry_above() -> None:
    """What was accepted above the snapshot's slot may be chosen by this very acceptor's vote."""
    entries = tuple(entry(slot, (3, 2), b"%d" % slot) for slot in range(1, 6))
    paxos = core(durable=Durable(promised=Ballot(3, 2), entries=entries))
    paxos.installed(3, configuration((1, 2, 3), epoch=4), 77, Ballot(2, 3))
    assert paxos.promised == Ballot(3, 2)
    assert paxos.chosen == 3
    assert paxos.chain == 77
    assert paxos.configuration.epoch == 4
    assert [e.slot for e in paxos._log.span(4, 5)] == [4, 5]
    paxos.step(3, Prepare(Ballot(9, 3), 1, False))
    promise = only(settle(paxos), Promise)[0]
    assert [e.slot for e in promise.entries] == [4, 5]
    assert promise.chosen == 3


def test_installing_far_above_leaves_an_empty_log() -> None:
    """The log begins anew after the snapshot, without a gap."""
    paxos = core(durable=Durable(entries=(entry(1, (1, 2), b"a"),)))
    paxos.installed(9, configuration((1, 2, 3)), 5, Ballot(1, 2))
    assert (paxos.first_kept, paxos.chosen) == (10, 9)
    paxos.step(2, accept((1, 2), 10, b"j", base=10, commit=9, chain=5))
    assert only(settle(paxos), Accepted)[-1].upto == 10


def test_installing_promises_what_the_snapshot_was_chosen_under() -> None:
    """Its slots count as accepted from now on, which a leader with a ballot below their choosing must not hear.

    The same hole as with fetched entries: leader 1 of (1, 1) wrote another value to slot 3, alone.
    """
    paxos = core(3, durable=Durable(promised=Ballot(1, 1)))
    paxos.installed(3, configuration((1, 2, 3)), 7, Ballot(2, 2))
    assert paxos.promised == Ballot(2, 2)
    paxos.step(1, accept((1, 1), 3, b"w", base=3, beat=1))
    assert not only(settle(paxos), Accepted)


def test_an_older_snapshot_changes_nothing() -> None:
    """It came late; the log is ahead of it."""
    bench = Bench(3)
    paxos = bench.elect(1)
    bench.propose(1, b"a")
    bench.pump()
    chosen = paxos.chosen
    paxos.installed(1, configuration((1, 2, 3)), 5, Ballot(9, 9))
    assert paxos.chosen == chosen
    assert paxos.ready


def test_what_is_handed_out_follows_the_snapshot() -> None:
    """The machine is at the snapshot's slot: entries that it holds are not handed out again, whenever they were
    chosen.
    """
    paxos = core()
    paxos.step(2, accept((1, 2), 1, b"a", b"b", b"c"))
    settle(paxos)
    chain = 0
    from replicas.paxos.log import link

    for slot, value in enumerate((b"a", b"b", b"c"), 1):
        chain = link(chain, entry(slot, (1, 2), value))
    paxos.step(2, accept((1, 2), 4, commit=3, chain=chain))
    paxos.installed(2, configuration((1, 2, 3)), 0, Ballot(1, 2))
    assert [e.slot for e in paxos.take().chosen] == [3]


def test_a_leader_that_is_behind_a_snapshot_leads_no_more() -> None:
    """A candidate asked for it, was elected meanwhile, and more was chosen than it has counted so far."""
    bench = Bench(3)
    paxos = bench.elect(1)
    paxos.installed(100, configuration((1, 2, 3)), 5, Ballot(1, 2))
    assert paxos.role is Role.FOLLOWER
    assert paxos.chosen == 100


def test_a_candidate_begins_anew_after_a_snapshot() -> None:
    """Another configuration may be in force there."""
    paxos, _ = candidate(Durable())
    paxos.installed(5, configuration((1, 2, 3), epoch=2), 5, Ballot(0, 2))
    assert paxos.role is Role.FOLLOWER


def test_compacting_checks_the_chain_and_keeps_the_rest() -> None:
    """A snapshot made from other entries than this log must not replace them."""
    entries = tuple(entry(slot, (3, 2), b"%d" % slot) for slot in range(1, 6))
    paxos = core(durable=Durable(promised=Ballot(3, 2), entries=entries, chosen=4))
    with pytest.raises(AssertionError):
        paxos.compact(3, paxos.chain_at(2))
    with pytest.raises(AssertionError):
        paxos.compact(5, 0)
    third = paxos.chain_at(3)
    paxos.compact(3, third)
    paxos.compact(2, 12345)  # forgotten already
    assert paxos.first_kept == 4
    assert paxos.chain_at(3) == third
    assert paxos.chosen == 4


def test_a_doubtful_slot_does_not_count_towards_a_quorum() -> None:
    """For slots that its disk may have lost, its Promise says "unknown" and does not count for them.

    Slot 1 was chosen by 2 and 3; 3 has lost it. With 1 and 3 alone nobody knows, so nobody may propose there.
    """
    paxos, prepare = candidate(Durable())
    paxos.step(3, Promise(prepare.ballot, 1, (), 0, (1,), 0))
    assert paxos.role is Role.CANDIDATE
    paxos.step(2, Promise(prepare.ballot, 1, (entry(1, (1, 2), b"chosen"),), 0, (), 0))
    assert paxos.role is Role.LEADER
    assert paxos._log.get(1).value == b"chosen"


def test_an_acceptor_names_its_doubtful_slots() -> None:
    """And never hands them out, though it once knew them to be chosen."""
    kept = (entry(1, (1, 2), b"a"), Entry(2, NO_BALLOT, int(EntryKind.NOOP), b""))
    paxos = core(durable=Durable(promised=Ballot(1, 2), entries=kept, chosen=2, doubtful=frozenset({2, 3})))
    assert [e.slot for e in paxos.take().chosen] == [1]
    paxos.step(3, Prepare(Ballot(4, 3), 1, False))
    assert only(settle(paxos), Promise)[0].unknown == (2, 3)


def test_a_candidate_does_not_count_itself_for_its_doubtful_slots() -> None:
    """It is an acceptor like the others."""
    lost = Durable(promised=Ballot(1, 2), entries=(entry(1, (1, 2), b"older"),), doubtful=frozenset({1}))
    paxos, prepare = candidate(lost)
    paxos.step(2, Promise(prepare.ballot, 1, (), 0, (), 0))
    assert paxos.role is Role.CANDIDATE
    paxos.step(3, Promise(prepare.ballot, 1, (), 0, (), 0))
    assert paxos.role is Role.LEADER


def test_a_doubtful_slot_counts_again_once_accepted_or_learned_anew() -> None:
    """Until it has accepted or learned them anew."""
    lost = Durable(promised=Ballot(1, 2), doubtful=frozenset({1, 2, 3}))
    paxos = core(durable=lost)
    paxos.step(2, accept((1, 2), 1, b"a"))
    settle(paxos)
    paxos.step(3, Chosen(1, bytes([COMMAND] * 2), (b"a", b"b"), 2, Ballot(1, 2)))
    settle(paxos)
    paxos.step(2, Prepare(Ballot(4, 2), 1, False))
    assert only(settle(paxos), Promise)[0].unknown == (3,)


def test_a_doubtful_slot_is_not_taken_for_accepted_after_a_restart() -> None:
    """What stands there is an older record; whether it was the last one is just what is in doubt."""
    stale = (entry(1, (2, 2), b"a"), entry(2, (2, 2), b"b"))
    paxos = core(durable=Durable(promised=Ballot(2, 2), entries=stale, doubtful=frozenset({2})))
    paxos.step(2, accept((2, 2), 3, beat=1))
    assert only(settle(paxos), Accepted)[-1].upto == 1


def test_a_former_leader_acknowledges_its_floor_only_when_it_is_on_disk() -> None:
    """A leader's floor may be ahead of its disk. As a follower it may count those slots only once they are written."""
    bench = Bench(3)
    bench.elect(1)
    bench.nodes[1].holds_disk = True
    bench.propose(1, b"a", b"b")
    bench.pump()
    assert bench.nodes[1].values == [b"a", b"b"]
    floor = bench[1].chosen
    bench[1].step(2, Prepare(Ballot(9, 2), 1, True))
    bench[1].step(2, Accept(Ballot(9, 2), floor + 1, floor + 1, b"", (), 0, 0, 1))
    bench.flight.clear()
    bench.take(1)
    assert not [m for m in only(bench.flight, Accepted) if m.ballot == Ballot(9, 2) and m.upto >= floor]
    bench.sync(1)
    bench.take(1)
    assert max(m.upto for m in only(bench.flight, Accepted) if m.ballot == Ballot(9, 2)) == floor


def test_a_learned_page_that_does_not_fit_is_not_taken() -> None:
    """It was asked for by an earlier life, or is known already, or leaves a gap."""
    paxos = core()
    page = Chosen(3, bytes([COMMAND]), (b"c",), 3, Ballot(1, 2))
    paxos.step(2, page)
    assert paxos._log.last == 0
    paxos.step(2, Chosen(1, bytes([COMMAND] * 2), (b"a", b"b"), 5, Ballot(1, 2)))
    paxos.step(2, Chosen(1, bytes([COMMAND] * 2), (b"a", b"b"), 5, Ballot(1, 2)))
    paxos.step(2, Chosen(2, bytes([COMMAND] * 2), (b"b", b"c"), 5, Ballot(1, 2)))
    assert paxos._log.last == 3
    assert settle(paxos) == []
    assert paxos.chosen == 3


def test_a_page_from_above_the_own_candidacy_ends_it() -> None:
    """Learning raised the promise: this candidate's own ballot is below it now, and another attempt asks anew."""
    paxos, prepare = candidate(Durable())
    assert prepare.ballot == Ballot(1, 1)
    paxos.step(2, Promise(prepare.ballot, 1, (), 1, (), 0))
    paxos.step(2, Chosen(1, bytes([COMMAND]), (b"a",), 1, Ballot(5, 2)))
    settle(paxos)
    assert paxos.role is Role.FOLLOWER
    assert paxos.chosen == 1


def test_a_fetch_that_is_done_is_not_asked_again() -> None:
    """What was fetched may have come another way in between."""
    bench = Bench(3)
    bench.elect(1)
    bench.run(200)
    bench[2]._catch_up.want(3, 1, bench.now_ms)
    bench.tick(300)
    assert not only(settle(bench[2]), Fetch)
    assert bench[2]._catch_up.source is None


def test_a_follower_in_doubt_is_sent_again_what_it_had_acknowledged() -> None:
    """An acknowledgement was true when it was given; a disk in doubt takes it back, and the leader has to fill the
    slot.
    """
    bench = Bench(3)
    bench.elect(1)
    bench.propose(1, b"a", b"b")
    bench.pump()
    node = bench.nodes[2]
    kept = node.disk.recover()
    lost = Durable(promised=kept.promised, entries=kept.entries[:2], doubtful=frozenset({3}))
    node.chosen.clear()
    node.paxos = node._boot(lost, bench.now_ms)
    bench.run(400)
    assert node.values == [b"a", b"b"]


def test_a_long_way_is_fetched_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page asks for the next one at once, until the goal is reached."""
    from replicas.paxos import log

    monkeypatch.setattr(log, "PAGE_ENTRIES", 4)
    bench = Bench(3)
    bench.elect(1)
    bench.isolate(3)
    bench.propose(1, *[b"%d" % number for number in range(30)])
    bench.run(600)
    bench.down = {2}
    bench.isolate(1)
    bench.down, bench.cut = {1}, set()
    bench.run(3000)
    assert bench.leader() in {2, 3}
    assert bench.nodes[3].values == bench.nodes[2].values == [b"%d" % number for number in range(30)]
