# SPDX-License-Identifier: Apache-2.0
"""Recording: of the real proxies by many threads, of the standard library's own, across lost sessions; and keeping."""

from __future__ import annotations

import threading

import pytest

import dthreading
import dthreading.queue
from dthreading.errors import LockLost, OutcomeUnknown
from dthreading.testing import local
from dthreading.testing.history import History
from dthreading.testing.recorded import Outcome

WAIT_S = 30


def in_threads(*bodies):
    """Runs them side by side; raises what any of them raised."""
    errors = []

    def guarded(body):
        try:
            body()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(body,), daemon=True) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive(), "it never returned"
    if errors:
        raise errors[0]


@pytest.fixture
def group(monkeypatch):
    monkeypatch.setenv("DTHREADING_NAMING", "auto")
    with local.group() as running:
        yield running
        assert not running.faults


@pytest.mark.parametrize("module", ["ours", "stdlib"])
def test_what_many_threads_do_is_recorded_and_right(group, module):
    """The same program over our primitives and over the standard library's: both are what the models describe."""
    source = dthreading if module == "ours" else threading
    queues = dthreading.queue if module == "ours" else __import__("queue")
    history = History()
    lock = history.watch(source.Lock(), "lock")
    condition = history.watch(source.Condition(source.RLock()), "condition")
    semaphore = history.watch(source.BoundedSemaphore(2), "semaphore")
    event = history.watch(source.Event(), "event")
    barrier = history.watch(source.Barrier(3), "barrier")
    tasks = history.watch(queues.Queue(2), "tasks")
    best = history.watch(queues.PriorityQueue(), "best")
    turn = [0]

    def use(number):
        for round_ in range(6):
            with lock, semaphore:
                best.put((round_, number))
            assert semaphore.acquire(timeout=WAIT_S)
            semaphore.release()
            barrier.wait()
            with condition:
                condition.wait_for(lambda: turn[0] % 3 == number, WAIT_S)
                turn[0] += 1
                condition.notify_all()
            tasks.put([number, round_])
            tasks.get()
            tasks.task_done()
            best.get_nowait()
        event.set()
        assert event.wait(WAIT_S)

    in_threads(*(lambda number=number: use(number) for number in range(3)))
    tasks.join()
    assert tasks.empty()
    assert len(history) > 150
    history.check(settled=True)
    kept = history.to_json()
    assert History.from_json(kept).to_json() == kept
    History.from_json(kept).check(settled=True)


def test_grants_carry_their_fences(group):
    """So two grants that could not be told apart otherwise can."""
    history = History()
    lock = history.watch(dthreading.Lock(name="orders"))
    for _ in range(2):
        with lock:
            assert history.calls[-1].value == lock.fence
    fences = [call.value for call in history.calls if call.operation == "acquire"]
    assert type(fences[0]) is int
    assert fences[0] < fences[1]
    history.check()


def test_a_lock_that_is_broken_is_found(group, monkeypatch):
    """The whole way: a replicated Lock that grants twice, real proxies, and the calls by name in the report."""
    from replicas.objects.lock import Lock

    def take_anyhow(self, session, thread, count):
        self.owner = None
        return taking(self, session, thread, count)

    taking = Lock._take
    monkeypatch.setattr(Lock, "_take", take_anyhow)
    monkeypatch.setattr(Lock.operations["acquire"].function, "__code__", GREEDY.__code__)
    history = History("worker")
    lock = history.watch(dthreading.Lock(name="orders"))
    in_threads(lock.acquire)
    in_threads(lock.acquire)
    with pytest.raises(AssertionError, match=r"Lock\(\) 'orders': no order of its calls explains") as failure:
        history.check()
    assert "worker" in str(failure.value)
    assert str(failure.value).count("orders.acquire") == 2


def GREEDY(self, call, blocking, thread):
    return self._take(call.session, thread, 1)


def test_errors_of_the_object_are_answers_and_errors_of_the_caller_are_not(group):
    history = History()
    lock = history.watch(dthreading.Lock(name="orders"))
    tasks = history.watch(dthreading.queue.Queue(1, name="tasks"))
    with pytest.raises(RuntimeError):
        lock.release()
    with pytest.raises(ValueError, match="non-negative"):
        tasks.get(timeout=-1)
    with pytest.raises(ValueError, match="too many"):
        tasks.task_done()
    with pytest.raises(dthreading.queue.Empty):
        tasks.get_nowait()
    tasks.put_nowait(1)
    with pytest.raises(dthreading.queue.Full):
        tasks.put(2, timeout=0.01)
    assert [call.value for call in history.calls] == ["RuntimeError", "ValueError", "Empty", None, "Full"]
    history.check()


