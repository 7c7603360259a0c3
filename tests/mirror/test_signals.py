# SPDX-License-Identifier: Apache-2.0
"""Semaphore, Event and Barrier above the wire."""

import pickle
import sys
import threading

import pytest

import dthreading
from dthreading.errors import GroupUnreachable, LockLost, OutcomeUnknown
from dthreading.session.calls import ACQUIRE, Target
from tests.tracing import interrupted_at

pytestmark = pytest.mark.usefixtures("group")


def outcome(function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except Exception as error:
        return type(error), str(error)


# --- Semaphore ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])
@pytest.mark.parametrize(
    "use",
    [
        lambda s: s.acquire(False, 1),
        lambda s: s.acquire(timeout=-1),
        lambda s: (s.acquire(), s.acquire(timeout=-1)),
        lambda s: (s.acquire(), s.acquire(timeout=0)),
        lambda s: s.acquire(False),
        lambda s: s.release(0),
        lambda s: s.release(-1),
        lambda s: s.release(2),
        lambda s: (s.acquire(), outcome(s.release, 2), s._value),
    ],
)
def test_semaphores_judge_as_this_python_does(kind, use):
    """Same answer or same error: a failed release(2) of a bounded one changes nothing."""
    assert outcome(use, getattr(dthreading, kind)()) == outcome(use, getattr(threading, kind)())


def test_initial_value():
    assert outcome(dthreading.Semaphore, -1) == outcome(threading.Semaphore, -1)
    with pytest.raises(TypeError):
        dthreading.Semaphore(1.5)


def test_permits_of_a_dead_process_return(group, other):
    """What it took and did not give."""
    semaphore = dthreading.Semaphore(2, name="slots")
    semaphore.acquire()
    other.call(_target(semaphore), "acquire", (True,), ACQUIRE)
    group.lose(other)
    assert semaphore._value == 1


def test_an_interrupted_semaphore_acquire_gives_its_permit_back(until_waiting, background, interruptible):
    """Ctrl-C while waiting: the permit that comes later is not lost to a thread that has gone."""
    semaphore = dthreading.Semaphore(0, name="slots")

    def interrupt():
        until_waiting(semaphore)
        interruptible()

    helper = background(interrupt)
    with pytest.raises(KeyboardInterrupt):
        semaphore.acquire()
    helper.result()
    semaphore.release()
    assert semaphore._value == 1


def test_an_interrupt_arrives_even_if_the_permit_cannot_be_given_back(monkeypatch, caplog):
    """Ctrl-C just after the grant, and the group is away: the program asked to end must hear that, not the group."""
    semaphore = dthreading.Semaphore(2, name="slots")
    semaphore.acquire()
    asked = type(semaphore)._ask

    def ask(self, operation, *arguments, **more):
        if operation == "release":
            raise GroupUnreachable("no replica answered")
        return asked(self, operation, *arguments, **more)

    monkeypatch.setattr(type(semaphore), "_ask", ask)
    files = {sys.modules[name].__file__ for name in ("dthreading.signals", "dthreading.entering")}
    step = struck = 0
    while True:
        step += 1
        place = interrupted_at(step, lambda: semaphore.acquire(blocking=False), files)
        if not place:
            break
        struck += "could not be given back" in caplog.text
        caplog.clear()
    assert struck, "the interrupts hit nothing"


@pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])
def test_the_end_of_with_tells_that_the_permit_was_lost(group, kind):
    """It went back with the session: given again, one more than there are could be inside, for ever."""
    semaphore = getattr(dthreading, kind)(1, name="slots")
    with pytest.raises(LockLost), semaphore:  # noqa: PT012
        group.lose(group.own)
        assert semaphore._value == 1
    assert semaphore._value == 1
    with semaphore:
        assert semaphore._value == 0
    assert semaphore._value == 1


