# SPDX-License-Identifier: Apache-2.0
"""A process whose bytecodes are counted, function by function: a replica or a client; and how to ask it for the counts.

As a replica (`Node.program = "benchmarks.counted"`) it writes its counts, on SIGUSR1, to the Unix socket that the
environment names. As a client (`python -m benchmarks.counted --client`) it is a worker with one more word.

All threads are counted, and neither the counting itself nor what the benchmark runs. Counting is slow, some thirty
times; and what the interpreter would run as one specialised instruction, it runs and counts as the ones in the source.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from types import CodeType, FrameType
from typing import Any, Self

from benchmarks.worker import Client, Worker, obey
from tests.server.cluster import ROOT, Cluster, Node

PROGRAM = "benchmarks.counted"
SOCKET_VARIABLE = "BENCHMARK_COUNTS_TO"
ANSWER_S = 60.0
Gate = SimpleQueue[None]
"""What threads wait at without running a bytecode."""
OWN = str(Path(__file__).parent)


@dataclass(slots=True)
class Counts:
    """Bytecodes run, and calls of Python functions (a resumed generator is called again), by `file:function`."""

    steps: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)

    def since(self, before: Counts) -> Counts:
        return Counts(self.steps - before.steps, self.calls - before.calls)

    def files(self) -> Counter[str]:
        """Bytecodes by file."""
        found: Counter[str] = Counter()
        for name, steps in self.steps.items():
            found[name.rpartition(":")[0]] += steps
        return found

    def to_json(self) -> str:
        return json.dumps([self.steps, self.calls])

    @classmethod
    def from_json(cls, text: str) -> Counts:
        steps, calls = json.loads(text)
        return cls(Counter(steps), Counter(calls))


# --- in the process that is counted


class Cell:
    """What was run of one function. Threads share it: a thread is switched where a call begins or ends and where a loop
    goes round, never in the middle of `+=`.
    """

    __slots__ = ("calls", "code", "step", "steps")

    def __init__(self, code: CodeType) -> None:
        self.code = code
        self.calls = self.steps = 0

        def step(_frame: FrameType, event: str, _argument: Any) -> Any:
            if event == "opcode":
                self.steps += 1
            return step

        self.step = step


_cells: dict[int, Cell] = {}
"""By the id of the code, which the cell keeps alive: a code object's hash is made of all that is in it, each time."""

_paused = False


def watch() -> None:
    """Count what this thread runs from its next call on, and all that threads run which are started from here on.

    Once in a process and for good: to set a tracer while another thread is traced kills early versions of 3.12.
    """
    if sys.version_info >= (3, 12):
        _monitor()
    else:
        threading.settrace(_called)
        sys.settrace(_called)


def _called(frame: FrameType, _event: str, _argument: Any) -> Any:
    code = frame.f_code
    if _paused or code.co_filename.startswith(OWN):
        return None
    cell = _cells.get(id(code)) or _cells.setdefault(id(code), Cell(code))
    frame.f_trace_opcodes = True
    frame.f_trace_lines = False
    cell.calls += 1
    return cell.step


def _monitor() -> None:
    monitoring: Any = getattr(sys, "monitoring")  # noqa: B009 - the oldest version that we support has none
    events = monitoring.events

    def instruction(code: CodeType, _offset: int) -> Any:
        if code.co_filename.startswith(OWN):
            return monitoring.DISABLE
        if not _paused:
            cell = _cells.get(id(code)) or _cells.setdefault(id(code), Cell(code))
            cell.steps += 1
        return None

    def start(code: CodeType, _offset: int) -> None:
        if not _paused and not code.co_filename.startswith(OWN):
            cell = _cells.get(id(code)) or _cells.setdefault(id(code), Cell(code))
            cell.calls += 1

    monitoring.use_tool_id(monitoring.PROFILER_ID, PROGRAM)
    monitoring.register_callback(monitoring.PROFILER_ID, events.INSTRUCTION, instruction)
    for event in (events.PY_START, events.PY_RESUME):
        monitoring.register_callback(monitoring.PROFILER_ID, event, start)
    monitoring.set_events(monitoring.PROFILER_ID, events.INSTRUCTION | events.PY_START | events.PY_RESUME)


