# SPDX-License-Identifier: Apache-2.0
"""Clients die, each in its own way: what they held passes on, what they waited for is withdrawn, and a process that was
stopped for longer than its lease learns of its loss and frees nobody else's hold.
"""

from __future__ import annotations

import signal

import pytest

from tests.system.programs import Group, Programs

HOLD = """
    lock = threading.Lock(name="orders")
    lock.acquire()
    say("holds")
"""

WAIT = """
    lock = threading.Lock(name="orders")
    say(lock.acquire())
    lock.release()
"""

SHORT = "1"
"""The lease, in seconds, of whoever is to lose it."""

NEVER = "600"
"""The lease of whoever must be found to have gone by the end of its connection: no test waits that long."""


def test_the_lock_of_a_killed_holder_passes_on_after_its_lease(group: Group, start: Programs) -> None:
    holder = start(HOLD + "    told()\n", script="holder", DTHREADING_LEASE=SHORT)
    holder.hears("holds")
    waiter = start(WAIT, script="waiter")
    group.until_waiting("orders", 1)
    holder.kill()
    waiter.ends(says=("True",))


ENDS = {
    "the last line": ("", 0, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
    "an exception": ("raise KeyError('gone')", 1, "KeyError: 'gone'"),
    "SystemExit in a thread that holds": (
        "t = threading.Thread(target=lambda: (lock.release(), lock.acquire(), sys.exit())); t.start(); t.join()", 0, "",
    ),
    "os._exit": ("import os; os._exit(4)", 4, ""),
    "Ctrl-C": ("os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", -signal.SIGINT, "KeyboardInterrupt"),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -signal.SIGTERM, ""),
}  # fmt: skip


@pytest.mark.parametrize("way", [name for name in ENDS if name not in {"os._exit", "SIGTERM"}])
def test_the_lock_of_a_process_that_ends_in_order_passes_on_at_once(group: Group, start: Programs, way: str) -> None:
    """Whichever way out it takes; the lease is longer than anybody would wait."""
    last, status, complaint = ENDS[way]
    holder = start(HOLD + f"    told()\n    {last}\n", script="holder", DTHREADING_LEASE=NEVER)
    holder.hears("holds")
    waiter = start(WAIT, script="waiter")
    group.until_waiting("orders", 1)
    holder.tell()
    holder.ends(status, complains=complaint)
    waiter.ends(says=("True",))


@pytest.mark.parametrize("way", ["os._exit", "SIGTERM"])
def test_a_process_that_runs_no_exit_hooks_is_found_out_by_its_lease(group: Group, start: Programs, way: str) -> None:
    last, status, complaint = ENDS[way]
    holder = start(HOLD + f"    told()\n    {last}\n", script="holder", DTHREADING_LEASE=SHORT)
    holder.hears("holds")
    waiter = start(WAIT, script="waiter")
    group.until_waiting("orders", 1)
    holder.tell()
    holder.ends(status, complains=complaint)
    waiter.ends(says=("True",))


def test_a_killed_waiter_never_gets_the_lock(group: Group, start: Programs) -> None:
    """Its place in the queue ends with its lease, before or after its turn has come."""
    holder = start(HOLD + "    told()\n    lock.release()\n", script="holder")
    holder.hears("holds")
    victim = start(WAIT, script="victim", DTHREADING_LEASE=SHORT)
    group.until_waiting("orders", 1)
    waiter = start(WAIT, script="waiter")
    group.until_waiting("orders", 2)
    victim.kill()
    group.until_waiting("orders", 1)
    holder.tell()
    waiter.ends(says=("True",))
    holder.ends()


def test_a_waiter_killed_just_before_its_turn_passes_it_on(group: Group, start: Programs) -> None:
    holder = start(HOLD + "    told()\n    lock.release()\n", script="holder")
    holder.hears("holds")
    victim = start(WAIT, script="victim", DTHREADING_LEASE=SHORT)
    group.until_waiting("orders", 1)
    waiter = start(WAIT, script="waiter")
    group.until_waiting("orders", 2)
    victim.kill()
    holder.tell()
    holder.ends()
    waiter.ends(says=("True",))


