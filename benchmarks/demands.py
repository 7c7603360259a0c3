# SPDX-License-Identifier: Apache-2.0
"""The demands of speed, kept or missed, in one table; those against other lock services from what peers/ measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import Figure, Table

SUBJECT = "dthreading"


@dataclass(frozen=True, slots=True)
class AgainstPeer:
    """One demand: `key` in `cell` of ours and of the peer's, and how many times better ours must be."""

    what: str
    peer: str
    cell: str
    key: str
    unit: str
    times: float
    more_is_better: bool


PEERS = (
    AgainstPeer("durable pair p50, against etcd", "etcd", "W1", "p50_us", "us", 4, False),
    AgainstPeer("pairs/s, 16 clients, against Redis with fsync", "redis-always", "W2 16", "ops_per_s", "/s", 1, True),
    AgainstPeer("pairs/s, 64 clients, against Redis with fsync", "redis-always", "W2 64", "ops_per_s", "/s", 1, True),
    AgainstPeer("queue 4x4, against PySyncObj", "pysyncobj", "W4 4x4", "ops_per_s", "/s", 10, True),
    AgainstPeer("barrier of 8, against ZooKeeper", "zookeeper", "W7", "ops_per_s", "/s", 30, True),
    AgainstPeer(
        "server CPU of 1000 pairs, 16 clients, against etcd",
        "etcd",
        "W2 16",
        "server_cpu_s_per_1000",
        " s",
        3,
        False,
    ),
)


def against_peers(results: dict[str, Any]) -> list[Figure]:
    """A figure for each of `PEERS`: how many times better ours is. Without one of the two there is none (NaN)."""
    found = []
    for each in PEERS:
        ours, theirs = (_value(results, system, each) for system in (SUBJECT, each.peer))
        if ours and theirs:
            times = ours / theirs if each.more_is_better else theirs / ours
            measured, floor = f"{ours:.4g}{each.unit}", f"{each.peer} {theirs:.4g}{each.unit}"
        else:
            times, measured, floor = float("nan"), "not measured", each.peer
        found.append(
            Figure(each.what, times, "x", at_least=each.times, goal=True, measured=measured, floor=floor),
        )
    return found


def _value(results: dict[str, Any], system: str, wanted: AgainstPeer) -> float | None:
    value = results["systems"].get(system, {}).get("cells", {}).get(wanted.cell, {}).get(wanted.key)
    return value if isinstance(value, float | int) else None


def table(goals: list[Figure]) -> Table:
    """A row for each: what was measured, beside what, and whether that is what was promised."""
    rows = []
    for figure in goals:
        unknown = math.isnan(figure.value)
        verdict = "not measured" if unknown else "kept" if figure.kept else "**missed**"
        ratio = "" if unknown or figure.floor.startswith("none") else figure.value
        rows.append([figure.what, figure.measured, figure.floor, ratio, figure.demand, verdict])
    return Table(["demand", "measured", "relative to", "ratio", "asked", ""], rows, "The demands of speed")
