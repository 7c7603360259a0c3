# SPDX-License-Identifier: Apache-2.0
"""Queues between real processes: what the dead had taken, join, shutdown, what can be an item, what is first."""

from __future__ import annotations

import signal

import pytest

from tests.system.programs import Group, Programs

TAKER = """
    items = {make}
    say("took", items.get(), items.get())
    items.task_done()
    say("did one")
    told()
"""


@pytest.mark.parametrize("how", ["redeliver=True", "DTHREADING_REDELIVER"])
def test_what_a_dead_getter_had_taken_is_redelivered_first(group: Group, start: Programs, how: str) -> None:
    """Not what it had done. To the head, so nobody who waits behind it overtakes."""
    make = "queue.Queue(name='q', redeliver=True)" if "=" in how else "queue.Queue(name='q')"
    environment = {} if "=" in how else {how: "1"}
    putter = start(
        f"""
        items = {make}
        for number in range(4): items.put(number)
        say("put")
        items.join()
        say("all done")
    """,
        script="putter",
        **environment,
    )
    putter.hears("put")
    taker = start(TAKER.format(make=make), script="taker", DTHREADING_LEASE="1", **environment)
    taker.hears("took 0 1", "did one")
    taker.kill()
    group.until(lambda: group.row("q")["size"] == 3)
    heir = start(
        f"""
        items = {make}
        for _ in range(3):
            say(items.get())
            items.task_done()
    """,
        script="heir",
        **environment,
    )
    heir.ends(says=("1", "2", "3"))
    putter.ends(says=("all done",))


def test_join_tells_of_tasks_that_died_with_their_getter(group: Group, start: Programs) -> None:
    """Without redelivery nobody waits for the dead, and nobody is told that all was done."""
    putter = start(
        """
        from dthreading.errors import TasksLost
        items = queue.Queue(name="q")
        for number in range(4): items.put(number)
        say("put")
        try:
            items.join()
        except TasksLost as error:
            say(error.count, items.unfinished_tasks, items.qsize())
            say(error)
    """,
        script="putter",
    )
    putter.hears("put")
    taker = start(TAKER.format(make="queue.Queue(name='q')") + "    sys.exit()\n", script="taker")
    taker.hears("took 0 1", "did one")
    group.until_waiting("q", 1)
    taker.tell()
    taker.ends()
    putter.hears("1 2 2")
    said = putter.hears()
    assert said.startswith("1 of the tasks of Queue 'q' were taken by a client that ended"), said
    putter.ends()


def test_an_item_whose_getter_died_before_it_heard_goes_back(group: Group, start: Programs) -> None:
    """In any case: it was granted to somebody who was not there any more."""
    victim = start("queue.Queue(name='q').get()", script="victim", DTHREADING_LEASE="1")
    group.until_waiting("q", 1)
    victim.stop()
    start(
        """
        items = queue.Queue(name="q")
        items.put("first")
        items.put("second")
        say(items.qsize(), items.unfinished_tasks)
    """,
        script="putter",
    ).ends(says=("1 2",))
    group.until(lambda: group.row("q")["size"] == 2)
    start("items = queue.Queue(name='q'); say(items.get(), items.get())", script="heir").ends(says=("first second",))


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue"])
def test_the_last_item_of_a_program_that_ends_stays_taken(group: Group, start: Programs, kind: str) -> None:
    """Its very last call was that get, so nothing but its goodbye can tell that the item has arrived."""
    start(
        f"""
        items = queue.{kind}(name="q")
        for number in range(3): items.put(number)
    """,
        script="putter",
    ).ends()
    for number in range(3):
        start(f"say(queue.{kind}(name='q').get())", script="getter").ends(says=(str(number),))
    group.until(lambda: not group.rows())


