# SPDX-License-Identifier: Apache-2.0
"""Lock and RLock above the wire: errors, fences, lost leases, interrupts, copies. (Who gets it when: tests/machine.)"""

import copy
import gc
import itertools
import pickle
import sys
import threading
import weakref
from types import SimpleNamespace

import pytest

import dthreading
from dthreading import holds, ownable, proxy
from dthreading.errors import LockLost, WrongGroup
from dthreading.session.calls import ACQUIRE, CHANGE, RELEASE, Target
from tests.tracing import interrupted_at

pytestmark = pytest.mark.usefixtures("group")

BOTH = pytest.mark.parametrize("kind", ["Lock", "RLock"])


def outcome(function, *arguments, **options):
    """What it returned, or the class and the words of what it raised."""
    try:
        return function(*arguments, **options)
    except Exception as error:
        return type(error), str(error)


@BOTH
@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((False, 1), {}),
        ((False, -1), {}),
        ((True, -2), {}),
        ((), {"timeout": -0.5}),
        ((), {"timeout": None}),
        ((), {"timeout": "1"}),
        ((), {"timeout": 1e100}),
        ((), {"timeout": float("inf")}),
        ((), {"timeout": float("nan")}),
        ((), {"timeout": threading.TIMEOUT_MAX}),
        ((), {"blocking": True, "timeout": 0}),
        ((), {"block": True}),
        ((True, 1, 2), {}),
        (([],), {}),
    ],
)
def test_acquire_judges_its_arguments_as_this_python_does(kind, arguments, options):
    """The running version's own lock is the judge: same error, same answer, and the same words."""
    ours = outcome(getattr(dthreading, kind)().acquire, *arguments, **options)
    theirs = outcome(getattr(threading, kind)().acquire, *arguments, **options)
    if isinstance(theirs, tuple) and theirs[0] is TypeError:
        assert ours[0] is TypeError  # "acquire() takes" or "Lock.acquire() takes": whose name it says differs
    else:
        assert ours == theirs


@BOTH
def test_constructor_takes_a_name_by_keyword_alone(kind):
    """`Lock(1)` is as much of an error as in `threading`."""
    with pytest.raises(TypeError):
        getattr(dthreading, kind)(1)
    assert getattr(dthreading, kind)(name="x").name == "x"


@BOTH
def test_they_are_classes(kind):
    """`isinstance`, annotations and `Lock | None` work, on every version."""
    cls = getattr(dthreading, kind)
    assert isinstance(cls(), cls)
    assert (cls | None).__args__ == (cls, type(None))


@BOTH
def test_a_short_timeout_on_a_free_lock_succeeds(kind):
    """The timeout bounds the waiting, not the round trip."""
    assert getattr(dthreading, kind)().acquire(timeout=1e-9) is True


def test_release_of_an_unlocked_lock_has_the_words_of_the_standard_library(lock):
    assert outcome(lock.release) == outcome(threading.Lock().release)
    assert outcome(dthreading.RLock().release) == outcome(threading.RLock().release)


# --- fences ---------------------------------------------------------------------------------------------------------


@BOTH
def test_fence_is_there_while_it_is_held(kind):
    """None where nothing is held; greater at each grant; one for all levels of an RLock."""
    lock = getattr(dthreading, kind)()
    assert lock.fence is None
    fences = []
    for _ in range(2):
        with lock:
            fences.append(lock.fence)
            if kind == "RLock":
                with lock:
                    assert lock.fence == fences[-1]
                assert lock.fence == fences[-1]
        assert lock.fence is None
    assert fences[0] < fences[1]


def test_a_release_names_the_hold_of_its_own_thread(lock, other, background):
    """A sibling's grant must not fall to this thread's late release of a hold that another process ended."""
    lock.acquire()
    other.call(_target(lock), "release", (None,), RELEASE)  # a lock used as a signal
    background(lock.acquire).result()
    with pytest.raises(LockLost):
        lock.release()
    assert lock.locked()


def test_any_thread_may_release(lock, background):
    """And the record of the thread that acquired it goes, so its own next release is of nothing."""
    lock.acquire()
    background(lock.release).result()
    assert lock.fence is None
    with pytest.raises(RuntimeError, match="release unlocked lock"):
        lock.release()


def test_who_has_no_record_releases_whatever_is_held(lock, other):
    """A lock that one process acquires and another releases is a signal, as between threads."""
    other.call(_target(lock), "acquire", (True, 1), ACQUIRE)
    lock.release()
    assert not lock.locked()


