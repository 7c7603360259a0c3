# SPDX-License-Identifier: Apache-2.0
"""The gate of the simulation: deliberate bugs still fit the product, and each is caught by the world that caught it.

CI runs the recorded world of each bug, which takes less than a second, and some more where it has become another since.
Where no world catches a bug it runs the test that does (`unit` in the bug's entry), with that bug planted.
`make mutants` searches afresh and records nothing, `python -m tests.mutants --record` searches and records.
"""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any, Final

import pytest

from replicas.paxos.values import Ballot, Entry
from tests.mutants import records, searching, trial
from tests.mutants.catalogue import ROOT, Bug, DoesNotApplyError, Edit, load
from tests.mutants.planting import PLANTED
from tests.mutants.records import Recorded, World
from tests.mutants.trial import BROKEN, CHANGING, NO_BUG, SIMULATIONS
from tests.mutants.units import FirstFailure
from tests.sim.conftest import CONSENSUS_SEEDS, GROUP_SEEDS

BUGS = load()
RECORDED = records.read()
CAUGHT = {name: record.world for name, record in RECORDED.items() if record.world is not None}

FURTHER: Final = 20
"""Worlds that are tried where the recorded one has become another: any change of the product shifts what follows from a
seed. So many more than it took when the bug was searched for; what needs yet more is caught by luck, and says so here.
"""

SEARCH_AGAIN = "record it again with: python -m tests.mutants --record "


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS.keys())
def test_a_bug_fits_the_product_as_it_is(bug: Bug) -> None:
    """Its text stands in the product exactly once, and what it makes of it is a program, and another one."""
    assert bug.edits
    assert bug.wrong.endswith(".")
    assert bug.origin
    for file, source in bug.sources().items():
        assert file.startswith(("replicas/", "dthreading/"))
        compile(source, file, "exec")
    assert all(edit.old != edit.new for edit in bug.edits)


def test_there_are_enough_and_half_of_them_were_written_unseen() -> None:
    """A bug that was written after it was seen what is caught proves less."""
    assert len(BUGS) >= 30
    assert sum(bug.before_first_run for bug in BUGS.values()) >= len(BUGS) / 2
    assert set(SIMULATIONS) >= {simulation for bug in BUGS.values() for simulation in bug.simulations}


def test_every_bug_was_searched_for() -> None:
    """Also one that escapes is recorded, as that."""
    assert set(RECORDED) == set(BUGS), SEARCH_AGAIN


@pytest.mark.parametrize("name", CAUGHT)
def test_a_bug_is_caught(name: str) -> None:
    """Deterministic: the same seeds, the same worlds, the same ends."""
    world = CAUGHT[name]
    further = [f"{world.simulation}:{seed}" for seed in range(RECORDED[name].tried + FURTHER) if seed != world.seed]
    ran = searching.trial(name, [world.name, *further])[-1]
    assert ran.check is not None, (
        f"neither {world.name} nor the first {len(further)} catch {name}; {SEARCH_AGAIN}{name}"
    )
    assert not ran.check.startswith(BROKEN), f"{name} must be written anew: {ran.check}"


TOGETHER = 8
"""So many worlds, or tests, are run by one process: enough to be worth its start, and few enough to end soon on a busy
machine."""


ONLY_UNITS = [(bug.name, bug.unit) for bug in BUGS.values() if bug.unit and bug.name not in CAUGHT]
"""What no world catches and a test does."""


@pytest.mark.parametrize("first", range(0, len(ONLY_UNITS), TOGETHER))
def test_bugs_are_caught_by_a_test_alone(first: int) -> None:
    """By the one that is recorded; or, where what it draws has become something else, by the whole of it."""
    pairs = ONLY_UNITS[first : first + TOGETHER]
    for outcome, (name, unit) in zip(searching.run_units(pairs), pairs, strict=True):
        if not outcome.caught and "[" in unit:
            (outcome,) = searching.run_units([(name, unit.partition("[")[0])])  # noqa: PLW2901
        assert outcome.broken is None, f"{name} must be written anew, or its test: {outcome.broken}"
        assert outcome.failed is not None, f"{unit} does not catch {name} any more"


def test_those_tests_pass_without_their_bugs() -> None:
    """With the same modules planted as they are: a test that looks at a file's name, say, would catch any bug."""
    (outcome,) = searching.run_units(ONLY_UNITS, control=True)
    assert outcome.failed is None, outcome
    assert outcome.broken is None, outcome
    assert outcome.ran == len({unit for _, unit in ONLY_UNITS})


TESTED_ANYWAY: Final = {"consensus": CONSENSUS_SEEDS, "group": GROUP_SEEDS, "members": CHANGING}
"""So many first worlds of these simulations are tests of their own, which fail by themselves."""

