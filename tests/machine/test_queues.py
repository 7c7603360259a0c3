# SPDX-License-Identifier: Apache-2.0
"""The queues: every item to one getter, in order, and back when the getter is gone."""

from __future__ import annotations

import heapq
import math
from collections import deque
from queue import Empty, Full
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dthreading.errors import LimitExceeded, LockLost, ShutDown, TasksLost
from replicas.machine.core import Machine
from replicas.objects.stores import BLOCK_MAX, Sorted
from tests.histories import histories
from tests.machine.harness import PARKED, Bench, Client, Handle


def queue_of(client: Client, maxsize: int = 0, redeliver: bool = False, kind: str = "Queue") -> Handle:
    return client.attach(kind, "q", maxsize, redeliver)


def put(queue: Handle, *items: str) -> None:
    for item in items:
        assert queue.put(True, item.encode()) is None


def drain(queue: Handle) -> str:
    items = []
    while True:
        try:
            items.append(queue.get(False).decode())
        except Empty:
            return "".join(items)


def test_orders(ann: Client) -> None:
    """First in first out, last in first out, smallest first."""
    fifo, lifo = ann.attach("Queue", "f", 0, False), ann.attach("LifoQueue", "l", 0, False)
    simple, smallest = ann.attach("SimpleQueue", "s"), ann.attach("PriorityQueue", "p", 0, False)
    for item, priority in zip("abcd", (3, 1, 2, 1), strict=True):
        for queue in (fifo, lifo, simple, smallest):
            queue.put(True, item.encode(), priority)
    assert [drain(queue) for queue in (fifo, lifo, simple, smallest)] == ["abcd", "dcba", "abcd", "bdca"]


def test_full_and_empty(ann: Client) -> None:
    queue = queue_of(ann, 2)
    with pytest.raises(Empty):
        queue.get(False)
    put(queue, "a", "b")
    with pytest.raises(Full):
        queue.put(False, b"c")
    assert queue.state() == (2, 2, 2, False)


def test_waiting_getters_and_putters_are_served_in_order(bench: Bench, ann: Client) -> None:
    queue = queue_of(ann, 1)
    getting = [queue_of(bench.open(), 1).parked("get", True) for _ in range(2)]
    put(queue, "a", "b", "c")
    assert [one.outcome() for one in getting] == [b"a", b"b"]
    putting = [queue_of(bench.open(), 1).parked("put", True, item) for item in (b"d", b"e")]
    assert queue.get(True) == b"c"
    assert [one.outcome() for one in putting] == [None, PARKED]
    assert drain(queue) == "de"


def test_withdrawn_put_and_get(ann: Client) -> None:
    """Full and Empty are the verdicts; once granted they stand."""
    queue = queue_of(ann, 1)
    getting = queue.parked("get", True)
    with pytest.raises(Empty):
        getting.withdraw()
    put(queue, "a")
    putting = queue.parked("put", True, b"b")
    with pytest.raises(Full):
        putting.withdraw()
    again = queue.parked("put", True, b"c")
    assert queue.get(True) == b"a"
    assert again.withdraw() is None
    assert again.withdraw(undo=True) is None
    assert drain(queue) == "c"


def test_maxsize_of_a_live_queue(ann: Client) -> None:
    queue = queue_of(ann, 1)
    put(queue, "a")
    putting = [queue.parked("put", True, item) for item in (b"b", b"c", b"d")]
    queue.set_maxsize(3)
    assert [one.outcome() for one in putting] == [None, None, PARKED]
    queue.set_maxsize(0)
    assert drain(queue) == "abcd"


def test_item_limit(ann: Client) -> None:
    from dthreading.wire.limits import ITEM_BYTES_MAX

    with pytest.raises(LimitExceeded, match="item_bytes_max"):
        queue_of(ann).put(True, bytes(ITEM_BYTES_MAX + 1))


# --- tasks ---------------------------------------------------------------------------------------------------------


