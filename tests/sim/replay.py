# SPDX-License-Identifier: Apache-2.0
"""Repeats one seed and tells its story: `python -m tests.sim.replay group 17`, or `... consensus 17 --replicas 3`.

`--object orders` and `--session 5` keep only those lines of the story; `--shrink` first looks for the smallest world
that fails in the same way.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.sim.running import Options, shrunk, world_of
from tests.sim.simulation import SIZES, ConsensusSimulation
from tests.sim.story import Narrowed
from tests.sim.world import World


def command(seed: int, replicas: int) -> str:
    """What to type to see this seed of bare consensus again."""
    return f"python -m tests.sim.replay consensus {seed} --replicas {replicas}"


def run(seed: int, replicas: int | None = None) -> ConsensusSimulation:
    """Run a seed of bare consensus; a failure names the command that repeats it."""
    replicas = replicas or SIZES[seed % len(SIZES)]
    simulation = ConsensusSimulation(seed, replicas=replicas)
    try:
        simulation.run()
    except AssertionError as error:
        raise AssertionError(f"{error}\n\nrepeat it with: {command(seed, replicas)}") from error
    return simulation


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.replay", description=__doc__)
    parser.add_argument("what", choices=("group", "consensus"))
    parser.add_argument("seed", type=int)
    parser.add_argument("--replicas", type=int)
    parser.add_argument("--clients", type=int)
    parser.add_argument("--seconds", type=float, default=Options().trouble_s, help="how long things go wrong")
    parser.add_argument("--core-only", dest="core_only", action="store_const", const=True, help="only a quorum heals")
    parser.add_argument("--whole", dest="core_only", action="store_const", const=False, help="everything heals")
    parser.add_argument("--without", default="", metavar="m3,c1", help="mishaps and clients to leave out")
    parser.add_argument("--shrink", action="store_true", help="leave out all that the failure does not need")
    parser.add_argument("--object", help="tell only what concerns the object of this name")
    parser.add_argument("--session", type=int, help="tell only what concerns this session")
    parser.add_argument("--lines", type=int, default=200, help="how much of the story's end to show")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit code 1: it failed, as it was to be shown."""
    options = _parser().parse_args(argv)
    story: deque[str] = deque(maxlen=options.lines)
    tell = Narrowed(story.append, options.object, options.session)
    world: Any
    if options.what == "consensus":
        world = ConsensusSimulation(
            options.seed, replicas=options.replicas or SIZES[options.seed % len(SIZES)], story=tell
        )
        print(world.faults)
    else:
        world = _group(options, tell)
        print(*world.plan.clients, *world.plan.mishaps, *world.plan.wishes, sep="\n")
    failed = False
    try:
        world.run()
    except Exception:
        failed = True
        traceback.print_exc(file=sys.stdout)
    print(*story, sep="\n")
    print(world.describe())
    print("trace", world.kernel.trace)
    return int(failed)


def _group(options: argparse.Namespace, tell: Callable[[str], None]) -> World:
    chosen = Options(
        replicas=options.replicas,
        clients=options.clients,
        trouble_s=options.seconds,
        core_only=options.core_only,
        without=tuple(filter(None, options.without.split(","))),
    )
    if options.shrink:
        chosen = shrunk(options.seed, chosen, lambda kept: print("still fails with", *kept))
        print(chosen.command(options.seed))
    return world_of(chosen.plan(options.seed), tell)


if __name__ == "__main__":
    sys.exit(main())
