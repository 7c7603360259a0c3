# SPDX-License-Identifier: Apache-2.0
"""Queue, LifoQueue, PriorityQueue, SimpleQueue: items that are opaque bytes, with putters and getters both in line.

An item is handed to exactly one getter, and until that getter's client has shown that it arrived it can come back.
What a session that ends had taken and not done is lost (its joiners hear so), or redelivered where the queue was made
to.
"""

# ruff: noqa: ARG002 - the door gives every operation its call and every hook its facts, wanted or not

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain
from typing import Any, ClassVar, Final

from dthreading.wire.limits import NESTING_MAX
from replicas.objects.base import Caller, Host, Refused, Replicated, operation
from replicas.objects.deliveries import COUNT, FORGET, KEEP, Deliveries
from replicas.objects.stores import Entry, Fifo, Lifo, Sorted, Store
from replicas.objects.waiting import Waiter, WaitQueue

__all__ = ["LifoQueue", "PriorityQueue", "Queue", "SimpleQueue"]

_STORE: Final = 0
_DELIVERY: Final = 1


class SimpleQueue(Replicated):
    """`queue.SimpleQueue`: unbounded, and nobody counts what is done. What all four share stands here."""

    kind = "SimpleQueue"
    store_class: ClassVar[type[Store]] = Fifo

    def __init__(self, host: Host, *arguments: Any) -> None:
        super().__init__(host, *arguments)
        self.maxsize, redeliver = self._check_arguments(arguments)
        # Invariants: bool(getters) implies that the store is empty. bool(putters) implies that it is full.
        self.store: Store = self.store_class()
        self.deliveries = Deliveries(KEEP if redeliver else self._after_acknowledgement())
        self.serial = 0
        self.unfinished = 0
        self.is_shutdown = False
        self.discards = False
        """It was shut down at once: what comes back is thrown away, as what was in it."""
        self.getters = WaitQueue(self)
        self.putters = WaitQueue(self)

    def _check_arguments(self, arguments: tuple[Any, ...]) -> tuple[int, bool]:
        if arguments:
            raise Refused("type", f"{self.kind}() takes no arguments")
        return 0, False

    def _after_acknowledgement(self) -> str:
        return FORGET

    @operation
    def put(self, call: Caller, blocking: bool, item: bytes, priority: Any = None, thread: int = 0) -> Any:
        """`priority` orders a PriorityQueue: plain values that compare with `<`."""
        if self.is_shutdown:
            raise Refused("shutdown")
        if len(item) > self.host.limits.item_bytes_max:
            limit = self.host.limits.item_bytes_max
            raise Refused("limit", f"an item of {len(item)} bytes; the group allows {limit} (item_bytes_max)")
        priority = self.check_priority(priority)
        if self._is_full():
            if not blocking:
                raise Refused("full")
            return call.park(self.putters, (priority, item), thread)
        self._enter(priority, item)
        return None

    @operation(undo=True)
    def get(self, call: Caller, blocking: bool, thread: int = 0) -> Any:
        """Answers the item."""
        if len(self.store):
            entry = self.store.pop()
            self._hand(call.session, call.lane, thread, entry)
            self._let_in()
            return entry[2]
        if self.is_shutdown:
            raise Refused("shutdown")
        if not blocking:
            raise Refused("empty")
        return call.park(self.getters, None, thread)

    @operation(reads=True)
    def qsize(self, call: Caller) -> int:
        """How many items are in it; those handed out do not count."""
        return len(self.store)

    @operation(reads=True)
    def state(self, call: Caller) -> tuple[int, int, int, bool]:
        """(qsize, maxsize, unfinished tasks, shut down)."""
        return (len(self.store), self.maxsize, self.unfinished, self.is_shutdown)

    # --- in and out

    def check_priority(self, priority: Any) -> Any:
        """What an item is ordered by; only a PriorityQueue looks at it."""
        return None

    def _is_full(self) -> bool:
        return 0 < self.maxsize <= len(self.store)

    def _enter(self, priority: Any, item: bytes) -> None:
        """An item comes in, straight into the first getter's hands if one waits."""
        entry = (priority, self.serial + 1, item)
        waiter = self.getters.unpark()
        if waiter is not None:
            self._answer_getter(waiter, entry)
        else:
            try:
                self.store.append(entry)
            except TypeError:
                kind = type(priority).__name__
                raise Refused("type", f"this {kind} cannot be compared with the priorities in the queue") from None
        self.serial += 1
        if self.deliveries.mode != FORGET:
            self.unfinished += 1

    def _let_in(self) -> None:
        """There is room: whoever waits to put does so, in order."""
        while not self._is_full() and (waiter := self.putters.unpark()) is not None:
            try:
                self._enter(*waiter.payload)
            except Refused as refusal:
                waiter.refuse(refusal)
            else:
                waiter.answer(None)

    def _hand(self, session: int, lane: int, thread: int, entry: Entry) -> None:
        if session not in self.deliveries:
            self.host.stake(session, self)
        self.deliveries.handed(session, lane, thread, entry)

    def _answer_getter(self, waiter: Waiter, entry: Entry) -> None:
        self._hand(waiter.session, waiter.lane, waiter.thread, entry)
        waiter.answer(entry[2])

    def _come_back(self, entries: list[Entry]) -> None:
        """Items that were handed out and are nobody's now: to those who wait, the rest to the head."""
        if self.discards:
            self._lessen(len(entries))
            return
        rest = iter(entries)
        for entry in rest:
            waiter = self.getters.unpark()
            if waiter is None:
                self.store.put_back([entry, *rest])
                return
            self._answer_getter(waiter, entry)

    def _lessen(self, n: int) -> None:
        """`n` tasks fewer are unfinished."""
        self.unfinished = max(0, self.unfinished - n)

    # --- the door's hooks

    def withdrawn(self, waiter: Waiter) -> None:
        code = "empty" if waiter.queue is self.getters else "full"
        waiter.leave()
        waiter.refuse(Refused(code))

    def undo(self, operation: str, session: int, lane: int, answer: Any) -> None:
        entries = self.deliveries.taken_back(session, lane)
        self._unstake_if_done(session)
        self._come_back(entries)

    def acknowledged(self, session: int, lane: int) -> None:
        self.deliveries.acknowledged(session, lane)
        self._unstake_if_done(session)

    def _unstake_if_done(self, session: int) -> None:
        if session not in self.deliveries:
            self.host.unstake(session, self)

    def session_ended(self, session: int) -> None:
        entries, lost = self.deliveries.ended(session)
        # Tasks that another session has reported done are in no taker's count: as many as are unfinished can be lost.
        in_hands = max(0, self.unfinished - len(self.store))
        if self.deliveries.mode == KEEP:
            entries = entries[max(0, len(entries) - in_hands) :]
        self._come_back(entries)
        lost = min(lost, max(0, in_hands - len(entries)))
        if lost:
            self._lost(lost)

    def _lost(self, n: int) -> None:
        """A session has ended with `n` tasks taken and not done."""

    def holders(self) -> tuple[int, ...]:
        return tuple(self.deliveries.takers)

    def is_initial(self) -> bool:
        return not len(self.store) and not self.deliveries.takers and not self.unfinished and not self.is_shutdown

    def sight(self) -> dict[str, Any]:
        return {"size": len(self.store), "maxsize": self.maxsize, "unfinished": self.unfinished}

    def dump(self) -> tuple[Any, ...]:
        return (self.maxsize, self.serial, self.unfinished, self.is_shutdown, self.discards, self.deliveries.ticket)

    def load(self, state: tuple[Any, ...]) -> None:
        self.maxsize, self.serial, self.unfinished, self.is_shutdown, self.discards, self.deliveries.ticket = state

    def dump_rows(self) -> Iterable[Any]:
        stored, handed = self.store.dump_rows(), self.deliveries.dump_rows()
        return chain(((_STORE, row) for row in stored), ((_DELIVERY, row) for row in handed))

    def load_row(self, row: Any) -> None:
        which, value = row
        (self.store if which == _STORE else self.deliveries).load_row(value)


