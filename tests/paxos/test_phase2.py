# SPDX-License-Identifier: Apache-2.0
"""Phase 2 on both sides: what an acknowledgement covers, who is counted, and what is fetched as chosen."""

from __future__ import annotations

import pytest

from replicas.paxos import leader as leader_module
from replicas.paxos import log
from replicas.paxos.messages import Accept, Accepted, Chosen, Fetch, PreVote, PreVoteGranted, Promise, Refuse, Truncated
from replicas.paxos.types import Accepted as AcceptedRecord
from replicas.paxos.types import Ballot, ChosenTo, Durable, Role
from replicas.paxos.values import EntryKind
from tests.paxos.bench import COMMAND, Bench, accept, core, entry, only, settle


def test_an_acknowledgement_leaves_only_when_the_entries_are_on_disk() -> None:
    """No ack before its sync."""
    paxos = core()
    paxos.step(2, accept((1, 2), 1, b"a"))
    output = paxos.take()
    assert AcceptedRecord(entry(1, (1, 2), b"a")) in output.persist
    assert only(output.send_after_sync, Accepted) == [Accepted(Ballot(1, 2), 1, 1, 0)]
    assert not only(output.send_now, Accepted)


def test_a_heartbeat_is_answered_without_a_disk_and_claims_nothing_for_it() -> None:
    """Heartbeats and their answers never wait for a disk: else one slow sync costs the leadership."""
    paxos = core()
    paxos.step(2, accept((1, 2), 1, beat=1))
    settle(paxos)
    paxos.step(2, accept((1, 2), 1, b"a", beat=2))
    output = paxos.take()
    assert only(output.send_now, Accepted) == [Accepted(Ballot(1, 2), 0, 1, 2)]
    assert only(output.send_after_sync, Accepted) == [Accepted(Ballot(1, 2), 1, 1, 0)]


def test_a_heartbeat_at_a_new_ballot_waits_for_the_promise() -> None:
    """Following a ballot is promising it, and what others may count on is on disk first."""
    paxos = core()
    paxos.step(2, accept((1, 2), 1, beat=1))
    output = paxos.take()
    assert not only(output.send_now, Accepted)
    assert only(output.send_after_sync, Accepted)


def test_a_lower_accept_is_refused() -> None:
    """A refused Accept answers Refuse(promised)."""
    paxos = core(durable=Durable(promised=Ballot(5, 3)))
    paxos.step(2, accept((4, 2), 1, b"a"))
    assert only(settle(paxos), Refuse) == [Refuse(Ballot(5, 3), 0)]
    assert paxos._log.last == 0


def test_an_accept_by_proxy_is_not_heard() -> None:
    """A ballot belongs to one replica, and nobody else speaks for it."""
    paxos = core()
    paxos.step(3, accept((1, 2), 1, b"a"))
    assert not settle(paxos)


def test_an_old_suffix_is_neither_acknowledged_nor_chosen_below_base() -> None:
    """While its floor is below base - 1 it fetches: an old suffix may hold values that were never chosen.

    Slots 1 to 3 hold what a deposed leader proposed to us alone. The new leader's base is 4 and its commit 3: raising
    our floor to min(commit, last) would hand out three values that were never chosen, and acknowledging count them.
    """
    junk = Durable(promised=Ballot(1, 3), entries=tuple(entry(s, (1, 3), b"junk") for s in (1, 2, 3)))
    paxos = core(durable=junk)
    chain = 0
    for slot, value in enumerate((b"a", b"b", b"c"), 1):
        chain = log.link(chain, entry(slot, (2, 2), value))
    paxos.step(2, accept((2, 2), 4, b"d", base=4, commit=3, chain=chain, beat=1))
    output = paxos.take()
    assert only(output.send_now, Fetch) == [Fetch(1)]
    paxos.synced(output.batch)
    later = paxos.take()
    assert not output.chosen + later.chosen
    answers = only(output.send_now + output.send_after_sync + later.send_now + later.send_after_sync, Accepted)
    assert answers
    assert all(answer.upto < 3 for answer in answers)

    kinds = bytes([COMMAND] * 3)
    paxos.step(2, Chosen(1, kinds, (b"a", b"b", b"c"), 3, Ballot(2, 2)))
    output = paxos.take()
    paxos.synced(output.batch)
    output = paxos.take()
    assert [e.value for e in output.chosen] == [b"a", b"b", b"c"]
    assert only(output.send_now, Accepted)[-1].upto == 3, "now it takes part"


