# SPDX-License-Identifier: Apache-2.0
"""What is asked of the snapshots' thread while it is busy."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from dthreading.errors import ProtocolError
from replicas.daemon.snapshotting import SnapshotKeeper
from replicas.storage import StorageFailed


class Slow:
    """A storage whose segments take as long as `gate` is closed."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.prepared = 0

    def prepare(self) -> bool:
        self.prepared += 1
        self.entered.set()
        assert self.gate.wait(10)
        return False


def test_a_segment_that_is_due_is_asked_for_once_however_often_it_is_said() -> None:
    """It is said after each sync. While the thread is at something long, that would be a queue without an end."""

    async def story() -> None:
        storage = Slow()
        keeper = SnapshotKeeper(storage, asyncio.get_running_loop(), None)  # type: ignore[arg-type]
        keeper.prepare()
        assert storage.entered.wait(10)
        for _ in range(1000):
            keeper.prepare()
        assert keeper._work.qsize() <= 1
        storage.gate.set()
        done = asyncio.Event()
        keeper._post(lambda: keeper._tell(done.set))
        await asyncio.wait_for(done.wait(), 10)
        assert storage.prepared == 2, "what was said while it was at it may mean the next one"
        keeper.prepare()
        keeper._post(lambda: keeper._tell(done.set))
        done.clear()
        await asyncio.wait_for(done.wait(), 10)
        assert storage.prepared == 3
        keeper.close()

    asyncio.run(story())


@pytest.mark.parametrize("error", [StorageFailed("no room"), ProtocolError("a snapshot of another version")])
def test_only_a_disk_that_failed_is_said_to_have_failed(error: Exception) -> None:
    """An operator who is told of the disk replaces it; an error of ours, or of a peer's, he would meet again there."""

    async def story() -> None:
        told: asyncio.Future[tuple[str, object]] = asyncio.get_running_loop().create_future()

        class Storage:
            def prepare(self) -> bool:
                raise error

        class Host:
            def disk_failed(self, error: StorageFailed) -> None:
                told.set_result(("the disk", error))

        def handle(_: object, context: dict[str, Any]) -> None:
            told.set_result(("we", context["exception"].__cause__))

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(handle)
        keeper = SnapshotKeeper(Storage(), loop, Host())  # type: ignore[arg-type]
        keeper.prepare()
        who = "the disk" if isinstance(error, StorageFailed) else "we"
        assert await asyncio.wait_for(told, 10) == (who, error)
        keeper.prepare()  # and nothing more is done, or told of
        keeper.close()

    asyncio.run(story())
