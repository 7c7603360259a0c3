# SPDX-License-Identifier: Apache-2.0
"""Damage at rest, everywhere in a settled directory: each is told, or doubted, or lies where nothing is.

Deeper: STORAGE_ROT=20 damages so many directories, as `python -m tests.storage.crashes --rot --stories 20` does.
"""

from __future__ import annotations

import os
import random

import pytest

from replicas.paxos.types import Ballot, Promised
from replicas.storage import batches
from replicas.storage.files import SECTOR
from tests.sim.disk import SimulatedDisk
from tests.storage.crashes import rot
from tests.storage.crashes.oracle import Outcome
from tests.storage.crashes.package import load
from tests.storage.crashes.recorder import Files
from tests.storage.crashes.search import opened
from tests.storage.crashes.story import Story
from tests.storage.support import accepted, formatted, open_storage, reopen, take_snapshot, view_of

DIRECTORIES = int(os.environ.get("STORAGE_ROT") or 2)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", range(DIRECTORIES))
def test_no_damage_is_passed_over(number: int) -> None:
    """Each byte with one bit and with all bits flipped; each sector zeroed, or another's, or of an earlier life; each
    file gone, cut short, or another's. What is not told changes nothing, or is one of the few things that no disk can
    tell.
    """
    story, files = rot.settled(load("small"), 112 * number)
    search = rot.RotSearch(load("small"), files)
    search.all(rot.sectors(story, files, random.Random(number)))
    search.all(rot.wholes(files))
    search.all(rot.flips(files, (rot.ALL_BITS,) if number % 2 else (rot.ONE_BIT,)))
    assert not search.problems, "\n".join(search.problems[:5])
    verdicts = {verdict for _, verdict in search.told}
    assert {"told", "harmless"} <= verdicts
    assert search.count > sum(map(len, files.values()))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", range(4 * DIRECTORIES))
def test_no_damaged_sector_is_passed_over(number: int) -> None:
    """More directories, and of each only its sectors and files."""
    story, files = rot.settled(load("small"), 77 * number)
    search = rot.RotSearch(load("small"), files)
    search.all(rot.sectors(story, files, random.Random(number), misdirected=20))
    search.all(rot.wholes(files))
    assert not search.problems, "\n".join(search.problems[:5])


# --- what was found ---------------------------------------------------------------------------------------------------


def test_a_batch_of_another_segment_at_the_beginning_of_the_oldest() -> None:
    """A write that went astray: the log must not begin wherever a whole batch stands, or all before it is forgotten."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    for slot in range(1, 40):
        storage.append([accepted(slot, b"v" * 300)])
        storage.sync()
    take_snapshot(storage, 20)
    while True:  # until the newest segment opens with a batch of one sector, which writes no slot
        storage.append([Promised(Ballot(2, 1))])
        storage.sync()
        segments = [name for name in disk.names() if name.startswith("log-")]
        storage.append([Promised(Ballot(2, 1))])
        storage.sync()
        if (opening := batches.read(disk.contents(segments[-1]), 0)) and not opening.header.last:
            break
    disk.open(segments[0]).write_durable(0, disk.contents(segments[-1])[:SECTOR])
    rot_found = reopen(disk).recovered.rot
    assert rot_found is not None
    assert f"{segments[0]} is damaged at its beginning" in rot_found


def test_a_segments_last_batch_at_the_beginning_of_the_oldest() -> None:
    """As before, but it is the segment's own; a segment may end early, so the log would go on in the next one."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    for slot in range(1, 40):
        storage.append([accepted(slot, b"v" * 200)])
        storage.sync()
    take_snapshot(storage, 20)
    oldest = next(name for name in disk.names() if name.startswith("log-"))
    assert oldest != "log-0000000001"
    last = max(at for at in range(0, len(disk.contents(oldest)), SECTOR) if batches.read(disk.contents(oldest), at))
    disk.open(oldest).write_durable(0, disk.contents(oldest)[last : last + SECTOR])
    assert f"{oldest} is damaged at its beginning" in (reopen(disk).recovered.rot or "")


