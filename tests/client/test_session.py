# SPDX-License-Identifier: Apache-2.0
"""The session without I/O: each clause of "at most once", of withdrawal and of the lease, word by word."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from dthreading.errors import LimitExceeded, NotAuthenticated
from dthreading.session import (
    ACQUIRE,
    CHANGE,
    GET,
    PUT,
    READ,
    WAIT_CONDITION,
    ClientSession,
    Manner,
    PendingCall,
    State,
    Target,
)
from dthreading.wire import codec, limits
from dthreading.wire.framing import FrameDecoder
from dthreading.wire.messages import (
    Acknowledge,
    Alive,
    Attach,
    Call,
    Close,
    CloseAtEnd,
    Detach,
    Ended,
    Keepalive,
    Lifetime,
    Open,
    Opened,
    Reply,
    Resume,
    Resumed,
    Status,
    Withdraw,
)

TTL_S = 10.0
LEASE_S = TTL_S * 0.99 - 0.05


class Script:
    """A session, and the other end of its connection."""

    def __init__(self, ttl_ms: int = 10_000) -> None:
        self.session = ClientSession(namespace="test", label="a test", ttl_ms=ttl_ms)
        self.outbox: deque[bytes] = deque()
        self.now = 1000.0

    def connect(self, nonce: bytes = b"n" * 16) -> None:
        self.outbox = deque()
        self.session.connected(self.outbox, nonce, self.now)

    def open(self) -> list[Any]:
        self.connect()
        [opening] = self.said()
        assert isinstance(opening, Open)
        self.hear(Opened(opening.nonce, 7, opening.ttl_ms))
        return self.said()

    def reconnect(self) -> list[Any]:
        self.session.disconnected()
        self.connect()
        assert self.said() == [Resume(7, b"n" * 16)]
        self.hear(Resumed(7))
        return self.said()

    def hear(self, message: Any) -> None:
        self.session.step(message, self.now)

    def said(self) -> list[Any]:
        data = b"".join(self.outbox)
        self.outbox.clear()
        return [codec.decode(body) for body in FrameDecoder().feed(data)]

    def call(
        self, target: Target, operation: str = "acquire", *arguments: Any, manner: Manner = ACQUIRE, **more: Any
    ) -> PendingCall:
        call = PendingCall(target, operation, arguments, manner, **more)
        if not self.session.begin(call):
            self.session.submit(call)
        return call


def target(name: str = "orders", lifetime: Lifetime = Lifetime.NAMED, **more: Any) -> Target:
    return Target("test", name, "Lock", (), lifetime, **more)


def opened() -> Script:
    script = Script()
    script.open()
    return script


def settled(script: Script, name: Target, lane: int, number: int, manner: Manner = ACQUIRE) -> PendingCall:
    call = script.call(name, manner=manner)
    assert call.lane is not None
    assert (call.lane.index, call.number) == (lane, number)
    script.hear(Reply(lane, number, Status.OK, 1))
    assert call.settled
    return call


# --- opening ---


def test_a_session_is_opened_with_a_nonce_and_kept_alive_at_once() -> None:
    """The first keepalive leaves with the first call: until one is acknowledged the lease counts from the Open."""
    script = Script()
    script.connect(b"x" * 16)
    assert script.said() == [Open(b"x" * 16, 10_000, "test", "a test")]
    script.hear(Opened(b"x" * 16, 7, 10_000))
    assert script.said() == [Keepalive(7, 1)]
    assert script.session.state is State.CONNECTED


def test_an_open_that_was_lost_is_said_again_with_the_same_nonce() -> None:
    """The same nonce is the same session, so a lost answer costs no second session."""
    script = Script()
    script.connect(b"x" * 16)
    script.session.disconnected()
    script.now += 1
    script.connect(b"y" * 16)
    assert script.said()[-1] == Open(b"x" * 16, 10_000, "test", "a test")


def test_an_old_open_is_given_up_for_a_new_session() -> None:
    """The lease counts from the first Open with that nonce: after half a lease a session would be born in jeopardy."""
    script = Script()
    script.connect(b"x" * 16)
    script.session.disconnected()
    script.now += TTL_S / 2 + 0.1
    script.connect(b"y" * 16)
    assert script.said()[-1] == Open(b"y" * 16, 10_000, "test", "a test")
    script.hear(Opened(b"x" * 16, 6, 10_000))
    assert script.session.id == 0
    script.hear(Opened(b"y" * 16, 7, 10_000))
    assert script.session.id == 7


def test_calls_before_the_session_is_open_wait_for_it() -> None:
    script = Script()
    script.connect()
    call = script.call(target())
    script.said()
    script.hear(Opened(b"n" * 16, 7, 10_000))
    assert script.said() == [
        Keepalive(7, 1),
        Attach(7, 1, "test", "orders", "Lock", (), 0, True),
        Call(7, 0, 1, 1, "acquire", (), False),
    ]
    assert call.sent


def test_a_group_that_refuses_us_is_heard_by_those_who_wait_for_a_session() -> None:
    script = Script()
    call = script.call(target())
    script.session.refuse(NotAuthenticated("no"))
    assert isinstance(call.error, NotAuthenticated)
    assert call.settled
    script = opened()
    call = script.call(target())
    script.session.refuse(NotAuthenticated("no"))
    assert not call.settled, "there is a session to save"


# --- lanes and numbers ---


def test_a_lane_is_reused_and_its_numbers_grow() -> None:
    """At-most-once memory is one answer for each call at a time, not for each call."""
    script = opened()
    orders = target()
    for number in (1, 2, 3):
        call = settled(script, orders, 0, number)
        script.session.finish(call)
    assert [message.number for message in script.said() if isinstance(message, Call)] == [1, 2, 3]


def test_calls_at_one_time_take_a_lane_each_and_the_last_returned_is_lent_first() -> None:
    script = opened()
    orders = target()
    first, second = script.call(orders), script.call(orders)
    assert first.lane is not None
    assert second.lane is not None
    assert (first.lane.index, second.lane.index) == (0, 1)
    for call in (first, second):
        script.hear(Reply(call.lane.index, 1, Status.OK, 1))  # type: ignore[union-attr]
        script.session.finish(call)
    settled(script, orders, 1, 2)


def test_there_is_a_limit_to_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dthreading.session.lanes.LANES_PER_SESSION_MAX", 2)
    script = opened()
    orders = target()
    script.call(orders)
    script.call(orders)
    with pytest.raises(LimitExceeded, match="LANES_PER_SESSION_MAX"):
        script.session.begin(PendingCall(orders, "acquire", (), ACQUIRE))


def test_what_cannot_be_sent_is_the_callers_error_and_costs_no_lane() -> None:
    script = opened()
    orders = target()
    script.session.finish(settled(script, orders, 0, 1))
    with pytest.raises(TypeError):
        script.session.begin(PendingCall(orders, "put", (object(),), PUT))
    with pytest.raises(LimitExceeded, match="COMMAND_BYTES_MAX"):
        script.session.begin(PendingCall(orders, "put", (b"x" * limits.FRAME_BYTES_MAX,), PUT))
    settled(script, orders, 0, 2)
    call = PendingCall(target("fresh"), "put", (object(),), PUT)
    script.session.submit(call)
    assert isinstance(call.error, TypeError)
    assert call.settled


@pytest.mark.parametrize("struck", [TimeoutError, KeyboardInterrupt])
def test_an_error_from_outside_while_a_large_call_is_looked_at_is_no_limit(
    monkeypatch: pytest.MonkeyPatch, struck: type[BaseException]
) -> None:
    """A signal handler may raise anything anywhere: an alarm's TimeoutError in the middle of the look at a large call
    says nothing of the call, and must reach the code that set the alarm.
    """
    script = opened()
    orders = target()
    script.session.finish(settled(script, orders, 0, 1))
    alarm = struck("of a signal handler")
    real = codec.unpackb

    def rings(*arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(codec, "unpackb", real)
        raise alarm

    monkeypatch.setattr(codec, "unpackb", rings)
    with pytest.raises(struck) as raised:
        script.session.begin(PendingCall(orders, "put", (b"x" * limits.ELEMENTS_MAX,), PUT))
    assert raised.value is alarm
    assert script.session.begin(PendingCall(orders, "put", (b"x" * limits.ELEMENTS_MAX,), PUT))
    assert script.session._lanes.get(1) is None, "the lane that was borrowed for the first is free again"


def test_late_and_repeated_answers_do_nothing() -> None:
    """A copy of an answer, or the answer of a former call on the lane, must not pass for the present call's."""
    script = opened()
    orders = target()
    script.session.finish(settled(script, orders, 0, 1))
    call = script.call(orders)
    script.hear(Reply(0, 1, Status.OK, "old"))
    script.hear(Reply(5, 1, Status.OK, "no such lane"))
    assert not call.settled
    script.hear(Reply(0, 2, Status.OK, "new"))
    script.hear(Reply(0, 2, Status.OK, "copy"))
    assert call.value == "new"
    assert script.session.news.count(call) == 1


