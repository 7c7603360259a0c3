# SPDX-License-Identifier: Apache-2.0
"""What makes two processes mean the same object: unnamed ones of a module, named ones, private ones, namespaces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.cluster import Cluster
from tests.system.programs import Group, Programs


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Automatic objects outlive their users by the server's lease; here by half a second."""
    with Cluster(3, options=("--lease", "0.5")) as three:
        three.leader()
        yield three


ONE_SCRIPT = """
    lock = threading.Lock()
    class Work:
        items: queue.Queue = queue.Queue()
        ready = threading.Condition()
    if sys.argv[1] == "first":
        with lock:
            say("holds", lock.name, Work.items.name, Work.ready.name)
            told()
        with Work.ready:
            assert Work.ready.wait_for(lambda: not Work.items.empty())
        say(Work.items.get())
    else:
        assert not lock.acquire(blocking=False)
        say("waits")
        with lock, Work.ready:
            Work.items.put("item")
            Work.ready.notify()
"""


def test_unnamed_objects_of_one_script_are_shared(group: Group, start: Programs) -> None:
    """The program as anybody writes it: module level and class bodies, no names."""
    first = start(ONE_SCRIPT, "first", script="jobs")
    first.hears("holds jobs.lock jobs.Work.items jobs.Work.ready")
    second = start(ONE_SCRIPT, "second", script="jobs")
    second.hears("waits")
    first.tell()
    second.ends()
    first.ends(says=("item",))


def test_a_script_whose_name_is_no_text(group: Group, start: Programs) -> None:
    """A file that was named on another system: its bytes are no UTF-8, and the group knows text only."""
    odd = os.fsdecode(b"caf\xe9")
    first = start(ONE_SCRIPT, "first", script=odd)
    first.hears(r"holds caf\udce9.lock caf\udce9.Work.items caf\udce9.Work.ready")
    second = start(ONE_SCRIPT, "second", script=odd)
    second.hears("waits")
    first.tell()
    second.ends()
    first.ends(says=("item",))


def test_modules_of_a_package_share_however_they_are_run(group: Group, start: Programs, tmp_path: Path) -> None:
    """`import pkg.locks`, `python -m pkg`, `from pkg import locks`: one module text, one object."""
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "locks.py").write_text("import dthreading\norders = dthreading.Lock()\n")
    main = "from pkg import locks\nfrom dthreading import Event\nmine = Event()\nprint(locks.orders.name, mine.name)\n"
    (package / "__main__.py").write_text(main)
    (package / "tool.py").write_text(main)
    run = {"PYTHONPATH": f"{start.environment['PYTHONPATH']}:{tmp_path}"}
    start.run(["-m", "pkg"], **run).ends(says=("pkg.locks.orders pkg.__main__.mine",))
    start.run(["-m", "pkg.tool"], **run).ends(says=("pkg.locks.orders pkg.tool.mine",))
    code = "import pkg.locks; print(pkg.locks.orders.name)"
    start.run(["-c", code], **run).ends(says=("pkg.locks.orders",))


def test_private_objects_of_instances_are_not_shared(group: Group, start: Programs) -> None:
    """`self.lock = Lock()`: the commonest way; each is its own, and the user is told once per place."""
    lines = """
        class Worker:
            def __init__(self):
                self.lock = threading.Lock()
        workers = [Worker() for _ in range(3)]
        assert len({worker.lock.name for worker in workers}) == 3
        for worker in workers:
            assert worker.lock.acquire(blocking=False)
        say("held")
        told()
    """
    programs = [start(lines, script="workers") for _ in range(2)]
    for program in programs:
        program.hears("held")
    assert len(group.rows("workers:")) == 6
    for program in programs:
        program.tell()
        program.ends(complains="Lock(name='workers.Worker.lock')")
        assert program.complaints().count("PrivateNameWarning") == 1
    group.until(lambda: not group.rows())


def test_strict_naming_refuses_what_no_name_can_be_given(group: Group, start: Programs) -> None:
    program = start(
        """
        module_level = threading.Lock()
        named = queue.Queue(name="named")
        def make():
            return threading.Semaphore(3)
        try:
            make()
        except threading.AmbiguousName as error:
            assert isinstance(error, ValueError)
            say(error)
        for condition in (threading.Condition(name="c"), threading.Condition(threading.Lock(), name="d")):
            with condition:
                condition.notify()
    """,
        script="strict",
        DTHREADING_NAMING="strict",
    )
    said = program.hears()
    assert "strict.py:" in said
    assert "this Semaphore() makes a new object on each evaluation" in said
    assert "Semaphore(name='strict.make.semaphore')" in said
    program.ends()


