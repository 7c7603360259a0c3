# SPDX-License-Identifier: Apache-2.0
"""The clauses about clients, leases and leaders, each with the interleaving that needs it."""

from __future__ import annotations

import pytest

from dthreading.wire import messages as wire
from replicas.paxos import messages as paxos
from replicas.paxos.types import Ballot
from replicas.replica.forwarding import RETRY_MS
from replicas.replica.messages import Forward, Vouch, Vouched
from tests.replica.harness import TTL_MS, Group


def other_than(leader: int, *more: int) -> int:
    """A replica that is neither."""
    return next(number for number in (1, 2, 3) if number not in (leader, *more))


def has_alive(group: Group, connection: int, beat: int) -> bool:
    """Whether that keepalive was acknowledged there."""
    return any(isinstance(said, wire.Alive) and said.beat == beat for said in group.said.get(connection, []))


# --- passing on


def test_a_call_through_a_follower_is_answered_there() -> None:
    """Clients work through any replica, and the one that holds the connection answers from its own apply."""
    group = Group()
    follower = other_than(group.leader())
    session = group.open(follower, 7)
    group.attach(follower, 7, session)
    group.say(follower, 7, wire.Call(session, 0, 1, 1, "acquire", (True, 1), False))
    assert [reply.status for reply in group.replies(7)] == [wire.Status.OK]


def test_what_was_passed_on_to_a_dead_leader_goes_to_the_next_one() -> None:
    """A follower keeps what it passed on until it has applied it, and passes it on again to every new leader."""
    group = Group()
    leader = group.leader()
    follower = other_than(leader)
    session = group.open(follower, 7)
    group.attach(follower, 7, session)
    for other in group.replicas:
        group.cut |= {(leader, other), (other, leader)}
    group.say(follower, 7, wire.Call(session, 0, 1, 1, "acquire", (True, 1), False))
    assert group.replies(7) == []
    group.pass_ms(4_000)
    assert [reply.status for reply in group.replies(7)] == [wire.Status.OK]


def test_a_new_leader_hears_at_once_what_is_pending() -> None:
    """Not only when the stream to it has run dry: a client behind a follower waits for the election and no longer."""
    group = Group()
    leader = group.leader()
    follower = max(number for number in group.replicas if number != leader)
    session = group.open(follower, 7)
    group.attach(follower, 7, session)
    for other in group.replicas:
        group.cut |= {(leader, other), (other, leader)}
    group.say(follower, 7, wire.Call(session, 0, 1, 1, "acquire", (True, 1), False))
    while group.replicas[follower].paxos.leader in {leader, None}:
        group.pass_ms(20)
    assert group.replicas[follower].paxos.leader != follower
    group.pass_ms(200)
    assert len(group.replies(7)) == 1


def test_a_lost_forward_is_passed_on_again_to_the_same_leader() -> None:
    """The link may lose it without anybody noticing: the follower asks again when apply has not seen it for long."""
    group = Group()
    follower = other_than(group.leader())
    session = group.open(follower, 7)
    group.attach(follower, 7, session)
    group.held = {Forward}
    group.say(follower, 7, wire.Call(session, 0, 1, 1, "acquire", (True, 1), False))
    group.queue.clear()
    group.held = set()
    group.pass_ms(2_500)
    assert len(group.replies(7)) == 1


def test_a_command_never_overtakes_the_one_before_it() -> None:
    """The Attach is lost on the link and the Call is not: apply would not know the handle. (Seed 150 of the group.)"""
    group = Group()
    leader = group.leader()
    follower = other_than(leader)
    session = group.open(follower, 7)
    group.cut |= {(follower, leader)}
    group.attach(follower, 7, session)
    group.cut.clear()
    group.say(follower, 7, wire.Call(session, 0, 1, 1, "acquire", (True, 1), False))
    assert group.replies(7) == []
    group.pass_ms(2_500)
    assert [reply.status for reply in group.replies(7)] == [wire.Status.OK]


