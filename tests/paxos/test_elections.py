# SPDX-License-Identifier: Apache-2.0
"""Who may disturb whom: pre-vote, live leaders, step-down, refusals, transfers, pauses, and rounds that confirm
reads.
"""

from __future__ import annotations

import pytest

from replicas.paxos.election import Election
from replicas.paxos.messages import (
    Accept,
    Accepted,
    Chosen,
    Fetch,
    Prepare,
    PreVote,
    PreVoteGranted,
    Promise,
    Refuse,
    TakeOver,
)
from replicas.paxos.types import Ballot, Durable, Role
from tests.paxos.bench import TIMING, Bench, accept, core, entry, only, settle


def test_a_group_elects_one_leader_by_itself() -> None:
    """Of any legal size, the even ones too."""
    for size in (1, 2, 3, 4, 5, 7):
        bench = Bench(size)
        for replica, node in bench.nodes.items():
            node.paxos._election.deadline_ms += 30 * replica
        bench.run(1500)
        leader = bench.leader()
        assert all(node.paxos.leader == leader for node in bench.nodes.values())


def test_a_follower_with_a_live_leader_refuses_the_prepare_of_another() -> None:
    """Else a replica that cannot hear the leader deposes it again and again."""
    paxos = core()
    paxos.step(2, accept((1, 2), 1, beat=1))
    settle(paxos)
    paxos.step(3, Prepare(Ballot(9, 3), 1, False))
    paxos.step(3, PreVote(Ballot(9, 3)))
    sent = settle(paxos)
    assert only(sent, Refuse) == [Refuse(Ballot(1, 2), 0)] * 2
    assert paxos.promised == Ballot(1, 2)


def test_a_leader_itself_counts_as_a_live_leader() -> None:
    """The leader refuses as its followers do, as long as it hears a quorum."""
    bench = Bench(3)
    paxos = bench.elect(1)
    paxos.step(3, Prepare(Ballot(9, 3), 1, False))
    assert only(settle(paxos), Refuse)
    assert paxos.ready


def test_the_live_leaders_own_higher_prepare_is_heard() -> None:
    """It renews its ballot above one that it heard of; it needs its followers for that, and stays their leader."""
    paxos = core()
    paxos.step(2, accept((1, 2), 1, beat=1))
    settle(paxos)
    paxos.step(2, Prepare(Ballot(9, 2), 1, False))
    assert only(settle(paxos), Promise)
    assert paxos.promised == Ballot(9, 2)
    assert paxos.leader == 2


def test_a_transfer_overrides_the_live_leader() -> None:
    """The leader itself asked for it."""
    paxos = core()
    paxos.step(2, accept((1, 2), 1, beat=1))
    settle(paxos)
    paxos.step(3, Prepare(Ballot(9, 3), 1, True))
    assert only(settle(paxos), Promise)


def test_a_leader_that_was_not_heard_for_an_election_timeout_is_not_live() -> None:
    """Then others may lead, and the replica sends its clients on."""
    paxos = core()
    paxos.step(2, accept((1, 2), 1, beat=1))
    settle(paxos)
    assert paxos.leader == 2
    paxos.tick(499)
    assert paxos.leader == 2
    paxos.tick(501)
    assert paxos.leader is None
    paxos.step(3, PreVote(Ballot(9, 3)))
    assert only(settle(paxos), PreVoteGranted)


def test_a_replica_that_cannot_hear_the_leader_disturbs_nobody() -> None:
    """Pre-vote and step-down together: the deaf replica stands for ever and changes no ballot; the leader stays."""
    bench = Bench(3)
    paxos = bench.elect(1)
    ballot = paxos.ballot
    bench.cut = {(1, 3)}
    bench.run(5000)
    assert bench[3].role is Role.CANDIDATE
    assert bench.leader() == 1
    assert paxos.ballot == ballot
    assert bench[3].promised == ballot


def test_a_leader_without_a_quorum_steps_down() -> None:
    """A leader that hears no quorum for an election timeout steps down: it could serve nobody, and its clients wait."""
    bench = Bench(3)
    paxos = bench.elect(1)
    paxos.confirm("read")
    bench.isolate(1)
    bench.run(400)
    assert paxos.role is Role.LEADER
    bench.run(400)
    assert paxos.role is not Role.LEADER
    assert bench.nodes[1].failed == ["read"]
    bench.run(2000)
    assert bench.leader() in {2, 3}


