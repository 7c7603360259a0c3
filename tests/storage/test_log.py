# SPDX-License-Identifier: Apache-2.0
"""The log while it grows: one batch, one write, one sync; segments come and go; nothing grows for ever."""

from __future__ import annotations

import itertools
import random
import threading

import pytest

from replicas.paxos.types import Accepted, Ballot, ChosenTo, Entry, Promised
from replicas.storage import Storage, StorageFailed, batches
from replicas.storage.files import SECTOR
from replicas.storage.records import Doubtful, decode_all, encode_doubtful, encode_entry
from replicas.storage.segments import ZEROING_SLICE_BYTES
from tests.sim.disk import SimulatedDisk
from tests.storage.support import (
    INCARNATION,
    SEGMENT_BYTES,
    accepted,
    entry,
    formatted,
    header,
    open_storage,
    reopen,
    take_snapshot,
    view_of,
)


def segments(disk: SimulatedDisk) -> list[str]:
    return [name for name in disk.names() if name.startswith("log-")]


def test_a_batch_is_one_write_and_one_sync() -> None:
    """Whatever was appended since the last sync: the price of a sync is paid once."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    storage.append([Promised(Ballot(1, 1)), accepted(1)])
    storage.append([accepted(2), ChosenTo(1)])
    before = disk.operations
    storage.sync()
    assert disk.operations == before + 2
    view = view_of(reopen(disk))
    assert view.promised == Ballot(1, 1)
    assert view.entries == (entry(1), entry(2))


def test_a_sync_without_anything_to_write_costs_nothing() -> None:
    """An idle replica leaves its disk alone."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    before = disk.operations
    storage.sync()
    storage.append([])
    storage.sync()
    assert disk.operations == before


def test_what_is_chosen_rides_along() -> None:
    """Nobody waits for it, so it makes no batch; the next one carries it."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    storage.append([accepted(1), accepted(2)])
    storage.sync()
    before = disk.operations
    storage.append([ChosenTo(2)])
    storage.sync()
    assert disk.operations == before
    assert reopen(disk).recovered.durable.chosen == 0
    storage = reopen(disk)
    storage.append([ChosenTo(2)])
    storage.append([accepted(3)])
    storage.sync()
    assert reopen(disk).recovered.durable.chosen == 2


def test_the_latest_value_of_a_slot_wins() -> None:
    """Within a batch, and from batch to batch."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    storage.append([accepted(1, b"a"), accepted(2, b"b"), accepted(1, b"c", Ballot(2, 2))])
    storage.sync()
    assert view_of(reopen(disk)).entries == (entry(1, b"c", Ballot(2, 2)), entry(2, b"b"))
    storage = reopen(disk)
    storage.append([accepted(2, b"d", Ballot(3, 1))])
    storage.sync()
    assert view_of(reopen(disk)).entries == (entry(1, b"c", Ballot(2, 2)), entry(2, b"d", Ballot(3, 1)))


def test_not_synced_is_not_there() -> None:
    """Append alone writes nothing: a batch exists as a whole or not at all."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    storage.append([accepted(1)])
    storage.close()
    assert view_of(reopen(disk)).entries == ()


def test_our_own_mistakes_are_asserted() -> None:
    """A gap in the log, a promise that goes down, two syncs at a time: each would be silent loss later."""
    storage = formatted(SimulatedDisk(random.Random(0)))
    storage.append([Promised(Ballot(3, 1))])
    with pytest.raises(AssertionError, match="gap"):
        storage.append([accepted(2)])
    with pytest.raises(AssertionError, match="below the promised"):
        storage.append([Promised(Ballot(2, 9))])
    with pytest.raises(AssertionError):
        storage.append([accepted(0)])
    with pytest.raises(AssertionError):
        storage.append(["what is this"])  # type: ignore[list-item]


def test_appending_goes_on_during_a_sync_and_a_second_sync_is_a_mistake() -> None:
    """The shell gathers the next batch while a thread waits for the disk."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    under_way, go_on = threading.Event(), threading.Event()

    def wait_here() -> None:
        disk.observer = None
        under_way.set()
        assert go_on.wait(10)

    storage.append([accepted(1)])
    disk.observer = wait_here
    worker = threading.Thread(target=storage.sync)
    worker.start()
    assert under_way.wait(10)
    storage.append([accepted(2)])
    with pytest.raises(AssertionError, match="two syncs"):
        storage.sync()
    go_on.set()
    worker.join()
    assert view_of(open_storage(_copy(disk))).entries == (entry(1),)
    storage.sync()
    assert view_of(reopen(disk)).entries == (entry(1), entry(2))


def _copy(disk: SimulatedDisk) -> SimulatedDisk:
    return disk.clone(random.Random(0))


