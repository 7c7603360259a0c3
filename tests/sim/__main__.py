# SPDX-License-Identifier: Apache-2.0
"""Long runs on all cores: `python -m tests.sim --minutes 60` (or `--worlds 2000`), with a summary in the end.

Each minute a line on stderr says how far it is. Each failing world is shrunk, and shown with the command that repeats
it. Exit code 1 if any failed. Ctrl-C ends the run early, with the summary of what was run until then.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

from tests.sim.running import DRAWN, shrunk
from tests.sim.searching import worlds
from tests.sim.summary import NOTHING, Tally

WORLDS_A_TASK = 5
PROGRESS_S = 60.0
"""So often somebody who looks on is told how far it is."""
SHRINK_AT_MOST = 10
"""Failures that are made small; after so many, one fault is most likely behind them all."""


def _tasks(options: argparse.Namespace) -> Iterator[range]:
    end = time.monotonic() + options.minutes * 60
    first = options.first
    while (time.monotonic() < end) if options.minutes else (first < options.first + options.worlds):
        last = first + WORLDS_A_TASK
        yield range(first, last if options.minutes else min(last, options.first + options.worlds))
        first = last


def _results(options: argparse.Namespace) -> Iterator[tuple[Tally, list[tuple[int, str]]]]:
    """Never many tasks ahead: the time may be over."""
    with ProcessPoolExecutor(options.jobs, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        pending = deque[Future[tuple[Tally, list[tuple[int, str]]]]]()
        try:
            for task in _tasks(options):
                pending.append(pool.submit(worlds, task))
                if len(pending) > 2 * options.jobs:
                    yield pending.popleft().result()
            for result in pending:
                yield result.result()
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)


def _error_of(traceback: str) -> str:
    """Its error's first line: behind it stand what notes say, and how to see it again."""
    _, *lines = traceback.splitlines()
    return next((line[:200] for line in lines if line and not line[0].isspace()), "nothing was said")


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--minutes", type=float, default=0.0, help="go on for so long")
    parser.add_argument("--worlds", type=int, default=100, help="or run so many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(argv)
    total, failures = NOTHING, []
    told_s = begun_s = time.monotonic()
    for tally, failed in _results(options):
        total = total.plus(tally)
        failures += failed
        for seed, what in failed:
            print(f"seed {seed} failed: {_error_of(what)}", file=sys.stderr, flush=True)
        if time.monotonic() - told_s >= PROGRESS_S:
            told_s = time.monotonic()
            print(
                f"after {(told_s - begun_s) / 60:.0f} minutes: {total.worlds} worlds, {len(failures)} failed",
                file=sys.stderr,
                flush=True,
            )
    for count, (seed, what) in enumerate(failures):
        print(f"seed {seed}: {what}")
        if count < SHRINK_AT_MOST:
            print("the smallest world that fails like this:", shrunk(seed, DRAWN).command(seed))
    print(*total.lines(), sep="\n")
    print(f"{len(failures)} failed" if failures else "none failed")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
