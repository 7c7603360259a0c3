# SPDX-License-Identifier: Apache-2.0
"""What is asked of the snapshots' thread while it is busy."""

from __future__ import annotations

import asyncio
import threading

from replicas.daemon.snapshotting import SnapshotKeeper


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
