# SPDX-License-Identifier: Apache-2.0
"""What is rare in random runs: promises that come during a sync, segments that are mended, dropped and removed."""

from __future__ import annotations

import contextlib
import random
import threading

import pytest

from replicas.paxos.types import Ballot, Entry, EntryKind, Promised
from replicas.storage import Storage, batches
from replicas.storage.files import SECTOR
from replicas.storage.mending import _remove_after
from replicas.storage.segments import segment_indexes, segment_name
from tests.sim.disk import PowerCut, SimulatedDisk
from tests.storage.support import accepted, formatted, open_storage, reopen, take_snapshot

LARGE = b"x" * 3_500
"""Two batches of this fill a segment."""


def segments(disk: SimulatedDisk) -> list[int]:
    return segment_indexes(disk.names())


def until(storage: Storage, disk: SimulatedDisk, segment: int, slot: int, value: bytes) -> int:
    """Entries, each in its batch, until one stands in that segment; the last slot."""
    while segments(disk)[-1] < segment:
        slot += 1
        storage.append([accepted(slot, value)])
        storage.sync()
    return slot


@pytest.mark.parametrize("before", [[], [Promised(Ballot(2, 1))], [accepted(1)]])
def test_a_promise_that_comes_during_a_sync_is_written_by_the_next(before: list[object]) -> None:
    """Alone, as after a Prepare: the sync under way has begun without it."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    under_way, go_on = threading.Event(), threading.Event()

    def wait_here() -> None:
        disk.observer = None
        under_way.set()
        assert go_on.wait(10)

    storage.append([*before, Promised(Ballot(3, 1))])  # type: ignore[list-item]
    disk.observer = wait_here
    worker = threading.Thread(target=storage.sync)
    worker.start()
    assert under_way.wait(10)
    storage.append([Promised(Ballot(4, 2))])
    go_on.set()
    worker.join()
    storage.sync()
    disk.crash()
    assert open_storage(disk).recovered.durable.promised == Ballot(4, 2)


def test_segments_are_removed_so_that_no_gap_is_left_whenever_the_power_goes() -> None:
    """A gap between two is taken for a loss at the next start."""
    left = set()
    for moment in range(12):
        for seed in range(8):
            disk = SimulatedDisk(random.Random(seed))
            for index in range(1, 6):
                disk.create(segment_name(index)).close()
            disk.sync()
            disk.cut_power_after = moment
            with contextlib.suppress(PowerCut):
                _remove_after(disk, 2)
            disk.crash()
            assert segments(disk) == list(range(1, len(segments(disk)) + 1)), (moment, seed)
            left.add(len(segments(disk)))
    assert left == {2, 3, 4, 5}


def test_what_stands_for_a_doubtful_batch_stays_until_a_snapshot_covers_it() -> None:
    """What could be saved of it stands there alone, and so does the word that the rest is in doubt."""
    for covered in (0, 1, 2):
        disk = SimulatedDisk(random.Random(0))
        storage = formatted(disk)
        last = until(storage, disk, 3, 0, LARGE)
        storage.append([accepted(last + 1, b"saved"), accepted(last + 2, b"y" * 900), accepted(last + 3, b"y" * 900)])
        storage.sync()
        name = segment_name(segments(disk)[-1])
        start = disk.contents(name).index(b"saved")
        disk.flip(name, start + 600)
        storage = reopen(disk)
        doubtful = storage.recovered.durable.doubtful
        assert doubtful
        assert last + 1 not in doubtful
        slot = until(storage, disk, segments(disk)[-1] + 3, last + 3, b"x" * 7_700)  # none fits beside what was saved
        take_snapshot(storage, last + covered)
        durable = reopen(disk).recovered.durable
        saved = Entry(last + 1, Ballot(1, 1), EntryKind.COMMAND, b"saved")
        assert (saved in durable.entries) == (covered == 0)
        assert durable.doubtful == {one for one in doubtful if one > last + covered}
        assert durable.entries[-1].slot == slot


def test_a_batch_that_stands_where_the_one_before_it_should_is_rot() -> None:
    """A misdirected write has put the second of two onto the first: an entry that was in there alone must be missed."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    value = b"x" * 3_700
    for records in (
        [accepted(1, value)],
        [accepted(2, value)],
        [accepted(3, value[:1_800]), accepted(4, value[:1_800])],
        [accepted(3, value, Ballot(2, 1))],
        [Promised(Ballot(3, 1))],
    ):
        storage.append(records)
        storage.sync()
    take_snapshot(storage, 2)
    assert segments(disk) == [2, 3]
    name = segment_name(2)
    contents = disk.contents(name)
    half = len(contents) // 2
    first, second = batches.read(contents, 0), batches.read(contents, half)
    assert first is not None
    assert second is not None
    assert first.header.sectors == second.header.sectors == half // SECTOR
    for offset in range(half):
        disk.flip(name, offset, contents[offset] ^ contents[half + offset])
    assert reopen(disk).recovered.rot is not None
