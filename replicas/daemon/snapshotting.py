# SPDX-License-Identifier: Apache-2.0
"""Snapshots on their way to the disk, to a peer, or from one; and log segments made ahead. All of it on one thread.

What the sans-IO replica asks for (`SnapshotWork`) is done here in the order it was asked, beside the log's own syncs,
so that no turn of the loop waits for a snapshot.
"""

from __future__ import annotations

import gc
import queue
import threading
from typing import TYPE_CHECKING, Final, Protocol

from replicas.daemon.journal import log
from replicas.machine.core import Machine
from replicas.replica.messages import SnapshotPart
from replicas.replica.output import (
    BeginSnapshot,
    FinishSnapshot,
    KeepSnapshotPart,
    ServeSnapshot,
    SnapshotChunk,
    SnapshotWork,
)
from replicas.storage import SnapshotDamaged, SnapshotHeader, StorageFailed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from replicas.storage import MemoryStorage, SnapshotWriter, Storage
    from replicas.storage.memory import MemorySnapshotWriter

__all__ = ["SnapshotKeeper", "contents", "restored"]

PART_BYTES: Final = 1024 * 1024
"""What one message carries of a snapshot: a sixteenth of the largest frame, so it holds up no heartbeat for long."""


CLOSE_S: Final = 2.0
"""How long the end waits for the piece under way: a disk that hangs must not keep the process."""


class Host(Protocol):
    """What is told, in the loop, when something is done."""

    def snapshot_saved(self, slot: int, chain: int) -> None: ...
    def snapshot_installed(self, header: SnapshotHeader, machine: Machine) -> None: ...
    def snapshot_part(self, replica: int, part: SnapshotPart) -> None: ...
    def disk_failed(self, error: StorageFailed) -> None: ...


class SnapshotKeeper:
    """Does snapshot work on its own thread, which is started with the first piece of it."""

    def __init__(self, storage: Storage | MemoryStorage, loop: asyncio.AbstractEventLoop, host: Host) -> None:
        self._storage = storage
        self._loop = loop
        self._host = host
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._preparing = False  # whether the next segment waits in _work
        # These three belong to the thread.
        self._writing: tuple[SnapshotHeader, SnapshotWriter | MemorySnapshotWriter] | None = None
        self._receiving: tuple[SnapshotHeader, SnapshotWriter | MemorySnapshotWriter] | None = None
        self._broken = False

    def do(self, work: SnapshotWork, digest: bytes) -> None:
        """One wish of the replica. `digest` is that of its machine at this moment."""
        match work:
            case BeginSnapshot(slot=slot, configuration=configuration, chain=chain, promised=promised):
                self._post(lambda: self._begin(SnapshotHeader(slot, configuration, chain, digest, promised)))
            case SnapshotChunk(data=data):
                self._post(lambda: self._write(data))
            case FinishSnapshot():
                self._post(self._finish)
            case ServeSnapshot():
                self._post(lambda: self._serve(work))
            case KeepSnapshotPart(part=part):
                self._post(lambda: self._keep(part))
            case _:
                raise AssertionError(work)

    def prepare(self) -> None:
        """Have the log's next segment made ahead. It is said after each sync, and asked of the thread once."""
        if not self._preparing:
            self._preparing = True
            self._post(self._prepare)

    def close(self) -> None:
        """End the thread after the piece that it is at; what was not finished is as if it had never begun."""
        if self._thread is not None:
            self._broken = True
            self._work.put(None)
            self._thread.join(CLOSE_S)
            self._thread = None

    def _post(self, piece: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dthreading-snapshots", daemon=True)
            self._thread.start()
        self._work.put(piece)

    def _run(self) -> None:
        while (piece := self._work.get()) is not None:
            if self._broken:
                continue
            try:
                piece()
            except StorageFailed as error:
                self._broken = True
                self._tell(self._host.disk_failed, error)
            except Exception as error:  # noqa: BLE001 - a thread that dies silently would stop snapshots for ever
                self._broken = True
                self._tell(self._break, error)

    def _break(self, error: Exception) -> None:
        """An error of ours ends the process as it would have in the loop: no disk is to blame."""
        raise RuntimeError("making or loading a snapshot failed") from error

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        self._loop.call_soon_threadsafe(call, *arguments)

    # --- pieces, on the thread

    def _prepare(self) -> None:
        self._preparing = False
        while not self._broken and self._storage.prepare():
            pass

    def _begin(self, header: SnapshotHeader) -> None:
        if self._writing is not None:
            # The replica has begun anew (a peer's snapshot was installed meanwhile): the unfinished one is void.
            self._writing[1].abort()
        self._writing = header, self._storage.begin_snapshot(header)

    def _write(self, data: bytes) -> None:
        assert self._writing is not None
        self._writing[1].write(data)

    def _finish(self) -> None:
        assert self._writing is not None
        (header, writer), self._writing = self._writing, None
        while not self._broken and writer.advance():
            pass
        durable = self._storage.snapshot
        if not self._broken and durable is not None and durable.slot == header.slot:
            log.info("snapshot of slot %d is durable: %d bytes", header.slot, writer.offset)
            self._tell(self._host.snapshot_saved, header.slot, header.chain)

    def _serve(self, work: ServeSnapshot) -> None:
        header = self._storage.snapshot
        if header is None:
            return
        offset = work.request.offset if work.request.slot == header.slot else 0
        if not 0 <= offset <= header.size:
            return
        data = self._storage.read_snapshot(offset, PART_BYTES)
        last = offset + len(data) >= header.size
        part = SnapshotPart(header.slot, header.encode(), offset, data, last, header.size)
        self._tell(self._host.snapshot_part, work.replica, part)

    def _keep(self, part: SnapshotPart) -> None:
        try:
            if part.offset == 0:
                self._start_receiving(SnapshotHeader.decode(part.header), part)
            if self._receiving is None or self._receiving[0].slot != part.slot:
                return
            writer = self._receiving[1]
            if writer.offset != part.offset:
                return
            writer.write(part.data)
            if part.last:
                self._receiving = None
                self._install(writer)
        except SnapshotDamaged as error:
            self._receiving = None
            log.warning("a snapshot from another replica was refused: %s", error)

    def _start_receiving(self, header: SnapshotHeader, part: SnapshotPart) -> None:
        if header.slot != part.slot:
            raise SnapshotDamaged(f"its header is of slot {header.slot}, it was sent as that of {part.slot}")
        if self._receiving is not None:
            self._receiving[1].abort()
        log.info("fetching a snapshot of slot %d, %d bytes", header.slot, header.size)
        self._receiving = header, self._storage.receive_snapshot(header)

    def _install(self, writer: SnapshotWriter | MemorySnapshotWriter) -> None:
        header = writer.finish()
        machine = restored(self._storage)
        self._tell(self._host.snapshot_installed, header, machine)


def restored(storage: Storage | MemoryStorage) -> Machine:
    """The state that the durable snapshot holds.

    Raises:
        ProtocolError: it is no snapshot of ours.

    """
    collects = gc.isenabled()
    # All that is made here stays, and to look through it again and again would be half of the work.
    gc.disable()
    try:
        machine = Machine.restore(contents(storage))
    finally:
        if collects:
            gc.enable()
    if not machine.roster.top and storage.snapshot is not None:
        # Written before snapshots told who the members are; no id was given since the group was formed.
        machine.roster.configure(storage.snapshot.configuration)
    return machine


def contents(storage: Storage | MemoryStorage) -> Iterator[bytes]:
    """The durable snapshot, part by part."""
    offset = 0
    while part := storage.read_snapshot(offset, PART_BYTES):
        yield part
        offset += len(part)
