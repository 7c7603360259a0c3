# SPDX-License-Identifier: Apache-2.0
"""Damage at rest: every byte of a settled directory, every sector, and every file of it, changed in every usual way.

Each damage is told (rot, or a refusal, in one sentence that names the file), or put in doubt where it lies in the
newest batch, or it lies in bytes that nobody uses, and then nothing changes. Three things no disk alone can tell from
what it was before, and they are exactly these: the newest batch with a sector of it zeroed is one that was never
finished; the newest segment gone, or cut short behind any batch, is one that never was; all files of an earlier moment
are that moment. A batch that a power cut took before it was acknowledged may come back where it belongs, as if it had
survived. A snapshot that is gone is told as soon as the log does not hold everything from its first slot on.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Final, NamedTuple

from replicas.paxos.types import Accepted, Ballot, Entry, Promised
from replicas.storage.files import SECTOR
from tests.storage.crashes.oracle import Outcome, brief
from tests.storage.crashes.package import SEGMENT_BYTES
from tests.storage.crashes.recorder import Files, RecordingDisk
from tests.storage.crashes.search import opened
from tests.storage.crashes.story import Story

__all__ = ["Damaged", "RotSearch", "bare", "settled"]

ONE_BIT: Final = "one bit"
ALL_BITS: Final = "all bits"
LOG: Final = re.compile(r"log-\d{10}")
GO_ON_EVERY: Final = 5
"""Of the damages that leave slots in doubt, so many have these slots written again, as consensus does."""

NAMES_A_FILE: Final = re.compile(
    r"log-\d{10}|identity|snapshot|its log is gone|has format version|slot \d+ is missing from its log"
)


class Damaged(NamedTuple):
    """One damage: what was done, to which bytes of which file, and what is found instead of it."""

    what: str
    name: str
    start: int
    end: int
    files: Files

    def __str__(self) -> str:
        return f"{self.what}: {self.name} [{self.start}:{self.end}]"


def settled(package: ModuleType, seed: int, *, segments: int = 3) -> tuple[Story, Files]:
    """What the first story from this seed on leaves that ends with a snapshot, an identity and so many segments."""
    while True:
        story, files, used = _left_by(package, seed)
        if used >= segments and "snapshot" in files and _end_of_log(package, files)[2]:
            return story, files
        seed += 1


def bare(package: ModuleType, seed: int) -> Files:
    """What the first story from this seed on leaves whose log holds no slot at all any more: without its snapshot it
    would look like that of a replica which has only promised something.
    """
    while True:
        _, files, _ = _left_by(package, seed)
        if "snapshot" in files and "log-0000000001" not in files:
            disk = RecordingDisk(files)
            if not package.store.read_log(disk, package.store.segment_indexes(disk.names()), 0).entries:
                return files
        seed += 1


def _left_by(package: ModuleType, seed: int) -> tuple[Story, Files, int]:
    """A story, the files that it leaves, and how many segments of its log hold something."""
    story = Story(package, seed)
    life = story.lives[-1]
    afloat = life.afloat(len(life.ops))
    files = afloat.after((0,) * len(afloat.atoms))
    return story, files, sum(bool(LOG.fullmatch(name)) and bool(files[name].strip(b"\0")) for name in files)


@dataclass
class RotSearch:
    """`told` counts what came of it, by damage. `problems` are what storage did not stand."""

    package: ModuleType
    files: Files
    told: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.truth = self._opened(self.files)
        self.newest = _end_of_log(self.package, self.files)
        name, start, _ = self.newest
        data, self.earlier = self.files[name], list[Outcome]()
        for at in (start, *(end for end in range(0, start, SECTOR))):
            without = self.files | {name: data[:at] + bytes(len(data) - at)}
            _, outcome, _ = opened(self.package, without)
            if isinstance(outcome, Outcome) and outcome.told is None:
                self.earlier.append(outcome._replace(chosen=0))

    def _opened(self, files: Files) -> Outcome:
        _, outcome, _ = opened(self.package, files)
        assert isinstance(outcome, Outcome), outcome
        assert outcome.told is None, outcome.told
        return outcome

    def all(self, damages: Iterator[Damaged]) -> None:
        for damage in damages:
            self.one(damage)

    def one(self, damage: Damaged) -> None:
        if damage.files == self.files:
            return
        disk, outcome, _ = opened(self.package, damage.files)
        if isinstance(outcome, str):
            self._problem(damage, outcome)
            return
        verdict, objection = self._judged(damage, outcome)
        if objection is None and verdict in ("saved", "doubtful", "as if never written"):
            _, again, _ = opened(self.package, disk.files())
            objection = None if again == outcome else f"mended and opened again it says: {again}"
        self.told[damage.what, verdict] += 1
        if objection is None and verdict == "doubtful" and self.told[damage.what, verdict] % GO_ON_EVERY == 1:
            objection = self._goes_on(disk.files(), outcome)
        if objection is not None:
            self._problem(damage, f"{brief(outcome)}\n  {objection}")

    def _goes_on(self, files: Files, outcome: Outcome) -> str | None:
        """Slots in doubt are learned again, and then nothing is in doubt any more, and nothing else has changed."""
        disk = RecordingDisk(files)
        storage = self.package.Storage.open(disk, segment_bytes=SEGMENT_BYTES)
        ballot = Ballot(outcome.view.promised.round + 1, 1)
        written = {slot: Entry(slot, ballot, 1, b"again") for slot in sorted(outcome.doubtful)}
        storage.append([Promised(ballot), *map(Accepted, written.values())])
        storage.sync()
        storage.close()
        _, again, _ = opened(self.package, disk.files())
        if not isinstance(again, Outcome) or again.doubtful:
            return f"written again and opened, it says: {again}"
        wanted = {entry.slot: entry for entry in outcome.view.entries} | written
        found = {entry.slot: entry for entry in again.view.entries}
        return None if found == wanted else f"written again and opened, it holds: {brief(again)}"

    @property
    def count(self) -> int:
        return sum(self.told.values())

    def _judged(self, damage: Damaged, outcome: Outcome) -> tuple[str, str | None]:
        if outcome.told is not None:
            return "told", None if NAMES_A_FILE.search(outcome.told) else "the sentence names no file"
        name, start, end = self.newest
        in_newest = damage.name == name and damage.start < end and damage.end > start
        without_chosen = outcome._replace(chosen=0)
        if without_chosen == self.truth._replace(chosen=0):
            if in_newest:
                return "saved", None  # every record of it vouches for itself, and is written anew
            return "harmless", "the damaged bytes count, and nothing is said" if self._is_used(damage) else None
        if in_newest and without_chosen in self._as_if_never_written(damage):
            return "as if never written", None
        if in_newest:
            return "doubtful", self._doubt(outcome)
        if damage.what == "stale" and (damage.name, damage.start) == (name, end) and self._adds(outcome):
            return "as if it had survived", None
        if damage.what == "gone" and damage.name == "snapshot" and self._holds_all(outcome):
            return "harmless", None
        return "changed", "what was acknowledged is changed or lost, and nothing is said"

    def _as_if_never_written(self, damage: Damaged) -> list[Outcome]:
        """What may be said after a damage that leaves the newest batch as it was before it was written, or in part."""
        if damage.what in ("gone", "cut short"):
            return self.earlier
        return self.earlier[:1] if damage.what == "stale" or _is_zeroed(damage) else []

    def _adds(self, outcome: Outcome) -> bool:
        """A batch that was lost with the power, unacknowledged, comes back behind the newest: the chain fits, and it
        was ours. Nothing that is known is lost by it.
        """
        known = {entry.slot: entry for entry in self.truth.view.entries}
        found = {entry.slot: entry for entry in outcome.view.entries}
        same = (outcome.view.identity, outcome.view.snapshot) == (self.truth.view.identity, self.truth.view.snapshot)
        kept = all(slot in found and found[slot].ballot >= known[slot].ballot for slot in known)
        return same and kept and outcome.view.promised >= self.truth.view.promised and not outcome.doubtful

    def _holds_all(self, outcome: Outcome) -> bool:
        """Without its snapshot: whether the log still tells all of it from the first slot on, and the promise."""
        first = [entry.slot for entry in outcome.view.entries[:1]]
        last = outcome.view.entries[len(outcome.view.entries) - len(self.truth.view.entries) :]
        return first == [1] and last == self.truth.view.entries and outcome.view.promised == self.truth.view.promised

    def _doubt(self, outcome: Outcome) -> str | None:
        if not outcome.doubtful:
            return "what was acknowledged is changed or lost, and nothing is said"
        if outcome.view[:3] != self.truth.view[:3]:
            return "more than slots is lost, and only slots are doubted"
        truth = {entry.slot: entry for entry in self.truth.view.entries}
        found = {entry.slot: entry for entry in outcome.view.entries}
        wrong = [slot for slot in truth.keys() | found.keys() if truth.get(slot) != found.get(slot)]
        wrong = [slot for slot in wrong if slot not in outcome.doubtful]
        return f"slots {sorted(wrong)} are changed or lost, and not doubted" if wrong else None

    def _is_used(self, damage: Damaged) -> bool:
        """Whether what is stored stands in these bytes."""
        if damage.name in ("identity", "snapshot"):
            return True
        if not LOG.fullmatch(damage.name):
            return False
        if damage.what == "gone" and damage.name == min(name for name in self.files if LOG.fullmatch(name)):
            return False  # nothing was missed, so all of it was covered by the snapshot: it was to be dropped
        return damage.start < _used(self.package, self.files[damage.name])

    def _problem(self, damage: Damaged, what: str) -> None:
        self.problems.append(f"{damage}\n  {what}")


# --- the damages ------------------------------------------------------------------------------------------------------


def flips(files: Files, patterns: tuple[str, ...] = (ONE_BIT, ALL_BITS), every: int = 1) -> Iterator[Damaged]:
    """Each byte of each file."""
    for name, data in sorted(files.items()):
        for offset in range(0, len(data), every):
            for pattern in patterns:
                mask = 1 << (offset * 5 % 8) if pattern == ONE_BIT else 0xFF
                changed = data[:offset] + bytes([data[offset] ^ mask]) + data[offset + 1 :]
                yield Damaged(pattern, name, offset, offset + 1, files | {name: changed})


def sectors(story: Story, files: Files, luck: random.Random, misdirected: int = 12) -> Iterator[Damaged]:
    """Each sector zeroed, holding what belongs to another, holding what it held in an earlier life."""
    places = [(name, at) for name, data in sorted(files.items()) for at in range(0, len(data), SECTOR)]
    former = _former_sectors(story)
    for name, at in places:
        data = files[name]
        end = min(at + SECTOR, len(data))
        yield _sector("zeroed", files, name, at, bytes(end - at))
        yield _sector("garbage", files, name, at, luck.randbytes(end - at))
        others = [place for place in places if place != (name, at)]
        for other, position in luck.sample(others, min(misdirected, len(others))):
            sector = files[other][position : position + SECTOR]
            yield _sector("misdirected", files, name, at, sector[: end - at].ljust(end - at, b"\0"))
        for stale in sorted(former.get((name, at), ())):
            yield _sector("stale", files, name, at, stale[: end - at].ljust(end - at, b"\0"))


def wholes(files: Files) -> Iterator[Damaged]:
    """Each file gone, emptied, cut short at each sector, or exchanged for another."""
    for name, data in sorted(files.items()):
        yield Damaged("gone", name, 0, len(data), {other: files[other] for other in files if other != name})
        for at in range(0, len(data), SECTOR):
            yield Damaged("cut short", name, at, len(data), files | {name: data[:at]})
        for other in sorted(files):
            if LOG.fullmatch(name) and LOG.fullmatch(other) and other > name:
                yield Damaged("exchanged", name, 0, len(data), files | {name: files[other], other: data})


def _sector(what: str, files: Files, name: str, at: int, sector: bytes) -> Damaged:
    data = files[name]
    return Damaged(what, name, at, at + len(sector), files | {name: data[:at] + sector + data[at + len(sector) :]})


def _former_sectors(story: Story) -> dict[tuple[str, int], set[bytes]]:
    former: dict[tuple[str, int], set[bytes]] = {}
    for life in story.lives:
        for op in life.ops:
            if op.kind == "write" and op.offset % SECTOR == 0:
                for at in range(0, len(op.data), SECTOR):
                    former.setdefault((op.name, op.offset + at), set()).add(op.data[at : at + SECTOR])
    return former


def _is_zeroed(damage: Damaged) -> bool:
    data = damage.files[damage.name]
    return any(
        not data[at : at + SECTOR].strip(b"\0") for at in range(damage.start // SECTOR * SECTOR, damage.end, SECTOR)
    )


def _used(package: ModuleType, data: bytes) -> int:
    position = 0
    batches = package.store.read_log.__globals__["batches"]
    while (batch := batches.read(data, position)) is not None:
        position += batch.header.sectors * SECTOR
    return position


def _end_of_log(package: ModuleType, files: Files) -> tuple[str, int, int]:
    """Where the newest batch stands: the file, its beginning and its end."""
    batches = package.store.read_log.__globals__["batches"]
    newest, place = 0, ("", 0, 0)
    for name in sorted(name for name in files if LOG.fullmatch(name)):
        position = 0
        while (batch := batches.read(files[name], position)) is not None:
            end = position + batch.header.sectors * SECTOR
            if batch.header.number >= newest:
                newest, place = batch.header.number, (name, position, end)
            position = end
    return place
