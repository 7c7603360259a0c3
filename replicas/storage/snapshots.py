# SPDX-License-Identifier: Apache-2.0
"""The snapshot: one file, replaced as a whole, written in slices by ourselves or received in parts from a peer.

    contents | header | length of the header | CRC32 of the header | magic

The header stands at the end since the contents' size and checksum are known only then. A new snapshot is written aside,
synced, read back against its checksum, renamed over the one before, and the directory synced; the one before stays
until then.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple
from zlib import crc32

import msgpack

from replicas.paxos.types import NO_BALLOT, Ballot, Configuration
from replicas.paxos.values import decode_configuration, encode_configuration
from replicas.storage.files import Disk, File, Fuse, SnapshotDamaged, StorageFailed

SNAPSHOT_NAME: Final = "snapshot"
SNAPSHOT_ASIDE: Final = "snapshot.new"
SNAPSHOT_RECEIVED: Final = "snapshot.received"

CHECKSUM_BYTES: Final = 16
SYNC_SLICE_BYTES: Final = 1024 * 1024
"""So much is written before it is synced, and so much is read back at once: a few milliseconds of anybody's time."""

HEADER_BYTES_MAX: Final = 1 << 20
"""A configuration of seven members takes less than a kilobyte."""

_TAIL: Final = struct.Struct(">II8s")
_MAGIC: Final = b"dtsnap02"


