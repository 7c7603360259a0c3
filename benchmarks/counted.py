# SPDX-License-Identifier: Apache-2.0
"""A process whose bytecodes are counted, function by function: a replica or a client; and how to ask it for the counts.

As a replica (`Node.program = "benchmarks.counted"`) it writes its counts, on SIGUSR1, to the Unix socket that the
environment names. As a client (`python -m benchmarks.counted --client`) it is a worker with one more word.

What is counted is what the interpreter would run if nobody looked: each thread has counters of its own, and neither the
tracer's bytecodes nor those of the benchmark are in them. Only the counting is slow, some thirty times.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Self

from benchmarks.worker import Client, Worker, obey
from tests.server.cluster import ROOT, Cluster, Node

PROGRAM = "benchmarks.counted"
SOCKET_VARIABLE = "BENCHMARK_COUNTS_TO"
ANSWER_S = 60.0
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
    """What one thread has run of one function. Threads share none: `+=` is not atomic between them."""

    __slots__ = ("calls", "code", "step", "steps")

    def __init__(self, code: CodeType) -> None:
        self.code = code
        self.calls = self.steps = 0

        def step(_frame: FrameType, event: str, _argument: Any) -> Any:
            if event == "opcode":
                self.steps += 1
            return step

        self.step = step


_threads: list[dict[int, Cell]] = []


def watch_this_thread() -> None:
    """Count what the calling thread runs from its next call on; until `sys.settrace(None)`."""
    cells: dict[int, Cell] = {}
    _threads.append(cells)

    def call(frame: FrameType, _event: str, _argument: Any) -> Any:
        code = frame.f_code
        cell = cells.get(id(code))  # the hash of a code object is made of all that is in it, each time
        if cell is None:
            if code.co_filename.startswith(OWN):
                return None
            cell = cells[id(code)] = Cell(code)
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        cell.calls += 1
        return cell.step

    sys._getframe().f_trace_opcodes = True  # noqa: SLF001 - CPython 3.12 looks for it only when a tracer is set
    sys.settrace(call)


def watch_new_threads() -> None:
    """Count all that threads run which are started from here on."""

    def first(frame: FrameType, event: Any, argument: Any) -> Any:
        watch_this_thread()
        tracer = sys.gettrace()
        assert tracer is not None
        return tracer(frame, event, argument)

    threading.settrace(first)


def counts_so_far() -> Counts:
    """Of all threads; call it untraced."""
    found = Counts()
    for cells in _threads:
        for cell in list(cells.values()):
            name = f"{_label(cell.code.co_filename)}:{cell.code.co_qualname}"
            found.steps[name] += cell.steps
            found.calls[name] += cell.calls
    return found


def _label(file: str) -> str:
    """A file's name as a reader knows it, wherever the tree and the standard library lie."""
    path = Path(file)
    if path.is_relative_to(ROOT) and ".venv" not in file:
        return path.relative_to(ROOT).as_posix()
    return "/".join(path.parts[-2:]) if path.is_absolute() else file


def _send_counts(*_: object) -> None:
    tracer = sys.gettrace()
    sys.settrace(None)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[SOCKET_VARIABLE])
        connection.sendall(counts_so_far().to_json().encode())
    sys.settrace(tracer)


class CountedClient(Client):
    """A client that says what its calls made it run."""

    def __init__(self) -> None:
        watch_new_threads()  # the service thread is one
        super().__init__()

    def counted(self, threads: int, pairs: int) -> str:
        """So many pairs in each of so many threads, the lock of thread i being the i-th; without threads, in this one.

        Returns:
            What was run for them, the service thread's part included.

        """
        before = counts_so_far()
        if not threads:
            self._counted_pairs(0, pairs)
        else:
            threading.settrace(None)  # to start a thread is no part of a call
            crew = [threading.Thread(target=self._counted_pairs, args=(i, pairs)) for i in range(threads)]
            for thread in crew:
                thread.start()
            for thread in crew:
                thread.join()
        return counts_so_far().since(before).to_json()

    def _counted_pairs(self, number: int, pairs: int) -> None:
        lock = self._locks[number]
        watch_this_thread()
        for _ in range(pairs):
            lock.acquire()
            lock.release()
        sys.settrace(None)


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
    watch_new_threads()
    watch_this_thread()
    return cli.main()


if __name__ == "__main__":
    if sys.argv[1:] == ["--client"]:
        obey(CountedClient())
    else:
        sys.exit(_replica())