def test_an_item_whose_getter_was_interrupted_is_not_lost(group: Group, start: Programs) -> None:
    """Ctrl-C again and again while items come in: each is either returned or still there, once."""
    getter = start(
        """
        items = queue.Queue(name="q")
        got, news = 0, "ready"
        while True:
            try:
                if news:
                    told_now, news = news, ""
                    say(told_now)
                while True:
                    item = items.get()
                    if item is None:
                        break
                    got += 1
                break
            except KeyboardInterrupt:
                news = "interrupted"
        say(got)
    """,
        script="getter",
    )
    putter = start(
        """
        items = queue.Queue(name="q")
        for turn in range(60):
            told()
            for _ in range(3): items.put(turn)
        told()
        items.put(None)
    """,
        script="putter",
    )
    getter.hears("ready")
    for _ in range(60):
        putter.tell()
        getter.signal(signal.SIGINT)
        getter.hears("interrupted")
    putter.tell()
    putter.ends()
    got = int(getter.hears())
    getter.ends()
    # What comes back comes to the head, but may come after the last word. And an interrupt between get's return and
    # the assignment drops what was returned, as with `queue.Queue`.
    left = group.row("q").get("size", 0)
    assert 180 - 60 <= got + left <= 180


WAITS_FOR_SHUTDOWN = """
    from dthreading.queue import ShutDown
    items = queue.Queue(1, name=sys.argv[1])
    try:
        items.get() if sys.argv[1] == "empty" else items.put(2)
    except ShutDown:
        say("shut down")
"""


def test_shutdown_reaches_every_process(group: Group, start: Programs) -> None:
    start("queue.Queue(1, name='full').put(1)", script="filler").ends()
    waiting = [start(WAITS_FOR_SHUTDOWN, name, script="waits") for name in ("empty", "empty", "full")]
    group.until_waiting("empty", 2)
    group.until_waiting("full", 1)
    shutter = start(
        """
        from dthreading.queue import ShutDown
        queue.Queue(1, name="empty").shutdown()
        full = queue.Queue(1, name="full")
        full.shutdown()
        assert full.is_shutdown
        say(full.get())
        try:
            full.get()
        except ShutDown:
            say("empty and shut down")
        dropped = queue.Queue(name="dropped")
        for _ in range(3): dropped.put("x")
        dropped.shutdown(immediate=True)
        dropped.join()
        say(dropped.qsize())
    """,
        script="shutter",
    )
    shutter.ends(says=("1", "empty and shut down", "0"))
    for program in waiting:
        program.ends(says=("shut down",))


def test_what_cannot_be_an_item_is_refused_and_was_not_put(group: Group, start: Programs) -> None:
    program = start(
        """
        import socket
        items, simple, first = queue.Queue(name="q"), queue.SimpleQueue(name="s"), queue.PriorityQueue(name="p")
        class Local:
            def __reduce__(self):
                raise RuntimeError("never")
        def main():
            wrong = (lambda: 0, socket.socket(), object(), Local(), threading.local(), (x for x in ()),
                     [1, {2: lambda: 0}], [object()], sys.stdin)
            for item in wrong:
                for q in (items, simple, first):
                    try:
                        q.put(item)
                    except TypeError as error:
                        assert str(error), item
                    else:
                        say("was put", item)
            say(items.qsize(), items.unfinished_tasks, simple.qsize(), first.qsize())
            try:
                items.put(object())
            except TypeError as error:
                say(error)
        main()
    """,
        options=("-W", "ignore::ResourceWarning"),
    )
    program.hears("0 0 0 0")
    said = program.hears()
    assert "object()" in said
    assert "SENTINEL" in said
    program.ends()


