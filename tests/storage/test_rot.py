# SPDX-License-Identifier: Apache-2.0
"""Damage at rest: it is found, told apart from what a power cut leaves, and never passed over in silence."""

from __future__ import annotations

import random

import pytest

from replicas.paxos.types import NO_BALLOT, Ballot, ChosenTo, Entry, EntryKind, Promised
from replicas.storage import Storage, StorageError, StorageFailed, StorageRefused, batches
from replicas.storage.files import SECTOR
from tests.sim.disk import PowerCut, SimulatedDisk
from tests.storage.support import accepted, formatted, header, open_storage, reopen, take_snapshot

FIRST = "log-0000000001"


def small_log() -> tuple[SimulatedDisk, dict[int, Entry]]:
    """Three acknowledged batches: small, of many sectors, and a last one of three records in two sectors."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    storage.append([Promised(Ballot(1, 1)), accepted(1, b"one")])
    storage.sync()
    storage.append([Promised(Ballot(2, 1)), accepted(2, b"two" * 300, Ballot(2, 1)), accepted(1, b"new", Ballot(2, 1))])
    storage.sync()
    storage.append([Promised(Ballot(3, 2)), *(accepted(slot, b"x" * 150, Ballot(3, 2)) for slot in (3, 4, 5))])
    storage.sync()
    entries = {told.slot: told for told in reopen(disk).recovered.durable.entries}
    assert len(entries) == 5
    return disk, entries


def world_of(disk: SimulatedDisk) -> SimulatedDisk:
    return disk.clone(random.Random(0))


def last_batch(disk: SimulatedDisk, name: str = FIRST) -> tuple[int, int]:
    """Where the last batch begins and ends, found by reading as anybody may."""
    data, position, found = disk.contents(name), 0, (0, 0)
    while (batch := batches.read(data, position)) is not None:
        found = position, position + batch.header.sectors * SECTOR
        position = found[1]
    return found


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_byte_of_a_small_log(mask: int) -> None:
    """Whichever byte is damaged, each acknowledged record is recovered, or is said to be doubtful, or rot is found.

    Damage below the last batch is always rot, since a later mark says that it was durable; damage of the last one is
    never taken for a torn tail; and what was promised is never forgotten.
    """
    disk, entries = small_log()
    start, end = last_batch(disk)
    for offset in range(end + SECTOR):
        world = world_of(disk)
        world.flip(FIRST, offset, mask)
        recovered = open_storage(world).recovered
        durable = recovered.durable
        if offset < start:
            assert recovered.rot is not None
        elif offset < end:
            assert recovered.rot is None
            assert durable.promised == Ballot(3, 2)
            assert durable.doubtful <= {3, 4, 5}
            for told in durable.entries:
                assert told.slot in durable.doubtful or told == entries[told.slot]
            assert {told.slot for told in durable.entries} | durable.doubtful == entries.keys()
            assert len(durable.doubtful) < 3 or offset < start + SECTOR
        elif offset < end + SECTOR:
            # The sector after the end is not that of any batch, and not unreached either: no power cut leaves that.
            assert recovered.rot is not None


def test_every_byte_of_identity_and_snapshot() -> None:
    """Damage of either is found when the directory is opened."""
    disk, _ = small_log()
    storage = reopen(disk)
    storage.form(b"formation")
    take_snapshot(storage, 3)
    for name in ("identity", "snapshot"):
        for offset in range(len(disk.contents(name))):
            world = world_of(disk)
            world.flip(name, offset, 0x10)
            try:
                rot = open_storage(world).recovered.rot
            except StorageRefused as refusal:
                rot = str(refusal)
                assert name == "identity"
            assert rot is not None
            assert name in rot or "format version" in rot


@pytest.mark.parametrize("sectors", range(1, 4))
def test_a_sector_that_was_never_reached_is_a_torn_tail(sectors: int) -> None:
    """A power cut leaves zeros; that batch was never acknowledged and is as if it had not been written."""
    disk, entries = small_log()
    start, end = last_batch(disk)
    for first in range(start, end, SECTOR):
        world = world_of(disk)
        file = world.open(FIRST)
        file.write(first, bytes(min(end, first + sectors * SECTOR) - first))
        storage = open_storage(world)
        assert storage.recovered.rot is None
        assert storage.recovered.durable.promised == Ballot(2, 1)
        assert storage.recovered.durable.entries == (entries[1], entries[2])
        assert not storage.recovered.durable.doubtful
        assert world.contents(FIRST)[start:] == bytes(len(world.contents(FIRST)) - start)


def test_rot_in_an_older_segment_and_a_missing_one() -> None:
    """Each batch of each segment is followed by a mark that says it was durable; so is each segment."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    for slot in range(1, 60):
        storage.append([accepted(slot, b"v" * 300)])
        storage.sync()
    segments = [name for name in disk.names() if name.startswith("log-")]
    assert len(segments) >= 4
    for name in segments[:-1]:
        for offset in range(3, len(disk.contents(name)), SECTOR):
            world = world_of(disk)
            world.flip(name, offset)
            assert open_storage(world).recovered.rot is not None
        world = world_of(disk)
        world.remove(name)
        rot = open_storage(world).recovered.rot
        assert rot is not None
        assert "is missing" in rot or "damaged at its beginning" in rot or "is not" in rot


