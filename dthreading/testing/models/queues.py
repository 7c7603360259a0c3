# SPDX-License-Identifier: Apache-2.0
"""The models of Queue, LifoQueue, PriorityQueue and SimpleQueue, with shutdown as CPython 3.13 has it.

put(item, block, timeout), get(block, timeout), task_done(), join(), qsize(), empty(), full(), unfinished_tasks(),
is_shutdown(), maxsize(), set_maxsize(n), shutdown(immediate). Items are compared by `==`.

When a session ends, what it had taken comes back to the head: always what a get had taken whose caller never heard of
it; with redelivery all that was taken and not done; without, perhaps any item whose arrival the group need not have
heard of. That is heard with the next call that happens to go the way its answer came, which only the client knows, and
surely with a `task_done()` of its thread. What does not come back is subtracted from the unfinished tasks, and the
joiners hear TasksLost.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any, ClassVar, Final, NamedTuple

from dthreading.testing.models.base import WHOLE, Answers, Calls, Model, ranked
from dthreading.testing.models.ordering import order_of_items
from dthreading.testing.models.priorities import NoPriorityError, priority
from dthreading.testing.recorded import UNDO, Call, Error, Outcome, freeze

__all__ = ["LifoQueue", "PriorityQueue", "Queue", "SimpleQueue"]

STAND: Final = "waits for the tasks"
HEAR: Final = "hears that tasks are lost"


class Taken(NamedTuple):
    """An entry that somebody has taken who will end, or give the call up, and has not reported done."""

    session: str
    thread: str
    number: int
    entry: Any
    arrived: bool = False
    """The group has surely heard that it did."""


class Stock(NamedTuple):
    """A queue's state."""

    items: tuple[Any, ...]
    """The entries: what is kept of each item."""
    maxsize: int
    unfinished: int
    is_shutdown: bool
    discards: bool
    taken: tuple[Taken, ...]
    joiners: frozenset[int]
    """Those who will hear that tasks were lost: waiting for it."""
    told: frozenset[int]


