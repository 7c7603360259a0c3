# SPDX-License-Identifier: Apache-2.0
"""The table of outcomes: what becomes of each kind of call that is withdrawn, or whose session ends under it."""

from __future__ import annotations

from queue import Empty, Full
from threading import BrokenBarrierError
from typing import Any

import pytest

from tests.machine.harness import Bench, Client, Handle, Pending

ACQUIRES: list[tuple[str, tuple[Any, ...], tuple[Any, ...]]] = [
    ("Lock", (), (True, 1)),
    ("RLock", (), (True, 1)),
    ("Semaphore", (1,), (True,)),
    ("BoundedSemaphore", (1,), (True,)),
]


def free_again(handle: Handle, arguments: tuple[Any, ...]) -> bool:
    return handle.acquire(False, *arguments[1:]) is not False


@pytest.mark.parametrize(("kind", "arguments", "call"), ACQUIRES)
@pytest.mark.parametrize("undo", [False, True])
def test_acquire_withdrawn_while_parked(
    ann: Client, bob: Client, kind: str, arguments: Any, call: Any, undo: bool
) -> None:
    """It leaves the queue."""
    holding, other = ann.attach(kind, "x", *arguments), bob.attach(kind, "x", *arguments)
    holding.acquire(*call)
    held = ann.last
    waiting = other.parked("acquire", *call)
    if undo:
        with pytest.raises(RuntimeError):
            waiting.withdraw(undo=True)
    else:
        assert waiting.withdraw() is False
    with pytest.raises(RuntimeError):
        ann.withdraw(held, undo=True)
    assert free_again(holding, call)


@pytest.mark.parametrize(("kind", "arguments", "call"), ACQUIRES)
def test_acquire_withdrawn_after_it_was_granted(
    bench: Bench, ann: Client, bob: Client, kind: str, arguments: Any, call: Any
) -> None:
    """Given back, the next in line is granted. Who asks for the verdict instead hears of the grant and keeps it."""
    holding, other = ann.attach(kind, "x", *arguments), bob.attach(kind, "x", *arguments)
    answer = holding.acquire(*call)
    held = ann.last
    assert ann.withdraw(held) == answer
    waiting = other.parked("acquire", *call)
    with pytest.raises(RuntimeError):
        ann.withdraw(held, undo=True)
    assert waiting.outcome()
    assert bench.object("x").holders() == (bob.id,)


@pytest.mark.parametrize(("kind", "arguments", "call"), ACQUIRES)
@pytest.mark.parametrize("how", ["close", "expire"])
def test_acquire_when_the_session_ends(
    bench: Bench, ann: Client, bob: Client, kind: str, arguments: Any, call: Any, how: str
) -> None:
    """The old grant dies with the old session, which never gets its own second thread's turn; the next client does."""
    holding, other = ann.attach(kind, "x", *arguments), bob.attach(kind, "x", *arguments)
    holding.acquire(*call)
    second_call = (*call[:1], 2) if len(call) > 1 else call
    holding.parked("acquire", *second_call)
    waiting = other.parked("acquire", *call)
    effects = ann.close() if how == "close" else bench.expire(ann)
    assert list(effects.ended) == [ann.id]
    assert waiting.outcome()
    assert bench.object("x").holders() == (bob.id,)
    assert not bench.object("x").waiting


def test_a_queued_waiter_that_dies_is_never_granted(bench: Bench, ann: Client, bob: Client) -> None:
    """Nor does it keep those behind it waiting."""
    carol = bench.open("carol")
    first, second, third = (one.attach("Lock", "x") for one in (ann, bob, carol))
    fence = first.acquire(True, 1)
    second.parked("acquire", True, 1)
    waiting = third.parked("acquire", True, 1)
    bench.expire(bob)
    first.release(fence)
    assert waiting.outcome() > fence


class Waiting:
    """A condition's waiter, and a second client with the same lock."""

    def __init__(self, bench: Bench) -> None:
        self.ann, self.bob = bench.open("ann"), bench.open("bob")
        self.locks = [one.attach("RLock", "l") for one in (self.ann, self.bob)]
        self.conditions = [one.attach("Condition", "c", "n", "l", "RLock") for one in (self.ann, self.bob)]
        self.locks[0].acquire(True, 1)
        self.wait: Pending = self.conditions[0].parked("wait", self.locks[0].number, 1, None)

    def notify(self) -> None:
        self.locks[1].acquire(True, 1)
        self.conditions[1].notify(self.locks[1].number, 1, 1, None)
        self.locks[1].release(None, 1)


def test_condition_wait_withdrawn_while_parked(bench: Bench) -> None:
    """Moves to the lock's queue and returns when it holds the lock: here at once, since it is free."""
    waiting = Waiting(bench)
    assert waiting.wait.withdraw()[0] is False
    assert bench.object("l").owner == waiting.ann.id


