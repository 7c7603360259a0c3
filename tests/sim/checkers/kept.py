# SPDX-License-Identifier: Apache-2.0
"""What a disk was told to keep, held against what is found on it: storage's whole promise, one replica at a time.

What a sync has made durable is there at the next start, or something that was written over it later; a slot may be in
doubt only on a disk that somebody has damaged, and stays so until it is written again. A snapshot that was put in place
is there, and a fetched one's promise is kept as if the replica had made it.
"""

from __future__ import annotations

from collections.abc import Mapping

from replicas.paxos.types import NO_BALLOT, Accepted, Ballot, Durable, Entry, Promised, Record

__all__ = ["Kept"]


class Kept:
    """One replica's disk, through all of its lives."""

    def __init__(self) -> None:
        self.promised = NO_BALLOT
        """The highest ballot that is durable, or that a message which has left spoke of."""
        self._synced: dict[int, Entry] = {}
        self._written: dict[int, list[Entry]] = {}
        """By slot, what was handed to the disk since `_synced` was; any of it may have reached it."""
        self.doubted: frozenset[int] = frozenset()
        """What was found to be in doubt, and has not been written since."""
        self._snapshot_slot = 0

    def wrote(self, records: list[Record]) -> None:
        """These were handed to the disk, and may or may not be on it from now on."""
        for record in records:
            if type(record) is Accepted:
                self._written.setdefault(record.entry.slot, []).append(record.entry)

    def synced(self, records: list[Record]) -> None:
        """These are durable."""
        for record in records:
            if type(record) is Accepted:
                entry = record.entry
                self._synced[entry.slot] = entry
                self.doubted -= {entry.slot}
                later = self._written.get(entry.slot)
                if later is not None:
                    del later[: later.index(entry) + 1]
                    if not later:
                        del self._written[entry.slot]
            elif type(record) is Promised:
                self.promised = max(self.promised, record.ballot)

    @property
    def synced_entries(self) -> Mapping[int, Entry]:
        """By slot, what is durable and was not found to be in doubt since."""
        return self._synced

    def said(self, ballot: Ballot) -> None:
        """A message that says so has left, or a snapshot that does was installed."""
        self.promised = max(self.promised, ballot)

    def covers(self, slot: int) -> None:
        """A snapshot of that slot was put in place."""
        self._snapshot_slot = max(self._snapshot_slot, slot)

    def found(self, durable: Durable, *, spoilt: bool) -> None:
        """The next life begins with this.

        Args:
            durable: what storage has recovered.
            spoilt: somebody has damaged this disk.

        """
        assert durable.promised >= self.promised, f"went back to promise {durable.promised} from {self.promised}"
        assert spoilt or not durable.doubtful, f"an undamaged disk doubts {sorted(durable.doubtful)}"
        assert durable.snapshot_slot >= self._snapshot_slot, f"the snapshot of {self._snapshot_slot} is gone"
        assert durable.chosen < min(durable.doubtful, default=durable.chosen + 1), "what is in doubt is called chosen"
        entries = {entry.slot: entry for entry in durable.entries}
        for slot in self.doubted:
            forgiven = slot <= durable.snapshot_slot or slot in durable.doubtful or slot in self._written
            assert forgiven, f"slot {slot} was in doubt, and is not any more"
        for slot, synced in self._synced.items():
            if slot <= durable.snapshot_slot or slot in durable.doubtful:
                continue
            found = entries.get(slot)
            assert found is not None, f"slot {slot}, which was durable, is gone"
            assert found == synced or found in self._written.get(slot, ()), (
                f"slot {slot} held {synced}, and now {found}"
            )
        self._synced = {slot: entry for slot, entry in entries.items() if slot not in durable.doubtful}
        self._written = {}
        self.promised = durable.promised  # opening has made it durable, if it was not
        self.doubted = durable.doubtful
        self._snapshot_slot = durable.snapshot_slot
