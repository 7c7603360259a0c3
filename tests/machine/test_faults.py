# SPDX-License-Identifier: Apache-2.0
"""An object of ours that breaks: one InternalError for the caller, quarantine for the object, and everything else goes
on, on every replica alike. Running out of memory is no object's fault and ends the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dthreading.errors import InternalError
from dthreading.wire import messages as wire
from dthreading.wire.messages import Reply, Status
from replicas.machine import commands
from replicas.machine.core import Machine
from replicas.objects import KINDS
from replicas.objects.base import Caller, Host, Refused, Replicated, operation
from replicas.objects.waiting import Waiter, WaitQueue
from replicas.paxos.values import Ballot, Entry, EntryKind
from tests.machine.harness import Bench, Client, Handle


class Glass(Replicated):
    """A user's class as it could be; it breaks where it is told to."""

    kind = "Glass"

    def __init__(self, host: Host, *arguments: Any) -> None:
        super().__init__(host, *arguments)
        self.waiting = WaitQueue(self)
        self.breaks_in = ""
        if arguments:
            raise ZeroDivisionError

    def _break(self, where: str) -> None:
        if where == self.breaks_in:
            raise MemoryError if where == "memory" else ZeroDivisionError(object())

    @operation
    def call(self, call: Caller, breaks: str, park: bool) -> Any:
        self.breaks_in = breaks
        parked = call.park(self.waiting) if park else 7
        self._break("call")
        self._break("memory")
        return parked

    @operation(undo=True)
    def take(self, call: Caller) -> int:
        self.host.stake(call.session, self)
        return 7

    @operation(reads=True)
    def look(self, call: Caller) -> str:
        self._break("look")
        return self.breaks_in

    def withdrawn(self, waiter: Waiter) -> None:
        self._break("withdrawn")
        super().withdrawn(waiter)

    def abandoned(self, waiter: Waiter, queue: WaitQueue | None) -> None:
        self._break("abandoned")

    def undo(self, operation: str, session: int, lane: int, answer: Any) -> None:
        self._break("undo")
        assert (operation, answer) == ("take", 7)

    def acknowledged(self, session: int, lane: int) -> None:
        self._break("acknowledged")

    def session_ended(self, session: int) -> None:
        self._break("session_ended")

    def is_initial(self) -> bool:
        return not self.breaks_in

    def dump(self) -> tuple[Any, ...]:
        return (self.breaks_in,)

    def load(self, state: tuple[Any, ...]) -> None:
        (self.breaks_in,) = state


@pytest.fixture(autouse=True)
def glass() -> Iterator[None]:
    KINDS["Glass"] = Glass
    yield
    del KINDS["Glass"]


class LoudBench(Bench):
    """Keeps what objects raised instead of failing the test."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[Exception] = []

    def apply(self, value: bytes, kind: int = EntryKind.COMMAND) -> Any:
        entry = Entry(self.machine.applied + 1, Ballot(1, 1), kind, value)
        self.last = self.machine.apply(entry)
        self.faults += self.last.faults
        for session, message in self.last.replies:
            self.heard.setdefault(session, []).append(message)
        return self.last


@pytest.fixture
def bench() -> LoudBench:
    bench = LoudBench()
    bench.leads()
    return bench


def test_a_class_of_ones_own_comes_through_the_same_door(ann: Client) -> None:
    """Parked, withdrawn by the default hook, answered, undone."""
    glass = ann.attach("Glass", "g")
    waiting = glass.parked("call", "", True)
    assert waiting.withdraw() is False
    assert glass.take() == 7
    with pytest.raises(RuntimeError):
        ann.withdraw(ann.last, undo=True)
    assert glass.look() == ""
    with pytest.raises(NotImplementedError):
        Replicated(ann.bench.machine).is_initial()


@pytest.mark.parametrize("park", [False, True])
def test_the_caller_and_whoever_waits_hear_of_it(bench: LoudBench, ann: Client, bob: Client, park: bool) -> None:
    """And the message has nothing in it that differs from replica to replica, such as the error's own text."""
    glass, other = ann.attach("Glass", "g"), bob.attach("Glass", "g")
    waiting = other.parked("call", "", True)
    with pytest.raises(InternalError, match=r"Glass 'g' broke on the replicas \(ZeroDivisionError\)"):
        glass.call("call", park)
    with pytest.raises(InternalError):
        waiting.outcome()
    with pytest.raises(InternalError):
        other.look()
    assert len(bench.faults) == 1
    assert sum(isinstance(message, Reply) for message in ann.heard) == 1
    lock = ann.attach("Lock", "l")
    assert lock.acquire(True, 1)


def breaking(bench: LoudBench, glass: Handle, where: str) -> None:
    """Does what makes the hook `where` run."""
    client = glass.client
    match where:
        case "withdrawn":
            glass.parked("call", where, True).withdraw()
        case "abandoned":
            glass.parked("call", where, True).withdraw(undo=True)
        case "undo":
            glass.call(where, False)
            glass.take()
            client.withdraw(client.last, undo=True)
        case "acknowledged":
            glass.call(where, False)
            glass.take()
            client.acknowledge(client.last)
        case _:
            glass.take()
            glass.call(where, False)
            bench.expire(client)