def test_zeros_over_what_was_durable_are_rot() -> None:
    """A sector may come back as zeros too; only over the last batch does that look like one never reached."""
    disk, _ = small_log()
    start, end = last_batch(disk)
    for at in range(0, end, SECTOR):
        world = world_of(disk)
        world.open(FIRST).write(at, bytes(SECTOR))
        rot = open_storage(world).recovered.rot
        assert (rot is not None) == (at < start)


def test_a_segment_of_another_log() -> None:
    """The same place, the same numbers, every sector whole: only the chain tells that it belongs to somebody else."""
    disks = []
    for value in (b"ours" * 75, b"not!" * 75):
        disk = SimulatedDisk(random.Random(0))
        storage = formatted(disk)
        for slot in range(1, 14):
            storage.append([accepted(slot, value)])
            storage.sync()
            disks.append(disk.clone(random.Random(0)))
    second = "log-0000000002"
    ours = next(disk for disk in disks if second in disk.names())
    others = [disk for disk in disks[13:] if second in disk.names()]
    assert others
    for other in others:
        world = world_of(ours)
        world.open(second).write(0, other.contents(second))
        assert open_storage(world).recovered.rot is not None


def test_a_log_that_is_gone() -> None:
    """An identity without a log is a loss, not a new replica."""
    disk, _ = small_log()
    for name in [name for name in disk.names() if name.startswith("log")]:
        disk.remove(name)
    assert "its log is gone" in (reopen(disk).recovered.rot or "")