def test_no_record_is_lost_between_two_threads() -> None:
    """Every append lands in exactly the batch under way or the next, however the threads interleave."""
    disk = SimulatedDisk(random.Random(0))
    storage = Storage.open(disk, segment_bytes=1 << 20)
    storage.format(INCARNATION)
    done = threading.Event()

    def keep_syncing() -> None:
        while not done.is_set():
            storage.sync()

    worker = threading.Thread(target=keep_syncing)
    worker.start()
    try:
        for slot in range(1, 5001):
            storage.append([accepted(slot)])
    finally:
        done.set()
        worker.join()
    storage.sync()
    assert len(view_of(reopen(disk)).entries) == 5000


# --- segments ---------------------------------------------------------------------------------------------------------


def test_a_segment_made_ahead_leaves_nothing_to_zero() -> None:
    """With `prepare` called now and then, the sync that changes segments is a write and a sync like any other."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    before = disk.operations
    while storage.prepare():
        pass
    assert disk.operations > before
    assert len(segments(disk)) == 2
    before = disk.operations
    assert not storage.prepare()
    assert disk.operations == before
    for slot in range(1, 41):
        while storage.prepare():
            pass
        before = disk.operations
        storage.append([accepted(slot, b"v" * 300)])
        storage.sync()
        assert disk.operations == before + 2
    assert storage.log_bytes > SEGMENT_BYTES


def test_the_next_segment_is_due_once_half_of_the_last_is_used() -> None:
    """Once for each segment, and after a restart too: an idle group takes no second one."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    assert not storage.segment_due
    slot = prepared = 0
    while len(segments(disk)) < 4:
        slot += 1
        storage.append([accepted(slot, b"v" * 300)])
        storage.sync()
        if storage.segment_due:
            storage.close()
            storage = Storage.open(disk, segment_bytes=SEGMENT_BYTES)
            assert storage.segment_due
            assert storage.log_bytes % SEGMENT_BYTES > SEGMENT_BYTES // 2
            while storage.prepare():
                pass
            prepared += 1
            assert not storage.segment_due
    assert prepared == 3


@pytest.mark.parametrize("first", ["prepare", "sync"])
def test_a_segment_is_made_by_one_thread_at_a_time(first: str) -> None:
    """Whoever comes in the middle of a slice waits for its end: a sync that needs the segment now, or who makes it
    ahead. (The short wait here only lets a thread come to grief that does not wait.)
    """
    moments = 0
    for moment in itertools.count():
        disk = SimulatedDisk(random.Random(moment))
        storage = formatted(disk)
        for slot in (1, 2):
            storage.append([accepted(slot, b"x" * 3_600)])
            if slot == 1:
                storage.sync()
        storage.append([accepted(3, b"y" * 3_600)])  # it needs the next segment
        calls = [storage.prepare, storage.sync]
        beside = threading.Thread(target=calls[first == "prepare"])
        left = moment

        def strike(disk: SimulatedDisk = disk, beside: threading.Thread = beside) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                disk.observer = None
                beside.start()
                beside.join(0.05)

        disk.observer = strike
        calls[first == "sync"]()
        disk.observer = None
        if left >= 0:
            break
        beside.join()
        storage.sync()
        storage.append([accepted(4)])
        storage.sync()
        assert [told.slot for told in view_of(reopen(disk)).entries] == [1, 2, 3, 4]
        moments += 1
    assert moments >= 4


def test_making_a_segment_is_sliced() -> None:
    """No step zeroes more than a slice, and a sync that comes too early makes the rest itself."""
    disk = SimulatedDisk(random.Random(0))
    storage = Storage.open(disk, segment_bytes=3 * ZEROING_SLICE_BYTES)
    storage.format(INCARNATION)
    sizes = []
    while storage.prepare():
        sizes.append(len(disk.contents("log.next")))
    assert sizes == [ZEROING_SLICE_BYTES, 2 * ZEROING_SLICE_BYTES]
    assert len(disk.contents("log-0000000002")) == 3 * ZEROING_SLICE_BYTES
    storage.append([accepted(1, b"v" * (3 * ZEROING_SLICE_BYTES - 1000))])
    storage.sync()
    assert storage.prepare()
    storage.append([accepted(2, b"v" * (3 * ZEROING_SLICE_BYTES - 1000))])
    storage.sync()
    storage.append([accepted(3, b"v" * (3 * ZEROING_SLICE_BYTES - 1000))])
    storage.sync()
    assert len(view_of(reopen(disk)).entries) == 3


