# SPDX-License-Identifier: Apache-2.0
"""The embedded local group as a new user meets it: nothing configured, any kind of program, any kind of home."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.cluster import ROOT
from tests.system.programs import Programs, processes_with, state_of, until


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of its own, with a path short enough for a socket; the group that was started in it is ended."""
    folder = Path(tempfile.mkdtemp(prefix="dth-", dir="/tmp"))
    yield folder
    for pid in processes_with("--embedded", str(folder)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)  # it takes its socket along, wherever that is
        until(lambda pid=pid: state_of(pid) in {"", "Z"})
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def start(home: Path, tmp_path: Path) -> Iterator[Programs]:
    outside = {
        name: value for name, value in os.environ.items() if not name.startswith(("DTHREADING_", "XDG_", "PYTHON"))
    }
    programs = Programs({**outside, "HOME": str(home), "PYTHONPATH": str(ROOT)}, tmp_path)
    yield programs
    programs.close()


def replicas(home: Path) -> list[int]:
    return [pid for pid in processes_with("replicas.cli", "--embedded", str(home)) if state_of(pid) not in {"", "Z"}]


COUNT = """
    lock = threading.Lock()
    for _ in range(20):
        with lock:
            number = int(open("number").read()) if os.path.exists("number") else 0
            with open("number", "w") as file: file.write(str(number + 1))
    say("done")
"""


def test_programs_started_at_once_find_one_group(home: Path, start: Programs) -> None:
    programs = [start(COUNT, script="count") for _ in range(4)]
    for program in programs:
        program.ends(says=("done",))
    assert (start.folder / "number").read_text() == "80"
    until(lambda: len(replicas(home)) == 1)


def test_ways_to_run_python(home: Path, start: Programs) -> None:
    """A script, -c, a module, a package, standard input line by line, an interactive session."""
    folder = start.folder
    (folder / "pkg").mkdir()
    text = "import dthreading\nlock = dthreading.Lock()\nwith lock:\n    print(lock.name, flush=True)\n\n"
    (folder / "pkg" / "__init__.py").write_text("")
    (folder / "pkg" / "__main__.py").write_text(text)
    (folder / "alone.py").write_text(text)
    path = {"PYTHONPATH": f"{ROOT}:{folder}"}
    start.run(["-m", "pkg"], **path).ends(says=("pkg.__main__.lock",))
    start.run(["-m", "alone"], **path).ends(says=("alone.lock",))
    start.run([str(folder / "alone.py")]).ends(says=("alone.lock",))
    start.run(["alone.py"]).ends(says=("alone.lock",))
    start.run(["-c", text]).ends(says=("__main__.lock",))
    for options in (["-"], ["-i"]):
        done = subprocess.run(
            [sys.executable, *options], input=text, cwd=folder, env=start.environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().endswith("__main__.lock")
        assert "Error" not in done.stderr


def test_modules_that_stand_beside_the_program_or_the_package_are_not_the_replicas(home: Path, start: Programs) -> None:
    """A user's own `replicas` or `secrets`, a backport of argparse that pip puts beside every package: harmless to the
    program, so to its group.
    """
    beside, own = start.folder / "site", start.folder / "own"
    shutil.copytree(ROOT / "dthreading", beside / "dthreading")
    shutil.copytree(ROOT / "replicas", beside / "replicas")
    own.mkdir()
    for path in (beside / "argparse.py", beside / "asyncio.py", own / "replicas.py", own / "asyncio.py"):
        path.write_text("raise SyntaxError('not for you')\n")
    text = f"import sys; sys.path.append({str(beside)!r}); import dthreading; dthreading.Lock(name='x').acquire()"
    start.run(["-c", text], PYTHONPATH=str(own)).ends()


def test_different_programs_of_a_user_share_nothing_by_accident(start: Programs) -> None:
    first = start("lock = threading.Lock(name='x'); say(lock.acquire(blocking=False)); told()", script="first")
    first.hears("True")
    start("say(threading.Lock(name='x').acquire(blocking=False))", script="second").ends(says=("True",))
    named = {"DTHREADING_NAMESPACE": "ours"}
    both = [start(f"say(threading.Lock(name='x').acquire(blocking=False)); told()  # {n}", script=f"ours{n}", **named)
            for n in (1, 2)]  # fmt: skip
    assert sorted(program.hears() for program in both) == ["False", "True"]


def test_ctrl_c_in_the_terminal_is_not_for_the_group(home: Path, start: Programs) -> None:
    """It goes to the whole process group: to the program and its children, and not to the replica it started."""
    program = start("""
        lock = threading.Lock(name="x")
        lock.acquire()
        try:
            say("holds")
            queue.Queue(name="q").get()
        except KeyboardInterrupt:
            assert lock.locked()
            say("still there")
    """)
    program.hears("holds")
    (replica,) = replicas(home)
    assert os.getpgid(replica) != os.getpgid(program.pid)
    os.killpg(program.pid, signal.SIGINT)
    program.ends(says=("still there",))
    assert replicas(home) == [replica]


def test_the_group_outlives_the_program_that_started_it(home: Path, start: Programs) -> None:
    first = start("threading.Lock(name='x').acquire(); say('holds'); told()", DTHREADING_NAMESPACE="ours")
    first.hears("holds")
    second = start(
        """
        items = queue.Queue(name="q")
        say("ready")
        say(items.get())
    """,
        script="second",
        DTHREADING_NAMESPACE="ours",
    )
    second.hears("ready")
    first.kill()
    third = start("queue.Queue(name='q').put('item')", script="third", DTHREADING_NAMESPACE="ours")
    third.ends()
    second.ends(says=("item",))


def test_a_killed_group_is_started_again_with_all_that_it_knew(home: Path, start: Programs) -> None:
    named = {"DTHREADING_NAMESPACE": "ours"}
    holder = start(
        """
        lock, items = threading.Lock(name="x"), queue.Queue(name="q")
        lock.acquire()
        fence = lock.fence
        items.put("kept")
        say("holds")
        told()
        assert lock.fence == fence
        lock.release()
    """,
        script="holder",
        **named,
    )
    holder.hears("holds")
    waiter = start("say('waits'); say(threading.Lock(name='x').acquire())", script="waiter", **named)
    waiter.hears("waits")
    for _ in range(2):
        killed = replicas(home)  # several, while those that lost the race for the directory are about to end
        for pid in killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda killed=killed: set(replicas(home)) - set(killed))
    other = start("say(queue.Queue(name='q').get(), threading.Lock(name='x').acquire(False))", script="other", **named)
    other.ends(says=("kept False",))
    holder.tell()
    holder.ends()
    waiter.ends(says=("True",))


