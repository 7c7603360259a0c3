# SPDX-License-Identifier: Apache-2.0
"""When a replica takes a snapshot of its own state, and how it fetches a peer's when it is too far behind. No I/O.

A snapshot is written a slice a turn while commands go on. One that is fetched comes part by part, each asked for when
the last has come; if a part is lost or the peer has a newer one by now, it begins again.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from replicas.machine.core import Machine
from replicas.machine.snapshot import SnapshotWriter
from replicas.paxos.core import Paxos
from replicas.replica.messages import PeerMessage, SnapshotPart, SnapshotRequest
from replicas.replica.output import BeginSnapshot, FinishSnapshot, KeepSnapshotPart, SnapshotChunk, SnapshotWork

__all__ = ["Cutting", "Fetching"]

ENTRIES: Final = 50_000
"""Entries applied since the last snapshot that make it time for another: a few seconds of replay after a restart."""

LOG_BYTES: Final = 32 * 1024 * 1024
"""The same for the bytes of those entries, so that a log of large items stays bounded as well."""

SLICE_BYTES: Final = 64 * 1024
"""How much of a snapshot is serialized in one turn of the loop: well under a millisecond."""

PART_RETRY_MS: Final = 1000
"""A part that has not come by then is taken for lost."""

INSTALL_MS: Final = 30_000
"""How long the shell may take to check and load a whole snapshot before it is fetched anew."""


class _Writing(NamedTuple):
    slot: int
    writer: SnapshotWriter


class Cutting:
    """When and how this replica writes snapshots of its own state."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        """Of the newest durable snapshot."""
        self.busy = False
        """Whether one is being written, or is to be begun, so that another turn is wanted soon."""
        self._writing: _Writing | None = None
        self._entries = 0
        self._bytes = 0

    def applied(self, size: int) -> None:
        """One more entry, with a value of `size` bytes, is in the log and not in a snapshot."""
        self._entries += 1
        self._bytes += size
        if self._is_time:
            self.busy = True

    @property
    def _is_time(self) -> bool:
        return self._entries >= ENTRIES or self._bytes >= LOG_BYTES

    def restart(self, slot: int) -> None:
        """The state was exchanged for a snapshot of `slot`; whatever was being written is void."""
        self.slot = slot
        self.busy = False
        self._writing = None
        self._entries = self._bytes = 0

    def work(self, machine: Machine, paxos: Paxos) -> list[SnapshotWork]:
        """The slice of this turn, if one is due. `machine` has applied all that `paxos` has handed out."""
        if self._writing is not None:
            return self._slice(self._writing)
        if not self.busy:
            return []
        self._entries = self._bytes = 0
        self._writing = _Writing(machine.applied, machine.snapshot())
        assert machine.applied == paxos.chosen
        return [BeginSnapshot(machine.applied, paxos.configuration, paxos.chain, paxos.promised)]

    def _slice(self, writing: _Writing) -> list[SnapshotWork]:
        data = writing.writer.step(SLICE_BYTES)
        if data:
            return [SnapshotChunk(data)]
        self._writing = None
        self.busy = self._is_time
        return [FinishSnapshot(writing.slot)]


class Fetching:
    """A peer's snapshot on its way here, if one is wanted."""

    def __init__(self) -> None:
        self._source: int | None = None
        self._slot = 0
        self._offset = 0
        self._total = 0
        self._due_ms = 0

    @property
    def received(self) -> tuple[int, int]:
        """Bytes of the one on its way: those that are here, and all. (0, 0) when there is none."""
        return (0, 0) if self._source is None else (self._offset, self._total)

    def want(self, source: int, now_ms: int) -> list[tuple[int, PeerMessage]]:
        """Only the snapshot of `source` has what is needed next. Said again and again while it is so."""
        if self._source is not None and now_ms < self._due_ms:
            return []
        self._source, self._slot, self._offset = source, 0, 0
        return self._ask(source, now_ms)

    def came(
        self, source: int, part: SnapshotPart, applied: int, now_ms: int
    ) -> tuple[list[SnapshotWork], list[tuple[int, PeerMessage]]]:
        """A part from `source`: what to store, and what to ask next. `applied` is how far this replica is by itself."""
        if source != self._source:
            return [], []
        if part.offset == 0:
            self._slot, self._offset = part.slot, 0
        if part.slot <= applied or part.slot != self._slot or part.offset != self._offset:
            self._source = None
            return [], []
        self._offset += len(part.data)
        self._total = part.total
        work: list[SnapshotWork] = [KeepSnapshotPart(source, part)]
        if part.last:
            self._due_ms = now_ms + INSTALL_MS
            return work, []
        return work, self._ask(source, now_ms)

    def done(self) -> None:
        """It was installed, or is not wanted any more."""
        self._source = None

    def _ask(self, source: int, now_ms: int) -> list[tuple[int, PeerMessage]]:
        self._due_ms = now_ms + PART_RETRY_MS
        return [(source, SnapshotRequest(self._slot, self._offset))]