WORLDS = sorted({world.name for world in CAUGHT.values() if world.seed >= TESTED_ANYWAY.get(world.simulation, 0)})


@pytest.mark.parametrize("first", range(0, len(WORLDS), TOGETHER))
def test_the_recorded_worlds_pass_without_their_bugs(first: int) -> None:
    """Else it would be the worlds that fail, and not the bugs that are caught."""
    assert not searching.passes(WORLDS[first : first + TOGETHER])


# --- the gate itself


def test_a_test_that_fails_by_itself_or_for_a_broken_bug_catches_nothing() -> None:
    """What the control shows, and what is told from a failure that counts."""
    name, unit = next((bug.name, bug.unit) for bug in BUGS.values() if bug.unit)
    (nothing_ran,) = searching.run_units([(name, unit.partition("::")[0] + "::test_that_is_not_there")])
    assert not nothing_ran.caught
    assert nothing_ran.broken is not None
    planted = compile("x()", f"log.py{PLANTED}strange", "exec")
    seen = FirstFailure()
    with pytest.raises(NameError) as failure:
        exec(planted, {})
    seen.pytest_exception_interact(SimpleNamespace(excinfo=failure), SimpleNamespace(nodeid="a test"))
    assert (seen.test, seen.broken) == ("a test", "NameError: name 'x' is not defined")


def test_a_bug_that_does_not_fit_is_said_to_be_written_anew() -> None:
    """Neither a text that is gone nor one that stands in two places plants anything."""
    for old in ("no such line in the product", "self"):
        bug = Bug("strange", "paxos", "It is.", "here", True, (Edit("replicas/paxos/log.py", old, "x"),))
        with pytest.raises(DoesNotApplyError, match=r"'strange' does not apply any more: .* times, not once"):
            bug.sources()


def test_a_planted_bug_is_in_its_process_alone() -> None:
    """The tree is left as it was, so any number of bugs can be tried at one time, and whoever edits it is not met."""
    name, world = next(iter(CAUGHT.items()))
    files = {edit.file: (ROOT / edit.file).read_bytes() for edit in BUGS[name].edits}
    (with_it,) = searching.trial(name, [world.name])
    (without,) = searching.trial(NO_BUG, [world.name])
    assert with_it.check is not None
    assert without.check is None
    assert files == {file: (ROOT / file).read_bytes() for file in files}


def test_a_trial_that_cannot_begin_catches_nothing() -> None:
    """A simulator that cannot be imported, or a name that is not known, is no bug that was caught."""
    with pytest.raises(RuntimeError, match="could not begin"):
        searching.trial("no such bug", ["group:0"])


def test_a_bug_that_names_what_is_not_there_is_no_bug() -> None:
    """It would be caught by any world, and prove nothing: the product has changed under it, at the other end."""
    edit = Edit(
        "replicas/paxos/log.py",
        "self.last = slot\n            return",
        "self.last = slot_of(entry)\n            return",
    )
    bug = Bug("strange", "paxos", "It is.", "here", before_first_run=False, edits=(edit,))
    code = compile(bug.sources()[edit.file], f"{edit.file}{PLANTED}{bug.name}", "exec")
    names: dict[str, Any] = {"__name__": "replicas.paxos.strange"}
    exec(code, names)
    with pytest.raises(NameError) as failure:
        names["Log"](0, 0, [Entry(1, Ballot(1, 1), 1, b"")])
    assert trial._said(failure.value).startswith(BROKEN)


def test_a_world_that_fails_by_itself_catches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one fault of the product, or of the simulator, would make every bug look caught."""
    fails = {"any bug": {"group:1", "group:2"}, NO_BUG: {"group:1"}}

    def trial(bug: str, worlds: list[str], catches: int = 1) -> list[World]:
        ran = []
        for world in worlds:
            simulation, _, seed = world.partition(":")
            ran.append(World(simulation, int(seed), "it fails" if world in fails[bug] else None, 0.1))
            if ran[-1].check:
                break
        return ran

    monkeypatch.setattr(searching, "trial", trial)
    searching.unsound.cache_clear()
    bug = Bug("any bug", "objects", "It is.", "here", before_first_run=False, edits=())
    found = searching.search(bug, [[f"group:{seed}" for seed in range(5)]])
    searching.unsound.cache_clear()
    assert found.recorded == Recorded(3, World("group", 2, "it fails", 0.1))


def test_a_world_that_ends_its_process_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some bugs end in the interpreter's own death: the world that was under way when it happened is named."""
    ended = subprocess.CompletedProcess(
        [], -6, '{"simulation": "group", "seed": 0, "check": null, "cpu_s": 0.1}\n', "x"
    )
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    ran = searching.trial("any", ["group:0", "group:1", "group:2"])
    assert [(world.seed, world.check) for world in ran] == [(0, None), (1, "the process ended with -6: x")]