def test_a_lost_session_is_noticed_by_what_it_raises(group):
    history = History()
    lock = history.watch(dthreading.Lock(name="orders"))
    lock.acquire()
    group.lose(group.own)
    other = group.client("another process")
    taken = history.invoke("another process", "orders", "acquire")
    answer = other.call(lock.watched._proxy_target, "acquire", (True, 1), dthreading.session.calls.ACQUIRE)
    history.returned(taken, answer.value)
    with pytest.raises(LockLost):
        lock.release()
    history.check()
    assert [call.outcome for call in history.calls if call.operation == "release"] == [Outcome.UNKNOWN]


def test_a_session_lost_between_two_calls_is_noticed_by_its_successor(group):
    history = History()
    semaphore = history.watch(dthreading.Semaphore(1, name="permits"))
    semaphore.acquire()
    group.lose(group.own)
    assert semaphore.acquire(), "the permit of the old session has returned"
    history.check()
    sessions = {call.session for call in history.calls if call.operation == "acquire"}
    assert len(sessions) == 2


@pytest.mark.parametrize("redelivers", [True, False])
def test_sessions_lost_under_many_threads_raise_no_false_alarm(group, redelivers):
    """Whatever the threads were in the middle of: what they saw has an order, with the ends of the sessions in it."""
    history = History()
    lock = history.watch(dthreading.Lock(name="orders"))
    permits = history.watch(dthreading.Semaphore(2, name="permits"))
    tasks = history.watch(dthreading.queue.Queue(3, name="tasks", redeliver=redelivers))
    foreseen = (LockLost, OutcomeUnknown, RuntimeError, ValueError, dthreading.queue.Empty, dthreading.queue.Full)

    def use(number):
        for round_ in range(40):
            if number == 0 and round_ in {10, 25} and group.own.session:
                group.lose(group.own)
            try:
                with lock:
                    tasks.put((number, round_), timeout=0.001)
                if permits.acquire(timeout=0.001):
                    tasks.get(timeout=0.001)
                    tasks.task_done()
                    permits.release()
            except foreseen:
                pass

    in_threads(*(lambda number=number: use(number) for number in range(3)))
    assert len({call.session for call in history.calls}) > 1
    history.check()


def test_who_is_forgotten_is_named():
    """A lock that is free, and somebody who still waits for it."""
    history = History()
    history.declare("orders", "Lock")
    first = history.invoke("A", "orders", "acquire", at=0.0)
    second = history.invoke("B", "orders", "acquire", at=0.1)
    history.returned(first, True, 0.2)
    history.returned(history.invoke("A", "orders", "release"), None, 0.4)
    history.check()
    with pytest.raises(AssertionError, match="left waiting who could go on") as failure:
        history.check(settled=True)
    assert "! #2 B" in str(failure.value)
    history.returned(second, True)
    history.check(settled=True)


def test_an_answer_that_never_came_is_a_forgotten_call():
    """The item is gone, so it was handed to the getter that has not come back."""
    history = History()
    history.declare("tasks", "Queue")
    history.invoke("A", "tasks", "get")
    history.returned(history.invoke("B", "tasks", "put", (1,)))
    history.returned(history.invoke("B", "tasks", "qsize"), 0)
    history.check()
    with pytest.raises(AssertionError, match="left waiting"):
        history.check(settled=True)


def test_histories_of_several_processes_are_one():
    """By their clock; at equal times both orders are thought of."""
    parts = []
    for process, (start, end) in {"A": (1.0, 2.0), "B": (2.0, 3.0)}.items():
        part = History(process)
        part.declare("orders", "Lock")
        part.returned(part.invoke(process, "orders", "acquire", (False,), start), process == "B", end)
        parts.append(part)
    merged = History.merged(parts)
    merged.check()  # the tries overlap at 2.0, so B's may have come first
    parts[1].calls[0].at = 2.5
    with pytest.raises(AssertionError):
        History.merged(parts).check()


def test_any_plain_item_survives_being_kept():
    history = History()
    history.declare("tasks", "Queue")
    items = [None, "", 0, False, 1.5, "ä", b"\x00", (1, (2,)), [1, {"a": [b""]}], {}]
    for item in items:
        history.returned(history.invoke("A", "tasks", "put", (item,)))
        history.returned(history.invoke("A", "tasks", "get"), item)
    kept = History.from_json(history.to_json())
    assert [call.arguments[0] for call in kept.calls[::2]] == items
    kept.check()
    history.invoke("A", "tasks", "put", (object(),))
    with pytest.raises(TypeError, match="plain values"):
        history.to_json()


def test_what_is_no_history_is_refused():
    for text in ("[]", '{"version": 2}'):
        with pytest.raises(ValueError, match="not a history of version 1"):
            History.from_json(text)
    history = History()
    with pytest.raises(ValueError, match="no model of a 'Lok'"):
        history.declare("orders", "Lok")
    history.declare("orders", "Lock")
    with pytest.raises(ValueError, match="declared otherwise"):
        history.declare("orders", "RLock")
    history.invoke("A", "order", "acquire")
    with pytest.raises(ValueError, match=r"what are \['order'\]"):
        history.check()
