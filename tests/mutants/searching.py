# SPDX-License-Identifier: Apache-2.0
"""Runs trials in processes of their own and reads what they say; how a bug is searched for, seed after seed."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from tests.mutants.catalogue import ROOT, Bug
from tests.mutants.records import Recorded, World
from tests.mutants.trial import BROKEN, NO_BUG

CATCHES: Final = 2
"""Failing worlds that are compared, so that the one that is recorded is cheap to run again."""


def run_units(pairs: Sequence[tuple[str, str]], *, control: bool = False) -> list[Outcome]:
    """Runs each of these tests with that bug planted; with `control` all together, with the same modules
    as they are.
    """
    command = [sys.executable, "-m", "tests.mutants.units", *[f"{bug}={test}" for bug, test in pairs]]
    command += ["--control"] if control else []
    ended = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [Outcome(**json.loads(line)) for line in ended.stdout.splitlines() if line.startswith("{")]


class Outcome(NamedTuple):
    """How tests ended that were run with a bug planted; as units.py prints it."""

    bug: str
    failed: str | None
    """The first test that failed."""
    ran: int
    broken: str | None
    """Why this proves nothing."""

    @property
    def caught(self) -> bool:
        """Whether a test failed, and for a reason that counts."""
        return self.failed is not None and self.broken is None


class Found(NamedTuple):
    """How the search for one bug ended."""

    bug: Bug
    recorded: Recorded
    cpu_s: float
    trouble: str = ""
    """Why nothing can be said of it: the bug does not fit the product any more, or its trial could not begin."""


def trial(bug: str, worlds: Sequence[str], catches: int = 1) -> list[World]:
    """Runs these worlds with that bug planted, in a process of their own, until so many have failed."""
    command = [sys.executable, "-m", "tests.mutants.trial", bug, *worlds, "--catches", str(catches)]
    # What a str hashes to must not differ from one run of a seed to the next.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    ran = [World(**json.loads(line)) for line in ended.stdout.splitlines() if line.startswith("{")]
    if ended.returncode:
        if not ran and "most recent call first" not in ended.stderr:
            raise RuntimeError(f"the trial of {bug!r} could not begin:\n{ended.stderr}")
        # The process itself has ended, in the world after the last that it told of.
        simulation, _, seed = worlds[len(ran)].partition(":")
        last = (ended.stderr.strip().splitlines() or ["nothing was said"])[-1].strip()
        ran.append(World(simulation, int(seed), f"the process ended with {ended.returncode}: {last[:120]}", 0.0))
    return ran


@functools.cache
def unsound(world: str) -> str | None:
    """By which check this world fails without any bug, if it does: then it catches nothing, whatever is planted."""
    (ran,) = trial(NO_BUG, [world])
    return ran.check


def search(bug: Bug, worlds: Sequence[Sequence[str]], *, compare: bool = False) -> Found:
    """Looks for a world that catches `bug`, row after row; with `compare`, for a cheap one among the first of a row.

    What fails must pass without the bug, or it is passed over.
    """
    cpu_s, tried = 0.0, 0
    for row in worlds:
        rest = list(row)
        while rest:
            try:
                ran = trial(bug.name, rest, CATCHES if compare else 1)
            except RuntimeError as error:
                return Found(bug, Recorded(tried, None), cpu_s, str(error).strip().splitlines()[-1])
            cpu_s += sum(world.cpu_s for world in ran)
            broken = [world.check for world in ran if world.check is not None and world.check.startswith(BROKEN)]
            if broken:
                return Found(bug, Recorded(tried, None), cpu_s, broken[0])
            caught = [world for world in ran if world.check is not None and unsound(world.name) is None]
            if caught:
                tried += ran.index(caught[0]) + 1
                return Found(bug, Recorded(tried, min(caught, key=lambda world: world.cpu_s)), cpu_s)
            tried += len(ran)
            rest = rest[len(ran) :]
    return Found(bug, Recorded(tried, None), cpu_s)


def passes(worlds: Sequence[str]) -> list[World]:
    """Runs these worlds without any bug; those that fail all the same."""
    return [world for world in trial(NO_BUG, worlds, catches=0) if world.check is not None]
