# SPDX-License-Identifier: Apache-2.0
"""Memory and disk stay bounded however many commands there are: a durable group of three, and small values."""

from __future__ import annotations

import time
from itertools import pairwise

from benchmarks import procfs
from benchmarks.crowd import Crowd, Stream, lock, pump, queue
from benchmarks.harness import Cluster, Options, Section, Table, group, pid_of
from replicas.replica.snapshots import LOG_BYTES
from replicas.storage.segments import SEGMENT_BYTES

STREAMS = 64
SAMPLES = 36
ROWS = 12
GROWTH_MAX = 1.2
LOG_MAX = LOG_BYTES + 2 * SEGMENT_BYTES
"""What comes between two snapshots, the rest of the segment that the older one stands in, and one that is begun."""
DISK_MAX = LOG_MAX + 2 * SEGMENT_BYTES
"""One segment made ahead, and room for two snapshots of what little state there is."""

MEGABYTE = 1_000_000


def run(options: Options) -> Section:
    section = Section(f"Memory and disk over {options.commands:,} commands".replace(",", " "))
    item = bytes(_item_bytes(options.commands))
    section.notes.append(
        f"A durable group of three; {STREAMS} clients, half of them with lock pairs and half with put and get of"
        f" {len(item)} bytes on queues. *log* is what the log has written and not dropped, *disk* is what the data"
        " directory takes, segments made ahead included, each of the replica that has most. A snapshot is made, and"
        " the log before it dropped in whole segments, each 50 000 entries or 32 MB. Growth is the highest point of the"
        " last third over that of the middle one; what grew with the commands would be at 1.5."
    )
    samples: list[list[float]] = []
    with group(memory=False) as cluster, Crowd(cluster) as crowd:
        members = crowd.open(STREAMS)
        targets = [(lock if i % 2 else queue)(f"object {i}") for i in range(STREAMS)]
        streams = [Stream(member, target, item) for member, target in zip(members, targets, strict=True)]
        start = _sample(cluster)[2]
        began = time.perf_counter()
        for number in range(1, SAMPLES + 1):
            pump(crowd, streams, options.commands // SAMPLES)
            samples.append([number * options.commands // SAMPLES, *_sample(cluster)])
        seconds = time.perf_counter() - began
        done = min(node.ask("status")["applied"] for node in cluster.nodes)
    third = SAMPLES // 3
    written = sum(max(0.0, after[1] - before[1]) for before, after in pairwise(samples))
    highest_log, highest_disk, highest_memory = (max(row[column] for row in samples) for column in (1, 2, 3))
    note = f"of about {written / MEGABYTE:.0f} MB written in this time"
    section.add("highest: log", highest_log / MEGABYTE, "MB", LOG_MAX / MEGABYTE, note)
    section.add("highest: data directory", highest_disk / MEGABYTE, "MB", DISK_MAX / MEGABYTE)
    limit = start + 2 * LOG_BYTES
    section.add(
        "highest: resident memory",
        highest_memory / MEGABYTE,
        "MB",
        limit / MEGABYTE,
        f"{start / MEGABYTE:.1f} MB at the start",
    )
    middle, last = (max(row[3] for row in part) for part in (samples[third:-third], samples[-third:]))
    section.add(
        "growth of resident memory",
        last / middle,
        "x",
        None if options.quick else GROWTH_MAX,
        "last third to middle third",
    )
    section.add("commands applied", done, "", note=f"{done / seconds:,.0f} a second".replace(",", " "))
    rows = [
        [int(row[0]), *(f"{value / MEGABYTE:.1f}" for value in row[1:4]), int(row[4])]
        for row in samples[SAMPLES // ROWS - 1 :: SAMPLES // ROWS]
    ]
    section.tables.append(Table(["commands", "log, MB", "disk, MB", "resident, MB", "snapshot of slot"], rows))
    return section


def _item_bytes(commands: int) -> int:
    """Small; in a shorter run large enough that the log is cut several times, which it is each 50 000 entries or 32 MB,
    in segments of 16 MB.
    """
    return 20 if commands > 500_000 else 1000 if commands > 100_000 else 6000


def _sample(cluster: Cluster) -> list[float]:
    states = [node.ask("status") for node in cluster.nodes]
    resident = max(procfs.rss_bytes(pid_of(node)) for node in cluster.nodes)
    return [
        max(state["log_bytes"] for state in states),
        max(state["disk_bytes"] for state in states),
        resident,
        min(state["snapshot"] for state in states),
    ]
