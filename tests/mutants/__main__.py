# SPDX-License-Identifier: Apache-2.0
"""Searches afresh for every bug: `python -m tests.mutants`, or `python -m tests.mutants NAME AREA ... --seeds 200`.

Prints a table: bug, area, worlds until caught, in which world, by which check, seconds of processor; or which test
catches it where no world does (as is recorded with the bug, and not tried here). Exit code 1 when a bug escapes both.
`--record` keeps what was found in recorded.json, from which CI runs each bug's world again; what was
searched for and escapes is kept as that; with `--again`, after a change of the simulator, only what the recorded worlds
do not catch any more is searched for. `--list` says what each bug is and where it comes from.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from tests.mutants import records
from tests.mutants.catalogue import Bug, load
from tests.mutants.records import Recorded
from tests.mutants.searching import Found, search
from tests.mutants.trial import SIMULATIONS

SEEDS = 200
"""Within so many worlds of a simulation every bug is to be caught."""


def chosen(bugs: dict[str, Bug], names: Sequence[str]) -> list[Bug]:
    """The bugs of these names and areas; all, when none is named."""
    areas = {bug.area for bug in bugs.values()}
    unknown = [name for name in names if name not in bugs and name not in areas]
    if unknown:
        raise SystemExit(f"no bug and no area is called {unknown[0]!r}; areas are {', '.join(sorted(areas))}")
    return [bug for bug in bugs.values() if not names or bug.name in names or bug.area in names]


def rows(bug: Bug, seeds: range, only: str | None, known: Recorded | None) -> list[list[str]]:
    """The worlds in which a bug is looked for: the known one, then one row for each simulation."""
    simulations = bug.simulations if only is None else (only,)
    worlds = [[f"{simulation}:{seed}" for seed in seeds] for simulation in simulations]
    return worlds if known is None or known.world is None else [[known.world.name], *worlds]


def row(found: Found) -> str:
    """One line of the table."""
    bug, (tried, world), cpu_s, trouble = found
    start = f"{bug.name:40} {bug.area:9}"
    if trouble:
        return f"{start} unfit   {trouble}"
    if world is None:
        return f"{start} {'by test' if bug.unit else 'escapes'} {tried:4} {'':14} {cpu_s:7.1f} s  {bug.unit}"
    return f"{start} caught  {tried:4} {world.name:14} {cpu_s:7.1f} s  {world.check}"


def catcher(bug: Bug) -> str:
    """What is recorded of it, for people."""
    known = records.read().get(bug.name)
    if known is not None and known.world is not None:
        return f"caught by {known.world.name}, {known.tried} worlds from the first: {known.world.check}"
    return f"caught by no world of {known.tried if known else 0}" + (f", but by {bug.unit}" if bug.unit else "")


def report(found: list[Found]) -> bool:
    """The table, and what it comes to; whether all bugs are caught by a world, or by a test as recorded."""
    print(f"{'bug':40} {'area':9} worlds until {'':13} processor  check")
    print(*map(row, found), sep="\n")
    unfit = [one for one in found if one.trouble]
    no_world = [one for one in found if one.recorded.world is None and not one.trouble]
    escaped = [one for one in no_world if not one.bug.unit]
    before = sum(one.bug.before_first_run for one in found)
    caught = len(found) - len(unfit) - len(no_world)
    print(f"\n{len(found)} bugs, {before} of them written before the first run:", end=" ")
    print(f"{caught} caught by worlds, {len(no_world) - len(escaped)} by a test alone, {len(escaped)} escape")
    print(*[f"    {one.bug.name}: {one.bug.wrong}" for one in escaped], sep="\n")
    if unfit:
        print(f"{len(unfit)} must be written anew:", *[one.bug.name for one in unfit])
    return not escaped and not unfit


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="bugs or areas; all when none is named")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="worlds of each simulation for each bug")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--only", choices=SIMULATIONS, help="search in this simulation alone")
    parser.add_argument("--record", action="store_true", help="keep what is found in recorded.json")
    parser.add_argument("--again", action="store_true", help="try the recorded world of each bug before all others")
    parser.add_argument("--list", action="store_true", help="say what each bug is, and run nothing")
    options = parser.parse_args(argv)
    bugs = chosen(load(), options.names)
    if options.list:
        for bug in bugs:
            print(f"{bug.area}: {bug.name}\n    {bug.wrong}\n    from: {bug.origin}\n    {catcher(bug)}")
        return 0
    seeds = range(options.first, options.first + options.seeds)
    known = records.read() if options.again else {}
    found: dict[str, Found] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        searches = [
            pool.submit(search, bug, rows(bug, seeds, options.only, known.get(bug.name)), compare=options.record)
            for bug in bugs
        ]
        for one in as_completed(searches):
            ended = one.result()
            found[ended.bug.name] = ended
            print(row(ended), file=sys.stderr, flush=True)
            if options.record and not ended.trouble:
                before = known.get(ended.bug.name)
                again = before is not None and before.world is not None and ended.recorded.tried == 1
                recorded = ended.recorded._replace(tried=before.tried) if again and before else ended.recorded
                records.write(records.read() | {ended.bug.name: recorded})
    return 0 if report([found[bug.name] for bug in bugs]) else 1


if __name__ == "__main__":
    sys.exit(main())