class Queue(SimpleQueue):
    """`queue.Queue` as in 3.13, with arguments (maxsize, redeliver)."""

    kind = "Queue"

    def __init__(self, host: Host, *arguments: Any) -> None:
        super().__init__(host, *arguments)
        self.joiners = WaitQueue(self)

    def _check_arguments(self, arguments: tuple[Any, ...]) -> tuple[int, bool]:
        if len(arguments) != 2 or type(arguments[0]) is not int or type(arguments[1]) is not bool:
            raise Refused("type", f"{self.kind}() takes its maxsize and whether it redelivers")
        return arguments

    def _after_acknowledgement(self) -> str:
        return COUNT

    @operation
    def task_done(self, call: Caller, thread: int = 0, taken_in: int = 0) -> None:
        """One task is done: the oldest that this thread took. `taken_in`: the session that took it, as far as is known.
        If that one is over, what became of its tasks is settled.
        """
        owner = taken_in or call.session
        if owner != call.session and owner not in self.deliveries:
            raise Refused("lock_lost", f"what session {owner} had not done went back, or was lost, when that was over")
        if self.unfinished <= 0:
            raise Refused("value", "task_done() called too many times")
        if owner in self.deliveries:
            self.deliveries.done(owner, thread)
            self._unstake_if_done(owner)
        self._lessen(1)

    @operation
    def join(self, call: Caller, thread: int = 0) -> Any:
        """Answers True when no task is unfinished."""
        return call.park(self.joiners, None, thread) if self.unfinished else True

    @operation
    def shutdown(self, call: Caller, immediate: bool) -> None:
        """No more puts; gets until it is empty, or none at all."""
        self.is_shutdown = True
        if immediate:
            self.discards = True
            n = len(self.store)
            self.store = self.store_class()
            self._lessen(n)
        for queue in (self.getters, self.putters):
            for waiter in queue.unpark_all():
                waiter.refuse(Refused("shutdown"))

    @operation
    def set_maxsize(self, call: Caller, n: int) -> None:
        """Assigns `maxsize` of a queue in use."""
        self.maxsize = n
        self._let_in()

    def _lessen(self, n: int) -> None:
        super()._lessen(n)
        if not self.unfinished:
            for waiter in self.joiners.unpark_all():
                waiter.answer(True)

    def _lost(self, n: int) -> None:
        message = (
            f"{n} of the tasks of {self.kind} {self.name!r} were taken by a client that ended before they were done"
        )
        for waiter in self.joiners.unpark_all():
            waiter.refuse(Refused("tasks_lost", message, n))
        self._lessen(n)

    def withdrawn(self, waiter: Waiter) -> None:
        if waiter.queue is self.joiners:
            Replicated.withdrawn(self, waiter)
        else:
            super().withdrawn(waiter)

    def is_initial(self) -> bool:
        return super().is_initial() and self.maxsize == self.arguments[0]


class LifoQueue(Queue):
    """`queue.LifoQueue`."""

    kind = "LifoQueue"
    store_class = Lifo


class PriorityQueue(Queue):
    """`queue.PriorityQueue`: ordered by the `priority` given with each item, ties first come, first served."""

    kind = "PriorityQueue"
    store_class = Sorted

    def check_priority(self, priority: Any) -> Any:
        if priority is None:
            return ()
        _check_plain(priority, NESTING_MAX)
        return priority


def _check_plain(priority: Any, depth: int) -> None:
    kind = type(priority)
    if kind is tuple and depth:
        for element in priority:
            _check_plain(element, depth - 1)
    elif kind not in {int, float, str, bytes, bool}:
        raise Refused("type", f"a {kind.__name__} cannot be a priority: numbers, strings, bytes and tuples of them can")
    elif kind is float and math.isnan(priority):
        raise Refused("value", "NaN has no place in an order, so it cannot be a priority")
