# SPDX-License-Identifier: Apache-2.0
"""Runs tests with bugs planted, each in a process of its own: `python -m tests.mutants.units BUG=TEST ...`.

A TEST is what pytest is told of: a file, a folder or one test, several with commas between. For each pair a line of
JSON says which test failed first, if one did. With `--control` all tests run together, with the same modules planted
as they are, without the bugs: a test that looks at the product's files by their names, or that fails by itself, fails
then too, and catches nothing. A bug that names what the product does not know (any more) catches nothing either.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import hypothesis  # noqa: F401 - with pytest itself, what is most of a short test's time: once, before they are forked
import pytest

from tests.mutants.catalogue import Bug, load
from tests.mutants.planting import PLANTED, plant
from tests.mutants.searching import Outcome

TEST_S = 60
"""After so long a test hangs, which it does not without the bug."""


IMPORTED_BEFORE = "ignore:Module already imported so cannot be rewritten:pytest.PytestAssertRewriteWarning"


class FirstFailure:
    """Notes which test failed first, how many ran, and whether a failure is the bug's own."""

    def __init__(self) -> None:
        self.test: str | None = None
        self.broken: str | None = None
        self.ran = 0

    def pytest_exception_interact(self, call: Any, report: Any) -> None:
        """A test, or the import of its file, has raised."""
        error = call.excinfo.value
        frames = traceback.extract_tb(error.__traceback__)
        if isinstance(error, NameError | AttributeError) and frames and PLANTED in frames[-1].filename:
            self.broken = f"{type(error).__name__}: {error}"
        self.test = self.test or report.nodeid

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.ran += report.when == "call"
        if report.failed:
            self.test = self.test or report.nodeid


def as_it_is(bugs: Sequence[Bug]) -> Bug:
    """The modules that any of these change, with nothing changed in them."""
    edits = tuple(dataclasses.replace(edit, new=edit.old) for bug in bugs for edit in bug.edits)
    return dataclasses.replace(bugs[0], name="control", edits=edits)


def run(bug: Bug, tests: Sequence[str]) -> Outcome:
    """In this process, which nobody uses for anything else."""
    planter = plant(bug)
    seen = FirstFailure()
    options = ["-x", "-q", "-p", "no:cacheprovider", f"--timeout={TEST_S}", "-W", IMPORTED_BEFORE]
    code = pytest.main([*options, *tests], plugins=[seen])
    if planter.unplanted:
        return Outcome(bug.name, None, seen.ran, f"nobody has imported {sorted(planter.unplanted)}")
    if code not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED} or not seen.ran:
        return Outcome(bug.name, None, seen.ran, f"pytest ended with {code!r}")
    return Outcome(bug.name, seen.test, seen.ran, seen.broken)


def run_apart(bug: Bug, tests: Sequence[str]) -> Outcome:
    """In a process that is forked for it, and says nothing else."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        try:
            outcome = run(bug, tests)
        except BaseException as error:
            outcome = Outcome(bug.name, None, 0, f"{type(error).__name__}: {error}")
        os.write(writing, json.dumps(outcome).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return Outcome(*json.loads(said)) if said else Outcome(bug.name, None, 0, "the process has died")


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 however they end; whoever asked reads the lines."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.units", description=__doc__)
    parser.add_argument("pairs", nargs="+", metavar="BUG=TEST")
    parser.add_argument("--control", action="store_true", help="plant the product as it is")
    options = parser.parse_args(argv)
    known = load()
    pairs = [pair.partition("=") for pair in options.pairs]
    runs = [(known[name], tests.split(",")) for name, _, tests in pairs]
    if options.control:
        runs = [(as_it_is([bug for bug, _ in runs]), [*dict.fromkeys(test for _, tests in runs for test in tests)])]
    for bug, tests in runs:
        print(json.dumps(run_apart(bug, tests)._asdict()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
