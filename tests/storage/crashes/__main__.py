# SPDX-License-Identifier: Apache-2.0
"""The command: `python -m tests.storage.crashes --states 1000000 --seed 7`, to search deeper than continuous
integration.

--replay NAME   makes one state again and tells how it came about: the operations, what was afloat, what survived
--planted       plants each bug in turn and prints after how many states it was caught
--rot           damages settled directories, as many as --stories says, instead of crashing
--torn SHARE    of the cuts inside a sector, so many are tried (1 is all of them)
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import time
from collections import Counter

from tests.storage.crashes import failing, rot
from tests.storage.crashes.package import load
from tests.storage.crashes.planted import PLANTED, hunt
from tests.storage.crashes.replay import replay
from tests.storage.crashes.search import TORN_SHARE, Search


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storage.crashes", description=__doc__)
    parser.add_argument("--states", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--torn", type=float, default=TORN_SHARE)
    parser.add_argument("--replay", metavar="NAME")
    parser.add_argument("--planted", action="store_true")
    parser.add_argument("--rot", action="store_true")
    parser.add_argument("--failing", action="store_true", help="fail each operation of --stories runs")
    parser.add_argument("--stories", type=int, default=3)
    options = parser.parse_args()
    if options.replay:
        print(replay(load("small"), options.replay))
        return 0
    if options.planted:
        return _planted()
    if options.rot:
        return _rot(options.seed, options.stories)
    if options.failing:
        return _failing(options.seed, options.stories)
    return _crashes(options.states, options.seed, options.torn)


def _crashes(states: int, seed: int, torn: float) -> int:
    began = time.process_time()
    search = Search(load("small"), states, torn)
    failure = None
    with contextlib.suppress(KeyboardInterrupt):  # whoever stops it wants to know how far it came
        failure = search.run(seed)
    for kind, count in sorted(search.counts.items()):
        print(f"{count:10,}  {kind}")
    print(f"{search.distinct:10,}  distinct states of {search.stories} runs, opened {search.openings:,} times")
    print(f"{time.process_time() - began:10.1f}  seconds")
    if failure is None:
        return 0
    print(failure)
    print(replay(search.package, failure.name))
    print(f"again: python -m tests.storage.crashes --replay {failure.name}")
    return 1


def _planted() -> int:
    missed = 0
    print(f"{'search':8} {'states':>7}  planted bug")
    for planted in PLANTED:
        caught = hunt(planted)
        missed += caught is None
        states = f"{caught.states:7,}" if caught is not None else " MISSED"
        print(f"{planted.by:8} {states}  {planted.name}", flush=True)
        print(f"{'':18}  {caught.how[:100]}" if caught is not None else "")
    return 1 if missed else 0


def _rot(seed: int, stories: int) -> int:
    package, told, problems = load("small"), Counter[tuple[str, str]](), list[str]()
    for number in range(stories):
        story, files = rot.settled(package, seed + 100 * number)
        search = rot.RotSearch(package, files)
        search.all(rot.sectors(story, files, random.Random(seed)))
        search.all(rot.wholes(files))
        search.all(rot.flips(files))
        told += search.told
        problems += search.problems
    for (what, verdict), count in sorted(told.items()):
        print(f"{count:10,}  {what:12} {verdict}")
    print(f"{sum(told.values()):10,}  damages of {stories} directories")
    print("\n".join(problems[:10]))
    return 1 if problems else 0


def _failing(seed: int, stories: int) -> int:
    tried = 0
    for number in range(seed, seed + stories):
        problems, states = failing.every_failure(load("small"), number)
        tried += states
        if problems:
            print("\n".join(problems))
            return 1
    print(f"{tried:10,}  states after a failing operation, of {stories} runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
