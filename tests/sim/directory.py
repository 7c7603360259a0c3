# SPDX-License-Identifier: Apache-2.0
"""One directory through many short lives: the shipping storage alone, in small segments, on a simulated disk.

A process writes, syncs, makes snapshots and fetches some, and is killed, or the power goes, at any of these or in the
middle; sometimes what was written last is damaged. The next one builds upon what it finds, and so on. What each finds
is held against all that was promised before (checkers/kept.py). So a mistake in mending the end of a log, which only
the start after the next one shows, needs no group that happens to fall twice.
"""

from __future__ import annotations

import random
from typing import Final

from replicas.paxos.types import Accepted, Ballot, ChosenTo, Configuration, Entry, EntryKind, Member, Promised, Record
from replicas.storage import SnapshotHeader, Storage, StorageRefused
from replicas.storage.files import SECTOR
from replicas.storage.segments import SEGMENT_BYTES_MIN
from tests.sim.checkers.kept import Kept
from tests.sim.disk import PowerCut, SimulatedDisk

__all__ = ["Directory"]

LIVES: Final = 25
DEEDS_MAX: Final = 8
SIZES: Final = (1, 20, 300, 900, 2_500)
"""Of values: from many in a sector to one in many sectors."""
AHEAD_MAX: Final = 20
"""So far a fetched snapshot may be ahead of the log."""
_CONFIGURATION: Final = Configuration("simulated", 1, (Member(1, "r1", b"1"),), b"")


