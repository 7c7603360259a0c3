# SPDX-License-Identifier: Apache-2.0
"""A group beside processes that want every core for themselves: how much slower it is, and whether it loses its head.

The hogs have the priority of the replicas. So a replica that wants to run stands in line behind whole slices of theirs,
and a heartbeat may be late by several of those; no election may come of it. Each hog has a session of its own (setsid)
as each replica has: where Linux shares the cores between sessions first (sched_autogroup_enabled), a hog in that of the
client would take the client's share and nobody else's. There nice means nothing between sessions, either.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Self

from benchmarks.harness import Cluster, Options, Section, Table, group, percentile
from benchmarks.worker import Worker

HOGS = 2
SHARE_MIN = 0.5
"""Of the pairs without them."""
GAP_S_MAX = 2.0
LOOP_S = 3.0
"""Longer than the gap may be: a worse one is seen in full, since the loop ends with a whole pair."""
ROUND_S = 1.0
MINUTES = 1.0

HOG = """
print("busy", flush=True)
while True:
    pass
"""


class Hogs:
    """Processes that do nothing but run; stopped at first."""

    def __init__(self, count: int) -> None:
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", HOG],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            for _ in range(count)
        ]

    def __enter__(self) -> Self:
        for process in self.processes:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(signal.SIGSTOP)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            for process in self.processes:
                process.send_signal(signal.SIGSTOP)


def run(options: Options) -> Section:
    minutes = options.minutes or (4 / 60 if options.quick else MINUTES)
    rounds = options.pick(8, 2)
    section = Section(f"Beside {HOGS} processes that never sleep")
    section.notes.append(
        f"A durable group of three and one client, which makes pairs without a pause; {HOGS} processes that only run,"
        " at the same priority. In turns of a second with the hogs stopped and running; then with them running until"
        f" they had {minutes:.3g} minutes in all; then the leader is killed, with them and without. An election is a"
        " ballot beyond those that the replicas named in their status before: there was no reason for it."
    )
    with group(memory=False) as cluster, Worker(cluster) as worker, Hogs(HOGS) as hogs:
        worker.ask("locks", "one")
        worker.ask("pairs", 50)
        ballot = highest_ballot(cluster)
        alone, beside, watched_s, longest_s = _in_turns(worker, hogs, rounds)
        elections_in_turns = highest_ballot(cluster) - ballot
        with hogs.running():
            found = worker.ask("lasting", max(1.0, minutes * 60 - watched_s))
            watched_s += found["seconds"]
        elections = highest_ballot(cluster) - ballot
        gaps = {}
        for name, beside_them in (("alone", False), ("beside hogs", True)):
            gaps[name] = [_gap(cluster, worker, hogs if beside_them else None) for _ in range(options.pick(2, 1))]
    usual, slowed = (percentile(rates, 0.5) for rates in (alone, beside))
    section.goal(
        "pairs/s of one client beside two CPU hogs",
        slowed / usual,
        "x",
        measured=f"{slowed:.0f}",
        floor=f"without them {usual:.0f}",
        at_least=SHARE_MIN,
    )
    section.add(
        "ballots beyond the first", elections, "", 0, f"in {watched_s:.0f} s; in the turns {elections_in_turns}"
    )
    longest_s = max(longest_s, found["longest"])
    section.add("longest pair beside hogs", longest_s * 1e3, "ms", note=f"{found['pairs']} pairs in the last stretch")
    for name, seconds in gaps.items():
        section.add(f"leader killed, {name}: longest gap", max(seconds), "s", GAP_S_MAX, f"of {len(seconds)} runs")
    rows = [[i, *rates] for i, rates in enumerate(zip(alone, beside, strict=True), 1)]
    section.tables.append(Table(["turn", "pairs/s alone", "beside hogs"], rows))
    return section


def _in_turns(worker: Worker, hogs: Hogs, rounds: int) -> tuple[list[float], list[float], float, float]:
    """ABBA: the rates alone and beside hogs; how long these ran, and the longest pair meanwhile."""
    rates: tuple[list[float], list[float]] = ([], [])
    seconds = longest = 0.0
    for number in range(rounds):
        for index in (0, 1) if number % 2 else (1, 0):
            with hogs.running() if index else contextlib.nullcontext():
                found = worker.ask("lasting", ROUND_S)
            rates[index].append(found["pairs"] / found["seconds"])
            if index:
                seconds += found["seconds"]
                longest = max(longest, found["longest"])
    return *rates, seconds, longest


def highest_ballot(cluster: Cluster) -> int:
    """The round of the highest ballot that any replica knows: it grows with each candidacy."""
    return max(int(node.ask("status", timeout_s=30.0)["ballot"][0]) for node in cluster.nodes if node.running)


def _gap(cluster: Cluster, worker: Worker, hogs: Hogs | None) -> float:
    """What a client's loop sees of the leader's death."""
    leader = cluster.leader()
    with hogs.running() if hogs else contextlib.nullcontext():
        worker.start("lasting", LOOP_S)
        time.sleep(LOOP_S / 6)  # in the middle of it
        leader.kill()
        longest: float = worker.answer()["longest"]
    leader.start()
    cluster.until(lambda: leader.ask("status")["applied"] >= cluster.leader().ask("status")["applied"] - 100)
    return longest
