# SPDX-License-Identifier: Apache-2.0
"""Runs CPython's own suites against us on each interpreter that is found, and says which were not.

    python compat/stdlib/run.py                       3.11, 3.12 and 3.13, once each, on three durable replicas
    python compat/stdlib/run.py --only 3.11 --runs 10
    python compat/stdlib/run.py --only 3.11 --busy    with all cores kept busy by others
    python compat/stdlib/run.py --group local -- -k Barrier

Each interpreter gets a virtual environment of its own, `.venv-compat-3.x` beside the sources, made once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("3.11", "3.12", "3.13")
TOOLS = ("pytest>=8.3", "pytest-timeout>=2.3")
TEST_SECONDS_MAX = 600
"""For one test. The longest sends 100,000 calls, on a machine where other things run."""


class Outcome(NamedTuple):
    """One run."""

    version: str
    run: int
    passed: bool
    summary: str


def main() -> int:
    """Runs, prints a table, and returns 1 if anything failed or no interpreter was found."""
    arguments = parse()
    outcomes: list[Outcome] = []
    with busy_cores() if arguments.busy else contextlib.nullcontext():
        for version in arguments.only or VERSIONS:
            interpreter = find(version)
            if interpreter is None:
                print(f"CPython {version}: not found", flush=True)
                continue
            python = environment(version, interpreter)
            for run in range(1, arguments.runs + 1):
                outcome = run_once(version, run, python, arguments)
                print(f"CPython {version}, run {run}: {outcome.summary}", flush=True)
                outcomes.append(outcome)
    failed = [outcome for outcome in outcomes if not outcome.passed]
    print(f"{len(outcomes)} runs, {len(failed)} with failures")
    return 0 if outcomes and not failed else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="CPython's lock_tests and test_queue against dthreading.")
    parser.add_argument("--only", action="append", choices=VERSIONS, help="this version (may be given more than once)")
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="so many times each")
    parser.add_argument("--busy", action="store_true", help="keep all cores busy meanwhile")
    parser.add_argument("--group", choices=("replicas", "memory", "local"), default="replicas")
    parser.add_argument("pytest", nargs="*", help="further arguments of pytest, after --")
    return parser.parse_args()


def find(version: str) -> Path | None:
    """An interpreter of that version, from the path or from pyenv."""
    candidates = [Path(sys.executable)]
    on_path = shutil.which(f"python{version}")
    if on_path:
        candidates.append(Path(on_path))
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates += sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True)
    return next((candidate for candidate in candidates if version_of(candidate) == version), None)


def version_of(python: Path) -> str | None:
    """Its version, if it runs at all: a pyenv shim may stand for nothing."""
    code = "import sys; print(*sys.version_info[:2], sep='.', end='')"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def environment(version: str, interpreter: Path) -> Path:
    """The python of the virtual environment for that version, with the package and pytest in it."""
    folder = ROOT / f".venv-compat-{version}"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([interpreter, "-m", "venv", folder], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", ROOT, *TOOLS]
    subprocess.run(install, check=True)
    return python


def run_once(version: str, run: int, python: Path, arguments: argparse.Namespace) -> Outcome:
    command = [python, "-m", "pytest", "compat/stdlib", "-q", "-p", "no:cacheprovider", f"--group={arguments.group}"]
    command += [f"--timeout={TEST_SECONDS_MAX}", *arguments.pytest]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    last = done.stdout.strip().rpartition("\n")[2]
    if done.returncode != 0:
        print(done.stdout, done.stderr, sep="\n", flush=True)
    return Outcome(version, run, done.returncode == 0, re.sub(r"^=+ | =+$", "", last))


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """One process that does nothing but count on each core."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


if __name__ == "__main__":
    sys.exit(main())
