# SPDX-License-Identifier: Apache-2.0
"""What the machine around a replica may do to it: files in its way, descriptors that are not there, readers that do not
read. A replica that is told no by its surroundings says so, and neither harms what is not its own nor stops serving.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dthreading.wire.messages import Role
from replicas.daemon.journal import _Writer
from tests.server.cluster import ROOT, Cluster
from tests.server.raw import Raw, secret_in

TIMEOUT_S = 30


def serve(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the server until it ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "replicas.cli", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


# --- files in its way


def test_a_file_in_the_place_of_the_socket_stays(tmp_path: Path) -> None:
    """It is refused; the end of a start that was refused must not clear away what it refused to touch."""
    tmp_path.chmod(0o700)
    precious = tmp_path / "precious"
    precious.write_text("a thesis")
    result = serve("--memory", "--listen", f"unix:{precious}")
    assert result.returncode == 2
    assert "there is something there that is not a socket" in result.stderr
    assert precious.read_text() == "a thesis"


def test_the_socket_of_a_living_replica_stays(tmp_path: Path) -> None:
    """Somebody starts a second replica at the address of the first: the first can be reached as before."""
    tmp_path.chmod(0o700)
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        result = serve("--memory", "--listen", f"unix:{path}")
        assert result.returncode == 2
        assert "another process listens there already" in result.stderr
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_replica_whose_directory_was_moved_away_says_how_it_is() -> None:
    """It goes on, since its files are open; whoever asks it for its status is not left without an answer."""
    with Cluster(1) as cluster:
        (node,) = cluster.nodes
        cluster.leader()
        node.data.rename(cluster.directory / "moved")
        status = node.ask("status")
        assert status["role"] == "leader"
        assert status["disk_bytes"] == 0


NOBODY = 65534
AS_NOBODY = f"""
import concurrent.futures.thread, encodings.idna, os, sys
from replicas import cli
from replicas.daemon import distribution, offline, options, running
distribution.version(), distribution.foreign_package()  # imports that nobody might not be allowed
if os.geteuid() == 0:
    os.setgid({NOBODY})
    os.setuid({NOBODY})
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "options",
    [
        "--check {closed}/data",
        "--check {closed}",
        "--recover-unsafe {closed}/data --data-dir {open}/new",
        "--recover-unsafe {open} --data-dir {closed}/new",
        "--join 127.0.0.1:1 --memory --listen 127.0.0.1:0 --secret-file {closed}/secret",
    ],
)
def test_a_place_that_its_user_may_not_enter_is_named(options: str) -> None:
    """As happens to whoever forgets that the directory is the service's, and not his."""
    with tempfile.TemporaryDirectory() as base:
        place = {"closed": Path(base) / "closed", "open": Path(base) / "open"}
        for path in place.values():
            path.mkdir()
        for path in (Path(base), place["open"]):
            path.chmod(0o755)
        place["closed"].chmod(0)
        result = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, *options.format(**place).split()],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        place["closed"].chmod(0o700)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("dthreading-server: ")
    assert str(place["closed"]) in line
    assert "Permission denied" in line


def test_a_directory_whose_name_is_no_text_is_as_good_as_another(tmp_path: Path) -> None:
    """Names of files are bytes. Who asked for the status of a replica in such a directory ended it."""
    data = Path(os.fsdecode(os.fsencode(tmp_path / "data") + b"\xff"))
    with started(tmp_path, subprocess.DEVNULL, "--data-dir", str(data)) as (process, address):
        with Raw(address, secret_in(tmp_path / "secret"), Role.ADMIN) as operator:
            assert operator.ask("status")["directory"] == f"{tmp_path / 'data'}\\xff"
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0


# --- readers that do not read, and descriptors that are not there