STOPPED = """
    import logging
    class Say(logging.Handler):
        def emit(self, record):
            say(record.name, record.levelname, record.getMessage())
    logging.getLogger().addHandler(Say())
    lost = queue.SimpleQueue(name="told-of-loss")
    threading.configure(on_lost=lambda loss: lost.put(type(loss).__name__))
    lock = getattr(threading, sys.argv[1])(name="orders")
    lock.acquire()
    fence = lock.fence
    say("holds")
    told()
    for use in (lambda: lock.fence, lock.release, lock.release):
        try:
            say("not lost", use())
        except RuntimeError as error:
            say(type(error).__name__)
    assert lock.locked()
    say("callback", lost.get())
    told()
    lock.acquire()
    assert lock.fence > fence
    lock.release()
    say("again")
"""


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_a_process_stopped_past_its_lease_learns_of_its_loss(group: Group, start: Programs, kind: str) -> None:
    """SIGSTOP, a lid, a swapped-out machine: nothing it does afterwards frees the hold of whoever came next."""
    holder = start(STOPPED, kind, script="holder", DTHREADING_LEASE=SHORT, DTHREADING_NAMING="auto")
    holder.hears("holds")
    other = start(
        f"""
        lock = threading.{kind}(name="orders")
        lock.acquire()
        say("granted")
        told()
        assert lock.fence
        lock.release()
        say("released")
    """,
        script="other",
    )
    group.until_waiting("orders", 1)
    holder.stop()
    other.hears("granted")
    mine = group.row("orders")["holders"]
    holder.go_on()
    holder.tell()
    said = [holder.hears() for _ in range(5)]
    records = [line for line in said if line.startswith("dthreading ")]
    # A late release of an RLock goes one level up, as it would have; the next one is one too many.
    second = "LockLost" if kind == "Lock" else "RuntimeError"
    assert [line for line in said if line not in records] == ["LockLost", "LockLost", second, "callback Lost"]
    (record,) = records
    assert record.startswith("dthreading ERROR session ")
    assert "is lost" in record
    assert "'orders'" in record, "it names what was in use"
    assert group.row("orders")["holders"] == mine, "the stale releases freed nothing"
    other.tell()
    other.ends(says=("released",))
    holder.tell()
    holder.ends(says=("again",))


def test_with_tells_of_the_loss_unless_its_body_raised(group: Group, start: Programs) -> None:
    holder = start(
        """
        from dthreading.errors import LockLost
        lock = threading.Lock(name="orders")
        for error in (None, KeyError):
            try:
                with lock:
                    say("holds")
                    told()
                    if error is not None:
                        raise error("mine")
            except (LockLost, KeyError) as caught:
                say(type(caught).__name__)
    """,
        script="holder",
        DTHREADING_LEASE=SHORT,
    )
    for outcome in ("LockLost", "KeyError"):
        holder.hears("holds")
        holder.stop()
        group.until_free("orders")
        holder.go_on()
        holder.tell()
        holder.hears(outcome)
    holder.ends(complains="is lost")


def test_jeopardy_is_a_warning_and_safety_is_told(group: Group, start: Programs) -> None:
    """While no majority is there a lease may run out; the log says so before, and when it is over."""
    holder = start(
        """
        import logging
        class Say(logging.Handler):
            def emit(self, record):
                say(record.levelname, record.getMessage())
        logging.getLogger().addHandler(Say())
        lock = threading.Lock(name="orders")
        lock.acquire()
        say("holds")
        told()
        assert lock.fence
        lock.release()
    """,
        script="holder",
        DTHREADING_LEASE="6",
    )
    holder.hears("holds")
    for node in group.cluster.nodes:
        node.signal(signal.SIGSTOP)
    record = holder.hears()
    assert record.startswith("WARNING session ")
    assert "in jeopardy" in record
    assert "'orders'" in record
    for node in group.cluster.nodes:
        node.signal(signal.SIGCONT)
    assert "is safe again" in holder.hears()
    holder.tell()
    holder.ends()