def test_the_floor_rises_only_to_what_was_received_at_this_ballot() -> None:
    """A follower raises its floor to min(commit, its upto): slot 2 is still another leader's here."""
    junk = Durable(promised=Ballot(1, 3), entries=tuple(entry(s, (1, 3), b"junk") for s in (1, 2)))
    paxos = core(durable=junk)
    paxos.step(2, accept((2, 2), 1, b"a", commit=2))
    settle_chosen = []
    for _ in range(3):
        output = paxos.take()
        settle_chosen += output.chosen
        paxos.synced(output.batch or 1)
    assert [e.value for e in settle_chosen] == [b"a"]


def test_entries_after_a_gap_are_not_taken() -> None:
    """`upto` grows only by entries received at this ballot without a gap."""
    paxos = core()
    paxos.step(2, accept((1, 2), 1, b"a"))
    paxos.step(2, accept((1, 2), 3, b"c", beat=1))
    assert paxos._log.last == 1
    answers = only(settle(paxos), Accepted)
    assert max(answer.upto for answer in answers) == 1


def test_nothing_is_truncated_by_an_old_or_short_accept() -> None:
    """Never truncate: what this acceptor accepted may be chosen, whatever a delayed message says."""
    paxos = core()
    paxos.step(2, accept((1, 2), 1, b"a", b"b", b"c"))
    settle(paxos)
    paxos.step(2, accept((1, 2), 1, b"a"))
    assert paxos._log.last == 3
    paxos.step(3, accept((2, 3), 1, b"x"))
    settle(paxos)
    assert [e.value for e in paxos._log.span(1, 3)] == [b"x", b"b", b"c"]


def test_chosen_slots_count_as_accepted_at_later_ballots() -> None:
    """Slots at or below its own floor count as accepted at every later ballot: they are not sent again."""
    known = Durable(promised=Ballot(1, 3), entries=tuple(entry(s, (1, 3), b"%d" % s) for s in (1, 2, 3)), chosen=3)
    paxos = core(durable=known)
    paxos.step(2, accept((2, 2), 2, base=2, beat=1))
    assert max(answer.upto for answer in only(settle(paxos), Accepted)) == 3


def test_chosen_slots_do_not_count_at_a_ballot_below_their_choosing() -> None:
    """... at every *later* ballot. A deposed leader must not count them for the other value that it proposes there.

    Leader 1 wrote `w` to slot 1 under (1, 1), alone. Others chose `v` there under (2, 2), and replica 3 learns that by
    a page, having promised only (1, 1). If slot 1 then counted as accepted for leader 1, the two would choose `w`.
    """
    paxos = core(3, durable=Durable(promised=Ballot(1, 1)))
    paxos.step(2, Chosen(1, bytes([COMMAND]), (b"v",), 1, Ballot(2, 2)))
    settle(paxos)
    assert paxos.promised == Ballot(2, 2)
    paxos.step(1, accept((1, 1), 1, b"w", beat=1))
    sent = settle(paxos)
    assert not only(sent, Accepted)
    assert only(sent, Refuse)


def test_learning_never_lowers_what_was_accepted() -> None:
    """A fetched entry is recorded as if accepted at our promise, never under the older ballot that its sender had.

    Replica 3 accepted `v` under (4, 2) and is one of the quorum that chose it. If a page overwrote that with a lower
    ballot and the floor were lost in a crash, a later candidate could prefer an unchosen value of a ballot in between.
    """
    paxos = core(3, durable=Durable(promised=Ballot(4, 2), entries=(entry(1, (4, 2), b"v"),)))
    paxos.step(2, Chosen(1, bytes([COMMAND]), (b"v",), 1, Ballot(4, 2)))
    assert paxos._log.get(1).ballot >= Ballot(4, 2)


