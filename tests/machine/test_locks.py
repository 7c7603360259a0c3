# SPDX-License-Identifier: Apache-2.0
"""Lock, RLock and Condition: one holder, first come first served, fences, notifies that are never spent on the dead."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dthreading.errors import LockLost, ObjectMismatch
from tests.histories import histories
from tests.machine.harness import PARKED, Bench, Client


def test_a_free_lock_is_granted_with_a_fence(ann: Client, bob: Client) -> None:
    """Fences grow with every grant, of whatever lock."""
    first = ann.attach("Lock", "a").acquire(True, 1)
    other = bob.attach("Lock", "b").acquire(False, 1)
    assert 0 < first < other


def test_a_held_lock_refuses_or_parks(ann: Client, bob: Client) -> None:
    lock, same = ann.attach("Lock", "a"), bob.attach("Lock", "a")
    fence = lock.acquire(True, 1)
    assert same.acquire(False, 1) is False
    waiting = same.parked("acquire", True, 1)
    assert lock.release(fence) is None
    assert waiting.outcome() > fence


def test_first_come_first_served(bench: Bench, ann: Client) -> None:
    """In the order of the log, across clients and threads."""
    lock = ann.attach("Lock", "a")
    fence = lock.acquire(True, 1)
    others = [bench.open(f"client {n}").attach("Lock", "a") for n in range(5)]
    waiting = [other.parked("acquire", True, 1) for other in others]
    for turn, other in enumerate(others):
        (lock if turn == 0 else others[turn - 1]).release(fence)
        fence = waiting[turn].outcome()
        assert not any(later.outcome() is not PARKED for later in waiting[turn + 1 :])
        assert other.holder()[:3] == (other.client.id, 1, fence)


def test_releasing_what_is_not_held(ann: Client) -> None:
    """The standard library's error, and its text."""
    lock, rlock = ann.attach("Lock", "a"), ann.attach("RLock", "b")
    with pytest.raises(RuntimeError, match=_text_of(threading.Lock().release)):
        lock.release(None)
    with pytest.raises(RuntimeError, match=_text_of(threading.RLock().release)):
        rlock.release(None, 1)


def _text_of(action: object) -> str:
    try:
        action()  # type: ignore[operator]
    except RuntimeError as error:
        return str(error)
    raise AssertionError


def test_any_client_may_release_a_lock_used_as_a_signal(ann: Client, bob: Client) -> None:
    """A process without a record of acquiring names no fence."""
    ann.attach("Lock", "a").acquire(True, 1)
    lock = bob.attach("Lock", "a")
    lock.release(None)
    assert lock.locked() is False


def test_a_stale_fence_frees_nobody(bench: Bench, ann: Client, bob: Client) -> None:
    """Whoever lost the lock hears so, and the new holder keeps it, whichever way the old one was lost."""
    fence = ann.attach("Lock", "a").acquire(True, 1)
    lock = bob.attach("Lock", "a")
    bench.expire(ann)
    again = bench.open("ann again").attach("Lock", "a")
    with pytest.raises(LockLost):
        again.release(fence)  # nobody holds it, yet it is lost
    held = lock.acquire(True, 1)
    with pytest.raises(LockLost):
        again.release(fence)
    assert lock.holder()[2] == held


def test_a_siblings_second_release(ann: Client) -> None:
    """Two threads of one process release the same hold: the second is a programming error, not a loss."""
    lock = ann.attach("Lock", "a")
    fence = lock.acquire(True, 1)
    lock.release(fence)
    with pytest.raises(RuntimeError, match="release unlocked lock") as caught:
        lock.release(fence)
    assert not isinstance(caught.value, LockLost)


def test_rlock_belongs_to_a_thread_of_a_client(ann: Client, bob: Client) -> None:
    """Threads that share one proxy do not share its ownership; the same token in another process is somebody else."""
    rlock, other = ann.attach("RLock", "a"), bob.attach("RLock", "a")
    fence, depth = rlock.acquire(True, 1)
    assert depth == 1
    assert rlock.acquire(True, 1) == (fence, 2)
    assert rlock.acquire(False, 2) is False
    assert other.acquire(False, 1) is False
    with pytest.raises(RuntimeError, match="cannot release un-acquired lock"):
        rlock.release(fence, 2)
    sibling = rlock.parked("acquire", True, 2)
    assert rlock.release(fence, 1) == 1
    assert sibling.outcome() is PARKED
    assert rlock.release(fence, 1) == 0
    assert sibling.outcome()[1] == 1