def test_condition_wait_withdrawn_after_it_was_granted(bench: Bench) -> None:
    """Kept, whether the caller waits for the verdict or not: it returns with the lock held."""
    waiting = Waiting(bench)
    waiting.notify()
    answer = waiting.wait.outcome()
    assert answer[0] is True
    assert waiting.wait.withdraw() == answer
    assert waiting.wait.withdraw(undo=True) == answer
    assert bench.object("l").owner == waiting.ann.id


def test_condition_wait_when_the_session_ends(bench: Bench) -> None:
    """Gone from both queues; and what it held again passes on."""
    waiting = Waiting(bench)
    bench.expire(waiting.ann)
    assert not bench.object("c").waiting
    other = Waiting(bench)
    other.notify()
    next_one = waiting.locks[1].parked("acquire", True, 1)
    bench.expire(other.ann)
    assert next_one.outcome()


def test_put(bench: Bench, ann: Client, bob: Client) -> None:
    """Parked: leaves the queue, Full. Granted: kept. Parked when the session ends: nothing was put."""
    queue, other = ann.attach("Queue", "q", 1, False), bob.attach("Queue", "q", 1, False)
    assert queue.put(True, b"a") is None
    assert ann.withdraw(ann.last) is None
    assert ann.withdraw(ann.last, undo=True) is None
    waiting = queue.parked("put", True, b"b")
    with pytest.raises(Full):
        waiting.withdraw()
    queue.parked("put", True, b"c")
    bench.expire(ann)
    assert other.get(False) == b"a"
    with pytest.raises(Empty):
        other.get(False)


def test_get(bench: Bench, ann: Client, bob: Client) -> None:
    """Parked: leaves, Empty. Granted: handed over; back to the head if the caller has gone, or its session."""
    queue, other = ann.attach("Queue", "q", 0, False), bob.attach("Queue", "q", 0, False)
    waiting = queue.parked("get", True)
    with pytest.raises(Empty):
        waiting.withdraw()
    other.put(True, b"a")
    other.put(True, b"b")
    assert queue.get(True) == b"a"
    assert ann.withdraw(ann.last) == b"a"
    with pytest.raises(RuntimeError):
        ann.withdraw(ann.last, undo=True)
    assert queue.get(True) == b"a"
    bench.expire(ann)
    assert [other.get(False), other.get(False)] == [b"a", b"b"]


@pytest.mark.parametrize("operation", [("Semaphore", (0,), "release", (1,)), ("Event", (), "set", ())])
def test_what_cannot_be_undone(bench: Bench, ann: Client, bob: Client, operation: Any) -> None:
    """Semaphore.release, Event.set: a withdraw changes nothing and hears the answer; nor does the session's end."""
    kind, arguments, name, call = operation
    assert ann.call(ann.attach(kind, "x", *arguments).number, name, *call) is None
    assert ann.withdraw(ann.last, undo=True) is None
    bench.expire(ann)
    other = bob.attach(kind, "x", *arguments)
    assert (other.value() == 1) if kind == "Semaphore" else other.is_set()


def test_release_is_not_undone(bench: Bench, ann: Client) -> None:
    lock = ann.attach("Lock", "x")
    lock.release(lock.acquire(True, 1))
    assert ann.withdraw(ann.last, undo=True) is None
    assert bench.object("x").owner is None


def test_barrier_wait(bench: Bench, ann: Client, bob: Client) -> None:
    """Parked: it breaks, as a timeout does. Granted: the index stands. The session ends: BrokenBarrierError for all."""
    barrier, other = ann.attach("Barrier", "b", 2), bob.attach("Barrier", "b", 2)
    first = barrier.parked("wait", False)
    other.wait(False)
    assert first.withdraw() == (0, False)
    waiting = barrier.parked("wait", False)
    with pytest.raises(BrokenBarrierError):
        waiting.withdraw()
    other.reset()
    again = other.parked("wait", False)
    bench.expire(bob)
    assert barrier.state() == (2, 0, True)
    assert again.client.id not in bench.machine.sessions


@pytest.mark.parametrize("undo", [False, True])
def test_event_wait(bench: Bench, ann: Client, bob: Client, undo: bool) -> None:
    """Leaves, and takes nothing along."""
    event = ann.attach("Event", "e")
    waiting = event.parked("wait")
    if undo:
        with pytest.raises(RuntimeError):
            waiting.withdraw(undo=True)
    else:
        assert waiting.withdraw() is False
    bob.attach("Event", "e").parked("wait")
    bench.expire(bob)
    assert not bench.object("e").waiting


def test_all_waits_go_before_any_holding_passes_on(bench: Bench, ann: Client, bob: Client) -> None:
    """Across objects: what its first thread holds must not be granted to its second, in whichever order they stand."""
    names = "abcd"
    mine = [ann.attach("Lock", name) for name in names]
    theirs = [bob.attach("Lock", name) for name in names]
    for lock in mine:
        lock.acquire(True, 1)
    for lock in mine:
        lock.parked("acquire", True, 2)
    waiting = [lock.parked("acquire", True, 3) for lock in theirs]
    bench.expire(ann)
    assert [bench.object(name).owner for name in names] == [bob.id] * 4
    fences = [one.outcome() for one in waiting]
    assert fences == sorted(fences)