# --- attachments ---


def test_an_object_is_attached_once_and_before_its_first_call() -> None:
    script = opened()
    orders = target()
    script.call(orders)
    script.call(orders)
    assert [type(message) for message in script.said()] == [Attach, Call, Call]


def test_the_handle_of_another_object_stands_where_its_target_stood() -> None:
    script = opened()
    lock, condition = target("lock"), target("condition")
    script.call(condition, "wait", lock, 5, None, manner=WAIT_CONDITION, others=(lock,))
    attached_condition, attached_lock, call = script.said()
    assert call.handle == attached_condition.handle
    assert call.arguments == (attached_lock.handle, 5, None)


def test_attachments_not_known_to_be_applied_are_said_again_in_order() -> None:
    script = opened()
    first, second, third = target("first"), target("second"), target("third")
    for name in (first, second, third):
        script.call(name)
    script.said()
    script.hear(Reply(1, 1, Status.OK, 1))
    again = [message for message in script.reconnect() if isinstance(message, Attach)]
    assert [(message.handle, message.name) for message in again] == [(1, "first"), (3, "third")]


def test_detaching_names_the_attachment_and_a_new_target_gets_a_new_handle() -> None:
    script = opened()
    former = target()
    script.session.finish(settled(script, former, 0, 1))
    script.said()
    script.session.detach(former)
    script.session.detach(former)
    assert script.said() == [Detach(7, 1)]
    script.call(target())
    assert script.said()[0].handle == 2


