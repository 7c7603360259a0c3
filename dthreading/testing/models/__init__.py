# SPDX-License-Identifier: Apache-2.0
"""Plain sequential descriptions of what `threading` and `queue` do, by kind. They trust nothing of the replicas."""

from __future__ import annotations

from typing import Final

from dthreading.testing.models.base import Model
from dthreading.testing.models.locks import Lock, RLock
from dthreading.testing.models.queues import LifoQueue, PriorityQueue, Queue, SimpleQueue
from dthreading.testing.models.signals import Barrier, BoundedSemaphore, Event, Semaphore

__all__ = ["MODELS", "Model"]

MODELS: Final[dict[str, type[Model]]] = {
    model.kind: model
    for model in (
        Lock, RLock, Semaphore, BoundedSemaphore, Event, Barrier, Queue, LifoQueue, PriorityQueue, SimpleQueue,
    )
}  # fmt: skip
