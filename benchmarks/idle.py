# SPDX-License-Identifier: Apache-2.0
"""What a replica and a client take of a core when nobody wants anything."""

from __future__ import annotations

import time

from benchmarks import procfs
from benchmarks.harness import Options, Section, Table, followers, group, pid_of
from benchmarks.worker import Worker

PERCENT_MAX = 0.5
SETTLE_S = 1.5


def run(options: Options) -> Section:
    span_s = options.pick(20, 4)
    section = Section("Idle")
    section.notes.append(
        f"A durable group of three and one client with an open session (lease 10 s) and a lock, left alone for {span_s}"
        " s. CPU time is the kernel's scheduler count, user and system, all threads."
    )
    with group(memory=False) as cluster, Worker(cluster) as worker:
        worker.ask("locks", "one")
        leader = cluster.leader()
        pids = {"leader": pid_of(leader), "client": worker.pid}
        pids |= {f"follower {i}": pid_of(node) for i, node in enumerate(followers(cluster, leader), 1)}
        time.sleep(SETTLE_S)
        before = {name: (procfs.cpu_s(pid), procfs.stat_cpu_s(pid), procfs.wake_ups(pid)) for name, pid in pids.items()}
        began = time.perf_counter()
        time.sleep(span_s)
        spent_s = time.perf_counter() - began
        rows = []
        for name, pid in pids.items():
            cpu_s, stat_s, woken = before[name]
            percent = (procfs.cpu_s(pid) - cpu_s) / spent_s * 100
            section.add(f"CPU of an idle {name}", percent, "% of a core", PERCENT_MAX)
            ticks = (procfs.stat_cpu_s(pid) - stat_s) / spent_s * 100
            rows.append([name, percent, ticks, (procfs.wake_ups(pid) - woken) / spent_s])
        section.tables.append(Table(["process", "% of a core", "% by /proc/PID/stat", "wake-ups a second"], rows))
        watch_s = options.pick(8, 2)
        with procfs.watched(*pids.values()) as calls:
            time.sleep(watch_s)
    for name, pid in pids.items():
        if pid in calls:
            counts = ", ".join(f"{call} {count / watch_s:.1f}" for call, count in calls[pid].counts.items())
            section.add(f"system calls of an idle {name}", calls[pid].total / watch_s, "a second", note=counts)
    return section
