# SPDX-License-Identifier: Apache-2.0
"""Each model refutes what must never be seen, and explains its nearest right neighbour.

Every wrong story stands beside one that differs in one point and is right: so it is that point which is refused.
"""

from __future__ import annotations

import pytest

# --- Lock and RLock


@pytest.mark.parametrize("released", [True, False])
def test_a_lock_is_not_granted_twice(tell, released):
    story = tell("Lock")
    story.one("A", "acquire", gives=True)
    if released:
        story.one("A", "release")
    story.one("B", "acquire", gives=True)
    assert story.holds() is released


@pytest.mark.parametrize("overlaps", [True, False])
def test_a_try_fails_only_while_somebody_holds_the_lock(tell, overlaps):
    """A timed acquire that gave up, too, needs a moment at which the lock was held."""
    story = tell("Lock")
    trying = story("B", "acquire", True, 0.1) if overlaps else None
    story.one("A", "acquire", gives=True)
    story.one("A", "release")
    trying = trying or story("B", "acquire", True, 0.1)
    story.done(trying, False)
    assert story.holds() is overlaps


def test_an_acquire_that_may_wait_for_ever_never_says_false(tell):
    story = tell("Lock")
    story.one("A", "acquire", gives=True)
    story.one("B", "acquire", gives=False)
    assert not story.holds()


@pytest.mark.parametrize("second", [7, 6, 8])
def test_fences_rise_and_are_never_repeated(tell, second):
    story = tell("Lock")
    story.one("A", "acquire", gives=7)
    story.one("A", "release")
    story.one("B", "acquire", gives=second)
    assert story.holds() is (second == 8)


def test_two_locks_never_give_one_fence(tell):
    story = tell("Lock")
    story.history.declare("other", "Lock")
    story.one("A", "acquire", gives=7)
    story.done(story("A", "acquire", object="other"), 7)
    with pytest.raises(AssertionError, match="given twice"):
        story.history.check()


@pytest.mark.parametrize("held", [True, False])
def test_releasing_what_is_not_held_is_an_error(tell, held):
    story = tell("Lock")
    if held:
        story.one("A", "acquire", gives=True)
    story.one("B", "release")
    assert story.holds() is held


def test_a_release_that_names_an_older_hold_frees_nothing(tell):
    story = tell("Lock")
    for fence in (1, 2):
        story.one("A", "acquire", gives=fence)
        story.one("A", "release", fence)
    assert story.holds()
    story.one("A", "acquire", gives=3)
    story.one("B", "release", 2)
    assert not story.holds()


@pytest.mark.parametrize("process", ["A", "B"])
def test_only_its_owner_takes_an_rlock_again(tell, process):
    story = tell("RLock")
    story.one("A", "acquire", gives=True)
    story.one(process, "acquire", gives=True)
    assert story.holds() is (process == "A")


@pytest.mark.parametrize("releases", [1, 2])
def test_an_rlock_is_free_after_as_many_releases_as_acquires(tell, releases):
    story = tell("RLock")
    story.one("A", "acquire", gives=5)
    story.one("A", "acquire", gives=5)
    for _ in range(releases):
        story.one("A", "release")
    story.one("B", "acquire", gives=6)
    assert story.holds() is (releases == 2)


def test_threads_of_one_process_are_different_owners(tell):
    story = tell("RLock")
    story.done(story("A", "acquire", thread="1"), True)
    story.done(story("A", "acquire", False, thread="2"), False)
    assert story.holds()
    story.failed(story("A", "release", thread="2"), "RuntimeError")
    assert story.holds()
    story.done(story("A", "release", thread="2"), None)
    assert not story.holds()


# --- the end of a session


@pytest.mark.parametrize("lost", [True, False])
def test_a_lost_session_frees_its_lock_and_a_living_one_does_not(tell, lost):
    story = tell("Lock")
    story.one("A", "acquire", gives=1)
    if lost:
        story.history.session_lost("A")
    story.one("B", "acquire", gives=2)
    assert story.holds() is lost


def test_the_lock_passes_on_only_after_the_loss_began(tell):
    """Whoever still believes in its lease must be right."""
    story = tell("Lock")
    story.one("A", "acquire", gives=1)
    story.one("B", "acquire", gives=2)
    story.history.session_lost("A")
    assert not story.holds()


def test_a_call_of_the_old_session_takes_no_effect_after_its_end(tell):
    story = tell("Lock")
    lost = story("A", "acquire")
    story.history.lost(lost)
    story.one("B", "acquire", gives=2)
    story.one("A", "release", raises="RuntimeError")
    assert not story.holds(), "B holds it, so whoever releases it releases it"
    story = tell("Lock")
    lost = story("A", "acquire")
    story.history.lost(lost)
    story.one("B", "acquire", False, gives=False)  # A's was granted, and its end is not there yet
    story.one("B", "acquire", False, gives=True)
    story.one("C", "acquire", False, gives=False)
    assert story.holds()
    story.one("B", "release")
    story.one("C", "locked", gives=True)
    assert not story.holds(), "the old session has ended before B could acquire"


