# SPDX-License-Identifier: Apache-2.0
"""The duel finds faults: each of these is planted in one of our objects, and must come to light.

They are faults that look harmless from where they are made: the wrong end of a line, one waiter too few, a wake-up left
out on a way that is seldom gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase

from dthreading.session import ClientSession
from replicas.objects.barrier import Barrier
from replicas.objects.base import Refused, Replicated
from replicas.objects.condition import Condition
from replicas.objects.event import Event
from replicas.objects.lock import Lock, Ownable, RLock
from replicas.objects.queue import LifoQueue, Queue, SimpleQueue
from replicas.objects.semaphore import BoundedSemaphore, Semaphore
from replicas.objects.stores import Sorted
from replicas.objects.waiting import WaitQueue
from tests.stateful.specs import EVENT, LOCK, RLOCK, SIMPLE_QUEUE, Spec, barrier, conditions, queue, semaphore
from tests.stateful.test_stateful import try_all

EXAMPLES = 400
"""Most faults are found in the first sixty; it takes more to come to a wait that is granted and struck."""

Plant = Callable[[pytest.MonkeyPatch], None]


def method(cls: type, name: str, function: Callable[..., Any]) -> Plant:
    """A method of the object is another."""
    return lambda patch: patch.setattr(cls, name, function)


def operation(cls: type[Replicated], name: str, function: Callable[..., Any]) -> Plant:
    """An operation is another, for the wire."""
    return lambda patch: patch.setitem(cls.operations, name, replace(cls.operations[name], function=function))


def unpark_last(self: WaitQueue) -> Any:
    """The last in line, as if it were a stack."""
    if not self._line:
        return None
    _, waiter = self._line.popitem()
    waiter.queue = None
    return waiter


def notify_one(self: Condition, n: int) -> None:
    honest_notify(self, min(n, 1))


honest_notify = Condition._notify


def notify_timed_out(self: Condition, waiter: Any) -> None:
    """A waiter whose time is up stays in the line."""


def release_one(self: Semaphore, n: int) -> None:
    honest_add(self, 1)


honest_add = Semaphore._add


def set_first(self: Event, call: Any) -> None:
    self.flag = True
    waiter = self.waiting.unpark()
    if waiter is not None:
        waiter.answer(True)


def release_all_levels(self: RLock, call: Any, fence: int | None, thread: int) -> int:
    self._check_owner(call, fence, thread)
    self._pass_on()
    return 0


def forget_waiter(self: Ownable, waiter: Any) -> None:
    """It stands nowhere."""


def forget_depth(self: Condition, waiter: Any) -> None:
    _, notified, number = waiter.payload
    waiter.amend((1, notified, number))
    honest_back(self, waiter)


honest_back = Condition._back_to_lock


def reset_quietly(self: Barrier, call: Any) -> Any:
    if self.phase == 1:
        return call.park(self.entrance, (3, False))
    self.phase = 0
    return None


def forget_entrance(self: Barrier) -> None:
    """Whoever came during the action stays outside."""


def shutdown_getters_only(self: Queue, call: Any, immediate: bool) -> None:
    self.is_shutdown = True
    for waiter in self.getters.unpark_all():
        waiter.refuse(Refused("shutdown"))


def lessen_quietly(self: Queue, n: int) -> None:
    self.unfinished = max(0, self.unfinished - n)


def let_in_nobody(self: Queue) -> None:
    """There is room, and nobody is told."""


def one_more(self: Queue) -> bool:
    return 0 < self.maxsize < len(self.store)


def pop_largest(self: Sorted) -> Any:
    """The wrong end."""
    self._length -= 1
    entry = self._blocks[-1].pop()
    if not self._blocks[-1]:
        self._blocks.pop()
    return entry


def enter_quietly(self: SimpleQueue, priority: Any, item: bytes) -> None:
    """Whoever waits for it is not told."""
    self.serial += 1
    self.store.append((priority, self.serial, item))


def unbounded(self: BoundedSemaphore, n: int) -> None:
    if self.available + n > self.arguments[0] + 1:
        raise Refused("value", "Semaphore released too many times")


# --- that come to light where something strikes in the middle of a call


def keep_what_was_granted(self: Replicated, *_: Any) -> None:
    """Whoever was granted it has gone."""


def lose_item(self: SimpleQueue, operation: str, session: int, lane: int, answer: Any) -> None:
    """Nobody has it."""
    self.deliveries.taken_back(session, lane)
    self._unstake_if_done(session)


def leave_quietly(self: Barrier, waiter: Any, line: Any) -> None:
    """The others go on waiting for it."""


def unnotify(self: Condition, waiter: Any) -> None:
    """Its time is up only after it was notified."""
    if waiter.queue is not self.waiting:
        depth, _, number = waiter.payload
        waiter.amend((depth, False, number))
    else:
        honest_withdrawn(self, waiter)


honest_withdrawn = Condition.withdrawn


def pass_on_once_more(self: Condition, waiter: Any) -> None:
    """Whose time is up wakes another, as if it had been notified."""
    honest_withdrawn(self, waiter)
    honest_notify(self, 1)


def forget_the_undo(self: ClientSession, lane: Any, call: Any) -> None:
    """What was granted in the last moment is not asked back."""
    if not call.settled:
        honest_undo(self, lane, call)


honest_undo = ClientSession._undo


FAULTS: tuple[tuple[str, Spec, Plant], ...] = (
    ("a lock goes to who came last", LOCK, method(WaitQueue, "unpark", unpark_last)),
    ("who is notified is not let back to the lock", conditions("Lock"), method(Ownable, "readmit", forget_waiter)),
    ("an RLock is free at the first release", RLOCK, operation(RLock, "release", release_all_levels)),
    ("notify wakes one at most", conditions("Lock"), method(Condition, "_notify", notify_one)),
    ("who timed out is not let go", conditions("RLock"), method(Condition, "withdrawn", notify_timed_out)),
    ("a wait forgets how deep the lock was", conditions("RLock"), method(Condition, "_back_to_lock", forget_depth)),
    ("release(n) gives one", semaphore("Semaphore", 0), method(Semaphore, "_add", release_one)),
    ("a permit too many", semaphore("BoundedSemaphore", 1), method(BoundedSemaphore, "check_bound", unbounded)),
    ("set wakes one", EVENT, operation(Event, "set", set_first)),
    ("reset leaves those who wait", barrier(2, action=False), operation(Barrier, "reset", reset_quietly)),
    ("who came during the action is forgotten", barrier(2, action=True), method(Barrier, "_let_in", forget_entrance)),
    ("shutdown leaves the putters", queue("Queue", 1), operation(Queue, "shutdown", shutdown_getters_only)),
    ("the last task_done wakes no joiner", queue("Queue", 0), method(Queue, "_lessen", lessen_quietly)),
    ("a get lets no putter in", queue("Queue", 1), method(Queue, "_let_in", let_in_nobody)),
    ("the largest comes first", queue("PriorityQueue", 0), method(Sorted, "pop", pop_largest)),
    ("a put wakes no getter", SIMPLE_QUEUE, method(SimpleQueue, "_enter", enter_quietly)),
    ("there is room for one more", queue("LifoQueue", 2), method(LifoQueue, "_is_full", one_more)),
    ("who was interrupted keeps the lock", LOCK, method(Lock, "undo", keep_what_was_granted)),
    ("who was interrupted keeps the RLock", RLOCK, method(RLock, "undo", keep_what_was_granted)),
    ("an interrupted permit is lost", semaphore("Semaphore", 1), method(Semaphore, "undo", keep_what_was_granted)),
    ("an interrupted getter's item is lost", queue("Queue", 0), method(SimpleQueue, "undo", lose_item)),
    ("a lost item of a SimpleQueue", SIMPLE_QUEUE, method(SimpleQueue, "undo", lose_item)),
    ("Ctrl-C leaves the barrier whole", barrier(2, action=False), method(Barrier, "abandoned", leave_quietly)),
    ("a late timeout takes a notification back", conditions("RLock"), method(Condition, "withdrawn", unnotify)),
    ("a timeout notifies the next", conditions("Lock"), method(Condition, "withdrawn", pass_on_once_more)),
    ("the client does not ask back what it was granted", LOCK, method(ClientSession, "_undo", forget_the_undo)),
)  # fmt: skip


@pytest.mark.parametrize(("spec", "plant"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_a_fault_is_found(spec: Spec, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first programs that are tried: the search is not the thing here, so nothing is made shorter."""
    monkeypatch.setenv("DTHREADING_NAMING", "auto")
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        try_all((spec,), EXAMPLES, phases=[Phase.generate])