def test_two_proxies_of_one_name_share_the_record(lock):
    """The record is the process's: whoever releases names the hold, whichever proxy acquired it."""
    lock.acquire()
    second = dthreading.Lock(name="orders")
    second.locked()
    assert second.fence == lock.fence
    second.release()
    assert lock.fence is None


def test_the_record_of_a_held_named_lock_outlives_its_proxy(group, lock):
    """Else a new proxy's release would name no fence, and could free another's hold after a lost lease."""
    lock.acquire()
    target = _target(lock)
    del lock
    gc.collect()
    group.lose(group.own)
    other = group.client("another process")
    other.call(target, "acquire", (True, 1), ACQUIRE)
    again = dthreading.Lock(name="orders")
    assert again.locked()
    with pytest.raises(LockLost):
        again.release()
    assert again.locked()


def test_a_lock_passed_to_and_fro_says_what_to_use_instead(group, lock, other):
    """Our hold was released by another process, which has the lock now: to release that would be to take it away from
    whoever relies on it. A signal in both directions is a semaphore, which works.
    """
    lock.acquire()
    other.call(_target(lock), "release", (None,), RELEASE)
    fence = other.call(_target(lock), "acquire", (True, 1), ACQUIRE).value
    for _ in range(2):
        with pytest.raises(LockLost, match=r"another process has released.*Semaphore\(1\)"):
            lock.release()
    assert lock.locked()
    other.call(_target(lock), "release", (fence,), RELEASE)

    baton = dthreading.Semaphore(1, name="baton")
    assert baton._value == 1
    for taker, giver in ((group.own, other), (other, group.own), (group.own, other)):
        assert taker.call(baton._proxy_target, "acquire", (True, 1), ACQUIRE).value is True
        giver.call(baton._proxy_target, "release", (1,), CHANGE)
    assert baton._value == 1


# --- lost leases ----------------------------------------------------------------------------------------------------


@BOTH
def test_every_use_of_a_lost_hold_says_so(group, kind):
    """Loss is never silent: fence, release, and going deeper into an RLock."""
    lock = getattr(dthreading, kind)(name="orders")
    lock.acquire()
    group.lose(group.own)
    with pytest.raises(LockLost):
        _ = lock.fence
    if kind == "RLock":
        with pytest.raises(LockLost):
            lock.acquire()
        assert not lock._is_owned()
        assert lock._recursion_count() == 0
    with pytest.raises(LockLost):
        lock.release()


def test_a_late_release_never_frees_anybody_elses_hold(group, lock):
    """Neither the first late release nor the second: a forgotten loss would look like a lock used as a signal."""
    lock.acquire()
    group.lose(group.own)
    other = group.client("another process")
    other.call(_target(lock), "acquire", (True, 1), ACQUIRE)
    for _ in range(3):
        with pytest.raises(LockLost):
            lock.release()
    assert lock.locked()


def test_after_a_loss_it_can_be_acquired_again(group, lock):
    """In a new session, under a greater fence; the old hold stays lost."""
    lock.acquire()
    first = lock.fence
    group.lose(group.own)
    assert lock.acquire()
    assert lock.fence > first
    lock.release()
    assert not lock.locked()


def test_a_lost_rlock_is_given_up_level_by_level(group):
    """Each `with` that ends hears of it; after the last the thread may acquire anew."""
    lock = dthreading.RLock(name="orders")
    lock.acquire()
    lock.acquire()
    group.lose(group.own)
    for _ in range(2):
        with pytest.raises(LockLost):
            lock.release()
    assert lock.acquire()
    assert lock._recursion_count() == 1
    lock.release()


def test_with_says_that_it_was_lost(group, lock):
    """When the body raised nothing, the end of `with` raises."""
    with pytest.raises(LockLost), lock:
        group.lose(group.own)


@BOTH
def test_with_never_masks_what_its_body_raised(group, kind, caplog):
    """The body's error is what the user must see; ours goes to the log."""
    with pytest.raises(ZeroDivisionError), getattr(dthreading, kind)():  # noqa: PT012
        group.lose(group.own)
        _ = 1 / 0
    assert "was not released properly" in caplog.text


# --- interrupts -----------------------------------------------------------------------------------------------------


@BOTH
def test_an_interrupted_acquire_leaves_no_ghost(group, until_waiting, background, interruptible, kind):
    """Ctrl-C while waiting works at once, and nobody stands in line for a thread that has gone."""
    lock = getattr(dthreading, kind)(name="orders")
    background(lock.acquire).result()

    def interrupt():
        until_waiting(lock)
        interruptible()

    helper = background(interrupt)
    with pytest.raises(KeyboardInterrupt):
        lock.acquire()
    helper.result()
    lock.locked()  # the withdrawal is applied by now: commands are, in order
    assert len(group.machine.find(_target(lock).namespace, "orders").waiting) == 0


