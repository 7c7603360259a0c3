# SPDX-License-Identifier: Apache-2.0
"""A client process with the real client, which does what it is told line by line; and its handle in the benchmark.

Words are JSON arrays on standard input, [what, arguments...]; each has one JSON answer on standard output.
"""

from __future__ import annotations

import itertools
import json
import select
import subprocess
import sys
import time
from typing import Any, Self

from tests.server.cluster import ROOT, Cluster


class Worker:
    """The benchmark's end. `ask` waits for the answer; `start` and `answer` part the two, so that many work at once."""

    command: tuple[str, ...] = ("benchmarks.worker",)
    """The module that is run, and its arguments."""

    def __init__(self, cluster: Cluster, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", *self.command],
            cwd=ROOT,
            env=cluster.client_environment(DTHREADING_NAMESPACE="bench", **environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def start(self, what: str, *arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([what, *arguments]) + "\n")

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a client process ended with code {self.process.wait()}")
        return json.loads(line)

    @property
    def has_answered(self) -> bool:
        assert self.process.stdout is not None
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def ask(self, what: str, *arguments: Any) -> Any:
        self.start(what, *arguments)
        return self.answer()


class Client:
    """The process's end: each method is a word."""

    def __init__(self) -> None:
        import dthreading  # noqa: PLC0415 - the parent has no business with a group

        self._dthreading = dthreading
        self._locks: list[Any] = []

    def locks(self, *names: str) -> int:
        """From here on pairs are made on these, in turn."""
        self._locks = [self._dthreading.Lock(name=name) for name in names]
        for lock in self._locks:
            with lock:
                pass
        return len(self._locks)

    def pairs(self, count: int) -> float:
        """So many pairs; the seconds they took."""
        locks = self._locks
        size = len(locks)
        began = time.perf_counter()
        for number in range(count):
            lock = locks[number % size]
            lock.acquire()
            lock.release()
        return time.perf_counter() - began

    def latencies(self, count: int) -> list[float]:
        """The seconds that each of so many pairs took."""
        lock = self._locks[0]
        now = time.perf_counter
        marks = [now()]
        for _ in range(count):
            lock.acquire()
            lock.release()
            marks.append(now())
        return [after - before for before, after in itertools.pairwise(marks)]

    def lasting(self, seconds: float) -> dict[str, float]:
        """Pairs for so long: how many, and the longest gap between the ends of two."""
        lock = self._locks[0]
        now = time.perf_counter
        began = last = now()
        count = 0
        longest = 0.0
        while last - began < seconds:
            lock.acquire()
            lock.release()
            then, last = last, now()
            longest = max(longest, last - then)
            count += 1
        return {"pairs": count, "seconds": last - began, "longest": longest}


def obey(client: Client) -> None:
    """Until there is nobody left who says anything."""
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        print(json.dumps(getattr(client, what)(*arguments)), flush=True)


if __name__ == "__main__":
    obey(Client())