def test_a_leader_that_is_heard_but_hears_nobody_steps_down_so_that_others_can_lead() -> None:
    """Its heartbeats keep the followers from voting, so nothing would ever be chosen again."""
    bench = Bench(3)
    bench.elect(1)
    bench.cut = {(2, 1), (3, 1)}
    bench.run(4000)
    assert bench.leader() in {2, 3}


@pytest.mark.parametrize("rounds", [0, 6])
def test_a_replica_that_promised_in_a_failed_candidacy_is_not_shut_out(rounds: int) -> None:
    """A leader that hears of a higher ballot from a member runs phase 1 above it, also above one of its own round."""
    bench = Bench(3)
    old = bench.elect(1).ballot
    failed = Ballot(old.round + rounds, 3)
    bench[3]._promise_at_least(failed)
    bench.propose(1, b"a")
    bench.run(300)
    assert bench.leader() == 1
    assert bench[1].ballot > failed > old
    bench.propose(1, b"b")
    bench.run(300)
    assert bench.nodes[3].values == [b"a", b"b"]


def test_a_strangers_higher_ballot_moves_nobody() -> None:
    """Only a member of the leader's configuration can make it renew its ballot."""
    bench = Bench(3)
    paxos = bench.elect(1)
    ballot = paxos.ballot
    paxos.step(9, Refuse(Ballot(99, 9), 0))
    paxos.step(2, Refuse(Ballot(1, 0), 0))
    assert paxos.ready
    assert paxos.ballot == ballot


def test_a_pre_vote_refused_for_its_ballot_is_asked_again_above() -> None:
    """A refused pre-vote answers Refuse(promised), and that is enough to do better at once."""
    paxos = core()
    paxos.tick(260)
    settle(paxos)
    paxos.step(2, Refuse(Ballot(6, 2), 0))
    assert {vote.ballot for vote in only(settle(paxos), PreVote)} == {Ballot(7, 1)}


def test_a_refused_candidate_learns_how_far_the_group_is() -> None:
    """A replica that was removed, or missed much, finds out though nobody votes for it."""
    bench = Bench(3)
    bench.elect(1)
    bench.isolate(3)
    bench.propose(1, b"a")
    bench.run(2000)
    assert bench[3].role is Role.CANDIDATE
    bench.cut = {(1, 3), (3, 1)}
    bench.run(2000)
    assert bench.nodes[3].values == [b"a"], "it fetched that from 2"
    assert bench.leader() == 1


def test_a_candidate_follows_a_leader_that_turns_up() -> None:
    """A pre-vote changed nothing, so there is nothing to take back."""
    paxos = core(durable=Durable(promised=Ballot(3, 2)))
    paxos.tick(260)
    settle(paxos)
    assert paxos.role is Role.CANDIDATE
    paxos.step(2, accept((3, 2), 1, beat=4))
    assert paxos.role is Role.FOLLOWER
    assert only(settle(paxos), Accepted)


def test_a_candidate_that_promised_another_stands_back() -> None:
    """Two replicas that stand at the same time: the higher ballot is promised, by the other one too."""
    bench = Bench(3)
    for replica in (1, 2):
        bench[replica]._election.deadline_ms = 0
    bench.tick(1)
    bench.run(3000)
    assert bench.leader() in {1, 2, 3}


def test_a_failed_candidacy_is_tried_again_by_a_new_pre_vote() -> None:
    """Nobody answered: the next attempt asks before it changes anything."""
    bench = Bench(3)
    bench.isolate(1)
    bench[1]._election.deadline_ms = 0
    bench.tick(1, 1)
    bench.pump()
    bench.run(3000)
    assert bench[1].role is Role.CANDIDATE
    assert bench[1].promised == Ballot(0, 0)


def test_a_promise_of_a_transfer_that_fails_heals() -> None:
    """The target stood and got no quorum; the group finds a leader all the same."""
    bench = Bench(3)
    paxos = bench.elect(1)
    paxos.hand_over()
    bench.pump(lambda source, target, message: not isinstance(message, Prepare))
    assert bench[2].role is Role.CANDIDATE or bench[3].role is Role.CANDIDATE
    bench.run(4000)
    assert bench.leader() in {1, 2, 3}


# --- handing over


def test_hand_over_waits_for_a_follower_that_has_everything() -> None:
    """SIGTERM: nothing new is proposed, and the next leader starts at once, without a timeout or a pre-vote."""
    bench = Bench(3)
    paxos = bench.elect(1)
    bench.propose(1, b"a")
    paxos.hand_over()
    assert paxos.propose(b"b") is None
    paxos.hand_over()  # a second word changes nothing
    bench.pump()
    assert bench.leader() in {2, 3}
    assert all(value == [b"a"] for value in (bench.nodes[bench.leader()].values,))


