# SPDX-License-Identifier: Apache-2.0
"""Client programs as real processes: started, spoken to by lines, signalled, killed, and what they said checked.

A program is a text as a user would write it, run from a file of its own. It says lines on standard output and is told
lines on standard input, so that a test waits for what has happened and never for time to pass.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from tests.server.cluster import Cluster, Node

PATIENCE_S = 30.0
"""For whatever must come at all; twenty times what it takes on an idle machine."""

PRELUDE = """\
import os, signal, sys, time
import dthreading as threading
import dthreading.queue as queue

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # in one piece, whatever else is written

def told():
    line = sys.stdin.readline()
    assert line, "nobody is left to tell us"
    return line.strip()
"""


def until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Ask again and again until it is so."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not so after {timeout_s} s"
        time.sleep(0.01)


class Program:
    """One client process.

    Args:
        arguments: the interpreter's, e.g. the path of a script.
        environment: all of it.
        folder: where it runs, and where its standard error goes.

    """

    def __init__(self, arguments: list[str], environment: Mapping[str, str], folder: Path, label: str) -> None:
        self.errors = folder / f"{label}.stderr"
        with self.errors.open("a") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        self._buffer = b""
        os.set_blocking(self.process.stdout.fileno(), False)
        self.pid = self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def hears(self, *expected: str) -> str:
        """The next line it says, which must be the expected one; or each of them in turn."""
        for line in expected or (None,):
            said = self._line()
            assert line is None or said == line, f"said {said!r}, not {line!r}\n{self.complaints()}"
        return said

    def tell(self, line: str = "go") -> None:
        """A line on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def stop(self) -> None:
        """SIGSTOP, and wait until the system says that it stands still."""
        self.process.send_signal(signal.SIGSTOP)
        until(lambda: state_of(self.pid) == "T")

    def go_on(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def ends(self, status: int = 0, *, says: tuple[str, ...] = (), complains: str | None = "") -> None:
        """It ends by itself: with this status, after these lines, and with this in its complaints (None: whatever)."""
        for line in says:
            self.hears(line)
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end\n{self.complaints()}") from None
        complaints = self.complaints()
        assert code == status, f"ended with {code}\n{complaints}"
        rest = self._rest()
        assert not rest, f"said {rest!r} in the end"
        if complains is not None:
            assert (complains in complaints) if complains else not complaints, complaints

    def complaints(self) -> str:
        """What it has written to standard error."""
        return self.errors.read_text(errors="replace")

    def close(self) -> None:
        """Nothing of it, nor of the children in its process group, is left."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):  # what was told to a process that was killed before it read it
                stream.close()

    def _line(self) -> str:
        assert self.process.stdout is not None
        deadline = time.monotonic() + PATIENCE_S
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                assert ready, f"it says nothing\n{self.complaints()}"
                read = os.read(self.process.stdout.fileno(), 65536)
                assert read, f"it ended, having said {self._buffer!r}\n{self.complaints()}"
                self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def _rest(self) -> str:
        assert self.process.stdout is not None
        return (self._buffer + (self.process.stdout.read() or b"")).decode()


class Programs:
    """Starts programs of one test against one group, in one namespace, and clears them away.

    Args:
        environment: where the group is.
        folder: where the scripts are written; they may write beside themselves.

    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.environment = dict(environment)
        self.folder = folder
        self._started: list[Program] = []

    def __call__(
        self, lines: str, *arguments: str, options: tuple[str, ...] = (), script: str = "program", **environment: Any
    ) -> Program:
        """Start a script of these lines, after the usual imports.

        Args:
            lines: the program.
            arguments: its `sys.argv[1:]`.
            options: the interpreter's.
            script: its name; two programs that share unnamed objects need the same.
            environment: more of it, e.g. DTHREADING_LEASE=1; None takes a variable away.

        """
        path = self.folder / f"{script}.py"
        written = path.with_suffix(".new")
        written.write_text(PRELUDE + textwrap.dedent(lines))
        written.rename(path)  # in one step: another program of that name may be reading its text right now
        return self.run([*options, str(path), *arguments], script, **environment)

    def run(self, arguments: list[str], label: str = "program", **environment: Any) -> Program:
        """Start the interpreter with these arguments."""
        merged = {**self.environment, **environment}
        given = {name: str(value) for name, value in merged.items() if value is not None}
        program = Program(arguments, given, self.folder, f"{len(self._started)}-{label}")
        self._started.append(program)
        return program

    def close(self) -> None:
        """Kill what still runs."""
        for program in self._started:
            program.close()


class Group:
    """A group of replicas as the tests of one namespace see it."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def environment(self, *nodes: Node, **more: str) -> dict[str, str]:
        """That of a client; with `nodes`, of one that knows these alone."""
        given = self.cluster.client_environment(DTHREADING_NAMESPACE=self.namespace, **more)
        if nodes:
            given["DTHREADING_SERVERS"] = ",".join(node.address for node in nodes)
        return given

    def rows(self, name: str = "") -> list[dict[str, Any]]:
        """What the leader shows of this namespace's objects, as `dthreading locks --json` does."""
        rows = self.cluster.leader().ask("locks", name)
        return [row for row in rows if row["namespace"] == self.namespace]

    def row(self, name: str) -> dict[str, Any]:
        """The one object of that name; {} where there is none."""
        rows = [row for row in self.rows(name) if row["name"] == name]
        assert len(rows) <= 1, rows
        return rows[0] if rows else {}

    def until(self, condition: Callable[[], object]) -> None:
        """Ask again and again until it is so."""
        self.cluster.until(condition)

    def until_waiting(self, name: str, count: int) -> None:
        """So many wait for the object."""
        self.until(lambda: self.row(name).get("waiting") == count)

    def until_free(self, name: str) -> None:
        """Nobody holds it."""
        self.until(lambda: not self.row(name).get("holders"))

    def followers(self) -> list[Node]:
        """Those that run and do not lead."""
        leader = self.cluster.leader()
        return [node for node in self.cluster.nodes if node.running and node is not leader]


def state_of(pid: int) -> str:
    """The letter that the system shows of a process: R, S, T, Z; "" when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]


def processes_with(*words: str) -> list[int]:
    """Those whose command line contains all of these."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # not a process, or one that has just ended
            continue
        if entry.name.isdigit() and all(word in line for word in words):
            found.append(int(entry.name))
    return found