def test_release_save_and_acquire_restore(ann: Client) -> None:
    """The whole depth is given up and comes back, with a new fence."""
    rlock = ann.attach("RLock", "a")
    fence, _ = rlock.acquire(True, 1)
    rlock.acquire(True, 1)
    waiting = rlock.parked("acquire", True, 2)
    assert rlock.release_save(1) == (2, fence)
    restoring = rlock.parked("acquire_restore", 1, 2)
    rlock.release(waiting.outcome()[0], 2)
    assert restoring.outcome() > fence
    assert rlock.holder() == (ann.id, 1, restoring.outcome(), 2)
    with pytest.raises(RuntimeError):
        rlock.acquire_restore(1, 1)
    with pytest.raises(ValueError, match="depth"):
        rlock.acquire_restore(2, 0)


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [("acquire", ()), ("acquire", (1, 1)), ("acquire", (True, "x")), ("acquire", (True, 1, 1)), ("_take", (1, 1, 1)),
     ("release", ("1",)), ("__init__", ()), ("session_ended", (1,)), ("undo", ()), ("dump", ())],
)  # fmt: skip
def test_nothing_else_can_be_called(ann: Client, operation: str, arguments: tuple[object, ...]) -> None:
    """Only declared operations, with arguments of the declared types; whatever is wrong is the caller's error alone."""
    lock = ann.attach("Lock", "a")
    with pytest.raises(TypeError):
        ann.call(lock.number, operation, *arguments)
    assert lock.acquire(True, 1)


# --- Condition -----------------------------------------------------------------------------------------------------


class Guarded:
    """A client's lock and condition."""

    def __init__(self, client: Client, kind: str = "RLock") -> None:
        self.client = client
        self.lock = client.attach(kind, "l")
        self.condition = client.attach("Condition", "c", "n", "l", kind)

    def acquire(self, thread: int = 1) -> int:
        answer = self.lock.acquire(True, thread)
        return answer[0] if isinstance(answer, tuple) else answer

    def release(self, thread: int = 1) -> None:
        self.lock.release(*((None, thread) if self.lock.holder() and self.kind == "RLock" else (None,)))

    @property
    def kind(self) -> str:
        return self.condition.client.bench.object("c").arguments[2]

    def wait(self, thread: int = 1):
        return self.condition.parked("wait", self.lock.number, thread, None)

    def notify(self, n: int = 1, thread: int = 1) -> None:
        self.condition.notify(self.lock.number, thread, n, None)


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_wait_gives_up_the_lock_and_comes_back_with_it(ann: Client, bob: Client, kind: str) -> None:
    """wait is one command; the answer comes when the lock is held again, with its new fence."""
    a, b = Guarded(ann, kind), Guarded(bob, kind)
    old = a.acquire()
    waiting = a.wait()
    b.acquire()
    b.notify()
    assert waiting.outcome() is PARKED
    b.release()
    notified, fence = waiting.outcome()
    assert notified is True
    assert fence > old
    assert a.lock.holder()[:3] == (ann.id, 1, fence)


def test_wait_restores_the_whole_depth(ann: Client, bob: Client) -> None:
    """Not just one level of an RLock."""
    a, b = Guarded(ann), Guarded(bob)
    for _ in range(3):
        a.acquire()
    waiting = a.wait()
    b.acquire()
    b.notify()
    b.release()
    assert a.lock.holder() == (ann.id, 1, waiting.outcome()[1], 3)


def test_wait_is_not_ended_by_somebody_in_the_lock_line(ann: Client, bob: Client) -> None:
    """Another client's acquire and release notify nobody."""
    a, b = Guarded(ann), Guarded(bob)
    a.acquire()
    waiting = a.wait()
    b.acquire()
    b.release()
    assert waiting.outcome() is PARKED
    assert a.condition.waiters() == 1


def test_owner_checks(ann: Client, bob: Client) -> None:
    """For an RLock the very thread must hold it; for a Lock somebody must, as in the standard library."""
    a, b = Guarded(ann), Guarded(bob)
    for action, text in ((a.wait, "cannot wait on un-acquired lock"), (a.notify, "cannot notify on un-acquired lock")):
        with pytest.raises(RuntimeError, match=text):
            action()
        b.acquire()
        with pytest.raises(RuntimeError, match=text):
            action()
        b.release()


def test_a_plain_lock_owned_by_somebody_will_do(ann: Client, bob: Client) -> None:
    a, b = Guarded(ann, "Lock"), Guarded(bob, "Lock")
    b.acquire()
    a.notify()
    waiting = a.wait()
    assert waiting.waits
    assert a.lock.locked() is False