def test_a_detach_that_may_be_lost_is_said_again_until_a_keepalive_after_it_is_acknowledged() -> None:
    script = opened()
    former = target()
    script.session.finish(settled(script, former, 0, 1))
    script.session.detach(former)
    script.said()
    script.hear(Alive(7, 1))
    assert Detach(7, 1) in script.reconnect(), "beat 1 was sent before the Detach"
    script.hear(Alive(7, 2))
    assert Detach(7, 1) not in script.reconnect(), "beat 2 was sent after it"


def test_a_private_object_is_made_anew_only_until_it_was_once_known() -> None:
    """Its name is never made anew: whoever used it would find another object, unlocked and empty."""
    private = target(lifetime=Lifetime.PRIVATE)
    script = opened()
    script.call(private)
    assert script.said()[0].create is True
    fresh = opened()
    fresh.call(private)
    assert fresh.said()[0].create is True, "nobody has ever heard that it was made"
    fresh.hear(Reply(0, 1, Status.OK, 1))
    third = opened()
    third.call(private)
    assert third.said()[0].create is False


# --- sending again ---


def test_after_a_reconnect_all_that_is_outstanding_is_said_again_as_it_was() -> None:
    """The same lane and number: the replicas answer a copy, they do not do it again."""
    script = opened()
    orders = target()
    script.session.finish(settled(script, orders, 0, 1))
    waiting = [script.call(orders), script.call(orders)]
    before = [message for message in script.said() if isinstance(message, Call)][1:]
    after = [message for message in script.reconnect() if isinstance(message, Call)]
    assert after == before
    assert not any(call.settled for call in waiting)


