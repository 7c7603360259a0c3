# SPDX-License-Identifier: Apache-2.0
"""A disk of whole records, for consensus simulated without the byte-level storage: what was not synced may be lost.

A crash keeps what was synced and any first part of the rest. With `doubt`, the last batch that was written cannot be
read afterwards: its slots come back as doubtful, with whatever they held before.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from replicas.paxos.types import (
    NO_BALLOT,
    Accepted,
    Ballot,
    ChosenTo,
    Configuration,
    Durable,
    Entry,
    EntryKind,
    Promised,
)


class Snapshot(NamedTuple):
    """Everything up to `slot`. `state` stands for the machine: it is the program's."""

    slot: int
    configuration: Configuration
    chain: int
    promised: Ballot
    state: Any


class RecordDisk:
    """One replica's disk."""

    def __init__(self, luck: random.Random, kept: Callable[[Entry], None] = lambda _: None) -> None:
        self.snapshot: Snapshot | None = None
        self._luck = luck
        self._kept = kept  # called with each entry that is safe from now on
        self._promised = NO_BALLOT
        self._recorded = NO_BALLOT  # without what snapshots brought
        self._chosen = 0
        self._entries: dict[int, Entry] = {}
        self._doubtful: set[int] = set()
        self._unsynced: list[list[Any]] = []
        self._last: tuple[list[Any], dict[int, Entry | None]] = ([], {})  # the last synced batch, and what it overwrote

    def write(self, records: list[Any]) -> None:
        self._unsynced.append(records)

    def sync(self, batches: int) -> None:
        for records in self._unsynced[:batches]:
            overwritten = {r.entry.slot: self._entries.get(r.entry.slot) for r in records if type(r) is Accepted}
            for record in records:
                self._apply(record)
            self._last = (records, overwritten)
        del self._unsynced[:batches]

    def _apply(self, record: Any) -> None:
        match record:
            case Promised(ballot=ballot):
                assert ballot > self._recorded, "a promise decreased"
                self._recorded = ballot
                self._promised = max(self._promised, ballot)
            case Accepted(entry=entry):
                self._entries[entry.slot] = entry
                self._doubtful.discard(entry.slot)
                self._kept(entry)
            case ChosenTo(slot=slot):
                self._chosen = max(self._chosen, slot)
            case _:
                raise AssertionError(record)

    def crash(self, doubt: bool) -> None:
        records = [record for batch in self._unsynced for record in batch]
        kept = self._luck.randint(0, len(records))
        for record in records[:kept]:
            self._apply(record)
        if doubt and kept == 0:
            self._doubt()
        self._unsynced.clear()
        self._last = ([], {})

    def _doubt(self) -> None:
        records, overwritten = self._last
        for record in records:
            if type(record) is Accepted and self._entries.get(record.entry.slot) == record.entry:
                slot = record.entry.slot
                self._doubtful.add(slot)
                old = overwritten[slot]
                if old is None:
                    del self._entries[slot]
                else:
                    self._entries[slot] = old

    # --- what is safe, for whoever checks

    @property
    def promised(self) -> Ballot:
        """The highest promise."""
        return self._promised

    @property
    def floor(self) -> int:
        """The slot of the snapshot."""
        return 0 if self.snapshot is None else self.snapshot.slot

    @property
    def entries(self) -> Mapping[int, Entry]:
        """What lies in each slot above the snapshot."""
        return self._entries

    @property
    def doubtful(self) -> set[int]:
        """Slots that may have been lost."""
        return self._doubtful

    def above(self, slot: int) -> list[Entry]:
        """What lies in the slots above this one."""
        return [entry for entry in self._entries.values() if entry.slot > slot]

    # --- snapshots and recovery

    def save(self, snapshot: Snapshot) -> None:
        """Durable at once: written aside and renamed, it is there wholly or not at all."""
        assert self.snapshot is None or snapshot.slot > self.snapshot.slot
        self.snapshot = snapshot
        self._promised = max(self._promised, snapshot.promised)
        self._entries = {slot: entry for slot, entry in self._entries.items() if slot > snapshot.slot}
        self._doubtful = {slot for slot in self._doubtful if slot > snapshot.slot}

    def recover(self) -> Durable:
        """What storage would have found."""
        snapshot = self.snapshot
        floor = 0 if snapshot is None else snapshot.slot
        last = max(self._entries, default=floor)
        entries = []
        for slot in range(floor + 1, last + 1):
            entry = self._entries.get(slot)
            if entry is None:
                assert slot in self._doubtful or snapshot is not None, f"a gap in the log at {slot}"
                if slot not in self._doubtful:
                    break
                entry = Entry(slot, NO_BALLOT, EntryKind.NOOP, b"")
            entries.append(entry)
        return Durable(
            promised=self._promised,
            entries=tuple(entries),
            snapshot_slot=floor,
            chain=0 if snapshot is None else snapshot.chain,
            configuration=None if snapshot is None else snapshot.configuration,
            chosen=max(self._chosen, floor),
            doubtful=frozenset(self._doubtful),
        )
