# SPDX-License-Identifier: Apache-2.0
"""The working tree against another revision: groups of both side by side, measured in turns within one run.

The other revision is checked out into a temporary git worktree; of it come replicas, clients and the command line, of
this tree the script that says what clients do. So it works for any revision whose command line is the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import rates
from benchmarks.fleet import Fleet, Found, Tasks, spread
from benchmarks.harness import Options, Section, Table, percentile
from tests.server.cluster import READY_S, ROOT, Cluster, Node

BASE, NOW = 0, 1


def pair(fleet: Fleet, clients: int) -> Tasks:
    name = fleet.name("timed")
    return spread(clients, "Pairs", lambda number: {"name": f"{name} {number}", "times": True})


CELLS: dict[str, tuple[Callable[[Fleet, int], Tasks], int]] = {
    "pair": (pair, 1),
    "pairs-16": (pair, 16),
    "hand-offs-8": (rates.shared, 8),
    "queue-4x4": (rates.queue, 4),
}
"""By name, with the number of clients."""


def run(revision: str, names: list[str], options: Options) -> int:
    """Measure these cells, or all, and print; the exit status."""
    with worktree(revision) as tree:
        section = compare(revision, tree, names or list(CELLS), options)
    print(section.markdown())
    return 0


@contextlib.contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """That revision in a folder of its own, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="dthreading-base-") as folder:
        path = Path(folder) / "tree"
        _git("worktree", "add", "--quiet", "--detach", str(path), revision)
        try:
            yield path
        finally:
            _git("worktree", "remove", "--force", str(path))


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"git {' '.join(arguments[:2])}: {result.stderr.strip()}")
    return result.stdout.strip()


@contextlib.contextmanager
def _group(tree: Path, *, memory: bool) -> Iterator[Fleet]:
    """A group of the code in `tree`, and its clients."""
    cluster = Cluster(3, memory=memory)
    # Without the current directory on the path nothing but the tree is found.
    cluster.environment |= {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
    with cluster, Fleet(cluster, _leader(cluster)) as fleet:
        yield fleet


def _leader(cluster: Cluster) -> Node:
    """By that revision's own command line: what a replica says to an operator may have been other words then."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        command = [sys.executable, "-m", "dthreading.cli", "status", "--json"]
        environment = cluster.client_environment()
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        for node in cluster.nodes:
            if result.returncode == 0 and _leads(result.stdout, node.address):
                return node
    raise TimeoutError(f"no leader after {READY_S} s: {result.stdout} {result.stderr}")


def _leads(answer: str, address: str) -> bool:
    replicas = json.loads(answer)
    replicas = replicas.get("replicas", replicas) if isinstance(replicas, dict) else replicas
    return any(each.get("address") == address and each.get("role") == "leader" for each in replicas)


def compare(revision: str, tree: Path, names: list[str], options: Options) -> Section:
    """Both sides in each mode, cell by cell, ABBA."""
    commit = _git("rev-parse", "--short", revision)
    rounds = options.pick(8, 2)
    seconds = options.span_s(1.0, 0.3)
    section = Section(f"This working tree against {revision} ({commit})")
    section.notes.append(
        f"Groups of both stand side by side and are measured in turns (ABBA), {rounds} rounds of {seconds:g} s each."
        " A ratio is this tree's to the other's, the median over the rounds, with the least and the greatest. Unpinned."
        f" Load {os.getloadavg()[0]:.1f}."
    )
    for mode in ("durable",) if options.quick else ("memory", "durable"):
        rows = []
        with contextlib.ExitStack() as stack:
            sides = [stack.enter_context(_group(each, memory=mode == "memory")) for each in (tree, ROOT)]
            for what in names:
                tasks, count = CELLS[what]
                found = _turns(sides, tasks, count, rounds, seconds)
                rows += _rows(what, found)
        heads = ["", "figure", revision, "now", "ratio", "least", "greatest"]
        section.tables.append(Table(heads, rows, mode.capitalize()))
    return section


def _turns(
    sides: list[Fleet], tasks: Callable[[Fleet, int], Tasks], count: int, rounds: int, seconds: float
) -> list[tuple[Found, Found]]:
    found = []
    for number in range(rounds):
        order = (BASE, NOW) if number % 2 else (NOW, BASE)
        one = {side: sides[side].run(tasks(sides[side], count), seconds, warm_s=0.2) for side in order}
        found.append((one[BASE], one[NOW]))
    return found


def _rows(what: str, found: list[tuple[Found, Found]]) -> list[list[object]]:
    figures: dict[str, Callable[[Found], float]] = {
        "a second": lambda each: each.rate,
        "replicas' CPU us": lambda each: each.cpu_us("leader", "followers"),
        "leader's CPU us": lambda each: each.cpu_us("leader"),
        "clients' CPU us": lambda each: each.cpu_us("clients"),
    }
    if all(each.times for both in found for each in both):
        figures = {
            "p50 us": lambda each: percentile(each.times, 0.5) * 1e6,
            "p99 us": lambda each: percentile(each.times, 0.99) * 1e6,
            **figures,
        }
    rows: list[list[object]] = []
    for name, value in figures.items():
        base, now = ([value(both[side]) for both in found] for side in (BASE, NOW))
        ratios = sorted(b / max(a, 1e-9) for a, b in zip(base, now, strict=True))
        spread = [statistics.median(ratios), ratios[0], ratios[-1]]
        rows.append([what, name, statistics.median(base), statistics.median(now), *(f"{each:.2f}" for each in spread)])
    return rows