class Directory:
    """The world of one seed."""

    def __init__(self, seed: int) -> None:
        self._luck = luck = random.Random(f"{seed}/directory")
        self.disk = SimulatedDisk(random.Random(luck.random()))
        self.kept = Kept()
        self._segment_bytes = luck.choice((1, 1, 2, 16)) * SEGMENT_BYTES_MIN
        self._storage = Storage.open(self.disk, segment_bytes=self._segment_bytes)
        self._storage.format(b"1")
        self._storage.form(b"formed")
        self._promised = Ballot(1, 1)
        self._last = self._chosen = self._floor = 0
        self._story: list[str] = []

    def run(self) -> None:
        """Raises AssertionError, with what was done, as soon as something is not found that must be."""
        try:
            for _ in range(LIVES):
                if not self._live():
                    break
        except Exception as error:
            error.add_note(", ".join(self._story[-40:]))
            raise

    def _live(self) -> bool:
        """One life, its end, and what the next process finds. False: the directory may be given up."""
        luck = self._luck
        damages = luck.random() < 0.2
        try:
            for _ in range(luck.randint(0, DEEDS_MAX)):
                self._do()
            if damages and luck.random() < 0.5:
                self._write_again()
            elif luck.random() < 0.5:
                self.disk.cut_power_after = luck.randint(0, 5)
                luck.choice((self._write, self._cut, self._fetch))()
        except PowerCut:
            self._story.append("in the middle")
        damage = self._last_batch() if damages else None
        self._fall(crash=damage is None and luck.random() < 0.5)
        if damage is not None:
            self._damage(*damage)
        if luck.random() < 0.2:
            # The next process does not come far, either.
            self.disk.cut_power_after = luck.randint(0, 3)
            try:
                Storage.open(self.disk, segment_bytes=self._segment_bytes)
            except PowerCut:
                self._story.append("fell while it recovered")
            self._fall(crash=luck.random() < 0.5)
        return self._begin(spoilt=damage is not None)

    def _fall(self, *, crash: bool) -> None:
        self._story.append("crash" if crash else "kill")
        (self.disk.crash if crash else self.disk.kill)()

    def _begin(self, *, spoilt: bool) -> bool:
        try:
            self._storage = storage = Storage.open(self.disk, segment_bytes=self._segment_bytes)
        except StorageRefused:
            assert spoilt
            return False
        if storage.recovered.rot is not None:
            assert spoilt, storage.recovered.rot
            return False
        durable = storage.recovered.durable
        self.kept.found(durable, spoilt=spoilt or bool(self.kept.doubted))
        self._promised, self._floor, self._chosen = durable.promised, durable.snapshot_slot, durable.chosen
        self._last = durable.entries[-1].slot if durable.entries else self._floor
        self._story.append(f"found {self._floor}..{self._last}, doubts {sorted(durable.doubtful)}")
        return True

    # --- what a process does

    def _do(self) -> None:
        (deed,) = self._luck.choices((self._write, self._write_again, self._cut, self._fetch), (6, 2, 1, 1))
        deed()

    def _write(self) -> None:
        """The next slots."""
        self._accept(self._last + 1, self._luck.randint(1, 4))

    def _write_again(self) -> None:
        """The latest slots again, with values as long as before, under a ballot that was promised for it."""
        self._promised = _turn(_count(self._promised) + 1)
        first = max(self._floor + 1, self._last - self._luck.randint(0, 5))
        self._accept(first, self._last - first + 1)
        self._promised = _turn(_count(self._promised) + 1)
        self._accept(first, max(1, self._last - first + 1))

    def _accept(self, first: int, count: int) -> None:
        luck = self._luck
        records: list[Record] = [Promised(self._promised)] if luck.random() < 0.5 else []
        for slot in range(first, first + count):
            size = random.Random(f"{slot}").choice(SIZES)
            value = b"%d.%d " % (slot, _count(self._promised)) + bytes([luck.randint(1, 255)]) * size
            records.append(Accepted(Entry(slot, self._promised, EntryKind.COMMAND, value)))
        if luck.random() < 0.5:
            self._chosen = max(self._chosen, first + count - 1 - luck.randint(0, 3))
            records.append(ChosenTo(self._chosen))
        self._story.append(f"write {first}..{first + count - 1}")
        self.kept.wrote(records)
        self._storage.append(records)
        self._storage.sync()
        self.kept.synced(records)
        self._last = max(self._last, first + count - 1)
        self._storage.prepare()

    def _cut(self) -> None:
        """A snapshot of our own; the log goes on while it is written."""
        slot = self._luck.randint(max(self._floor, self._last - 3), self._last)
        if slot <= self._floor:
            return
        writer = self._storage.begin_snapshot(self._header(slot, self._promised))
        if self._luck.random() < 0.5:
            writer.write(b"a state")
            self._write()
        writer.write(b"x" * self._luck.choice(SIZES))
        self._story.append(f"snapshot of {slot}")
        self._installed(writer.finish())

    def _fetch(self) -> None:
        """A peer's snapshot, which may promise more than this replica has, or less."""
        slot = self._luck.randint(self._floor + 1, self._last + AHEAD_MAX)
        promised = _turn(max(1, _count(self._promised) + self._luck.randint(-2, 2)))
        source = SimulatedDisk(random.Random(0))
        theirs = Storage.open(source, segment_bytes=SEGMENT_BYTES_MIN)
        theirs.format(b"2")
        theirs.form(b"formed")
        written = theirs.begin_snapshot(self._header(slot, promised))
        written.write(b"y" * self._luck.choice(SIZES))
        header = written.finish()
        writer = self._storage.receive_snapshot(header)
        writer.write(theirs.read_snapshot(0, header.size))
        self._story.append(f"fetch {slot} {promised}")
        self._installed(writer.finish())
        self.kept.said(promised)
        if promised > self._promised:
            self._promised = promised
            self._storage.append([Promised(promised)])  # rides in the next batch

    def _header(self, slot: int, promised: Ballot) -> SnapshotHeader:
        return SnapshotHeader(slot, _CONFIGURATION, slot, b"%d" % slot, promised)

    def _installed(self, header: SnapshotHeader) -> None:
        self.kept.covers(header.slot)
        self._floor, self._last = header.slot, max(self._last, header.slot)
        self._chosen = max(self._chosen, header.slot)

    # --- what becomes of a disk

    def _last_batch(self) -> tuple[str, int, int] | None:
        if self.disk.last_durable is None:
            return None
        inode, offset, length = self.disk.last_durable
        names = [name for name in self.disk.names() if self.disk._names[name] is inode]
        return (names[0], offset, length) if names else None

    def _damage(self, name: str, offset: int, length: int) -> None:
        """Some of its bits flip, or a sector of an earlier batch has landed in it."""
        luck, contents = self._luck, self.disk.contents(name)
        self._story.append("damage")
        if length <= offset and length > SECTOR and luck.random() < 0.7:
            at = offset + SECTOR * luck.randint(1, length // SECTOR - 1)
            for place, byte in enumerate(contents[at - length : at - length + SECTOR]):
                self.disk.flip(name, at + place, contents[at + place] ^ byte)
            return
        for _ in range(luck.choice((1, 1, 3))):
            self.disk.flip(name, offset + luck.randrange(length), 1 << luck.randrange(8))


def _count(ballot: Ballot) -> int:
    """Which ballot it is, from 1 on: three replicas take turns, so many follow one another within a round."""
    return (ballot.round - 1) * 3 + ballot.replica


def _turn(count: int) -> Ballot:
    """The ballot that `_count` gave this number."""
    return Ballot((count - 1) // 3 + 1, (count - 1) % 3 + 1)
