# SPDX-License-Identifier: Apache-2.0
"""A snapshot is loaded without the garbage collector, which is as it was afterwards, whatever came of it."""

from __future__ import annotations

import gc
from collections.abc import Iterable

import pytest

from dthreading.errors import ProtocolError
from replicas.daemon.snapshotting import restored
from replicas.machine.core import Machine
from replicas.paxos.types import Configuration, Member
from replicas.storage import MemoryStorage, SnapshotHeader
from tests.machine.harness import Bench

CONFIGURATION = Configuration("test", 1, (Member(1, "r1", b"1"),), b"")


def stored(data: bytes, slot: int) -> MemoryStorage:
    storage = MemoryStorage()
    storage.format(b"here")
    writer = storage.begin_snapshot(SnapshotHeader(slot, CONFIGURATION, 0, b""))
    writer.write(data)
    writer.finish()
    return storage


@pytest.mark.parametrize("collects", [True, False])
def test_the_collector_rests_while_a_snapshot_is_loaded(collects: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(Machine(CONFIGURATION))
    bench.open().attach("Lock", "l").acquire(True, 1)
    whole = bench.machine.dump()
    seen: list[bool] = []
    restore = Machine.restore

    def watched(chunks: Iterable[bytes]) -> Machine:
        seen.append(gc.isenabled())
        return restore(chunks)

    monkeypatch.setattr(Machine, "restore", watched)
    before = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        assert restored(stored(whole, bench.machine.applied)).dump() == whole
        assert gc.isenabled() == collects
        with pytest.raises(ProtocolError):
            restored(stored(whole[:-1], bench.machine.applied))
        assert gc.isenabled() == collects
    finally:
        (gc.enable if before else gc.disable)()
    assert seen == [False, False]