class SnapshotHeader(NamedTuple):
    """What a snapshot is of. `size` and `checksum`, of its contents, are filled in by the storage that writes it
    first.
    """

    slot: int
    configuration: Configuration
    """The one in force at `slot`."""
    chain: int
    """Consensus' hash chain up to and including `slot`."""
    digest: bytes
    """The machine's own digest of its state."""
    promised: Ballot = NO_BALLOT
    """At or above every ballot under which slots up to `slot` were chosen. Whoever starts from this snapshot promises
    it: those slots count as accepted, which no leader with a lower ballot may hear.
    """
    size: int = 0
    checksum: bytes = b""

    def encode(self) -> bytes:
        """For a peer, and for the disk."""
        chain = self.chain.to_bytes((self.chain.bit_length() + 7) // 8, "big")
        configuration = encode_configuration(self.configuration)
        fields = (self.slot, configuration, chain, self.digest, tuple(self.promised), self.size, self.checksum)
        encoded: bytes = msgpack.packb(fields)
        return encoded

    @classmethod
    def decode(cls, data: bytes) -> SnapshotHeader:
        """What `encode` made, checked: it may come from a peer. Raises `SnapshotDamaged`."""
        try:
            slot, configuration, chain, digest, (round_, replica), size, checksum = msgpack.unpackb(data)
            promised = Ballot(round_, replica)
            number = int.from_bytes(chain, "big")
            header = cls(slot, decode_configuration(configuration), number, digest, promised, size, checksum)
        except (ValueError, TypeError, AssertionError, msgpack.UnpackException) as error:
            raise SnapshotDamaged("A snapshot's header cannot be read.") from error
        numbers = type(slot) is int and type(size) is int and slot > 0 and size >= 0
        numbers = numbers and type(round_) is int and type(replica) is int
        if not numbers or type(digest) is not bytes or type(checksum) is not bytes or len(checksum) != CHECKSUM_BYTES:
            raise SnapshotDamaged("A snapshot's header holds something else than it should.")
        return header


class Snapshots:
    """The durable snapshot of one directory, if there is one, and the two that may be under way."""

    def __init__(self, disk: Disk, fuse: Fuse, installed: Callable[[SnapshotHeader], Iterator[None]]) -> None:
        self.disk = disk
        self.fuse = fuse
        # Called once a snapshot is durable; it works in slices too.
        self.installed = installed
        self.header: SnapshotHeader | None = None
        self._file: File | None = None
        # A peer may be reading on one thread while another puts a new snapshot in place.
        self._reading = threading.Lock()

    def load(self) -> str | None:
        """Opens what is on the disk and reads all of it. Returns what is wrong with it, as the end of a sentence."""
        file = self.disk.open(SNAPSHOT_NAME)
        file.forget_cached()
        header = _read_header(file)
        if header is None:
            file.close()
            return "its snapshot has no readable header"
        checksum = hashlib.blake2b(digest_size=CHECKSUM_BYTES)
        for part in _parts(file, header.size):
            checksum.update(part)
        if checksum.digest() != header.checksum:
            file.close()
            return f"its snapshot of slot {header.slot} is damaged"
        self.header, self._file = header, file
        return None

    def read(self, offset: int, length: int) -> bytes:
        """A part of the contents; fewer bytes, at last none, at the end."""
        with self._reading, self.fuse.guarding("Reading the snapshot"):
            assert self.header is not None
            assert self._file is not None
            return self._file.read(offset, max(0, min(length, self.header.size - offset)))

    def put_in_place(self, aside: str, header: SnapshotHeader) -> None:
        """The file `aside` is whole and durable: it becomes the snapshot."""
        self.disk.rename(aside, SNAPSHOT_NAME)
        self.disk.sync()
        file = self.disk.open(SNAPSHOT_NAME)
        with self._reading:
            before, self._file, self.header = self._file, file, header
        if before is not None:
            before.close()

    def close(self) -> None:
        """Of a read that is under way on a disk that hangs, the end of the process lets go."""
        if self._reading.acquire(blocking=False):
            if self._file is not None:
                self._file.close()
                self._file = None
            self._reading.release()


class SnapshotWriter:
    """One snapshot on its way to the disk. Any thread may do the writing, one at a time.

    `write` as often as there is something; then `advance` until it is False, or `finish`, which is the same in one go.
    """

    def __init__(self, snapshots: Snapshots, header: SnapshotHeader, *, received: bool) -> None:
        self._snapshots = snapshots
        self._disk = snapshots.disk
        self._fuse = snapshots.fuse
        self._header = header
        self._received = received
        self._aside = SNAPSHOT_RECEIVED if received else SNAPSHOT_ASIDE
        self._checksum = hashlib.blake2b(digest_size=CHECKSUM_BYTES)
        self._unsynced = 0
        self._closing: Iterator[None] | None = None
        self._done = False
        self.offset = 0
        """How much of the contents has been written: where the next part begins."""
        with self._fuse.guarding("Beginning a snapshot"):
            self._file = self._disk.create(self._aside)

    def write(self, chunk: bytes) -> None:
        """Adds this to the contents. Of a received one, more than was announced is refused before it is written."""
        assert self._closing is None
        assert not self._done
        if self._received and self.offset + len(chunk) > self._header.size:
            self.abort()
            raise SnapshotDamaged(f"The snapshot of slot {self._header.slot} is longer than its header says.")
        with self._fuse.guarding("Writing a snapshot"):
            self._file.write(self.offset, chunk)
            self._unsynced += len(chunk)
            if self._unsynced >= SYNC_SLICE_BYTES:
                self._file.sync()
                self._unsynced = 0
        self._checksum.update(chunk)
        self.offset += len(chunk)

    def advance(self) -> bool:
        """One slice of making it durable and putting it in place. True while more is to do."""
        if self._done:
            return False
        if self._closing is None:
            self._closing = self._close()
        try:
            with self._fuse.guarding("Finishing a snapshot"):
                next(self._closing)
        except StopIteration:
            self._done = True
        except (SnapshotDamaged, StorageFailed):
            self._done = True
            raise
        return not self._done

    def finish(self) -> SnapshotHeader:
        """All that `advance` does. Returns the header of what is the durable snapshot then: this one, or a newer
        one.
        """
        while self.advance():
            pass
        header = self._snapshots.header
        assert header is not None
        return header

    def abort(self) -> None:
        """Gives it up; nothing was changed. Allowed at any time, also when all is done."""
        if not self._done:
            self._done = True
            with self._fuse.guarding("Giving up a snapshot"):
                self._file.close()
                self._disk.remove(self._aside)

    def _close(self) -> Iterator[None]:
        header = self._header._replace(size=self.offset, checksum=self._checksum.digest())
        if self._received and header != self._header:
            self.abort()
            raise SnapshotDamaged(f"The snapshot of slot {header.slot} that was received is not what its header says.")
        encoded = header.encode()
        self._file.write(self.offset, encoded + _TAIL.pack(len(encoded), crc32(encoded), _MAGIC))
        self._file.sync()
        yield
        yield from self._read_back(header)
        self._file.close()
        current = self._snapshots.header
        if current is not None and current.slot >= header.slot:  # a newer one came from a peer, or the other way round
            self._disk.remove(self._aside)
            return
        self._snapshots.put_in_place(self._aside, header)
        yield
        yield from self._snapshots.installed(header)

    def _read_back(self, header: SnapshotHeader) -> Iterator[None]:
        self._file.forget_cached()
        checksum = hashlib.blake2b(digest_size=CHECKSUM_BYTES)
        for part in _parts(self._file, header.size):
            checksum.update(part)
            yield
        if checksum.digest() != header.checksum or _read_header(self._file) != header:
            raise self._fuse.blow(f"The disk did not keep the snapshot of slot {header.slot} as it was written.")


def _parts(file: File, size: int) -> Iterator[bytes]:
    for offset in range(0, size, SYNC_SLICE_BYTES):
        yield file.read(offset, min(SYNC_SLICE_BYTES, size - offset))


def _read_header(file: File) -> SnapshotHeader | None:
    end = file.size() - _TAIL.size
    if end < 0:
        return None
    length, crc, magic = _TAIL.unpack(file.read(end, _TAIL.size))
    if magic != _MAGIC or length > min(end, HEADER_BYTES_MAX):
        return None
    encoded = file.read(end - length, length)
    if crc32(encoded) != crc:
        return None
    try:
        header = SnapshotHeader.decode(encoded)
    except SnapshotDamaged:
        return None
    return header if header.size == end - length else None
