# SPDX-License-Identifier: Apache-2.0
"""What many clients get done in a second: own locks and one of all, permits, a condition, a barrier, queues."""

from __future__ import annotations

import os
from collections.abc import Callable

from benchmarks import placing
from benchmarks.fleet import Fleet, Found, Tasks, spread
from benchmarks.floors import Floors, Relay
from benchmarks.harness import Options, Plot, Section, Table, group
from benchmarks.placing import Placement

OWN = (1, 4, 16, 64)
SHARED = (2, 8, 32)
PERMITS = 8
PARTIES = 8
HAND_OFFS_MIN = 0.7
FAIRNESS_MAX = 1.05
TURNS = 60
"""For each client, if the machine manages so many: a window's ends give one turn more to some, which is no favour."""


def own(fleet: Fleet, clients: int) -> Tasks:
    name = fleet.name("own")
    return spread(clients, "Pairs", lambda number: {"name": f"{name} {number}"})


def shared(fleet: Fleet, clients: int) -> Tasks:
    name, page = fleet.name("shared"), fleet.page()
    return spread(clients, "Shared", lambda _: {"name": name, "page": page})


def permits(fleet: Fleet, clients: int) -> Tasks:
    name = fleet.name("permits")
    return spread(clients, "Pairs", lambda _: {"name": name, "permits": PERMITS})


def ping_pong(fleet: Fleet, clients: int) -> Tasks:
    name, page = fleet.name("condition"), fleet.page()
    return spread(clients, "PingPong", lambda _: {"name": name, "page": page})


def meeting(fleet: Fleet, clients: int) -> Tasks:
    name, page = fleet.name("barrier"), fleet.page()
    return spread(clients, "Meeting", lambda _: {"name": name, "page": page, "parties": clients})


def queue(fleet: Fleet, each: int) -> Tasks:
    """So many processes that put, and as many that get."""
    name = fleet.name("queue")
    return [[(role, {"name": name})] for role in ("Producer", "Consumer") for _ in range(each)]


def _rate(found: Found) -> float:
    return found.rate


def _cycles(found: Found) -> float:
    return found.rate / PARTIES


CELLS: dict[str, tuple[Callable[[Fleet, int], Tasks], int, Callable[[Found], float]]] = {
    **{f"pairs/s, own locks, clients: {n}": (own, n, _rate) for n in OWN},
    **{f"hand-offs/s, one lock, clients: {n}": (shared, n, lambda found: found.hand_offs) for n in SHARED},
    f"semaphore({PERMITS}), 32 clients, pairs/s": (permits, 32, _rate),
    "condition ping-pong, turns/s": (ping_pong, 2, _rate),
    f"barrier of {PARTIES}, cycles/s": (meeting, PARTIES, _cycles),
    "queue 1x1, items/s": (queue, 1, _rate),
    "queue 4x4, items/s": (queue, 4, _rate),
}
"""What is measured: how the tasks are made, of how many, and what of it is the rate."""


def run(options: Options) -> Section:
    section = Section("What many clients get done")
    section.notes.append(
        "Clients are threads of processes: 1x1, 4x1, 4x4, 8x8 with locks of their own; 2x1, 4x2, 8x4 on one lock, with"
        " nothing done inside; 8x4 on the semaphore; 4x2 at the barrier; each end of a queue of 100 places a process of"
        " its own, 100 bytes an item. Unpinned. CPU is for each pair, turn, wait or item. A hand-off is an acquisition"
        " by another client than the last one; max/min is of the turns of the most and the least served client."
        f" Load {os.getloadavg()[0]:.1f}."
    )
    rates: dict[str, dict[str, float]] = {}
    for mode in ("durable",) if options.quick else ("memory", "durable"):
        rates[mode] = _mode(section, mode, options)
    series = {mode: [found[f"pairs/s, own locks, clients: {n}"] for n in OWN] for mode, found in rates.items()}
    title = "Lock pairs a second, by the number of clients"
    section.plots.append(Plot("performance-rates", title, "pairs/s", [str(n) for n in OWN], series, lines=True))
    return section


def _mode(section: Section, mode: str, options: Options) -> dict[str, float]:
    seconds = options.span_s(3.0, 0.5)
    rows, rates, hand_offs = [], {}, 0.0
    with group(memory=mode == "memory") as cluster, Fleet(cluster, cluster.leader()) as fleet:
        for what, (tasks, count, rate) in CELLS.items():
            is_fairness = tasks is shared and count == max(SHARED)
            span_s = seconds
            if is_fairness and not options.seconds:
                # What eight clients managed a moment ago is what more of them do.
                span_s = min(options.pick(12, 3), max(seconds, TURNS * count / max(1.0, hand_offs)))
            found = fleet.run(tasks(fleet, count), span_s)
            rates[what] = rate(found)
            hand_offs = rates[what]
            fairness = found.fairness if tasks is shared else ""
            costs = [found.cpu_us(who) for who in ("leader", "followers", "clients")]
            rows.append([what, rates[what], fairness, *costs])
            if is_fairness and mode == "durable":
                counts = [result["done"] for result in found.results]
                section.goal(
                    "max/min per client, 32 on one lock",
                    found.fairness,
                    "x",
                    measured=f"{max(counts)} and {min(counts)} turns",
                    floor="none: absolute",
                    at_most=FAIRNESS_MAX,
                )
        if mode == "durable":
            _hand_offs(section, fleet, options)
    heads = ["", "a second", "max/min", "leader CPU us", "followers CPU us", "clients CPU us"]
    section.tables.append(Table(heads, rows, mode.capitalize()))
    return rates


def _hand_offs(section: Section, fleet: Fleet, options: Options) -> None:
    """Eight clients on one lock, pinned as the floors are, and in turns with them."""
    placement = Placement.DIFF if Placement.DIFF in placing.possible() else Placement.SAME
    rates = []
    with Relay(1) as round_trip, Relay(2) as chain:
        floors = Floors(round_trip, chain)
        for _ in range(options.pick(5, 2)):
            floors.take(placement, options.pick(300, 100))
            found = fleet.run(shared(fleet, 8), options.span_s(1.0, 0.5), placement=placement)
            rates.append(found.hand_offs)
    chain_s, sync_s = (floors.median_s(name, placement) for name in ("chain", "sync"))
    rate = sorted(rates)[len(rates) // 2]
    section.goal(
        f"hand-offs/s, 8 clients, durable, {placement.name}",
        rate * (chain_s + sync_s),
        "x the floor's",
        measured=f"{rate:.0f}/s",
        floor=f"1 / (chain {chain_s * 1e6:.0f} + fdatasync {sync_s * 1e6:.0f} us) = {1 / (chain_s + sync_s):.0f}/s",
        at_least=HAND_OFFS_MIN,
    )