@pytest.mark.parametrize("where", ["withdrawn", "abandoned", "undo", "acknowledged", "session_ended"])
def test_hooks_may_break_too(bench: LoudBench, ann: Client, bob: Client, where: str) -> None:
    """The session goes on (or ends) as if nothing had been; the object is in quarantine, also after a restore."""
    glass, other = ann.attach("Glass", "g"), bob.attach("Glass", "g")
    waiting = other.parked("call", "", True)
    try:
        breaking(bench, glass, where)
    except (InternalError, RuntimeError):
        assert where in {"withdrawn", "abandoned", "undo"}
    assert [type(fault) for fault in bench.faults] == [ZeroDivisionError]
    with pytest.raises(InternalError):
        waiting.outcome()
    bench.machine = Machine.restore([bench.machine.dump()])
    with pytest.raises(InternalError):
        other.look()
    bob.close()
    ann.close()
    assert bench.object("g").fault is not None  # for people to see, until somebody deletes it
    bench.do(commands.Delete("n", "g"))
    assert not bench.machine.registry.objects
    assert Machine.restore([bench.machine.dump()]).dump() == bench.machine.dump()


def test_a_fault_that_is_raised_again_and_again_stays_small(bench: LoudBench, ann: Client) -> None:
    """A kept exception that is raised itself would collect the frames of every raise."""
    glass = ann.attach("Glass", "g")
    with pytest.raises(InternalError):
        glass.call("call", False)
    wrong = ann.attach("Lock", "l", 1)
    for _ in range(3):
        with pytest.raises(InternalError):
            glass.look()
        with pytest.raises(TypeError):
            wrong.locked()
    kept = [bench.object("g").fault, bench.machine.sessions[ann.id].handles[wrong.number]]
    assert [one.__traceback__ for one in kept] == [None, None]


def test_a_read_that_breaks_is_an_answer(bench: LoudBench, ann: Client) -> None:
    """Only an entry of the log may quarantine: a read is answered by one replica alone."""
    glass = ann.attach("Glass", "g")
    glass.call("look", False)
    reply = bench.machine.read(wire.Call(ann.id, 9, 1, glass.number, "look", (), False))
    assert reply.status == Status.ERROR
    assert reply.value[0] == "internal"
    assert bench.object("g").fault is None


def test_an_object_that_cannot_be_made(bench: LoudBench, ann: Client) -> None:
    with pytest.raises(InternalError):
        ann.attach("Glass", "g", 1).look()
    assert len(bench.faults) == 1


def test_out_of_memory_is_not_quarantined(bench: LoudBench, ann: Client) -> None:
    """It is this process's trouble and no other replica's: it ends, with the entry unanswered."""
    glass = ann.attach("Glass", "g")
    with pytest.raises(MemoryError):
        glass.call("memory", False)


def test_replicas_agree_about_a_broken_object(bench: LoudBench) -> None:
    """Two machines, one log, one quarantine."""
    twin = LoudBench()
    twin.leads()
    for one in (bench, twin):
        ann = one.open()
        glass = ann.attach("Glass", "g")
        glass.parked("call", "", True)
        with pytest.raises(InternalError):
            glass.call("call", True)
    assert bench.machine.digest == twin.machine.digest
    assert bench.machine.dump() == twin.machine.dump()


def test_a_broken_lock_under_a_condition(bench: LoudBench, ann: Client, bob: Client) -> None:
    """Its waiters hear of it when they want it back; those in its line at once."""
    locks = [one.attach("Lock", "l") for one in (ann, bob)]
    condition = ann.attach("Condition", "c", "n", "l", "Lock")
    locks[0].acquire(True, 1)
    waiting = condition.parked("wait", locks[0].number, 1, None)
    locks[1].acquire(True, 1)
    in_line = locks[0].parked("acquire", True, 1)
    bench.object("l").fence = 10**9  # what should never be: the next grant trips over it
    with pytest.raises(InternalError):
        locks[1].release(None)
    with pytest.raises(InternalError):
        in_line.outcome()
    with pytest.raises(InternalError):
        waiting.withdraw()
    with pytest.raises(InternalError):
        condition.wait(locks[0].number, 1, None)


def test_a_lock_that_breaks_while_a_notified_waiter_is_on_its_way(bench: LoudBench, ann: Client, bob: Client) -> None:
    """The waiter stands in no line at that moment, and must not be forgotten: it would wait for ever."""
    locks = [one.attach("Lock", "l") for one in (ann, bob)]
    conditions = [one.attach("Condition", "c", "n", "l", "Lock") for one in (ann, bob)]
    locks[0].acquire(True, 1)
    waiting = conditions[0].parked("wait", locks[0].number, 1, None)
    locks[1].acquire(True, 1)
    conditions[1].notify(locks[1].number, 1, 1, None)
    bench.object("l").fence = 10**9
    with pytest.raises(InternalError):
        locks[1].release(None)
    with pytest.raises(InternalError):
        waiting.outcome()
    ann.close()
    bob.close()
    assert not bench.machine.sessions
    assert bench.object("c") is None


def test_refusals_have_a_code_that_clients_know() -> None:
    with pytest.raises(AssertionError):
        Refused("no such code")