@BOTH
def test_an_interrupt_anywhere_in_enter_leaves_nothing_held(kind):
    """Whatever line of ours it hits between the call and the body: before, between grant and record, or after."""
    lock = getattr(dthreading, kind)()
    lock.acquire()
    lock.release()
    names = ("dthreading.locks", "dthreading.entering", "dthreading.ownable", "dthreading.holds")
    files = {sys.modules[name].__file__ for name in names}
    step = 0
    while True:
        step += 1
        entered = []

        def enter(entered=entered):
            lock.__enter__()
            entered.append(True)

        place = interrupted_at(step, enter, files)
        if not place:
            break
        assert not entered
        assert not lock.locked(), f"held after an interrupt {place}"
        assert lock.fence is None
    assert step > 10, "the interrupts hit nothing"
    assert lock.locked()


@BOTH
def test_an_interrupted_release_is_finished(kind):
    """Ctrl-C on the way of a release is raised, and the lock is free all the same."""
    lock = getattr(dthreading, kind)()
    ask = proxy.Proxy._ask
    for after in (False, True):
        lock.acquire()
        interrupts = [True]

        def interrupted(self, operation, *arguments, after=after, interrupts=interrupts):
            if operation == "release" and interrupts:
                interrupts.pop()
                if after:
                    ask(self, operation, *arguments)
                raise KeyboardInterrupt
            return ask(self, operation, *arguments)

        proxy.Proxy._ask = interrupted
        try:
            with pytest.raises(KeyboardInterrupt):
                lock.release()
        finally:
            proxy.Proxy._ask = ask
        assert not lock.locked()
        assert lock.fence is None


@BOTH
@pytest.mark.parametrize("struck", [KeyboardInterrupt, TimeoutError], ids=["Ctrl-C", "an alarm's error"])
def test_a_release_that_is_interrupted_again_and_again_is_finished(kind, struck, monkeypatch):
    """Whoever wants a program to end presses Ctrl-C more than once, and the second comes while the first is seen to."""
    lock = getattr(dthreading, kind)()
    ask = proxy.Proxy._ask
    hits = []

    def interrupted(self, *arguments):
        hit = hits.pop(0) if hits else None
        if hit == "before":
            raise struck
        answer = ask(self, *arguments)
        if hit == "after":
            raise struck
        return answer

    for script in itertools.product(["before", "after", None], repeat=4):
        if script[0] is None:
            continue
        lock.acquire()
        hits[:] = script
        with monkeypatch.context() as patch:
            patch.setattr(proxy.Proxy, "_ask", interrupted)
            with pytest.raises(struck):
                lock.release()
        assert not lock.locked(), script
        assert lock.fence is None, script


def test_a_release_that_met_the_recursion_limit_is_still_on_record(lock):
    """It was perhaps never said. Forgotten, a later release would name no hold, and free anybody's."""

    def deep(levels, function):
        return deep(levels - 1, function) if levels else function()

    met = 0
    for levels in range(sys.getrecursionlimit() - 60, sys.getrecursionlimit() - 5):
        if not lock.locked():
            lock.acquire()
        try:
            deep(levels, lock.release)
        except RecursionError:
            met += 1
            assert lock.fence or not lock.locked()
    assert met > 5, "the limit was not met"


