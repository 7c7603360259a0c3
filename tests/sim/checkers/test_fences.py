# SPDX-License-Identifier: Apache-2.0
"""Fences in whole worlds: holders that stand still until their lease has passed on, and then write.

The guarded resource judges itself (`workloads.base.Resource`); here it must have had something to judge.
"""

from __future__ import annotations

from tests.sim.plan import Menu, drawn
from tests.sim.world import World

SEEDS = range(10)
MENU = Menu(
    mishaps={"pause client": 4.0, "cut": 1.0, "mend": 2.0, "kill client": 0.5},
    objects={"lock:a": 1.0, "lock:b": 0.5},
)


def test_fences_keep_out_what_the_lease_alone_lets_in() -> None:
    """Stale writes are refused where the fence is looked at, and spoil the twin that does not look."""
    refused = accepted = spoilt = 0
    for seed in SEEDS:
        world = World(drawn(seed, MENU, replicas=3, clients=4, trouble_us=15_000_000, core_only=False))
        world.run()
        for workload in world.workloads.values():
            refused += workload.resource.stale_refused  # type: ignore[attr-defined]
            accepted += workload.resource.stale_accepted  # type: ignore[attr-defined]
            spoilt += workload.resource.spoilt  # type: ignore[attr-defined]
    assert refused > 0
    assert accepted > 0
    assert spoilt > 0
