# SPDX-License-Identifier: Apache-2.0
"""Whatever moment the machine stops at, storage says what it had acknowledged, or that and all of the step under
way.
"""

from __future__ import annotations

import contextlib
import errno
import random

import pytest

from replicas.paxos.types import Ballot, Promised
from replicas.storage import Storage, StorageFailed
from tests.sim.disk import PowerCut, SimulatedDisk
from tests.storage.support import SEGMENT_BYTES, Beside, Run, View, accepted, formatted, open_storage, reopen, view_of

WORLDS = 8
"""What luck may make of one crash, tried so many times at each moment."""


def check(world: SimulatedDisk, run: Run) -> View:
    """Opens what a crash left and compares; then goes on with it, since a recovered log must be one that can grow."""
    storage = open_storage(world)
    view = view_of(storage)
    assert view in (run.before.view(), run.after.view())
    durable = storage.recovered.durable
    assert durable.snapshot_slot <= durable.chosen <= max(run.after.chosen, durable.snapshot_slot)
    if view.identity is None:
        return view
    last = view.entries[-1].slot if view.entries else durable.snapshot_slot
    more = [accepted(last + 1, b"after the crash" * 50), Promised(Ballot(1000, 1))]
    storage.append(more)
    storage.sync()
    world.crash()
    again = view_of(open_storage(world))
    assert again == view._replace(promised=Ballot(1000, 1), entries=(*view.entries, more[0].entry))
    return view


@pytest.mark.parametrize("seed", range(6))
def test_every_moment_of_a_run(seed: int) -> None:
    """A power cut before or during any operation of the disk leaves what was acknowledged, or the whole step besides.

    Each crash is tried in several worlds, which differ in what became of the sectors and names that were not synced.
    """
    disk = SimulatedDisk(random.Random(seed))
    run = Run(disk, random.Random(seed))
    states = 0

    def crash_here() -> None:
        nonlocal states
        for world_seed in range(WORLDS):
            world = disk.clone(random.Random(seed * 1_000_003 + disk.operations * 101 + world_seed))
            world.crash()
            check(world, run)
            states += 1

    disk.observer = crash_here
    run.go(40)
    crash_here()
    assert states > 800
    assert run.before.last > 40


@pytest.mark.parametrize("seed", range(4))
def test_every_moment_of_a_run_with_other_threads(seed: int) -> None:
    """A batch holds what was appended before its sync and nothing of what came while it was written; nor does a
    snapshot that ends meanwhile take away what only the batch under way would hold.
    """
    disk = SimulatedDisk(random.Random(seed))
    run = Beside(disk, random.Random(seed))

    def crash_here() -> None:
        for world_seed in range(2):
            world = disk.clone(random.Random(seed * 1_000_003 + disk.operations * 101 + world_seed))
            world.crash()
            check(world, run)
        run.meanwhile()

    disk.observer = crash_here
    run.go(60)
    assert run.met > 10
    assert run.before.last > 40


@pytest.mark.parametrize("seed", range(40))
def test_a_crash_while_recovering_from_a_crash(seed: int) -> None:
    """Mending can be cut short anywhere, any number of times, and loses nothing."""
    luck = random.Random(seed)
    disk = SimulatedDisk(luck)
    run = Run(disk, luck)
    run.go(5)
    for _ in range(30):
        disk.cut_power_after = luck.randint(0, 12)
        with contextlib.suppress(PowerCut):
            run.go(20)
        disk.crash()
        for _ in range(luck.randint(0, 3)):
            disk.cut_power_after = luck.randint(0, 4)
            with contextlib.suppress(PowerCut):
                open_storage(disk)
            disk.crash()
        run.reopen()
        view = view_of(run.storage)
        assert view in (run.before.view(), run.after.view())
        run.before = run.after if view == run.after.view() else run.before
    assert run.before.last > 20


def test_kill_keeps_what_was_written_and_makes_it_durable() -> None:
    """A process that ends between its write and the end of its sync leaves a batch that the next one reads.

    Whatever the next one says because of it must outlive a power cut, so reading is not enough.
    """
    disk = SimulatedDisk(random.Random(1))
    storage = formatted(disk)
    storage.append([accepted(1)])
    disk.cut_power_after = 1  # the write; then the sync does not come to an end
    with pytest.raises(PowerCut):
        storage.sync()
    disk._off, disk.cut_power_after = False, None  # it was the process that ended, not the machine
    assert [told.slot for told in view_of(reopen(disk)).entries] == [1]
    for seed in range(30):
        world = disk.clone(random.Random(seed))
        world.crash()
        assert [told.slot for told in view_of(open_storage(world)).entries] == [1]


def test_a_failed_sync_ends_it_and_is_never_asked_again() -> None:
    """After EIO the system may believe that the pages are clean: a second sync would succeed and mean nothing."""
    disk = SimulatedDisk(random.Random(1))
    storage = formatted(disk)
    storage.append([accepted(1)])
    storage.sync()
    storage.append([accepted(2)])
    disk.fail_after = 1
    with pytest.raises(StorageFailed, match="Input/output error"):
        storage.sync()
    operations = disk.operations
    for attempt in (storage.sync, storage.prepare, lambda: storage.append([accepted(3)]), lambda: storage.form(b"x")):
        with pytest.raises(StorageFailed):
            attempt()
    assert disk.operations == operations