def test_hand_over_goes_through_when_waiting_takes_too_long() -> None:
    """A leader that has to go goes, with or without somebody to follow it."""
    bench = Bench(3)
    paxos = bench.elect(1)
    bench.nodes[2].holds_disk = bench.nodes[3].holds_disk = True
    bench.propose(1, b"a")
    bench.pump()
    paxos.hand_over()
    bench.run(400)
    assert paxos.role is Role.LEADER
    bench.run(300)
    assert paxos.role is not Role.LEADER


def test_hand_over_without_anybody_there() -> None:
    """No follower was heard lately: nobody can be asked, so the leader only stops leading."""
    bench = Bench(3)
    paxos = bench.elect(1)
    for follower in paxos._leadership.followers.values():
        follower.heard_ms -= 10_000
    paxos.hand_over()
    assert paxos.role is Role.LEADER
    paxos._now_ms += 600
    paxos._transfer()
    assert paxos.role is Role.FOLLOWER
    assert not only(paxos.take().send_now, TakeOver)


def test_a_single_replica_hands_over_to_nobody() -> None:
    """It goes on until it is stopped."""
    bench = Bench(1)
    bench.run(100)
    bench[1].hand_over()
    assert bench[1].propose(b"a") is not None
    core().hand_over()  # and a follower has nothing to hand over


@pytest.mark.parametrize("old", [Ballot(2, 3), Ballot(3, 1)])
def test_a_take_over_of_an_old_leader_is_not_heard(old: Ballot) -> None:
    """Only the leader that is followed can give its leadership away."""
    paxos = core()
    paxos.step(2, accept((3, 2), 1, beat=1))
    settle(paxos)
    paxos.step(old.replica, TakeOver(old))
    assert paxos.role is Role.FOLLOWER
    paxos.step(2, TakeOver(Ballot(3, 2)))
    assert paxos.role is Role.CANDIDATE
    assert paxos.promised == Ballot(4, 1)


def test_a_hung_disk_hands_leadership_over() -> None:
    """A hung disk hands leadership over: the leader still beats, so nobody else would ever take it."""
    bench = Bench(3)
    bench.elect(1)
    bench.nodes[1].holds_disk = True
    bench.propose(1, b"a")
    bench.run(1400)
    assert bench[1].role is Role.LEADER
    bench.run(1000)
    assert bench.leader() in {2, 3}
    bench.run(3000)
    assert bench[1].role is not Role.LEADER


def test_a_replica_with_a_hung_disk_does_not_stand() -> None:
    """No promise of it can become durable; it leaves it to the others."""
    bench = Bench(3)
    bench[1].step(2, accept((1, 2), 1, b"a"))
    bench.nodes[1].holds_disk = True
    bench.take(1)
    for _ in range(30):
        bench.now_ms += 100
        bench[1].tick(bench.now_ms)
    assert bench[1].role is Role.FOLLOWER


# --- standing still


def test_a_stopped_process_hears_what_lies_unread_before_it_acts() -> None:
    """It was late, not the others: neither does the leader step down nor the follower stand at its first tick."""
    bench = Bench(3)
    paxos = bench.elect(1)
    bench.now_ms += 10_000
    paxos.tick(bench.now_ms)
    assert paxos.role is Role.LEADER
    bench[2].tick(bench.now_ms)
    assert bench[2].role is Role.FOLLOWER
    assert bench[2].wake_ms > bench.now_ms


def test_time_that_goes_back_or_stands_changes_nothing() -> None:
    """tick() may be called at any time, any number of times."""
    bench = Bench(3)
    paxos = bench.elect(1)
    wake = paxos.wake_ms
    paxos.tick(bench.now_ms)
    paxos.tick(bench.now_ms - 50)
    assert paxos.wake_ms == wake
    assert not settle(paxos)


