# SPDX-License-Identifier: Apache-2.0
"""Every crash of recorded runs: 50,000 distinct states, or STORAGE_STATES of them, and that the model of crashes is
one.

Deeper: `STORAGE_STATES=1000000 pytest tests/storage/test_crash_states.py`, or `python -m tests.storage.crashes --help`.
"""

from __future__ import annotations

import os
import random
import re

import pytest

from tests.storage.crashes import states
from tests.storage.crashes.afloat import Afloat
from tests.storage.crashes.package import load
from tests.storage.crashes.recorder import Op, RecordingDisk
from tests.storage.crashes.replay import replay, state_of
from tests.storage.crashes.search import Search, digest_of
from tests.storage.crashes.story import Story

STATES = int(os.environ.get("STORAGE_STATES") or 50_000)
PARTS = 5
KNOWN: set[bytes] = set()
"""States that an earlier part has tried do not count again."""


@pytest.mark.timeout(120 + STATES // 100)
@pytest.mark.parametrize("part", range(PARTS))
def test_no_crash_loses_what_was_acknowledged(part: int) -> None:
    """Each prefix of the operations, each subset of what no sync covers, torn sectors, and crashes while mending.

    Everything acknowledged is recovered exactly, nothing is invented, a torn tail is neither doubted nor called rot,
    and what was recovered can be added to. Where a sector was torn inside, nothing is lost in silence.
    """
    search = Search(load("small"), len(KNOWN) + STATES // PARTS, known=KNOWN)
    failure = search.run(seed=part * 1_000_000)
    assert failure is None, f"{failure}\nagain: python -m tests.storage.crashes --replay {failure.name}"
    assert sum(search.counts.values()) == STATES // PARTS
    assert all(count > STATES // PARTS // 100 for count in search.counts.values())
    assert len(search.counts) == 4


def test_runs_hold_all_that_storage_does() -> None:
    """The search is worth what its runs are worth: each kind of operation, of file and of ending comes about in few."""
    stories = [Story(load("small"), seed) for seed in range(20)]
    ops = [op for story in stories for life in story.lives for op in life.ops]
    assert all(story.ended_by is None for story in stories)
    assert {op.kind for op in ops} == {
        *("create", "truncate", "write", "rename", "remove", "sync", "sync range", "sync names"),
    }
    names = {op.name for op in ops}
    assert {"identity.new", "log.next", "snapshot.new", "snapshot.received", "log-0000000004"} <= names
    removed = {op.name for op in ops if op.kind == "remove"}
    assert {"snapshot.new", "snapshot.received", "log.next"} <= removed
    assert sum(op.kind == "remove" and op.name.startswith("log-") for op in ops) > 20
    assert sum(len(story.lives) > 2 for story in stories) > 3
    # Several files afloat at a time: a batch, and what another thread does meanwhile.
    afloat = [life.afloat(prefix) for life in stories[0].lives + stories[1].lives for prefix in range(len(life.ops))]
    assert any(len({atom.op.name for atom in moment.atoms if atom.op.kind == "write"}) > 1 for moment in afloat)


# --- the model of a crash ---------------------------------------------------------------------------------------------


def left(disk: RecordingDisk) -> set[tuple[tuple[str, bytes], ...]]:
    afloat = Afloat(disk.base)
    for index, op in enumerate(disk.ops):
        afloat.apply(index, op)
    return {tuple(sorted(state.files.items())) for state in states.lawful(afloat, random.Random(0))}


def test_a_file_that_was_never_synced() -> None:
    """Its name, its size and each of its sectors, each for itself."""
    disk = RecordingDisk()
    disk.create("a").write(0, b"x" * 512 + b"y" * 10)
    nothing, empty = (), (("a", b""),)
    zeros = (("a", bytes(522)),)
    first, second = (("a", b"x" * 512),), (("a", bytes(512) + b"y" * 10),)
    assert left(disk) == {nothing, empty, zeros, first, second, (("a", b"x" * 512 + b"y" * 10),)}


def test_a_sync_covers_its_file_and_no_name() -> None:
    """After the file's sync the contents are sure, and only after the directory's the name is."""
    disk = RecordingDisk({"a": b"old"})
    file = disk.create("b")
    file.write(0, b"new")
    file.sync()
    assert left(disk) == {(("a", b"old"),), (("a", b"old"), ("b", b"new"))}
    disk.rename("b", "a")
    assert left(disk) == {(("a", b"old"),), (("a", b"old"), ("b", b"new")), (("a", b"new"),)}
    disk.sync()
    assert left(disk) == {(("a", b"new"),)}


def test_a_durable_write_covers_its_range_alone() -> None:
    disk = RecordingDisk({"a": bytes(1024)})
    file = disk.open("a")
    file.write(0, b"x" * 512)
    file.write_durable(512, b"y" * 512)
    assert left(disk) == {(("a", bytes(512) + b"y" * 512),), (("a", b"x" * 512 + b"y" * 512),)}


def test_truncating_may_be_lost_or_all_that_is_left() -> None:
    disk = RecordingDisk({"a": b"old"})
    disk.create("a").write(0, b"n")
    assert left(disk) == {(("a", b"old"),), (("a", b""),), (("a", b"n"),), (("a", b"nld"),), (("a", b"\0"),)}


def test_a_failed_sync_covers_nothing_for_ever() -> None:
    """A later one succeeds and means nothing for what the earlier one could not write."""
    afloat = Afloat({"a": b"old"})
    for index, op in enumerate(
        (
            Op("write", 1, "a", 0, b"lost"),
            Op("sync", 1, "a", failed=True),
            Op("write", 1, "a", 4, b"kept"),
            Op("sync", 1, "a"),
        )
    ):
        afloat.apply(index, op)
    assert {state.files["a"] for state in states.lawful(afloat, random.Random(0))} >= {b"old\0kept"}


def test_a_torn_write_is_cut_at_every_byte() -> None:
    """When all of them are asked for."""
    disk = RecordingDisk({"a": bytes(512)})
    disk.open("a").write(0, bytes(range(1, 101)))
    afloat = Afloat(disk.base)
    afloat.apply(0, disk.ops[0])
    found = {state.files["a"] for _, state in states.torn(afloat, random.Random(0), 1.0, 1.0)}
    assert {bytes(range(1, cut + 1)) + bytes(512 - cut) for cut in range(1, 100)} <= found
    assert {bytes(cut) + bytes(range(cut + 1, 101)) + bytes(412) for cut in range(1, 100)} <= found
    fewer = [number for number, _ in states.torn(afloat, random.Random(0), 0.1, 0.5)]
    assert 5 < len(fewer) < 40


# --- names of states --------------------------------------------------------------------------------------------------


def test_a_state_is_made_again_from_its_name() -> None:
    """A failure of tonight is looked at tomorrow: the same files, and a listing that can be read."""
    package = load("small")
    life = Story(package, 5).lives[0]
    prefix = next(n for n, op in enumerate(life.ops) if op.kind == "sync range")
    name = f"5:0:{prefix}:1"
    wanted = list(states.lawful(life.afloat(prefix), random.Random(f"5:0:{prefix}")))[1]
    assert digest_of(state_of(package, name)) == digest_of(wanted.files)
    told = replay(package, name)
    assert re.search(r"\d+  write        log-0000000001 \[\d+:\d+\]", told)
    assert "of what was afloat is left:" in told
    assert "lost" in told
    assert told.splitlines()[-1].startswith("opened, it says: formed by ")
    again = replay(package, f"{name}/1:0")
    assert "the power goes again, after 1 of its operations" in again
