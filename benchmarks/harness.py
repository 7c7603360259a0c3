# SPDX-License-Identifier: Apache-2.0
"""What every benchmark shares: how much to do, groups of real replicas, figures against their demands, and tables."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks import procfs
from tests.server.cluster import Cluster, Node

__all__ = [
    "Cluster",
    "Figure",
    "Options",
    "Pair",
    "Plot",
    "Section",
    "Side",
    "Table",
    "alternate",
    "followers",
    "group",
    "percentile",
    "pid_of",
    "replicas_cpu_s",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much to do."""

    quick: bool
    commands: int
    """For the benchmark of boundedness."""
    minutes: float | None = None
    seconds: float | None = None
    """Of one measurement in `rates` and against another revision; what `quick` says if left out."""
    """For those that watch for a while; None: as long as each of them does by itself."""

    def span_s(self, usual: float, quick: float) -> float:
        """How long one measurement takes."""
        return self.seconds or (quick if self.quick else usual)

    def pick(self, usual: int, quick: int) -> int:
        return quick if self.quick else usual


@dataclass(slots=True)
class Figure:
    """One figure that was measured; `at_most` or `at_least` is what is demanded of it, where anything is."""

    what: str
    value: float
    unit: str
    at_most: float | None = None
    note: str = ""
    at_least: float | None = None
    goal: bool = False
    """A demand of speed: it has a row in the table of demands, and when missed it is status 1 if `--strict`."""
    measured: str = ""
    """Of a goal: what was measured, where `value` is its ratio to a floor."""
    floor: str = ""
    """Of a goal: what that is relative to."""

    @property
    def kept(self) -> bool | None:
        if self.at_most is None and self.at_least is None:
            return None
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    @property
    def demand(self) -> str:
        """In words; "" where nothing is demanded."""
        most = "" if self.at_most is None else f"at most {self.at_most:.4g}"
        least = "" if self.at_least is None else f"at least {self.at_least:.4g}"
        return " and ".join(filter(None, (least, most)))


@dataclass(slots=True)
class Table:
    """Figures that belong side by side."""

    heads: list[str]
    rows: list[list[Any]]
    title: str = ""

    def markdown(self) -> str:
        lines = [f"**{self.title}**\n"] if self.title else []
        lines += ["| " + " | ".join(self.heads) + " |", "|" + "---|" * len(self.heads)]
        lines += ["| " + " | ".join(_text(cell) for cell in row) + " |" for row in self.rows]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Plot:
    """What is better seen than read; `svg.py` draws it. Either bars, in groups, or lines over `across`."""

    name: str
    """Of the file, without what comes before the dot's `svg`."""
    title: str
    unit: str
    across: list[str]
    """The groups of bars, or the places on the lower axis."""
    series: dict[str, list[float]]
    """A value for each of `across`."""
    lines: bool = False


@dataclass(slots=True)
class Section:
    """What one benchmark found."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, what: str, value: float, unit: str, at_most: float | None = None, note: str = "") -> None:
        self.figures.append(Figure(what, value, unit, at_most, note))

    def goal(
        self,
        what: str,
        value: float,
        unit: str,
        *,
        measured: str,
        floor: str,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        """A demand of speed, and what it is relative to."""
        note = f"{measured}; {floor}"
        self.figures.append(Figure(what, value, unit, at_most, note, at_least, True, measured, floor))

    def markdown(self) -> str:
        parts = [f"## {self.title}", *self.notes]
        if self.figures:
            rows = [[f.what, f"{_text(f.value)} {f.unit}".strip(), _demand(f), f.note] for f in self.figures]
            parts.append(Table(["what", "measured", "demand", "how"], rows).markdown())
        parts += [table.markdown() for table in self.tables]
        return "\n\n".join(parts)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "figures": [{**asdict(figure), "kept": figure.kept} for figure in self.figures]}


def _demand(figure: Figure) -> str:
    return f"{figure.demand}: {'kept' if figure.kept else '**missed**'}" if figure.demand else ""


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}".replace(",", " ") if type(value) is int else str(value)


# --- groups


@contextlib.contextmanager
def group(*, memory: bool) -> Iterator[Cluster]:
    """Three replicas as processes on loopback, ready and led; nothing of them is left afterwards."""
    with Cluster(3, memory=memory) as cluster:
        cluster.leader()
        yield cluster


def pid_of(node: Node) -> int:
    assert node.process is not None
    return node.process.pid


def followers(cluster: Cluster, leader: Node) -> list[Node]:
    return [node for node in cluster.nodes if node is not leader and node.running]


def replicas_cpu_s(cluster: Cluster) -> float:
    """CPU time of all replicas so far."""
    return sum(procfs.cpu_s(pid_of(node)) for node in cluster.nodes)


# --- comparisons


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: where, and what a round of it is (it returns the seconds that it took)."""

    cluster: Cluster
    round: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Pair:
    """What a comparison gave; the ratios are of the second side to the first."""

    seconds: tuple[float, float]
    """Of one round."""
    cpu_s: tuple[float, float]
    """Of one round, all replicas together."""

    @property
    def time_ratio(self) -> float:
        return self.seconds[1] / self.seconds[0]

    @property
    def cpu_ratio(self) -> float:
        return self.cpu_s[1] / self.cpu_s[0]


def alternate(few: Side, many: Side, rounds: int) -> Pair:
    """ABBAABBA...: whatever the machine does meanwhile, it does to both sides.

    Of each side the lower quartile of its rounds counts: bursts of other work make a round slower, never faster.
    """
    sides = (few, many)
    seconds: tuple[list[float], list[float]] = ([], [])
    cpu: tuple[list[float], list[float]] = ([], [])
    for side in sides:
        side.round()
    for number in range(rounds):
        for index in (0, 1) if number % 2 else (1, 0):
            before = replicas_cpu_s(sides[index].cluster)
            seconds[index].append(sides[index].round())
            cpu[index].append(replicas_cpu_s(sides[index].cluster) - before)
    few_s, many_s = (percentile(values, 0.25) for values in seconds)
    few_cpu_s, many_cpu_s = (percentile(values, 0.25) for values in cpu)
    return Pair((few_s, many_s), (few_cpu_s, many_cpu_s))


def percentile(values: Iterable[float], part: float) -> float:
    ordered: Sequence[float] = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]
