# SPDX-License-Identifier: Apache-2.0
"""How soon a newcomer to a group with much in it is a voter, and what the group's clients notice of it meanwhile."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from typing import Any, Self

from benchmarks import procfs
from benchmarks.crowd import Crowd, Member, lock
from benchmarks.harness import Options, Section, Table, pid_of
from benchmarks.worker import Worker
from dthreading.session import ACQUIRE
from tests.server.cluster import Cluster, Node

OBJECTS = 100_000
HOLDERS = 8
AT_ONCE = 50
"""Calls on their way at one time, of each session that holds."""
WORKERS = 4
WINDOW_S = 0.25
CALM_S = 4.0
VOTER_S_MAX = 10.0
"""Seconds. A process takes half a second to start."""
PACE_MIN = 0.5


def run(options: Options) -> Section:
    objects = options.pick(OBJECTS, 10_000)
    section = Section(f"A newcomer to a group with {objects:,} objects".replace(",", " "))
    rows: list[list[Any]] = []
    with Cluster(3) as cluster, Crowd(cluster) as crowd, contextlib.ExitStack() as stack:
        leader = cluster.leader()
        for number, member in enumerate(crowd.open(HOLDERS)):
            _Holding(crowd, member, [f"held {i}" for i in range(number, objects, HOLDERS)])
        workers = [stack.enter_context(Worker(cluster)) for _ in range(WORKERS)]
        for number, worker in enumerate(workers):
            worker.ask("locks", f"busy {number}")
        with _Pairs(workers) as before:
            time.sleep(CALM_S)
        for number in range(options.pick(3, 1)):
            with _Pairs(workers) as during:
                row = _comes(cluster)
            with _Pairs(workers) as after:
                time.sleep(CALM_S)
            calm = (before.pace + after.pace) / 2
            rows.append([number + 1, *row, calm, during.pace / calm, during.longest, after.longest])
            before = after
        about = leader.ask("status")
    section.notes.append(
        f"A durable group of three in which {HOLDERS} sessions hold {objects} locks; the snapshot has"
        f" {about['snapshot_bytes'] / 1e6:.1f} MB, the log {about['chosen']} entries. {WORKERS} clients make pairs on"
        " locks of their own all the time. A newcomer is started beside them, on the same machine, with an empty"
        " directory: it fetches a snapshot, applies what was decided since, and votes. The clients' pace meanwhile is"
        " compared with that before and after."
    )
    section.add("until it votes", max(row[1] for row in rows), "s", VOTER_S_MAX, "from the start of its process")
    slowest = min(row[5] for row in rows)
    section.add("the clients' pace, calm to meanwhile", 1 / slowest, "times", 1 / PACE_MIN)
    heads = [
        "newcomer", "votes after, s", "of that until it listens, s", "its CPU, s", "pairs a second, calm",
        "meanwhile, of that", "longest pair meanwhile, s", "and afterwards, s",
    ]  # fmt: skip
    section.tables.append(Table(heads, rows))
    return section


def _comes(cluster: Cluster) -> list[Any]:
    """One newcomer, from its start until it votes."""
    node = cluster.newcomer()
    began = time.monotonic()
    node.start(wait=False)
    cluster.until(lambda: node.ask("status"))
    listening_s = time.monotonic() - began
    about = node.ask("status")
    # As `dthreading members add` would, so that it waits for no partner that would make the group odd.
    cluster.leader().ask("members.add", about["address"], about["incarnation"])
    node.wait_ready()
    took_s = time.monotonic() - began
    print("\n".join(_progress(node)))
    return [took_s, listening_s, procfs.cpu_s(pid_of(node))]


def _progress(node: Node) -> list[str]:
    """What its log says of how far it is."""
    return re.findall(r".*(?:fetching|not a member yet|is a member).*", node.log_text())


class _Holding:
    """One session acquires many locks, a few at a time, and keeps them."""

    def __init__(self, crowd: Crowd, member: Member, names: list[str]) -> None:
        self._member = member
        self._names = names
        self._left = len(names)
        for _ in range(min(AT_ONCE, len(names))):
            self._next(None)
        crowd.until(lambda: not self._left, most_s=600)

    def _next(self, answer: Any) -> None:
        if answer is not None:
            self._left -= 1
        if self._names:
            self._member.call(lock(self._names.pop()), "acquire", (True, 1), ACQUIRE, self._next)


class _Pairs:
    """While it is entered all workers make pairs; then it says how many, and how long the longest took."""

    def __init__(self, workers: list[Worker]) -> None:
        self._workers = workers
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._drive, args=(worker,)) for worker in workers]
        self._found: list[dict[str, float]] = []
        self.pace = 0.0
        self.longest = 0.0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self.pace = sum(found["pairs"] for found in self._found) / (time.monotonic() - self._began)
        self.longest = max(found["longest"] for found in self._found)

    def _drive(self, worker: Worker) -> None:
        while not self._over.is_set():
            self._found.append(worker.ask("lasting", WINDOW_S))
