# SPDX-License-Identifier: Apache-2.0
"""Batches reach the disk in order, one at a time, and nothing that depends on one leaves before it is there."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from replicas.daemon import logwriter
from replicas.daemon.logwriter import LogWriter
from replicas.storage.files import StorageFailed


class Disk:
    """Records what was synced; holds every sync while `gate` is closed."""

    def __init__(self) -> None:
        self.durable: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.inside = 0
        self.error: StorageFailed | None = None
        self._batch: list[int] = []

    def append(self, records: list[int]) -> None:
        self._batch = list(records)

    def sync(self) -> None:
        self.inside += 1
        assert self.inside == 1, "two syncs in flight"
        self.entered.release()
        assert self.gate.wait(10)
        self.inside -= 1
        if self.error is not None:
            raise self.error
        self.durable.append(self._batch)


class Bench:
    def __init__(self, disk: Disk | None, *, slow: bool = False) -> None:
        self.disk = disk
        self.synced: list[tuple[int, list]] = []
        self.failures: list[StorageFailed] = []
        self.changed = asyncio.Event()
        self.writer = LogWriter(disk, asyncio.get_running_loop(), self._synced, self._failed)
        if slow:
            self.writer.slow_until_s = math.inf

    def _synced(self, batch: int, messages: list) -> None:
        self.synced.append((batch, messages))
        self.changed.set()

    def _failed(self, error: StorageFailed) -> None:
        self.failures.append(error)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 10)


def test_what_comes_during_a_sync_goes_in_the_next_one_together() -> None:
    async def story() -> None:
        disk = Disk()
        bench = Bench(disk, slow=True)
        disk.gate.clear()
        bench.writer.add(1, [1], [(2, "a")])
        assert not bench.writer.go()
        bench.writer.add(2, [2], [(2, "b")])
        bench.writer.add(3, [3, 4], [(3, "c")])
        assert not bench.writer.go()
        assert bench.synced == []
        disk.gate.set()
        await bench.until(lambda: len(bench.synced) == 1)
        assert bench.synced == [(1, [(2, "a")])]
        assert not bench.writer.idle
        bench.writer.go()
        await bench.until(lambda: len(bench.synced) == 2)
        assert bench.synced[1] == (3, [(2, "b"), (3, "c")])
        assert disk.durable == [[1], [2, 3, 4]]
        assert bench.writer.idle
        bench.writer.close()

    asyncio.run(story())


def test_a_message_without_records_still_waits_for_the_batches_before_it() -> None:
    """An acknowledgement repeated for a lost one speaks of entries that may be on their way to the disk."""

    async def story() -> None:
        disk = Disk()
        bench = Bench(disk, slow=True)
        disk.gate.clear()
        bench.writer.add(1, [1], [])
        bench.writer.go()
        bench.writer.add(0, [], [(2, "late")])
        assert not bench.writer.go()
        assert bench.synced == []
        disk.gate.set()
        await bench.until(lambda: len(bench.synced) == 1)
        assert bench.writer.go()
        assert bench.synced[1] == (0, [(2, "late")])
        bench.writer.close()

    asyncio.run(story())


def test_a_slow_disk_is_moved_to_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that waits for a disk answers no heartbeat, so writing in the loop is for as long as the disk is fast."""
    monkeypatch.setattr(logwriter, "SLOW_S", -1.0)

    async def story() -> None:
        disk = Disk()
        bench = Bench(disk)
        bench.writer.add(1, [1], [])
        assert bench.writer.go(), "fast so far: written before the return"
        bench.writer.add(2, [2], [])
        assert not bench.writer.go(), "every sync counts as slow here"
        await bench.until(lambda: len(bench.synced) == 2)
        bench.writer.close()

    asyncio.run(story())


def test_the_longer_a_sync_took_the_longer_the_thread_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hangs now and then makes no heartbeat wait a second time."""

    async def story() -> None:
        bench = Bench(Disk())
        for took_s, penalty_s in ((0.001, None), (0.011, 11.0), (0.02, 20.0), (1.0, 1000.0)):
            bench.writer.slow_until_s = 0.0
            times = iter([10.0, 10.0, 10.0 + took_s])
            monkeypatch.setattr(bench.writer, "_loop", SimpleNamespace(time=lambda times=times: next(times)))
            bench.writer.add(bench.writer._next.number + 1, [1], [])
            assert bench.writer.go()
            until_s = 0.0 if penalty_s is None else 10.0 + took_s + penalty_s
            assert bench.writer.slow_until_s == pytest.approx(until_s)

    asyncio.run(story())


@pytest.mark.parametrize("here", [True, False])
def test_after_a_failed_sync_nothing_is_written_or_said(here: bool) -> None:
    async def story() -> None:
        disk = Disk()
        disk.error = StorageFailed("the disk is gone")
        bench = Bench(disk, slow=not here)
        bench.writer.add(1, [1], [(2, "a")])
        assert not bench.writer.go()
        await bench.until(lambda: bool(bench.failures))
        bench.writer.add(2, [2], [(2, "b")])
        assert not bench.writer.go()
        assert bench.synced == []
        assert disk.durable == []
        bench.writer.close()

    asyncio.run(story())


@pytest.mark.parametrize("here", [True, False])
def test_an_error_of_ours_in_the_writing_ends_the_replica_wherever_it_happens(here: bool) -> None:
    """A thread that died in silence would leave a leader that is heard by all and never writes again."""

    async def story() -> None:
        heard: list[BaseException] = []
        disk = Disk()
        bench = Bench(disk, slow=not here)

        def handle(_: object, context: dict) -> None:
            heard.append(context["exception"])
            bench.changed.set()

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(handle)
        disk.inside = 1  # so that the next one is a second sync in flight, which is asserted
        bench.writer.add(1, [1], [(2, "a")])
        loop.call_soon(bench.writer.go)
        await bench.until(lambda: bool(heard))
        assert "two syncs in flight" in repr(heard[0]) + repr(heard[0].__cause__)
        assert not isinstance(heard[0], OSError), "that would count as some connection's own trouble"
        assert bench.synced == []
        assert bench.writer.broken or here
        bench.writer.close()

    asyncio.run(story())


def test_memory_only_is_durable_at_once() -> None:
    async def story() -> None:
        bench = Bench(None)
        bench.writer.add(1, [1], [(2, "a")])
        assert bench.writer.go()
        assert bench.synced == [(1, [(2, "a")])]

    asyncio.run(story())
