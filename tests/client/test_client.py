# SPDX-License-Identifier: Apache-2.0
"""Calls over real sockets, against a fake group: answers, timeouts, reconnects, loss, nested calls."""

from __future__ import annotations

import gc
import logging
import queue
import signal
import threading
import time
import weakref
from collections.abc import Callable
from threading import BrokenBarrierError
from typing import Any

import pytest
from client_fake import Fake, Leader, MoveOn, State

from dthreading import config
from dthreading.client import Client
from dthreading.errors import (
    GroupUnreachable,
    LockLost,
    NotAuthenticated,
    ObjectGone,
    OutcomeUnknown,
    WrongGroup,
)
from dthreading.link import Link
from dthreading.session import (
    ACQUIRE,
    CHANGE,
    GET,
    PUT,
    PUT_SIMPLE,
    READ,
    RELEASE,
    TRY_ACQUIRE,
    WAIT_BARRIER,
    WAIT_CONDITION,
    Answer,
)
from dthreading.session import State as SessionState
from dthreading.wire.messages import Attach, Call, Close, Detach, Ended, Keepalive, Open, Resume, Withdraw
from tests.client.calling import Caller, said, target, until

MakeClient = Callable[..., Client]


# --- plain calls ---


def test_a_call_brings_its_answer_and_the_session_it_was_given_to(fake: Fake, client: Client) -> None:
    lock = target()
    answer = client.call(lock, "acquire", (True, 1), ACQUIRE)
    assert answer == Answer(1, 101)
    assert client.holds_are_valid(answer.session)
    assert not client.holds_are_valid(0)
    assert client.call(lock, "release", (1,), RELEASE).value is None
    assert client.state is SessionState.CONNECTED
    assert client.cluster == "fake"


def test_what_the_replica_refuses_is_raised(client: Client) -> None:
    with pytest.raises(RuntimeError, match="release unlocked lock"):
        client.call(target(), "release", (None,), RELEASE)
    assert client.call(target(), "acquire", (True, 1), ACQUIRE).value == 1, "and costs nothing"


def test_what_became_of_a_deleted_object_costs_no_lane(fake: Fake, client: Client) -> None:
    """However it is told: a program may ask for it again and again."""
    lock = target()
    client.call(lock, "echo", (), READ)
    fake.order(fake.state.sessions[client.session].handles.clear)
    for _ in range(3):
        with pytest.raises(ObjectGone, match="orders"):
            client.call(lock, "echo", (), READ)
    assert not client._service.session.lent()


def test_arguments_that_cannot_travel_are_the_callers_error(client: Client) -> None:
    jobs = target("jobs")
    for _ in range(2):
        with pytest.raises(TypeError):
            client.call(jobs, "put", (object(),), PUT)


def test_many_threads_share_one_connection(fake: Fake, client: Client) -> None:
    jobs = target("jobs")

    def work(number: int) -> None:
        for turn in range(50):
            assert client.call(jobs, "echo", (number, turn), READ).value == (number, turn)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fake.connections == 1
    assert len(said(fake, Open)) == 1
    assert len({call.lane for call in said(fake, Call)}) <= 8


def test_a_blocked_call_is_answered_when_its_turn_comes(fake: Fake, client: Client) -> None:
    lock = target()
    client.call(lock, "acquire", (True, 1), ACQUIRE)
    waiter = Caller(client, lock, "acquire", (True, 2), ACQUIRE)
    until(lambda: fake.state.things["orders"].waiting)
    client.call(lock, "release", (1,), RELEASE)
    assert waiter.result().value == 2


def test_large_items_pass_though_the_socket_is_full(client: Client) -> None:
    """What the socket does not take goes on as it drains, and no other frame comes in between."""
    jobs = target("jobs")
    item = bytes(range(256)) * 16384
    puts = [Caller(client, jobs, "put", (item,), PUT) for _ in range(4)]
    assert [put.result().value for put in puts] == [None] * 4
    for _ in range(4):
        assert client.call(jobs, "get", (True,), GET).value == item


