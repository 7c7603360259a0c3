# SPDX-License-Identifier: Apache-2.0
"""The four queues as models: what is in them, and what has been handed out and may come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tests.sim.checkers.models import Caller, Model, Raises, Waiting


@dataclass(eq=False, slots=True)
class Handed:
    """An item in somebody's hands."""

    session: int
    lane: int
    thread: int
    item: Any
    heard: bool = False


class SimpleQueue(Model):
    """First in, first out. An item whose answer may not have arrived comes back when its taker ends."""

    kind = "SimpleQueue"
    reads = ("qsize", "state")
    undoable = frozenset({"get"})
    counts: ClassVar[bool] = False
    """Whether tasks are counted."""

    def made(self) -> None:
        self.maxsize, self.redelivers = self.arguments if self.counts else (0, False)
        self.items: list[Any] = []
        self.handed: list[Handed] = []
        self.at_work: dict[int, int] = {}
        """Per session: taken, known to have arrived, not done; without redelivery this is all that is kept."""
        self.puts = 0
        self.unfinished = 0
        self.over = False
        self.dropped = False
        self.getters = self.line()
        self.putters = self.line()
        self.joiners = self.line()

    # --- the order of the kind

    def place(self, item: Any) -> None:
        """Among the items."""
        self.items.append(item)

    def next_item(self) -> Any:
        """The one whose turn it is."""
        return self.items.pop(0)

    def place_back(self, items: list[Any]) -> None:
        """To where they came from."""
        self.items[:0] = items

    # --- calls

    def do_put(self, caller: Caller, blocking: bool, item: bytes, priority: Any = None, thread: int = 0) -> Any:
        if self.over:
            raise Raises("shutdown")
        if self._is_full():
            if not blocking:
                raise Raises("full")
            return self.park(caller, self.putters, thread, (priority, item))
        self._in(priority, item)
        return None

    def do_get(self, caller: Caller, blocking: bool, thread: int = 0) -> Any:
        if self.items:
            item = self.next_item()
            self._hand(caller.session, caller.lane, thread, item)
            self._let_in()
            return item[2]
        if self.over:
            raise Raises("shutdown")
        if not blocking:
            raise Raises("empty")
        return self.park(caller, self.getters, thread)

    def do_task_done(self, caller: Caller, thread: int = 0, taken_in: int = 0) -> None:
        taker = taken_in or caller.session
        if taker != caller.session and self._has_nothing(taker):
            raise Raises("lock_lost")
        if self.unfinished <= 0:
            raise Raises("value")
        self._done(taker, thread)
        self._fewer(1)

    def do_join(self, caller: Caller, thread: int = 0) -> Any:
        return self.park(caller, self.joiners, thread) if self.unfinished else True

    def do_shutdown(self, caller: Caller, immediate: bool) -> None:
        self.over = True
        if immediate:
            self.dropped = True
            count = len(self.items)
            self.items.clear()
            self._fewer(count)
        for line in (self.getters, self.putters):
            while (waiting := self.first(line)) is not None:
                self.refused(waiting, "shutdown")

    def do_set_maxsize(self, caller: Caller, n: int) -> None:
        self.maxsize = n
        self._let_in()

    # --- in and out

    def _is_full(self) -> bool:
        return 0 < self.maxsize <= len(self.items)

    def _in(self, priority: Any, item: bytes) -> None:
        self.puts += 1
        if self.counts:
            self.unfinished += 1
        self._offer((priority, self.puts, item))

    def _offer(self, item: Any) -> None:
        waiting = self.first(self.getters)
        if waiting is None:
            self.place(item)
        else:
            self._hand(waiting.caller.session, waiting.caller.lane, waiting.thread, item)
            self.told(waiting, item[2])

    def _let_in(self) -> None:
        while not self._is_full() and (waiting := self.first(self.putters)) is not None:
            self._in(*waiting.data)
            self.told(waiting, None)

    def _hand(self, session: int, lane: int, thread: int, item: Any) -> None:
        self.handed.append(Handed(session, lane, thread, item))
        self.reference.has(session, self)

    def _fewer(self, n: int) -> None:
        self.unfinished = max(0, self.unfinished - n)
        if not self.unfinished:
            while (waiting := self.first(self.joiners)) is not None:
                self.told(waiting, True)

    def _back(self, items: list[Any]) -> None:
        if self.dropped:
            self._fewer(len(items))
            return
        while items and self.getters:
            self._offer(items.pop(0))
        self.place_back(items)

    # --- what was handed out

    def _arrived(self, handed: Handed) -> None:
        if self.redelivers:
            handed.heard = True
            return
        self.handed.remove(handed)
        if self.counts:
            self.at_work[handed.session] = self.at_work.get(handed.session, 0) + 1

    def _done(self, session: int, thread: int) -> None:
        mine = [handed for handed in self.handed if handed.session == session]
        of_thread = [handed for handed in mine if handed.thread == thread]
        if self.redelivers:
            for handed in (of_thread or mine)[:1]:
                self.handed.remove(handed)
        else:
            for handed in of_thread:
                self._arrived(handed)  # whoever is done with it has received it
            if self.at_work.get(session):
                self.at_work[session] -= 1
            elif mine:
                self.handed.remove(mine[0])
        self._perhaps_nothing(session)

    def _has_nothing(self, session: int) -> bool:
        return not self.at_work.get(session) and not any(handed.session == session for handed in self.handed)

    def _perhaps_nothing(self, session: int) -> None:
        if not self.at_work.get(session):
            self.at_work.pop(session, None)
            if self._has_nothing(session):
                self.reference.has_not(session, self)

    def _unheard(self, caller: Caller) -> list[Handed]:
        return [h for h in self.handed if (h.session, h.lane) == (caller.session, caller.lane) and not h.heard]

    def heard(self, caller: Caller) -> None:
        for handed in self._unheard(caller):
            self._arrived(handed)
        self._perhaps_nothing(caller.session)

    def taken_back(self, caller: Caller, value: Any) -> None:
        back = self._unheard(caller)
        for handed in back:
            self.handed.remove(handed)
        self._perhaps_nothing(caller.session)
        self._back([handed.item for handed in back])

    def ended(self, session: int) -> None:
        back = [handed.item for handed in self.handed if handed.session == session]
        self.handed = [handed for handed in self.handed if handed.session != session]
        lost = self.at_work.pop(session, 0)
        # Others may have said "done" of its tasks: no more than are in anybody's hands can come back or be lost.
        in_hands = max(0, self.unfinished - len(self.items))
        if self.redelivers:
            back = back[max(0, len(back) - in_hands) :]
        returned = len(back)
        self._back(back)
        lost = min(lost, max(0, in_hands - returned))
        if lost:
            while (waiting := self.first(self.joiners)) is not None:
                self.refused(waiting, "tasks_lost")
            self._fewer(lost)

    def timed_out(self, waiting: Waiting) -> None:
        line = waiting.line
        waiting.leave()
        if line is self.joiners:
            self.told(waiting, False)
        else:
            self.refused(waiting, "empty" if line is self.getters else "full")

    def initial(self) -> bool:
        nobody = not self.items and not self.handed and not self.at_work
        as_made = not self.counts or self.maxsize == self.arguments[0]
        return nobody and as_made and not self.unfinished and not self.over

    def view(self) -> tuple[Any, ...]:
        return (len(self.items), (len(self.items), self.maxsize, self.unfinished, self.over))


class Queue(SimpleQueue):
    """With a size, and tasks that are counted."""

    kind = "Queue"
    counts = True


class LifoQueue(Queue):
    """Last in, first out."""

    kind = "LifoQueue"

    def next_item(self) -> Any:
        return self.items.pop()

    def place_back(self, items: list[Any]) -> None:
        self.items += reversed(items)


class PriorityQueue(Queue):
    """The smallest first; ties by who came first."""

    kind = "PriorityQueue"

    def next_item(self) -> Any:
        smallest = min(self.items, key=lambda item: item[:2])
        self.items.remove(smallest)
        return smallest
