# SPDX-License-Identifier: Apache-2.0
"""Storage: log, snapshot and identity of one replica behind one door. What opening a directory finds is decided here.

Everything blocks and nothing starts a thread: who calls decides where. Allowed at the same time: `append`; one `sync`;
one `prepare`; one snapshot being written and one being received; `read_snapshot`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from replicas.paxos.types import NO_BALLOT, Ballot, Durable, Entry, EntryKind, Record
from replicas.storage.files import Disk, Fuse, StorageFailed, StorageRefused
from replicas.storage.identity import IDENTITY_ASIDE, IDENTITY_NAME, Identity, read_identity, write_identity
from replicas.storage.log import Log
from replicas.storage.recovery import FIRST_INDEX, LogState, load_segment, read_log
from replicas.storage.segments import SEGMENT_ASIDE, SEGMENT_BYTES, SegmentMaker, segment_indexes, segment_name
from replicas.storage.snapshots import (
    SNAPSHOT_ASIDE,
    SNAPSHOT_NAME,
    SNAPSHOT_RECEIVED,
    SnapshotHeader,
    Snapshots,
    SnapshotWriter,
)

__all__ = ["Recovered", "Storage"]

_ASIDES: Final = (IDENTITY_ASIDE, SEGMENT_ASIDE, SNAPSHOT_ASIDE, SNAPSHOT_RECEIVED)
_NOT_OURS_BUT_HARMLESS: Final = frozenset({"lock", "lost+found"})


class Recovered(NamedTuple):
    """What was found when the directory was opened."""

    identity: Identity | None
    """None: the directory is empty, and `format` is due before anything else."""
    durable: Durable
    """What consensus starts from. Its entries are let go of here once the next snapshot is durable."""
    snapshot: SnapshotHeader | None
    rot: str | None
    """One sentence, when something that was durable is damaged or gone. Such a replica must not promise or accept: only
    `recovered` and what of the snapshot can be read may be used, and `append` fails."""


class Storage:
    """One replica's durable state. Made by `open`."""

    def __init__(self, disk: Disk, segment_bytes: int) -> None:
        self._disk = disk
        self._segment_bytes = segment_bytes
        self._fuse = Fuse()
        self._snapshots = Snapshots(disk, self._fuse, self._installed)
        self._log: Log | None = None
        self._identity: Identity | None = None
        self.recovered = Recovered(None, Durable(), None, None)

    @classmethod
    def open(cls, disk: Disk, *, segment_bytes: int = SEGMENT_BYTES) -> Storage:
        """Locks the directory and reads all of it.

        Raises `StorageRefused` (as `StorageLocked` when another process is in it) with a sentence for people, and
        `StorageFailed` when the disk itself does.
        """
        storage = cls(disk, segment_bytes)
        disk.lock()
        try:
            with storage._fuse.guarding(f"Opening {disk.name}"):
                storage._recover()
        except BaseException:
            storage.close()
            raise
        return storage

    # --- identity -------------------------------------------------------------------------------------------------

    @property
    def identity(self) -> Identity | None:
        return self._identity

    def format(self, incarnation: bytes) -> None:
        """Makes an empty directory a replica's; `incarnation` is random and new."""
        assert self._identity is None
        assert incarnation
        with self._fuse.guarding("Formatting"):
            self._first_segment()
            self._write_identity(Identity(incarnation, None))
            self._open_log(read_log(self._disk, segment_indexes(self._disk.names()), 0))

    def form(self, formation: bytes) -> None:
        """Keeps what this replica is in its group: opaque here. Durable on return, the old or the new at any moment."""
        assert self._identity is not None
        with self._fuse.guarding("Writing the identity"):
            self._write_identity(self._identity._replace(formation=formation))

    # --- the log --------------------------------------------------------------------------------------------------

    def append(self, records: Iterable[Record]) -> None:
        """Adds these to the batch that the next `sync` writes."""
        self._open().append(records)

    def sync(self) -> None:
        """Returns when all that was appended before the call is durable. One at a time; after `StorageFailed`, never
        again.
        """
        self._open().sync()

    def prepare(self) -> bool:
        """A slice of making the log's next segment, so that no `sync` has to. True while more is to do; cheap when
        nothing is.
        """
        return self._open().prepare()

    @property
    def segment_due(self) -> bool:
        """Whether it is time to `prepare`."""
        return self._log is not None and self._log.segment_due

    @property
    def log_bytes(self) -> int:
        """What the log holds on the disk: a reason to make a snapshot when it grows."""
        return self._log.used_bytes if self._log is not None else 0

    # --- snapshots ------------------------------------------------------------------------------------------------

    @property
    def snapshot(self) -> SnapshotHeader | None:
        """The durable snapshot's header."""
        return self._snapshots.header

    def begin_snapshot(self, header: SnapshotHeader) -> SnapshotWriter:
        """A snapshot of our own; `size` and `checksum` of the header are left to us. One at a time."""
        self._open()
        return SnapshotWriter(self._snapshots, header, received=False)

    def receive_snapshot(self, header: SnapshotHeader) -> SnapshotWriter:
        """A peer's snapshot, with the peer's header. One at a time; one cut off is aborted, or just begun anew.

        When it is finished, the promise and every accepted entry above its slot are still there.
        """
        self._open()
        former = self._snapshots.header
        if former is not None:
            # What the former one made us promise may stand nowhere else yet.
            header = header._replace(promised=max(header.promised, former.promised))
        return SnapshotWriter(self._snapshots, header, received=True)

    def read_snapshot(self, offset: int, length: int) -> bytes:
        """A part of the durable snapshot's contents, for a peer or for restoring from. Empty at its end."""
        return self._snapshots.read(offset, length)

    def close(self) -> None:
        """Lets go of the directory. Writes nothing: what was not synced was not promised to anybody."""
        if self._log is not None:
            self._log.close()
            self._log = None
        self._snapshots.close()
        self._disk.close()

    # --- opening --------------------------------------------------------------------------------------------------

    def _open(self) -> Log:
        self._fuse.check()
        if self._log is None:
            raise StorageFailed(f"{self._disk.name} is not open, or not formatted.")
        return self._log

    def _recover(self) -> None:
        names = self._disk.names()
        if IDENTITY_NAME not in names:
            self._check_empty(names)
            return
        self._identity = read_identity(self._disk)
        self._remove_asides(names)
        # What a process before this one renamed must not turn out, after a power cut, not to have happened.
        self._disk.sync()
        rot = self._snapshots.load() if SNAPSHOT_NAME in names else None
        header = self._snapshots.header
        floor = header.slot if header is not None else 0
        state = read_log(self._disk, segment_indexes(names), floor)
        rot = rot or state.rot
        durable = Durable()
        if rot is None:
            durable, rot = _durable(state, header)
        if rot is None:
            self._open_log(state)
        else:
            rot = f"The data in {self._disk.name} is damaged: {rot}. This replica takes no part until it is replaced."
            self._fuse.blow(rot)
        self.recovered = Recovered(self._identity, durable, header, rot)
        if rot is None and header is not None:
            for _ in self._drop_segments(header):
                pass

    def _check_empty(self, names: list[str]) -> None:
        """Empty, or formatted in part and never used; anything else is not ours to write into."""
        ours = {name for name in names if name in _ASIDES} | set(map(segment_name, segment_indexes(names)))
        foreign = [name for name in names if name not in ours | _NOT_OURS_BUT_HARMLESS and not name.startswith(".")]
        if SNAPSHOT_NAME in foreign:
            raise StorageRefused(
                f"{self._disk.name} holds a replica's snapshot and log, but its identity file is missing."
            )
        if foreign:
            raise StorageRefused(
                f"{self._disk.name} is not a dthreading directory and is not empty (it holds {foreign[0]})."
            )
        for index in segment_indexes(names):
            if load_segment(self._disk, index).strip(b"\0"):
                raise StorageRefused(f"{self._disk.name} holds a replica's log, but its identity file is missing.")

    def _remove_asides(self, names: list[str]) -> None:
        for name in _ASIDES:
            if name in names:
                self._disk.remove(name)

    def _first_segment(self) -> None:
        names = self._disk.names()
        self._remove_asides(names)
        for index in reversed(segment_indexes(names)):
            self._disk.remove(segment_name(index))
        self._disk.sync()
        _, file = SegmentMaker(self._disk, self._segment_bytes, 1).take(0)
        file.close()

    def _open_log(self, state: LogState) -> None:
        self._log = Log(self._disk, state, self._fuse, self._segment_bytes)

    def _write_identity(self, identity: Identity) -> None:
        write_identity(self._disk, identity)
        self._identity = identity
        self.recovered = self.recovered._replace(identity=identity)

    # --- after a snapshot -----------------------------------------------------------------------------------------

    def _installed(self, header: SnapshotHeader) -> Iterator[None]:
        # What was recovered has long been taken over, or is covered now; kept here it would only fill memory.
        self.recovered = self.recovered._replace(durable=Durable())
        yield from self._drop_segments(header)

    def _drop_segments(self, header: SnapshotHeader) -> Iterator[None]:
        log = self._open()
        log.raise_floor(header.slot)
        while log.drop(header.slot):
            yield