def test_a_lost_permit_masks_nothing(group, caplog):
    semaphore = dthreading.Semaphore(name="slots")
    with pytest.raises(ZeroDivisionError), semaphore:  # noqa: PT012
        group.lose(group.own)
        _ = 1 / 0
    assert "was not released" in caplog.text
    assert semaphore._value == 1


def test_what_is_counted_is_never_lost(group):
    """Whoever waits for a signal gives nothing back, so the end of its session takes none away."""
    signal = dthreading.Semaphore(0, name="signals")
    signal.release()
    assert signal.acquire()
    group.lose(group.own)
    signal.release(2)
    assert signal._value == 2


def test_each_thread_hears_of_its_own_permit(group, background):
    """One was taken before the session was lost, and one after it, which is given back first."""
    semaphore = dthreading.Semaphore(2, name="slots")
    lost, may_go = threading.Event(), threading.Event()

    def hold():
        with semaphore:
            lost.set()
            assert may_go.wait(20)

    former = background(hold)
    assert lost.wait(20)
    group.lose(group.own)
    with semaphore:
        assert semaphore._value == 1
    assert semaphore._value == 2
    may_go.set()
    with pytest.raises(LockLost):
        former.result()
    assert semaphore._value == 2


def test_of_several_permits_those_are_given_that_were_not_lost(group):
    """By any thread, and through any proxy: the record is the object's."""
    semaphore = dthreading.Semaphore(3, name="slots")
    semaphore.acquire()
    group.lose(group.own)
    semaphore.acquire()
    del semaphore
    again = dthreading.Semaphore(3, name="slots")
    with pytest.raises(LockLost):
        again.release(2)
    assert again._value == 3
    again.release()
    assert again._value == 4, "of that one nothing is known here: it is given, as in `threading`"


def test_a_release_that_could_not_be_said_is_the_same_when_it_is_said_again(group, monkeypatch):
    semaphore = dthreading.Semaphore(1, name="slots")
    semaphore.acquire()
    with monkeypatch.context() as away:
        away.setattr(type(semaphore), "_ask", lambda *_, **__: (_ for _ in ()).throw(GroupUnreachable("nobody")))
        with pytest.raises(GroupUnreachable):
            semaphore.release()
    group.lose(group.own)
    with pytest.raises(LockLost):
        semaphore.release()
    assert semaphore._value == 1


def test_semaphore_with_never_masks(group, caplog):
    """As for locks."""
    semaphore = dthreading.BoundedSemaphore(name="slots")
    with pytest.raises(ZeroDivisionError), semaphore:  # noqa: PT012
        semaphore.release()
        _ = 1 / 0
    assert "was not released" in caplog.text


def test_bounded_repr():
    assert repr(dthreading.BoundedSemaphore(3, name="x")).endswith(" name='x': value=3/3>")


# --- Event ----------------------------------------------------------------------------------------------------------


def test_event_answers_true_or_false(background, until_waiting):
    """Always True, but for a timeout."""
    event = dthreading.Event()
    assert event.wait(0) is False
    assert event.wait(0.01) is False
    waiter = background(event.wait)
    until_waiting(event)
    event.set()
    assert waiter.result() is True
    assert event.wait(0) is True
    with pytest.warns(DeprecationWarning, match="is_set"):
        assert event.isSet()


def test_a_wait_for_an_event_goes_on_in_a_new_session(group, background, until_waiting):
    """Nothing was held, so nothing is lost: it is asked again."""
    event = dthreading.Event(name="stop")
    waiter = background(event.wait)
    until_waiting(event)
    group.lose(group.own)
    until_waiting(event)
    event.set()
    assert waiter.result() is True


@pytest.mark.parametrize("timeout", [1e100, float("inf"), threading.TIMEOUT_MAX * 2])
def test_a_timeout_beyond_all_clocks_overflows(timeout):
    """As the standard library's does when it has to wait."""
    with pytest.raises(OverflowError):
        dthreading.Event().wait(timeout)


