# SPDX-License-Identifier: Apache-2.0
"""Snapshots: written in slices, received in parts, replaced as a whole."""

from __future__ import annotations

import contextlib
import random

import pytest

from replicas.paxos.types import Ballot, Configuration, Member, Promised
from replicas.storage import MemoryStorage, SnapshotDamaged, SnapshotHeader, SnapshotWriter, Storage, StorageFailed
from replicas.storage.memory import MemorySnapshotWriter
from replicas.storage.snapshots import SYNC_SLICE_BYTES
from tests.sim.disk import PowerCut, SimulatedDisk
from tests.storage.support import accepted, entry, formatted, header, open_storage, reopen, take_snapshot, view_of


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk(random.Random(0))


@pytest.fixture(params=["disk", "memory"])
def storage(request: pytest.FixtureRequest, disk: SimulatedDisk) -> Storage | MemoryStorage:
    if request.param == "disk":
        return formatted(disk)
    memory = MemoryStorage()
    memory.format(b"i" * 16)
    return memory


def test_written_and_read_in_parts(storage: Storage | MemoryStorage) -> None:
    """A peer reads it in parts of its own choosing, and knows the end by what is missing."""
    contents = random.Random(1).randbytes(10_000)
    writer = storage.begin_snapshot(header(5))
    for offset in range(0, len(contents), 333):
        assert writer.offset == offset
        writer.write(contents[offset : offset + 333])
    assert storage.snapshot is None
    finished = writer.finish()
    assert storage.snapshot == finished
    assert finished.size == len(contents)
    assert finished[:4] == header(5)[:4]
    parts = [storage.read_snapshot(offset, 1000) for offset in range(0, 11_000, 1000)]
    assert b"".join(parts) == contents
    assert parts[-1] == b""
    assert storage.read_snapshot(20_000, 10) == b""


def test_received_from_a_peer(storage: Storage | MemoryStorage) -> None:
    """The header travels as bytes, the contents in parts; what is stored is what the peer has."""
    source = MemoryStorage()
    announced = take_snapshot(source, 7, b"contents" * 100)
    writer = storage.receive_snapshot(SnapshotHeader.decode(announced.encode()))
    while writer.offset < announced.size:
        writer.write(source.read_snapshot(writer.offset, 150))
    assert writer.finish() == announced
    assert storage.snapshot == announced
    assert storage.read_snapshot(0, 10_000) == b"contents" * 100


def test_an_aborted_one_changes_nothing(storage: Storage | MemoryStorage) -> None:
    before = take_snapshot(storage, 3, b"before")
    writer = storage.begin_snapshot(header(5))
    writer.write(b"after")
    writer.abort()
    writer.abort()
    assert storage.snapshot == before
    assert storage.read_snapshot(0, 100) == b"before"
    assert take_snapshot(storage, 6).slot == 6


def write_all(writer: SnapshotWriter | MemorySnapshotWriter, contents: bytes) -> SnapshotHeader:
    writer.write(contents)
    return writer.finish()


@pytest.mark.parametrize("damage", ["other bytes", "too short", "too long"])
def test_a_damaged_transfer_is_refused_and_changes_nothing(storage: Storage | MemoryStorage, damage: str) -> None:
    """That is the peer's fault or the network's, not the disk's: the process lives, and may fetch it again."""
    before = take_snapshot(storage, 3, b"before")
    announced = take_snapshot(MemoryStorage(), 7, b"contents")
    writer = storage.receive_snapshot(announced)
    with pytest.raises(SnapshotDamaged):
        write_all(writer, {"other bytes": b"cOntents", "too short": b"content", "too long": b"contents!"}[damage])
    assert storage.snapshot == before
    writer = storage.receive_snapshot(announced)
    writer.write(b"contents")
    assert writer.finish() == announced


def test_an_older_one_does_not_replace_a_newer(storage: Storage | MemoryStorage) -> None:
    """Our own was under way when a peer's newer one came in."""
    own = storage.begin_snapshot(header(5))
    own.write(b"own")
    announced = take_snapshot(MemoryStorage(), 9, b"received")
    received = storage.receive_snapshot(announced)
    received.write(b"received")
    received.finish()
    assert own.finish() == announced
    assert storage.read_snapshot(0, 100) == b"received"


@pytest.mark.parametrize(
    "damage",
    [b"", b"\xc1", b"\x90", b"\x96\x01\x02\x03\x04\x05\x06", header(5).encode(), header(5)._replace(slot=0).encode()],
)
def test_a_peers_header_is_checked(damage: bytes) -> None:
    with pytest.raises(SnapshotDamaged):
        SnapshotHeader.decode(damage)