def test_distinct_acceptors_are_counted_not_acknowledgements() -> None:
    """A slot is chosen when a quorum of distinct replicas says so; one that says it five times is one."""
    bench = Bench(5)
    paxos = bench.elect(1)
    bench.propose(1, b"a")
    bench.take(1)
    bench.sync(1)
    slot = paxos._log.last
    for _ in range(5):
        paxos.step(2, Accepted(paxos.ballot, slot, slot, 0))
    assert paxos.chosen < slot
    paxos.step(3, Accepted(paxos.ballot, slot, slot, 0))
    assert paxos.chosen == slot


def test_an_acknowledgement_of_a_stranger_or_of_another_ballot_does_not_count() -> None:
    """Of that slot's configuration, at this ballot."""
    bench = Bench(3)
    paxos = bench.elect(1)
    bench.propose(1, b"a")
    bench.take(1)
    bench.sync(1)
    slot = paxos._log.last
    paxos.step(9, Accepted(paxos.ballot, slot, slot, 0))
    paxos.step(2, Accepted(Ballot(0, 1), slot, slot, 0))
    assert paxos.chosen < slot


def test_a_leader_need_not_wait_for_its_own_disk() -> None:
    """The leader need not gate a commit on its own disk, if a quorum of others has it."""
    bench = Bench(3)
    bench.elect(1)
    bench.nodes[1].holds_disk = True
    bench.propose(1, b"a")
    bench.pump()
    assert bench.nodes[1].values == [b"a"]
    assert bench.nodes[1].waiting


def test_a_leader_does_not_count_itself_before_its_own_sync() -> None:
    """It does not count itself before its own sync: with one follower that would be one copy, called two."""
    bench = Bench(3)
    bench.elect(1)
    bench.down = {3}
    bench.nodes[1].holds_disk = True
    bench.propose(1, b"a")
    bench.pump()
    assert bench.nodes[1].values == []
    bench.nodes[1].holds_disk = False
    bench.pump()
    assert bench.nodes[1].values == [b"a"]


def test_a_leader_that_lost_its_unsynced_writes_proposes_only_above_its_promise() -> None:
    """After a restart it proposes only above its durable promise, and learns what was chosen without its disk."""
    bench = Bench(3)
    paxos = bench.elect(1)
    ballot = paxos.ballot
    bench.nodes[1].holds_disk = True
    bench.propose(1, b"a")
    bench.pump()
    bench.nodes[1].holds_disk = False
    bench.nodes[1].restart(bench.now_ms)
    assert bench[1].promised == ballot
    bench.now_ms += 1000
    bench.elect(1)
    assert bench[1].ballot > ballot
    assert bench.nodes[1].values == [b"a"]


def test_what_the_network_lost_is_sent_again() -> None:
    """The answer to a heartbeat shows what the follower received; the leader goes on from there."""
    bench = Bench(3)
    bench.elect(1)
    bench.cut = {(1, 2), (1, 3)}
    bench.propose(1, b"a")
    bench.pump()
    bench.heal()
    bench.propose(1, b"b")
    bench.pump()
    assert bench.nodes[1].values == []
    bench.run(240)
    assert all(node.values == [b"a", b"b"] for node in bench.nodes.values())


def test_a_restarted_follower_goes_on_where_its_disk_is() -> None:
    """What it accepted at this ballot before the crash still counts; it is not asked for twice."""
    bench = Bench(3)
    bench.elect(1)
    bench.propose(1, b"a", b"b")
    bench.pump()
    bench.nodes[2].restart(bench.now_ms)
    bench.flight.clear()
    bench.tick(120)
    bench.pump(lambda source, target, message: not (isinstance(message, Accept) and target == 2 and message.values))
    assert bench[2].chosen == bench[1].chosen
    bench.propose(1, b"c")
    bench.run(240)
    assert bench.nodes[2].values == [b"a", b"b", b"c"]


def test_a_follower_that_waits_is_told_at_once() -> None:
    """inform(): a client of that follower waits for what was proposed, and the next heartbeat may be far off."""
    bench = Bench(3)
    bench.elect(1)
    bench.propose(1, b"a")
    bench[1].inform(2)
    bench[1].inform(9)
    bench.pump()
    assert bench.nodes[2].values == [b"a"]
    assert bench.nodes[3].values == []
    bench[2].inform(3)  # no leader: nothing to tell