def test_condition_waiters_and_barriers_of_the_dead(group: Group, start: Programs) -> None:
    """A notified waiter that dies hands its notification on; a barrier at which somebody died breaks."""
    waiter_of = """
        condition = threading.Condition(name="ready")
        with condition:
            say("notified", condition.wait())
    """
    victim = start(waiter_of, script="victim", DTHREADING_LEASE=SHORT)
    group.until_waiting("ready", 1)
    survivor = start(waiter_of, script="survivor")
    group.until_waiting("ready", 2)
    party = start(
        """
        barrier = threading.Barrier(2, name="gate")
        try:
            barrier.wait()
        except threading.BrokenBarrierError:
            say("broken")
    """,
        script="party",
    )
    stander = start("threading.Barrier(3, name='other').wait()", script="stander", DTHREADING_LEASE=SHORT)
    group.until_waiting("other", 1)
    group.until_waiting("gate", 1)
    victim.stop()
    notifier = start(
        """
        condition = threading.Condition(name="ready")
        with condition:
            condition.notify()
    """,
        script="notifier",
    )
    notifier.ends()
    survivor.ends(says=("notified True",))
    stander.kill()
    other = start(
        """
        barrier = threading.Barrier(3, name="other")
        try:
            barrier.wait()
        except threading.BrokenBarrierError:
            say("broken")
    """,
        script="other",
    )
    other.ends(says=("broken",))
    party.kill()


@pytest.mark.parametrize(("word", "status", "complaint"), [("exit", 70, "this process ends"), ("interrupt", 5, "lost")])
def test_a_process_that_must_not_go_on_is_ended(
    group: Group, start: Programs, word: str, status: int, complaint: str
) -> None:
    """In the middle of whatever it does, without a call of ours that could raise."""
    program = start(
        f"""
        threading.configure(on_lost={word!r})
        lock = threading.Lock(name="orders")
        lock.acquire()
        try:
            say("holds")
            sys.stdin.read()
        except KeyboardInterrupt:
            sys.exit(5)
    """,
        DTHREADING_LEASE=SHORT,
    )
    program.hears("holds")
    program.stop()
    group.until_free("orders")
    program.go_on()
    program.ends(status, complains=complaint)


def test_a_fence_is_there_while_a_lock_is_held_and_grows(group: Group, start: Programs) -> None:
    """Over all locks, also after one was deleted and made again."""
    program = start("""
        lock = threading.Lock(name="orders")
        fences = []
        for other in (lock, threading.RLock(name="r"), threading.Lock(name="orders"), lock):
            assert other.fence is None
            with other:
                fences.append(other.fence)
            assert other.fence is None
        assert threading.delete("orders") in (True, False)
        del lock, other
        with threading.Lock(name="orders") as entered:
            assert entered is True
        again = threading.Lock(name="orders")
        with again:
            fences.append(again.fence)
        assert fences == sorted(set(fences)), fences
        say("grew")
    """)
    program.ends(says=("grew",))


def test_many_processes_one_lock_first_come_first_served(group: Group, start: Programs) -> None:
    holder = start(HOLD + "    told()\n    lock.release()\n", script="holder")
    holder.hears("holds")
    waiters = []
    for number in range(5):
        waiters.append(
            start(
                """
            with threading.Lock(name="orders"):
                with open("order", "a") as file: file.write(sys.argv[1])
        """,
                str(number),
                script="waiter",
            )
        )
        group.until_waiting("orders", number + 1)
    holder.tell()
    for waiter in waiters:
        waiter.ends()
    assert (start.folder / "order").read_text() == "01234"