def test_a_sentinel_is_the_same_on_both_sides_or_an_error(group: Group, start: Programs) -> None:
    """A global of a module is sent by its name; where that name means something else, nobody is fooled."""
    putter = start(
        """
        STOP = object()
        items = queue.Queue(name="q")
        items.put(STOP)
        items.put(("and", STOP))
        items.put(STOP)
    """,
        script="program",
    )
    putter.ends()
    getter = start(
        """
        STOP = object()
        items = queue.Queue(name="q")
        say(items.get() is STOP, items.get()[1] is STOP)
        STOP = "something else"
        try:
            items.get()
        except threading.ItemUnreadable as error:
            say(error)
    """,
        script="program",
    )
    getter.hears("True True")
    assert "program.STOP" in getter.hears()
    getter.ends()


def test_items_arrive_as_they_were(group: Group, start: Programs, tmp_path) -> None:
    """Equal and of the same type, for plain values and for classes that both sides can import."""
    (tmp_path / "shapes.py").write_text(
        "import dataclasses, enum\n"
        "@dataclasses.dataclass(order=True, frozen=True)\nclass Point:\n    x: int\n    y: int = 0\n"
        "class Colour(enum.IntEnum):\n    RED = 1\n"
        "class Text(str):\n    pass\n"
        "SENTINEL = object()\n"
    )
    lines = """
        import shapes, datetime, decimal, collections, fractions, math
        values = [
            None, True, False, 0, -1, 2**63, 2**64, -2**70, 1.5, float("inf"), -0.0, "", "ü\\U0001f600", b"", b"\\0",
            bytearray(b"x"), (), (1,), [], [1, (2, [3])], {}, {1: {"a": (None,)}}, {(1, 2): 3}, set(), {1},
            frozenset({2}), shapes.Point(1, 2), shapes.Colour.RED, shapes.Text("t"), range(3), 1j, Ellipsis, int,
            shapes.Point,
            datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc), decimal.Decimal("1.10"),
            collections.OrderedDict(a=1), fractions.Fraction(1, 3), ValueError("x").args, "x" * 100_000,
            shapes.SENTINEL,
        ]
        items = queue.Queue(name="q")
        if sys.argv[1] == "put":
            for value in values: items.put(value)
        else:
            for value in values:
                got = items.get()
                assert type(got) is type(value), (got, value)
                assert got == value, (got, value)
                assert math.copysign(1, got) == math.copysign(1, value) if type(value) is float else True
            say("as they were")
    """
    start(lines, "put", script="items").ends()
    start(lines, "get", script="items").ends(says=("as they were",))


def test_a_priority_queue_of_all_sorts(group: Group, start: Programs) -> None:
    program = start(
        """
        import dataclasses
        @dataclasses.dataclass(order=True)
        class Job:
            priority: int
            what: object = dataclasses.field(compare=False)
        jobs, mixed, keyed = (queue.PriorityQueue(name=name, **more) for name, more in
                              (("jobs", {}), ("mixed", {}), ("keyed", {"key": len})))
        for item in (Job(2, "b"), Job(1, {"any": "thing"}), Job(2, "c"), Job(0, None)):
            jobs.put(item)
        say(*[jobs.get().what for _ in range(4)])
        for item in ((2, "b"), (1, "b"), (1, "a"), (1, "a", {}), (0.5, []), (2, {"x": 1}), (True, "z")):
            mixed.put(item)
        for item in ("text", None, (1, 2, 3, float("nan")), float("nan"), {"a": 1}, (None, 1)):
            try:
                mixed.put(item)
                say("was put", item)
            except (TypeError, ValueError) as error:
                assert str(error)
        say(mixed.qsize())
        say(*[mixed.get() for _ in range(7)])
        for item in ("ccc", "a", "bb"): keyed.put(item)
        say(*[keyed.get() for _ in range(3)])
    """,
        script="jobs",
        DTHREADING_NAMING="auto",
    )
    program.hears("None {'any': 'thing'} b c")
    program.hears("7")
    said = program.hears()
    assert said.startswith("(0.5, []) (1, 'a') "), said
    program.ends(says=("a bb ccc",))


