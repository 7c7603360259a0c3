# SPDX-License-Identifier: Apache-2.0
"""What a lock pair of one client costs each process: CPU, system calls and wake-ups."""

from __future__ import annotations

from benchmarks import procfs
from benchmarks.harness import Cluster, Options, Section, Table, followers, group, pid_of
from benchmarks.worker import Worker

COMMANDS_PER_PAIR = 2
HEADS = ["", "process", "CPU us a command", "of it in the kernel", "wake-ups a pair", "system calls a pair", "which"]


def run(options: Options) -> Section:
    section = Section("What a call costs each process, one client")
    costs = []
    for memory in (False,) if options.quick else (True, False):
        with group(memory=memory) as cluster, Worker(cluster) as worker:
            worker.ask("locks", "one")
            worker.ask("pairs", 200)
            costs += _costs("memory" if memory else "durable", cluster, worker, options.pick(2000, 400))
    section.tables.append(Table(HEADS, costs))
    return section


def _costs(mode: str, cluster: Cluster, worker: Worker, pairs: int) -> list[list[object]]:
    """CPU and wake-ups in one run, system calls in another: counting those slows everything down."""
    leader = cluster.leader()
    follower = followers(cluster, leader)[0]
    pids = {"client": worker.pid, "leader": pid_of(leader), "follower": pid_of(follower)}
    before = {name: _spent(pid) for name, pid in pids.items()}
    worker.ask("pairs", pairs)
    spent = {name: [b - a for a, b in zip(before[name], _spent(pid), strict=True)] for name, pid in pids.items()}
    watched_pairs = pairs // 4
    with procfs.watched(*pids.values()) as calls:
        worker.ask("pairs", watched_pairs)
    rows: list[list[object]] = []
    for name, pid in pids.items():
        cpu_s, stat_s, kernel_s, woken = spent[name]
        cpu_us = cpu_s / pairs / COMMANDS_PER_PAIR * 1e6
        row: list[object] = [mode, name, cpu_us, f"{kernel_s / max(stat_s, 0.01):.0%}", woken / pairs]
        if pid in calls:
            counts = {call: count / watched_pairs for call, count in calls[pid].counts.items()}
            often = ", ".join(f"{call} {count:.1f}" for call, count in counts.items() if count >= 0.1)
            row += [sum(counts.values()), often]
        else:
            row += ["", "no strace"]
        rows.append(row)
    return rows


def _spent(pid: int) -> tuple[float, float, float, float]:
    return procfs.cpu_s(pid), procfs.stat_cpu_s(pid), procfs.kernel_s(pid), procfs.wake_ups(pid)
