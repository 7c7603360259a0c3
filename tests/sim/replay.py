# SPDX-License-Identifier: Apache-2.0
"""Repeats one seed of the consensus simulation and tells its story: `python -m tests.sim.replay SEED --replicas 3`."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections import deque

from tests.sim.simulation import ConsensusSimulation


def command(seed: int, replicas: int) -> str:
    """What to type to see this seed again."""
    return f"python -m tests.sim.replay {seed} --replicas {replicas}"


def run(seed: int, replicas: int) -> ConsensusSimulation:
    """Run a seed; a failure names the command that repeats it."""
    simulation = ConsensusSimulation(seed, replicas=replicas)
    try:
        simulation.run()
    except AssertionError as error:
        raise AssertionError(f"{error}\n\nrepeat it with: {command(seed, replicas)}") from error
    return simulation


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--lines", type=int, default=200, help="how much of the story's end to show")
    options = parser.parse_args()
    story: deque[str] = deque(maxlen=options.lines)
    simulation = ConsensusSimulation(options.seed, replicas=options.replicas, story=story.append)
    failed = False
    try:
        simulation.run()
    except AssertionError:
        failed = True
        traceback.print_exc()
    print(*story, sep="\n")
    print(simulation.faults)
    print(simulation.describe())
    print("trace", simulation.kernel.trace)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