def test_a_follower_is_not_thought_to_have_what_went_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them lack the same, and one is sent nothing of it, for it has answered too little already."""
    monkeypatch.setattr(leader_module, "PAGES_IN_FLIGHT", 2)
    bench = Bench(5)
    leader = bench.elect(1)
    bench.cut = {(2, 1)}  # its acknowledgements do not come through
    for value in (b"a", b"b"):
        bench.propose(1, value)
        bench.pump()
    bench.propose(1, b"c")
    leader.confirm("so that each of them is told something")
    for target, message in leader.take().send_now:
        if isinstance(message, Accept):
            assert message.values == ((b"c",) if target != 2 else ()), f"to {target}"
            assert leader._leadership is not None
            assert leader._leadership.followers[target].sent == message.first + len(message.values) - 1


def test_equal_followers_get_the_very_same_message() -> None:
    """So the shell encodes it once."""
    bench = Bench(3)
    bench.elect(1)
    bench.propose(1, b"a", b"b")
    accepts = only(bench[1].take().send_now, Accept)
    assert len(accepts) == 2
    assert accepts[0] is accepts[1]
    assert accepts[0].values == (b"a", b"b")


def test_the_window_is_limited_in_entries_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipelining under a limit; one value larger than the whole window still passes, alone."""
    monkeypatch.setattr(leader_module, "WINDOW_ENTRIES", 3)
    monkeypatch.setattr(leader_module, "WINDOW_BYTES", 1000)
    bench = Bench(3)
    bench.elect(1)
    assert None not in bench.propose(1, b"a", b"b", b"c")
    assert bench.propose(1, b"d") == [None]
    bench.pump()
    assert None not in bench.propose(1, bytes(5000))
    assert bench.propose(1, b"e") == [None]
    bench.pump()
    assert None not in bench.propose(1, bytes(900))
    assert bench.propose(1, bytes(200)) == [None]


def test_an_unsynced_backlog_counts_against_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader whose disk lags would otherwise run ahead of it without bound."""
    monkeypatch.setattr(leader_module, "WINDOW_ENTRIES", 3)
    bench = Bench(3)
    bench.elect(1)
    bench.nodes[1].holds_disk = True
    bench.propose(1, b"a", b"b", b"c")
    bench.pump()
    assert bench.nodes[1].values == [b"a", b"b", b"c"]
    assert bench.propose(1, b"d") == [None]
    bench.nodes[1].holds_disk = False
    bench.pump()
    assert bench.propose(1, b"d") != [None]


def test_a_follower_that_does_not_answer_gets_a_bounded_number_of_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a leader has under way to one follower is bounded; the rest goes in larger pages once it answers."""
    monkeypatch.setattr(leader_module, "PAGES_IN_FLIGHT", 2)
    bench = Bench(3)
    bench.elect(1)
    bench.nodes[3].holds_disk = True
    for number in range(6):
        bench.propose(1, b"%d" % number)
        bench.pump()
    assert bench[3]._log.last == bench[1]._log.last - 4
    bench.nodes[3].holds_disk = False
    bench.pump()
    assert bench[3]._log.last == bench[1]._log.last


def test_a_long_backlog_is_sent_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """No message grows with a follower's lag."""
    monkeypatch.setattr(log, "PAGE_ENTRIES", 2)
    monkeypatch.setattr(leader_module, "PAGE_ENTRIES", 2)
    bench = Bench(3)
    bench.elect(1)
    bench.down = {3}
    bench.propose(1, *[b"%d" % number for number in range(7)])
    bench.pump()
    bench.down = set()
    sizes = []
    bench.tick(120)
    bench.pump(lambda s, t, m: sizes.append(len(m.values)) is None if isinstance(m, Accept) else True)
    bench.run(400)
    assert max(sizes) <= 2
    assert bench.nodes[3].values == bench.nodes[1].values


def test_a_follower_far_behind_is_sent_to_the_snapshot() -> None:
    """Catch-up by entries, or by a snapshot when the entries were truncated."""
    bench = Bench(3)
    bench.elect(1)
    bench.down = {3}
    bench.propose(1, *[b"%d" % number for number in range(7)])
    bench.pump()
    chosen, chain = bench[1].chosen, bench[1].chain
    bench[1].compact(chosen, chain)
    bench.down = set()
    bench.run(300)
    assert bench.nodes[3].fetch_snapshot_from == 1
    bench[3].installed(chosen, bench[1].configuration, chain, bench[1].promised)
    bench.propose(1, b"after")
    bench.run(300)
    assert bench.nodes[3].values == [b"after"]
    assert bench[3].chain == bench[1].chain