def test_a_stale_fence_is_lock_lost(bench: Bench, ann: Client, bob: Client) -> None:
    fence = Guarded(ann).acquire()
    bench.expire(ann)
    a = Guarded(bench.open("again"))
    Guarded(bob).acquire()
    for operation in (("wait", a.lock.number, 1, fence), ("notify", a.lock.number, 1, 1, fence)):
        with pytest.raises(LockLost):
            a.client.call(a.condition.number, *operation)


def test_a_condition_knows_its_lock(ann: Client) -> None:
    a = Guarded(ann)
    other = ann.attach("RLock", "other")
    other.acquire(True, 1)
    with pytest.raises(ObjectMismatch):
        a.condition.wait(other.number, 1, None)
    with pytest.raises(ObjectMismatch):
        a.condition.notify(a.condition.number, 1, 1, None)


def test_notify_all_and_some(bench: Bench, ann: Client) -> None:
    """In the order they began to wait; n of them, all with -1, none with 0."""
    boss = Guarded(ann)
    others = [Guarded(bench.open(f"client {n}")) for n in range(5)]
    waiting = []
    for other in others:
        other.acquire()
        waiting.append(other.wait())
    boss.acquire()
    boss.notify(0)
    assert boss.condition.waiters() == 5
    boss.notify(2)
    assert boss.condition.waiters() == 3
    boss.notify(-1)
    assert boss.condition.waiters() == 0
    boss.release()
    for other, one in zip(others, waiting, strict=True):
        assert one.outcome()[0] is True
        other.release()
    assert boss.lock.locked() is False


@pytest.mark.parametrize("heard", range(4))
def test_each_notify_that_was_not_heard_of_is_handed_on(ann: Client, bob: Client, bench: Bench, heard: int) -> None:
    """As many as there were, when their session ends; but those that a thread has shown to have, another has not."""
    boss, other, victim = Guarded(ann), Guarded(bob), Guarded(bench.open("victim"))
    waiting = []
    for thread in (1, 2, 3):
        victim.acquire(thread)
        waiting.append(victim.wait(thread))
    boss.acquire()
    boss.notify(3)
    boss.release()
    for thread, one in enumerate(waiting, 1):
        assert one.outcome()[0] is True
        victim.release(thread)
    for thread in (1, 2, 3):
        other.acquire(thread)
        other.wait(thread)
    for one in waiting[:heard]:
        victim.client.acknowledge(one.call)
    assert boss.condition.waiters() == 3
    victim.client.close()
    assert boss.condition.waiters() == heard


def test_timeout_moves_to_the_line_of_the_lock(ann: Client, bob: Client) -> None:
    """The verdict of a timed out wait comes with the lock, and is: not notified."""
    a, b = Guarded(ann), Guarded(bob)
    a.acquire()
    waiting = a.wait()
    b.acquire()
    assert waiting.withdraw() is PARKED
    b.notify()  # nobody waits to be notified any more
    b.release()
    assert waiting.outcome()[0] is False
    assert a.lock.holder()[0] == ann.id


def test_a_notify_that_came_first_counts(ann: Client, bob: Client) -> None:
    """Notified, then timed out in the line of the lock: it was notified."""
    a, b = Guarded(ann), Guarded(bob)
    a.acquire()
    waiting = a.wait()
    b.acquire()
    b.notify()
    assert waiting.withdraw() is PARKED
    b.release()
    assert waiting.outcome()[0] is True


@pytest.mark.parametrize("how", ["expire", "close", "undo", "reuse"])
def test_a_notified_waiter_that_dies_hands_its_notify_on(bench: Bench, ann: Client, bob: Client, how: str) -> None:
    """A notify is never spent on the dead."""
    boss, dying, heir = Guarded(bench.open("boss")), Guarded(ann), Guarded(bob)
    dying.acquire()
    doomed = dying.wait()
    heir.acquire()
    waiting = heir.wait()
    boss.acquire()
    boss.notify()
    match how:
        case "expire":
            bench.expire(ann)
        case "close":
            ann.close()
        case "undo":
            with pytest.raises(RuntimeError):
                doomed.withdraw(undo=True)
        case _:
            ann.call(dying.lock.number, "locked", lane=doomed.call[0])
    boss.release()
    assert waiting.outcome()[0] is True


def test_the_notify_of_the_dying_skips_its_own_session(bench: Bench, ann: Client, bob: Client) -> None:
    """Its second waiting thread is as dead as its first."""
    boss, dying, heir = Guarded(bench.open("boss")), Guarded(ann), Guarded(bob)
    dying.acquire(1)
    dying.wait(1)
    dying.acquire(2)
    dying.wait(2)
    heir.acquire()
    waiting = heir.wait()
    boss.acquire()
    boss.notify()
    bench.expire(ann)
    boss.release()
    assert waiting.outcome()[0] is True