class SimpleQueue(Model):
    """`queue.SimpleQueue`."""

    kind: ClassVar[str] = "SimpleQueue"
    counts_tasks: ClassVar[bool] = False
    runs_are_alike: ClassVar[bool] = True
    """Whether what comes back together stands together, so that it makes no difference which of several does."""

    def initial(self) -> Stock:
        maxsize = self.arguments[0] if self.arguments else 0
        return Stock((), maxsize, 0, False, False, (), frozenset(), frozenset())

    @property
    def redelivers(self) -> bool:
        """Whether tasks that were not done come back."""
        return len(self.arguments) > 1 and bool(self.arguments[1])

    def prepare(self, calls: Calls) -> None:
        super().prepare(calls)
        self._items = {call.number: freeze(call.argument(0, None)) for call in calls if call.operation == "put"}
        gets = [call for call in calls if call.operation == "get"]
        self._got = {call.number: freeze(call.value) for call in gets if call.outcome is Outcome.RETURNED}
        self._unheard = frozenset(call.number for call in gets if not call.is_settled)
        self._given_up = frozenset(call.after for call in calls if call.operation == UNDO)
        # Items that several gets were given: all but the last of these came back.
        seen = Counter(self._got.values())
        self._seen_again = frozenset(number for number, item in self._got.items() if seen[item] > 1)

    # --- in and out

    def do_put(self, state: Stock, call: Call) -> Answers:
        if state.is_shutdown:
            yield Error("ShutDown"), state
        elif not is_full(state):
            unfinished = state.unfinished + self.counts_tasks
            yield None, self._with(state, call)._replace(unfinished=unfinished)
        elif may_fail(call, 1):
            yield Error("Full"), state

    def do_get(self, state: Stock, call: Call) -> Answers:
        if state.items:
            entry, following = self._without(state)
            if call.session in self.ending or call.number in self._given_up:
                taken = Taken(call.session, call.thread, call.number, entry)
                following = following._replace(taken=(*following.taken, taken))
            if call.number not in self._got:
                yield self._item(entry), following
            elif self._got[call.number] == self._item(entry):
                yield call.value, following
        elif state.is_shutdown:
            yield Error("ShutDown"), state
        elif may_fail(call, 0):
            yield Error("Empty"), state

    def _with(self, state: Stock, call: Call) -> Stock:
        return state._replace(items=(*state.items, self._items[call.number]))

    def _without(self, state: Stock) -> tuple[Any, Stock]:
        return state.items[0], state._replace(items=state.items[1:])

    def _with_again(self, state: Stock, entries: list[Any]) -> Stock:
        return state._replace(items=(*entries, *state.items))

    def _item(self, entry: Any) -> Any:
        """What a getter sees of it."""
        return entry

    # --- reads

    def do_qsize(self, state: Stock, call: Call) -> Answers:  # noqa: ARG002
        yield len(state.items), state

    def do_empty(self, state: Stock, call: Call) -> Answers:  # noqa: ARG002
        yield not state.items, state

    # --- sessions

    def ended(self, state: Stock, session: str) -> Iterator[Stock]:
        own = [taken for taken in state.taken if taken.session == session]
        rest = state._replace(taken=tuple([taken for taken in state.taken if taken.session != session]))
        must = [self.redelivers or taken.number in self._unheard for taken in own]
        for back in self._what_comes_back(own, must):
            yield self._give_back(rest, back, len(own) - len(back))

    def _what_comes_back(self, own: list[Taken], must: list[bool]) -> Iterator[list[Taken]]:
        """Each way in which some of it may, those that were seen again first.

        What nobody was seen to get again is like its neighbours: of each run of such items only the number counts.
        """
        runs: list[list[list[Taken]]] = []
        for taken, comes in zip(own, must, strict=True):
            if comes or taken.arrived:
                runs.append([[taken]] if comes else [[]])
            elif taken.number in self._seen_again or not self.runs_are_alike:
                runs.append([[taken], []] if taken.number in self._seen_again else [[], [taken]])
            elif runs and len(runs[-1]) > 1 and not runs[-1][0]:
                runs[-1].append([*runs[-1][-1], taken])
            else:
                runs.append([[], [taken]])
        for choice in product(*runs):
            yield [taken for run in choice for taken in run]

    def _give_back(self, state: Stock, back: list[Taken], lost: int) -> Stock:
        # Tasks that another session has reported done are in nobody's count: no more can be lost than are unfinished.
        in_hands = max(0, state.unfinished - len(state.items))
        if self.redelivers:
            back = back[max(0, len(back) - in_hands) :]
        if state.discards:
            state = state._replace(unfinished=max(0, state.unfinished - len(back)))
        else:
            state = self._with_again(state, [taken.entry for taken in back])
        lost = min(lost, max(0, in_hands - len(back)))
        if not lost:
            return state
        return state._replace(unfinished=state.unfinished - lost, joiners=frozenset(), told=state.told | state.joiners)

    def undone(self, state: Stock, call: Call) -> Iterable[Stock]:
        own = [taken for taken in state.taken if taken.number == call.after]
        rest = state._replace(taken=tuple([taken for taken in state.taken if taken not in own]))
        return (self._give_back(rest, own, 0),)

    def estimates(self, calls: Calls) -> dict[int, tuple[int, int]]:
        """First in, first out: the items' order can mostly be told from all puts and gets together."""
        puts, gets = order_of_items(calls, self._items, self._got)
        return ranked(puts) | ranked(gets)


class Queue(SimpleQueue):
    """`queue.Queue(maxsize, redeliver)`."""

    kind: ClassVar[str] = "Queue"
    counts_tasks: ClassVar[bool] = True

    def do_task_done(self, state: Stock, call: Call) -> Answers:
        if state.unfinished <= 0:
            yield Error("ValueError"), state
            return
        for session in self.givers(call, [taken.session for taken in state.taken]):
            # Whoever says so has what its earlier gets gave.
            before = [
                taken._replace(arrived=True) if (taken.session, taken.thread) == (session, call.thread) else taken
                for taken in state.taken
            ]
            own = [taken for taken in before if taken.session == session]
            done = next((taken for taken in own if taken.thread == call.thread), own[0] if own else None)
            taken = tuple([other for other in before if other is not done])
            yield None, state._replace(unfinished=state.unfinished - 1, taken=taken)

    def parts(self, call: Call) -> tuple[str, ...]:
        lost = call.operation == "join" and call.outcome is Outcome.RAISED and call.value == "TasksLost"
        return (STAND, HEAR) if lost else (WHOLE,)

    def answers(self, state: Stock, call: Call, part: str) -> Answers:
        if part == STAND:
            if not state.unfinished:
                return ()
            return ((Error("TasksLost"), state._replace(joiners=state.joiners | {call.number})),)
        if part == HEAR:
            return ((Error("TasksLost"), state),) if call.number in state.told else ()
        return super().answers(state, call, part)

    def do_join(self, state: Stock, call: Call) -> Answers:  # noqa: ARG002
        if not state.unfinished:
            yield None, state

    def do_full(self, state: Stock, call: Call) -> Answers:  # noqa: ARG002
        yield is_full(state), state

    def do_unfinished_tasks(self, state: Stock, call: Call) -> Answers:  # noqa: ARG002
        yield state.unfinished, state

    def do_maxsize(self, state: Stock, call: Call) -> Answers:  # noqa: ARG002
        yield state.maxsize, state

    def do_set_maxsize(self, state: Stock, call: Call) -> Answers:
        yield None, state._replace(maxsize=call.argument(0, 0))

    def do_is_shutdown(self, state: Stock, call: Call) -> Answers:  # noqa: ARG002
        yield state.is_shutdown, state

    def do_shutdown(self, state: Stock, call: Call) -> Answers:
        if not call.argument(0, False):
            yield None, state._replace(is_shutdown=True)
            return
        unfinished = max(0, state.unfinished - len(state.items))
        yield None, state._replace(items=(), is_shutdown=True, discards=True, unfinished=unfinished)