def test_the_oldest_segment_is_gone_and_no_snapshot_covers_it() -> None:
    """The log begins where slots are wanted that nobody has."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    for slot in range(1, 60):
        storage.append([accepted(slot, b"v" * 300)])
        storage.sync()
    disk.remove(FIRST)
    assert "slot 1 is missing" in (reopen(disk).recovered.rot or "")


def test_a_rotten_replica_says_so_and_does_nothing() -> None:
    """It may show who it is; it must not promise, accept, or change anything on its disk."""
    disk, _ = small_log()
    disk.flip(FIRST, 100)
    before = {name: disk.contents(name) for name in disk.names()}
    storage = reopen(disk)
    assert storage.identity is not None
    assert storage.recovered.rot == (
        "The data in the simulated disk is damaged: "
        "batch 1 of its log was durable and cannot be read in log-0000000001. "
        "This replica takes no part until it is replaced."
    )
    for attempt in (
        lambda: storage.append([accepted(6)]),
        storage.sync,
        storage.prepare,
        lambda: storage.begin_snapshot(header(1)),
        lambda: storage.form(b"x"),
    ):
        with pytest.raises(StorageFailed, match="damaged"):
            attempt()
    assert before == {name: disk.contents(name) for name in disk.names()}


# --- doubt ----------------------------------------------------------------------------------------------------------


def doubtful_log() -> tuple[SimulatedDisk, dict[int, Entry]]:
    """The last batch is damaged in its second record: slot 4 cannot be read, and what stands behind it neither."""
    disk, entries = small_log()
    start, _ = last_batch(disk)
    disk.flip(FIRST, start + batches.STAMP_BYTES + batches.HEADER_BYTES + 200)
    return disk, entries


def test_doubt_names_the_slots_and_keeps_the_promise() -> None:
    """All sectors were written, so the batch may have been acknowledged: its slots are unknown, its promise is not."""
    disk, entries = doubtful_log()
    durable = reopen(disk).recovered.durable
    assert durable.doubtful == {4, 5}
    assert durable.entries == (entries[1], entries[2], entries[3])
    assert durable.promised == Ballot(3, 2)


def test_doubt_lasts_until_the_slot_is_accepted_anew() -> None:
    """It is written down, so neither a restart nor later batches turn it into rot or make it forgotten."""
    disk, entries = doubtful_log()
    for restart in range(3):
        durable = reopen(disk).recovered.durable
        assert durable.doubtful == {4, 5}, restart
        disk.kill()
    storage = reopen(disk)
    storage.append([accepted(4, b"anew", Ballot(5, 1))])
    storage.sync()
    storage = reopen(disk)
    durable = storage.recovered.durable
    assert storage.recovered.rot is None
    assert durable.doubtful == {5}
    assert durable.entries == (entries[1], entries[2], entries[3], accepted(4, b"anew", Ballot(5, 1)).entry)
    storage.append([accepted(5, b"anew", Ballot(5, 1))])
    storage.sync()
    assert not reopen(disk).recovered.durable.doubtful


def test_a_snapshot_ends_the_doubt() -> None:
    """What a durable snapshot covers is known again."""
    disk, _ = doubtful_log()
    storage = reopen(disk)
    take_snapshot(storage, 4)
    assert reopen(disk).recovered.durable.doubtful == {5}
    storage = reopen(disk)
    take_snapshot(storage, 9)
    durable = reopen(disk).recovered.durable
    assert not durable.doubtful
    assert durable.promised == Ballot(3, 2)


def test_writing_doubt_down_can_be_cut_short() -> None:
    """The damaged batch stays until its replacement is durable."""
    disk, entries = doubtful_log()
    disk.kill()
    cuts = 0
    for moment in range(14):
        for seed in range(20):
            world = disk.clone(random.Random(seed))
            world.cut_power_after = moment
            try:
                open_storage(world)
            except PowerCut:
                cuts += 1
            world.crash()
            storage = open_storage(world)
            assert storage.recovered.rot is None
            assert storage.recovered.durable.doubtful == {4, 5}
            assert storage.recovered.durable.entries == (entries[1], entries[2], entries[3])
            storage.append([accepted(4, b"anew"), accepted(5, b"anew"), accepted(6, b"more")])
            storage.sync()
            world.crash()
            durable = open_storage(world).recovered.durable
            assert not durable.doubtful
            assert len(durable.entries) == 6
    assert cuts > 100


def test_damage_of_the_replacement_is_found() -> None:
    """As the last batch it is simply made anew; with others behind it, it is rot."""
    disk, _ = doubtful_log()
    storage = reopen(disk)
    second = "log-0000000002"
    assert second in disk.names()
    world = world_of(disk)
    world.flip(second, 300)
    assert open_storage(world).recovered.durable.doubtful == {4, 5}
    storage.append([accepted(4), accepted(5)])
    storage.sync()
    disk.flip(second, 300)
    assert reopen(disk).recovered.rot is not None


def test_a_doubtful_slot_between_others_keeps_its_place() -> None:
    """Consensus wants its entries without a gap: an older record, or else a no-op under no ballot, stands there."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    storage.append([accepted(slot, b"old" * 50) for slot in range(1, 6)] + [ChosenTo(4)])
    storage.sync()
    storage.append([accepted(slot, b"new" * 50, Ballot(2, 1)) for slot in (3, 4)])
    storage.sync()
    start, _ = last_batch(disk)
    disk.flip(FIRST, start + batches.STAMP_BYTES + batches.HEADER_BYTES + 20)
    for _ in range(2):  # the second time the log itself says that they are in doubt
        storage = reopen(disk)
        durable = storage.recovered.durable
        assert durable.doubtful == {3, 4}
        assert [told.slot for told in durable.entries] == [1, 2, 3, 4, 5]
        assert durable.entries[2] == accepted(3, b"old" * 50).entry
        assert durable.chosen == 2  # not 4: what was chosen in 3 and 4 is not to be had any more
    take_snapshot(storage, 5)
    storage.append([accepted(slot, b"x" * 150) for slot in (6, 7)])
    storage.sync()
    name = max(name for name in disk.names() if name.startswith("log-") and disk.contents(name).strip(b"\0"))
    start, _ = last_batch(disk, name)
    disk.flip(name, start + batches.STAMP_BYTES + batches.HEADER_BYTES + 20)
    storage = reopen(disk)
    assert storage.recovered.durable.doubtful == {6, 7}
    storage.append([accepted(7)])
    storage.sync()
    durable = reopen(disk).recovered.durable
    assert durable.doubtful == {6}
    assert durable.entries == (Entry(6, NO_BALLOT, EntryKind.NOOP, b""), accepted(7).entry)


