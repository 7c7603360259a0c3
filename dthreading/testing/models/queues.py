# SPDX-License-Identifier: Apache-2.0
"""The models of Queue, LifoQueue, PriorityQueue and SimpleQueue, with shutdown as CPython 3.13 has it.

put(item, block, timeout), get(block, timeout), task_done(), join(), qsize(), empty(), full(), unfinished_tasks(),
is_shutdown(), maxsize(), set_maxsize(n), shutdown(immediate). Items are compared by `==`.

When a session ends, what it had taken comes back to the head: always what a get had taken whose caller never heard of
it; with redelivery all that was taken and not done; without, perhaps a thread's last item, whose arrival the group need
not have heard of. What does not come back is subtracted from the unfinished tasks, and the joiners hear TasksLost.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any, ClassVar, Final, NamedTuple

from dthreading.testing.models.base import WHOLE, Answers, Calls, Model, ranked
from dthreading.testing.models.ordering import order_of_items
from dthreading.testing.recorded import Call, Error, Outcome, freeze

__all__ = ["LifoQueue", "PriorityQueue", "Queue", "SimpleQueue"]

STAND: Final = "waits for the tasks"
HEAR: Final = "hears that tasks are lost"


class Taken(NamedTuple):
    """An item that a session which will end has taken, and not reported done."""

    session: str
    thread: str
    number: int
    item: Any


class Stock(NamedTuple):
    """A queue's state."""

    items: tuple[Any, ...]
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
        # What was asked after it acknowledges a get, if the group ever saw that.
        last: dict[tuple[str, str], int] = {}
        for call in calls:
            if call.is_settled or (call.session, call.thread) not in last:
                last[call.session, call.thread] = call.number
        self._perhaps_unheard = frozenset(last.values())

    # --- in and out

    def do_put(self, state: Stock, call: Call) -> Answers:
        if state.is_shutdown:
            yield Error("ShutDown"), state
        elif not is_full(state):
            unfinished = state.unfinished + self.counts_tasks
            yield None, self._with(state, self._items[call.number])._replace(unfinished=unfinished)
        elif may_fail(call, 1):
            yield Error("Full"), state

    def do_get(self, state: Stock, call: Call) -> Answers:
        if state.items:
            item, following = self._without(state)
            if call.session in self.ending:
                taken = Taken(call.session, call.thread, call.number, item)
                following = following._replace(taken=(*following.taken, taken))
            if call.number not in self._got:
                yield item, following
            elif self._got[call.number] == item:
                yield call.value, following
        elif state.is_shutdown:
            yield Error("ShutDown"), state
        elif may_fail(call, 0):
            yield Error("Empty"), state

    def _with(self, state: Stock, item: Any) -> Stock:
        return state._replace(items=(*state.items, item))

    def _without(self, state: Stock) -> tuple[Any, Stock]:
        return state.items[0], state._replace(items=state.items[1:])

    def _with_again(self, state: Stock, items: list[Any]) -> Stock:
        return state._replace(items=(*items, *state.items))

    # --- reads

    def do_qsize(self, state: Stock, call: Call) -> Answers:  # noqa: ARG002
        yield len(state.items), state

    def do_empty(self, state: Stock, call: Call) -> Answers:  # noqa: ARG002
        yield not state.items, state

    # --- sessions

    def ended(self, state: Stock, session: str) -> Iterator[Stock]:
        own = [taken for taken in state.taken if taken.session == session]
        rest = state._replace(taken=tuple([taken for taken in state.taken if taken.session != session]))
        must = [taken for taken in own if self.redelivers or taken.number in self._unheard]
        may = [taken for taken in own if taken not in must and taken.number in self._perhaps_unheard]
        for count in range(len(may) + 1):
            for chosen in combinations(may, count):
                back = [taken for taken in own if taken in must or taken in chosen]
                yield self._give_back(rest, back, len(own) - len(back))

    def _give_back(self, state: Stock, back: list[Taken], lost: int) -> Stock:
        # Tasks that another session has reported done are in nobody's count: no more can be lost than are unfinished.
        in_hands = max(0, state.unfinished - len(state.items)) if self.counts_tasks else len(back)
        back = back[max(0, len(back) - in_hands) :]
        lost = min(lost, in_hands - len(back)) if self.counts_tasks else 0
        if state.discards:
            lost += len(back)
            return state._replace(unfinished=max(0, state.unfinished - lost))
        state = self._with_again(state, [taken.item for taken in back])
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
        own = [taken for taken in state.taken if taken.session == call.session]
        done = next((taken for taken in own if taken.thread == call.thread), own[0] if own else None)
        taken = tuple([other for other in state.taken if other is not done])
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

    def _with_again(self, state: Stock, items: list[Any]) -> Stock:
        return state._replace(items=(*state.items, *reversed(items)))

    def estimates(self, calls: Calls) -> dict[int, tuple[int, int]]:  # noqa: ARG002 - nothing tells
        return {}


class PriorityQueue(Queue):
    """`queue.PriorityQueue(maxsize, redeliver)`: the smallest first, and of equal ones the first that came."""

    kind: ClassVar[str] = "PriorityQueue"

    def _with(self, state: Stock, item: Any) -> Stock:
        index = bisect_right(state.items, priority(item), key=priority)
        return state._replace(items=(*state.items[:index], item, *state.items[index:]))

    def _with_again(self, state: Stock, items: list[Any]) -> Stock:
        for item in reversed(items):
            index = bisect_left(state.items, priority(item), key=priority)
            state = state._replace(items=(*state.items[:index], item, *state.items[index:]))
        return state

    def estimates(self, calls: Calls) -> dict[int, tuple[int, int]]:  # noqa: ARG002 - nothing tells
        return {}


def priority(item: Any) -> Any:
    """What an item is ordered by: itself, or of a tuple what stands before the first thing that has no order."""
    if type(item) is not tuple:
        return item
    plain: list[Any] = []
    for element in item:
        if type(element) not in {int, float, str, bytes, bool, tuple}:
            break
        plain.append(priority(element))
    return tuple(plain)


def is_full(state: Stock) -> bool:
    """Whether as many items as may be are in it."""
    return 0 < state.maxsize <= len(state.items)


def may_fail(call: Call, position: int) -> bool:
    """Whether this put or get may say Full or Empty: it may not wait, or not for ever."""
    return not call.argument(position, True) or call.argument(position + 1, None) is not None