def test_every_role_says_when_it_wants_to_be_woken() -> None:
    """An idle replica sleeps: heartbeats and timeouts only."""
    bench = Bench(3, learners=1)
    paxos = bench.elect(1)
    assert bench.now_ms < paxos.wake_ms <= bench.now_ms + 100
    assert bench.now_ms + 100 < bench[2].wake_ms <= bench.now_ms + 1000
    bench[2].step(1, accept((9, 1), 9, b"x", base=9, commit=8))
    assert only(settle(bench[2]), Fetch), "what was chosen before this leader's first slot is missing"
    assert bench.now_ms + 100 < bench[2].wake_ms <= bench.now_ms + 300, "a page that does not come is asked for again"
    paxos.hand_over()
    assert paxos.role is Role.FOLLOWER
    bench.isolate(3)
    bench.run(1500)
    assert bench[3].role is Role.CANDIDATE
    assert bench[3].wake_ms <= bench.now_ms + 120
    assert bench[4].wake_ms <= bench.now_ms + 120


# --- reads


def test_a_round_that_was_under_way_does_not_confirm() -> None:
    """A read is confirmed by a heartbeat round that *started after* it arrived.

    The round of before may have passed its voters before another leader was elected and answered a write.
    """
    bench = Bench(3)
    paxos = bench.elect(1)
    bench.tick(110)
    bench.take(1)
    under_way = only(bench.flight, Accept)[0].heartbeat
    assert paxos.confirm("read")
    for follower in (2, 3):
        paxos.step(follower, Accepted(paxos.ballot, paxos.chosen, paxos.chosen, under_way))
    output = paxos.take()
    assert not output.confirmed
    fresh = only(output.send_now, Accept)[0].heartbeat
    assert fresh > under_way
    paxos.step(2, Accepted(paxos.ballot, paxos.chosen, paxos.chosen, fresh))
    assert paxos.take().confirmed == ["read"]


def test_an_acknowledgement_that_answers_no_round_confirms_none() -> None:
    """It may have left before the round began, from one that has promised another leader since."""
    bench = Bench(3)
    paxos = bench.elect(1)
    bench.propose(1, b"written")
    paxos.take()
    assert paxos.confirm("read")
    paxos.take()
    for follower in (2, 3):
        paxos.step(follower, Accepted(paxos.ballot, paxos.chosen + 1, paxos.chosen + 1, 0))
    output = paxos.take()
    assert output.chosen, "the entry itself it does acknowledge"
    assert not output.confirmed


def test_one_round_confirms_all_that_came_before_it() -> None:
    """So reads cost one message a round, however many there are."""
    bench = Bench(3)
    paxos = bench.elect(1)
    for token in range(5):
        assert paxos.confirm(token)
    bench.take(1)
    assert len(only(bench.flight, Accept)) == 2
    bench.pump()
    assert bench.nodes[1].confirmed == [0, 1, 2, 3, 4]


def test_a_confirmation_needs_distinct_voters() -> None:
    """One follower that answers twice is one voter."""
    bench = Bench(5)
    paxos = bench.elect(1)
    paxos.confirm("read")
    beat = only(paxos.take().send_now, Accept)[0].heartbeat
    for _ in range(4):
        paxos.step(2, Accepted(paxos.ballot, paxos.chosen, paxos.chosen, beat))
    assert not paxos.take().confirmed
    paxos.step(3, Accepted(paxos.ballot, paxos.chosen, paxos.chosen, beat))
    assert paxos.take().confirmed == ["read"]


def test_a_confirmation_waits_for_no_disk() -> None:
    """Reads go on while every disk is slow."""
    bench = Bench(3)
    paxos = bench.elect(1)
    for node in bench.nodes.values():
        node.holds_disk = True
    bench.propose(1, b"a")
    bench.pump()
    paxos.confirm("read")
    bench.pump()
    assert bench.nodes[1].confirmed == ["read"]


def test_patience_is_drawn_anew_each_time() -> None:
    """Two that have drawn alike would stand at the same moments for ever, and neither would be elected."""
    draws = iter([0.1, 0.2, 0.3, 0.4, 0.5])
    election = Election(TIMING, lambda: next(draws), 0)
    deadlines = []
    for _ in range(3):
        election.wait(0)
        deadlines.append(election.deadline_ms)
    assert len(set(deadlines)) == 3
    election.heard(2, 0)
    assert election.deadline_ms == deadlines[-1], "as long as somebody leads it is the same"


def test_tokens_fail_when_the_leader_is_deposed() -> None:
    """Whoever asked is told, whether its round had begun or not, and asks elsewhere."""
    bench = Bench(3)
    paxos = bench.elect(1)
    paxos.confirm("begun")
    paxos.take()
    paxos.confirm("waiting")
    paxos.step(2, Prepare(Ballot(9, 2), 1, True))
    assert sorted(paxos.take().failed) == ["begun", "waiting"]
    assert not paxos.confirm("late")


