# SPDX-License-Identifier: Apache-2.0
"""Sound replicas never take each other for wrong, whatever befalls them.

(That one which is wrong is found: tests/replica/test_auditing.py.) AUDIT_SEEDS in the environment is how many worlds
have their states compared all the time; CI runs a few.
"""

from __future__ import annotations

import os

import pytest

from replicas.replica.auditing import Auditing
from replicas.replica.core import Replica
from replicas.replica.messages import Account
from tests.sim.running import DRAWN
from tests.sim.running import world_of as drawn_world
from tests.sim.world import World

SEEDS = range(int(os.environ.get("AUDIT_SEEDS") or 8))
AUDIT_MS = 300


def world_of(seed: int) -> World:
    """A world in which a leader has the states compared several times a second."""
    world = drawn_world(DRAWN.plan(seed))
    for program in world.programs.values():
        program.audit_ms = AUDIT_MS
    return world


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The slots of all accounts that anybody has told another."""
    slots: list[int] = []
    hears = Auditing.heard

    def noted(auditing: Auditing, source: int, account: Account) -> None:
        slots.append(account.slot)
        hears(auditing, source, account)

    monkeypatch.setattr(Auditing, "heard", noted)
    return slots


@pytest.mark.parametrize("seed", SEEDS)
def test_no_sound_replica_is_found_wrong(seed: int, heard: list[int]) -> None:
    """Crashes, lost messages, damaged disks, restarts from snapshots in the middle of all: the states are the same."""
    world = world_of(seed)
    world.run()  # a verdict ends it
    assert len(set(heard)) > 5
    cores = [host.core for host in world.hosts.values() if isinstance(host.core, Replica)]
    assert not any(core._auditing._doubted or core._auditing._told for core in cores)