def _durable(state: LogState, header: SnapshotHeader | None) -> tuple[Durable, str | None]:
    """The state that consensus starts from, or why there is none."""
    floor = state.floor
    last = max(state.entries.keys() | state.doubtful, default=floor)
    entries = []
    for slot in range(floor + 1, last + 1):
        entry = state.entries.get(slot)
        if entry is None:
            if slot not in state.doubtful:
                return Durable(), f"slot {slot} is missing from its log"
            entry = Entry(slot, NO_BALLOT, EntryKind.NOOP, b"")
        entries.append(entry)
    if header is None and state.segments[0].index != FIRST_INDEX:
        # Segments are dropped only below a snapshot; without a slot above it, nothing else in the log misses it.
        return Durable(), "its snapshot is gone, and the log that it replaced"
    while entries and entries[-1].slot not in state.entries:
        entries.pop()  # doubtful to the end: there is nothing to keep a place for
    # A doubtful slot's chosen value is not to be had any more, so what is known to be chosen ends before it.
    chosen = min(
        state.chosen, min(state.doubtful, default=state.chosen + 1) - 1, entries[-1].slot if entries else floor
    )
    durable = Durable(
        promised=max(Ballot(*state.promised), header.promised if header is not None else NO_BALLOT),
        entries=tuple(entries),
        snapshot_slot=floor,
        chain=header.chain if header is not None else 0,
        configuration=header.configuration if header is not None else None,
        chosen=max(floor, chosen),
        doubtful=frozenset(state.doubtful),
    )
    return durable, None