def test_records_of_another_batch_are_not_saved_from_a_damaged_one() -> None:
    """A record vouches for itself, not for its place: in a sector that is another batch's, an older value of a slot may
    stand, and it must not come back.
    """
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    storage.append([accepted(1, b"old"), accepted(2, b"v" * 600)])
    storage.sync()
    storage.append([accepted(1, b"new", Ballot(2, 1))])
    storage.sync()
    storage.append([accepted(slot, b"x" * 300, Ballot(2, 1)) for slot in (3, 4, 5)])
    storage.sync()
    first = "log-0000000001"
    newest = 3 * SECTOR
    batch = batches.read(disk.contents(first), newest)
    assert batch is not None
    assert batch.header.first == 3
    disk.open(first).write_durable(newest, disk.contents(first)[:SECTOR])
    recovered = reopen(disk).recovered
    assert recovered.rot is None
    assert recovered.durable.entries[0] == accepted(1, b"new", Ballot(2, 1)).entry
    assert recovered.durable.doubtful == {3, 4, 5}


def test_a_snapshot_that_is_gone_with_what_it_covered() -> None:
    """Segments were dropped under it, and no slot above it was accepted: nothing in the log misses it, and yet it is
    rot.
    """
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    for slot in range(1, 40):
        storage.append([accepted(slot, b"v" * 300)])
        storage.sync()
    for _ in range(40):  # promises alone, into segments of their own
        storage.append([Promised(Ballot(2, 1))])
        storage.sync()
    take_snapshot(storage, 39)
    assert "log-0000000001" not in disk.names()
    disk.remove("snapshot")
    rot_found = reopen(disk).recovered.rot
    assert rot_found is not None
    assert "snapshot" in rot_found


def test_what_does_not_tell_its_promise_names_its_file() -> None:
    """Whoever is to replace a disk wants to know where to look."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    storage.append([accepted(1)])
    storage.sync()
    disk.open("log-0000000001").write_durable(0, b"\xff" * SECTOR)
    assert "log-0000000001" in (reopen(disk).recovered.rot or "")


# --- what one disk cannot tell ----------------------------------------------------------------------------------------


def test_a_directory_of_an_earlier_moment_is_that_moment() -> None:
    """A disk that was put back as a whole (a machine restored from its image) opens as what it was, and says nothing.

    Nothing on one disk can tell it. What was promised and accepted since is forgotten, so such a replica must come back
    under a new id; see the documents.
    """
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    storage.append([Promised(Ballot(1, 1)), accepted(1)])
    storage.sync()
    earlier = disk.clone(random.Random(0))
    then = view_of(open_storage(earlier.clone(random.Random(0))))
    storage.append([Promised(Ballot(5, 2)), accepted(2)])
    storage.sync()
    storage = open_storage(earlier)
    assert view_of(storage) == then
    assert storage.recovered.rot is None


def test_one_file_of_an_earlier_moment_is_told_where_the_others_know_better() -> None:
    """Put back alone, an older segment does not fit its followers, and an older snapshot misses what was dropped.

    The identity alone, and the newest segment alone, are as good as they were: nobody else on the disk knows them.
    """
    told = [_put_back(*rot.settled(load("small"), 50 * number)) for number in range(6)]
    assert sum(told) > 10


def _put_back(story: Story, files: Files) -> int:
    """How often it was told that one file is that of an earlier moment of the last life."""
    package, life, told = load("small"), story.lives[-1], 0
    newest = rot.RotSearch(package, files).newest[0]
    _, now, _ = opened(package, files)
    assert isinstance(now, Outcome)
    for prefix in range(0, len(life.ops), 3):
        afloat = life.afloat(prefix)
        earlier = afloat.after((0,) * len(afloat.atoms))
        for name in sorted(earlier.keys() & files.keys()):
            if earlier[name] == files[name]:
                continue
            _, outcome, _ = opened(package, files | {name: earlier[name]})
            assert isinstance(outcome, Outcome), outcome
            told += outcome.told is not None
            if outcome.told is None and name.startswith("log-") and name != newest:
                assert outcome.view == now.view, f"{name} of operation {prefix} was put back"
            if outcome.told is None and name == "identity":
                assert outcome.view[1:] == now.view[1:]
    return told


def test_an_empty_directory_is_nobody() -> None:
    """All files gone, the directory itself still there: it opens as new, and it is for the group to know its id."""
    disk = SimulatedDisk(random.Random(0))
    storage = formatted(disk)
    storage.append([Promised(Ballot(3, 1)), accepted(1)])
    storage.sync()
    disk.kill()
    for name in disk.names():
        disk.remove(name)
    storage = open_storage(disk)
    assert storage.identity is None
    assert storage.recovered.rot is None
    assert storage.recovered.durable.promised == Ballot(0, 0)
