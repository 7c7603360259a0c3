# SPDX-License-Identifier: Apache-2.0
"""On which CPU each process runs: all on one (SAME), the leader on one and the rest on another (DIFF), or anywhere.

Waking a CPU that idles is most of a short call's time, and the kernel moves processes to and fro; so a latency means
something only beside floors that were taken in the same placement.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path


class Placement(Enum):
    """Where the leader runs, and where everybody else."""

    SAME = "same CPU"
    DIFF = "leader on a CPU of its own"
    FREE = "unpinned"


ALL = frozenset(os.sched_getaffinity(0))


def possible() -> list[Placement]:
    """On one CPU there is no other one."""
    return list(Placement) if len(ALL) > 1 else [Placement.SAME, Placement.FREE]


def leader_cpus(placement: Placement) -> frozenset[int]:
    return ALL if placement is Placement.FREE else frozenset({min(ALL)})


def other_cpus(placement: Placement) -> frozenset[int]:
    return frozenset({max(ALL)}) if placement is Placement.DIFF else leader_cpus(placement)


def put(pid: int, cpus: Iterable[int]) -> None:
    """All threads of a process; those that it starts from here on go where their makers are."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cpus)


def place(placement: Placement, leader: int, others: Iterable[int]) -> None:
    """Processes by their ids."""
    put(leader, leader_cpus(placement))
    for pid in others:
        put(pid, other_cpus(placement))


@contextlib.contextmanager
def here(placement: Placement) -> Iterator[None]:
    """The calling thread is one of the others."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, other_cpus(placement))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
