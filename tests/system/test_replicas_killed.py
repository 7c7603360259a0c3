# SPDX-License-Identifier: Apache-2.0
"""Replicas die under running programs: nothing acknowledged is lost, whoever waited is answered, nobody holds twice."""

from __future__ import annotations

import signal

from tests.system.programs import Group, Programs


def test_kill_of_all_replicas_keeps_holds_items_and_waits(group: Group, start: Programs) -> None:
    """The machine room loses its power: a held lock stays held, items stay queued, a waiting call is answered later."""
    holder = start(
        """
        lock = threading.Lock(name="held")
        items = queue.Queue(name="items")
        answers = queue.Queue(name="answers")
        lock.acquire()
        fence = lock.fence
        for number in range(20):
            items.put(number)
        say("holds")
        told()
        assert lock.fence == fence
        lock.release()
        answers.put("late")
        say("released")
    """,
        script="holder",
    )
    holder.hears("holds")
    waiter = start(
        """
        lock = threading.Lock(name="held")
        say("waits")
        lock.acquire()
        say("granted")
        told()
        lock.release()
    """,
        script="waiter",
    )
    getter = start(
        """
        answers = queue.Queue(name="answers")
        say("waits")
        say(answers.get())
    """,
        script="getter",
    )
    group.until_waiting("held", 1)
    group.until_waiting("answers", 1)

    group.cluster.kill()
    group.cluster.start()

    trier = start(
        """
        lock = threading.Lock(name="held")
        items = queue.Queue(name="items")
        assert lock.locked()
        assert not lock.acquire(blocking=False)
        say(*[items.get() for _ in range(items.qsize())])
    """,
        script="trier",
    )
    trier.ends(says=(" ".join(map(str, range(20))),))
    assert group.row("held")["waiting"] == 1
    waiter.hears("waits")
    getter.hears("waits")
    holder.tell()
    waiter.hears("granted")
    getter.ends(says=("late",))
    holder.ends(says=("released",))
    waiter.tell()
    waiter.ends()


COUNTER = """
    lock = threading.Lock(name="counter")
    def entry():  # fails when somebody else is inside
        os.close(os.open("inside", os.O_CREAT | os.O_EXCL))
    say("ready")
    told()
    last = 0
    for turn in range(int(sys.argv[1])):
        with lock:
            entry()
            assert lock.fence > last
            last = lock.fence
            with open("counter") as file:
                value = int(file.read())
            with open("counter", "w") as file:
                file.write(str(value + 1))
            os.unlink("inside")
        if turn % 10 == 9:
            say(turn + 1)
    say("done")
"""


def test_a_counter_is_exact_while_leaders_are_killed(group: Group, start: Programs) -> None:
    """No lost update and no double hold, whatever the leader was doing when it died."""
    (start.folder / "counter").write_text("0")
    turns, count = 120, 4
    programs = [start(COUNTER, str(turns), script="counter") for _ in range(count)]
    for program in programs:
        program.hears("ready")
    for program in programs:
        program.tell()
    for round_ in range(4):
        for program in programs:
            program.hears(str(30 * round_ + 10), str(30 * round_ + 20), str(30 * round_ + 30))
        if round_ < 3:
            leader = group.cluster.leader()
            leader.kill()
            group.cluster.leader()
            leader.start(wait=False)
            leader.wait_ready()
    for program in programs:
        program.ends(says=("done",), complains=None)
    assert (start.folder / "counter").read_text() == str(turns * count)


def test_a_client_that_knows_one_follower_alone_is_served(group: Group, start: Programs) -> None:
    """It leads nobody, and passes everything on."""
    follower = group.followers()[0]
    program = start(
        """
        lock = threading.Lock(name="x")
        with lock:
            assert lock.locked()
        items = queue.Queue(name="q")
        for number in range(50):
            items.put(number)
        assert [items.get() for _ in range(50)] == list(range(50))
        condition = threading.Condition(name="c")
        with condition:
            assert not condition.wait(timeout=0.01)
        say("served")
    """,
        DTHREADING_SERVERS=follower.address,
    )
    program.ends(says=("served",))


def test_the_replica_that_a_client_uses_is_killed(group: Group, start: Programs) -> None:
    """Whichever it is: the client goes on through another that is listed, with the same session and the same hold."""
    leader, (first, second) = group.cluster.leader(), group.followers()
    lines = """
        lock = threading.Lock(name=sys.argv[1])
        lock.acquire()
        fence = lock.fence
        say("holds")
        told()
        assert not lock.acquire(blocking=False)
        assert lock.fence == fence
        lock.release()
        say("released")
    """
    of_two = {"DTHREADING_SERVERS": f"{first.address},{second.address}"}
    programs = [start(lines, f"{number}", **of_two) for number in range(3)]
    for program in programs:
        program.hears("holds")
    first.kill()
    for program in programs:
        program.tell()
        program.ends(says=("released",), complains=None)
    assert leader.running


def test_a_client_told_one_address_learns_the_others(group: Group, start: Programs) -> None:
    """Killed is the only replica that it was told of; the group has named the others meanwhile."""
    follower = group.followers()[0]
    program = start(
        """
        lock = threading.Lock(name="x")
        lock.acquire()
        say("holds")
        told()
        lock.release()
        say("released")
    """,
        DTHREADING_SERVERS=follower.address,
    )
    program.hears("holds")
    follower.kill()
    program.tell()
    program.ends(says=("released",), complains=None)