def test_no_snapshot_is_asked_for_when_the_entries_have_come_meanwhile() -> None:
    """A late word of somebody who has dropped them: to fetch it all for nothing could take minutes."""
    paxos = core()
    paxos.step(2, Chosen(1, bytes([COMMAND] * 3), (b"a", b"b", b"c"), 3, Ballot(1, 2)))
    for first_kept in (1, 4):
        paxos.step(3, Truncated(first_kept))
        assert paxos.take().fetch_snapshot_from is None
    paxos.step(3, Truncated(5))
    assert paxos.take().fetch_snapshot_from == 3


def test_a_page_that_is_late_is_asked_for_at_its_own_pace() -> None:
    """Time passes in milliseconds, and each question is answered with a page."""
    paxos = core()
    paxos.step(2, accept((1, 2), 9, base=9, commit=8, chain=1))
    assert only(settle(paxos), Fetch) == [Fetch(1)]
    asked = 0
    for now_ms in range(1, 450):
        paxos.tick(now_ms)
        asked += len(only(settle(paxos), Fetch))
    assert asked == 2, "each fifth of a second"


def test_the_snapshot_is_asked_for_again_until_it_is_there() -> None:
    """A shell that failed to fetch it just waits for the next word."""
    bench = Bench(3)
    bench.elect(1)
    bench.down = {3}
    bench.propose(1, b"a")
    bench.pump()
    bench[1].compact(bench[1].chosen, bench[1].chain)
    bench.down = set()
    for _ in range(2):
        bench.nodes[3].fetch_snapshot_from = None
        bench.run(500)
        assert bench.nodes[3].fetch_snapshot_from == 1


def test_a_fetch_is_asked_again_when_it_got_lost() -> None:
    """A lost page must not stop the catching up."""
    bench = Bench(3)
    bench.elect(1)
    bench.down = {3}
    bench.propose(1, b"a")
    bench.pump()
    bench.run(200)
    bench.down = {1}
    bench.now_ms += 600
    bench[2]._election.deadline_ms = bench.now_ms
    bench.tick(1)
    bench.pump(lambda source, target, message: not isinstance(message, Chosen))
    assert bench.nodes[3].values == []
    bench.run(400)
    assert bench.nodes[3].values == [b"a"]


def test_a_fetch_is_answered_with_what_is_kept() -> None:
    """Pages of chosen entries; a word when they are gone; nothing when there is nothing new."""
    paxos = core(durable=Durable(entries=tuple(entry(s, (1, 2), b"%d" % s) for s in (1, 2, 3)), chosen=2))
    paxos.step(3, Fetch(1))
    assert settle(paxos) == [(3, Chosen(1, bytes([COMMAND] * 2), (b"1", b"2"), 2, Ballot(0, 0)))]
    paxos.step(3, Fetch(3))
    assert settle(paxos) == []
    paxos.compact(1, paxos.chain_at(1))
    paxos.step(3, Fetch(1))
    assert settle(paxos) == [(3, Truncated(2))]
    paxos.step(3, Fetch(2))
    kept = Chosen(2, bytes([COMMAND]), (b"2",), 2, Ballot(0, 0))
    assert settle(paxos) == [(3, kept)], "whoever has the snapshot needs this one next, and would wait for ever"


def test_the_chosen_floor_is_written_along_with_other_records() -> None:
    """A restarted replica knows its floor again, and no sync was spent on it."""
    bench = Bench(3)
    bench.elect(1)
    for value in (b"a", b"b"):
        bench.propose(1, value)
        bench.pump()
    bench.nodes[1].restart(bench.now_ms)
    output = bench[1].take()
    assert output.chosen
    assert not output.persist
    assert ChosenTo(0) not in output.persist