# --- against a simple model -----------------------------------------------------------------------------------------

STEPS = histories(
    st.tuples(
        st.sampled_from(["acquire", "try", "release", "withdraw", "undo", "end"]), st.integers(0, 2), st.integers(0, 1)
    ),
    60,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.booleans())
def test_locks_behave_like_the_model(steps: list[tuple[str, int, int]], reentrant: bool) -> None:
    """A list of waiters and a holder with a depth: all that a lock is."""
    bench = Bench()
    bench.leads()
    kind = "RLock" if reentrant else "Lock"
    handles = [bench.open(f"client {n}").attach(kind, "l") for n in range(3)]
    holder: tuple[int, int] | None = None
    depth = 0
    line: list[tuple[int, int]] = []
    pending: dict[tuple[int, int], object] = {}
    granted: dict[tuple[int, int], tuple[int, int]] = {}

    def pass_on() -> None:
        nonlocal holder, depth
        holder, depth = (line.pop(0), 1) if line else (None, 0)
        if holder:
            granted[holder] = pending.pop(holder).call  # type: ignore[attr-defined]

    for action, client, thread in steps:
        me, handle = (client, thread), handles[client]
        match action:
            case "acquire" | "try" if me not in pending:
                if holder is None or (reentrant and holder == me):
                    answer = handle.acquire(action == "acquire", thread)
                    holder, depth = me, depth + 1
                    granted[me] = handle.client.last
                    assert (answer[1] if reentrant else 1) == depth
                elif action == "try":
                    assert handle.acquire(False, thread) is False
                else:
                    pending[me] = handle.parked("acquire", True, thread)
                    line.append(me)
            case "release" if me not in pending:
                if holder is None or (reentrant and holder != me):
                    with pytest.raises(RuntimeError):
                        handle.release(*((None, thread) if reentrant else (None,)))
                else:
                    handle.release(*((None, thread) if reentrant else (None,)))
                    depth -= 1
                    if not depth:
                        pass_on()
            case "withdraw" if me in pending:
                assert pending.pop(me).withdraw() is False  # type: ignore[attr-defined]
                line.remove(me)
            case "undo" if me in pending:
                with pytest.raises(RuntimeError):
                    pending.pop(me).withdraw(undo=True)  # type: ignore[attr-defined]
                line.remove(me)
            case "undo" if me == holder and granted.get(me):
                with pytest.raises(RuntimeError):
                    handle.client.withdraw(granted.pop(me), undo=True)
                depth -= 1
                if not depth:
                    pass_on()
            case "end":
                handle.client.close()
                for gone in [one for one in line if one[0] == client]:
                    line.remove(gone)
                    del pending[gone]
                for gone in [one for one in granted if one[0] == client]:
                    del granted[gone]
                if holder is not None and holder[0] == client:
                    pass_on()
                handles[client] = bench.open("again").attach(kind, "l")
            case _:
                continue
        granted = {one: call for one, call in granted.items() if one == holder}
        lock = bench.object("l")
        state = None if lock.owner is None else (lock.owner, lock.thread)
        assert state == (None if holder is None else (handles[holder[0]].client.id, holder[1]))
        assert lock.count == depth
        assert [(w.session, w.thread) for w in lock.waiting] == [(handles[c].client.id, t) for c, t in line]


def test_a_notify_whose_answer_may_not_have_arrived_is_handed_on(bench: Bench, ann: Client, bob: Client) -> None:
    """Its waiter may have been dead for most of a lease when it was notified, and holds the lock all the same."""
    boss, victim, other = Guarded(bench.open("boss")), Guarded(ann), Guarded(bob)
    victim.acquire()
    waiting = victim.wait()
    other.acquire()
    survivor = other.wait()
    boss.acquire()
    boss.notify()
    boss.release()
    assert waiting.outcome()[0] is True
    bench.expire(ann)
    assert survivor.outcome()[0] is True
    assert other.lock.holder()[0] == bob.id


@pytest.mark.parametrize("how", ["acknowledged", "its lane is used again"])
def test_a_notify_that_has_arrived_is_spent(bench: Bench, ann: Client, bob: Client, how: str) -> None:
    boss, first, other = Guarded(bench.open("boss")), Guarded(ann), Guarded(bob)
    first.acquire()
    waiting = first.wait()
    other.acquire()
    survivor = other.wait()
    boss.acquire()
    boss.notify()
    boss.release()
    if how == "acknowledged":
        ann.acknowledge(waiting.call)
    else:
        first.client.call(first.condition.number, "waiters", lane=waiting.call[0])
    bench.expire(ann)
    assert survivor.outcome() is PARKED