def test_join_and_task_done(ann: Client, bob: Client) -> None:
    queue, other = queue_of(ann), queue_of(bob)
    assert queue.join() is True
    put(queue, "a", "b")
    joining = queue.parked("join")
    for _ in range(2):
        other.get(True)
        assert joining.outcome() is PARKED
        other.task_done()
    assert joining.outcome() is True
    with pytest.raises(ValueError, match=r"task_done\(\) called too many times"):
        other.task_done()


def test_join_hears_of_lost_tasks(bench: Bench, ann: Client, bob: Client) -> None:
    """Taken and not done by one who died: nobody waits for that. What its client never acknowledged is not lost."""
    queue, other = queue_of(ann), queue_of(bob)
    put(queue, "a", "b", "c")
    for _ in range(3):
        other.get(True, lane=0)
    joining = queue.parked("join")
    bench.expire(bob)
    with pytest.raises(TasksLost) as caught:
        joining.outcome()
    assert caught.value.count == 2
    assert queue.state() == (1, 0, 1, False)
    assert drain(queue) == "c"


def test_a_task_that_another_client_reported_done_is_not_lost(bench: Bench, ann: Client, bob: Client) -> None:
    queue, other = queue_of(ann), queue_of(bob)
    put(queue, "a", "b")
    other.get(True, lane=0)
    bob.acknowledge(bob.last)
    queue.task_done()
    joining = queue.parked("join")
    bench.expire(bob)
    assert joining.outcome() is PARKED
    assert queue.state()[2] == 1


@pytest.mark.parametrize("redeliver", [False, True])
def test_an_unacknowledged_answer_goes_back_to_the_head(
    bench: Bench, ann: Client, bob: Client, redeliver: bool
) -> None:
    """In the order they were handed out, before what was behind them, and to a getter who waits already."""
    queue, other = queue_of(ann, 0, redeliver), queue_of(bob, 0, redeliver)
    put(queue, "a", "b", "c", "d")
    other.get(True)
    other.get(True)
    bench.expire(bob)
    assert drain(queue) == "abcd"
    third = queue_of(bench.open(), 0, redeliver)
    put(queue, "e")
    third.get(True)
    getting = queue.parked("get", True)
    third.client.close()
    assert getting.outcome() == b"e"


@pytest.mark.parametrize("kind", ["LifoQueue", "PriorityQueue"])
def test_what_comes_back_stands_where_it_stood(bench: Bench, ann: Client, bob: Client, kind: str) -> None:
    queue, other = queue_of(ann, kind=kind), queue_of(bob, kind=kind)
    for item in "abcd":
        queue.put(True, item.encode(), 1)
    other.get(True)
    other.get(True)
    bench.expire(bob)
    assert drain(queue) == ("dcba" if kind == "LifoQueue" else "abcd")


def test_what_was_handed_over_at_once_comes_back_before_its_equals(bench: Bench, ann: Client, bob: Client) -> None:
    """Also what never stood in the queue, since its getter was there first, has its place among equal priorities."""
    queue = queue_of(ann, kind="PriorityQueue")
    getting = queue_of(bob, kind="PriorityQueue").parked("get", True)
    for item in "cba":
        queue.put(True, item.encode(), 1)
    assert getting.outcome() == b"c"
    bench.expire(bob)
    assert drain(queue) == "cba"


@pytest.mark.parametrize("how", ["reuse", "acknowledge", "task_done"])
def test_an_acknowledged_answer_is_the_clients_own(bench: Bench, ann: Client, bob: Client, how: str) -> None:
    """By the lane's next call, by saying so, or by reporting the task done."""
    queue, other = queue_of(ann), queue_of(bob)
    put(queue, "a")
    other.get(True, lane=0)
    match how:
        case "reuse":
            other.qsize(lane=0)
        case "acknowledge":
            bob.acknowledge(bob.last)
        case _:
            other.task_done(lane=1)
    bench.expire(bob)
    assert drain(queue) == ""
    assert queue.state()[2] == 0


