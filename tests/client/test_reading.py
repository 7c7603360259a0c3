# SPDX-License-Identifier: Apache-2.0
"""Who reads from the connection: a caller for itself where calls come one at a time, else the service thread. Whatever
strikes a caller that reads, the others get their answers, and not by the look-in of a service thread that lingers: all
its times are set far beyond the length of a test here.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from client_fake import Fake

import dthreading.link
import dthreading.reading
import dthreading.service
import dthreading.session.calls
from dthreading import reading
from dthreading.client import Client
from dthreading.errors import GroupUnreachable
from dthreading.link import Link
from dthreading.session import ACQUIRE, READ, State, Target
from dthreading.wire import codec
from dthreading.wire.codec import encode
from dthreading.wire.framing import frame
from dthreading.wire.messages import Call, Leader, Reply, Resume, Status, Withdraw
from tests.client.calling import Caller, target, until
from tests.tracing import calling_at, interrupted_at

MakeClient = Callable[..., Client]

FILES = {
    module.__file__
    for module in (
        dthreading.link,
        dthreading.reading,
        dthreading.service,
        dthreading.session.calls,
    )
}

LONG_S = 60.0
"""Longer than any test here may take."""


@pytest.fixture(autouse=True)
def nothing_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has the role keeps it until something happens, and nobody is thought stuck."""
    for name in ("LINGER_S", "READ_S", "STUCK_S"):
        monkeypatch.setattr(reading, name, LONG_S)
    monkeypatch.setattr(reading, "CROWD_S", 0.0)
    monkeypatch.setattr(reading, "CROWD_S_MAX", 0.0)


@pytest.fixture
def client(fake: Fake, make_client: MakeClient) -> Client:
    """No keepalive is due in a test."""
    return make_client(fake, lease=LONG_S)


def role_of(client: Client) -> reading.ReadRole:
    link = client._service.dialer.link
    assert link is not None
    return link.role


def leave_to_callers(client: Client, lock: Target) -> reading.ReadRole:
    """Makes calls until the service thread lingers."""

    def lingers() -> bool:
        client.call(lock, "echo", (), READ)
        link = client._service.dialer.link
        return link is not None and not link.role.ours and link.broken is None

    until(lingers)
    return role_of(client)


def parked_reader(fake: Fake, client: Client, name: str) -> Caller:
    """A caller that has the role and waits for a lock that another has."""
    lock = target(name)
    fake.state.lock(name).holder = (1, 1, 1)
    role = leave_to_callers(client, lock)
    caller = Caller(client, lock, "acquire", (True, 1), ACQUIRE)
    until(lambda: fake.state.things[name].waiting and role.reader is not None)
    return caller


def grant(fake: Fake, name: str) -> None:
    fake.do(lambda: fake.state.hand_over(fake.state.things[name]))


# --- one caller ---