def test_maxsize_may_be_assigned_on_a_live_queue(group: Group, start: Programs) -> None:
    putter = start(
        """
        items = queue.Queue(1, name="q")
        for number in range(5):
            items.put(number)
        say("all in")
    """,
        script="putter",
    )
    group.until_waiting("q", 1)
    other = start(
        """
        items = queue.Queue(1, name="q")
        assert items.full()
        items.maxsize = 0
        say(items.maxsize)
        told()
        items.maxsize = 5
        assert items.full()
        try:
            items.put_nowait(6)
        except queue.Full:
            say("full")
    """,
        script="other",
    )
    other.hears("0")
    putter.ends(says=("all in",))
    other.tell()
    other.ends(says=("full",))


RINGING = """
    import threading as plain
    rung = plain.Semaphore(0)
    def ring_often(times):  # one after the other: a slow machine must not do nothing else
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGUSR1)
            rung.acquire()
    def ring(*_):
        handle()
        rung.release()
    signal.signal(signal.SIGUSR1, ring)
    ringer = plain.Thread(target=ring_often, args=(60,))
"""


def test_simple_queue_from_finalizers_and_signal_handlers(group: Group, start: Programs) -> None:
    program = start(
        RINGING
        + """
    import gc
    letters, lock = queue.SimpleQueue(name="letters"), threading.Lock(name="x")
    class Dying:
        def __init__(self):
            self.itself = self
        def __del__(self):
            letters.put("finalized")
    def handle():
        letters.put("rang")
    gc.set_threshold(50)
    ringer.start()
    for _ in range(200):
        Dying()
        letters.put("plain")
        with lock:
            pass
    while ringer.is_alive():
        letters.put("plain")
        letters.get()
    gc.collect()
    gc.disable()
    words = [letters.get() for _ in range(letters.qsize())]
    counts = [words.count("finalized"), words.count("rang")]
    say(*counts, len(words))
    """
    )
    finalized, rang, total = map(int, program.hears().split())
    # What the second loop took were words of any sort.
    assert total == 460
    assert 0 < finalized <= 200
    assert rang <= 60
    program.ends()


def test_any_call_may_be_made_in_a_signal_handler(group: Group, start: Programs) -> None:
    """In the middle of another call of the same thread, of the same kind even."""
    program = start(
        RINGING
        + """
    lock, items, event = threading.Lock(name="x"), queue.Queue(name="q"), threading.Event(name="e")
    other = threading.Lock(name="y")
    def handle():
        with other:
            items.put("rang")
            event.set()
        assert items.get() == "rang"
        items.task_done()
    ringer.start()
    while ringer.is_alive():
        with lock:
            pass
        assert event.wait(30)
    items.join()
    say("done")
    """
    )
    program.ends(says=("done",))


def test_logging_over_a_queue_of_ours(group: Group, start: Programs) -> None:
    """QueueHandler in the workers, QueueListener in one place: the stdlib's recipe for many processes."""
    listener = start(
        """
        import logging, logging.handlers
        class Say(logging.Handler):
            def emit(self, record):
                say(record.levelname, record.getMessage())
        listener = logging.handlers.QueueListener(queue.Queue(name="log"), Say())
        listener.start()
        told()
        listener.stop()
        say("stopped")
    """,
        script="listener",
    )
    worker = start(
        """
        import logging, logging.handlers
        handler = logging.handlers.QueueHandler(queue.Queue(name="log"))
        logging.getLogger().addHandler(handler)
        for number in range(3):
            logging.warning("message %d", number)
        try:
            1 / 0
        except ZeroDivisionError:
            logging.exception("caught")
    """,
        script="worker",
    )
    worker.ends()
    listener.hears("WARNING message 0", "WARNING message 1", "WARNING message 2")
    assert listener.hears() == "ERROR caught"
    assert "Traceback" in listener.hears()
    while listener.hears() != "ZeroDivisionError: division by zero":
        pass
    listener.tell()
    listener.ends(says=("stopped",))