def test_redelivery(bench: Bench, ann: Client, bob: Client) -> None:
    """What was taken and not done goes back to the head; what was done does not, by the thread that took it."""
    queue, other = queue_of(ann, 0, True), queue_of(bob, 0, True)
    put(queue, "a", "b", "c")
    for thread in (1, 2, 3):
        other.get(True, thread, lane=thread)
        bob.acknowledge(bob.last)
    other.task_done(2)
    joining = queue.parked("join")
    bench.expire(bob)
    assert joining.outcome() is PARKED
    assert drain(queue) == "ac"
    assert queue.state()[2] == 2


@pytest.mark.parametrize("redeliver", [True, False])
def test_a_task_that_was_settled_with_its_session_is_not_done_again(
    bench: Bench, ann: Client, bob: Client, redeliver: bool
) -> None:
    """Its taker has another session now: the count would be one too low, and a join end too early."""
    queue, other = queue_of(ann, redeliver=redeliver), queue_of(bob, redeliver=redeliver)
    for item in (b"one", b"two"):
        queue.put(True, item)
    assert queue.get(True, 7) == b"one"
    assert other.task_done(7, ann.id) is None, "said in another session, while the taker's lives"
    assert other.state()[2] == 1
    assert queue.get(True, 7) == b"two"
    ann.acknowledge(ann.last)
    bench.expire(ann)
    other.put(True, b"three")
    unfinished = other.state()[2]
    assert unfinished == 1 + redeliver
    with pytest.raises(LockLost, match=f"session {ann.id}"):
        other.task_done(7, ann.id)
    assert other.state()[2] == unfinished
    other.get(True, 7)
    other.task_done(7, bob.id)
    assert other.state()[2] == unfinished - 1


def test_redelivery_leaves_out_what_others_reported_done(bench: Bench, ann: Client, bob: Client) -> None:
    """Which task it was nobody can say: the oldest is taken for it."""
    queue, other = queue_of(ann, 0, True), queue_of(bob, 0, True)
    put(queue, "a", "b")
    other.get(True, 1, lane=0)
    other.get(True, 1, lane=0)
    queue.task_done()
    bench.expire(bob)
    assert drain(queue) == "b"


def test_undone_get_after_an_older_task_of_its_lane(ann: Client, bob: Client) -> None:
    """That one is done, and says nothing of the item that nobody has received."""
    queue, other = queue_of(ann, 0, True), queue_of(bob, 0, True)
    put(queue, "a", "b")
    queue.get(True, 7, lane=0)
    queue.get(True, 7, lane=0)
    got = ann.last
    queue.task_done(7, lane=1)
    with pytest.raises(RuntimeError):
        ann.withdraw(got, undo=True)
    assert other.get(False) == b"b"


def test_undone_get(ann: Client, bob: Client) -> None:
    """The caller has gone: its item is the next one's again."""
    queue, other = queue_of(ann), queue_of(bob)
    put(queue, "a", "b")
    other.get(True)
    with pytest.raises(RuntimeError):
        bob.withdraw(bob.last, undo=True)
    assert drain(queue) == "ab"
    getting = other.parked("get", True)
    with pytest.raises(RuntimeError):
        getting.withdraw(undo=True)
    put(queue, "c")
    assert drain(queue) == "c"


# --- shutdown --------------------------------------------------------------------------------------------------------


def test_shutdown(ann: Client, bob: Client) -> None:
    """No puts from now on; gets until it is empty."""
    queue, other = queue_of(ann, 1), queue_of(bob, 1)
    put(queue, "a")
    putting = other.parked("put", True, b"b")
    queue.shutdown(False)
    with pytest.raises(ShutDown):
        putting.outcome()
    with pytest.raises(ShutDown):
        queue.put(False, b"c")
    assert queue.get(True) == b"a"
    with pytest.raises(ShutDown):
        queue.get(False)
    assert queue.state() == (0, 1, 1, True)
    queue.task_done()
    assert queue.join() is True


