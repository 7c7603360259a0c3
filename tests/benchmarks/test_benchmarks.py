# SPDX-License-Identifier: Apache-2.0
"""The benchmarks of speed run, and judge: each at a tiny size, with no word about how fast anything is."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import demands, placing, rates, svg
from benchmarks.harness import Figure, Plot, Section
from benchmarks.placing import Placement
from tests.server.cluster import ROOT

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmarks are for Linux only")

in_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="there are no revisions here")
TINY = ("--quick", "--seconds", "0.03")
RUN_S = 60
"""Far beyond what it takes: a machine may be busy."""


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *TINY, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_S, check=False)


def test_the_benchmarks_of_speed_give_figures_tables_and_plots(tmp_path: Path) -> None:
    """Every figure is a positive number, each kind of object was measured, and what is asked stands beside it."""
    found = tmp_path / "found.json"
    result = bench("pair", "rates", "raw", "--json", str(found), "--svg", str(tmp_path / "plots"))
    assert result.returncode == 0, result.stdout + result.stderr
    sections = json.loads(found.read_text())
    for name in ("pair", "rates", "raw"):
        figures = sections[name]["figures"]
        assert figures, name
        assert all(figure["goal"] and figure["measured"] and figure["floor"] for figure in figures)
        assert all(math.isfinite(figure["value"]) and figure["value"] >= 0 for figure in figures)
        assert isinstance(figures[0]["kept"], bool)
    rows = sections["rates"]["tables"][0]["rows"]
    assert [row[0] for row in rows] == list(rates.CELLS)
    placements = {row[1] for row in sections["pair"]["tables"][1]["rows"]}
    assert placements == {placement.value for placement in placing.possible()}
    assert [row[1] for row in sections["raw"]["tables"][0]["rows"]] == [1, 16, 64]
    assert "The demands of speed" in result.stdout
    drawn = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert drawn == ["performance-pair.svg", "performance-rates.svg"]
    for path in (tmp_path / "plots").iterdir():
        ET.parse(path)


@in_git
def test_another_revision_is_measured_beside_this_one_and_leaves_nothing() -> None:
    """Its replicas and clients are of its own worktree, which is gone afterwards."""
    before = worktrees()
    result = bench("--base", "HEAD", "pair", "hand-offs-8")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "| pair | p50 us |" in result.stdout
    ratios = re.findall(r"\| (\d+\.\d\d) \| \d+\.\d\d \| \d+\.\d\d \|$", result.stdout, re.MULTILINE)
    assert len(ratios) >= 10
    assert worktrees() <= before


def worktrees() -> set[str]:
    listing = ["git", "worktree", "list", "--porcelain"]
    text = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^worktree (.*)$", text, re.MULTILINE))


@in_git
def test_a_revision_that_there_is_not_is_refused_in_a_sentence() -> None:
    result = bench("--base", "no-such-revision")
    assert result.returncode == 1
    assert "no-such-revision" in result.stderr
    assert "Traceback" not in result.stderr


def goal(value: float, **bounds: float) -> Figure:
    section = Section("")
    section.goal("a thing", value, "x", measured="1 ms", floor="RTT 50 us", **bounds)
    return section.figures[0]


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [
        (goal(2.4, at_most=2.5), "kept"),
        (goal(2.6, at_most=2.5), "**missed**"),
        (goal(0.8, at_least=0.7), "kept"),
        (goal(0.6, at_least=0.7), "**missed**"),
        (goal(math.nan, at_least=0.7), "not measured"),
    ],
)
def test_the_table_of_demands_says_what_is_missed(figure: Figure, verdict: str) -> None:
    """Also the measured figure, what it is relative to, the ratio and what was asked."""
    row = demands.table([figure]).rows[0]
    assert row[-1] == verdict
    assert row[:3] == ["a thing", "1 ms", "RTT 50 us"]
    assert row[4] == figure.demand


def test_demands_against_peers_come_from_their_results() -> None:
    """Less time is better and more in a second is; what was not measured is neither kept nor missed."""
    ours = {"W1": {"p50_us": 500.0}, "W2 16": {"ops_per_s": 9000.0}}
    systems = {
        "dthreading": {"cells": ours},
        "etcd": {"cells": {"W1": {"p50_us": 1500.0}}},
        "redis-always": {"cells": {"W2 16": {"ops_per_s": 6000.0}}},
    }
    verdicts = {row[0]: row[-1] for row in demands.table(demands.against_peers({"systems": systems})).rows}
    assert verdicts["durable pair p50, against etcd"] == "**missed**"
    assert verdicts["pairs/s, 16 clients, against Redis with fsync"] == "kept"
    assert verdicts["queue 4x4, against PySyncObj"] == "not measured"


@pytest.mark.parametrize("lines", [False, True])
def test_a_plot_is_well_formed_and_labelled(lines: bool) -> None:
    """Title, unit, what is across and what each colour means; and colours for a dark page."""
    plot = Plot("x", "Pairs & <more>", "us", ["one", "two"], {"floor": [10.0, 1000.0], "pair": [25.0, 1.5]}, lines)
    text = svg.draw(plot)
    root = ET.fromstring(text)
    words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"Pairs & <more>", "us", "one", "two", "floor", "pair", "1 000"} <= words
    assert "prefers-color-scheme:dark" in text
    for element in root.iter():
        for name in ("y", "cy", "y1"):
            assert 0 <= float(element.get(name, 0)) <= svg.HEIGHT


def test_placements_part_the_leader_from_the_others() -> None:
    """SAME is one CPU for all; DIFF has two, with nothing in common; free is anywhere."""
    assert placing.leader_cpus(Placement.SAME) == placing.other_cpus(Placement.SAME)
    assert placing.other_cpus(Placement.FREE) == placing.ALL
    if Placement.DIFF in placing.possible():
        assert not placing.leader_cpus(Placement.DIFF) & placing.other_cpus(Placement.DIFF)
