# SPDX-License-Identifier: Apache-2.0
"""The models of queues refute what must never be seen, and explain its nearest right neighbour, as in
test_wrong_histories.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest


def fill(story, *items):
    for item in items:
        story.one("P", "put", item)


@pytest.mark.parametrize(
    ("kind", "expected"), [("Queue", 2), ("LifoQueue", 3), ("PriorityQueue", 1), ("SimpleQueue", 2)]
)
@pytest.mark.parametrize("item", [1, 2, 3])
def test_items_come_in_the_order_of_their_queue(tell, kind, expected, item):
    story = tell(kind)
    fill(story, 2, 1, 3)
    story.one("A", "get", gives=item)
    assert story.holds() is (item == expected)


@pytest.mark.parametrize("again", [True, False])
def test_an_item_comes_out_once(tell, again):
    story = tell("Queue")
    fill(story, 1, 2)
    story.one("A", "get", gives=1)
    story.one("B", "get", gives=1 if again else 2)
    assert story.holds() is not again


def test_an_item_is_not_lost(tell):
    story = tell("Queue")
    fill(story, 1)
    story.one("A", "get", False, raises="Empty")
    assert not story.holds()


def test_an_item_is_not_invented(tell):
    story = tell("Queue")
    fill(story, 1)
    story.one("A", "get", gives=2)
    assert not story.holds()


@pytest.mark.parametrize("maxsize", [1, 2])
def test_a_full_queue_takes_no_more(tell, maxsize):
    story = tell("Queue", maxsize)
    fill(story, 1)
    story.one("P", "put", 2)
    assert story.holds() is (maxsize == 2)
    story = tell("Queue", maxsize)
    fill(story, 1)
    story.one("P", "put", 2, False, raises="Full")
    assert story.holds() is (maxsize == 1)


@pytest.mark.parametrize("done", [1, 2])
def test_join_waits_for_all_tasks(tell, done):
    story = tell("Queue")
    fill(story, 1, 2)
    for _ in range(done):
        story.one("A", "task_done")
    story.one("B", "join")
    assert story.holds() is (done == 2)


@pytest.mark.parametrize("done", [0, 1])
def test_task_done_too_often_is_an_error(tell, done):
    story = tell("Queue")
    fill(story, 1)
    for _ in range(done):
        story.one("A", "task_done")
    story.one("A", "task_done", raises="ValueError")
    assert story.holds() is (done == 1)


@pytest.mark.parametrize("immediate", [True, False])
def test_a_shutdown_drops_what_is_in_it_only_at_once(tell, immediate):
    story = tell("Queue")
    fill(story, 1)
    story.one("A", "shutdown", immediate)
    story.one("P", "put", 2, raises="ShutDown")
    story.one("A", "get", gives=1)
    assert story.holds() is not immediate
    story.one("A", "get", raises="ShutDown")
    assert story.holds() is not immediate


@pytest.mark.parametrize("lost", [True, False])
def test_what_nobody_heard_of_comes_back_to_the_head(tell, lost):
    story = tell("Queue")
    fill(story, 1, 2)
    taking = story("A", "get")
    if lost:
        story.history.lost(taking)
    else:
        story.done(taking, 1)
    story.one("B", "get", gives=1)
    story.one("B", "get", gives=2)
    assert story.holds() is lost


def test_what_is_asked_next_acknowledges_an_item_only_if_the_group_has_seen_it(tell):
    story = tell("Queue")
    fill(story, 1, 2)
    story.one("A", "get", gives=1)
    story.history.lost(story("A", "task_done"))  # it may never have come there, and the item comes back
    story.one("B", "get", gives=1)
    assert story.holds()


@pytest.mark.parametrize("redelivers", [True, False])
@pytest.mark.parametrize("done", [True, False])
def test_tasks_not_done_come_again_where_the_queue_redelivers(tell, redelivers, done):
    """And elsewhere, as long as the group need not have heard that the item had arrived: a thread that says
    `task_done()` has all that it got before.
    """
    story = tell("Queue", 0, redelivers)
    fill(story, 1, 2, 3)
    story.one("A", "get", gives=1)
    story.one("A", "get", gives=2)
    if done:
        story.one("A", "task_done")
    story.history.session_lost("A")
    story.one("B", "get", gives=2 if done else 1)
    assert story.holds() is (redelivers or not done)


@pytest.mark.parametrize("kind", ["Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"])
@pytest.mark.parametrize("back", [(), (1,), (2,), (1, 3), (2, 3), (1, 2, 3), (3, 1), (1, 1)])
def test_any_item_whose_arrival_was_not_heard_of_may_come_back_and_in_its_order(tell, kind, back):
    """The lanes by which answers come are shared by all threads of a session, so it need not be a thread's last."""
    story = tell(kind)
    fill(story, *((3, 2, 1) if kind == "LifoQueue" else (1, 2, 3)))
    for item, thread in ((1, "one"), (2, "other"), (3, "one")):
        story.done(story("A", "get", thread=thread), item)
    story.history.session_lost("A")
    for item in back:
        story.one("B", "get", gives=item)
    story.one("B", "get", False, raises="Empty")
    assert story.holds() is (back not in {(3, 1), (1, 1)})


def test_nothing_comes_back_from_a_session_that_lives(tell):
    story = tell("SimpleQueue")
    fill(story, 1, 2)
    story.one("A", "get", gives=1)
    story.one("B", "get", gives=1)
    assert not story.holds()


