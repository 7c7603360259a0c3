# SPDX-License-Identifier: Apache-2.0
"""The time of one client's lock pair, beside the floors: in memory and durable, in each placement of the processes.

Floors and pairs are taken in turns, a slice of each, so whatever the machine does meanwhile it does to both.
"""

from __future__ import annotations

import os

from benchmarks import placing
from benchmarks.fleet import Fleet
from benchmarks.floors import Floors, Relay
from benchmarks.harness import Options, Plot, Section, Table, group, percentile
from benchmarks.placing import Placement

DURABLE_MAX, MEMORY_MAX = 2.5, 6.0
COMMANDS = 2
"""In a pair."""


def run(options: Options) -> Section:
    section = Section("A lock pair of one client")
    section.notes.append(
        "A round trip is a loopback ping-pong of two processes, the chain a blocking relay from a client through a"
        " leader to a follower and back, the sync an fdatasync of 4 KB that were written into a preallocated file. All"
        " were taken in the same run, in turns with the pairs and in the same placement. The floor of a pair in memory"
        f" is {COMMANDS} chains, of a durable one {COMMANDS} chains and {COMMANDS} syncs."
        f" Load {os.getloadavg()[0]:.1f}."
    )
    with Relay(1) as round_trip, Relay(2) as chain:
        floors = Floors(round_trip, chain)
        times = {mode: _times(mode == "memory", floors, options) for mode in ("memory", "durable")}
    _tell(section, times, floors)
    return section


def _times(memory: bool, floors: Floors, options: Options) -> dict[Placement, list[float]]:
    found: dict[Placement, list[float]] = {placement: [] for placement in placing.possible()}
    rounds, seconds = options.pick(6, 2), options.span_s(0.8, 0.3)
    with group(memory=memory) as cluster, Fleet(cluster, cluster.leader()) as fleet:
        name = fleet.name("pair")
        for number in range(rounds):
            for placement in found if number % 2 else reversed(found):
                floors.take(placement, options.pick(300, 100))
                task = ("Pairs", {"name": name, "times": True})
                found[placement] += fleet.run([[task]], seconds, warm_s=0.1, placement=placement).times
    return found


def _tell(section: Section, times: dict[str, dict[Placement, list[float]]], floors: Floors) -> None:
    names = ("round trip", "chain", "sync")
    rows = []
    for placement in times["memory"]:
        median_us = {name: floors.median_s(name, placement) * 1e6 for name in names}
        rows.append([placement.value, *(v for n in names for v in (median_us[n], floors.p99_s(n, placement) * 1e6))])
    heads = [head for name in names for head in (f"{name}, us", "p99")]
    section.tables.append(Table(["", *heads], rows, "Floors"))
    rows, labels = [], []
    bars: dict[str, list[float]] = {"floor": [], "pair, median": []}
    for mode, by_placement in times.items():
        for placement, found in by_placement.items():
            trip_us, chain_us, sync_us = (floors.median_s(name, placement) * 1e6 for name in names)
            p50_us, p99_us = (percentile(found, part) * 1e6 for part in (0.5, 0.99))
            floor_us = COMMANDS * (chain_us + (sync_us if mode == "durable" else 0))
            rows.append([mode, placement.value, p50_us, p99_us, p50_us / trip_us, floor_us, p50_us / floor_us])
            labels.append(f"{mode}, {'unpinned' if placement is Placement.FREE else placement.name}")
            bars["floor"].append(floor_us)
            bars["pair, median"].append(p50_us)
            if placement is Placement.DIFF and mode == "durable":
                section.goal(
                    "durable pair, DIFF",
                    p50_us / floor_us,
                    "x the floor",
                    measured=f"{p50_us:.0f} us",
                    floor=f"2 x (chain {chain_us:.0f} + fdatasync {sync_us:.0f}) = {floor_us:.0f} us",
                    at_most=DURABLE_MAX,
                )
            elif placement is Placement.DIFF:
                section.goal(
                    "memory pair, DIFF",
                    p50_us / trip_us,
                    "x RTT",
                    measured=f"{p50_us:.0f} us",
                    floor=f"loopback RTT {trip_us:.0f} us",
                    at_most=MEMORY_MAX,
                )
    heads = ["", "placement", "p50, us", "p99, us", "to RTT", "floor, us", "to its floor"]
    section.tables.append(Table(heads, rows, "Pairs"))
    title = "A lock pair of one client, and what the machine itself takes"
    section.plots.append(Plot("performance-pair", title, "us", labels, bars))
