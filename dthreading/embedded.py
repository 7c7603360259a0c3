# SPDX-License-Identifier: Apache-2.0
"""The embedded local group: where it lives, and how the first process that needs it starts it.

It is one durable replica for this user on this machine, started as

    python -m replicas.cli --embedded DIRECTORY [--listen unix:SOCKET]

but so that it finds both packages and msgpack where this program did, and nothing else of the program's. DIRECTORY is
$XDG_STATE_HOME/dthreading/<machine id> (~/.local/state/dthreading/<machine id>): the machine's id is in it because
homes are shared between machines. The replica takes the lock on DIRECTORY, which is the only election, listens on
DIRECTORY/socket (`--listen` is given only where that path is too long for a socket), and prints a line when it does.
When nobody needs it any more it stops listening, then unlocks. Whoever finds no listener starts one and dials again; a
start that finds the lock taken ends at once, and its parent goes on dialing.

The place follows from the directory alone, never from XDG_RUNTIME_DIR: two processes of one user may differ in that
variable (a desktop and a cron job), would share the lock, and one of them would look for the socket in the wrong place.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgpack

from dthreading.errors import GroupUnreachable

__all__ = ["RETRY_S", "Starter", "directory", "guard", "server_name"]

RETRY_S: Final = 0.02
"""Between two dials while the group starts: a try costs 20 us."""

START_AGAIN_S: Final = 3.0
"""A start that has come to nothing for so long is tried again: the one that held the lock may have been leaving."""

SOCKET_PATH_BYTES_MAX: Final = 100
"""The system's limit is 108 on Linux and 104 on macOS, with the final zero."""

LOG_BYTES_MAX: Final = 1024 * 1024
"""The log of the embedded replica is begun anew beyond this."""

SOCKET_NAME: Final = "socket"
LOG_NAME: Final = "log"


def directory() -> Path:
    """Where the group of this user on this machine keeps its data.

    Raises:
        GroupUnreachable: this user has no home.

    """
    base = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():  # counts as not set, by the specification of that variable
        try:
            base = (Path.home() / ".local" / "state").absolute()
        except RuntimeError:  # a number that no file names, as in a container
            raise GroupUnreachable(
                "the embedded group needs a place, and this user has no home: set HOME or XDG_STATE_HOME, or name"
                " servers in DTHREADING_SERVERS"
            ) from None
    return base / "dthreading" / _machine()


def server_name() -> str:
    """The group's address."""
    return f"unix:{_socket(directory())}"


MACHINE_ID: Final = re.compile("[0-9a-fA-F]{32}")
"""The file of an image that was not booted yet has a word instead, the same on all machines."""


def _machine() -> str:
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with contextlib.suppress(OSError):
            text = Path(path).read_text(encoding="ascii", errors="replace").strip()
            if MACHINE_ID.fullmatch(text):
                return text
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:32]


def _socket(data: Path) -> Path:
    path = data / SOCKET_NAME
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        return path
    short = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    return Path(f"/tmp/dthreading-{os.getuid()}") / short  # noqa: S108 - the folder is checked before it is used


def private_folder(path: Path) -> None:
    """Makes the folder, or makes sure that it is ours alone.

    Raises:
        GroupUnreachable: it is not, or it can't be made.

    """
    try:
        for folder in (*reversed(path.parents), path):
            if not folder.exists():
                folder.mkdir(mode=0o700, exist_ok=True)  # `parents` would leave it to the umask who may write there
        status = path.lstat()
    except OSError as error:
        raise GroupUnreachable(
            f"the embedded group needs the folder {path}, which cannot be made ({error.strerror}): set XDG_STATE_HOME,"
            " or name servers in DTHREADING_SERVERS"
        ) from None
    _refuse_others(path, status)


def guard(server: str) -> None:
    """Makes sure that nobody else can listen there. Asked before each dial, since whoever answers is obeyed: items are
    unpickled. A folder that is missing is no danger.

    Raises:
        GroupUnreachable: its folder is not ours alone.

    """
    folder = Path(server.removeprefix("unix:")).parent
    try:
        status = folder.lstat()
    except OSError:
        return
    _refuse_others(folder, status)


