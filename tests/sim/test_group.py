# SPDX-License-Identifier: Apache-2.0
"""Whole groups and real client sessions in seeded worlds. A failure names the seed; `--sim-seeds` asks for more."""

from __future__ import annotations

import pytest

from tests.sim.world import GroupSimulation

SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
def test_clients_keep_what_they_were_promised(seed: int) -> None:
    """Mutual exclusion under leases, fences never twice, items exactly once while their takers live, nobody
    forgotten."""
    GroupSimulation(seed, replicas=3 if seed % 4 else 5).run()


def test_one_seed_is_one_story() -> None:
    """Else a failing seed could not be looked into."""
    traces = set()
    for _ in range(2):
        world = GroupSimulation(3)
        world.run()
        traces.add(world.kernel.trace)
    assert len(traces) == 1