def test_a_call_asked_again_in_a_new_session_counts_once_in_each(tell):
    story = tell("Lock")
    waiting = story("A", "acquire")
    story.history.session_lost("A")
    story.one("B", "acquire", False, gives=False)  # A's first grant, dying with its session
    story.done(waiting, 2)
    assert story.holds()
    story.one("B", "acquire", False, gives=True)
    assert not story.holds()


def test_what_was_given_up_may_be_granted_and_is_given_back(tell):
    story = tell("Lock")
    patient = story("A", "acquire", True, 0.1)
    story.history.gave_up(patient)
    story.one("B", "acquire", False, gives=False)
    story.one("B", "acquire", False, gives=True)
    assert story.holds()
    story.one("C", "acquire", False, gives=True)
    assert not story.holds()


# --- Condition


def condition(tell, kind="Lock"):
    story = tell(kind)
    story.history.declare("c", "Condition", "it")
    return story


@pytest.mark.parametrize("notified", [True, False])
def test_a_wait_ends_well_only_if_notified(tell, notified):
    story = condition(tell)
    story.one("A", "acquire", gives=True)
    waiting = story("A", "wait", None, object="c")
    story.one("B", "acquire", gives=True)
    if notified:
        story.done(story("B", "notify", 1, object="c"))
    story.one("B", "release")
    story.done(waiting, True)
    assert story.holds() is notified


def test_who_returns_from_a_wait_holds_the_lock(tell):
    story = condition(tell)
    story.one("A", "acquire", gives=True)
    waiting = story("A", "wait", None, object="c")
    story.one("B", "acquire", gives=True)
    story.done(story("B", "notify", 1, object="c"))
    story.done(waiting, True)
    assert not story.holds(), "B has not released it"


@pytest.mark.parametrize("n", [1, 2])
def test_a_notify_wakes_as_many_as_it_says(tell, n):
    story = condition(tell, "RLock")
    waits = []
    for process in "AB":
        story.one(process, "acquire", gives=True)
        waits.append(story(process, "wait", None, object="c"))
    story.one("C", "acquire", gives=True)
    story.done(story("C", "notify", n, object="c"))
    story.one("C", "release")
    for process, waiting in zip("AB", waits, strict=True):
        story.done(waiting, True)
        story.one(process, "release")
    assert story.holds() is (n == 2)


@pytest.mark.parametrize("first", [0, 1])
def test_the_first_that_waits_is_the_first_that_is_notified(tell, first):
    story = condition(tell, "RLock")
    waits = []
    for process in "AB":
        story.one(process, "acquire", gives=True)
        waits.append(story(process, "wait", None, object="c"))
        story.one("C", "acquire", gives=True)  # so the wait has freed the lock by now
        story.one("C", "release")
    story.one("C", "acquire", gives=True)
    story.done(story("C", "notify", 1, object="c"))
    story.one("C", "release")
    story.done(waits[first], True)
    assert story.holds() is (first == 0)


def test_a_notify_is_not_spent_on_who_has_timed_out(tell):
    """A gives up while C holds the lock; what C notifies then is B's, and nobody else's."""
    story = condition(tell, "RLock")
    waits = {}
    for process, timeout in (("A", 0.1), ("B", None)):
        story.one(process, "acquire", gives=True)
        waits[process] = story(process, "wait", timeout, object="c")
    story.one("C", "acquire", gives=True)
    story.done(story("C", "notify", 1, object="c"))
    story.one("C", "release")
    story.done(waits["A"], False)
    story.one("A", "release")
    assert story.holds()
    assert not story.holds(settled=True), "B was notified, and must come back"
    story.done(waits["B"], True)
    assert story.holds(settled=True)


def test_a_notification_that_died_with_its_session_goes_to_another(tell):
    story = condition(tell, "RLock")
    waits = {}
    for process in "AB":
        story.one(process, "acquire", gives=True)
        waits[process] = story(process, "wait", None, object="c")
        story.one("C", "acquire", gives=True)
        story.one("C", "release")
    story.one("C", "acquire", gives=True)
    story.done(story("C", "notify", 1, object="c"))
    story.history.lost(waits["A"])
    story.one("C", "release")
    assert not story.holds(settled=True), "B is forgotten"
    story.done(waits["B"], True)
    assert story.holds(settled=True)


@pytest.mark.parametrize("operation", ["wait", "notify", "notify_all"])
def test_a_condition_wants_its_lock_held(tell, operation):
    story = condition(tell, "RLock")
    story.failed(story("A", operation, object="c"), "RuntimeError")
    assert story.holds()
    story.one("A", "acquire", gives=True)
    story.failed(story("A", operation, object="c"), "RuntimeError")
    assert not story.holds()