def test_a_promise_alone_is_never_in_doubt() -> None:
    """It stands at both ends of its batch, so damage at either leaves it; forgetting it could undo a choice of the
    group.
    """
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    storage.append([Promised(Ballot(7, 3))])
    storage.sync()
    for offset in range(SECTOR):
        world = world_of(disk)
        world.flip(FIRST, offset, 0x55)
        recovered = open_storage(world).recovered
        assert recovered.rot is None
        assert recovered.durable.promised == Ballot(7, 3)
        assert not recovered.durable.doubtful


def test_both_ends_damaged_is_rot() -> None:
    """Nobody can say what was promised, so nobody may promise."""
    disk, _ = small_log()
    start, end = last_batch(disk)
    disk.flip(FIRST, start + 50)
    disk.flip(FIRST, end - 50)
    assert "what it promised" in (reopen(disk).recovered.rot or "")


@pytest.mark.parametrize("byte", [b"\xa5", b"older"])
def test_what_stands_beyond_a_damaged_batch_shows_that_it_was_durable(byte: bytes) -> None:
    """Although nothing of it can be read, or an older batch's sector stands there by now: no power cut leaves that, and
    what was acknowledged there is gone.
    """
    disk, _ = small_log()
    start, end = last_batch(disk)
    disk.flip(FIRST, start + SECTOR // 2)
    assert reopen(disk.clone(random.Random(0))).recovered.rot is None, "alone, it is doubtful"
    beyond = disk.contents(FIRST)[:SECTOR] if byte == b"older" else byte * SECTOR
    disk.open(FIRST).write(end, beyond)
    assert "was durable" in (reopen(disk).recovered.rot or "")


def test_a_value_that_looks_like_the_log_proves_nothing() -> None:
    """A user may put a log file into a queue. Torn, such a batch must not be mistaken for one that was durable."""
    disk, _ = small_log()
    forged = disk.contents(FIRST)[: last_batch(disk)[1]]
    for shift in range(0, batches.ROOM, 7):
        world = SimulatedDisk(random.Random(0))
        storage = Storage.open(world, segment_bytes=64 * SECTOR)
        storage.format(b"i" * 16)
        storage.append(
            [accepted(1, bytes(shift) + b"".join(forged[at + 8 : at + SECTOR] for at in range(0, len(forged), SECTOR)))]
        )
        storage.sync()
        assert reopen(world).recovered.rot is None
        world.kill()
        world.open(FIRST).write(0, bytes(SECTOR))  # torn: its first sector was never reached
        recovered = Storage.open(world, segment_bytes=64 * SECTOR).recovered
        assert recovered.rot is None
        assert recovered.durable.entries == ()


def test_random_damage_never_goes_unnoticed() -> None:
    """Any handful of damaged sectors: an acknowledged record is there, doubtful, or covered by a report of rot.

    Only zeros over the end of the log cannot be told from a batch that was never written; they are not drawn here.
    """
    disk, entries = small_log()
    _, end = last_batch(disk)
    for seed in range(1500):
        luck = random.Random(seed)
        world = world_of(disk)
        for _ in range(luck.randint(1, 4)):
            sector = luck.randrange(end // SECTOR) * SECTOR
            for _ in range(luck.choice((1, 2, 40))):
                world.flip(FIRST, sector + luck.randrange(SECTOR), luck.randint(1, 255))
        damaged = world.contents(FIRST) != disk.contents(FIRST)
        try:
            recovered = open_storage(world).recovered
        except StorageError:
            pytest.fail("damage of the log is reported, not raised")
        if recovered.rot is None and damaged:
            durable = recovered.durable
            assert durable.promised == Ballot(3, 2)
            assert {told.slot for told in durable.entries} | durable.doubtful == entries.keys()
            assert all(told == entries[told.slot] or told.slot in durable.doubtful for told in durable.entries)


def segments(disk: SimulatedDisk) -> list[str]:
    return sorted(name for name in disk.names() if name.startswith("log-"))


def full_segments(disk: SimulatedDisk, storage: Storage) -> int:
    """Two segments full of batches, and the beginning of a third; the last slot."""
    slot = 0
    while len(segments(disk)) < 3:
        slot += 1
        storage.append([accepted(slot, b"x" * 900)])
        storage.sync()
    return slot


def test_a_drop_that_is_cut_short_may_leave_what_was_replaced_as_the_oldest() -> None:
    """A doubtful batch opened its segment, so that segment has no beginning that can be read; nobody needs it."""
    cuts, oldest = 0, set()
    for moment in range(40):
        disk = SimulatedDisk(random.Random(moment))
        last = full_segments(disk, formatted(disk))
        opened = segments(disk)[2]
        disk.flip(opened, batches.STAMP_BYTES + batches.HEADER_BYTES + 100)
        storage = reopen(disk)
        assert storage.recovered.durable.doubtful == {last}
        storage.append([Promised(Ballot(2, 1)), accepted(last, b"anew", Ballot(2, 1)), accepted(last + 1)])
        storage.sync()
        disk.cut_power_after = moment
        try:
            take_snapshot(storage, last)
        except PowerCut:
            cuts += 1
        disk.crash()
        oldest.add(segments(disk)[0])
        recovered = open_storage(disk).recovered
        assert recovered.rot is None, (moment, segments(disk))
        assert recovered.durable.entries[-1] == accepted(last + 1).entry
        assert recovered.durable.promised == Ballot(2, 1)
    assert cuts > 5
    assert opened in oldest


def test_a_strange_sector_in_a_batch_that_was_replaced_is_no_rot_of_what_came_before() -> None:
    """An older batch's sector has landed in the last one of a segment. Later that segment is the oldest of all."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    last = full_segments(disk, storage) + 1
    storage.append([accepted(last, b"y" * 900)])
    storage.sync()
    name = segments(disk)[-1]
    start, end = last_batch(disk, name)
    contents = disk.contents(name)
    assert end - start >= 2 * SECTOR
    for at in range(SECTOR):  # what the first batch of the segment has in its second sector
        disk.flip(name, start + SECTOR + at, contents[start + SECTOR + at] ^ contents[SECTOR + at])
    storage = reopen(disk)
    assert storage.recovered.durable.doubtful == {last}
    storage.append([accepted(last, b"anew", Ballot(2, 1)), accepted(last + 1)])
    storage.sync()
    take_snapshot(storage, last - 2)
    assert segments(disk)[0] == name
    recovered = reopen(disk).recovered
    assert recovered.rot is None
    assert [told.slot for told in recovered.durable.entries] == [last - 1, last, last + 1]
