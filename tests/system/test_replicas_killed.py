# SPDX-License-Identifier: Apache-2.0
"""Replicas die under running programs: nothing acknowledged is lost, whoever waited is answered, nobody holds twice."""

from __future__ import annotations

import signal

from tests.system.programs import Group, Programs

def test_kill_of_all_replicas_keeps_holds_items_and_waits(group: Group, start: Programs) -> None:
    """The machine room loses its power: a held lock stays held, items stay queued, a waiting call is answered later."""
    holder = start("""
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
    """, script="holder")
    holder.hears("holds")
    waiter = start("""
        lock = threading.Lock(name="held")
        say("waits")
        lock.acquire()
        say("granted")
        told()
        lock.release()
    """, script="waiter")
    getter = start("""
        answers = queue.Queue(name="answers")
        say("waits")
        say(answers.get())
    """, script="getter")
    group.until_waiting("held", 1)
    group.until_waiting("answers", 1)

    group.cluster.kill()
    group.cluster.start()

    trier = start("""
        lock = threading.Lock(name="held")
        items = queue.Queue(name="items")
        assert lock.locked()
        assert not lock.acquire(blocking=False)
        say(*[items.get() for _ in range(items.qsize())])
    """, script="trier")
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