def test_a_call_begun_while_disconnected_is_sent_with_the_reconnect() -> None:
    script = opened()
    orders = target()
    script.session.finish(settled(script, orders, 0, 1))
    script.session.disconnected()
    call = script.call(orders)
    assert not call.sent
    script.connect()
    script.said()
    assert not script.outbox, "nothing is said before the group has taken the session up"
    script.hear(Resumed(7))
    assert Call(7, 0, 2, 1, "acquire", (), False) in script.said()
    assert call.sent


def test_words_for_a_former_connection_do_not_reach_the_next() -> None:
    script = opened()
    former = script.outbox
    script.session.disconnected()
    script.connect()
    script.hear(Resumed(7))
    script.call(target())
    assert not any(isinstance(codec.decode(body[4:]), Call) for body in former)


# --- withdrawing ---


def test_withdrawing_waits_for_the_verdict() -> None:
    script = opened()
    call = script.call(target(), tell=True)
    script.hear(Reply(0, 1, Status.PARKED, None))
    assert call.parked_at == script.now
    script.said()
    script.session.withdraw(call)
    script.session.withdraw(call)
    assert script.said() == [Withdraw(7, 0, 1, False)]
    assert not call.settled
    script.hear(Reply(0, 1, Status.OK, 12))
    assert call.value == 12, "granted after all"


def test_a_withdrawn_call_is_said_again_before_its_withdrawal() -> None:
    """A Condition.wait that was never seen must be seen first, or the verdict would speak of a lock that it never gave
    up.
    """
    script = opened()
    call = script.call(target(), "wait", manner=WAIT_CONDITION)
    script.session.withdraw(call)
    again = [message for message in script.reconnect() if isinstance(message, Call | Withdraw)]
    assert [type(message) for message in again] == [Call, Withdraw]


def test_a_call_that_was_never_sent_is_its_own_verdict() -> None:
    script = Script()
    waiting, queued = script.call(target()), script.call(target("jobs"), "put", 1, manner=PUT)
    script.session.withdraw(waiting)
    script.session.withdraw(queued, "full")
    assert (waiting.settled, waiting.status, waiting.value) == (True, Status.OK, False)
    assert (queued.status, queued.value) == (Status.ERROR, ("full", "", ()))
    assert not any(isinstance(message, Call) for message in script.open())


def test_abandoning_leaves_an_undo_behind_and_nothing_of_the_call() -> None:
    script = opened()
    call = script.call(target())
    script.said()
    script.session.abandon(call)
    assert script.said() == [Withdraw(7, 0, 1, True)]
    assert script.session.pending == []


def test_an_undone_lane_is_not_lent_out_before_the_group_has_said_so() -> None:
    """A new call on a lane acknowledges what was granted there: an undo that comes after it would find nothing."""
    script = opened()
    orders = target()
    script.session.abandon(script.call(orders))
    second = script.call(orders)
    assert second.lane is not None
    assert second.lane.index == 1
    script.hear(Reply(0, 1, Status.PARKED, None))
    third = script.call(orders)
    assert third.lane is not None
    assert third.lane.index == 2
    script.hear(Reply(0, 1, Status.ERROR, ("withdrawn", "", ())))
    settled(script, orders, 0, 2)


def test_a_call_that_is_abandoned_twice_gives_its_lane_back_once() -> None:
    """Ctrl-C strikes a caller that is just leaving because its time is up: it leaves twice."""
    script = opened()
    orders = target()
    call = script.call(orders)
    script.session.abandon(call)
    script.session.abandon(call)
    second = script.call(orders)
    assert second.lane is not None
    assert second.lane.index == 1
    script.hear(Reply(0, 1, Status.ERROR, ("withdrawn", "", ())))
    script.session.abandon(call)
    assert {script.call(orders).number, script.call(orders).number} == {1, 2}


def test_an_undo_is_said_again_until_it_is_answered() -> None:
    script = opened()
    script.session.abandon(script.call(target()))
    assert Withdraw(7, 0, 1, True) in script.reconnect()
    script.hear(Reply(0, 1, Status.ERROR, ("runtime", "withdrawn", ())))
    assert Withdraw(7, 0, 1, True) not in script.reconnect()


