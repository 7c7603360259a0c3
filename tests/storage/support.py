# SPDX-License-Identifier: Apache-2.0
"""What the storage tests share: a workload drawn from a seed, and a model of what storage must say after a crash."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from replicas.paxos.types import NO_BALLOT, Accepted, Ballot, ChosenTo, Configuration, Entry, Member, Promised, Record
from replicas.storage import Identity, Recovered, SnapshotHeader, Storage
from tests.sim.disk import SimulatedDisk

SEGMENT_BYTES = 16 * 512
"""Small, so that a short run goes through many segments."""

INCARNATION = bytes(range(16))
CONFIGURATION = Configuration("cluster", 1, (Member(1, "a:1", INCARNATION), Member(2, "b:2", b"i" * 16)), b"settings")


def entry(slot: int, value: bytes = b"value", ballot: Ballot = Ballot(1, 1), kind: int = 1) -> Entry:
    return Entry(slot, ballot, kind, value)


def accepted(slot: int, value: bytes = b"value", ballot: Ballot = Ballot(1, 1)) -> Accepted:
    return Accepted(entry(slot, value, ballot))


def header(slot: int, chain: int = 0x1234) -> SnapshotHeader:
    return SnapshotHeader(slot, CONFIGURATION, chain, b"digest")


def open_storage(disk: SimulatedDisk) -> Storage:
    return Storage.open(disk, segment_bytes=SEGMENT_BYTES)


def reopen(disk: SimulatedDisk) -> Storage:
    """As after kill -9."""
    disk.kill()
    return open_storage(disk)


def formatted(disk: SimulatedDisk) -> Storage:
    storage = open_storage(disk)
    storage.format(INCARNATION)
    return storage


def take_snapshot(storage: Storage, slot: int, contents: bytes = b"contents") -> SnapshotHeader:
    writer = storage.begin_snapshot(header(slot))
    writer.write(contents)
    return writer.finish()


class View(NamedTuple):
    """What a replica would start from: all that must be the same before and after a restart."""

    identity: Identity | None
    promised: Ballot
    snapshot: tuple[int, bytes] | None
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Model:
    """What storage was told, and what of it counts."""

    identity: Identity | None = None
    promised: Ballot = NO_BALLOT
    chosen: int = 0
    snapshot: tuple[int, bytes] | None = None
    entries: dict[int, Entry] = field(default_factory=dict)

    @property
    def floor(self) -> int:
        return self.snapshot[0] if self.snapshot else 0

    @property
    def last(self) -> int:
        return max(self.entries, default=self.floor)

    def told(self, records: list[Record]) -> Model:
        promised, chosen, entries = self.promised, self.chosen, dict(self.entries)
        for record in records:
            match record:
                case Promised(ballot=promised):
                    pass
                case ChosenTo(slot=chosen):
                    pass
                case Accepted(entry=told):
                    if told.slot > self.floor:
                        entries[told.slot] = told
        return replace(self, promised=promised, chosen=chosen, entries=entries)

    def snapshotted(self, slot: int, contents: bytes, promised: Ballot = NO_BALLOT) -> Model:
        entries = {number: told for number, told in self.entries.items() if number > slot}
        promised, chosen = max(promised, self.promised), max(slot, self.chosen)
        return replace(self, promised=promised, snapshot=(slot, contents), entries=entries, chosen=chosen)

    def view(self) -> View:
        entries = tuple(self.entries[slot] for slot in sorted(self.entries))
        return View(self.identity, self.promised, self.snapshot, entries)


def view_of(storage: Storage) -> View:
    recovered: Recovered = storage.recovered
    assert recovered.rot is None, recovered.rot
    durable = recovered.durable
    assert not durable.doubtful
    slots = [told.slot for told in durable.entries]
    assert slots == list(range(durable.snapshot_slot + 1, durable.snapshot_slot + 1 + len(slots)))
    snapshot = None
    if recovered.snapshot is not None:
        assert durable.snapshot_slot == recovered.snapshot.slot
        assert durable.chain == recovered.snapshot.chain
        assert durable.configuration == CONFIGURATION
        snapshot = (recovered.snapshot.slot, storage.read_snapshot(0, 1 << 20))
        assert len(snapshot[1]) == recovered.snapshot.size
    return View(recovered.identity, durable.promised, snapshot, durable.entries)


class Run:
    """A random life of one storage. `before` is what it has acknowledged, `after` what it will have once this step
    is done.
    """

    def __init__(self, disk: SimulatedDisk, luck: random.Random) -> None:
        self.disk = disk
        self.luck = luck
        self.before = self.after = Model()
        self.storage = open_storage(disk)

    @contextmanager
    def step(self, after: Model) -> Iterator[None]:
        self.after = after
        yield
        self.before = after

    def go(self, steps: int) -> None:
        if self.storage.identity is None:
            with self.step(replace(self.before, identity=Identity(INCARNATION, None))):
                self.storage.format(INCARNATION)
        for _ in range(steps):
            kinds = (self._batch, self._snapshot, self._receive, self._form, self._prepare)
            (kind,) = self.luck.choices(kinds, (20, 2, 1, 1, 5))
            kind()

    def reopen(self) -> None:
        self.storage = reopen(self.disk)

    def _batch(self) -> None:
        model, records = self.before, []
        for _ in range(self.luck.choice((1, 1, 2, 5, 20))):
            record = self._record(model)
            records.append(record)
            model = model.told([record])
        with self.step(model):
            half = len(records) // 2
            self.storage.append(records[:half])
            self.storage.append(records[half:])
            self.storage.sync()

    def _record(self, model: Model) -> Record:
        luck = self.luck
        if luck.random() < 0.1:
            return Promised(
                Ballot(model.promised.round + luck.randint(0, 2), max(model.promised.replica, luck.randint(1, 3)))
            )
        if luck.random() < 0.1:
            return ChosenTo(luck.randint(min(model.last, max(model.floor, model.chosen)), model.last))
        slot = model.last + 1
        if model.entries and luck.random() < 0.2:
            slot = luck.randint(min(model.entries), model.last)
        return Accepted(Entry(slot, model.promised, luck.randint(0, 3), self._bytes()))

    def _bytes(self) -> bytes:
        return self.luck.randbytes(self.luck.choice((0, 10, 10, 100, 100, 700, 3000)))

    def _snapshot(self) -> None:
        model = self.before
        if model.last > model.floor:
            slot = self.luck.randint(model.floor + 1, model.last)
            contents = self._bytes()
            with self.step(model.snapshotted(slot, contents)):
                assert take_snapshot(self.storage, slot, contents).slot == slot

    def _receive(self) -> None:
        """From a peer, which may be ahead of all that is accepted here."""
        model, contents = self.before, self._bytes()
        slot = model.floor + self.luck.choice((1, 5, 50))
        source = formatted(SimulatedDisk(random.Random(0)))
        announced = take_snapshot(source, slot, contents)
        with self.step(model.snapshotted(slot, contents)):
            writer = self.storage.receive_snapshot(announced)
            for offset in range(0, len(contents), 256):
                writer.write(contents[offset : offset + 256])
            writer.finish()

    def _form(self) -> None:
        identity = self.before.identity
        assert identity is not None
        formation = self._bytes()
        with self.step(replace(self.before, identity=Identity(INCARNATION, formation))):
            self.storage.form(formation)

    def _prepare(self) -> None:
        self.storage.prepare()


class Beside(Run):
    """The same while other threads do what they may in the midst of a sync: one gathers what is for the next batch, and
    one brings a snapshot to its end. `meanwhile` is to be called before each operation of the disk.
    """

    def __init__(self, disk: SimulatedDisk, luck: random.Random) -> None:
        super().__init__(disk, luck)
        self._gathered: list[Record] = []
        self._operations_until: int | None = None
        self.met = 0
        """How often something was done in the midst of a sync."""

    def meanwhile(self) -> None:
        if self._operations_until is None:
            return
        self._operations_until -= 1
        if self._operations_until < 0:
            self._operations_until = None
            observer, self.disk.observer = self.disk.observer, None
            self.met += 1
            if self.luck.random() < 0.5:
                self._gather()
            if self.luck.random() < 0.5:
                self._end_a_snapshot()
            self.disk.observer = observer

    def _batch(self) -> None:
        gathered, self._gathered = self._gathered, []
        model, records = self.before.told(gathered), []
        for _ in range(self.luck.choice((1, 1, 2, 5, 20))):
            record = self._record(model)
            records.append(record)
            model = model.told([record])
        self.after = model
        self.storage.append(records)
        self._operations_until = self.luck.randint(0, 5)
        self.storage.sync()
        self._operations_until = None
        self.before = self.after

    def _gather(self) -> None:
        model = self.after
        for _ in range(self.luck.choice((1, 2, 5))):
            record = self._record(model)
            self._gathered.append(record)
            model = model.told([record])
        self._gathered.append(ChosenTo(self.luck.randint(max(model.floor, model.chosen), model.last)))
        self.storage.append(self._gathered)

    def _end_a_snapshot(self) -> None:
        if self.before.last > self.before.floor:
            last, contents = self.before.last, self._bytes()
            slot = self.luck.choice((last, self.luck.randint(self.before.floor + 1, last)))
            assert take_snapshot(self.storage, slot, contents).slot == slot
            self.before, self.after = (model.snapshotted(slot, contents) for model in (self.before, self.after))