def _refuse_others(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise GroupUnreachable(f"the folder {path} of the embedded group is not a folder of this user")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise GroupUnreachable(f"others may enter the folder {path} of the embedded group: run chmod 700 on it")


class Starter:
    """Starts the group when it is not there. `ensure` may be called with every failed dial."""

    def __init__(self) -> None:
        self._started_at: float | None = None
        self._output: int | None = None
        """The read end of the replica's standard output: it ends when the replica does."""
        self._said = b""
        """What came from there: that it is ready, or why it ends, also where its log cannot take that."""
        self.hint = ""
        """What the last start found that is well as a rule: for those who wait in vain. Empty, or ends a sentence."""

    def ensure(self, now: float) -> None:
        """Starts the group, unless it is on its way.

        Raises:
            GroupUnreachable: it cannot be started; the sentence says why.

        """
        if self._started_at is None or now - self._started_at > START_AGAIN_S:
            self.found()
            self._started_at = now
            self._said = b""
            self._output = start(directory())
        else:
            self._check()

    def found(self) -> None:
        """The group is there."""
        self._started_at = None
        if self._output is not None:
            os.close(self._output)
            self._output = None

    def _check(self) -> None:
        """Whether the replica has refused to start. One that found the lock taken ends silently, and that is well."""
        if self._output is None:
            return
        try:
            came = os.read(self._output, 4096)
        except BlockingIOError:
            return
        if came:
            self._said += came
            return
        os.close(self._output)
        self._output = None
        said = _last_of(self._said)
        if not said.startswith(REFUSAL):
            said = _last_line(directory() / LOG_NAME)
        if said.startswith(REFUSAL) and "another process" in said:
            self.hint = f"; {said.removeprefix(REFUSAL)}"
        elif said.startswith(REFUSAL):
            self._started_at = None
            advice = f" Removing {directory()} starts an empty group." if "damaged" in said else ""
            raise GroupUnreachable(f"the embedded group did not start: {said.removeprefix(REFUSAL)}{advice}")
        if TRACEBACK_END.match(said):
            self._started_at = None
            raise GroupUnreachable(f"the embedded group did not start: {said} (more in {directory() / LOG_NAME})")


REFUSAL: Final = "dthreading-server: "
"""How the sentence begins with which the server refuses to start."""

TRACEBACK_END: Final = re.compile(r"[\w./-]*(Error|Exception)\b|\S*python\S*: |sh: ")
"""The last line of one, or what the interpreter says of a missing module, or the shell of a missing interpreter. (Lines
of the log open with a date.)"""


MAIN: Final = (
    "import sys, site; end = sys.argv.index('--'); sys.path += sys.argv[1:end]; del sys.argv[1 : end + 1]; site.main();"
    " from replicas.cli import main; sys.exit(main())"
)
"""Site-packages come last, as ever. Before the standard library, where PYTHONPATH would put them, a backport that lies
there would be taken for the module that it once stood in for."""


def start(data: Path) -> int:
    """Starts the replica in a session and process group of its own, with none of our files; returns the read end of its
    standard output.

    It is no child of ours: a program that waits for all its children must not wait for it. So a shell starts it, and
    ends.
    """
    if getattr(sys, "frozen", False) or not sys.executable:
        raise GroupUnreachable("a frozen program cannot start the embedded group: name servers in DTHREADING_SERVERS")
    private_folder(data)
    listen = _socket(data)
    command = [sys.executable, "-P", "-S", "-c", MAIN, *_places(), "--", "--embedded", str(data)]
    if listen.parent != data:
        private_folder(listen.parent)
        command += ["--listen", f"unix:{listen}"]
    log = data / LOG_NAME
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_BYTES_MAX:
            log.unlink()
    reading, writing = os.pipe()
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            shell = subprocess.run(  # noqa: S603 - our own interpreter and module
                ["/bin/sh", "-c", '"$@" </dev/null &', "sh", *command],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=descriptor,
                cwd="/",
                env=_environment(),
                start_new_session=True,
                close_fds=True,
            )
        finally:
            os.close(descriptor)
        if shell.returncode > 0:  # one that was killed says nothing against another try, which comes by itself
            shell.check_returncode()
    except (OSError, subprocess.SubprocessError) as error:
        os.close(reading)
        raise GroupUnreachable(f"the embedded group could not be started: {error}") from None
    finally:
        os.close(writing)
    os.set_blocking(reading, False)
    return reading


def _places() -> list[str]:
    """The folders of both packages and of msgpack, wherever this program has them from."""
    return list(dict.fromkeys(str(Path(file).resolve().parent.parent) for file in (__file__, msgpack.__file__)))


def _environment() -> dict[str, str]:
    """Ours, without what would change the replica, and without the supervisor, whom it would tell that we are ready."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DTHREADING_")}
    for name in ("PYTHONOPTIMIZE", "PYTHONPATH", "NOTIFY_SOCKET"):
        environment.pop(name, None)
    return environment


def _last_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            return _last_of(file.read())
    except OSError:
        return ""


def _last_of(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
