# SPDX-License-Identifier: Apache-2.0
"""Who was told that it waits before another asked is served first; each sign of the contrary is seen, and no other."""

from __future__ import annotations

import pytest


def is_fair(story):
    try:
        story.history.check_fairness()
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("fences", [(2, 3), (3, 2)])
def test_fences_tell_who_was_first(tell, told, fences):
    """Only of those who had been told that they wait is the order known."""
    story = tell("Lock")
    story.one("C", "acquire", gives=1)
    earlier = story("A", "acquire")
    if told:
        story.history.parked(earlier)
    later = story("B", "acquire")
    story.history.parked(later)
    story.one("C", "release")
    for call, fence in sorted(zip((earlier, later), fences, strict=True), key=lambda pair: pair[1]):
        story.done(call, fence)
        story.one(call.process, "release")
    assert story.holds()
    assert is_fair(story) is (not told or fences == (2, 3))


@pytest.mark.parametrize("later_comes_back", ["before", "after"])
def test_nobody_gives_up_empty_handed_while_a_later_one_is_served(tell, later_comes_back):
    story = tell("Semaphore", 0)
    earlier = story("A", "acquire", True, 0.1)
    story.history.parked(earlier)
    later = story("B", "acquire")
    story.one("C", "release")
    if later_comes_back == "before":
        story.done(later, True)
        story.done(earlier, False)
    else:
        story.done(earlier, False)
        story.done(later, True)
    assert story.holds()
    assert is_fair(story) is (later_comes_back == "after")


def test_nobody_is_left_waiting_while_a_later_one_is_served(tell):
    story = tell("Queue", 1)
    story.one("P", "put", 0)
    story.history.parked(story("A", "put", 1))
    later = story("B", "put", 2)
    story.one("C", "get", gives=0)
    assert is_fair(story)
    story.done(later)
    assert not is_fair(story)


@pytest.mark.parametrize("items", [(1, 2), (2, 1)])
def test_getters_get_items_in_the_order_they_came(tell, items):
    story = tell("Queue")
    waits = [story("A", "get"), None]
    story.history.parked(waits[0])
    waits[1] = story("B", "get")
    story.one("P", "put", 1)
    story.one("P", "put", 2)
    for call, item in zip(waits, items, strict=True):
        story.done(call, item)
    assert story.holds()
    assert is_fair(story) is (items == (1, 2))


def test_a_lost_caller_accuses_nobody(tell):
    story = tell("Lock")
    story.one("C", "acquire", gives=1)
    earlier = story("A", "acquire")
    story.history.parked(earlier)
    later = story("B", "acquire")
    story.history.lost(earlier)
    story.one("C", "release")
    story.done(later, 2)
    assert is_fair(story)
