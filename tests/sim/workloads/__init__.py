# SPDX-License-Identifier: Apache-2.0
"""What the simulated clients do with each primitive, and what a user must see while they do it. A map, no more.

`OBJECTS` says which objects a world may have, "kind:name", and how likely each is in it: four or five in most worlds,
so that their users meet.
"""

from __future__ import annotations

from tests.sim.workloads.barriers import Alone, Gathering, Pairs
from tests.sim.workloads.base import Scene, Workload
from tests.sim.workloads.conditions import Buffer, Meeting, PingPong
from tests.sim.workloads.events import Signal
from tests.sim.workloads.lifetimes import Automatic, Crowd, Handed, Misfits
from tests.sim.workloads.locks import LockUse, NestedUse
from tests.sim.workloads.mixed import Philosophers, Pipeline
from tests.sim.workloads.parcels import LifoParcels, Parcels, PriorityParcels, SimpleParcels
from tests.sim.workloads.queues import Goods
from tests.sim.workloads.semaphores import Excess, PermitUse, SemaphoreUse, Tickets

__all__ = ["KINDS", "OBJECTS", "Scene", "Workload", "workload"]

KINDS: dict[str, type[Workload]] = {
    "lock": LockUse,
    "rlock": NestedUse,
    "meeting": Meeting,
    "buffer": Buffer,
    "pingpong": PingPong,
    "semaphore": SemaphoreUse,
    "permits": PermitUse,
    "tickets": Tickets,
    "excess": Excess,
    "event": Signal,
    "barrier": Gathering,
    "pairs": Pairs,
    "alone": Alone,
    "goods": Goods,
    "parcels": Parcels,
    "lifo": LifoParcels,
    "priority": PriorityParcels,
    "simple": SimpleParcels,
    "private": Handed,
    "automatic": Automatic,
    "misfits": Misfits,
    "crowd": Crowd,
    "forks": Philosophers,
    "pipeline": Pipeline,
}

OBJECTS = {
    "lock:a": 0.5,
    "lock:b": 0.15,
    "rlock:r": 0.25,
    "meeting:m": 0.25,
    "buffer:f": 0.2,
    "pingpong:p": 0.2,
    "semaphore:s": 0.2,
    "permits:t": 0.15,
    "tickets:k": 0.15,
    "excess:x": 0.2,
    "event:e": 0.25,
    "barrier:b": 0.2,
    "pairs:z": 0.1,
    "alone:o": 0.05,
    "goods:g": 0.35,
    "parcels:q": 0.2,
    "lifo:l": 0.15,
    "priority:y": 0.15,
    "simple:i": 0.2,
    "private:v": 0.2,
    "automatic:u": 0.15,
    "misfits:w": 0.15,
    "crowd:c": 0.15,
    "forks:h": 0.2,
    "pipeline:n": 0.15,
}


def workload(use: str, scene: Scene) -> Workload:
    """The workload of "kind:name"."""
    kind, _, name = use.partition(":")
    return KINDS[kind](name, scene)