def test_it_leaves_when_it_is_idle_and_comes_back_when_it_is_needed(home: Path, start: Programs) -> None:
    """Five seconds after the last session, with nothing out of its initial state; what is kept keeps it."""
    start("with threading.Lock(name='x'): say('done')").ends(says=("done",))
    until(lambda: not replicas(home))
    sockets = list(home.rglob("socket"))
    assert not sockets, "whoever looks sees that nobody listens"
    start("queue.Queue(name='q').put('kept')", script="kept").ends()
    start("say(queue.Queue(name='q').get())", script="kept").ends(says=("kept",))


def test_status_and_locks_of_the_local_group(home: Path, start: Programs) -> None:
    holder = start("threading.Lock(name='x').acquire(); say('holds'); told()", script="holder")
    holder.hears("holds")
    status = start.run(["-m", "dthreading.cli", "status", "--json"])
    seen = json.loads("\n".join(_lines(status)))
    (replica,) = seen["replicas"]
    assert replica["role"] == "leader"
    assert replica["sessions"] == 1
    locks = start.run(["-m", "dthreading.cli", "locks"])
    lines = _lines(locks)
    assert "holder.py" in lines[1]
    assert str(holder.pid) in lines[1]


def _lines(program) -> list[str]:
    done = program.process.wait(60)
    assert done == 0, program.complaints()
    return program._rest().splitlines()


def test_nobody_has_started_it_yet(start: Programs) -> None:
    """Looking does not start it, and says what that means."""
    status = start.run(["-m", "dthreading.cli", "status"])
    assert status.process.wait(60) == 1
    assert "did not answer" in status.complaints()
    assert "Traceback" not in status.complaints()


def test_a_path_too_long_for_a_socket(home: Path, start: Programs) -> None:
    deep = home / ("deep" * 12) / ("deeper" * 10)
    deep.mkdir(parents=True)
    programs = [start(COUNT, script="count", XDG_STATE_HOME=str(deep)) for _ in range(2)]
    for program in programs:
        program.ends(says=("done",))
    until(lambda: len(replicas(home)) == 1)


@pytest.mark.parametrize("odd", ["a home with blanks", "hömé", "%s$HOME;'\"", "-n"])
def test_odd_homes(home: Path, start: Programs, odd: str) -> None:
    place = home / odd
    place.mkdir()
    start(COUNT, HOME=str(place)).ends(says=("done",))


