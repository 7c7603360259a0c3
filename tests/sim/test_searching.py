# SPDX-License-Identifier: Apache-2.0
"""The tools around the simulation: one seed is one story in every process, and a failing world is made small."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from tests.sim import __main__ as searching
from tests.sim import mishaps, running, summary
from tests.sim.__main__ import main as search
from tests.sim.replay import main as replay
from tests.sim.running import Options
from tests.sim.summary import NOTHING
from tests.sim.world import World

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (5, 14, 35)
"""Cheap ones."""

TRACES = f"""
from tests.sim.running import run_group
from tests.sim.replay import run
print([run_group(seed).kernel.trace for seed in {SEEDS}], run(11, 3).kernel.trace)
"""


def _traces(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", TRACES], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_seed_is_one_story_whatever_the_hashes_are() -> None:
    """An iteration over a set, in the product or in the simulator, would tell another story in another process."""
    assert _traces("1") == _traces("2")


SHORT = Options(replicas=3, trouble_s=20)


@pytest.fixture
def seed(monkeypatch: pytest.MonkeyPatch) -> int:
    """Of a world that fails: with a planted fault that takes one kind of mishap after another kind."""
    before = mishaps.strike

    def strike(world: World, kind: str, luck: random.Random) -> None:
        before(world, kind, luck)
        assert kind != "mend" or not world.kernel.seen["mishap: cut"], "it was cut and mended"

    monkeypatch.setattr(mishaps, "strike", strike)
    return next(seed for seed in range(100) if running.fails(seed, SHORT))


def test_a_failing_world_is_made_small(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    small = running.shrunk(seed, SHORT)
    plan = small.plan(seed)
    assert [mishap.kind for mishap in plan.mishaps] == ["cut", "mend"]
    assert len(SHORT.plan(seed).parts) > len(plan.parts) == 2, "it takes no client"
    assert replay(small.command(seed).split()[3:]) == 1
    assert "it was cut and mended" in capsys.readouterr().out


def test_a_failure_says_how_to_see_it_again(seed: int) -> None:
    with pytest.raises(AssertionError) as raised:
        running.run_group(seed, SHORT)
    (note,) = raised.value.__notes__
    assert f"see it again with: python -m tests.sim.replay group {seed} --replicas 3 --seconds 20" in note


def test_a_story_can_be_told_of_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(["group", "6", "--seconds", "3", "--object", "lock a", "--lines", "100000"]) == 0
    told = capsys.readouterr().out
    assert "'acquire'" in told
    assert "'put'" not in told


def test_a_search_ends_with_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert search(["--worlds", "4", "--jobs", "2"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("4 worlds, ")
    assert told.endswith("none failed\n")


def test_a_search_tells_at_once_which_world_failed_and_of_what(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        error = AssertionError("somebody waits for ever\nand this is the story")
        error.add_note("\nsee it again with: a command")
        raise error
    except AssertionError:
        failure = traceback.format_exc()
    monkeypatch.setattr(searching, "_results", lambda _: [(NOTHING, [(7, failure)])])
    monkeypatch.setattr(searching, "SHRINK_AT_MOST", 0)
    monkeypatch.setattr(searching, "PROGRESS_S", 0.0)
    assert search([]) == 1
    told = capsys.readouterr()
    assert told.err == "seed 7 failed: AssertionError: somebody waits for ever\nafter 0 minutes: 0 worlds, 1 failed\n"
    assert "see it again with: a command" in told.out
    assert told.out.endswith("1 failed\n")


def test_the_summary_names_what_was_never_met() -> None:
    assert "TakeOver" in NOTHING.never
    assert any(line.split() == ["TakeOver", "NEVER"] for line in NOTHING.lines())
    assert {"Call", "Accept", "Forward", "mishap: crash"} <= {*summary.expected()}
