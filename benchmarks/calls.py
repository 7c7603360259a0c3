# SPDX-License-Identifier: Apache-2.0
"""What a lock pair takes: time, CPU, system calls and wake-ups, beside what the machine itself takes."""

from __future__ import annotations

import contextlib

from benchmarks import floors, procfs
from benchmarks.harness import Cluster, Options, Section, Table, followers, group, percentile, pid_of
from benchmarks.worker import Worker

CLIENTS = (1, 4, 16)
HAND_OFF_CLIENTS = 8
COMMANDS_PER_PAIR = 2


def run(options: Options) -> Section:
    section = Section("What a call takes")
    trips = options.pick(3000, 1000)
    near_s = floors.round_trip_s(trips, same_core=True)
    trip_s = floors.round_trip_s(trips, same_core=False)
    sync_s = floors.sync_s(options.pick(500, 200))
    trip_us, sync_us = (percentile(times, 0.5) * 1e6 for times in (trip_s, sync_s))
    for what, found in (
        ("loopback round trip on one core", near_s),
        ("loopback round trip between two cores", trip_s),
        ("write and fdatasync, 4 KB", sync_s),
    ):
        p50_us, p99_us = (percentile(found, part) * 1e6 for part in (0.5, 0.99))
        section.add(f"floor: {what}", p50_us, "us", note=f"p99 {p99_us:.0f} us")
    times, costs = [], []
    for memory in (False,) if options.quick else (True, False):
        mode = "memory" if memory else "durable"
        floor_us = 2 * (2 * trip_us + (0 if memory else sync_us))
        with group(memory=memory) as cluster, Worker(cluster) as worker:
            worker.ask("locks", "one")
            worker.ask("pairs", 200)
            p50_us, p99_us = _latency(worker, options)
            section.add(f"pair, 1 client, {mode}", p50_us, "us", note=f"p99 {p99_us:.0f} us")
            section.add(
                f"... to its floor, {mode}",
                p50_us / floor_us,
                "x",
                note="its two commands, each 2 round trips between cores and a sync where durable",
            )
            costs += _costs(mode, cluster, worker, options.pick(2000, 400))
            times.append([mode, p50_us, p99_us, *_throughput(cluster, options)])
    heads = ["", "pair p50, us", "p99, us", *(f"pairs/s, {n} clients" for n in CLIENTS)]
    section.tables.append(Table([*heads, f"hand-offs/s, {HAND_OFF_CLIENTS} clients"], times, "Time"))
    heads = [
        "",
        "process",
        "CPU us a command",
        "of it in the kernel",
        "wake-ups a pair",
        "system calls a pair",
        "which",
    ]
    section.tables.append(Table(heads, costs, "Cost, one client"))
    return section


def _latency(worker: Worker, options: Options) -> tuple[float, float]:
    latencies = worker.ask("latencies", options.pick(4000, 500))
    return percentile(latencies, 0.5) * 1e6, percentile(latencies, 0.99) * 1e6


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


def _throughput(cluster: Cluster, options: Options) -> list[float]:
    seconds = options.pick(2, 1)
    rates = []
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker(cluster)) for _ in range(max(CLIENTS))]
        for number, worker in enumerate(workers):
            worker.start("locks", f"own {number}")
        for worker in workers:
            worker.answer()
        rates += [_rate(workers[:clients], seconds) for clients in CLIENTS]
        contenders = workers[:HAND_OFF_CLIENTS]
        for worker in contenders:
            worker.ask("locks", "shared")
        rates.append(_rate(contenders, seconds))
    return rates


def _rate(workers: list[Worker], seconds: float) -> float:
    for worker in workers:
        worker.start("lasting", seconds)
    answers = [worker.answer() for worker in workers]
    return sum(float(answer["pairs"] / answer["seconds"]) for answer in answers)
