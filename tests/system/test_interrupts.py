# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C in each call that waits: it is raised at once, and nothing of the call is left behind in the group."""

from __future__ import annotations

import signal

import pytest

from tests.system.programs import Group, Programs

# For each: what is done first by another program that stays, the call that waits, the object it waits at, and what
# anybody else finds afterwards.
WAITS = {
    "Lock.acquire": (
        "Lock", "threading.Lock(name='x').acquire()", "threading.Lock(name='x').acquire()", "x", "",
    ),
    "with RLock": (
        "RLock", "threading.RLock(name='x').acquire()", "threading.RLock(name='x').__enter__()", "x", "",
    ),
    "timed acquire": (
        "Lock", "threading.Lock(name='x').acquire()", "threading.Lock(name='x').acquire(timeout=500)", "x", "",
    ),
    "Semaphore.acquire": (
        "Semaphore", "threading.Semaphore(1, name='x').acquire()", "threading.Semaphore(1, name='x').acquire()", "x",
        "",
    ),
    "Event.wait": ("Event", "", "threading.Event(name='x').wait()", "x", ""),
    "Queue.get": (
        "Queue", "", "queue.Queue(name='x').get()", "x",
        "q = queue.Queue(name='x'); q.put(1); assert q.get_nowait() == 1; q.task_done(); q.join()",
    ),
    "timed SimpleQueue.get": ("SimpleQueue", "", "queue.SimpleQueue(name='x').get(timeout=500)", "x", ""),
    "Queue.put": (
        "Queue", "queue.Queue(1, name='x').put(1)", "queue.Queue(1, name='x').put(2)", "x",
        "q = queue.Queue(1, name='x'); assert q.get() == 1; assert q.empty(); assert q.unfinished_tasks == 1",
    ),
    "Queue.join": ("Queue", "queue.Queue(name='x').put(1)", "queue.Queue(name='x').join()", "x", ""),
    "Barrier.wait": (
        "Barrier", "", "threading.Barrier(2, name='x').wait()", "x", "assert threading.Barrier(2, name='x').broken",
    ),
}  # fmt: skip


@pytest.mark.parametrize("call", WAITS)
def test_ctrl_c_ends_a_wait_at_once_and_leaves_no_ghost(group: Group, start: Programs, call: str) -> None:
    kind, before, waits, name, afterwards = WAITS[call]
    holder = start(f"{before}\nsay('ready')\ntold()\n", script="holder")
    holder.hears("ready")
    waiter = start(
        f"""
        try:
            say("waits")
            {waits}
        except KeyboardInterrupt:
            say("interrupted")
            told()
    """,
        script="waiter",
    )
    waiter.hears("waits")
    group.until_waiting(name, 1)
    waiter.signal(signal.SIGINT)
    waiter.hears("interrupted")
    group.until_waiting(name, 0)
    assert group.row(name)["kind"] == kind
    other = start(f"{afterwards}\nsay('fine')\n", script="other")
    other.ends(says=("fine",))
    holder.tell()
    holder.ends()
    group.until_free(name)
    waiter.tell()
    waiter.ends()


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_ctrl_c_in_a_condition_is_raised_with_the_lock_held(group: Group, start: Programs, kind: str) -> None:
    """As in `threading`: the `with` block around the wait releases what wait() took again."""
    waiter = start(
        f"""
        condition = threading.Condition(threading.{kind}(name="lock"), name="condition")
        try:
            with condition:
                say("waits")
                try:
                    condition.wait()
                finally:
                    assert condition._is_owned()
        except KeyboardInterrupt:
            say("interrupted")
            told()
    """,
        script="waiter",
    )
    waiter.hears("waits")
    group.until_waiting("condition", 1)
    waiter.signal(signal.SIGINT)
    waiter.hears("interrupted")
    assert not group.row("lock")["holders"]
    group.until_waiting("condition", 0)
    waiter.tell()
    waiter.ends()


def test_ctrl_c_in_a_main_thread_leaves_other_threads_waiting(group: Group, start: Programs) -> None:
    holder = start(
        """
        lock = threading.Lock(name="x")
        lock.acquire()
        say("ready")
        told()
        lock.release()
    """,
        script="holder",
    )
    holder.hears("ready")
    waiter = start(
        """
        lock = threading.Lock(name="x")
        def wait():
            with lock:
                say("granted")
        thread = threading.Thread(target=wait)
        thread.start()
        try:
            lock.acquire()
        except KeyboardInterrupt:
            say("interrupted")
        thread.join()
    """,
        script="waiter",
    )
    group.until_waiting("x", 2)
    waiter.signal(signal.SIGINT)
    waiter.hears("interrupted")
    group.until_waiting("x", 1)
    holder.tell()
    waiter.ends(says=("granted",))
    holder.ends()


def test_ctrl_c_again_and_again_never_leaves_a_lock_held(group: Group, start: Programs) -> None:
    """Wherever in the loop it strikes: before the call, in it, between grant and return, in the body, in release()."""
    victim = start(
        """
        lock = threading.Lock(name="x")
        items = queue.Queue(name="items")
        count = 0
        while count < 40:
            try:
                say("turn")
                while True:
                    with lock:
                        pass
                    items.put(1)
                    items.get()
                    items.task_done()
            except KeyboardInterrupt:
                count += 1
                while True:
                    try:
                        assert lock.acquire(timeout=20)
                        lock.release()
                        break
                    except KeyboardInterrupt:
                        pass
        say("done")
    """,
        script="victim",
    )
    for _ in range(40):
        victim.hears("turn")
        victim.signal(signal.SIGINT)
    victim.ends(says=("done",))
    assert not group.row("x").get("holders")


def test_ctrl_c_interrupts_while_the_group_is_away(group: Group, start: Programs) -> None:
    waiter = start(
        """
        lock = threading.Lock(name="x")
        assert not lock.locked()
        say("ready")
        told()
        for call in (lock.acquire, queue.Queue(name="q").get, lambda: lock.acquire(timeout=300)):
            try:
                say("calls")
                call()
            except KeyboardInterrupt:
                say("interrupted")
    """,
        script="waiter",
        DTHREADING_LEASE="30",
    )
    waiter.hears("ready")
    group.cluster.kill()
    waiter.tell()
    for _ in range(3):
        waiter.hears("calls")
        waiter.signal(signal.SIGINT)
        waiter.hears("interrupted")
    waiter.ends(complains=None)


def test_a_recursion_that_ends_in_the_middle_of_a_call_leaves_nothing_held(group: Group, start: Programs) -> None:
    """RecursionError may come at any depth of ours. Whoever got as far as to acquire gets as far as to release."""
    program = start("""
        lock, rlock, semaphore = threading.Lock(name="l"), threading.RLock(name="r"), threading.Semaphore(1, name="s")
        condition = threading.Condition(name="c")
        def deep(levels, function):
            return deep(levels - 1, function) if levels else function()
        def enters(one):
            with one:
                if one is condition:
                    one.wait(0.001)
        for one in (lock, rlock, semaphore, condition):
            enters(one)
            met = {True: 0, False: 0}
            for levels in range(sys.getrecursionlimit() - 60, sys.getrecursionlimit() - 5):
                try:
                    deep(levels, lambda: enters(one))
                    met[True] += 1
                except RecursionError:
                    met[False] += 1
            assert min(met.values()) > 5, met
            with threading.Lock(name="in between"):
                pass
            say(getattr(one, "_value", None) or one.locked())
    """)
    program.ends(says=("False", "False", "1", "False"))