def test_an_interrupt_of_a_release_arrives_even_if_the_group_does_not_answer(lock, monkeypatch, caplog):
    """The lock cannot be freed then, so the user hears of that; and is not kept for longer than a lease."""
    lock.acquire()

    def interrupted(*_):
        raise KeyboardInterrupt

    now = iter(range(1000))
    with monkeypatch.context() as patch:
        patch.setattr(ownable, "time", SimpleNamespace(monotonic=lambda: next(now)))
        patch.setattr(proxy.Proxy, "_ask", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lock.release()
    assert next(now) < 100
    assert "may still be held" in caplog.text
    lock.release()  # it is still on record, so that this can be tried again


# --- what else programs do with locks --------------------------------------------------------------------------------


@BOTH
def test_a_pickled_lock_is_the_same_lock(kind):
    """It goes by its name, and carries the group, so the other side knows whether it means the same."""
    lock = getattr(dthreading, kind)()
    for other in (pickle.loads(pickle.dumps(lock)), copy.copy(lock), copy.deepcopy([lock])[0]):
        assert type(other) is type(lock)
        assert other.name == lock.name
        lock.acquire()
        assert other.locked()
        lock.release()


def test_a_pickled_lock_of_another_group_is_refused(group, lock):
    """It would be another lock of the same name."""
    pickled = pickle.dumps(lock)
    group.own.cluster = "another"
    with pytest.raises(WrongGroup, match="orders"):
        pickle.loads(pickled)


def test_a_private_lock_lives_while_anybody_uses_it(monkeypatch):
    """And is gone for good after that: who finds it gone must not get another of the same name."""
    lock = dthreading.Lock()
    pickled = pickle.dumps(lock)
    del lock
    second = pickle.loads(pickled)  # the sender had let go of it before
    monkeypatch.setattr(proxy, "LINGER_S", 0.0)
    dthreading.Lock(name="x").locked()
    assert not second.locked()
    del second
    with pytest.raises(dthreading.ObjectGone):
        pickle.loads(pickled)


@BOTH
def test_nothing_keeps_a_dropped_lock(group, kind):
    """Neither here nor on the replicas."""
    lock = getattr(dthreading, kind)()
    lock.acquire()
    gone = weakref.ref(lock)
    name = lock.name
    leash = weakref.ref(lock._proxy_leash)
    del lock
    assert gone() is None
    assert leash() is None
    dthreading.Lock(name="x").locked()  # the detachment is applied by now
    assert not [place for place in group.machine.registry.objects if place[1] == name]
    assert not [place for place in list(holds._known) if place[1] == name]


def test_no_thread_object_is_made_for_a_foreign_thread(lock):
    """A thread started below `threading` must not get a dummy Thread by taking a lock."""
    import _thread

    before = set(threading._active)
    done = _thread.allocate_lock()
    done.acquire()

    def use():
        with lock:
            pass
        done.release()

    _thread.start_new_thread(use, ())
    done.acquire()
    assert set(threading._active) == before


def test_repr_says_what_the_standard_library_says_and_the_name(lock):
    assert repr(lock) == f"<unlocked dthreading.Lock object at {id(lock):#x} name='orders'>"
    lock.acquire()
    assert repr(lock).startswith("<locked dthreading.Lock object at ")
    reentrant = dthreading.RLock(name="deep")
    assert repr(reentrant).startswith("<unlocked dthreading.RLock object owner=0 count=0 at ")
    with reentrant, reentrant:
        assert " count=2 at " in repr(reentrant)


def test_repr_never_fails(group, lock, monkeypatch):
    """It is what error messages and debuggers call."""

    def refuse(*_, **__):
        raise dthreading.GroupUnreachable("no")

    monkeypatch.setattr(group.own, "call", refuse)
    assert repr(lock).startswith("<unknown dthreading.Lock object at ")


def test_a_standard_condition_works_over_our_rlock(background, until_waiting):
    """It asks for the private methods that RLock has there."""
    lock = dthreading.RLock()
    condition = threading.Condition(lock)
    with condition, condition:
        assert condition.wait(0.01) is False
        assert lock._recursion_count() == 2
    assert not lock.locked()


def test_a_release_by_another_thread_means_the_latest_hold(group, lock, background):
    """Not one that was lost and is on record still: that thread will never come to release it."""
    background(lock.acquire).result()
    group.lose(group.own)
    background(lock.acquire).result()
    lock.release()
    assert not lock.locked()


def test_a_childs_child_leaves_the_hold_to_the_first_of_them(lock):
    """It comes to the end of the `with` around both forks, as the child does."""
    lock.acquire()
    for _ in range(3):
        lock._proxy_holds.leave_to_parent()
        with pytest.raises(LockLost, match="forked"):
            lock.__exit__(None, None, None)
    assert lock.locked()


def test_at_fork_reinit_frees_what_this_thread_holds(lock):
    """In a child nothing is held; called anywhere else it must still leave a usable lock."""
    lock.acquire()
    lock._at_fork_reinit()
    assert lock.acquire(False)
    lock.release()


def _target(lock):
    """An attachment of the same object for another client."""
    target = lock._proxy_target
    if not lock._proxy_settled:
        lock.locked()
    return Target(target.namespace, target.name, target.kind, target.arguments, target.lifetime)


def test_at_fork_reinit_in_a_child_makes_a_private_lock_its_own(lock, monkeypatch):
    """What the standard library's forked children ask for: a lock that no thread of the parent holds. One with a name
    means the same everywhere, in the child too.
    """
    private = dthreading.RLock()
    names = private.name, lock.name
    private.acquire()
    monkeypatch.setattr(holds, "_forks", [1])
    for one in (private, lock):
        one._at_fork_reinit()
    assert private.name != names[0]
    assert lock.name == names[1]
    assert private.acquire(False)