@pytest.fixture
def stuck() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe that is full, since nobody reads it."""
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)  # as a supervisor's pipe is
    yield reading, writing
    os.close(reading)
    os.close(writing)


def drained(reading: int) -> str:
    """All that is in the pipe now, without what filled it."""
    parts = []
    with contextlib.suppress(BlockingIOError):
        while part := os.read(reading, 65536):
            parts.append(part)
    return b"".join(parts).replace(b"\0", b"").decode()


@contextlib.contextmanager
def started(folder: Path, stderr: int, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A replica whose log goes there, and its address, once it is ready. It does not outlive the test."""
    words = [sys.executable, "-m", "replicas.cli", "--listen", "127.0.0.1:0"]
    words += ["--secret-file", str(folder / "secret"), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
    ) as process:
        try:
            assert process.stdout is not None
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                assert selector.select(TIMEOUT_S), "it waits for the reader of its log"
            address = re.search(r" at (\S+), ", process.stdout.readline())
            assert address is not None
            yield process, address[1]
        finally:
            process.kill()


@pytest.mark.parametrize("as_json", [False, True])
def test_a_reader_of_the_log_that_stands_still_stops_nobody(
    stuck: tuple[int, int], tmp_path: Path, as_json: bool
) -> None:
    """A supervisor that hangs, a pager that was left open, a terminal that was stopped: the replica serves on. Once its
    log is read again it says how much is missing.
    """
    reading, writing = stuck
    with started(tmp_path, writing, "--memory", *(["--log-json"] if as_json else [])) as (process, address):
        with Raw(address, secret_in(tmp_path / "secret"), Role.ADMIN) as operator:
            assert operator.ask("status")["replica"] == 1
        assert drained(reading) == ""
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
    first, *rest = drained(reading).splitlines()
    assert re.search(r"\b[1-9]\d* lines were left out, since nobody read what stood here", first)
    assert "stopping: handing over" in rest[0]
    if as_json:
        assert json.loads(first)["level"] == "warning"


def test_a_line_that_was_cut_off_stands_alone() -> None:
    """What a full pipe took of it is not taken for the beginning of the next one."""
    reading, writing = os.pipe()
    try:
        room = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        writer = _Writer(writing, "utf-8")
        assert not writer.write("x" * room + "y\n")
        assert os.read(reading, 2 * room) == b"x" * room
        assert writer.write("whole\n")
        assert os.read(reading, room) == b"\nwhole\n"
        assert writer.write("and another\n")
        assert os.read(reading, room) == b"and another\n"
    finally:
        os.close(reading)
        os.close(writing)


def test_a_refusal_waits_for_no_reader(stuck: tuple[int, int]) -> None:
    words = [sys.executable, "-m", "replicas.cli", "--listen", "0.0.0.0:0"]
    with subprocess.Popen(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=stuck[1]) as process:
        try:
            assert process.wait(TIMEOUT_S / 4) == 2
        finally:
            process.kill()


