# SPDX-License-Identifier: Apache-2.0
"""The interpreter's end never hangs, whatever threads are blocked in and whether or not the group is there; and
programs of many threads.
"""

from __future__ import annotations

import signal
import socket

import pytest

from tests.system.programs import Group, Programs

BLOCKED = """
    lock, items, event = threading.Lock(name="x"), queue.Queue(name="q"), threading.Event(name="e")
    condition, barrier = threading.Condition(name="c"), threading.Barrier(2, name="b")
    lock.acquire()
    def wait_for_notify():
        with condition:
            condition.wait()
    calls = [lock.acquire, lambda: lock.acquire(timeout=500), items.get, event.wait, wait_for_notify, barrier.wait]
    for call in calls:
        threading.Thread(target=call, daemon=True).start()
"""


@pytest.mark.parametrize("lease", ["600", "2"])
def test_daemon_threads_in_calls_do_not_hold_up_the_end(group: Group, start: Programs, lease: str) -> None:
    """And what the process held is free at once."""
    program = start(BLOCKED + "    told()\n", DTHREADING_LEASE=lease)
    for name, count in (("x", 2), ("q", 1), ("e", 1), ("c", 1), ("b", 1)):
        group.until_waiting(name, count)
    program.tell()
    program.ends()
    start("assert threading.Lock(name='x').acquire(timeout=20)", script="next").ends()
    group.until(lambda: not any(row["waiting"] for row in group.rows()))


def test_daemon_threads_that_are_busy_do_not_hold_up_the_end(group: Group, start: Programs) -> None:
    program = start("""
        lock, items = threading.Lock(name="x"), queue.Queue(name="q")
        def work():
            while True:
                with lock:
                    items.put(1)
                items.get()
        for _ in range(8):
            threading.Thread(target=work, daemon=True).start()
        with lock:
            pass
        told()
    """)
    program.tell()
    program.ends()
    assert start("say(threading.Lock(name='x').acquire(timeout=20))", script="next").hears() == "True"


@pytest.mark.parametrize("when", ["killed", "stopped"])
def test_the_end_does_not_wait_for_a_group_that_is_away(group: Group, start: Programs, when: str) -> None:
    program = start(BLOCKED + "    told()\n", DTHREADING_LEASE="60")
    group.until_waiting("b", 1)
    for node in group.cluster.nodes:
        node.signal(signal.SIGKILL if when == "killed" else signal.SIGSTOP)
    if when == "killed":
        group.cluster.kill()
    program.tell()
    program.ends(complains=None)


def test_a_program_that_never_finds_its_group_ends(start: Programs) -> None:
    """The address is right, and nobody is there: what waits for nothing says so, what waits is interrupted."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*nobody.getsockname())
        program = start(
            """
            lock = threading.Lock(name="x")
            try:
                lock.locked()
            except threading.GroupUnreachable as error:
                say(error)
            assert lock.acquire(timeout=0.01) is False
            threading.Thread(target=lock.acquire, daemon=True).start()
            try:
                say("waits")
                lock.acquire()
            except KeyboardInterrupt:
                say("interrupted")
        """,
            DTHREADING_SERVERS=address,
            DTHREADING_LEASE="0.5",
            DTHREADING_PATIENCE="0.1",
        )
        said = program.hears()
        assert said.startswith("locked of Lock 'x': no replica answered for one lease (0.5 s)"), said
        assert address in said
        program.hears("waits")
        program.signal(signal.SIGINT)
        program.ends(says=("interrupted",), complains=None)


def test_finalizers_and_atexit_functions_may_call(group: Group, start: Programs) -> None:
    program = start("""
        import atexit
        lock, items = threading.Lock(name="x"), queue.SimpleQueue(name="q")
        lock.acquire()
        class Late:
            def __del__(self):
                items.put("from the grave")
        sys.late = Late()
        sys.late.itself = sys.late
        @atexit.register
        def last():
            lock.release()
            items.put("atexit")
            say("released")
    """)
    program.ends(says=("released",), complains=None)
    assert "Fatal" not in program.complaints()
    start("say(queue.SimpleQueue(name='q').get(timeout=20))", script="next").ends(says=("atexit",))
    start("say(threading.Lock(name='x').acquire(timeout=20))", script="next").ends(says=("True",))


def test_two_hundred_threads(group: Group, start: Programs) -> None:
    """In one process: all wait at a barrier, pass one lock around, and put and get through one queue."""
    program = start("""
        count = 200
        barrier, lock, items = threading.Barrier(count, name="b"), threading.Lock(name="x"), queue.Queue(20, name="q")
        semaphore, condition = threading.Semaphore(3, name="s"), threading.Condition(name="c")
        inside, total, indexes, woken = 0, 0, [], []
        def work(number):
            global inside, total
            indexes.append(barrier.wait())
            with lock:
                inside += 1
                assert inside == 1
                total += 1
                inside -= 1
            if number % 2:
                items.put(number)
            else:
                items.get()
                items.task_done()
            with semaphore:
                pass
            with condition:
                woken.append(number)
                if len(woken) == count:
                    condition.notify_all()
                else:
                    condition.wait()
        threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        items.join()
        assert sorted(indexes) == list(range(count))
        say(total, items.qsize(), sum(thread.name.startswith("dthreading") for thread in threading.enumerate()))
    """)
    program.ends(says=("200 0 1",))


def test_an_import_alone_costs_no_thread_and_no_connection(group: Group, start: Programs) -> None:
    program = start(
        """
        lock = threading.Lock(name="x")
        assert threading.active_count() == 1
        files = set(os.listdir("/proc/self/fd"))
        say(len(files))
        told()
    """,
        DTHREADING_SERVERS="127.0.0.1:1",
    )
    program.hears()
    program.tell()
    program.ends()


def test_thread_pool_futures_and_timers(group: Group, start: Programs) -> None:
    """The stdlib's own machinery around our primitives."""
    program = start("""
        from concurrent.futures import ThreadPoolExecutor
        lock, fired = threading.Lock(name="x"), threading.Event(name="fired")
        number = 0
        def add(_):
            global number
            with lock:
                number += 1
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(add, range(100)))
        timer = threading.Timer(0.01, fired.set)
        timer.start()
        assert fired.wait(20)
        timer.join()
        say(number)
    """)
    program.ends(says=("100",))


def test_an_interpreter_that_is_told_to_end_by_a_signal(group: Group, start: Programs) -> None:
    """SIGTERM turned into SystemExit, as daemons do, while the main thread waits for an item."""
    program = start(
        """
        lock = threading.Lock(name="x")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
        with lock:
            queue.Queue(name="q").get()
    """,
        DTHREADING_LEASE="600",
    )
    group.until_waiting("q", 1)
    program.signal(signal.SIGTERM)
    program.ends(5)
    start("say(threading.Lock(name='x').acquire(timeout=20))", script="next").ends(says=("True",))