@contextlib.contextmanager
def _unwatched() -> Iterator[None]:
    global _paused  # noqa: PLW0603
    _paused = True
    try:
        yield
    finally:
        _paused = False


def counts_so_far() -> Counts:
    """Of all threads."""
    found = Counts()
    for cell in list(_cells.values()):
        name = f"{_label(cell.code.co_filename)}:{cell.code.co_qualname}"
        found.steps[name] += cell.steps
        found.calls[name] += cell.calls
    return found


@cache
def _label(file: str) -> str:
    """A file's name as a reader knows it, wherever the tree and the standard library lie."""
    path = Path(file)
    if path.is_relative_to(ROOT) and ".venv" not in file:
        return path.relative_to(ROOT).as_posix()
    return "/".join(path.parts[-2:]) if path.is_absolute() else file


def _send_counts(*_: object) -> None:
    with _unwatched(), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[SOCKET_VARIABLE])
        connection.sendall(counts_so_far().to_json().encode())


class CountedClient(Client):
    """A client that says what its calls made it run."""

    def __init__(self) -> None:
        super().__init__()
        watch()  # and so its service thread, which is not there yet

    def counted(self, threads: int, pairs: int) -> str:
        """So many pairs in each of so many threads, the lock of thread i being the i-th; without threads, in this one.

        Returns:
            What was run for them, the service thread's part included.

        """
        begin, end, ready = (Gate() for _ in range(3))
        crew = [threading.Thread(target=self._crew, args=(i, pairs, begin, end, ready)) for i in range(threads)]
        for thread in crew:
            thread.start()
        for _ in crew:
            ready.get()
        with _unwatched():
            before = counts_so_far()
        for _ in crew:
            begin.put(None)
        for _ in crew:
            ready.get()
        if not crew:
            self._pairs(0, pairs)
        with _unwatched():
            found = counts_so_far().since(before).to_json()
        for _ in crew:
            end.put(None)
        for thread in crew:
            thread.join()
        return found

    def _crew(self, number: int, pairs: int, begin: Gate, end: Gate, ready: Gate) -> None:
        ready.put(None)
        begin.get()
        self._pairs(number, pairs)
        ready.put(None)
        end.get()  # the end of a thread is no part of a call, nor is its start

    def _pairs(self, number: int, pairs: int) -> None:
        lock = self._locks[number]
        for _ in range(pairs):
            lock.acquire()
            lock.release()


# --- in the benchmark


class CountedWorker(Worker):
    """The handle of a counted client."""

    command = (PROGRAM, "--client")

    def counted(self, threads: int, pairs: int) -> Counts:
        return Counts.from_json(self.ask("counted", threads, pairs))


class Counters:
    """Makes the replicas of a cluster counted ones, before they are started, and asks them for their counts."""

    def __init__(self, cluster: Cluster) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._directory = tempfile.TemporaryDirectory(prefix="dthreading-bench-")
        path = str(Path(self._directory.name) / "counts")
        self._socket.bind(path)
        self._socket.listen()
        self._socket.settimeout(ANSWER_S)
        cluster.environment[SOCKET_VARIABLE] = path
        for node in cluster.nodes:
            node.program = PROGRAM

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._directory.cleanup()

    def of(self, node: Node) -> Counts:
        """What it has run since its start."""
        node.signal(signal.SIGUSR1)
        connection, _ = self._socket.accept()
        with connection, connection.makefile() as file:
            connection.settimeout(ANSWER_S)
            return Counts.from_json(file.read())


def _replica() -> int:
    from replicas import cli  # noqa: PLC0415
    from replicas.daemon import options, running  # noqa: F401, PLC0415 - what is imported before is not counted

    signal.signal(signal.SIGUSR1, _send_counts)
    watch()
    return cli.main()


if __name__ == "__main__":
    if sys.argv[1:] == ["--client"]:
        obey(CountedClient())
    else:
        sys.exit(_replica())