@pytest.mark.parametrize("value", ["", "relative/path"])
def test_relative_and_empty_settings(home: Path, start: Programs, value: str) -> None:
    """By the specification of this variable: what is empty counts as not set, what is relative is ignored."""
    start(COUNT, XDG_STATE_HOME=value).ends(says=("done",))
    start(COUNT, script="other", XDG_STATE_HOME=None).ends(says=("done",))
    assert len(replicas(home)) == 1
    assert not (start.folder / "relative").exists()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_read_only_home(home: Path, start: Programs) -> None:
    home.chmod(0o500)
    try:
        start(COUNT).ends(1, complains="cannot be made")
    finally:
        home.chmod(0o700)


def test_a_home_that_is_no_folder(home: Path, start: Programs) -> None:
    """What a home that cannot be written to looks like to root as well."""
    file = home / "file"
    file.write_text("")
    program = start(
        """
        try:
            with threading.Lock(name="x"): pass
        except threading.GroupUnreachable as error:
            say(error)
    """,
        HOME=str(file),
    )
    said = program.hears()
    assert str(file) in said
    assert "XDG_STATE_HOME" in said
    assert "DTHREADING_SERVERS" in said
    program.ends()


def test_a_folder_open_to_others_is_refused(home: Path, start: Programs) -> None:
    start(COUNT).ends(says=("done",))
    for pid in replicas(home):
        os.kill(pid, signal.SIGTERM)
    until(lambda: not replicas(home))
    (folder,) = (home / ".local" / "state" / "dthreading").iterdir()
    folder.chmod(0o755)
    program = start("threading.Lock(name='x').acquire()")
    program.ends(1, complains=f"others may enter the folder {folder} of the embedded group: run chmod 700 on it")


def test_no_shell_variables_and_no_standard_streams(home: Path, start: Programs) -> None:
    """As a cron job or a daemon runs: an empty environment, closed descriptors."""
    script = start.folder / "bare.py"
    script.write_text("import dthreading\nwith dthreading.Lock(name='x'):\n    open('ran', 'w').close()\n")
    command = f"exec '{sys.executable}' '{script}' <&- >&- 2>&-"
    bare = {"HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["/bin/sh", "-c", command], cwd=start.folder, env=bare, timeout=60, check=False)
    assert done.returncode == 0
    assert (start.folder / "ran").exists()
    assert len(replicas(home)) == 1


def test_a_damaged_directory_is_told_to_the_program(home: Path, start: Programs) -> None:
    start(COUNT).ends(says=("done",))
    for pid in replicas(home):
        os.kill(pid, signal.SIGTERM)
    until(lambda: not replicas(home))
    (folder,) = (home / ".local" / "state" / "dthreading").iterdir()
    for path in folder.rglob("log-*"):
        path.write_bytes(b"\xff" * 4096 + path.read_bytes()[4096:])
    program = start("threading.Lock(name='x').acquire()", DTHREADING_LEASE="5")
    program.ends(1, complains=f"Removing {folder} starts an empty group.")


def test_a_replica_that_cannot_even_start_is_told_to_the_program(home: Path, start: Programs, tmp_path: Path) -> None:
    """Half an installation: what its traceback ends with, and where the rest of it is."""
    broken = tmp_path / "broken"
    shutil.copytree(ROOT / "dthreading", broken / "dthreading")
    (broken / "replicas").mkdir()
    (broken / "replicas" / "__init__.py").write_text("import something_that_is_missing\n")
    program = start("threading.Lock(name='x').acquire()", PYTHONPATH=str(broken), DTHREADING_LEASE="20")
    program.ends(1, complains="No module named 'something_that_is_missing'")
    assert str(home / ".local" / "state" / "dthreading") in program.complaints()


TELL_WHY = """
    try:
        with threading.Lock(name="x"): pass
    except threading.GroupUnreachable as error:
        say(error)
"""


def test_a_full_disk_is_told_to_the_program(home: Path, start: Programs) -> None:
    """Though the log cannot take a word of it."""
    limit = "    import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"
    program = start(limit + TELL_WHY, DTHREADING_LEASE="5")
    said = program.hears()
    assert "did not start" in said
    assert "File too large" in said
    program.ends()


def test_an_interpreter_that_was_removed_is_told_to_the_program(home: Path, start: Programs) -> None:
    """The program's own: its environment was made anew, say."""
    program = start("    sys.executable = '/nowhere/bin/python'" + TELL_WHY, DTHREADING_LEASE="5")
    said = program.hears()
    assert "did not start" in said
    assert "/nowhere/bin/python" in said
    program.ends()