# --- Barrier --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parties", [0, -1, 1])
def test_parties_are_judged_as_this_python_does(parties):
    """Later ones refuse what earlier ones take."""
    ours, theirs = outcome(dthreading.Barrier, parties), outcome(threading.Barrier, parties)
    assert isinstance(theirs, tuple) == isinstance(ours, tuple)


def test_indexes_and_action(background):
    """Each index once; the action ran once, before anybody went on."""
    ran = []
    barrier = dthreading.Barrier(3, lambda: ran.append(True), name="meet")

    def meet():
        index = barrier.wait()
        assert ran == [True]
        return index

    assert sorted(one.result() for one in [background(meet) for _ in range(3)]) == [0, 1, 2]


def test_a_failed_action_breaks_it(background):
    """Its party gets its error, the others BrokenBarrierError."""
    barrier = dthreading.Barrier(2, lambda: 1 / 0)
    errors = []

    def meet():
        try:
            barrier.wait()
        except Exception as error:
            errors.append(type(error))

    for one in [background(meet), background(meet)]:
        one.result()
    assert sorted(error.__name__ for error in errors) == ["BrokenBarrierError", "ZeroDivisionError"]
    assert barrier.broken
    barrier.reset()
    assert not barrier.broken


@pytest.mark.parametrize("again", [False, True], ids=["once", "and again"])
def test_an_interrupt_anywhere_in_the_last_partys_wait_leaves_nobody_waiting_for_its_action(
    background, until_waiting, monkeypatch, again
):
    """Whatever line of ours it hits: the barrier is as it was, or passed, or broken, and nobody acts for ever."""
    barrier = dthreading.Barrier(2, lambda: None, name="meet")
    files = {sys.modules[name].__file__ for name in ("dthreading.signals", "dthreading.proxy")}
    asked = type(barrier)._ask
    strikes = []

    def ask(self, operation, *arguments, **more):
        if operation == "action_done" and arguments[0] == (False,) and len(strikes) < 3 * again:
            strikes.append(True)
            raise KeyboardInterrupt
        return asked(self, operation, *arguments, **more)

    monkeypatch.setattr(type(barrier), "_ask", ask)
    step = 0
    while True:
        step += 1
        strikes.clear()
        other = background(outcome, barrier.wait)
        until_waiting(barrier, "arrived")
        place = interrupted_at(step, barrier.wait, files)
        background(barrier.reset).result()  # which waits for the end of an action that runs
        assert other.result() in {0, (threading.BrokenBarrierError, "")}, place
        if not place:
            break
    assert step > 10, "the interrupts hit nothing"


def test_a_session_that_ends_breaks_it(group, other, background, until_waiting):
    """The others hear of it; so does the caller itself."""
    barrier = dthreading.Barrier(3, name="meet")
    waiter = background(barrier.wait)
    until_waiting(barrier, "arrived")
    group.lose(group.own)
    with pytest.raises(threading.BrokenBarrierError):
        waiter.result()
    assert barrier.broken


def test_default_timeout_and_pickling():
    """The timeout and the action are the proxy's own, and go with it."""
    barrier = pickle.loads(pickle.dumps(dthreading.Barrier(2, print, 0.01, name="meet")))
    assert barrier._action is print
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    assert barrier.parties == 2
    assert repr(barrier).endswith(": broken>")


# --- outcomes -------------------------------------------------------------------------------------------------------


def test_what_may_have_happened_once_is_not_repeated(group, monkeypatch):
    """A release, set or clear on its way when the session ended: nobody can say, so it says so."""
    event = dthreading.Event(name="stop")
    event.set()
    submit = group.submit

    def lose_first(command, **options):
        if b"clear" in command:
            monkeypatch.setattr(group, "submit", submit)
            group.lose(group.own)
        submit(command, **options)

    monkeypatch.setattr(group, "submit", lose_first)
    with pytest.raises(OutcomeUnknown):
        event.clear()
    assert event.is_set()


def _target(proxy):
    proxy._peek("value")
    target = proxy._proxy_target
    return Target(target.namespace, target.name, target.kind, target.arguments, target.lifetime)