def test_every_damaged_header_is_refused_or_a_header() -> None:
    """Bytes from a peer never raise anything else."""
    whole = header(5)._replace(size=3, checksum=b"c" * 16).encode()
    for offset in range(len(whole)):
        for mask in (0x01, 0x20, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[offset] ^= mask
            with contextlib.suppress(SnapshotDamaged):
                SnapshotHeader.decode(bytes(damaged))


def test_installing_keeps_the_promise_and_what_is_above(disk: SimulatedDisk) -> None:
    """A snapshot says what was chosen up to its slot; what this replica promised and accepted beyond it binds it
    still.
    """
    storage = formatted(disk)
    storage.append([Promised(Ballot(4, 2)), *(accepted(slot) for slot in range(1, 9))])
    storage.sync()
    announced = take_snapshot(MemoryStorage(), 5, b"contents")
    writer = storage.receive_snapshot(announced)
    writer.write(b"contents")
    writer.finish()
    for view in (view_of(reopen(disk)), view_of(reopen(disk))):
        assert view.promised == Ballot(4, 2)
        assert view.entries == (entry(6), entry(7), entry(8))
        assert view.snapshot == (5, b"contents")


def test_the_log_goes_on_above_an_installed_snapshot(disk: SimulatedDisk) -> None:
    """A replica that was far behind has no entries between."""
    storage = formatted(disk)
    storage.append([accepted(1), accepted(2)])
    storage.sync()
    take_snapshot(storage, 100)
    storage.append([accepted(101)])
    storage.sync()
    assert view_of(reopen(disk)).entries == (entry(101),)


def test_a_transfer_cut_off_is_begun_anew(disk: SimulatedDisk) -> None:
    """By the peer's silence or by our own end: what is left of it is in nobody's way."""
    storage = formatted(disk)
    announced = take_snapshot(MemoryStorage(), 5, b"contents")
    storage.receive_snapshot(announced).write(b"cont")
    writer = storage.receive_snapshot(announced)
    writer.write(b"con")
    assert "snapshot.received" in disk.names()
    storage = reopen(disk)
    assert "snapshot.received" not in disk.names()
    writer = storage.receive_snapshot(announced)
    writer.write(b"contents")
    assert writer.finish() == announced


def test_every_slice_is_small(disk: SimulatedDisk) -> None:
    """No write, no step of finishing moves more than a slice, whatever the snapshot's size."""
    storage = formatted(disk)
    writer = storage.begin_snapshot(header(5))
    for _ in range(40):
        writer.write(bytes(SYNC_SLICE_BYTES // 8))
    steps = 0
    while writer.advance():
        steps += 1
    assert steps >= 5
    assert not writer.advance()
    assert storage.snapshot is not None
    assert storage.snapshot.size == 5 * SYNC_SLICE_BYTES


def test_what_the_disk_did_not_keep_is_noticed_before_it_counts(disk: SimulatedDisk) -> None:
    """The snapshot is read back before it replaces anything, so the one before is still there."""
    storage = formatted(disk)
    take_snapshot(storage, 3, b"before")
    writer = storage.begin_snapshot(header(5))
    writer.write(b"after")
    assert writer.advance()
    disk.flip("snapshot.new", 2)
    with pytest.raises(StorageFailed, match="did not keep"):
        writer.finish()
    with pytest.raises(StorageFailed):
        storage.append([accepted(1)])
    assert view_of(reopen(disk)).snapshot == (3, b"before")


def test_the_one_before_stays_until_the_new_one_is_durable() -> None:
    """A power cut at every moment leaves one of the two, whole."""
    found = set()
    for moment in range(14):
        for seed in range(15):
            disk = SimulatedDisk(random.Random(seed))
            storage = formatted(disk)
            take_snapshot(storage, 3, b"before" * 500)
            disk.cut_power_after = moment
            with contextlib.suppress(PowerCut):
                take_snapshot(storage, 5, b"after" * 500)
            disk.crash()
            snapshot = view_of(open_storage(disk)).snapshot
            assert snapshot in ((3, b"before" * 500), (5, b"after" * 500))
            found.add(snapshot)
    assert len(found) == 2


def test_recovered_entries_are_let_go_of(disk: SimulatedDisk) -> None:
    """What consensus has taken over is not kept twice for ever."""
    storage = formatted(disk)
    storage.append([accepted(slot) for slot in range(1, 100)])
    storage.sync()
    storage = reopen(disk)
    assert len(storage.recovered.durable.entries) == 99
    take_snapshot(storage, 99)
    assert storage.recovered.durable.entries == ()


def test_a_snapshots_promise_is_recovered_with_it_and_outlives_the_next_one() -> None:
    """A replica that jumped to a snapshot must not hear a deposed leader about slots that the snapshot holds.

    The promise that came with it may stand nowhere else when the power goes, so it is part of what becomes durable in
    one piece with the snapshot; and a later snapshot of a peer that has promised less takes nothing back.
    """
    disk = SimulatedDisk(random.Random(1))
    storage = Storage.open(disk, segment_bytes=64 * 1024)
    storage.format(b"incarnation")
    configuration = Configuration("cluster", 1, (Member(1, "a", b"i"),), b"")
    for slot, promised in ((10, Ballot(7, 2)), (20, Ballot(4, 1))):
        peers = Storage.open(SimulatedDisk(random.Random(2)), segment_bytes=64 * 1024)
        peers.format(b"another")
        writer = peers.begin_snapshot(SnapshotHeader(slot, configuration, 5, b"digest", promised))
        writer.write(b"contents")
        header = SnapshotHeader.decode(writer.finish().encode())
        receiver = storage.receive_snapshot(header)
        receiver.write(b"contents")
        receiver.finish()
        storage.close()
        disk.crash()
        storage = Storage.open(disk, segment_bytes=64 * 1024)
        assert storage.recovered.durable.promised == Ballot(7, 2)
        assert storage.recovered.durable.snapshot_slot == slot
