# SPDX-License-Identifier: Apache-2.0
"""The way of records to the disk: batches wait here while one is written, and all that waited go in the next sync.

The only owner of the log's thread. Never are two syncs in flight, so the disk sees batches in the order of their
making; and messages that depend on a batch leave only when it, and every one before it, is durable.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

from replicas.storage.files import StorageFailed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from replicas.replica.messages import PeerMessage

__all__ = ["Log", "LogWriter"]

SLOW_S: Final = 0.010
"""A sync longer than this moves the writing to the thread: a loop that waits for a disk answers no heartbeat. It is a
twentieth of a heartbeat's pace; on a busy machine a shorter delay is as often the scheduler's as the disk's, and there
the thread's switches cost most."""

SLOW_FOR_TIMES: Final = 1000
"""How many times as long as a slow sync took the thread writes after it. A disk that hangs for a second each ten
minutes would else cost the leader its place each time."""


class Log(Protocol):
    """The part of the storage that this file uses."""

    def append(self, records: list[Any]) -> None: ...
    def sync(self) -> None: ...


CLOSE_S: Final = 2.0
"""How long the end waits for a write under way: a disk that hangs must not keep the process."""


class _Batch:
    """What goes to the disk in one sync."""

    __slots__ = ("messages", "number", "records")

    def __init__(self) -> None:
        self.number = 0
        self.records: list[Any] = []
        self.messages: list[tuple[int, PeerMessage]] = []


class LogWriter:
    """Group commit: `add` puts records to the next batch, `go` writes it if nothing is being written.

    Args:
        log: where records go; None keeps nothing (memory only), and everything counts as durable at once.
        synced: called in the loop with a batch's number and the messages that waited for it.
        failed: called in the loop, once, when the disk refused; nothing is written after that.

    """

    def __init__(
        self,
        log: Log | None,
        loop: asyncio.AbstractEventLoop,
        synced: Callable[[int, list[tuple[int, PeerMessage]]], None],
        failed: Callable[[StorageFailed], None],
    ) -> None:
        self._log = log
        self._loop = loop
        self._synced = synced
        self._failed = failed
        self._next = _Batch()
        # Invariant: while _writing is set, the thread owns the log and nobody else touches it.
        self._writing = False
        self.broken = False
        """Whether the disk has refused. Nothing is written after that."""
        self.slow_until_s = 0.0
        """Until then (by the loop's clock) the thread writes."""
        self._work: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def idle(self) -> bool:
        """Whether all that was added is durable."""
        return not self._writing and not self._next.records and not self._next.messages

    @property
    def due(self) -> bool:
        """Whether `go` would write something now."""
        return not self._writing and bool(self._next.records or self._next.messages)

    def add(self, batch: int, records: list[Any], messages: list[tuple[int, PeerMessage]]) -> None:
        """Records of this turn (batch 0: none), and the messages that may leave when they are durable."""
        if records:
            assert batch > self._next.number
            self._next.number = batch
            self._next.records += records
        self._next.messages += messages

    def go(self) -> bool:
        """Write what was added, unless a write is in flight: its end calls `synced`, and then `go` is due again.

        While the disk is fast it is written here, in the calling thread: two switches of threads and the wake-up of the
        loop cost more than the sync itself, and what comes meanwhile waits in the sockets for the next one.

        Returns:
            whether a batch was made durable before the return.

        """
        if self._writing or self.broken or not (self._next.records or self._next.messages):
            return False
        batch, self._next = self._next, _Batch()
        if self._log is None or not batch.records:
            self._done(batch)
            return True
        if self._loop.time() >= self.slow_until_s:
            return self._write_here(batch)
        self._writing = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_batches, name="dthreading-log", daemon=True)
            self._thread.start()
        self._work.put(batch)
        return False

    def close(self) -> None:
        """End the thread after what it is writing; call it when `idle`, or when the process gives up."""
        if self._thread is not None:
            self._work.put(None)
            self._thread.join(CLOSE_S)
            self._thread = None

    def _write_here(self, batch: _Batch) -> bool:
        began_s = self._loop.time()
        try:
            self._write(batch)
        except StorageFailed as error:
            self._give_up(error)
            return False
        ended_s = self._loop.time()
        took_s = ended_s - began_s
        if took_s > SLOW_S:
            self.slow_until_s = ended_s + SLOW_FOR_TIMES * took_s
        self._done(batch)
        return True

    def _write(self, batch: _Batch) -> None:
        assert self._log is not None
        self._log.append(batch.records)
        self._log.sync()

    def _write_batches(self) -> None:
        while (batch := self._work.get()) is not None:
            try:
                self._write(batch)
            except StorageFailed as error:
                self._loop.call_soon_threadsafe(self._give_up, error)
                return
            except Exception as error:  # noqa: BLE001 - without its thread a leader would be heard and never write
                self._loop.call_soon_threadsafe(self._break, error)
                return
            self._loop.call_soon_threadsafe(self._written, batch)

    def _written(self, batch: _Batch) -> None:
        self._writing = False
        self._done(batch)

    def _done(self, batch: _Batch) -> None:
        if not self.broken:
            self._synced(batch.number, batch.messages)

    def _break(self, error: Exception) -> None:
        """An error of ours ends the process as it would have in the loop."""
        self.broken = True
        raise RuntimeError("writing the log failed") from error

    def _give_up(self, error: StorageFailed) -> None:
        # A sync that failed may have lost pages that a second one would report as written: it is never tried again.
        self.broken = True
        self._failed(error)
