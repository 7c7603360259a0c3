# SPDX-License-Identifier: Apache-2.0
"""Raw commands: how many a second, and what each costs the replicas, by the number of connections that they come over.

The clients are sessions of this one process, each with a connection of its own and one command on its way; so
no client's threads and interpreter are part of it.
"""

from __future__ import annotations

import os
import time

from benchmarks import procfs
from benchmarks.crowd import Crowd, Stream, lock, pump
from benchmarks.harness import Cluster, Options, Section, Table, followers, group, percentile, pid_of

CONNECTIONS = (1, 16, 64)
LEADER_US_MAX = 20.0


def run(options: Options) -> Section:
    section = Section("Raw commands")
    section.notes.append(
        "Lock pairs, counted as two commands, of sessions with a connection each and one command on its way. CPU"
        f" and wake-ups are for each command; the follower is one of the two. Medians. Load {os.getloadavg()[0]:.1f}."
    )
    rows = []
    for mode in ("durable",) if options.quick else ("memory", "durable"):
        with group(memory=mode == "memory") as cluster:
            for connections in CONNECTIONS:
                with Crowd(cluster) as crowd:
                    members = crowd.open(connections)
                    streams = [Stream(member, lock(f"raw {i}")) for i, member in enumerate(members)]
                    found = _measure(cluster, crowd, streams, options)
                rows.append([mode, connections, *found])
                if mode == "durable" and connections == max(CONNECTIONS):
                    section.goal(
                        f"leader CPU per command, {connections} connections, durable",
                        found[1],
                        "us",
                        measured=f"{found[1]:.1f} us",
                        floor="none: absolute",
                        at_most=LEADER_US_MAX,
                    )
    heads = ["", "connections", "commands/s", "leader CPU us", "follower CPU us"]
    section.tables.append(Table([*heads, "leader wake-ups", "follower wake-ups"], rows))
    return section


def _measure(cluster: Cluster, crowd: Crowd, streams: list[Stream], options: Options) -> list[float]:
    """Medians over rounds: commands a second, CPU us and wake-ups of leader and follower for each."""
    leader = cluster.leader()
    pids = [pid_of(leader), pid_of(followers(cluster, leader)[0])]
    commands = options.pick(400, 100) * (1 if len(streams) == 1 else 10)
    commands -= commands % (2 * len(streams))
    pump(crowd, streams, commands // 4)
    rounds = []
    for _ in range(options.pick(7, 3)):
        spent = [(procfs.cpu_s(pid), procfs.wake_ups(pid)) for pid in pids]
        began = time.perf_counter()
        pump(crowd, streams, commands)
        seconds = time.perf_counter() - began
        cpu_us = [(procfs.cpu_s(pid) - cpu_s) / commands * 1e6 for pid, (cpu_s, _) in zip(pids, spent, strict=True)]
        woken = [(procfs.wake_ups(pid) - before) / commands for pid, (_, before) in zip(pids, spent, strict=True)]
        rounds.append([commands / seconds, *cpu_us, *woken])
    return [percentile(column, 0.5) for column in zip(*rounds, strict=True)]