def test_importing_and_making_a_client_starts_nothing(make_client: MakeClient, fake: Fake) -> None:
    before = threading.active_count()
    made = make_client(fake)
    assert threading.active_count() == before
    made.detach(target())
    assert threading.active_count() == before
    assert fake.connections == 0


def test_ctrl_c_while_the_service_thread_starts_leaves_one(
    fake: Fake, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interrupt comes after the thread runs and before its start has returned: the next call must neither wait for
    a thread that never was nor have two of them at work.
    """
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        real(thread)
        monkeypatch.setattr(threading.Thread, "start", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        client.call(target(), "acquire", (True, 1), ACQUIRE)
    assert client.call(target(), "acquire", (True, 1), ACQUIRE, 10).value
    until(lambda: [one.name for one in threading.enumerate()].count("dthreading-client") == 1)


# --- timeouts ---


def test_a_timed_wait_ends_with_the_verdict(fake: Fake, client: Client) -> None:
    lock = target()
    client.call(lock, "acquire", (True, 1), ACQUIRE)
    started = time.monotonic()
    answer = client.call(lock, "acquire", (True, 2), ACQUIRE, 0.05)
    assert answer == Answer(False, 101)
    assert time.monotonic() - started >= 0.05
    [withdraw] = said(fake, Withdraw)
    assert withdraw.undo is False


def test_the_deadline_bounds_the_waiting_not_the_round_trip(fake: Fake, client: Client) -> None:
    """A free lock is granted over any network: the timer starts when the call is heard to be parked."""
    lock = target()
    client.call(lock, "echo", (), READ)
    release = threading.Event()

    def slow(call: Call) -> bool:
        if call.operation == "acquire":
            release.wait(0.2)
        return False

    fake.on_call = slow
    assert client.call(lock, "acquire", (True, 1), ACQUIRE, 0.005).value == 1


def test_granted_after_all_is_true(fake: Fake, client: Client) -> None:
    """The verdict decides, not the clock: a grant that crossed the withdrawal is kept."""
    lock = target()
    client.call(lock, "acquire", (True, 1), ACQUIRE)
    real = fake._withdraw

    def grant_first(peer: Any, withdraw: Withdraw) -> None:
        fake._spread(fake.state.hand_over(fake.state.things["orders"]))
        real(peer, withdraw)

    fake._withdraw = grant_first  # type: ignore[method-assign]
    assert client.call(lock, "acquire", (True, 2), ACQUIRE, 0.01).value == 2


def test_without_a_word_an_acquire_goes_after_its_patience_and_leaves_an_undo(
    fake: Fake, make_client: MakeClient
) -> None:
    client = make_client(fake, patience=0.1)
    lock = target()
    client.call(lock, "echo", (), READ)
    fake.on_call = lambda call: call.operation == "acquire"
    started = time.monotonic()
    assert client.call(lock, "acquire", (True, 1), ACQUIRE, 0.05) == Answer(False, 0)
    assert time.monotonic() - started >= 0.15
    until(lambda: said(fake, Withdraw))
    assert said(fake, Withdraw)[0].undo is True


def test_a_wait_that_gave_up_leaves_no_ghost_when_the_lock_comes_free(fake: Fake, make_client: MakeClient) -> None:
    """With no patience at all the call is withdrawn and abandoned in one breath; the grant must not be left behind."""
    client = make_client(fake, patience=0.0)
    lock = target()
    client.call(lock, "acquire", (True, 1), ACQUIRE)
    client.call(lock, "acquire", (True, 2), ACQUIRE, 0.01)
    client.call(lock, "release", (1,), RELEASE)
    fence = client.call(lock, "acquire", (True, 3), ACQUIRE).value
    assert fence >= 2


def test_a_timed_acquire_that_could_not_be_sent_is_never_sent(make_client: MakeClient) -> None:
    """Or it would be granted once the group is back, and its caller has long gone on without the lock."""
    client = make_client("127.0.0.1:1")
    assert client.call(target(), "acquire", (True, 1), ACQUIRE, 0.01).value is False
    session = client._service.session
    assert session is not None
    assert not session.pending


def test_put_waits_for_the_log_whatever_the_clock_says(fake: Fake, make_client: MakeClient) -> None:
    """Nobody may say "Full" of an item that may be in the queue."""
    client = make_client(fake, patience=0.01)
    jobs = target("jobs")
    client.call(jobs, "echo", (), READ)
    swallowed = threading.Event()

    def swallow(call: Call) -> bool:
        swallowed.set()
        return not said(fake, Resume)

    fake.on_call = swallow
    fake._withdraw = lambda peer, withdraw: None  # type: ignore[method-assign]
    put = Caller(client, jobs, "put", (1,), PUT, 0.01)
    assert swallowed.wait(10)
    until(lambda: said(fake, Withdraw))
    fake.cut()
    assert put.result().value is None, "said again, and done"
    assert [*fake.state.things["jobs"].items] == [1]
    assert not any(withdraw.undo for withdraw in said(fake, Withdraw))


def test_a_timed_put_to_a_group_that_was_never_there_is_full(make_client: MakeClient) -> None:
    client = make_client("127.0.0.1:1", patience=0.01)
    with pytest.raises(queue.Full):
        client.call(target("jobs"), "put", (1,), PUT, 0.01)
    with pytest.raises(queue.Empty):
        client.call(target("jobs"), "get", (True,), GET, 0.01)
    assert client.call(target(), "acquire", (True, 1), ACQUIRE, 0.01) == Answer(False, 0)


# --- nobody answers ---


def test_a_call_that_waits_for_nothing_raises_after_one_lease(make_client: MakeClient) -> None:
    client = make_client("127.0.0.1:1", lease=0.5)
    with pytest.raises(GroupUnreachable, match="one lease") as caught:
        client.call(target(), "locked", (), READ)
    assert "127.0.0.1:1" in str(caught.value), "it says what is wrong"


def test_such_a_call_leaves_no_ghost(fake: Fake, make_client: MakeClient) -> None:
    """It was sent, nobody answered; should it arrive after all, it must not take the lock."""
    client = make_client(fake, lease=0.5)
    lock = target()
    client.call(lock, "echo", (), READ)
    swallowed: list[Call] = []

    def swallow(call: Call) -> bool:
        if call.operation == "acquire":
            swallowed.append(call)
        return call.operation == "acquire"

    fake.on_call = swallow
    with pytest.raises(GroupUnreachable):
        client.call(lock, "acquire", (False, 1), TRY_ACQUIRE)
    until(lambda: any(one.undo and one.number == swallowed[0].number for one in said(fake, Withdraw)))
    fake.on_call = None
    assert client.call(lock, "acquire", (False, 1), TRY_ACQUIRE).value == 1


def test_a_wrong_secret_is_told_to_those_who_wait(fake: Fake, secret_file: Any, make_client: MakeClient) -> None:
    secret_file.write_text("11" * 32)
    client = make_client(fake)
    with pytest.raises(NotAuthenticated):
        client.call(target(), "acquire", (True, 1), ACQUIRE)


def test_another_group_at_the_old_address_is_refused(fake: Fake, client: Client, caplog: Any) -> None:
    """A server that was formatted anew knows nothing of what we hold. It is told once: the embedded group, which may
    have been removed, is dialed fifty times a second.
    """
    client.call(target(), "echo", (), READ)
    fake.state.cluster = "another"
    dialer = client._service.dialer
    with caplog.at_level(logging.WARNING, "dthreading"):
        fake.cut()
        until(lambda: isinstance(dialer.trouble, WrongGroup))
        for _ in range(2):
            refused = dialer.trouble
            until(lambda refused=refused: dialer.trouble is not refused)  # type: ignore[misc]
    assert ["belongs to the group" in record.getMessage() for record in caplog.records].count(True) == 1


# --- reconnecting ---


def test_a_cut_connection_is_replaced_and_the_wait_goes_on(fake: Fake, client: Client) -> None:
    lock = target()
    client.call(lock, "acquire", (True, 1), ACQUIRE)
    waiter = Caller(client, lock, "acquire", (True, 2), ACQUIRE)
    until(lambda: fake.state.things["orders"].waiting)
    fake.cut()
    until(lambda: said(fake, Resume))
    assert client.call(lock, "release", (1,), RELEASE).value is None
    assert waiter.result().value == 2
    acquires = [call for call in fake.state.applied if call.operation == "acquire"]
    assert len(acquires) == 2, "sent again, done once"


def test_an_answer_lost_with_the_connection_comes_with_the_next(fake: Fake, client: Client) -> None:
    """The fault of the ancestor: a wake-up was sent once, and a reconnect at that moment lost it."""
    lock = target()
    client.call(lock, "acquire", (True, 1), ACQUIRE)
    waiter = Caller(client, lock, "acquire", (True, 2), ACQUIRE)
    until(lambda: fake.state.things["orders"].waiting)
    fake.silent = True
    fake.do(lambda: fake.state.hand_over(fake.state.things["orders"]))
    fake.order(lambda: setattr(fake, "silent", False))
    fake.cut()
    assert waiter.result().value == 2


def test_any_server_will_do_and_the_leader_is_preferred(make_client: MakeClient) -> None:
    state = State()
    follower, leader = Fake(state), Fake(state)
    try:
        follower.leader = leader.leader = leader.address
        client = make_client("127.0.0.1:1", follower, leader)
        assert client.call(target(), "acquire", (True, 1), ACQUIRE).value == 1
        until(lambda: client._service.dialer.link is not None and client._service.dialer.link.name == leader.address)
        assert client.call(target(), "echo", (1,), READ).value == (1,)
    finally:
        client.close()
        follower.stop()
        leader.stop()


def test_a_new_leader_is_moved_to_and_calls_go_on(make_client: MakeClient) -> None:
    state = State()
    former, present = Fake(state), Fake(state)
    try:
        client = make_client(former, present)
        client.call(target(), "echo", (), READ)
        former.say(Leader(present.address))
        until(lambda: client._service.dialer.link is not None and client._service.dialer.link.name == present.address)
        assert client.call(target(), "echo", (2,), READ).value == (2,)
        assert len(state.sessions) == 1
    finally:
        client.close()
        former.stop()
        present.stop()


def test_a_replica_that_cannot_serve_sends_its_clients_on(make_client: MakeClient) -> None:
    state = State()
    first, second = Fake(state), Fake(state)
    try:
        client = make_client(first, second)
        client.call(target(), "echo", (), READ)
        first.say(MoveOn("it hears no leader"))
        until(lambda: second.connections)
        assert client.call(target(), "echo", (2,), READ).value == (2,)
    finally:
        client.close()
        first.stop()
        second.stop()


def test_a_replica_that_does_not_answer_is_left_for_another(make_client: MakeClient) -> None:
    state = State()
    hung, alive = Fake(state), Fake(state)
    try:
        hung.silent = True
        client = make_client(hung, alive, lease=1.0)
        assert client.call(target(), "acquire", (True, 1), ACQUIRE).value == 1
    finally:
        client.close()
        hung.stop()
        alive.stop()


# --- loss ---


def lose(fake: Fake, client: Client) -> None:
    """The group forgets the session, as after its expiry."""
    fake.order(lambda: [fake.state.end(session) for session in list(fake.state.sessions)])
    fake.cut()


def test_what_waits_has_the_fate_that_its_manner_says(fake: Fake, client: Client) -> None:
    lock = target()
    client.call(lock, "acquire", (True, 1), ACQUIRE)
    held = client.session
    fake.on_call = lambda call: call.session == held and call.operation != "acquire"
    waiting = Caller(client, lock, "acquire", (True, 2), ACQUIRE)
    until(lambda: fake.state.things["orders"].waiting)
    others = {
        LockLost: [
            Caller(client, lock, "release", (1,), RELEASE),
            Caller(client, lock, "wait", (1, None), WAIT_CONDITION),
        ],
        OutcomeUnknown: [Caller(client, lock, "put", (1,), PUT), Caller(client, lock, "set", (), CHANGE)],
        BrokenBarrierError: [Caller(client, lock, "wait", (False,), WAIT_BARRIER)],
    }
    reading = Caller(client, lock, "echo", (5,), READ)
    until(lambda: len(said(fake, Call)) == 8)
    lose(fake, client)
    for error, callers in others.items():
        for caller in callers:
            assert type(caller.result()) is error
    answer = waiting.result()
    assert answer.session == client.session != held, "asked again in a new session"
    assert reading.result().value == (5,)
    assert not client.holds_are_valid(held)
    assert client.holds_are_valid(client.session)


def test_the_client_finds_the_loss_by_its_own_clock(fake: Fake, make_client: MakeClient, caplog: Any) -> None:
    """Nobody tells it: the keepalives are not acknowledged, and it must know before the group gives the lock away."""
    lost: queue.SimpleQueue[config.Lost] = queue.SimpleQueue()
    fake.mute_keepalives = True
    with caplog.at_level(logging.WARNING, "dthreading"):
        client = make_client(fake, lease=0.5, on_lost=lost.put)
        answer = client.call(target(), "acquire", (True, 1), ACQUIRE)
        assert lost.get(timeout=20).session == answer.session
    assert not client.holds_are_valid(answer.session)
    levels = [(record.levelname, "'orders'" in record.getMessage()) for record in caplog.records]
    assert levels == [("WARNING", True), ("ERROR", True)], "jeopardy, then loss, each naming what is in use"
    until(lambda: said(fake, Close))


def test_after_a_loss_the_next_call_opens_a_new_session(fake: Fake, client: Client) -> None:
    lock = target()
    former = client.call(lock, "acquire", (True, 1), ACQUIRE)
    lose(fake, client)
    until(lambda: client.state is SessionState.LOST)
    assert len(said(fake, Open)) == 1, "not before it is needed"
    again = client.call(lock, "acquire", (True, 1), ACQUIRE)
    assert again.session != former.session
    assert [message.session for message in said(fake, Attach)] == [former.session, again.session]


def test_a_call_that_is_asked_in_the_moment_of_a_loss_opens_a_new_session(
    fake: Fake, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service thread had not looked after the connection yet, which was the former session's: nobody said Open
    there, and the call waited for ever.
    """
    first = client.call(target(), "echo", (), READ)
    service, turn = client._service, client._service._turn
    entered, lost, asked = threading.Event(), threading.Event(), threading.Event()

    def turn_and_wait(most_s: float) -> None:
        entered.set()
        turn(most_s)
        if client.state is SessionState.LOST and not lost.is_set():
            lost.set()
            assert asked.wait(20)

    monkeypatch.setattr(service, "_turn", turn_and_wait)
    service.wake()
    assert entered.wait(20)
    fake.say(Ended(first.session))
    assert lost.wait(20)
    caller = Caller(client, target("other"), "echo", (), READ)
    until(lambda: service._requests)
    asked.set()
    assert caller.result().session != first.session


def test_a_timed_get_whose_time_is_up_is_not_asked_again(fake: Fake, make_client: MakeClient) -> None:
    """Timeouts never restart: not on a wake-up, and not in a new session."""
    client = make_client(fake, patience=0.0)
    jobs = target("jobs")
    client.call(jobs, "echo", (), READ)
    fake.on_call = lambda call: call.operation == "get"
    fake._withdraw = lambda peer, withdraw: None  # type: ignore[method-assign]
    getting = Caller(client, jobs, "get", (True,), GET, 0.01)
    until(lambda: said(fake, Withdraw))
    lose(fake, client)
    assert isinstance(getting.result(), queue.Empty)


# --- calls inside calls ---


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread")
def test_a_signal_handler_may_call_while_its_thread_waits(fake: Fake, client: Client) -> None:
    lock = target()
    client.call(lock, "acquire", (True, 1), ACQUIRE)
    inside: list[Any] = []

    def handle(*_: Any) -> None:
        inside.append(client.call(lock, "echo", (1,), READ).value)
        client.call(lock, "release", (1,), RELEASE)

    former = signal.signal(signal.SIGUSR1, handle)
    try:
        poker = threading.Thread(
            target=lambda: (
                until(lambda: fake.state.things["orders"].waiting),
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1),
            )
        )
        poker.start()
        assert client.call(lock, "acquire", (True, 1), ACQUIRE).value == 2
        poker.join()
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert inside == [(1,)]


