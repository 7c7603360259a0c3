# SPDX-License-Identifier: Apache-2.0
"""Client processes of a group, what they do together for a while, and what that cost; with the code of any revision."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks import placing, procfs
from benchmarks.harness import pid_of
from benchmarks.placing import Placement
from tests.server.cluster import Cluster, Node

SCRIPT = Path(__file__).with_name("client.py")
SHAPES = {1: (1, 1), 2: (2, 1), 4: (4, 1), 8: (4, 2), 16: (4, 4), 32: (8, 4), 64: (8, 8)}
"""Processes and threads in each, by the number of clients, as the comparison with peers has them."""

Tasks = list[list[tuple[str, dict[str, Any]]]]
"""For each process, for each thread: its role and parameters."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one measurement found in its window."""

    seconds: float
    results: list[dict[str, Any]]
    cpu_s: dict[str, float]
    """Of the leader, the followers together, and the clients together."""

    @property
    def done(self) -> int:
        return sum(result["done"] for result in self.results)

    @property
    def rate(self) -> float:
        return self.done / self.seconds

    @property
    def times(self) -> list[float]:
        return [time for result in self.results for time in result.get("times", ())]

    @property
    def hand_offs(self) -> float:
        return sum(result["hand_offs"] for result in self.results) / self.seconds

    @property
    def fairness(self) -> float:
        """The most to the least served client."""
        counts = [result["done"] for result in self.results]
        return max(counts) / max(1, min(counts))

    def cpu_us(self, *who: str) -> float:
        """For each that was done."""
        return sum(self.cpu_s[each] for each in who) / max(1, self.done) * 1e6


def spread(clients: int, role: str, parameters: Callable[[int], dict[str, Any]]) -> Tasks:
    """So many clients, in as many processes and threads as `SHAPES` has for them."""
    processes, threads = SHAPES[clients]
    numbers = range(clients)
    return [
        [(role, {"index": number, **parameters(number)}) for number in numbers[process * threads :][:threads]]
        for process in range(processes)
    ]


class Fleet:
    """Client processes, started as they are needed and kept for the next measurement."""

    def __init__(self, cluster: Cluster, leader: Node) -> None:
        self.cluster = cluster
        self.leader = leader
        self._processes: list[subprocess.Popen[str]] = []
        self._serial = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.communicate()

    def name(self, kind: str) -> str:
        """One that was never used."""
        self._serial += 1
        return f"{kind} {self._serial}"

    def page(self) -> str:
        """A fresh file of eight zero bytes, for what clients tell each other beside the group."""
        path = self.cluster.directory / f"page-{self.name('')}"
        path.write_bytes(bytes(8))
        return str(path)

    def _ensure(self, count: int) -> list[subprocess.Popen[str]]:
        while len(self._processes) < count:
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-P", str(SCRIPT)],
                    cwd=self.cluster.directory,
                    env=self.cluster.client_environment(DTHREADING_NAMESPACE="bench"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    bufsize=1,
                )
            )
        return self._processes[:count]

    def _pids(self) -> dict[str, list[int]]:
        leader = pid_of(self.leader)
        replicas = [pid_of(node) for node in self.cluster.nodes if node.running]
        clients = [process.pid for process in self._processes]
        return {"leader": [leader], "followers": [pid for pid in replicas if pid != leader], "clients": clients}

    def place(self, placement: Placement) -> None:
        """Put the leader, the followers and the clients that there are where they belong."""
        pids = self._pids()
        placing.place(placement, pids["leader"][0], pids["followers"] + pids["clients"])

    def run(
        self, tasks: Tasks, seconds: float, *, warm_s: float = 0.25, placement: Placement = Placement.FREE
    ) -> Found:
        """One measurement: everything is made ready, runs for `warm_s`, and is counted for `seconds`."""
        processes = self._ensure(len(tasks))
        self.place(placement)
        _ask(processes, [["prepare", each] for each in tasks])
        warm_until = time.monotonic() + warm_s
        _tell(processes, [["run", warm_until, warm_until + seconds] for _ in tasks])
        time.sleep(max(0.0, warm_until - time.monotonic()))
        before = self._cpu_s()
        time.sleep(max(0.0, warm_until + seconds - time.monotonic()))
        after = self._cpu_s()
        results = [result for answers in _hear(processes) for result in answers]
        errors = [result["error"] for result in results if "error" in result]
        if errors:
            raise RuntimeError(errors[0])
        self.place(Placement.FREE)
        return Found(seconds, results, {who: after[who] - before[who] for who in after})

    def _cpu_s(self) -> dict[str, float]:
        # In ticks for the clients, whose threads end with the measurement and take their own count with them.
        count = {who: procfs.stat_cpu_s if who == "clients" else procfs.cpu_s for who in self._pids()}
        return {who: sum(map(count[who], pids)) for who, pids in self._pids().items()}


def _tell(processes: Iterable[subprocess.Popen[str]], words: Iterable[Any]) -> None:
    for process, word in zip(processes, words, strict=True):
        assert process.stdin is not None
        process.stdin.write(json.dumps(word) + "\n")


def _hear(processes: Iterable[subprocess.Popen[str]]) -> list[Any]:
    answers = []
    for process in processes:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"a client process ended with code {process.wait()}")
        answers.append(json.loads(line))
    return answers


def _ask(processes: list[subprocess.Popen[str]], words: list[Any]) -> list[Any]:
    _tell(processes, words)
    return _hear(processes)