@pytest.mark.parametrize("prepared", [False, True])
def test_a_batch_larger_than_a_segment_gets_one_of_its_own(prepared: bool) -> None:
    """A segment's size is no limit of what can be said."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    while prepared and storage.prepare():
        pass
    large = random.Random(1).randbytes(5 * SEGMENT_BYTES)
    storage.append([accepted(1), accepted(2, large)])
    storage.sync()
    storage.append([accepted(3)])
    storage.sync()
    assert view_of(reopen(disk)).entries == (entry(1), entry(2, large), entry(3))


def test_a_segment_made_ahead_is_used_after_a_restart() -> None:
    """What was zeroed need not be zeroed again; what does not fit the size asked for now is made anew."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    while storage.prepare():
        pass
    storage = reopen(disk)
    before = disk.operations
    assert not storage.prepare()
    assert disk.operations == before
    disk.kill()
    storage = Storage.open(disk, segment_bytes=2 * SEGMENT_BYTES)
    assert storage.prepare() is False  # one slice is enough for it
    assert len(disk.contents("log-0000000002")) == 2 * SEGMENT_BYTES


def test_segments_below_a_snapshot_go_and_the_promise_stays() -> None:
    """Whatever was dropped, the newest batch says what was promised."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    storage.append([Promised(Ballot(9, 2))])
    storage.sync()
    for slot in range(1, 101):
        storage.append([accepted(slot, b"v" * 200)])
        storage.sync()
    many = len(segments(disk))
    assert many >= 7
    take_snapshot(storage, 50)
    assert many // 2 - 2 < len(segments(disk)) < many // 2 + 2
    take_snapshot(storage, 100)
    assert len(segments(disk)) <= 2
    storage = reopen(disk)
    view = view_of(storage)
    assert view.promised == Ballot(9, 2)
    assert view.entries == ()
    storage.append([accepted(101)])
    storage.sync()
    assert view_of(reopen(disk)).entries == (entry(101),)


def test_dropping_goes_on_where_it_was_cut_short() -> None:
    """A restart drops what the snapshot covers."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    for slot in range(1, 101):
        storage.append([accepted(slot, b"v" * 200)])
        storage.sync()
    writer = storage.begin_snapshot(header(100))
    many = len(segments(disk))
    while storage.snapshot is None:
        assert writer.advance()
    assert writer.advance()
    assert len(segments(disk)) == many - 1
    reopen(disk)
    assert len(segments(disk)) <= 2


def test_memory_and_disk_stay_bounded_over_a_million_records() -> None:
    """With a snapshot now and then, nothing grows: neither files, nor segments, nor what is kept in memory."""
    disk = SimulatedDisk(random.Random(0))
    storage = Storage.open(disk, segment_bytes=256 * 1024)
    storage.format(INCARNATION)
    ballot, most = Ballot(1, 1), 0
    for first in range(1, 1_000_001, 500):
        storage.append(
            [Accepted(Entry(slot, ballot, 1, b"twenty bytes of data")) for slot in range(first, first + 500)]
        )
        storage.sync()
        storage.prepare()
        if first % 20_000 == 1:
            take_snapshot(storage, first)
        most = max(most, disk.used_bytes())
    assert most < 3 * 1024 * 1024
    assert storage._log is not None
    assert len(storage._log._segments) < 10
    assert not storage._log._pending
    recovered = view_of(reopen(disk))
    assert recovered.entries[-1].slot == 1_000_000


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_records_survive_their_bytes() -> None:
    """Every kind, the empty value and large numbers."""
    stored = [
        Entry(1, Ballot(0, 0), 0, b""),
        Entry(2**63, Ballot(2**64 - 1, 2**64 - 1), 255, b"\0" * 700),
        Doubtful(3, 2**40),
        Entry(4, Ballot(1, 2), 3, bytes(range(256))),
    ]
    encoded = [encode_doubtful(one) if isinstance(one, Doubtful) else encode_entry(one) for one in stored]
    assert list(decode_all(b"".join(encoded))) == stored
    assert list(decode_all(b"".join(encoded)[:-1])) == stored[:-1]


@pytest.mark.parametrize("length", [0, 1, 100, batches.ROOM, 2 * batches.ROOM, 5000])
def test_a_batch_survives_its_sectors(length: int) -> None:
    """Header, body and zeros at every length around a sector's end."""
    for extra in range(-2, 3):
        body = random.Random(length).randbytes(max(0, length + extra))
        sectors, chain = batches.encode(
            body, number=7, segment=3, promised=(4, 5), chosen=6, first=1, last=9, previous=b"p" * 16
        )
        assert len(sectors) == batches.batch_bytes(len(body))
        assert len(sectors) % SECTOR == 0
        batch = batches.read(b"\1" * SECTOR + sectors + bytes(SECTOR), SECTOR)
        assert batch is not None
        assert batch.body == body
        assert batch.header == batches.Header(
            7, 6, 3, len(sectors) // SECTOR, len(body), (4, 5), 6, 1, 9, b"p" * 16, chain
        )
        assert all(batches.stamp_at(sectors, at) == 7 for at in range(0, len(sectors), SECTOR))


def test_a_closed_storage_refuses() -> None:
    storage = formatted(SimulatedDisk(random.Random(0)))
    storage.close()
    with pytest.raises(StorageFailed, match="not open"):
        storage.append([accepted(1)])
