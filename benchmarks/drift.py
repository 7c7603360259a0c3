# SPDX-License-Identifier: Apache-2.0
"""Whether anything creeps up while a group is busy for long: latency, CPU of a command, memory of each process.

The default is too short to see more than that nothing runs away; `--minutes 20` is the run that means something.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import procfs
from benchmarks.crowd import Crowd, Stream, lock, pump
from benchmarks.footprint import PAST_SNAPSHOT, STREAMS
from benchmarks.harness import Cluster, Options, Section, Table, followers, group, percentile, pid_of
from benchmarks.worker import Worker

CLIENTS = 4
PAIRS = 20
"""Of each client between two looks at the clock."""

SAMPLES = 30
ROWS = 10
GROWTH_MAX = 1.2
CPU_GROWTH_MAX = 1.3
"""A machine that becomes busier while we look makes each command dearer: its caches are shared, and who waits longer is
woken by another thread. From a load of 5 to one of 25 it was 1.23."""
JUDGED_MINUTES = 5.0
"""A shorter run is not held to its latency and CPU: on a busy machine those of two halves of a minute differ."""

KILOBYTE = 1000


@dataclass(slots=True)
class Sample:
    """What was seen between two looks."""

    minute: float
    p50_us: float
    p99_us: float
    pairs: int
    cpu_us: dict[str, float] = field(default_factory=dict)
    """Of one command, by process."""
    on_core_us: float = 0.0
    """Of one command, of all these processes together: what they ran, and what they waited for a core to run on."""
    resident: dict[str, int] = field(default_factory=dict)


def run(options: Options) -> Section:
    minutes = options.minutes or options.pick(24, 4) / 60
    section = Section(f"Drift over {minutes:.3g} minutes")
    section.notes.append(
        f"{CLIENTS} client processes make pairs without a pause, each on a lock of its own; a durable group of three."
        f"{'' if options.quick else ' It was driven past a snapshot before: the entries of the log have their room.'}"
        " Growth is the median of the last third of the samples over that of the first one (memory: the highest point"
        " of the last third over that of the middle one, as entries come and go with each snapshot); the slope is that"
        " of the straight line through all samples."
    )
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(group(memory=False))
        if not options.quick:
            _past_a_snapshot(cluster)
        workers = [stack.enter_context(Worker(cluster)) for _ in range(CLIENTS)]
        for number, worker in enumerate(workers):
            worker.ask("locks", f"own {number}")
            worker.ask("pairs", PAIRS)
        ballot = max(node.ask("status")["ballot"][0] for node in cluster.nodes)
        samples = _watch(cluster, workers, minutes)
        elections = max(node.ask("status")["ballot"][0] for node in cluster.nodes) - ballot
    judge(section, samples, options, held_to_time=minutes >= JUDGED_MINUTES)
    section.add("ballots beyond the first", elections, "", 0 if minutes >= JUDGED_MINUTES else None)
    names = list(samples[0].resident)
    rows = [
        [f"{s.minute:.2f}", s.pairs, s.p50_us, s.p99_us, s.cpu_us["leader"], *(_mb(s.resident[n]) for n in names)]
        for s in samples[:: max(1, len(samples) // ROWS)]
    ]
    heads = ["minute", "pairs", "p50, us", "p99, us", "leader's CPU us a command", *(f"{name}, MB" for name in names)]
    section.tables.append(Table(heads, rows, "Samples"))
    return section


def _past_a_snapshot(cluster: Cluster) -> None:
    with Crowd(cluster) as crowd:
        streams = [Stream(member, lock(f"busy {i}")) for i, member in enumerate(crowd.open(STREAMS))]
        pump(crowd, streams, PAST_SNAPSHOT)


def _watch(cluster: Cluster, workers: list[Worker], minutes: float) -> list[Sample]:
    leader = cluster.leader()
    pids = {"leader": pid_of(leader)}
    pids |= {f"follower {number}": pid_of(node) for number, node in enumerate(followers(cluster, leader), 1)}
    pids["client"] = workers[0].pid
    began = time.monotonic()
    samples: list[Sample] = []
    for number in range(1, SAMPLES + 1):
        before = {name: procfs.cpu_s(pid) for name, pid in pids.items()}
        wanted_s = sum(_core_s(pid) for pid in pids.values())
        latencies: list[float] = []
        own = 0
        until = began + minutes * 60 * number / SAMPLES
        while not latencies or time.monotonic() < until:
            for worker in workers:
                worker.start("latencies", PAIRS)
            answers = [worker.answer() for worker in workers]
            own += len(answers[0])
            latencies += itertools.chain.from_iterable(answers)
        sample = Sample(
            (time.monotonic() - began) / 60,
            percentile(latencies, 0.5) * 1e6,
            percentile(latencies, 0.99) * 1e6,
            len(latencies),
        )
        for name, pid in pids.items():
            commands = 2 * (own if name == "client" else len(latencies))
            sample.cpu_us[name] = (procfs.cpu_s(pid) - before[name]) / commands * 1e6
            sample.resident[name] = procfs.rss_bytes(pid)
        sample.on_core_us = (sum(_core_s(pid) for pid in pids.values()) - wanted_s) / 2 / len(latencies) * 1e6
        samples.append(sample)
        _say(sample)
    return samples


def _core_s(pid: int) -> float:
    """What it ran, and what it waited for a core while it was ready to."""
    tasks = [task / "schedstat" for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(sum(map(int, task.read_text().split()[:2])) for task in tasks) / 1e9


def _say(sample: Sample) -> None:
    resident = ", ".join(f"{name} {_mb(size)}" for name, size in sample.resident.items())
    text = f"  minute {sample.minute:.2f}: p50 {sample.p50_us:.0f} us, p99 {sample.p99_us:.0f} us; MB: {resident}"
    print(text, file=sys.stderr, flush=True)


def judge(section: Section, samples: list[Sample], options: Options, *, held_to_time: bool) -> None:
    times = [sample.minute for sample in samples]

    def creep(what: str, values: list[float], bound: float | None) -> None:
        slope = slope_of(times, values) / statistics.mean(values) * 100
        kept_to = bound if held_to_time else None
        section.add(f"growth of {what}", growth_of(values), "x", kept_to, f"slope {slope:+.2f} % a minute")

    creep("the pair's p50", [sample.p50_us for sample in samples], None)
    creep("what the processes ran or waited for a core", [sample.on_core_us for sample in samples], None)
    relative = [sample.p50_us / sample.on_core_us for sample in samples]
    creep("p50 beyond that", relative, GROWTH_MAX)
    section.add(
        "slope of the pair's p99", slope_of(times, [sample.p99_us for sample in samples]), "us a minute", note="rough"
    )
    for name in samples[0].cpu_us:
        creep(f"the CPU of a command, {name}", [sample.cpu_us[name] for sample in samples], CPU_GROWTH_MAX)
    for name in samples[0].resident:
        sizes = [float(sample.resident[name]) for sample in samples]
        third = len(sizes) // 3
        growth = max(sizes[-third:]) / max(sizes[third:-third])
        slope = slope_of(times, sizes) / KILOBYTE
        note = f"slope {slope:+.0f} KB a minute, {_mb(sizes[0])} MB to {_mb(sizes[-1])} MB"
        section.add(f"growth of memory, {name}", growth, "x", None if options.quick else GROWTH_MAX, note)


def growth_of(values: list[float]) -> float:
    """The median of the last third over that of the first one."""
    third = len(values) // 3
    return statistics.median(values[-third:]) / statistics.median(values[:third])


def slope_of(times: list[float], values: list[float]) -> float:
    """Of the straight line that fits best: how much more there is a unit of time."""
    return statistics.linear_regression(times, values).slope


def _mb(size: float) -> str:
    return f"{size / 1_000_000:.1f}"
