# SPDX-License-Identifier: Apache-2.0
"""What a queue has handed out and to whom: the answers that may not have arrived, and the tasks that are not done.

A getter's item passes through two stages. *Unacknowledged*: the answer may never have reached the client, so the item
goes back to the head if the session ends, whatever the queue is. *Taken*: the client has it and is at work. Of taken
items only a count is kept, unless the queue redelivers; then the items are kept until their `task_done`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

__all__ = ["Deliveries"]

FORGET: Final = "forget"
"""What becomes of an acknowledged item. SimpleQueue: nothing is kept."""
COUNT: Final = "count"
"""Queue: that one more is taken."""
KEEP: Final = "keep"
"""Queue(redeliver=True): the item itself."""


class _Taker:
    """What one session was handed."""

    __slots__ = ("count", "items", "lanes", "threads")

    def __init__(self) -> None:
        # Invariants: lanes holds the unacknowledged ones among items. threads orders the tickets of items by thread.
        # count is 0 unless COUNT.
        self.count = 0
        self.items: OrderedDict[int, tuple[int, int, Any]] = OrderedDict()
        """ticket -> (lane, thread, entry), in the order they were handed out."""
        self.lanes: dict[int, int] = {}
        self.threads: dict[int, OrderedDict[int, None]] = {}

    def add(self, ticket: int, lane: int, thread: int, entry: Any) -> None:
        self.items[ticket] = (lane, thread, entry)
        self.threads.setdefault(thread, OrderedDict())[ticket] = None

    def remove(self, ticket: int) -> Any:
        lane, thread, entry = self.items.pop(ticket)
        of_thread = self.threads[thread]
        del of_thread[ticket]
        if not of_thread:
            del self.threads[thread]
        if self.lanes.get(lane) == ticket:
            del self.lanes[lane]
        return entry

    @property
    def is_empty(self) -> bool:
        return not self.count and not self.items


class Deliveries:
    """All sessions' deliveries of one queue.

    Args:
        mode: FORGET, COUNT or KEEP.

    """

    def __init__(self, mode: str) -> None:
        assert mode in {FORGET, COUNT, KEEP}
        self.mode = mode
        # Invariant: no taker is empty, and each is a live session.
        self.takers: dict[int, _Taker] = {}
        self.ticket = 0

    def __contains__(self, session: int) -> bool:
        return session in self.takers

    def handed(self, session: int, lane: int, thread: int, entry: Any) -> None:
        """`entry` is the answer to a get of this lane."""
        taker = self.takers.get(session)
        if taker is None:
            taker = self.takers[session] = _Taker()
        self.ticket += 1
        assert lane not in taker.lanes, "a lane's next call acknowledges its answer"
        taker.add(self.ticket, lane, thread, entry)
        taker.lanes[lane] = self.ticket

    def acknowledged(self, session: int, lane: int) -> None:
        """The answer of that lane has arrived."""
        taker = self.takers.get(session)
        if taker is not None and lane in taker.lanes:
            self._received(taker, taker.lanes[lane])
            self._tidy(session, taker)

    def _received(self, taker: _Taker, ticket: int) -> None:
        lane = taker.items[ticket][0]
        if self.mode == KEEP:
            del taker.lanes[lane]
            return
        taker.remove(ticket)
        if self.mode == COUNT:
            taker.count += 1

    def done(self, session: int, thread: int) -> None:
        """A `task_done`: of the thread's oldest task, else of the session's. (Of another session's task nobody knows
        which it is; the queue's own count is all that tells of it.)

        Whoever says so has received what its earlier gets gave.
        """
        taker = self.takers.get(session)
        if taker is None:
            return
        if self.mode == KEEP:
            taker.remove(next(iter(taker.threads.get(thread) or taker.items)))
        else:
            for ticket in list(taker.threads.get(thread, ())):
                self._received(taker, ticket)
            if taker.count:
                taker.count -= 1
            else:
                taker.remove(next(iter(taker.items)))
        self._tidy(session, taker)

    def taken_back(self, session: int, lane: int) -> list[Any]:
        """The caller of that lane has gone before it took its item: the item, as a list of at most one."""
        taker = self.takers.get(session)
        if taker is None or lane not in taker.lanes:
            return []
        entry = taker.remove(taker.lanes[lane])
        self._tidy(session, taker)
        return [entry]

    def ended(self, session: int) -> tuple[list[Any], int]:
        """The session has ended: what goes back to the head, in the order it was handed out, and how many tasks are
        lost.
        """
        taker = self.takers.pop(session, None)
        if taker is None:
            return [], 0
        return [entry for _, _, entry in taker.items.values()], taker.count

    def _tidy(self, session: int, taker: _Taker) -> None:
        if taker.is_empty:
            del self.takers[session]

    def dump_rows(self) -> list[tuple[Any, ...]]:
        """(session, count) of each taker, followed by (session, ticket, lane, thread, entry, unacknowledged)."""
        rows: list[tuple[Any, ...]] = []
        for session, taker in self.takers.items():
            rows.append((session, taker.count))
            rows.extend(
                (session, ticket, lane, thread, entry, taker.lanes.get(lane) == ticket)
                for ticket, (lane, thread, entry) in taker.items.items()
            )
        return rows

    def load_row(self, row: tuple[Any, ...]) -> None:
        """The inverse of `dump_rows`, row by row."""
        if len(row) == 2:
            session, count = row
            self.takers[session] = _Taker()
            self.takers[session].count = count
            return
        session, ticket, lane, thread, entry, unacknowledged = row
        self.takers[session].add(ticket, lane, thread, entry)
        if unacknowledged:
            self.takers[session].lanes[lane] = ticket