class LifoQueue(Queue):
    """`queue.LifoQueue(maxsize, redeliver)`: its head is its top."""

    kind: ClassVar[str] = "LifoQueue"

    def _without(self, state: Stock) -> tuple[Any, Stock]:
        return state.items[-1], state._replace(items=state.items[:-1])

    def _with_again(self, state: Stock, entries: list[Any]) -> Stock:
        return state._replace(items=(*state.items, *reversed(entries)))

    def estimates(self, calls: Calls) -> dict[int, tuple[int, int]]:  # noqa: ARG002 - nothing tells
        return {}


class PriorityQueue(Queue):
    """`queue.PriorityQueue(maxsize, redeliver)`: the smallest first, and of equal ones the first that came."""

    kind: ClassVar[str] = "PriorityQueue"
    runs_are_alike: ClassVar[bool] = False

    def prepare(self, calls: Calls) -> None:
        super().prepare(calls)
        self._priorities: dict[int, Any] = {}
        self._without_priority: dict[int, str] = {}
        for call in calls:
            if call.operation == "put":
                try:
                    self._priorities[call.number] = priority(call.argument(0, None))
                except NoPriorityError as error:
                    self._without_priority[call.number] = error.raises

    def do_put(self, state: Stock, call: Call) -> Answers:
        wrong = self._without_priority.get(call.number)
        if wrong is not None:
            return ((Error(wrong), state),)
        try:
            return tuple(super().do_put(state, call))
        except TypeError:  # raised by whoever brings what cannot be compared, never by a getter
            return ((Error("TypeError"), state),)

    def _with(self, state: Stock, call: Call) -> Stock:
        key = self._priorities[call.number]
        # It stands behind its like, and comes back in front of those that came after it.
        like = [entry for entry in (*state.items, *[taken.entry for taken in state.taken]) if entry[0] == key]
        turn = 1 + max([entry[1] for entry in like], default=0)
        return _insert(state, (key, turn, self._items[call.number]))

    def _with_again(self, state: Stock, entries: list[Any]) -> Stock:
        for entry in reversed(entries):
            try:
                state = _insert(state, entry)
            except TypeError:  # of what was put meanwhile: somebody has to have it, so it goes to the head
                state = state._replace(items=(entry, *state.items))
        return state

    def _item(self, entry: Any) -> Any:
        return entry[2]

    def estimates(self, calls: Calls) -> dict[int, tuple[int, int]]:  # noqa: ARG002 - nothing tells
        return {}


def _insert(state: Stock, entry: tuple[Any, int, Any]) -> Stock:
    """The state with that entry in order. Raises TypeError for one that cannot be compared with what it meets."""
    items = list(state.items)
    if items and items[-1] < entry:
        items.append(entry)
    else:
        insort(items, entry)
    return state._replace(items=tuple(items))


def is_full(state: Stock) -> bool:
    """Whether as many items as may be are in it."""
    return 0 < state.maxsize <= len(state.items)


def may_fail(call: Call, position: int) -> bool:
    """Whether this put or get may say Full or Empty: it may not wait, or not for ever."""
    return not call.argument(position, True) or call.argument(position + 1, None) is not None
