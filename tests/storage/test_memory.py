# SPDX-License-Identifier: Apache-2.0
"""MemoryStorage has the door of Storage, and says plainly that nothing is behind it."""

from __future__ import annotations

import inspect

import pytest

from replicas.paxos.types import Durable
from replicas.storage import Identity, MemoryStorage, SnapshotWriter, Storage
from replicas.storage.memory import MemorySnapshotWriter
from tests.storage.support import accepted


@pytest.mark.parametrize(("real", "memory"), [(Storage, MemoryStorage), (SnapshotWriter, MemorySnapshotWriter)])
def test_the_same_door(real: type, memory: type) -> None:
    """Whoever holds one can hold the other: every public method is there, with the same parameters."""
    for name, method in inspect.getmembers(real, inspect.isfunction):
        if not name.startswith("_"):
            theirs = inspect.signature(getattr(memory, name)).parameters
            assert list(theirs) == list(inspect.signature(method).parameters), name


def test_it_keeps_its_identity_and_no_log() -> None:
    storage = MemoryStorage()
    assert storage.recovered == (None, Durable(), None, None)
    storage.format(b"i" * 16)
    storage.form(b"formation")
    assert storage.identity == Identity(b"i" * 16, b"formation")
    storage.append([accepted(1)])
    storage.sync()
    assert not storage.prepare()
    assert storage.log_bytes == 0
    storage.close()