MINORITY = """
    lock, event, items = threading.Lock(name="x"), threading.Event(name="e"), queue.Queue(name="q")
    held = threading.Lock(name="held")
    held.acquire()
    kept = queue.Queue(name="kept")
    kept.put("before")
    items.put("taken")
    say("ready")
    told()
    calls = {
        "acquire(False)": lambda: lock.acquire(False),
        "locked": lock.locked,
        "is_set": event.is_set,
        "qsize": items.qsize,
        "get_nowait": items.get_nowait,
        "set": event.set,
        "put_nowait": lambda: items.put_nowait(1),
        "release": held.release,
    }
    outcomes = {}
    def call(name):
        try:
            outcomes[name] = calls[name]()
        except Exception as error:
            outcomes[name] = type(error).__name__
            if outcomes[name] == "GroupUnreachable":
                assert isinstance(error, ConnectionError)
                assert "no replica answered for one lease (1 s)" in str(error), error
    threads = [threading.Thread(target=call, args=(name,)) for name in calls]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    for name in calls:
        say(name, outcomes[name])
    def wait():
        say("got", kept.get())
        say("locked", lock.acquire())
    assert lock.acquire(timeout=0.05) is False
    assert event.wait(timeout=0.05) is False
    thread = threading.Thread(target=wait)
    thread.start()
    say("waits")
    thread.join()
    lock.release()
"""


def test_without_a_majority_some_calls_fail_and_others_wait(group: Group, start: Programs) -> None:
    """What waits for nothing raises after a lease; the rest goes on waiting, and is answered when the group is back."""
    program = start(MINORITY, DTHREADING_LEASE="1", DTHREADING_PATIENCE="0.2")
    program.hears("ready")
    for node in group.followers():
        node.kill()
    program.tell()
    for name in ("acquire(False)", "locked", "is_set", "qsize", "get_nowait"):
        program.hears(f"{name} GroupUnreachable")
    program.hears("set OutcomeUnknown", "put_nowait OutcomeUnknown", "release LockLost", "waits")
    for node in group.cluster.nodes:
        if not node.running:
            node.start(wait=False)
    program.hears("got before", "locked True")
    program.ends(complains="is lost")


def test_replicas_restarted_one_after_the_other_disturb_nobody(group: Group, start: Programs) -> None:
    """An upgrade: SIGTERM and start again, each when the one before is ready. Programs hear no error and no warning."""
    program = start("""
        import threading as plain
        stop = plain.Event()
        lock, items = threading.Lock(name="x"), queue.Queue(name="q")
        def work():
            turns = 0
            while not stop.is_set():
                with lock:
                    items.put(turns)
                    assert items.get() == turns
                    items.task_done()
                turns += 1
            assert turns
        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers: worker.start()
        say("ready")
        told()
        stop.set()
        for worker in workers: worker.join()
        say("done")
    """)
    program.hears("ready")
    for node in group.cluster.nodes:
        assert node.stop() == 0
        node.start()
        chosen = group.cluster.leader().ask("status")["chosen"]
        group.until(lambda node=node, chosen=chosen: node.ask("status")["applied"] >= chosen)
    program.tell()
    program.ends(says=("done",))


def test_a_stopped_leader_is_replaced_under_its_clients(group: Group, start: Programs) -> None:
    """SIGSTOP: its connections stay open and say nothing."""
    program = start(
        """
        lock = threading.Lock(name="x")
        lock.acquire()
        say("holds")
        told()
        lock.release()
        with lock:
            say("again")
    """,
        DTHREADING_LEASE="3",
    )
    program.hears("holds")
    group.cluster.leader().signal(signal.SIGSTOP)
    program.tell()
    program.ends(says=("again",), complains=None)


def test_every_kind_of_wait_survives_the_death_of_the_leader(group: Group, start: Programs) -> None:
    waits = start(
        """
        waits = {
            "condition": lambda: condition.wait(),
            "timed": lambda: condition.wait(timeout=500),
            "barrier": lambda: threading.Barrier(2, name="barrier").wait() in (0, 1),
            "event": lambda: threading.Event(name="event").wait(),
            "semaphore": lambda: threading.Semaphore(0, name="semaphore").acquire(),
            "get": lambda: queue.LifoQueue(name="get").get(),
            "put": lambda: queue.Queue(1, name="put").put(2) is None,
            "join": lambda: queue.Queue(name="join").join() is None,
        }
        condition = threading.Condition(name="condition")
        queue.Queue(1, name="put").put(1)
        queue.Queue(name="join").put(1)
        def run(name):
            with condition if name in ("condition", "timed") else threading.RLock():
                result = waits[name]()
            assert result is True, (name, result)
        threads = [threading.Thread(target=run, args=(name,)) for name in waits]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        say("answered")
    """,
        script="waits",
        DTHREADING_NAMING="auto",
    )
    group.until_waiting("condition", 2)
    for name in ("barrier", "event", "semaphore", "get", "put", "join"):
        group.until_waiting(name, 1)
    group.cluster.leader().kill()
    wakes = start(
        """
        condition = threading.Condition(name="condition")
        with condition:
            condition.notify_all()
        assert threading.Barrier(2, name="barrier").wait() in (0, 1)
        threading.Event(name="event").set()
        threading.Semaphore(0, name="semaphore").release()
        queue.LifoQueue(name="get").put(True)
        assert queue.Queue(1, name="put").get() == 1
        join = queue.Queue(name="join")
        join.get()
        join.task_done()
        say("woke them")
    """,
        script="wakes",
    )
    wakes.ends(says=("woke them",), complains=None)
    waits.ends(says=("answered",), complains=None)