def test_a_lone_caller_reads_for_itself_and_wakes_nobody(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = target()
    role = leave_to_callers(client, lock)
    wakes: list[int] = []
    monkeypatch.setattr(client._service, "wake", lambda: wakes.append(1))
    before = role.turns
    for number in range(50):
        assert client.call(lock, "echo", (number,), READ).value == (number,)
    monkeypatch.undo()
    assert role.turns == before + 50
    assert not wakes


def test_who_was_served_by_the_service_thread_in_between_does_not_wait_at_the_socket(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer came just before the caller took the role: it is there, and so is a wake-up that nobody needs."""
    lock = target()
    role = leave_to_callers(client, lock)
    real = reading.read_own

    def late(link: Link, call: Any, *more: Any) -> bool:
        if call.operation == "late":
            assert role.lock.acquire(blocking=False)
            role.lock.release()
            client._service.wake()
            until(lambda: call.settled)
        return real(link, call, *more)

    monkeypatch.setattr(reading, "read_own", late)
    assert client.call(lock, "late", (1,), READ).value == (1,)
    assert client.call(lock, "echo", (2,), READ).value == (2,)


def test_a_timed_wait_with_the_role_ends_with_the_verdict(fake: Fake, client: Client) -> None:
    lock = target()
    fake.state.lock("orders").holder = (1, 1, 1)
    leave_to_callers(client, lock)
    assert client.call(lock, "acquire", (True, 1), ACQUIRE, 0.05).value is False
    assert [one.undo for one in fake.state.heard if isinstance(one, Withdraw)] == [False]


def test_who_waits_for_long_leaves_the_role_to_the_service_thread(
    fake: Fake, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "READ_S", 0.01)
    fake.state.lock("orders").holder = (1, 1, 1)
    role = leave_to_callers(client, target("orders"))
    caller = Caller(client, target(), "acquire", (True, 1), ACQUIRE)
    until(lambda: fake.state.things["orders"].waiting and role.ours)
    grant(fake, "orders")
    assert caller.result().value == 1


def test_a_caller_with_the_role_hands_everything_else_on(fake: Fake, make_client: MakeClient) -> None:
    """Keepalives above all: the lease goes on while a caller sits at the socket for two leases."""
    client = make_client(fake, lease=0.5)
    caller = parked_reader(fake, client, "orders")
    heard = len([one for one in fake.state.heard if type(one).__name__ == "Keepalive"])
    until(lambda: len([one for one in fake.state.heard if type(one).__name__ == "Keepalive"]) > heard + 6)
    assert client.state is State.CONNECTED
    assert role_of(client).reader is not None, "and it still has the role"
    grant(fake, "orders")
    assert caller.result().value == 1


def test_a_cut_connection_is_replaced_under_a_caller_that_reads(fake: Fake, client: Client) -> None:
    caller = parked_reader(fake, client, "orders")
    fake.cut()
    until(lambda: any(isinstance(one, Resume) for one in list(fake.state.heard)))
    grant(fake, "orders")
    assert caller.result().value == 1
    assert client.call(target(), "echo", (1,), READ).value == (1,)


@pytest.mark.parametrize(
    "bytes_",
    [b"\xff\xff\xff\xff", frame(b"\x91\xc1"), frame(encode(Reply(0, 0, 77, None))), frame(encode(Leader("x"))) * 3],
    ids=["no frame", "no message", "no status", "another's message"],
)
def test_whatever_comes_to_a_caller_that_reads_costs_a_connection_at_most(
    fake: Fake, client: Client, bytes_: bytes
) -> None:
    caller = parked_reader(fake, client, "orders")
    fake.order(lambda: [peer.socket.sendall(bytes_) for peer in fake._peers.values()])
    assert client.call(target("jobs"), "echo", (1,), READ).value == (1,)
    grant(fake, "orders")
    assert caller.result().value == 1


def test_a_status_of_ones_own_call_that_means_nothing_ends_the_connection(fake: Fake, client: Client) -> None:
    lock = target()
    leave_to_callers(client, lock)
    connections = fake.connections

    def nonsense(call: Call) -> bool:
        if call.operation != "odd" or fake.connections > connections:
            return False
        for peer in fake._peers.values():
            peer.say(Reply(call.lane, call.number, 77, None))
        return True

    fake.on_call = nonsense
    assert client.call(lock, "odd", (1,), READ).value == (1,)
    assert fake.connections == connections + 1


def test_closing_ends_the_wait_of_a_caller_that_reads(fake: Fake, client: Client) -> None:
    caller = parked_reader(fake, client, "orders")
    client.close()
    assert isinstance(caller.result(), GroupUnreachable)
    until(lambda: not fake.state.sessions)


# --- several callers ---


def test_a_caller_that_reads_leaves_others_answers_to_the_service_thread(fake: Fake, client: Client) -> None:
    parked = parked_reader(fake, client, "orders")
    for number in range(20):
        assert Caller(client, target("jobs"), "echo", (number,), READ).result().value == (number,)
    grant(fake, "orders")
    assert parked.result().value == 1


def test_who_leaves_while_others_wait_sees_to_it_that_somebody_reads(fake: Fake, client: Client) -> None:
    first = parked_reader(fake, client, "orders")
    fake.state.lock("jobs").holder = (1, 1, 1)
    second = Caller(client, target("jobs"), "acquire", (True, 1), ACQUIRE)
    until(lambda: fake.state.things["jobs"].waiting)
    grant(fake, "orders")
    assert first.result().value == 1
    grant(fake, "jobs")
    assert second.result().value == 1


def test_the_service_thread_keeps_the_role_from_a_crowd(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """To hand it over costs a wake-up; so it is not tried again soon."""
    monkeypatch.setattr(reading, "CROWD_S", LONG_S)
    monkeypatch.setattr(reading, "CROWD_S_MAX", LONG_S)
    lock = target()
    role = leave_to_callers(client, lock)
    client._service._keeper.crowd(client._clock())
    client._service.wake()
    until(lambda: role.ours)
    turns = role.turns
    for number in range(20):
        assert client.call(lock, "echo", (number,), READ).value == (number,)
    assert role.turns == turns


def test_a_thread_that_never_comes_back_from_its_turn_stops_nobody_else(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two Ctrl-C, the second one where the first is handled."""
    lock = target()
    role = leave_to_callers(client, lock)
    link = client._service.dialer.link
    taken = threading.Thread(target=lambda: role.lock.acquire(blocking=False))
    taken.start()
    taken.join()
    monkeypatch.setattr(reading, "STUCK_S", 0.2)
    monkeypatch.setattr(reading, "LINGER_S", 0.05)
    client._service.wake()
    assert client.call(lock, "echo", (1,), READ).value == (1,)
    assert client._service.dialer.link is not link


# --- calls inside calls, and interrupts ---


@pytest.fixture
def on_signal() -> Iterator[Callable[[Callable[[], Any]], None]]:
    former = signal.getsignal(signal.SIGUSR1)
    yield lambda handle: signal.signal(signal.SIGUSR1, lambda *_: handle()) and None
    signal.signal(signal.SIGUSR1, former)


def poke(condition: Callable[[], Any]) -> threading.Thread:
    """A signal for the main thread, once `condition` holds."""

    def run() -> None:
        until(condition)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_handler_may_call_while_its_thread_reads(fake: Fake, client: Client, on_signal: Any) -> None:
    """The outer call loses the role, since it cannot go on before the inner one is done."""
    lock = target()
    fake.state.lock("orders").holder = (1, 1, 1)
    inside: list[Any] = []

    def handle() -> None:
        inside.append(client.call(target("jobs"), "echo", (1,), READ).value)
        inside.append(client.call(target("jobs"), "echo", (2,), READ).value)
        grant(fake, "orders")

    on_signal(handle)
    role = leave_to_callers(client, lock)
    connections = fake.connections
    poker = poke(lambda: fake.state.things["orders"].waiting and role.reader is not None)
    # With its own time it comes back to look; what wakes it at once is at its lock.
    reading.READ_S = 0.5
    assert client.call(lock, "acquire", (True, 1), ACQUIRE).value == 1
    poker.join()
    assert inside == [(1,), (2,)]
    assert fake.connections == connections, "and nobody is in the middle of anything"


def test_a_handler_whose_call_meets_the_write_of_another_thread_does_not_wait_for_its_own(
    fake: Fake, client: Client, on_signal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer takes its words along. The outer call has the role of reading and cannot use it, so it loses it there,
    too; nobody waits until the writer is thought stuck.
    """
    monkeypatch.setattr(dthreading.client, "STUCK_S", 1.0)
    stuck: list[int] = []
    monkeypatch.setattr(Link, "check_stuck", lambda _, written: stuck.append(written))
    lock = target()
    fake.state.lock("orders").holder = (1, 1, 1)
    inside: list[Any] = []

    def write() -> None:
        assert link._writing.acquire(timeout=20)
        writing.set()
        until(lambda: link.outbox)
        link._writing.release()
        link.flush()

    def handle() -> None:
        thread.start()
        assert writing.wait(20)
        inside.append(client.call(jobs, "echo", (1,), READ).value)
        grant(fake, "orders")

    on_signal(handle)
    jobs = target("jobs")
    client.call(jobs, "echo", (0,), READ)  # attached, so that the next call on it writes by itself
    role = leave_to_callers(client, lock)
    link = client._service.dialer.link
    assert link is not None
    writing, thread = threading.Event(), threading.Thread(target=write)
    poker = poke(lambda: fake.state.things["orders"].waiting and role.reader is not None)
    reading.READ_S = 0.5
    assert client.call(lock, "acquire", (True, 1), ACQUIRE).value == 1
    poker.join()
    thread.join()
    assert inside == [(1,)]
    assert not stuck


def test_a_call_inside_the_taking_of_answers_gets_a_new_connection(
    fake: Fake, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finalizer that the collector runs there, say: what the outer call has taken nobody else can see."""
    lock = target()
    leave_to_callers(client, lock)
    connections = fake.connections
    inside: list[Any] = []
    real = Link.receive

    def receive(link: Link) -> list[bytes]:
        bodies = real(link)
        if bodies and not inside and threading.current_thread() is threading.main_thread():
            inside.append(None)
            inside.append(client.call(lock, "echo", (2,), READ).value)
        return bodies

    monkeypatch.setattr(Link, "receive", receive)
    assert client.call(lock, "echo", (1,), READ).value == (1,)
    assert inside == [None, (2,)]
    assert fake.connections == connections + 1
    monkeypatch.undo()
    assert client.call(lock, "echo", (3,), READ).value == (3,)


def test_ctrl_c_at_the_socket_costs_no_connection(fake: Fake, client: Client, on_signal: Any) -> None:
    lock = target()
    fake.state.lock("orders").holder = (1, 1, 1)

    def handle() -> None:
        raise KeyboardInterrupt

    on_signal(handle)
    role = leave_to_callers(client, lock)
    connections = fake.connections
    poker = poke(lambda: fake.state.things["orders"].waiting and role.reader is not None)
    with pytest.raises(KeyboardInterrupt):
        client.call(lock, "acquire", (True, 1), ACQUIRE)
    poker.join()
    until(lambda: any(isinstance(one, Withdraw) and one.undo for one in list(fake.state.heard)))
    assert client.call(lock, "echo", (1,), READ).value == (1,)
    assert fake.connections == connections


def test_what_a_handler_raises_while_an_answer_is_decoded_is_raised(
    fake: Fake, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder takes any error for a fault of the bytes; `signal.alarm` with a TimeoutError is none."""
    lock = target()
    leave_to_callers(client, lock)
    strikes = [TimeoutError("alarm")]
    real = codec.unpackb

    def unpackb(*arguments: Any, **more: Any) -> Any:
        value = real(*arguments, **more)
        if strikes and threading.current_thread() is threading.main_thread():
            raise strikes.pop()
        return value

    monkeypatch.setattr(codec, "unpackb", unpackb)
    with pytest.raises(TimeoutError, match="alarm"):
        client.call(lock, "echo", (1,), READ)
    assert client.call(lock, "echo", (2,), READ).value == (2,)


class Pair:
    """Two calls of one client whose answers come in one piece, in either order, as soon as both were asked."""

    def __init__(self, fake: Fake, order: tuple[str, str]) -> None:
        self.asked: dict[str, Call] = {}
        self.first_is_asked = threading.Event()
        self.alone = False
        self._fake = fake
        self._order = order
        fake.on_call = self._hold

    def _hold(self, call: Call) -> bool:
        if self.alone or call.operation not in self._order:
            return False
        self.asked[call.operation] = call
        if call.operation == "first":
            self.first_is_asked.set()
        if len(self.asked) == 2:
            self._answer()
        return True

    def go_on(self) -> None:
        """The first caller has ended somehow: the other one is answered, whatever was asked."""
        self.alone = True
        self.first_is_asked.set()
        if len(self.asked) < 2:
            self._answer()

    def _answer(self) -> None:
        calls = [self.asked[name] for name in self._order if name in self.asked]
        data = b"".join(frame(encode(Reply(call.lane, call.number, Status.OK, call.operation))) for call in calls)
        for peer in self._fake._peers.values():
            if peer.session:
                with contextlib.suppress(OSError):
                    peer.socket.sendall(data)


@pytest.mark.parametrize("order", list(itertools.permutations(("first", "second"))), ids="-".join)
def test_an_interrupt_at_any_line_of_a_turn_leaves_the_other_caller_its_answer(
    fake: Fake, make_client: MakeClient, order: tuple[str, str]
) -> None:
    """The first caller has the role and reads the answers to both; it is struck at each line that it runs."""
    client, lock = make_client(fake, lease=LONG_S), target()
    in_turns, step = 0, 1
    for _ in range(400):
        fake.on_call = None
        leave_to_callers(client, lock)
        pair = Pair(fake, order)
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def second(pair: Pair = pair, answers: Any = answers) -> None:
            assert pair.first_is_asked.wait(20)
            answers.put(client.call(lock, "second", (), READ).value)

        other = threading.Thread(target=second, daemon=True)
        other.start()
        place = interrupted_at(step, lambda: client.call(lock, "first", (), READ), FILES)
        fake.order(pair.go_on)
        try:
            answer = answers.get(timeout=20)
        except queue.Empty:
            pytest.fail(f"the other one was not answered after an interrupt at {place}")
        assert answer in {"second", ()}, place
        other.join()
        if place:
            in_turns += "reading.py" in place
            step += 1
        elif in_turns > 20:
            break  # else the service thread was awake from the step before, and read
    assert in_turns > 20, "the interrupts hit nothing of a turn"


def test_a_call_inside_any_line_of_a_turn_is_answered(fake: Fake, make_client: MakeClient) -> None:
    """As a signal handler or a finalizer may make it; the outer one is answered, too."""
    client, lock = make_client(fake, lease=LONG_S), target()
    reading.READ_S = 0.5
    file = dthreading.reading.__file__
    step = 1
    for _ in range(400):
        leave_to_callers(client, lock)
        inside: list[Any] = []
        place = called_at(step, lambda: inside.append(client.call(lock, "echo", (2,), READ).value), file, client, lock)
        if place:
            assert inside == [(2,)], place
            step += 1
        elif step > 20:
            break  # else the service thread was awake from the step before, and read
    assert step > 20


def called_at(step: int, inner: Callable[[], Any], file: str, client: Client, lock: Target) -> str:
    """An echo by this thread, with `inner` called at the `step`th line of `file` that it runs."""
    place = ""

    def act(at: str) -> None:
        nonlocal place
        place = at
        sys.settrace(None)
        inner()

    with calling_at(step, act, {file}):
        assert client.call(lock, "echo", (1,), READ).value == (1,)
    return place


@pytest.mark.parametrize("waiting", [0, 1, 2])
def test_a_reader_that_never_comes_back_ends_its_connection(monkeypatch: pytest.MonkeyPatch, waiting: int) -> None:
    """Whoever waits for its answers, too, would wait for ever; one that takes its turns is left alone."""
    monkeypatch.setattr(reading, "LINGER_S", 0.05)
    monkeypatch.setattr(reading, "STUCK_S", 1.0)
    keeper, session = reading.Keeper(), SimpleNamespace(in_flight=lambda: waiting)
    role = SimpleNamespace(ours=False, turns=1, take=lambda: False)
    link: Any = SimpleNamespace(role=role, broken=None)
    for looks in range(40):
        role.turns += looks < 20
        assert not keeper.reads(link, session, 100.0 + looks / 20)  # type: ignore[arg-type]
        assert (link.broken is not None) == (looks >= 39)