def test_a_call_inside_the_write_of_another_gets_a_new_connection(
    fake: Fake, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outer write holds the connection's write lock and cannot go on before the inner call returns."""
    jobs = target("jobs")
    client.call(jobs, "echo", (), READ)
    inside: list[Any] = []
    real = Link._write

    def write(link: Link) -> None:
        if not inside and threading.current_thread() is threading.main_thread():
            inside.append(None)
            inside.append(client.call(jobs, "put", (2,), PUT).value)
        real(link)

    monkeypatch.setattr(Link, "_write", write)
    client.call(jobs, "put", (1,), PUT)
    assert inside == [None, None]
    puts = sorted(call.arguments[0] for call in fake.state.applied if call.operation == "put")
    assert puts == [1, 2], "each once"


def test_a_thread_that_never_comes_back_from_a_write_stops_nobody_else(
    fake: Fake, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between taking the write lock and the `try` that gives it back."""
    jobs = target("jobs")
    client.call(jobs, "echo", (), READ)
    link = client._service.dialer.link
    assert link is not None
    assert link._writing.acquire(blocking=False)
    assert client.call(jobs, "echo", (1,), READ).value == (1,)
    assert client._service.dialer.link is not link
    link._writing.release()


class Cycle:
    """Only the collector ends it, wherever it runs: in the midst of any call, in the service thread as well."""

    ended: Callable[[], None]

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        type(self).ended()


def test_finalizers_may_call_at_any_moment(fake: Fake, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = target("jobs")
    ended: list[str] = []

    def put() -> None:
        ended.append(threading.current_thread().name)
        if ended[-1] == "fake":
            fake.state.lock("jobs").items.append(len(ended))  # it cannot be its own client
            return
        client.call(jobs, "put", (len(ended),), PUT_SIMPLE)
        assert client.call(jobs, "echo", (1,), READ).value == (1,)

    monkeypatch.setattr(Cycle, "ended", put, raising=False)
    threshold = gc.get_threshold()
    gc.set_threshold(7)
    try:
        for _ in range(200):
            Cycle()
            client.call(jobs, "echo", (), READ)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    until(lambda: len(fake.state.things["jobs"].items) == 200)
    assert sorted(fake.state.things["jobs"].items) == list(range(1, 201))


def test_the_service_thread_itself_may_call(fake: Fake, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finalizer that the collector runs there cannot wait for an answer that this thread would have to read."""
    jobs = target("jobs")
    client.call(jobs, "echo", (), READ)
    outcomes: queue.SimpleQueue[Any] = queue.SimpleQueue()
    here = client._service
    real = here._pass_on

    def pass_on(session: Any) -> None:
        monkeypatch.setattr(here, "_pass_on", real)
        assert threading.current_thread().name == "dthreading-client"
        assert client.call(jobs, "put", ("silent",), PUT_SIMPLE).value is None
        outcomes.put(client.call(jobs, "acquire", (True, 1), ACQUIRE))
        outcomes.put(client.call(jobs, "acquire", (True, 1), ACQUIRE, 0.01).value)
        real(session)

    monkeypatch.setattr(here, "_pass_on", pass_on)
    here.wake()
    answer = outcomes.get(timeout=20)
    assert answer.value == 1
    assert answer.session != client.session, "in a session of its own"
    assert client.holds_are_valid(answer.session)
    assert outcomes.get(timeout=20) is False
    until(lambda: list(fake.state.things["jobs"].items) == ["silent"])
    assert client.call(jobs, "echo", (2,), READ).value == (2,)
    client.close()
    until(lambda: not fake.state.sessions)


def test_what_a_finalizer_holds_is_kept_alive(
    fake: Fake, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(fake, lease=0.5)
    lock = target()
    client.call(lock, "echo", (), READ)
    held: list[Answer] = []
    here = client._service
    real = here._pass_on

    def pass_on(session: Any) -> None:
        monkeypatch.setattr(here, "_pass_on", real)
        held.append(client.call(lock, "acquire", (True, 1), ACQUIRE))
        real(session)

    monkeypatch.setattr(here, "_pass_on", pass_on)
    here.wake()
    until(lambda: held)
    beats = lambda: [one.beat for one in said(fake, Keepalive) if one.session == held[0].session]  # noqa: E731
    until(lambda: len(beats()) >= 6)
    assert client.holds_are_valid(held[0].session), "two leases later"


# --- detaching ---


def test_detaching_from_a_finalizer_only_enqueues(fake: Fake, make_client: MakeClient) -> None:
    client = make_client(fake, lease=0.5)

    class Proxy:
        pass

    proxy, lock = Proxy(), target()
    weakref.finalize(proxy, client.detach, lock)
    client.call(lock, "echo", (), READ)
    calls = len(said(fake, Call))
    del proxy
    assert len(said(fake, Call)) == calls
    until(lambda: said(fake, Detach))
    client.call(lock, "echo", (), READ)
    assert [message.handle for message in said(fake, Attach)] == [1, 2]


def test_a_dropped_target_is_kept_alive_by_nothing(fake: Fake, make_client: MakeClient) -> None:
    client = make_client(fake, lease=0.5)
    lock = target()
    client.call(lock, "echo", (), READ)
    gone = weakref.ref(lock)
    client.detach(lock)
    del lock
    until(lambda: said(fake, Detach))
    client.call(target("other"), "echo", (), READ)
    client.call(target("other"), "echo", (), READ)
    gc.collect()
    assert gone() is None


# --- the end ---


def test_closing_gives_back_what_was_held_and_fails_what_waits(fake: Fake, client: Client) -> None:
    lock = target()
    client.call(lock, "acquire", (True, 1), ACQUIRE)
    waiting = Caller(client, lock, "acquire", (True, 2), ACQUIRE)
    until(lambda: fake.state.things["orders"].waiting)
    client.close()
    assert isinstance(waiting.result(), GroupUnreachable)
    until(lambda: not fake.state.sessions)
    assert fake.state.things["orders"].holder is None
    assert not [thread for thread in threading.enumerate() if thread.name == "dthreading-client"]


def test_goodbye_lets_the_end_of_the_connection_end_the_session(fake: Fake, client: Client) -> None:
    client.call(target(), "acquire", (True, 1), ACQUIRE)
    client.say_goodbye()
    until(lambda: all(session.close_at_end for session in fake.state.sessions.values()))
    assert client.call(target(), "echo", (1,), READ).value == (1,), "until then all goes on"


def test_an_idle_client_says_keepalives_only(fake: Fake, make_client: MakeClient) -> None:
    client = make_client(fake, lease=0.5)
    client.call(target(), "echo", (), READ)
    heard = len(fake.state.heard)
    until(lambda: len(fake.state.heard) >= heard + 3)
    assert {type(message) for message in fake.state.heard[heard:]} == {Keepalive}