def test_tokens_fail_when_the_leader_renews_its_ballot() -> None:
    """It may lead again at once; but its heartbeats are counted anew, so what waits for an old one would be answered
    by one that says nothing, or block all who ask later.
    """
    bench = Bench(3)
    paxos = bench.elect(1)
    paxos.confirm("begun")
    paxos.take()
    paxos.confirm("waiting")
    paxos.step(2, Refuse(Ballot(9, 3), 0))
    assert paxos.role is Role.CANDIDATE
    assert sorted(paxos.take().failed) == ["begun", "waiting"]


def test_a_deposed_leader_confirms_nothing() -> None:
    """No leader-lease reads: a leader cut off from the group does not know that it is one no longer."""
    bench = Bench(3)
    old = bench.elect(1)
    bench.isolate(1)
    bench.now_ms += 501
    bench[2]._election.deadline_ms = bench.now_ms
    bench.tick(0, 2, 3)
    bench.pump()
    assert bench[2].ready
    assert old.ready, "it has not noticed yet"
    assert old.confirm("stale")
    bench.run(2000)
    assert bench.nodes[1].confirmed == []
    assert bench.nodes[1].failed == ["stale"]


def test_a_single_replica_confirms_itself() -> None:
    """There is nobody else to ask."""
    bench = Bench(1)
    bench.run(60)
    assert bench[1].confirm("read")
    bench.pump()
    assert bench.nodes[1].confirmed == ["read"]


def test_a_single_replica_elects_itself_at_once_and_chooses_at_its_sync() -> None:
    """A group of one: each proposal is chosen when it is on disk, not before."""
    paxos = core(1, (1,))
    paxos.tick(1)
    settle(paxos)
    assert paxos.ready
    paxos.propose(b"a")
    output = paxos.take()
    assert not output.chosen
    paxos.synced(output.batch)
    assert [e.value for e in paxos.take().chosen] == [b"a"]


def test_a_single_replica_comes_back_with_all_it_had() -> None:
    """Its tail may have been chosen, so it proposes all of it again."""
    durable = Durable(promised=Ballot(1, 1), entries=(entry(1, (1, 1), b"a"), entry(2, (1, 1), b"b")), chosen=1)
    paxos = core(1, (1,), durable)
    first = paxos.take()
    assert [e.value for e in first.chosen] == [b"a"]
    paxos.tick(1)
    output = paxos.take()
    paxos.synced(output.batch)
    output = paxos.take()
    paxos.synced(output.batch)
    assert [e.value for e in paxos.take().chosen][:1] == [b"b"]
    assert paxos.ready


def test_a_learner_does_not_take_over() -> None:
    """A leader that mistook it for a voter asks in vain."""
    paxos = core(9, (1, 2, 3))
    paxos.step(2, accept((3, 2), 1, beat=1))
    settle(paxos)
    paxos.step(2, TakeOver(Ballot(3, 2)))
    assert paxos.role is Role.LEARNER
    assert paxos.promised == Ballot(3, 2)


def test_a_grant_of_a_stranger_is_no_grant() -> None:
    """The proposer checks who votes, in the pre-vote as well."""
    paxos = core()
    paxos.tick(260)
    ballot = only(paxos.take().send_now, PreVote)[0].ballot
    paxos.step(9, PreVoteGranted(ballot, 0))
    assert not paxos.take().persist


def test_a_pre_vote_begins_anew_when_catching_up_raised_the_promise() -> None:
    """What it asked for would not be above its own promise any more."""
    paxos = core()
    paxos.tick(260)
    ballot = only(paxos.take().send_now, PreVote)[0].ballot
    paxos.step(2, PreVoteGranted(ballot, 1))
    settle(paxos)
    paxos.step(2, Chosen(1, bytes([1]), (b"a",), 1, Ballot(6, 3)))
    assert {vote.ballot for vote in only(settle(paxos), PreVote)} == {Ballot(7, 1)}


def test_a_leader_that_is_refused_for_no_more_than_its_own_ballot_goes_on() -> None:
    """A late answer to the pre-vote that it won: phase 1 once more would stop everybody for nothing."""
    bench = Bench(3)
    leader = bench.elect(1)
    ballot = leader.ballot
    leader.step(2, Refuse(ballot, 0))
    assert leader.role is Role.LEADER
    assert leader.ballot == ballot
    leader.step(2, Refuse(ballot._replace(round=ballot.round + 1), 0))
    assert leader.role is Role.CANDIDATE
