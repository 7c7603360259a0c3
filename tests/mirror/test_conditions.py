# SPDX-License-Identifier: Apache-2.0
"""Condition above the wire: its lock, its fence after a wait, interrupts, predicates."""

import pickle
import threading
from types import SimpleNamespace

import pytest

import dthreading
from dthreading.errors import AmbiguousName, LockLost
from dthreading.wire.messages import Lifetime

pytestmark = pytest.mark.usefixtures("group")

OVER = pytest.mark.parametrize("over", [dthreading.Lock, dthreading.RLock])


@OVER
def test_a_wait_ends_with_a_new_fence(over, background, until_waiting):
    """Whoever held the lock meanwhile had a smaller one than we have now; the old one must not be used."""
    condition = dthreading.Condition(over())
    fences = []

    def wait():
        with condition:
            fences.append(condition.fence)
            assert condition.wait() is True
            fences.append(condition.fence)

    waiter = background(wait)
    until_waiting(condition)
    with condition:
        fences.append(condition.fence)
        condition.notify()
    waiter.result()
    assert fences == sorted(set(fences))


def test_a_wait_restores_the_depth_of_an_rlock(background, until_waiting):
    """However deep it was taken, waiting frees it wholly and takes it again as deep."""
    condition = dthreading.Condition()

    def wait():
        with condition, condition, condition:
            assert condition.wait()
            return condition._recursion_count()

    waiter = background(wait)
    until_waiting(condition)
    with condition:
        condition.notify()
    assert waiter.result() == 3
    assert not condition.locked()


def test_an_interrupted_wait_holds_the_lock_when_it_is_raised(background, until_waiting, interruptible):
    """So that the `with` around it has something to release, by its new fence; and no notify is lost to it."""
    condition = dthreading.Condition()

    def interrupt():
        until_waiting(condition)
        interruptible()

    helper = background(interrupt)
    with condition:
        before = condition.fence
        with pytest.raises(KeyboardInterrupt):
            condition.wait()
        assert condition._is_owned()
        assert condition.fence > before
    helper.result()
    assert not condition.locked()


@OVER
def test_a_wait_whose_session_ends_is_lost(group, over, background, until_waiting):
    """It returns only with the lock held, or with LockLost, and a release after that is LockLost too."""
    condition = dthreading.Condition(over(name="guard"), name="ready")

    def wait():
        condition.acquire()
        with pytest.raises(LockLost):
            condition.wait()
        with pytest.raises(LockLost):
            condition.release()

    waiter = background(wait)
    until_waiting(condition)
    group.lose(group.own)
    waiter.result()


def test_wait_for_returns_what_its_predicate_said():
    """As in the standard library: the value, not True; and the last one when time is up."""
    condition = dthreading.Condition()
    with condition:
        assert condition.wait_for(lambda: "yes") == "yes"
        assert condition.wait_for(list, timeout=0.01) == []


def test_wait_for_waits_once_however_little_time_is_given():
    """As in the standard library: or whoever polls with no timeout at all would never let others have the lock."""
    condition, asked = dthreading.Condition(), []
    with condition:
        assert condition.wait_for(lambda: asked.append("is it so?"), timeout=0) is None
    assert len(asked) == 2
    with pytest.raises(RuntimeError, match="un-acquired"):
        condition.wait_for(lambda: False, timeout=-1)


