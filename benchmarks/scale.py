# SPDX-License-Identifier: Apache-2.0
"""A thousand locks, a thousand sessions, ten thousand waiters on one lock: each call costs what it costs with one.

Two groups stand side by side, one with little in it and one with much, and take turns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from benchmarks.crowd import Crowd, Ring
from benchmarks.harness import Options, Section, Side, Table, alternate, group
from benchmarks.worker import Worker

LOCKS = 1000
SESSIONS = 1000
WAITERS_FEW, WAITERS_MANY = 10, 10_000
RING_MEMBERS = 10
RATIO_MAX = 1.2
LEASE_MS = 10_000
"""The default: each session sends a keepalive each 3.3 s, and that is part of what a thousand of them cost."""


def run(options: Options) -> Section:
    section = Section("Scale: the cost of a call does not depend on how much else there is")
    section.notes.append(
        "Two groups of three replicas in memory, little in the one and much in the other, measured in turns. The CPU"
        " ratio is of all three replicas together. *same* has the same on both sides, and so shows what the ratio of"
        " two equal things looks like on this machine."
    )
    rounds, pairs = options.pick(40, 12), 40
    rows = []

    def compare(what: str, few: Side, many: Side, calls: int, demand: float | None) -> None:
        found = alternate(few, many, rounds)
        each_us = [seconds / calls * 1e6 for seconds in found.seconds]
        rows.append([what, *each_us, found.time_ratio, *(cpu / calls * 1e6 for cpu in found.cpu_s), found.cpu_ratio])
        section.add(what, found.time_ratio, "x the time", demand)
        section.add("", found.cpu_ratio, "x the replicas' CPU", demand)

    with contextlib.ExitStack() as stack:
        small, large = (stack.enter_context(group(memory=True)) for _ in range(2))
        few, many = (stack.enter_context(Worker(each)) for each in (small, large))
        crowds = [stack.enter_context(Crowd(each)) for each in (small, large)]

        def pair(worker: Worker) -> Callable[[], float]:
            return lambda: float(worker.ask("pairs", pairs))

        left = Side(small, pair(few))
        right = Side(large, pair(many))
        for worker in (few, many):
            worker.ask("locks", "one")
        compare("pair: same", left, right, pairs, None)
        many.ask("locks", *(f"lock {number}" for number in range(LOCKS)))
        compare(f"pair: 1 lock, {LOCKS} locks in turn", left, right, pairs, RATIO_MAX)
        many.ask("locks", "one")
        with Crowd(large, LEASE_MS) as crowd:
            crowd.open(SESSIONS)

            def among_sessions() -> float:
                many.start("pairs", pairs)
                crowd.until(lambda: many.has_answered)  # and send the keepalives of all meanwhile
                return float(many.answer())

            compare(f"pair: 1 session, {SESSIONS + 1} sessions", left, Side(large, among_sessions), pairs, RATIO_MAX)
        rings = [
            Ring(crowd, crowd.open(RING_MEMBERS), waiters, "ring")
            for crowd, waiters in zip(crowds, (WAITERS_FEW, WAITERS_MANY), strict=True)
        ]
        what = f"{WAITERS_FEW}, {WAITERS_MANY} waiters on one lock"
        compare(f"pair on another lock: {what}", left, right, pairs, RATIO_MAX)
        left = Side(small, lambda: rings[0].hand_over(2 * pairs))
        right = Side(large, lambda: rings[1].hand_over(2 * pairs))
        compare(f"hand-off: {what}", left, right, 2 * pairs, RATIO_MAX)
    heads = ["", "us, few", "us, many", "ratio", "CPU us, few", "CPU us, many", "ratio"]
    section.tables.append(Table(heads, rows, "Lower quartiles of the rounds, for one pair or one hand-off"))
    return section