def test_a_gap_is_closed_at_once_when_something_comes_after_it() -> None:
    """The first call of a client that had lost an earlier word waited a second. (Seed 640317 of the group.)"""
    group = Group()
    leader = group.leader()
    follower = other_than(leader)
    session = group.open(follower, 7)
    group.attach(follower, 7, session)
    group.cut |= {(follower, leader)}
    group.say(follower, 7, wire.Acknowledge(session, ()))
    group.cut.clear()
    group.pass_ms(RETRY_MS // 2)
    group.say(follower, 7, wire.Call(session, 0, 1, 1, "acquire", (True, 1), False))
    group.pass_ms(RETRY_MS // 4)
    assert [reply.status for reply in group.replies(7)] == [wire.Status.OK]


def test_a_copy_is_answered_from_the_lane_and_happens_once() -> None:
    """Sent to two replicas, across a reconnect: one grant, two answers."""
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    group.attach(leader, 7, session)
    call = wire.Call(session, 0, 1, 1, "acquire", (True, 1), False)
    group.say(leader, 7, call)
    group.replicas[leader].client_gone(7)
    follower = other_than(leader)
    group.say(follower, 8, wire.Resume(session, b"nonce 7"))
    group.say(follower, 8, call)
    assert group.replies(8) == group.replies(7)
    assert group.replicas[leader].machine.fence == 1


# --- who may speak for a session


def test_another_clients_session_cannot_be_spoken_for() -> None:
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    group.open(leader, 8)
    group.say(leader, 8, wire.Call(session, 0, 1, 1, "acquire", (True, 1), False))
    assert "not the connection's" in group.hung_up[8]
    assert 7 not in group.hung_up


def test_a_resume_with_a_guessed_nonce_gets_nothing_and_takes_nothing() -> None:
    """The session's own client goes on; whoever guessed is told, and nobody else."""
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    group.attach(leader, 7, session)
    group.say(leader, 8, wire.Resume(session, b"a guess"))
    assert isinstance(group.said[8][-1], wire.Rejected)
    assert 8 in group.hung_up
    group.say(leader, 7, wire.Call(session, 0, 1, 1, "acquire", (True, 1), False))
    assert len(group.replies(7)) == 1


@pytest.mark.parametrize("how", ["open", "resume"])
def test_a_session_that_has_come_back_elsewhere_leaves_no_second_mouth(how: str) -> None:
    """A client whose Open was not answered in time says it again on a new connection, as others say their Resume."""
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    again = wire.Open(b"nonce 7", TTL_MS, "test", "a test") if how == "open" else wire.Resume(session, b"nonce 7")
    group.say(leader, 8, again)
    assert "come back on another connection" in group.hung_up[7]
    group.attach(leader, 8, session)
    group.say(leader, 8, wire.Call(session, 0, 1, 1, "acquire", (True, 1), False))
    assert len(group.replies(8)) == 1
    assert not group.replies(7)


def test_unknown_session_is_an_answer_of_apply() -> None:
    """A follower that lags must not call a session unknown that was just opened elsewhere."""
    group = Group()
    leader = group.leader()
    follower = other_than(leader)
    group.cut |= {(leader, follower)}
    session = group.open(leader, 7)
    group.say(follower, 8, wire.Resume(session, b"nonce 7"))
    assert not group.said.get(8)
    group.cut.clear()
    group.pass_ms(3_000)
    assert any(isinstance(said, wire.Resumed) for said in group.said[8])


# --- leases


def test_a_keepalive_waits_for_a_round_that_began_after_it() -> None:
    """Else a deposed leader would extend leases that its successor has let expire."""
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    group.held = {paxos.Accepted}
    group.say(leader, 7, wire.Keepalive(session, 1))
    assert not has_alive(group, 7, 1)
    group.held = set()
    group.settle()
    assert has_alive(group, 7, 1)


def test_a_leader_without_a_quorum_acknowledges_no_keepalive() -> None:
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    for other in group.replicas:
        group.cut |= {(leader, other), (other, leader)}
    group.say(leader, 7, wire.Keepalive(session, 1))
    group.pass_ms(2_000)
    assert not has_alive(group, 7, 1)


def test_a_silent_session_ends_after_its_lease_and_its_lock_passes_on() -> None:
    group = Group()
    leader = group.leader()
    silent = group.open(leader, 7)
    group.attach(leader, 7, silent)
    group.say(leader, 7, wire.Call(silent, 0, 1, 1, "acquire", (True, 1), False))
    waiting = group.open(leader, 8)
    group.attach(leader, 8, waiting)
    group.say(leader, 8, wire.Call(waiting, 0, 1, 1, "acquire", (True, 1), True))
    for beat in range(1, 12):
        group.pass_ms(TTL_MS // 10)
        group.say(leader, 8, wire.Keepalive(waiting, beat))
        granted = [reply for reply in group.replies(8) if reply.status == wire.Status.OK]
        assert bool(granted) == (silent not in group.replicas[leader].machine.sessions)
    assert granted
    assert any(isinstance(said, wire.Ended) for said in group.said[7])


def test_nothing_of_a_session_is_acknowledged_once_its_expiry_is_proposed() -> None:
    """The client would believe in a lease that the log is about to end."""
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    replica = group.replicas[leader]
    group.pass_ms(TTL_MS - 100)
    # In one turn: the look at the leases finds this one over, and then its keepalive arrives after all.
    replica.tick(group.now_ms + 110)
    group.say(leader, 7, wire.Keepalive(session, 1))
    assert not has_alive(group, 7, 1)
    assert any(isinstance(said, wire.Ended) for said in group.said[7])


@pytest.mark.parametrize("dies", [False, True])
def test_a_resume_that_was_chosen_first_outlives_the_expiry_and_is_acknowledged_again(dies: bool) -> None:
    """Resume raises the epoch; the Expire that names the old one is ignored, and the session is not doomed for ever.

    Nor does it live for ever, if nothing more is heard of its client.
    """
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    replica = group.replicas[leader]
    group.pass_ms(TTL_MS - 100)
    follower = other_than(leader)
    group.held = {Forward}
    group.say(follower, 8, wire.Resume(session, b"nonce 7"))
    forwards = [held for held in group.queue if isinstance(held[2], Forward)]
    group.queue.clear()
    group.held = set()
    # In one turn: the Resume arrives, and then the look at the leases finds this one over.
    replica.peer_said(follower, forwards[0][2])
    replica.tick(group.now_ms + 110)
    group.settle()
    assert session in replica.machine.sessions
    if dies:
        group.pass_ms(TTL_MS + 1000)
        assert session not in replica.machine.sessions
        return
    group.say(follower, 8, wire.Keepalive(session, 1))
    assert has_alive(group, 8, 1)


def test_a_new_leader_gives_everyone_a_full_term() -> None:
    """It cannot know what its predecessor heard."""
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    group.pass_ms(TTL_MS - 1_000)
    for other in group.replicas:
        group.cut |= {(leader, other), (other, leader)}
    group.pass_ms(3_000)
    successor = max(
        (number for number in group.replicas if number != leader), key=lambda n: group.replicas[n]._tenure is not None
    )
    assert group.replicas[successor]._tenure is not None
    assert session in group.replicas[successor].machine.sessions
    group.pass_ms(TTL_MS)
    assert session not in group.replicas[successor].machine.sessions


def test_a_deposed_leaders_expiry_is_ignored() -> None:
    """Its Expire names a ballot that is not in force any more when it is chosen."""
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    replica = group.replicas[leader]
    expire = replica._tenure
    assert expire is not None
    proposals = expire.expired(group.now_ms + TTL_MS, 0)
    assert proposals
    for other in group.replicas:
        group.cut |= {(leader, other), (other, leader)}
    group.pass_ms(3_000)
    group.cut.clear()
    successor = group.leader()
    group.replicas[successor].peer_said(leader, Forward(1, 0, tuple(proposals)))
    group.settle()
    assert session in group.replicas[successor].machine.sessions


def test_a_paused_leader_expires_nobody_for_its_own_silence() -> None:
    """It was not listening: the pause is added to every deadline, and the sockets are drained first."""
    group = Group(size=1)
    leader = group.leader()
    session = group.open(leader, 7)
    group.now_ms += 10 * TTL_MS
    group.replicas[leader].tick(group.now_ms)
    group.settle()
    group.pass_ms(TTL_MS - 1_000)
    assert session in group.replicas[leader].machine.sessions
    group.pass_ms(2_000)
    assert session not in group.replicas[leader].machine.sessions


def test_a_paused_leader_puts_no_namespace_back_for_its_own_silence() -> None:
    """Nor was anybody able to come back to it meanwhile."""
    group = Group(size=1)
    leader = group.leader()
    session = group.open(leader, 7)
    group.say(leader, 7, wire.Attach(session, 1, "test", "x", "Event", (), int(wire.Lifetime.AUTOMATIC), True))
    group.say(leader, 7, wire.Call(session, 0, 1, 1, "set", (), False))
    group.say(leader, 7, wire.Close(session))
    machine = group.replicas[leader].machine
    assert machine.idle_namespaces
    group.now_ms += 60_000
    group.replicas[leader].tick(group.now_ms)
    group.pass_ms(4_000)
    assert ("test", "x") in machine.registry.objects, "of five seconds it has lived through four"
    group.pass_ms(2_000)
    assert ("test", "x") not in machine.registry.objects


def test_a_follower_vouches_through_the_leader() -> None:
    """A keepalive through a follower is acknowledged by the leader's round, not by the follower's opinion."""
    group = Group()
    follower = other_than(group.leader())
    session = group.open(follower, 7)
    group.held = {Vouch}
    group.say(follower, 7, wire.Keepalive(session, 1))
    assert not has_alive(group, 7, 1)
    group.held = {Vouched}
    group.settle()
    assert not has_alive(group, 7, 1)
    group.held = set()
    group.settle()
    assert has_alive(group, 7, 1)


# --- reads


def test_a_read_sees_what_its_own_session_did_before_it() -> None:
    """Both came in one turn: the write is not applied yet when the read comes."""
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    group.attach(leader, 7, session, "Event")
    replica = group.replicas[leader]
    for number, operation in ((1, "set"), (2, "is_set")):
        call = wire.Call(session, number, 1, 1, operation, (), False)
        replica.client_said(7, call, wire_bytes(call))
    group.settle()
    assert {reply.lane: reply.value for reply in group.replies(7)} == {1: None, 2: True}


def test_a_leader_cut_off_from_its_quorum_answers_no_read() -> None:
    """No leader-lease reads: a successor may have been elected, and the value changed."""
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    group.attach(leader, 7, session, "Event")
    for other in group.replicas:
        group.cut |= {(leader, other), (other, leader)}
    group.say(leader, 7, wire.Call(session, 1, 1, 1, "is_set", (), False))
    group.pass_ms(2_000)
    assert group.replies(7) == []
    group.cut.clear()
    group.pass_ms(3_000)
    assert [reply.value for reply in group.replies(7)] == [False]


@pytest.mark.parametrize("successor", ["known at once", "unknown"])
@pytest.mark.parametrize("when", ["asked", "confirmed in that very turn", "confirmed too early"])
def test_no_end_of_a_tenure_loses_a_read(when: str, successor: str) -> None:
    """It goes through the log then. Its client has heard nothing of the leader's end and says it to nobody else."""
    group = Group()
    leader = group.leader()
    other = other_than(leader)
    session = group.open(leader, 7)
    group.attach(leader, 7, session, "Event")
    replica = group.replicas[leader]
    group.held = {paxos.Accepted}
    for lane, operation in ((1, "set"), (2, "is_set")):
        call = wire.Call(session, lane, 1, 1, operation, (), False)
        replica.client_said(7, call, wire_bytes(call))
    group.settle()
    answers = [(source, message) for source, _, message in group.queue]
    group.queue.clear()
    if when != "asked":
        for source, answer in answers:
            replica.peer_said(source, answer._replace(upto=replica.paxos.chosen))  # their disks are not as fast
    if when == "confirmed too early":
        group.take(leader)
        assert replica._tenure is not None
        assert replica._tenure._waiting
    chosen, higher = replica.paxos.chosen, Ballot(replica.paxos.ballot.round + 1, other)
    if successor == "unknown":
        replica.peer_said(other, paxos.Refuse(higher, 0))
    else:
        replica.peer_said(other, paxos.Accept(higher, chosen + 1, chosen + 1, b"", (), chosen, replica.paxos.chain, 0))
    assert replica._tenure is None
    assert replica.paxos.leader == (None if successor == "unknown" else other)
    group.held = set()
    group.settle()
    group.pass_ms(5_000)
    assert {reply.lane: reply.value for reply in group.replies(7)} == {1: None, 2: True}


def test_a_read_of_a_connection_that_has_ended_brings_that_connection_not_back() -> None:
    """It is given up with the leadership. Its client asks again elsewhere, and nobody would forget a link made anew."""
    group = Group()
    leader = group.leader()
    session = group.open(leader, 5)
    group.attach(leader, 5, session)
    group.isolate(leader)
    group.say(leader, 5, wire.Call(session, 0, 1, 1, "locked", (), False))
    group.replicas[leader].client_gone(5)
    group.pass_ms(5_000)
    assert not group.replicas[leader].paxos.leads
    assert group.replicas[leader]._hosting.connections == ()


def test_reads_leave_no_entry_in_the_log() -> None:
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    group.attach(leader, 7, session, "Event")
    applied = group.replicas[leader].machine.applied
    for number in range(1, 20):
        group.say(leader, 7, wire.Call(session, 1, number, 1, "is_set", (), False))
    assert len(group.replies(7)) == 19
    assert group.replicas[leader].machine.applied == applied


# --- the ends of connections and of leaders


def test_the_end_of_a_connection_ends_the_session_only_where_the_client_said_so() -> None:
    group = Group()
    leader = group.leader()
    plain, exiting = group.open(leader, 7), group.open(leader, 8)
    group.say(leader, 8, wire.CloseAtEnd(exiting))
    group.replicas[leader].client_gone(7)
    group.replicas[leader].client_gone(8)
    group.settle()
    assert list(group.replicas[leader].machine.sessions) == [plain]


def test_clients_hear_who_leads_and_are_sent_on_when_nobody_does() -> None:
    group = Group()
    leader = group.leader()
    follower = other_than(leader)
    group.open(follower, 7)
    third = other_than(leader, follower)
    for other in group.replicas:
        group.cut |= {(follower, other), (other, follower)}
    group.pass_ms(6_000)
    assert any(isinstance(said, wire.MoveOn) for said in group.said[7])
    group.cut.clear()
    group.pass_ms(2_000)
    assert [said for said in group.said[7] if isinstance(said, wire.Leader)][-1].address in {f"r{leader}", f"r{third}"}


def test_deleting_an_object_is_answered_when_it_is_applied() -> None:
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    group.attach(leader, 7, session)
    group.say(leader, 9, wire.Query(1, "delete", ("test", "x")))
    group.say(leader, 9, wire.Query(2, "delete", ("test", "x")))
    assert group.said[9] == [wire.Answer(1, True), wire.Answer(2, False)]


def test_two_who_delete_the_same_at_one_time_are_answered_both() -> None:
    """Their commands are one and the same."""
    group = Group()
    leader = group.leader()
    for number in (1, 2):
        query = wire.Query(number, "delete", ("test", "x"))
        group.replicas[leader].client_said(9, query, wire_bytes(query))
    group.settle()
    assert group.said[9] == [wire.Answer(1, False), wire.Answer(2, False)]


def test_who_deletes_is_answered_for_the_object_of_that_namespace() -> None:
    """Another one of the same name is another object, and its deletion says nothing about this one."""
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    group.attach(leader, 7, session)
    for connection, namespace in ((8, "test"), (9, "other")):
        query = wire.Query(1, "delete", (namespace, "x"))
        group.replicas[leader].client_said(connection, query, wire_bytes(query))
    group.settle()
    assert group.said[8] == [wire.Answer(1, True)]
    assert group.said[9] == [wire.Answer(1, False)]


def wire_bytes(message: wire.Message) -> bytes:
    """The frame body of a message."""
    from dthreading.wire import codec

    return codec.encode(message)


def test_a_client_with_more_on_its_way_than_its_lanes_allow_is_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the limit it is served as anybody; what it said before stays on its way."""
    monkeypatch.setattr("replicas.replica.core.PENDING_PER_CONNECTION_MAX", 5)
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    group.attach(leader, 7, session)
    group.held = {paxos.Accept}
    for lane in range(5):
        group.say(leader, 7, wire.Call(session, lane, 1, 1, "acquire", (False, 1), False))
    assert 7 not in group.hung_up
    group.say(leader, 7, wire.Call(session, 5, 1, 1, "acquire", (False, 1), False))
    assert "PENDING_PER_CONNECTION_MAX = 5" in group.hung_up[7]
    group.held = set()
    group.settle()
    assert group.replicas[leader].machine.fence == 1