def test_a_process_that_is_started_without_descriptors_gives_their_numbers_to_no_file(tmp_path: Path) -> None:
    """The interpreter and the C library write what they have to complain of to descriptor 2, whatever that is."""
    shell = 'exec 0<&- 1<&- 2<&-; exec "$0" -m replicas.cli --listen "unix:$1" --data-dir "$2"'
    tmp_path.chmod(0o700)
    address = tmp_path / "socket"
    words = ["/bin/sh", "-c", shell, sys.executable, str(address), str(tmp_path / "data")]
    with subprocess.Popen(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while not address.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            with Raw(f"unix:{address}", None, Role.ADMIN) as operator:
                assert operator.ask("status")["replica"] == 1
            for number in range(3):
                assert Path(f"/proc/{process.pid}/fd/{number}").readlink() == Path(os.devnull)
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT_S) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("place", "options", "code"), [("running._open_storage", "--memory", 0), ("offline._open", "--check .", 130)]
)
def test_an_interrupt_is_no_accident_whenever_it_comes(place: str, options: str, code: int) -> None:
    """To read a large directory takes long enough for somebody to think better of it."""
    program = (
        "import signal, sys; from replicas import cli; from replicas.daemon import offline, running;"
        f"{place} = lambda *_: signal.raise_signal(signal.SIGINT);"
        f"sys.exit(cli.main({options.split()}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert (result.returncode, result.stderr) == (code, "dthreading-server: interrupted\n")


def test_an_interrupted_question_is_no_accident() -> None:
    program = (
        "import signal, sys; from dthreading import cli;"
        "cli._ask_all = lambda *_: signal.raise_signal(signal.SIGINT); sys.exit(cli.main(['status']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert (result.returncode, result.stderr) == (130, "dthreading: interrupted\n")


# --- answers that nobody can be given


@pytest.fixture(scope="module")
def group() -> Iterator[Cluster]:
    with Cluster(1) as cluster:
        cluster.leader()
        yield cluster


def asked(cluster: Cluster, *command: str, output: str) -> subprocess.CompletedProcess[str]:
    """What a shell makes of `dthreading ... > output`."""
    words = [sys.executable, "-m", "dthreading.cli", *command]
    with Path(output).open("w") as file:
        return subprocess.run(
            words,
            cwd=ROOT,
            env=cluster.client_environment(),
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )


@pytest.mark.parametrize(
    ("command", "unbuffered"),
    [("status", ""), ("status", "1"), ("locks --json", ""), ("members list", ""), ("members transfer-leader 1", "")],
)
def test_an_answer_that_cannot_be_written_is_one_sentence(group: Cluster, command: str, unbuffered: str) -> None:
    group.environment["PYTHONUNBUFFERED"] = unbuffered
    result = asked(group, *command.split(), output="/dev/full")
    assert result.stderr == "dthreading: the answer cannot be written: No space left on device\n"
    assert result.returncode == 1


def test_without_a_standard_output_nothing_is_written_and_nothing_breaks(group: Cluster) -> None:
    words = ["/bin/sh", "-c", 'exec "$0" -m dthreading.cli status >&-', sys.executable]
    result = subprocess.run(
        words,
        cwd=ROOT,
        env=group.client_environment(),
        stderr=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_an_examination_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with Cluster(1, directory=tmp_path / "group") as cluster:
        (node,) = cluster.nodes
        cluster.leader()
        node.kill()
        words = [sys.executable, "-m", "replicas.cli", "--check", str(node.data)]
        environment = {**cluster.environment, "PYTHONUNBUFFERED": ""}
        for output, why in (("/dev/full", "No space left on device"), ("", "Broken pipe")):
            reading, writing = os.pipe()
            os.close(reading)
            with Path(output).open("w") if output else os.fdopen(writing, "w") as file:
                result = subprocess.run(
                    words, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.PIPE, text=True, check=False
                )
            assert result.stderr == f"dthreading-server: what was found cannot be written: {why}\n"
            assert result.returncode == 1
            with contextlib.suppress(OSError):
                os.close(writing)


def test_a_question_that_nobody_can_answer_is_answered_with_no(tmp_path: Path) -> None:
    """A survivor is to be recovered from a script without a standard input."""
    with Cluster(1, directory=tmp_path / "group") as cluster:
        (node,) = cluster.nodes
        cluster.leader()
        node.kill()
        shell = 'exec "$0" -m replicas.cli --recover-unsafe "$1" --data-dir "$2" <&-'
        words = ["/bin/sh", "-c", shell, sys.executable, str(node.data), str(tmp_path / "new")]
        result = subprocess.run(
            words, cwd=ROOT, env=cluster.environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    assert (result.returncode, result.stderr) == (2, "dthreading-server: nothing was done\n")
    assert not (tmp_path / "new").exists()


def test_a_directory_that_is_only_looked_at_stays_as_it_is(tmp_path: Path) -> None:
    """Not even a lock is left in one where no replica has ever been."""
    for files in ((), ("thesis.tex",)):
        for name in files:
            (tmp_path / name).write_text("precious")
        for options in (("--check", str(tmp_path)), ("--recover-unsafe", str(tmp_path), "--data-dir", "/new", "--yes")):
            result = serve(*options)
            assert result.returncode == 2
            assert result.stdout == ""
            assert f"{tmp_path} is no replica's data directory" in result.stderr
            assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)


@pytest.mark.parametrize("option", ["check", "data-dir", "secret-file", "recover-unsafe", "config"])
def test_a_path_that_is_empty_is_refused(option: str, tmp_path: Path) -> None:
    """`--check "$DIRECTORY"` in a script, where the variable is not set, started a replica."""
    more = ["--data-dir", str(tmp_path / "d")] if option not in {"data-dir", "check"} else []
    result = serve(*more, f"--{option}", "", "--listen", f"unix:{tmp_path}/s", folder=tmp_path)
    assert result.returncode == 2
    assert f"--{option} is empty" in result.stderr
