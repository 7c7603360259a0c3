# SPDX-License-Identifier: Apache-2.0
"""What the simulated clients do with each primitive, and what a user must see while they do it. A map, no more.

`OBJECTS` says which objects a world may have, "kind:name", and how likely each is in it.
"""

from __future__ import annotations

from tests.sim.workloads.base import Scene, Workload
from tests.sim.workloads.conditions import Meeting
from tests.sim.workloads.locks import LockUse
from tests.sim.workloads.queues import Goods
from tests.sim.workloads.semaphores import SemaphoreUse

__all__ = ["KINDS", "OBJECTS", "Scene", "Workload", "workload"]

KINDS: dict[str, type[Workload]] = {
    "lock": LockUse,
    "semaphore": SemaphoreUse,
    "goods": Goods,
    "meeting": Meeting,
}

OBJECTS = {"lock:a": 0.9, "lock:b": 0.5, "semaphore:s": 0.7, "goods:g": 0.7, "meeting:m": 0.7}


def workload(use: str, scene: Scene) -> Workload:
    """The workload of "kind:name"."""
    kind, _, name = use.partition(":")
    return KINDS[kind](name, scene)