def test_immediate_shutdown(bench: Bench, ann: Client, bob: Client) -> None:
    """What is in it is thrown away and counts as done, and so does what comes back later."""
    queue, other = queue_of(ann), queue_of(bob)
    put(queue, "a", "b", "c")
    other.get(True)
    joining = queue.parked("join")
    queue.shutdown(True)
    assert joining.outcome() is PARKED
    with pytest.raises(ShutDown):
        queue.get(True)
    queue.shutdown(False)  # nor does that bring anything back
    bench.expire(bob)
    assert joining.outcome() is True
    assert queue.state() == (0, 0, 0, True)


def test_shutdown_wakes_waiting_getters(ann: Client) -> None:
    queue = queue_of(ann)
    getting = queue.parked("get", True)
    queue.shutdown(False)
    with pytest.raises(ShutDown):
        getting.outcome()


# --- priorities ------------------------------------------------------------------------------------------------------


def test_priorities_are_plain_values(ann: Client) -> None:
    queue = queue_of(ann, kind="PriorityQueue")
    for priority in (math.nan, (1, math.nan)):
        with pytest.raises(ValueError, match="NaN"):
            queue.put(True, b"x", priority)
    for priority in ({}, (None,), ({"a": 2},)):
        with pytest.raises(TypeError, match="cannot be a priority"):
            queue.put(True, b"x", priority)
    deep: Any = 1
    for _ in range(14):
        deep = (deep,)
    queue.put(True, b"deep", deep)
    assert queue.qsize() == 1


def test_what_cannot_be_compared_is_refused_at_put(ann: Client) -> None:
    """And is not left in the queue; a parked putter hears it when its turn comes, and the next one is served."""
    queue = queue_of(ann, 2, kind="PriorityQueue")
    queue.put(True, b"a", 1)
    with pytest.raises(TypeError, match="cannot be compared"):
        queue.put(True, b"b", "text")
    queue.put(True, b"c", 0)
    wrong = queue.parked("put", True, b"d", "text")
    right = queue.parked("put", True, b"e", -5)
    assert queue.get(True) == b"c"
    with pytest.raises(TypeError):
        wrong.outcome()
    assert right.outcome() is None
    assert drain(queue) == "ea"
    assert queue.state()[2] == 3


def test_a_getter_never_pays_for_priorities_that_do_not_compare(ann: Client) -> None:
    """A heap would compare (2, "a") with (2, 5) only when (1, ...) is popped, and then in a getter's call."""
    queue = queue_of(ann, kind="PriorityQueue")
    queue.put(True, b"first", (1, "x"))
    queue.put(True, b"second", (2, "a"))
    with pytest.raises(TypeError):
        queue.put(True, b"third", (2, 5))
    assert drain(queue) == "firstsecond"


PRIORITIES = st.integers(-(10**25), 10**25) | st.integers(0, 3) | st.floats(allow_nan=False) | st.booleans()


@settings(max_examples=100, deadline=None)
@given(histories(st.none() | PRIORITIES | st.tuples(st.integers(0, 2), st.integers(0, 2)), 80))
def test_sorted_is_what_heapq_with_serials_gives(priorities: list[Any]) -> None:
    """None pops. Ties are first come, first served; a TypeError leaves everything as it was."""
    store, heap = Sorted(), []
    for serial, priority in enumerate(priorities):
        if priority is None:
            if heap:
                assert store.pop() == heapq.heappop(heap)
            continue
        entry = (priority, serial, b"")
        before = list(store.dump_rows())
        try:
            store.append(entry)
        except TypeError:
            assert list(store.dump_rows()) == before
        else:
            heapq.heappush(heap, entry)
    while heap:
        assert store.pop() == heapq.heappop(heap)
    assert not len(store)


