# SPDX-License-Identifier: Apache-2.0
"""MemoryStorage: Storage's door with nothing behind it. What a replica promised is gone with its process.

Only the newest snapshot is kept, since a peer may ask for it. A group of such replicas keeps its state as long as a
majority of them lives at any moment, and a replica that was restarted is an empty one: it takes part again only under a
new id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from replicas.paxos.types import Durable, Record
from replicas.storage.files import SnapshotDamaged
from replicas.storage.identity import Identity
from replicas.storage.snapshots import CHECKSUM_BYTES, SnapshotHeader
from replicas.storage.store import Recovered


class MemoryStorage:
    """The same methods as `Storage`; `open` is this class itself."""

    def __init__(self) -> None:
        self.identity: Identity | None = None
        self.snapshot: SnapshotHeader | None = None
        self.recovered = Recovered(None, Durable(), None, None)
        self._contents = b""

    def format(self, incarnation: bytes) -> None:
        assert self.identity is None
        self.identity = Identity(incarnation, None)

    def form(self, formation: bytes) -> None:
        assert self.identity is not None
        self.identity = self.identity._replace(formation=formation)

    def append(self, records: Iterable[Record]) -> None:
        pass

    def sync(self) -> None:
        pass

    def prepare(self) -> bool:
        return False

    @property
    def segment_due(self) -> bool:
        return False

    @property
    def log_bytes(self) -> int:
        return 0

    def begin_snapshot(self, header: SnapshotHeader) -> MemorySnapshotWriter:
        return MemorySnapshotWriter(self, header, received=False)

    def receive_snapshot(self, header: SnapshotHeader) -> MemorySnapshotWriter:
        return MemorySnapshotWriter(self, header, received=True)

    def read_snapshot(self, offset: int, length: int) -> bytes:
        assert self.snapshot is not None
        return self._contents[offset : offset + length]

    def install(self, header: SnapshotHeader, contents: bytes) -> None:
        """For the writer: this is the snapshot now, unless a newer one is."""
        if self.snapshot is None or self.snapshot.slot < header.slot:
            self.snapshot, self._contents = header, contents

    def close(self) -> None:
        pass


class MemorySnapshotWriter:
    """The same methods as `SnapshotWriter`."""

    def __init__(self, storage: MemoryStorage, header: SnapshotHeader, *, received: bool) -> None:
        self._storage = storage
        self._header = header
        self._received = received
        self._chunks: list[bytes] = []
        self._done = False
        self.offset = 0

    def write(self, chunk: bytes) -> None:
        assert not self._done
        if self._received and self.offset + len(chunk) > self._header.size:
            self.abort()
            raise SnapshotDamaged(f"The snapshot of slot {self._header.slot} is longer than its header says.")
        self._chunks.append(chunk)
        self.offset += len(chunk)

    def advance(self) -> bool:
        if self._done:
            return False
        contents = b"".join(self._chunks)
        checksum = hashlib.blake2b(contents, digest_size=CHECKSUM_BYTES).digest()
        header = self._header._replace(size=len(contents), checksum=checksum)
        self.abort()
        if self._received and header != self._header:
            raise SnapshotDamaged(f"The snapshot of slot {header.slot} that was received is not what its header says.")
        self._storage.install(header, contents)
        return False

    def finish(self) -> SnapshotHeader:
        while self.advance():
            pass
        assert self._storage.snapshot is not None
        return self._storage.snapshot

    def abort(self) -> None:
        self._done = True
        self._chunks = []