@pytest.mark.parametrize("seed", range(30))
def test_after_a_failed_sync_what_the_next_process_reads_is_durable(seed: int) -> None:
    """The system's cache may show a batch that the disk does not have; what is said because of it must be true."""
    disk = SimulatedDisk(random.Random(seed))
    storage = formatted(disk)
    storage.append([accepted(1, b"x" * 2000)])
    disk.fail_after = 1
    with pytest.raises(StorageFailed):
        storage.sync()
    view = view_of(reopen(disk))
    assert [told.slot for told in view.entries] in ([], [1])
    disk.crash()
    assert view_of(open_storage(disk)) == view


@pytest.mark.parametrize("seed", range(20))
def test_a_torn_end_that_failed_to_be_zeroed_is_zeroed_again(seed: int) -> None:
    """After that failure the cache shows zeros where the disk may still have the torn batch.

    Believed, its sectors would come back behind a later batch, and a healthy log would look rotten.
    """
    disk = SimulatedDisk(random.Random(seed))
    storage = formatted(disk)
    storage.append([accepted(1, b"torn" * 700)])
    storage.sync()
    disk.kill()
    disk.open("log-0000000001").write_durable(0, bytes(512))  # as if its first sector had never been reached
    disk.fail_after = 7  # the directory is synced, six sectors are zeroed; their sync fails
    with pytest.raises(StorageFailed):
        open_storage(disk)
    assert not disk.contents("log-0000000001").strip(b"\0")
    disk.fail_after = None
    storage = reopen(disk)
    storage.append([accepted(1, b"small")])
    storage.sync()
    disk.crash()
    assert view_of(open_storage(disk)).entries == (accepted(1, b"small").entry,)


@pytest.mark.parametrize("seed", range(20))
def test_a_segment_that_failed_to_grow_is_not_used(seed: int) -> None:
    """Made ahead, too small for one batch, and the disk failed while it was enlarged: its size is not durable.

    Used as it looked, the batch would be cut off by a power cut although it was acknowledged.
    """
    disk = SimulatedDisk(random.Random(seed))
    storage = formatted(disk)
    while storage.prepare():
        pass
    large = [accepted(1, b"v" * 5 * SEGMENT_BYTES)]
    storage.append(large)
    disk.fail_after = 1  # the zeros are written; their sync fails
    with pytest.raises(StorageFailed):
        storage.sync()
    disk.fail_after = None
    storage = reopen(disk)
    storage.append(large)
    storage.sync()
    disk.crash()
    assert view_of(open_storage(disk)).entries == (large[0].entry,)


@pytest.mark.parametrize("seed", [*range(20), 1015, 1017, 1044])
def test_any_failing_operation_ends_the_process_and_loses_nothing(seed: int) -> None:
    """Each write or sync may be the one that fails: StorageFailed comes out, and nothing is lost."""
    luck = random.Random(seed)
    disk = SimulatedDisk(luck)
    run = Run(disk, luck)
    run.go(3)
    for _ in range(15):
        disk.fail_after = luck.randint(0, 15)
        try:
            run.go(20)
        except StorageFailed:
            pass
        else:
            disk.fail_after = None
        disk.crash() if luck.random() < 0.5 else disk.kill()
        disk.fail_after = None
        run.storage = open_storage(disk)
        view = view_of(run.storage)
        assert view in (run.before.view(), run.after.view())
        run.before = run.after if view == run.after.view() else run.before


def test_a_full_disk_is_the_end_of_the_process_and_of_nothing_else() -> None:
    """ENOSPC is a failure like any other; with room made, the same directory opens with all that was acknowledged."""
    disk = SimulatedDisk(random.Random(1), capacity=60_000)
    run = Run(disk, random.Random(5))
    with pytest.raises(StorageFailed, match=r"No space left"):
        run.go(2000)
    disk.kill()
    disk.capacity = None
    run.storage = open_storage(disk)
    assert view_of(run.storage) in (run.before.view(), run.after.view())
    run.before = run.after if view_of(run.storage) == run.after.view() else run.before
    run.go(50)


def test_opening_fails_as_storage_when_the_disk_does() -> None:
    """An error of the disk while opening is no reason to guess."""
    disk = SimulatedDisk(random.Random(1))
    storage = formatted(disk)
    storage.append([accepted(1)])
    storage.sync()
    disk.kill()
    disk.fail_after = 0
    with pytest.raises(StorageFailed, match=f"Errno {errno.EIO}"):
        open_storage(disk)
    assert view_of(open_storage(disk)).entries == (accepted(1).entry,)  # and the lock was let go of


def test_format_is_all_or_nothing() -> None:
    """A directory whose formatting was cut short is an empty one, and can be formatted."""
    outcomes = set()
    for moment in range(30):
        for seed in range(20):
            disk = SimulatedDisk(random.Random(seed))
            disk.cut_power_after = moment
            with contextlib.suppress(PowerCut):
                formatted(disk)
            disk.crash()
            storage = open_storage(disk)
            outcomes.add(storage.identity is None)
            if storage.identity is None:
                storage.format(b"again" * 3)
            storage.append([accepted(1)])
            storage.sync()
            assert isinstance(reopen(disk), Storage)
    assert outcomes == {True, False}
