# SPDX-License-Identifier: Apache-2.0
"""The acceptor's memory: promise, log and doubt, and what of it is on disk. The only writer of records.

It knows no messages and no time. Batches are numbered; a batch is sealed when the shell takes it, and counted when the
shell says that it is synced. Slots below `durable` + 1 have no write under way.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from replicas.paxos.log import Log
from replicas.paxos.types import Accepted, ChosenTo, Durable, Promised, Record
from replicas.paxos.values import Ballot, Entry

_NONE_WRITTEN: Final = 1 << 62


class _Batch(NamedTuple):
    number: int
    lowest: int  # the lowest slot that it writes
    promised: Ballot
    taken_ms: int


class Acceptor:
    """What this replica has promised and accepted."""

    def __init__(self, durable: Durable) -> None:
        self.promised = durable.promised
        self.promised_durably = durable.promised
        self.log = Log(durable.snapshot_slot, durable.chain, durable.entries)
        self.doubtful = {slot for slot in durable.doubtful if slot > durable.snapshot_slot}
        self._persist: list[Record] = []
        self._lowest = _NONE_WRITTEN
        self._unsynced: deque[_Batch] = deque()
        self._batch = 0
        self._chosen_written = durable.chosen

    def promise(self, ballot: Ballot) -> None:
        """Nothing below `ballot` is accepted any more."""
        assert ballot > self.promised
        self.promised = ballot
        self._persist.append(Promised(ballot))

    def write(self, entry: Entry) -> None:
        """Accept `entry`, or learn that it is chosen; in either case whatever this disk once held there matters no
        more.
        """
        self.log.put(entry)
        self._persist.append(Accepted(entry))
        self._lowest = min(self._lowest, entry.slot)
        if self.doubtful:
            self.doubtful.discard(entry.slot)

    @property
    def durable(self) -> int:
        """Everything in the log up to this slot is on disk."""
        lowest = self._lowest
        for batch in self._unsynced:
            lowest = min(lowest, batch.lowest)
        return min(self.log.last, lowest - 1)

    @property
    def due(self) -> bool:
        """Whether there is something to persist that was not handed out."""
        return bool(self._persist)

    @property
    def idle(self) -> bool:
        """Whether nothing waits for the disk."""
        return not self._persist and not self._unsynced

    def seal(self, now_ms: int) -> tuple[list[Record], int]:
        """What has to be persisted since the last time, and the number of that batch, or 0."""
        if not self._persist:
            return [], 0
        if self.log.chosen > self._chosen_written:
            # Rides along and is never waited for. The entries it speaks of were written before it in the same stream.
            self._chosen_written = self.log.chosen
            self._persist.append(ChosenTo(self.log.chosen))
        records, self._persist = self._persist, []
        self._batch += 1
        self._unsynced.append(_Batch(self._batch, self._lowest, self.promised, now_ms))
        self._lowest = _NONE_WRITTEN
        return records, self._batch

    def synced(self, number: int) -> None:
        """Batches up to `number` are on disk."""
        assert number <= self._batch, "a batch is on disk that was never handed out"
        while self._unsynced and self._unsynced[0].number <= number:
            batch = self._unsynced.popleft()
            assert batch.promised >= self.promised_durably
            self.promised_durably = batch.promised

    def waiting_since_ms(self) -> int | None:
        """When the oldest batch was handed out that is not on disk yet."""
        return self._unsynced[0].taken_ms if self._unsynced else None

    def stood_still(self, late_ms: int) -> None:
        """A stop of the process for so long; its disk may have finished long ago."""
        self._unsynced = deque(batch._replace(taken_ms=batch.taken_ms + late_ms) for batch in self._unsynced)

    def restart(self, slot: int, chain: int) -> None:
        """A snapshot of `slot` was installed. The promise, and every accepted entry above it, stay."""
        self.log.restart(slot, chain)
        self.doubtful = {doubt for doubt in self.doubtful if doubt > slot}
        self._chosen_written = max(self._chosen_written, slot)