def test_an_undo_is_said_again_before_what_the_same_thread_asked_for_next() -> None:
    """Found by simulation (group 272): the release after an interrupted inner acquire came first, on an earlier lane;
    it returned, and the lock was still held.
    """
    script = opened()
    orders = target()
    outer, inner = script.call(orders), script.call(orders)
    script.hear(Reply(0, 1, Status.OK, (5, 1)))
    script.session.finish(outer)
    script.session.abandon(inner)
    release = script.call(orders, "release", 5)
    said = script.reconnect()
    assert release.lane is not None
    assert release.lane.index == 0
    assert said.index(Withdraw(7, 1, 1, True)) < said.index(Call(7, 0, 2, 1, "release", (5,), False))


def test_a_grant_that_was_on_its_way_does_not_pass_for_the_end_of_its_undo() -> None:
    """The undo may have been lost with the connection while the grant came through: then somebody would hold the lock
    of whom nobody knows.
    """
    script = opened()
    orders = target()
    script.session.abandon(script.call(orders))
    script.hear(Reply(0, 1, Status.OK, 12))
    assert Withdraw(7, 0, 1, True) in script.reconnect()
    second = script.call(orders)
    assert second.lane is not None
    assert second.lane.index == 1


@pytest.mark.parametrize(("manner", "value"), [(ACQUIRE, False), (READ, True), (CHANGE, None)])
def test_what_handed_nothing_out_is_undone_by_any_answer(manner: Manner, value: Any) -> None:
    """The group has nothing to take back then, and answers with the answer that stands."""
    script = opened()
    orders = target()
    script.session.abandon(script.call(orders, manner=manner))
    script.hear(Reply(0, 1, Status.OK, value))
    settled(script, orders, 0, 2)


def test_a_call_finished_and_abandoned_in_one_breath_is_undone() -> None:
    """Ctrl-C between the answer and the return: the caller never learns that it holds the lock."""
    script = opened()
    call = settled(script, target(), 0, 1)
    script.session.finish(call)
    script.said()
    script.session.reclaim(call)
    script.session.abandon(call)
    assert script.said() == [Withdraw(7, 0, 1, True)]


def test_a_lane_that_others_have_taken_by_then_is_left_to_them() -> None:
    script = opened()
    orders = target()
    former = settled(script, orders, 0, 1)
    script.session.finish(former)
    present = script.call(orders)
    script.said()
    script.session.reclaim(former)
    script.session.abandon(former)
    assert script.said() == []
    script.hear(Reply(0, 2, Status.OK, 1))
    assert present.settled


def test_abandoned_before_it_was_begun_it_never_begins() -> None:
    script = Script()
    call = script.call(target())
    script.session.abandon(call)
    assert not any(isinstance(message, Call) for message in script.open())
    script = opened()
    call = PendingCall(target(), "acquire", (), ACQUIRE)
    call.abandoned = True
    script.session.submit(call)
    assert script.said() == []


# --- acknowledging items ---


def test_an_item_is_acknowledged_with_the_next_keepalive_when_its_lane_is_quiet() -> None:
    script = opened()
    jobs = target("jobs")
    script.session.finish(settled(script, jobs, 0, 1, GET))
    script.said()
    script.now += TTL_S / 3
    script.session.tick(script.now)
    assert script.said() == [Acknowledge(7, ((0, 1),)), Keepalive(7, 2)]
    script.now += TTL_S / 3
    script.session.tick(script.now)
    assert script.said() == [Keepalive(7, 3)], "once is enough"


def test_a_lane_that_was_used_again_has_acknowledged_by_itself() -> None:
    script = opened()
    jobs = target("jobs")
    script.session.finish(settled(script, jobs, 0, 1, GET))
    script.session.finish(settled(script, jobs, 0, 2, READ))
    script.said()
    script.now += TTL_S / 3
    script.session.tick(script.now)
    assert script.said() == [Keepalive(7, 2)]


def test_an_item_whose_getter_has_gone_is_not_acknowledged() -> None:
    script = opened()
    call = settled(script, target("jobs"), 0, 1, GET)
    script.session.finish(call)
    script.session.reclaim(call)
    script.session.abandon(call)
    script.said()
    script.now += TTL_S / 3
    script.session.tick(script.now)
    assert script.said() == [Keepalive(7, 2)]