def test_a_wrong_naming_mode_is_said(start: Programs) -> None:
    program = start("def f(): threading.Lock()\nf()", DTHREADING_NAMING="strikt")
    program.ends(1, complains="DTHREADING_NAMING must be one of auto, warn, strict, not 'strikt'")


def test_namespaces_keep_programs_apart(group: Group, start: Programs) -> None:
    lines = "lock = threading.Lock(name='x'); say(lock.acquire(blocking=False)); told()"
    first, second = (start(lines, script=f"{n}", DTHREADING_NAMESPACE=f"{group.namespace}-{n}") for n in (1, 2))
    first.hears("True")
    second.hears("True")
    third = start(lines, script="3", DTHREADING_NAMESPACE=f"{group.namespace}-1")
    third.hears("False")
    for program in (first, second, third):
        program.tell()
        program.ends()


SECOND_RUN = """
    items = queue.Queue()
    done = threading.Event()
    kept = threading.Semaphore(5, name="kept")
    say(items.qsize(), done.is_set(), kept.acquire(blocking=False))
    items.put("left behind")
    done.set()
"""


def test_a_second_run_starts_afresh_and_what_is_named_stays(group: Group, start: Programs) -> None:
    """As with `threading`, one lease after the first run; until then it is as the first one left it."""
    stays = start("kept = queue.Queue(name='stays'); kept.put('here')", script="stays")
    stays.ends()
    first = start(SECOND_RUN, script="job", DTHREADING_LEASE="600")
    first.ends(says=("0 False True",))
    group.until(lambda: not group.row("job.items") and not group.row("job.done"))
    second = start(SECOND_RUN, script="job")
    second.ends(says=("0 False True",))
    start("say(queue.Queue(name='stays').get_nowait())", script="stays").ends(says=("here",))


def test_a_run_that_was_killed_leaves_nothing_automatic(group: Group, start: Programs) -> None:
    first = start(SECOND_RUN + "    told()\n", script="job", DTHREADING_LEASE="0.5")
    first.hears("0 False True")
    group.until(lambda: group.row("job.items").get("size") == 1)
    first.kill()
    group.until(lambda: not group.row("job.items"))
    start(SECOND_RUN, script="job").ends(says=("0 False True",))


def test_an_automatic_object_lives_while_anybody_of_the_program_does(group: Group, start: Programs) -> None:
    """One process waits, others come and go with more than a lease between them."""
    waiter = start(
        """
        items = queue.Queue()
        say(items.get(), items.get())
    """,
        script="job",
    )
    group.until_waiting("job.items", 1)
    start("items = queue.Queue(); items.put(1)", script="job").ends()
    start("items = queue.Queue(); items.put(2)", script="job").ends()
    waiter.ends(says=("1 2",))


def test_one_name_for_two_kinds_is_told_with_both(group: Group, start: Programs) -> None:
    program = start("""
        from dthreading.errors import ObjectMismatch
        kept = threading.Semaphore(3, name="x")
        kept.acquire()
        for make in (lambda: threading.Semaphore(5, name="x").acquire, lambda: threading.Lock(name="x").acquire,
                     lambda: queue.Queue(name="x").get_nowait):
            try:
                make()()
            except ObjectMismatch as error:
                assert isinstance(error, ValueError)
                say(error)
    """)
    for theirs in ("Semaphore(5)", "Lock()", "Queue(0, False)"):
        said = program.hears()
        assert "'x'" in said
        assert "Semaphore(3)" in said, said
        assert theirs in said, said
    program.ends()


def test_delete_ends_what_is_stuck(group: Group, start: Programs) -> None:
    """For operators: whoever waits is told, and the name is free."""
    waiter = start(
        """
        from dthreading.errors import ObjectGone
        try:
            queue.Queue(name="stuck").get()
        except ObjectGone as error:
            say(error)
    """,
        script="waiter",
    )
    group.until_waiting("stuck", 1)
    start("say(threading.delete('stuck'), threading.delete('stuck'))", script="operator").ends(says=("True False",))
    assert "'stuck'" in waiter.hears()
    waiter.ends()