def test_a_new_leader_answers_nothing_before_its_leads_is_chosen() -> None:
    """Until then it confirms no read and no keepalive: something may have been chosen that it has not applied yet."""
    bench = Bench(3)
    bench[1]._election.deadline_ms = 0
    bench.tick(1, 1)
    bench.pump(lambda source, target, message: not isinstance(message, Accepted))
    assert bench[1].role is Role.LEADER
    assert not bench[1].ready
    assert bench[1].propose(b"x") is None
    assert not bench[1].confirm("read")
    bench.run(200)
    assert bench[1].ready
    assert bench[1].confirm("read")
    leads = [e for e in bench.nodes[2].chosen if e.kind == EntryKind.LEADS]
    assert len(leads) == 1
    assert bench[2].ballot_in_force == bench[1].ballot


@pytest.mark.parametrize("older", [Ballot(3, 3), Ballot(5, 1)])
def test_the_ballot_in_force_never_falls(older: Ballot) -> None:
    """An older LEADS that is proposed again behind a newer one takes nothing back: its Expires would rule again."""
    from replicas.paxos.values import encode_ballot

    leads = int(EntryKind.LEADS)
    paxos = core()
    values = (encode_ballot(Ballot(5, 2)), encode_ballot(older))
    paxos.step(2, Accept(Ballot(6, 2), 1, 1, bytes([leads, leads]), values, 2, 0, 0))
    paxos._check = (0, 0)
    settle(paxos)
    assert paxos.chosen == 2
    assert paxos.ballot_in_force == Ballot(5, 2)


def test_a_late_answer_to_an_earlier_role_is_not_heard() -> None:
    """Votes and pages for what this replica no longer is change nothing."""
    bench = Bench(3)
    paxos = bench.elect(1)
    before = paxos.chosen
    paxos.step(2, PreVoteGranted(Ballot(1, 1), 0))
    paxos.step(2, Promise(paxos.ballot, 1, (), 0, (), 0))
    paxos.step(2, Chosen(1, bytes([COMMAND]), (b"x",), 1, Ballot(9, 9)))
    paxos.step(2, Truncated(100))
    bench[2].step(3, Accepted(paxos.ballot, 1, 1, 0))
    output = paxos.take()
    assert paxos.ready
    assert paxos.chosen == before
    assert output.fetch_snapshot_from is None


def test_a_pre_vote_is_only_a_question() -> None:
    """It changes no state: nothing to persist, nothing promised."""
    paxos = core()
    paxos.step(2, PreVote(Ballot(7, 2)))
    output = paxos.take()
    assert only(output.send_now, PreVoteGranted) == [PreVoteGranted(Ballot(7, 2), 0)]
    assert not output.persist
    assert paxos.promised == Ballot(0, 0)


def test_a_late_word_of_catching_up_does_not_stop_a_follower_that_is_there() -> None:
    """The network may reorder: what it has acknowledged at this ballot stands."""
    bench = Bench(3)
    paxos = bench.elect(1)
    bench.propose(1, b"a")
    bench.pump()
    leadership = paxos._leadership
    leadership.base += 1  # as if its first slot were the second one
    paxos.step(2, Accepted(paxos.ballot, 0, 0, 0))
    assert not leadership.followers[2].catching_up
    assert leadership.followers[2].acked == paxos.chosen


def test_two_heartbeats_in_one_turn_are_one() -> None:
    """A round for reads and the heartbeat that is due anyway go out together."""
    bench = Bench(3)
    paxos = bench.elect(1)
    paxos._leadership.beat()
    beat = paxos._leadership.beat()
    assert {accept.heartbeat for accept in only(paxos.take().send_now, Accept)} == {beat}


@pytest.mark.parametrize("late_ms", [40, 140, 260, 380])
def test_what_got_lost_is_found_however_long_answers_take(late_ms: int) -> None:
    """Also when several heartbeats have left before the first of them is answered."""
    bench = Bench(3)
    bench.elect(1)
    bench.cut = {(1, 2), (1, 3)}
    bench.propose(1, b"a")
    bench.pump()
    bench.heal()
    late: list[tuple[int, int, Accepted]] = []

    def arrives(source: int, target: int, message: object) -> bool:
        if isinstance(message, Accepted):
            late.append((bench.now_ms + late_ms, source, message))
        return not isinstance(message, Accepted)

    for _ in range(100):
        bench.tick(20)
        bench.pump(arrives)
        while late and late[0][0] <= bench.now_ms:
            _, source, message = late.pop(0)
            bench[1].step(source, message)
    assert all(node.values == [b"a"] for node in bench.nodes.values())