def test_what_comes_back_stands_before_what_was_not_taken(tell):
    for first, right in ((1, True), (2, True), (3, True), (4, False)):
        story = tell("Queue")
        fill(story, 1, 2, 3, 4)
        story.one("A", "get", gives=1)
        story.one("A", "get", gives=2)
        story.history.session_lost("A")
        story.one("B", "get", gives=first)
        assert story.holds() is right


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_long_life_that_ends_is_judged_at_once(tell, size):
    """Of sixty items that may come back it makes no difference which, until one is seen again: only how many."""
    story = tell("SimpleQueue")
    fill(story, *range(62))
    for item in range(60):
        story.one("A", "get", gives=item)
    story.history.session_lost("A")
    story.one("B", "get", gives=7)
    story.one("B", "qsize", gives=size)
    assert story.holds()
    story.one("B", "get", gives=62)
    assert not story.holds()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_call_given_up_gives_its_item_back_though_its_session_lives(tell, size):
    """Seen in the size of the queue: it had the item, and has it no more, sooner or later."""
    story = tell("Queue")
    fill(story, 1, 2)
    taking = story("A", "get")
    story.one("B", "qsize", gives=1)
    story.history.gave_up(taking)
    story.one("B", "qsize", gives=size)
    assert story.holds() is (size < 3)
    story.one("B", "get", gives=1 if size == 2 else 2)
    assert story.holds() is (size < 3)


def test_after_a_shutdown_at_once_joiners_hear_of_lost_tasks_too(tell):
    for lost, right in ((True, True), (False, False)):
        story = tell("Queue")
        fill(story, 1, 2)
        story.one("A", "get", gives=1)
        joining = story("B", "join")
        story.one("B", "shutdown", True)
        if lost:
            story.history.session_lost("A")
        story.failed(joining, "TasksLost")
        assert story.holds() is right


def test_joiners_hear_that_tasks_are_lost(tell):
    story = tell("Queue")
    fill(story, 1)
    story.one("A", "get", gives=1)
    story.one("A", "qsize", gives=0)
    joining = story("B", "join")
    story.failed(joining, "TasksLost")
    assert not story.holds()
    story = tell("Queue")
    fill(story, 1)
    story.one("A", "get", gives=1)
    story.one("A", "qsize", gives=0)
    joining = story("B", "join")
    story.history.session_lost("A")
    story.failed(joining, "TasksLost")
    assert story.holds()
    story.one("B", "unfinished_tasks", gives=0)
    assert story.holds()


def test_ties_of_a_priority_queue_are_first_come_first_served(tell):
    for first, right in (("a", True), ("b", False)):
        story = tell("PriorityQueue")
        fill(story, (1, {"job": "a"}), (1, {"job": "b"}), (0, None))
        story.one("A", "get", gives=(0, None))
        story.one("A", "get", gives=(1, {"job": first}))
        assert story.holds() is right


@pytest.mark.parametrize("first", ["a", "b"])
def test_what_comes_back_to_a_priority_queue_stands_where_it_stood(tell, first):
    """Also behind its like that was there before it and had been taken, too."""
    story = tell("PriorityQueue", 0, True)
    fill(story, (1, ["a"]), (1, ["b"]))
    story.one("A", "get", gives=(1, ["a"]))
    story.one("B", "get", gives=(1, ["b"]))
    story.history.session_lost("A")
    story.one("C", "qsize", gives=1)
    story.history.session_lost("B")
    story.one("C", "qsize", gives=2)
    story.one("C", "get", gives=(1, [first]))
    assert story.holds() is (first == "a")


@dataclass(order=True, frozen=True)
class Job:
    urgency: int
    text: str = field(compare=False)


@pytest.mark.parametrize(
    ("less", "more"),
    [
        (9, 10),
        (-1, False),
        (b"a", b"b"),
        ((1, "x"), (1, "y")),
        ([1, 2], (1, 3)),  # a list is compared as a tuple is
        ((1, {"z": 0}), (2, {"a": 0})),
        ((1, [2, {"z": 0}]), (1, [3, {"a": 0}])),
        (Job(1, "z"), Job(2, "a")),
        ([], [0]),
    ],
)
def test_a_priority_queue_orders_as_python_does(tell, less, more):
    for first in (less, more):
        story = tell("PriorityQueue")
        fill(story, more, less)
        story.one("A", "get", gives=first)
        assert story.holds() is (first is less)


@pytest.mark.parametrize(
    ("item", "error"),
    [
        ("text", "TypeError"),  # beside a number
        ((1, 2), "TypeError"),
        ({"a": 1}, "TypeError"),  # it has nothing to be ordered by
        (None, "TypeError"),
        (({"a": 1}, 1), "TypeError"),
        (math.nan, "ValueError"),
        ((1, math.nan), "ValueError"),
        (2.5, ""),
    ],
)
def test_who_puts_what_cannot_be_compared_gets_the_error(tell, item, error):
    for said in ("", error or "TypeError"):
        story = tell("PriorityQueue")
        fill(story, 1)
        story.one("P", "put", item, raises=said)
        story.one("A", "qsize", gives=1 if said else 2)
        story.one("A", "get", gives=1)
        assert story.holds() is (said == error)


def test_an_empty_queue_takes_what_it_could_not_compare_before(tell):
    for taken in (True, False):
        story = tell("PriorityQueue")
        fill(story, 1)
        if taken:
            story.one("A", "get", gives=1)
        story.one("P", "put", "text")
        assert story.holds() is taken