def test_sorted_over_many_blocks() -> None:
    """Splitting and emptying blocks keeps the order, and a restored store has the same blocks."""
    store = Sorted()
    numbers = [n * 7919 % 10_007 for n in range(10_007)]
    for serial, number in enumerate(numbers):
        store.append((number, serial, b""))
    assert len(store) == 10_007
    rows = list(store.dump_rows())
    assert sum(begins for _, begins in rows) > 10_007 // BLOCK_MAX
    again = Sorted()
    for row in rows:
        again.load_row(row)
    assert list(again.dump_rows()) == rows
    back = [store.pop() for _ in range(5000)]
    store.put_back(back)
    assert [store.pop()[0] for _ in range(10_007)] == sorted(numbers) == [again.pop()[0] for _ in range(10_007)]


def test_what_comes_back_and_compares_no_more_goes_to_the_head() -> None:
    """Between its going and its coming the queue may have been filled with what it cannot be compared with."""
    store = Sorted()
    store.append((1, 1, b"number"))
    number = store.pop()
    store.append(("a", 2, b"text"))
    store.put_back([number])
    assert len(store) == 2
    assert [store.pop()[2], store.pop()[2]] == [b"number", b"text"]


# --- against a model -------------------------------------------------------------------------------------------------

STEPS = histories(
    st.tuples(st.sampled_from(["put", "put", "get", "get", "end", "undo", "withdraw", "snapshot"]), st.integers(0, 2)),
    60,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sampled_from(["Queue", "SimpleQueue"]), st.integers(0, 2))
def test_queues_behave_like_the_model(steps: list[tuple[str, int]], kind: str, maxsize: int) -> None:
    """A deque, putters and getters in line, and for each client the answers it has not acknowledged."""
    bench = Bench()
    bench.leads()
    arguments = (maxsize, False) if kind == "Queue" else ()
    maxsize = maxsize if kind == "Queue" else 0
    handles = [bench.open().attach(kind, "q", *arguments) for _ in range(3)]
    keeper = bench.open().attach(kind, "q", *arguments)
    items: deque[bytes] = deque()
    getters: list[tuple[int, Any]] = []
    putters: list[tuple[int, Any, bytes]] = []
    handed: dict[int, list[tuple[Any, bytes]]] = {0: [], 1: [], 2: []}

    def settle() -> None:
        while items and getters:
            who, pending = getters.pop(0)
            item = items.popleft()
            handed[who].append((pending.call, item))
            assert pending.outcome() == item
        while putters and not 0 < maxsize <= len(items):
            _, pending, item = putters.pop(0)
            items.append(item)
            assert pending.outcome() is None
            if getters:
                settle()

    for serial, (action, who) in enumerate(steps):
        handle, item = handles[who], b"%d" % serial
        if action == "put" and 0 < maxsize <= len(items):
            putters.append((who, handle.parked("put", True, item), item))
        elif action == "put":
            handle.put(True, item)
            items.append(item)
            settle()
        elif action == "get" and not items:
            getters.append((who, handle.parked("get", True)))
        elif action == "get":
            assert handle.get(True) == items[0]
            handed[who].append((handle.client.last, items.popleft()))
            settle()
        elif action == "undo" and handed[who]:
            call, item = handed[who].pop()
            with pytest.raises(RuntimeError):
                handle.client.withdraw(call, undo=True)
            items.appendleft(item)
            settle()
        elif action == "withdraw" and any(one[0] == who for one in getters):
            entry = next(one for one in getters if one[0] == who)
            getters.remove(entry)
            with pytest.raises(Empty):
                entry[1].withdraw()
        elif action == "end":
            getters = [one for one in getters if one[0] != who]
            putters = [one for one in putters if one[0] != who]
            handle.client.close()
            items.extendleft(item for _, item in reversed(handed[who]))
            handed[who] = []
            settle()
            handles[who] = bench.open().attach(kind, "q", *arguments)
        elif action == "snapshot":
            bench.machine = Machine.restore([bench.machine.dump()])
        assert keeper.qsize() == len(items)
    getters.clear()
    assert [entry[2] for entry in bench.object("q").store.dump_rows()] == list(items)
