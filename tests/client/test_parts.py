# SPDX-License-Identifier: Apache-2.0
"""Parts of the client by themselves, in states that a whole one comes to by chance only."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from threading import BrokenBarrierError
from types import SimpleNamespace
from typing import Any

import pytest
from client_fake import Fake

from dthreading.client import _AGAIN, Client
from dthreading.config import Settings
from dthreading.dialing import Dialer
from dthreading.errors import (
    GroupUnreachable,
    LockLost,
    OutcomeUnknown,
)
from dthreading.finding import Finder
from dthreading.service import Service
from dthreading.session import (
    ACQUIRE,
    CHANGE,
    GET,
    PUT,
    READ,
    RELEASE,
    TRY_ACQUIRE,
    WAIT_BARRIER,
    WAIT_CONDITION,
    Deadline,
    Manner,
    PendingCall,
)
from dthreading.session import State as SessionState
from dthreading.wire.messages import Reply, Status
from tests.client.calling import target, until

MakeClient = Callable[..., Client]


def dialer_of(settings: Settings) -> Dialer:
    return Dialer(Finder(settings, lambda: 0.0, lambda: None), settings.lease)


def test_a_lane_that_was_given_back_too_soon_is_not_lent_to_the_callers_next_call(
    fake: Fake, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted between the answer and the return: a new call there would acknowledge a grant that nobody has."""
    lock = target()
    client.call(lock, "echo", (), READ)
    session, service = client._service.session, client._service
    assert session is not None
    wake = threading.Lock()
    wake.acquire()
    granted = PendingCall(lock, "acquire", (True, 1), ACQUIRE, wake=wake)
    assert session.begin(granted)
    service.wake()
    assert wake.acquire(timeout=20)
    lane = granted.lane
    session.finish(granted)
    later: list[Any] = []
    with monkeypatch.context() as held_up:
        held_up.setattr(service, "_ask", lambda *asked: later.append(asked))
        service.abandon(granted)
        following = PendingCall(lock, "echo", (), READ, wake=threading.Lock())
        assert session.begin(following)
        assert following.lane is not lane
    for asked in later:
        service._ask(*asked)
    until(lambda: following.settled and fake.state.things["orders"].holder is None)
    session.finish(following)


def test_a_session_that_comes_in_jeopardy_is_given_time_for_a_keepalive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its whole attempt may have gone by until it was taken up: dropped at once, it would never be safe again."""
    dialer = dialer_of(Settings(servers=("127.0.0.1:1",), namespace="test", lease=6.0))
    monkeypatch.setattr(dialer, "_dial", lambda *_: None)
    session: Any = SimpleNamespace(ready=True, over=False, state=SessionState.JEOPARDY, disconnected=lambda: None)
    link: Any = SimpleNamespace(
        name="one", peer="one", broken=None, welcome=None, unsent=b"", read=lambda **_: [], close=lambda: True
    )
    dialer._dialing, dialer._give_up_at = link, 100.0
    dialer._take_in(link, session, lambda: 99.9, receive=True)
    for now, used in ((100.5, link), (101.0, None)):
        dialer.tend(session, now)
        assert dialer.link is used


def test_a_connection_whose_writer_comes_back_late_is_closed_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while all is well with the next one: it is a descriptor less for the program."""
    dialer = dialer_of(Settings(servers=("127.0.0.1:1",), namespace="test"))
    monkeypatch.setattr(dialer._route, "should_move", lambda *_: False)
    session: Any = SimpleNamespace(over=False, state=SessionState.CONNECTED)
    free = [False]
    grave: Any = SimpleNamespace(close=lambda at_once: free[0] or at_once)
    dialer.link = SimpleNamespace(name="one", peer="one", broken=None, welcome=None)  # type: ignore[assignment]
    dialer._graves.append((100.0, grave))
    dialer.tend(session, 50.0)
    assert dialer._graves
    free[0] = True
    dialer.tend(session, 51.0)
    assert not dialer._graves


def test_a_call_that_is_withdrawn_before_there_is_a_session_is_settled() -> None:
    """Ctrl-C before a wait was even asked: its caller waits for the verdict, and nobody else would give one."""
    service = Service(Settings(servers=("127.0.0.1:1",), namespace="test"), "a test", time.monotonic, threaded=False)
    call = PendingCall(target(), "wait", (1, None), WAIT_CONDITION, wake=threading.Lock())
    service._withdraw(call)
    assert call.settled
    assert call.abandoned, "whoever asks it later must not begin it"


def test_who_waits_in_a_forked_child_is_told_that_the_answer_is_the_parents() -> None:
    """The fork was made in a handler inside its wait: it sleeps at its lock, which nobody else would open."""
    service = Service(Settings(servers=("127.0.0.1:1",), namespace="test"), "a test", time.monotonic, threaded=False)
    asleep, awake = (PendingCall(target(), "acquire", (True, 1), ACQUIRE, wake=threading.Lock()) for _ in range(2))
    asleep.wake.acquire()
    service.session = SimpleNamespace(pending=[asleep, awake])  # type: ignore[assignment]
    why = OutcomeUnknown("asked before a fork")
    service.after_fork(why)
    for call in (asleep, awake):
        assert call.error is why
        assert call.settled
        assert not call.wake.locked()


@pytest.mark.parametrize(
    ("manner", "sent", "told", "told_in_time"),
    [
        (ACQUIRE, True, type(None), None),
        (TRY_ACQUIRE, True, GroupUnreachable, None),
        (RELEASE, True, LockLost, LockLost),
        (RELEASE, False, LockLost, LockLost),
        (WAIT_CONDITION, True, LockLost, LockLost),
        (PUT, True, OutcomeUnknown, OutcomeUnknown),
        (PUT, False, queue.Full, None),
        (CHANGE, True, OutcomeUnknown, OutcomeUnknown),
        (CHANGE, False, GroupUnreachable, None),
        (GET, True, queue.Empty, None),
        (WAIT_BARRIER, True, BrokenBarrierError, BrokenBarrierError),
        (WAIT_BARRIER, False, BrokenBarrierError, None),
    ],
)
def test_what_is_told_of_a_call_whose_session_has_ended(
    make_client: MakeClient, manner: Manner, sent: bool, told: type, told_in_time: type | None
) -> None:
    """Only what may have happened is of unknown outcome; what never left is asked again, as long as there is time."""
    client = make_client("127.0.0.1:1")
    call = PendingCall(target(), "operation", (), manner)
    call.session, call.lost, call.sent = SimpleNamespace(why_over="it ended"), True, sent  # type: ignore[assignment]
    for timeout, expected in ((-1.0, told), (1000.0, told_in_time)):
        failure = client._lost(call, Deadline(timeout, 0.0, client._clock()))
        assert failure is _AGAIN if expected is None else type(failure) is expected


def test_a_deadline_holds_for_all_sessions_that_its_call_is_asked_in() -> None:
    """It counts from when the call was first heard to be parked: one that is asked again does not wait anew."""
    deadline = Deadline(10.0, 2.0, 1000.0)
    first, again = (PendingCall(target(), "acquire", (True, 1), ACQUIRE) for _ in range(2))
    assert deadline.at(first) == 1012.0
    first.heard(Reply(0, 1, int(Status.PARKED), None), 1001.0)
    assert deadline.at(first) == 1011.0
    assert deadline.at(again) == 1011.0
    again.heard(Reply(0, 1, int(Status.PARKED), None), 1009.0)
    assert deadline.at(again) == 1011.0