# --- Semaphore, Event, Barrier


@pytest.mark.parametrize("permits", [1, 2])
def test_a_semaphore_lets_in_as_many_as_it_has(tell, permits):
    story = tell("Semaphore", permits)
    story.one("A", "acquire", gives=True)
    story.one("B", "acquire", gives=True)
    assert story.holds() is (permits == 2)


@pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])
def test_a_bounded_semaphore_refuses_a_release_too_many(tell, kind):
    story = tell(kind, 1)
    story.one("A", "release")
    assert story.holds() is (kind == "Semaphore")


def test_a_try_on_free_permits_succeeds(tell):
    story = tell("Semaphore", 1)
    story.one("A", "acquire", False, gives=False)
    assert not story.holds()


@pytest.mark.parametrize("counts", [True, False])
def test_permits_return_unless_the_semaphore_counts_things(tell, counts):
    story = tell("Semaphore", 1)
    if counts:
        story.one("B", "release")
        story.one("B", "acquire", gives=True)
    story.one("A", "acquire", gives=True)
    story.history.session_lost("A")
    story.one("B", "acquire", gives=True)
    assert story.holds() is not counts


@pytest.mark.parametrize("unused", [True, False])
def test_a_semaphore_that_nobody_uses_counts_no_longer(tell, unused):
    """It is back at its beginning and dropped, and the next one to come makes it anew."""
    story = tell("BoundedSemaphore", 1)
    story.one("A", "acquire", gives=True)
    story.one("B", "release")
    if unused:
        story.history.session_lost("A")
        story.history.session_lost("B")
    story.one("C", "acquire", gives=True)
    story.history.session_lost("C")
    story.one("D", "acquire", gives=True)
    assert story.holds() is unused


@pytest.mark.parametrize("seen", [True, False])
def test_is_set_is_never_stale(tell, seen):
    story = tell("Event")
    story.one("A", "set")
    story.one("B", "is_set", gives=seen)
    assert story.holds() is seen


@pytest.mark.parametrize("begun", ["before", "between", "after"])
def test_a_wait_needs_a_moment_at_which_the_flag_is_up(tell, begun):
    story = tell("Event")
    waiting = story("B", "wait", None) if begun == "before" else None
    story.one("A", "set")
    waiting = waiting or (story("B", "wait", None) if begun == "between" else None)
    story.one("A", "clear")
    waiting = waiting or story("B", "wait", None)
    story.done(waiting, True)
    assert story.holds() is (begun != "after")


def test_a_wait_that_fails_needs_a_moment_at_which_the_flag_is_down(tell):
    story = tell("Event")
    story.one("A", "set")
    story.one("B", "wait", 0.1, gives=False)
    assert not story.holds()


@pytest.mark.parametrize("came", [1, 2])
def test_a_barrier_lets_nobody_through_with_one_short(tell, came):
    story = tell("Barrier", 2)
    waits = [story(process, "wait", None) for process in "AB"[:came]]
    story.done(waits[0], 0)
    assert story.holds() is (came == 2)


@pytest.mark.parametrize("indices", [(0, 1), (1, 0), (0, 0), (1, 1), (1, 2)])
def test_each_index_is_given_once(tell, indices):
    story = tell("Barrier", 2)
    waits = [story(process, "wait", None) for process in "AB"]
    for waiting, index in zip(waits, indices, strict=True):
        story.done(waiting, index)
    assert story.holds() is (sorted(indices) == [0, 1])


@pytest.mark.parametrize("why", ["abort", "reset", "timeout", "lost", ""])
def test_a_barrier_breaks_for_a_reason(tell, why):
    story = tell("Barrier", 3)
    waits = [story("A", "wait", None), story("B", "wait", 0.1 if why == "timeout" else None)]
    match why:
        case "abort" | "reset":
            story.one("C", why)
        case "timeout":
            story.failed(waits[1], "BrokenBarrierError")
        case "lost":
            story.history.lost(waits[1])
    story.failed(waits[0], "BrokenBarrierError")
    assert story.holds() is bool(why)
    story.one("C", "broken", gives=why != "reset")
    assert story.holds() is bool(why)


def test_an_action_that_fails_breaks_the_round(tell):
    story = tell("Barrier", 2, True)
    waits = [story(process, "wait", None) for process in "AB"]
    story.failed(waits[1], "ZeroDivisionError")
    story.failed(waits[0], "BrokenBarrierError")
    assert story.holds()
    story = tell("Barrier", 2, True)
    waits = [story(process, "wait", None) for process in "AB"]
    story.failed(waits[1], "ZeroDivisionError")
    story.done(waits[0], 0)
    assert not story.holds()
