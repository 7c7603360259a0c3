# SPDX-License-Identifier: Apache-2.0
"""How many bytecodes and Python calls a command is on its leader, on a follower and in its client, and whose they are.

A busy machine does not make a count greater, as it does with seconds. Two runs differ by a few in a hundred all the
same: by what timers did meanwhile, and by how many messages happened to come together.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from typing import Final

from benchmarks.counted import CountedWorker, Counters, Counts
from benchmarks.harness import Cluster, Options, Section, Table, followers

THREADS: Final = 16
WARM_UP_PAIRS: Final = 5
WINDOWS: Final = 5
"""Counted one after the other in the same group; of each process the least is taken. What neighbours can do is to make
a caller wait so long that another thread has to be woken for it, or a timer fall due: that only adds."""
FILES: Final = 16
FUNCTIONS: Final = 14

CALM: Final = ("--heartbeat-ms", "1000", "--election-ms", "4000")
"""Counting is slow, so more heartbeats than usual would fall on each command; so seldom they hardly count."""

DEMANDS: Final = {
    ("memory", "leader"): 7700,
    ("memory", "follower"): 5000,
    ("memory", "client"): 2200,
    ("durable", "leader"): 9600,
    ("durable", "follower"): 7200,
    ("durable", "client"): 2200,
}
"""A command's bytecodes when one client makes one call after the other: what was reached on CPython 3.11, and a tenth.
The client's were 1640 where it had a core to itself and 1980 among 25 others: who waits for long has another thread
read for it. Later versions of CPython need fewer for the same source.
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What was counted in one process for so many commands."""

    counts: Counts
    commands: int

    @property
    def steps(self) -> float:
        return self.counts.steps.total() / self.commands

    @property
    def calls(self) -> float:
        return self.counts.calls.total() / self.commands


def run(options: Options) -> Section:
    section = Section("Bytecodes of a command")
    version = ".".join(map(str, sys.version_info[:2]))
    section.notes.append(
        f"Bytecodes that CPython {version} runs for one command (the mean of an acquire and a release), and calls of"
        " Python functions, in the leader, one of two followers and the client, all threads. One client makes one call"
        f" after the other, or {THREADS} threads of it do, each with a lock of its own. Counting slows the processes"
        " some thirty times: more calls of the threads may come together than would otherwise, and a lone caller now"
        " and then waits so long that the service thread takes over the reading."
    )
    rows: list[list[object]] = []
    shown: dict[str, Found] = {}
    for mode in ("durable",) if options.quick else ("memory", "durable"):
        for threads in (0, THREADS):
            pairs = options.pick(96, 32) // (threads or 2)
            found = measure(memory=mode == "memory", threads=threads, pairs=pairs)
            for name, one in found.items():
                rows.append([mode, threads or 1, name, one.steps, one.calls])
                if not threads:
                    demand = DEMANDS[mode, name]
                    section.add(f"{name}, {mode}", one.steps, "bytecodes a command", demand, f"{one.calls:.0f} calls")
            if not threads:
                shown = found
            else:
                for name, one in found.items():
                    section.add(f"{name}, {mode}, {threads} threads", one.steps, "bytecodes a command")
    section.tables.append(Table(["", "threads", "process", "bytecodes a command", "calls a command"], rows))
    section.tables.append(by_file(shown))
    section.tables += [by_function(name, found) for name, found in shown.items()]
    return section


def measure(*, memory: bool, threads: int, pairs: int, windows: int = WINDOWS) -> dict[str, Found]:
    """A fresh group, one client, and so many pairs of each of its threads (0: of its main thread)."""
    cluster = Cluster(3, memory=memory, options=CALM)
    found: list[dict[str, Found]] = []
    with Counters(cluster) as counters, cluster, CountedWorker(cluster) as client:
        leader = cluster.leader()
        nodes = {"leader": leader, "follower": followers(cluster, leader)[0]}
        client.ask("locks", *(f"own {number}" for number in range(threads or 1)))
        client.counted(threads, WARM_UP_PAIRS)
        commands = 2 * pairs * (threads or 1)
        for _ in range(windows):
            before = {name: counters.of(node) for name, node in nodes.items()}
            in_client = client.counted(threads, pairs)
            counts = {name: counters.of(node).since(before[name]) for name, node in nodes.items()}
            counts["client"] = in_client
            found.append({name: Found(each, commands) for name, each in counts.items()})
    return {name: min((window[name] for window in found), key=lambda one: one.steps) for name in found[0]}


def by_file(found: dict[str, Found]) -> Table:
    """Bytecodes a command of the files that run most of them."""
    files = {name: one.counts.files() for name, one in found.items()}
    total: Counter[str] = Counter()
    for counts in files.values():
        total += counts
    rows = [
        [file, *(counts[file] / found[name].commands for name, counts in files.items())]
        for file, _ in total.most_common(FILES)
    ]
    return Table(["file", *found], rows, "By file: bytecodes a command, one client, durable")


def by_function(name: str, found: Found) -> Table:
    """The functions that run most bytecodes themselves."""
    rows = [
        [function, steps / found.commands, f"{found.counts.calls[function] / found.commands:.2f}"]
        for function, steps in found.counts.steps.most_common(FUNCTIONS)
    ]
    return Table([f"function, {name}", "bytecodes a command", "calls a command"], rows)
