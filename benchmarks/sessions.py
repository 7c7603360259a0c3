# SPDX-License-Identifier: Apache-2.0
"""As many sessions as a group takes, all of whose clients have gone without a word: what they cost the one that is
there, what a new leader makes of them, and the moment when the leases of all of them end.

That moment is one for all because a new leader gives everybody a full term. A site that loses its power makes the same.
"""

from __future__ import annotations

import contextlib
import time
from functools import partial

from benchmarks import procfs
from benchmarks.crowd import WAVE, Crowd
from benchmarks.harness import Cluster, Options, Section, Side, Table, alternate, followers, group, pid_of
from benchmarks.worker import Worker
from tests.server.cluster import Node

SESSIONS, SESSIONS_QUICK = 99_000, 500
"""The first is what SESSIONS_MAX leaves beside our own."""
LEASE_S, LEASE_QUICK_S = 120, 4
"""The time of opening them, and of what is measured while they stay, with a busy machine's share."""
PAIRS = 40
RATIO_MAX = 1.2
GAP_S_MAX = 2.0
STRETCH_S = 2.0
"""So long a stretch of pairs is; after each somebody looks how many sessions are left."""
PATIENCE_S = 120.0


def run(options: Options) -> Section:
    count, lease_s = options.pick(SESSIONS, SESSIONS_QUICK), options.pick(LEASE_S, LEASE_QUICK_S)
    section = Section(f"{count:,} sessions without a client".replace(",", " "))
    section.notes.append(
        f"Two groups of three in memory, measured in turns; one holds besides so many sessions, with a lease of"
        f" {lease_s} s, whose connections have ended without a goodbye. The time is the lower quartile, CPU is of all"
        " three replicas together. Then the leader of that group is killed while one client makes pairs without a"
        " pause, and the new one gives everybody a full term: so all leases end in one moment."
    )
    with contextlib.ExitStack() as stack:
        small, large = (stack.enter_context(group(memory=True)) for _ in range(2))
        workers = [stack.enter_context(Worker(each)) for each in (small, large)]
        for worker in workers:
            worker.ask("locks", "one")
        few, many = (
            Side(each, partial(worker.ask, "pairs", PAIRS))
            for each, worker in zip((small, large), workers, strict=True)
        )
        rows: list[list[object]] = []

        def compare(what: str, demand: float | None) -> None:
            found = alternate(few, many, options.pick(40, 4))
            rows.append([what, *(seconds / PAIRS * 1e6 for seconds in found.seconds)])
            section.add(f"pair: {what}", found.time_ratio, "x the time", demand)
            section.add("", found.cpu_ratio, "x the replicas' CPU", demand)

        compare("same", None)
        before = _memory(large)
        began = time.monotonic()
        _open(large, count, lease_s)
        opened_s = time.monotonic() - began
        grown = [(now - then) / count for now, then in zip(_memory(large), before, strict=True)]
        compare(f"1 session, {count + 1} sessions", None if options.quick else RATIO_MAX)
        section.add("opened a second", count / opened_s, "", note="each with a connection of its own")
        section.add("memory of a session", max(grown), "bytes", note=f"leader {grown[0]:.0f}, follower {grown[1]:.0f}")
        _leader_dies(section, large, workers[1], count, lease_s)
    section.tables.append(Table(["pair", "us, one", "us, many"], rows))
    return section


def _memory(cluster: Cluster) -> tuple[int, int]:
    leader = cluster.leader()
    return procfs.rss_bytes(pid_of(leader)), procfs.rss_bytes(pid_of(followers(cluster, leader)[0]))


def _open(cluster: Cluster, count: int, lease_s: int) -> None:
    with Crowd(cluster, lease_s * 1000) as crowd:
        for first in range(0, count, WAVE):
            crowd.abandon(crowd.open(min(WAVE, count - first)))


def _leader_dies(section: Section, cluster: Cluster, worker: Worker, count: int, lease_s: int) -> None:
    """The gap of the takeover; then how long the end of all those leases takes, and what the client sees of it."""
    leader = cluster.leader()
    worker.start("lasting", STRETCH_S)
    time.sleep(STRETCH_S / 4)
    leader.kill()
    section.add("leader killed: longest gap", worker.answer()["longest"], "s", GAP_S_MAX)
    successor = cluster.leader()
    longest, usual, ending_s = 0.0, 0.0, 0.0
    deadline = time.monotonic() + lease_s + PATIENCE_S
    while (left := _sessions(successor)) > count // 100:
        assert time.monotonic() < deadline, f"{left} sessions are left long after their leases have ended"
        found = worker.ask("lasting", STRETCH_S)
        if left == _sessions(successor):
            usual = max(usual, found["longest"])
        else:
            longest = max(longest, found["longest"])
            ending_s += found["seconds"]
    section.add(
        "all leases end at once: longest pair",
        longest,
        "s",
        GAP_S_MAX,
        f"all had ended within {ending_s:.0f} s; the longest before that: {usual * 1e3:.0f} ms",
    )


def _sessions(node: Node) -> int:
    return int(node.ask("status", timeout_s=30.0)["sessions"])
