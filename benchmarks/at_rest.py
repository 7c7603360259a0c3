# SPDX-License-Identifier: Apache-2.0
"""A hundred thousand named objects that nobody touches: what a pair on another one takes beside them, and their memory.

Half of the claim is about objects that are somewhere else than at their beginning (events that are set): they must be
kept, and cost memory and nothing else. The other half is about objects back at their beginning: they cost nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from benchmarks import procfs
from benchmarks.crowd import Crowd, Member, Stream, lock, pump
from benchmarks.footprint import PAST_SNAPSHOT, STREAMS
from benchmarks.harness import Cluster, Options, Section, Side, Table, alternate, followers, group, percentile, pid_of
from benchmarks.worker import Worker
from dthreading.session import CHANGE, READ, Manner, Target
from dthreading.wire.messages import Lifetime

RATIO_MAX = 1.05
KEPT_BYTES_MAX = 1000
GONE_BYTES_MAX = 100
"""Of an object that is not there any more: what so many of them may leave by chance, two megabytes."""
GLANCES = 20_000
PAIRS = 30
AT_ONCE = 1000


@dataclass(slots=True)
class Probe:
    """Rounds of pairs, and how long each pair took."""

    worker: Worker
    times: list[float] = field(default_factory=list)

    def round(self) -> float:
        """One round: its median."""
        latencies = self.worker.ask("latencies", PAIRS)
        self.times += latencies
        return percentile(latencies, 0.5)


def run(options: Options) -> Section:
    count, rounds = options.pick(100_000, 10_000), options.pick(60, 12)
    section = Section(f"{count:,} idle named objects".replace(",", " "))
    section.notes.append(
        "Two groups of three in memory, measured in turns: one with a single lock, one that holds besides it so many"
        " events, each named, set, and attached to by one session. The time is the median pair of a round, lower"
        " quartile of the rounds; CPU is of all three replicas together. *same*: before the second group had them."
        " Memory is a replica's growth, the entries of the log kept out of it as in the benchmark of the footprint."
    )
    with contextlib.ExitStack() as stack:
        small, large = (stack.enter_context(group(memory=True)) for _ in range(2))
        probes = [Probe(stack.enter_context(Worker(each))) for each in (small, large)]
        crowd = stack.enter_context(Crowd(large))
        for probe in probes:
            probe.worker.ask("locks", "one")
        few, many = (Side(each, probe.round) for each, probe in zip((small, large), probes, strict=True))
        rows: list[list[object]] = []

        def compare(what: str, demand: float | None) -> None:
            for probe in probes:
                probe.times.clear()
            found = alternate(few, many, rounds)
            worst = [max(probe.times) * 1e3 for probe in probes]
            p99 = [percentile(probe.times, 0.99) * 1e6 for probe in probes]
            times = [seconds * 1e6 for seconds in found.seconds]
            rows.append([what, *times, found.time_ratio, found.cpu_ratio, *p99, *worst])
            section.add(f"pair: {what}", found.time_ratio, "x the p50", demand)
            section.add("", found.cpu_ratio, "x the replicas' CPU", demand)

        compare("same", None)
        member = crowd.open(1)[0]
        busy = [Stream(each, lock(f"busy {i}")) for i, each in enumerate(crowd.open(STREAMS))]
        if not options.quick:
            pump(crowd, busy, PAST_SNAPSHOT)
        grown = partial(_grown, section, crowd, large, busy, held=not options.quick)
        events = [_event(number) for number in range(count)]
        grown("event that is set", count, KEPT_BYTES_MAX, lambda: _call(crowd, member, events, "set", CHANGE))
        glances, there = options.pick(GLANCES, GLANCES // 10), large.leader().ask("status")["objects"]
        _glance(crowd, member, glances)  # the room for the entries of all that; what is left of objects comes again
        grown("lock that was made and let go of", glances, GONE_BYTES_MAX, lambda: _glance(crowd, member, glances))
        section.add("objects left of those", large.leader().ask("status")["objects"] - there, "", 0)
        compare(f"1 object, {count} idle ones besides", None if options.quick else RATIO_MAX)
    heads = ["pair", "us, one", "us, many", "ratio", "CPU ratio", "p99 us, one", "p99, many", "worst ms, one", "many"]
    section.tables.append(Table(heads, rows))
    return section


def _event(number: int) -> Target:
    return Target("bench", f"event {number}", "Event", (), Lifetime.NAMED)


def _grown(
    section: Section,
    crowd: Crowd,
    cluster: Cluster,
    busy: list[Stream],
    what: str,
    count: int,
    bound: float,
    add: Callable[[], None],
    *,
    held: bool,
) -> None:
    """The memory that `add` takes for each of so many; held to it where the entries of the log have their room."""
    before = _memory(cluster)
    add()
    pump(crowd, busy, 2 * STREAMS)
    grown = [(now - then) / count for now, then in zip(_memory(cluster), before, strict=True)]
    note = f"leader {grown[0]:.0f}, follower {grown[1]:.0f}"
    section.add(f"memory: {what}", max(grown), "bytes", bound if held else None, f"{note}; of {count}")


def _memory(cluster: Cluster) -> tuple[int, int]:
    leader = cluster.leader()
    return procfs.rss_bytes(pid_of(leader)), procfs.rss_bytes(pid_of(followers(cluster, leader)[0]))


def _call(crowd: Crowd, member: Member, targets: list[Target], operation: str, manner: Manner) -> None:
    for first in range(0, len(targets), AT_ONCE):
        part = targets[first : first + AT_ONCE]
        answered: list[object] = []
        for target in part:
            member.call(target, operation, (), manner, answered.append)
        crowd.until(lambda: len(answered) == len(part))  # noqa: B023 - it is called at once


def _glance(crowd: Crowd, member: Member, count: int) -> None:
    """Makes, looks at and lets go of so many locks."""
    for first in range(0, count, AT_ONCE):
        part = [lock(f"glanced at {number}") for number in range(first, first + AT_ONCE)]
        _call(crowd, member, part, "locked", READ)
        for target in part:
            member.session.detach(target)
        crowd.touched[member.link.fileno()] = member