# --- the lease ---


def test_the_lease_counts_from_when_the_acknowledged_keepalive_was_sent() -> None:
    """From when the answer came it would outlive what the leader grants by one round trip."""
    script = opened()
    script.now += 3
    script.hear(Alive(7, 1))
    assert script.session.holds(1000.0 + LEASE_S - 0.001)
    assert not script.session.holds(1000.0 + LEASE_S)


def test_a_later_keepalive_extends_it_and_a_copy_of_an_earlier_one_does_not() -> None:
    script = opened()
    script.hear(Alive(7, 1))
    script.now += TTL_S / 3
    script.session.tick(script.now)
    script.hear(Alive(7, 2))
    script.hear(Alive(7, 1))
    assert script.session.holds(script.now + LEASE_S - 0.001)


def test_half_a_lease_without_an_acknowledgement_is_jeopardy_and_ends_with_one() -> None:
    script = opened()
    script.hear(Alive(7, 1))
    script.now += TTL_S / 2 - 0.001
    script.session.tick(script.now)
    assert script.session.state is State.CONNECTED
    script.now += 0.001
    script.session.tick(script.now)
    assert script.session.state is State.JEOPARDY
    script.hear(Alive(7, 2))
    assert script.session.state is State.CONNECTED


def test_lost_is_final_and_a_late_acknowledgement_revives_nothing() -> None:
    script = opened()
    call = script.call(target())
    script.now += LEASE_S
    script.hear(Alive(7, 1))
    assert script.session.state is State.LOST
    assert call.lost
    assert call.settled
    assert call.sent
    script.hear(Alive(7, 1))
    script.hear(Reply(0, 1, Status.OK, 1))
    assert script.session.state is State.LOST
    assert not script.session.holds(script.now)
    assert call.value is None


def test_whoever_reads_the_clock_first_decides() -> None:
    """A thread that was told "no longer yours" must not hear "yours" a moment later, from a word in flight."""
    script = opened()
    sent = script.now
    assert not script.session.holds(sent + LEASE_S)
    script.hear(Alive(7, 1))
    assert script.session.state is State.LOST


def test_an_answer_read_after_the_lease_is_no_answer() -> None:
    """A process that was stopped for an hour finds grants in its socket that are another's by now."""
    script = opened()
    call = script.call(target())
    script.now += 3600
    script.hear(Reply(0, 1, Status.OK, 1))
    assert call.lost


def test_the_end_that_the_group_tells_is_the_end() -> None:
    script = opened()
    call = script.call(target())
    script.hear(Ended(99))
    assert script.session.state is State.CONNECTED
    script.hear(Ended(7))
    assert script.session.state is State.LOST
    assert call.lost


def test_the_group_is_told_of_a_loss_that_our_clock_found() -> None:
    """So that the next in line need not wait for the group's own, later deadline."""
    script = opened()
    script.said()
    script.now += LEASE_S
    script.session.tick(script.now)
    assert script.said() == [Close(7)]


def test_after_the_end_nothing_begins() -> None:
    script = opened()
    orders = target()
    script.session.finish(settled(script, orders, 0, 1))
    script.hear(Ended(7))
    script.said()
    call = script.call(orders)
    assert call.lost
    assert not call.sent
    assert script.said() == []


def test_a_call_published_just_after_the_end_is_not_taken_for_begun() -> None:
    """The end sets its flag and then settles what it finds; a call it could not find must not wait for ever."""
    script = opened()
    orders = target()
    script.session.finish(settled(script, orders, 0, 1))
    call = PendingCall(orders, "acquire", (), ACQUIRE)
    real = script.session._lanes.borrow

    def end_meanwhile() -> Any:
        lane = real()
        script.hear(Ended(7))
        return lane

    script.session._lanes.borrow = end_meanwhile  # type: ignore[method-assign]
    assert not script.session.begin(call)
    assert not call.sent