def test_the_time_of_wait_for_counts_from_the_first_wait(monkeypatch):
    """As in the standard library: a slow predicate takes nothing of it before that."""
    clock, waits = [0.0], []

    class Recording(dthreading.Condition):
        def wait(self, timeout=None):
            waits.append(timeout)
            clock[0] += 2

    def slow():
        clock[0] += 3

    monkeypatch.setattr(dthreading.locks, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    Recording().wait_for(slow, timeout=7)
    assert waits == [7, 2]


@pytest.mark.parametrize("use", ["wait", "notify", "notify_all"])
@OVER
def test_the_lock_must_be_held(over, use):
    """The standard library's error, for its reason."""
    with pytest.raises(RuntimeError, match=f"cannot {use.partition('_')[0]} on un-acquired lock"):
        getattr(dthreading.Condition(over()), use)()


def one_waits(background, until_waiting):
    """A condition, and the one thread that waits for it."""
    condition = dthreading.Condition()

    def wait():
        with condition:
            return condition.wait()

    waiter = background(wait)
    until_waiting(condition)
    return condition, waiter


@pytest.mark.parametrize("n", [-1, 0])
def test_notify_of_nobody(n, background, until_waiting):
    """`notify(-1)` wakes nobody, as in the standard library; on the wire -1 means all."""
    condition, waiter = one_waits(background, until_waiting)
    with condition:
        condition.notify(n)
        assert condition._peek("waiters") == 1
        condition.notify_all()
    assert waiter.result() is True


def test_notify_takes_what_is_an_index(background, until_waiting):
    """`notify(True)` wakes one, as in the standard library: what goes on the wire is an int, whatever was given."""
    condition, waiter = one_waits(background, until_waiting)
    with condition:
        with pytest.raises(TypeError, match="'float' object cannot be interpreted as an integer"):
            condition.notify(1.5)
        condition.notify(True)
    assert waiter.result() is True


@pytest.mark.parametrize("lock", [threading.Lock(), threading.RLock(), dthreading.Event(name="no lock"), 1])
def test_a_lock_of_another_sort_is_refused(lock):
    """The servers know nothing of a lock of one process."""
    with pytest.raises(TypeError, match="distributed Condition"):
        dthreading.Condition(lock)


def test_several_conditions_share_a_lock(background, until_waiting):
    """As in the textbook's bounded buffer."""
    lock = dthreading.Lock(name="buffer")
    not_empty, not_full = dthreading.Condition(lock), dthreading.Condition(lock)

    def wait():
        with not_empty:
            return not_empty.wait()

    waiter = background(wait)
    until_waiting(not_empty)
    with not_full:
        assert lock.locked()
        not_full.notify_all()
        not_empty.notify()
    assert waiter.result() is True


def test_the_default_lock_is_named_after_the_condition():
    condition = dthreading.Condition(name="ready")
    assert condition._lock.name == "ready.lock"
    assert condition._lock._proxy_target.lifetime == Lifetime.NAMED


def test_an_unnamed_lock_is_named_after_its_condition(monkeypatch):
    """Else two processes would have one condition over two locks. Nobody complains that the lock had no name."""
    monkeypatch.setenv("DTHREADING_NAMING", "strict")
    condition = dthreading.Condition(dthreading.Lock(), name="ready")
    with condition:
        assert condition._lock.name == "ready.lock"


def test_a_lock_that_was_used_keeps_its_name(monkeypatch):
    """It is too late to mean another object by it."""
    lock = dthreading.Lock()
    name = lock.name
    lock.locked()
    assert dthreading.Condition(lock, name="ready")._lock.name == name
    monkeypatch.setenv("DTHREADING_NAMING", "strict")
    with pytest.raises(AmbiguousName):
        [dthreading.Lock()][0].locked()


def test_two_conditions_of_one_name_over_different_locks_are_refused():
    """The error names both."""
    first = dthreading.Condition(dthreading.Lock(name="one"), name="ready")
    first._peek("waiters")
    condition = dthreading.Condition(dthreading.Lock(name="two"), name="ready")
    with pytest.raises(dthreading.ObjectMismatch, match=r"(?s)one.*two|two.*one"), condition:
        condition.notify()


def test_a_pickled_condition_has_the_same_lock():
    """It carries its lock's name, as it carries its own."""
    condition = dthreading.Condition(dthreading.Lock(name="guard"), name="ready")
    copied = pickle.loads(pickle.dumps(condition))
    with condition:
        assert copied.locked()
        copied.notify()
    assert repr(copied).startswith("<Condition(<unlocked dthreading.Lock object at ")


def test_the_names_of_the_past():
    """notifyAll() is there and says that it is deprecated."""
    condition = dthreading.Condition()
    with condition, pytest.warns(DeprecationWarning, match="notify_all"):
        condition.notifyAll()
