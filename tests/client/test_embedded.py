# SPDX-License-Identifier: Apache-2.0
"""The embedded local group: where it lives, who may enter, and one start by many at once, with the real server."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dthreading import cli, config, embedded
from dthreading.asking import ask_any
from dthreading.dialing import Dialer
from dthreading.errors import GroupUnreachable
from dthreading.finding import Finder
from dthreading.session import READ, ClientSession, PendingCall, Target
from dthreading.wire.messages import Lifetime
from tests.client.calling import until

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory of its own; whatever replica was started in it is gone afterwards."""
    path = tmp_path_factory.mktemp("s")
    monkeypatch.setenv("XDG_STATE_HOME", str(path))
    for name in ("DTHREADING_SERVERS", "DTHREADING_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    yield path
    for pid in replicas_in(path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def replicas_in(path: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"--embedded" in words and any(word.startswith(bytes(path)) for word in words):
                found.append(int(entry.name))
    return found


PROGRAM = """
import os, sys
from dthreading import runtime
from dthreading.session import *
from dthreading.wire.messages import Lifetime
lock = Target("test", "orders", "Lock", (), Lifetime.NAMED)
client = runtime.client()
answer = client.call(lock, "acquire", (True, runtime.thread_token()), ACQUIRE)
print(answer.value, client.cluster, flush=True)
client.call(lock, "release", (answer.value,), RELEASE)
"""


def program(lines: str = PROGRAM) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(lines)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_place_follows_from_the_state_directory_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that differ in XDG_RUNTIME_DIR (a desktop, a cron job) must meet all the same."""
    monkeypatch.setenv("XDG_STATE_HOME", "/home/ada/.state")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    before = embedded.server_name()
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert embedded.server_name() == before
    assert embedded.directory().parent == Path("/home/ada/.state/dthreading")
    assert before.startswith("unix:/home/ada/.state/dthreading/")


def test_a_path_too_long_for_a_socket_gets_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/home/" + "x" * 120)
    name = embedded.server_name()
    assert name.startswith(f"unix:/tmp/dthreading-{os.getuid()}/")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/" + "y" * 120)
    assert embedded.server_name() != name


def test_folders_that_are_made_on_the_way_are_nobody_elses(tmp_path: Path) -> None:
    """Whoever may write to one of them can put his own in place of the last."""
    former = os.umask(0)
    try:
        embedded.private_folder(tmp_path / ".local" / "state" / "dthreading" / "machine")
    finally:
        os.umask(former)
    assert [path.stat().st_mode & 0o777 for path in sorted(tmp_path.rglob("*"))] == [0o700] * 4


@pytest.mark.parametrize(("text", "taken"), [("3d1219c7c4c5404aaa1f6d2a48adfda4", True), ("uninitialized", False)])
def test_what_images_have_in_place_of_a_machine_id_is_none(
    monkeypatch: pytest.MonkeyPatch, text: str, taken: bool
) -> None:
    """systemd's word for an image that was not booted yet: all machines made of it would be one."""
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"{text}\n")
    assert (embedded.directory().name == text) is taken


def test_a_user_without_a_home_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in containers that run under a number which no file names."""
    for name in ("DTHREADING_SERVERS", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(GroupUnreachable, match="XDG_STATE_HOME"):
        embedded.directory()
    assert cli.main(["status"]) == 1
    assert capsys.readouterr().err.startswith("dthreading: the embedded group needs a place")


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    embedded.private_folder(tmp_path / "mine")
    (tmp_path / "mine").chmod(0o755)
    with pytest.raises(GroupUnreachable, match="chmod 700"):
        embedded.private_folder(tmp_path / "mine")
    (tmp_path / "mine").chmod(0o700)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with pytest.raises(GroupUnreachable, match="is not a folder of this user"):
        embedded.private_folder(tmp_path / "link")
    (tmp_path / "file").touch()
    with pytest.raises(GroupUnreachable, match="cannot be made"):
        embedded.private_folder(tmp_path / "file" / "below")


def test_nobody_is_spoken_to_in_a_folder_that_others_may_enter(home: Path) -> None:
    """Whoever may put a socket there could answer in the group's place, with items that unpickling would obey. It is
    looked at before each dial, since a listener that answers is never started.
    """
    data = embedded.directory()
    data.mkdir(parents=True)
    settings = config.current()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(data / "socket"))
        listening.listen()
        listening.setblocking(False)
        data.chmod(0o777)
        with pytest.raises(GroupUnreachable, match="others may enter"):
            Finder(settings, lambda: 0.0, lambda: None).next(0.0)
        with pytest.raises(GroupUnreachable, match="others may enter"):
            ask_any(settings, "locks", ("",))
        with pytest.raises(BlockingIOError):
            listening.accept()
        data.chmod(0o700)
        found = Finder(settings, lambda: 0.0, lambda: None).next(0.0)
    assert found is not None
    assert found[0].address == str(data / "socket")


def test_a_frozen_program_is_told_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(GroupUnreachable, match="frozen"):
        embedded.start(embedded.directory())


@pytest.mark.parametrize(("end", "refused"), [("os.kill(os.getpid(), 9)", False), ("os._exit(127)", True)])
def test_a_shell_that_is_killed_while_it_starts_the_group(
    home: Path, monkeypatch: pytest.MonkeyPatch, end: str, refused: bool
) -> None:
    """Whoever killed it (for want of memory, say) has said nothing against another try; its own failure is told."""
    plainly = subprocess.run

    def run(_: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        return plainly([sys.executable, "-c", f"import os; {end}"], **options)

    monkeypatch.setattr(subprocess, "run", run)
    starter = embedded.Starter()
    with pytest.raises(GroupUnreachable, match="could not be started") if refused else contextlib.nullcontext():
        starter.ensure(0.0)
        starter.ensure(0.1)
        starter.ensure(0.2 + embedded.START_AGAIN_S)
    starter.found()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_many_processes_at_once_start_one_group(home: Path) -> None:
    """The lock on the directory is the election: losers dial again until the winner listens."""
    programs = [program() for _ in range(4)]
    said = []
    for one in programs:
        output, errors = one.communicate(timeout=60)
        assert one.returncode == 0, errors
        said.append(output.split())
    assert len({cluster for _, cluster in said}) == 1
    assert len({fence for fence, _ in said}) == 4, "one lock, granted four times"
    until(lambda: len(replicas_in(home)) == 1)  # those that found the lock taken are on their way out
    [replica] = replicas_in(home)
    fields = Path(f"/proc/{replica}/stat").read_text().rpartition(")")[2].split()
    parent, group, session = int(fields[1]), int(fields[2]), int(fields[3])
    assert parent != os.getpid(), "no child of anybody who waits for his children"
    assert session != os.getsid(0)
    assert group != os.getpgrp(), "Ctrl-C in the terminal is not for it"


def test_the_group_can_be_stopped_whatever_its_starter_blocks(home: Path, tmp_path: Path) -> None:
    """A program that takes its signals by `sigwait` blocks them in all its threads, and hence in what these start. Nor
    does the group speak for it to its supervisor.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.setblocking(False)
        one = program(
            f"""
            import os, signal
            os.environ["NOTIFY_SOCKET"] = {str(tmp_path / "notify")!r}
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            """
            + textwrap.indent(PROGRAM, "            ")
            + """
            from dthreading import queue
            queue.Queue(name="left behind").put("an item")  # else it leaves by itself after some seconds
            """
        )
        _, errors = one.communicate(timeout=60)
        assert one.returncode == 0, errors
        [replica] = replicas_in(home)
        os.kill(replica, signal.SIGTERM)
        until(lambda: not replicas_in(home))
        with pytest.raises(BlockingIOError):
            supervisor.recv(100)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
def test_the_group_has_none_of_its_starters_files(home: Path, tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.touch()
    one = program(
        f"""
        import os
        os.set_inheritable(os.open({str(treasure)!r}, os.O_RDONLY), True)
        """
        + textwrap.indent(PROGRAM, "        ")
    )
    output, errors = one.communicate(timeout=60)
    assert one.returncode == 0, errors
    assert output
    [replica] = replicas_in(home)
    files = []
    for entry in Path(f"/proc/{replica}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            files.append(os.readlink(entry))  # noqa: PTH115
    assert files
    assert str(treasure) not in files


def test_a_killed_group_is_started_again_and_knows_all(home: Path) -> None:
    """It is durable: the client's session and its lock outlive `kill -9` of the replica."""
    one = program("""
        import os
        from dthreading import runtime
        from dthreading.session import *
        from dthreading.wire.messages import Lifetime
        lock = Target("test", "orders", "Lock", (), Lifetime.NAMED)
        client = runtime.client()
        held = client.call(lock, "acquire", (True, 1), ACQUIRE)
        print("held", flush=True)
        os.read(0, 1)
        assert client.call(lock, "locked", (), READ).value is True
        assert client.session == held.session
        assert client.call(lock, "release", (held.value,), RELEASE).value is None
        print("released", flush=True)
    """)
    assert one.stdout is not None
    assert one.stdin is not None
    assert one.stdout.readline() == "held\n"
    [replica] = replicas_in(home)
    os.kill(replica, signal.SIGKILL)
    output, errors = one.communicate("!", timeout=60)
    assert one.returncode == 0, errors
    assert output == "released\n"
    assert replicas_in(home) != [replica]


def test_who_keeps_the_directory_is_told_to_those_who_wait_in_vain(home: Path) -> None:
    """Its socket is not to be found: a home that is mounted on two machines which were made of one image, say."""
    data = embedded.directory() / "replica"
    embedded.private_folder(data.parent)
    embedded.private_folder(data)
    with (data / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("777")
        lock.flush()
        settings = config.current()
        dialer = Dialer(Finder(settings, lambda: 0.0, lambda: None), settings.lease)
        session = ClientSession(namespace="", label="", ttl_ms=1000, news=[])
        session.submit(PendingCall(Target("", "x", "Lock", (), Lifetime.NAMED), "locked", (), READ))

        def told() -> bool:
            dialer.tend(session, time.monotonic())
            return "in use by another process (pid 777)" in str(dialer.trouble)

        until(told)
        dialer._finder.succeeded()
        assert not dialer._finder.hint, "that was yesterday"
        dialer.close()


def test_a_refusal_of_the_server_reaches_the_caller(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starter = embedded.Starter()
    data = embedded.directory()
    embedded.private_folder(data)
    (data / "log").write_text("dthreading-server: the directory was written by a newer version\n")
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    monkeypatch.setattr(embedded, "start", lambda _: reading)
    starter.ensure(0.0)
    starter.ensure(0.1)
    os.close(writing)
    with pytest.raises(GroupUnreachable, match="written by a newer version"):
        starter.ensure(0.2)
    starter.found()