def test_keepalives_go_on_at_a_third_of_the_lease_and_only_where_they_can_be_sent() -> None:
    script = opened()
    assert script.session.next_at(script.now) == pytest.approx(script.now + TTL_S / 3)
    script.session.disconnected()
    assert script.session.next_at(script.now) == pytest.approx(script.now + TTL_S / 2), "nothing to send, so jeopardy"
    script.now += TTL_S / 2
    script.session.tick(script.now)
    assert script.session.next_at(script.now) == pytest.approx(1000.0 + LEASE_S)


def test_a_reconnect_alone_extends_nothing() -> None:
    """A replica that lags may apply an old Resume now: only an acknowledged keepalive speaks for the leader."""
    script = opened()
    script.now += TTL_S / 2
    script.reconnect()
    assert not script.session.holds(1000.0 + LEASE_S)


# --- the end ---


def test_closing_says_so_and_loses_what_waits() -> None:
    script = opened()
    call = script.call(target(), manner=CHANGE)
    script.session.finish(settled(script, target("jobs"), 1, 1, GET))
    script.said()
    script.session.close_at_end()
    script.session.close()
    assert script.said() == [Acknowledge(7, ((1, 1),)), CloseAtEnd(7), Close(7)], "the last item was used"
    assert call.lost
    assert script.session.state is State.CLOSED
    assert script.session.next_at(script.now) == float("inf")


# --- answers that the caller itself has read ---


def answered(script: Script, call: PendingCall, reply: Reply) -> bool:
    return script.session.answered(call, reply, script.now)


def proved(script: Script, name: Target) -> None:
    """An answer has shown that `name` is attached, and its lane is free again."""
    script.session.finish(settled(script, name, 0, 1))


def test_a_caller_takes_the_answer_to_its_own_call_only() -> None:
    script, orders = opened(), target()
    proved(script, orders)
    call, other = script.call(orders), script.call(orders)
    assert (call.number, other.number) == (2, 1)
    assert not answered(script, call, Reply(1, 1, Status.OK, 5)), "another lane's"
    assert not answered(script, call, Reply(0, 1, Status.OK, 5)), "the call before on this lane"
    assert script.session.in_flight() == 2
    assert answered(script, call, Reply(0, 2, Status.OK, 5))
    assert (call.settled, call.value, other.settled) == (True, 5, False)
    assert not answered(script, call, Reply(0, 2, Status.OK, 6)), "a copy"
    assert script.session.in_flight() == 1
    assert call not in script.session.news, "it knows"


def test_a_caller_hears_itself_that_it_is_parked_and_what_is_refused() -> None:
    script, orders = opened(), target()
    proved(script, orders)
    call = script.call(orders, tell=True)
    assert answered(script, call, Reply(0, 2, Status.PARKED, None))
    assert (call.parked_at, call.settled) == (script.now, False)
    assert not answered(script, call, Reply(0, 2, 77, None)), "it means nothing, which is for `step` to say"
    assert not call.settled
    assert answered(script, call, Reply(0, 2, Status.ERROR, ("runtime", "no", ())))
    assert call.status is Status.ERROR


def test_the_answer_that_proves_an_attachment_is_for_the_serving_thread() -> None:
    """It alone keeps account of what to say again."""
    script, orders = opened(), target()
    call = script.call(orders)
    assert not answered(script, call, Reply(0, 1, Status.OK, 1))
    assert any(isinstance(word, Attach) for word in script.reconnect())
    script.hear(Reply(0, 1, Status.OK, 1))
    assert call.settled
    assert not any(isinstance(word, Attach) for word in script.reconnect())


def test_an_answer_after_the_lease_revives_nothing_for_the_caller_either() -> None:
    script, orders = opened(), target()
    proved(script, orders)
    call = script.call(orders)
    script.now += LEASE_S + 0.01
    assert not answered(script, call, Reply(0, 2, Status.OK, 1))
    script.hear(Reply(0, 2, Status.OK, 1))
    assert call.lost


def test_the_end_of_an_undo_is_an_answer_that_somebody_has_to_read() -> None:
    script, orders = opened(), target()
    proved(script, orders)
    script.session.abandon(script.call(orders))
    assert script.session.in_flight() == 1
    script.hear(Reply(0, 2, Status.ERROR, ("runtime", "withdrawn", ())))
    assert script.session.in_flight() == 0
