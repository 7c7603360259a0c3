# SPDX-License-Identifier: Apache-2.0
"""The replicated objects, by the name that an Attach calls them.

`base.py` is the door, `waiting.py` the one wait queue; every other file is one primitive or a part of one.
"""

from __future__ import annotations

from typing import Final

from replicas.objects.barrier import Barrier
from replicas.objects.base import Replicated
from replicas.objects.condition import Condition
from replicas.objects.event import Event
from replicas.objects.lock import Lock, RLock
from replicas.objects.queue import LifoQueue, PriorityQueue, Queue, SimpleQueue
from replicas.objects.semaphore import BoundedSemaphore, Semaphore

__all__ = ["KINDS", "OPERATION_NAMES", "READ_NAMES"]

_CLASSES: Final[tuple[type[Replicated], ...]] = (
    Lock, RLock, Condition, Semaphore, BoundedSemaphore, Event, Barrier,
    Queue, LifoQueue, PriorityQueue, SimpleQueue,
)  # fmt: skip

KINDS: Final = {cls.kind: cls for cls in _CLASSES}

OPERATION_NAMES: Final = frozenset(name for cls in _CLASSES for name in cls.operations)
"""Every name that any object can be called by."""

READ_NAMES: Final = frozenset(name for cls in _CLASSES for name, one in cls.operations.items() if one.reads)
"""Those of them that change nothing, in one object at least."""
