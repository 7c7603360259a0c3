# SPDX-License-Identifier: Apache-2.0
"""Append and sync: the log while it grows. How it is read back is recovery.py's business.

`append` gathers records in memory; `sync` makes all that was gathered durable, as one batch in one write. A sync may
run on one thread while another appends; two syncs at a time are a mistake of the caller's, and asserted.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from replicas.paxos.types import Accepted, Ballot, ChosenTo, Promised, Record
from replicas.storage import batches
from replicas.storage.files import Disk, Fuse
from replicas.storage.mending import mend
from replicas.storage.records import encode_entry
from replicas.storage.recovery import LogState


class Log:
    """An open log. `state` is what recovery read; its end is mended here, and it is not used afterwards."""

    def __init__(self, disk: Disk, state: LogState, fuse: Fuse, segment_bytes: int) -> None:
        self._disk = disk
        self._fuse = fuse
        self._guard = fuse.guarding("Writing the log")
        self._file, self._maker = mend(disk, state, segment_bytes)
        # Invariants: segments are in order of their indexes, without a gap; batches go into the last.
        self._segments = state.segments
        self._position = state.position
        self._number = state.number
        self._chain = state.chain
        # What follows is shared by the thread that appends and the one that syncs, and guarded by `_sharing`, which is
        # never held over I/O.
        self._sharing = threading.Lock()
        self._syncing = False
        self._promised = Ballot(*state.promised)
        self._chosen = state.chosen
        self._last = max(state.entries.keys() | state.doubtful, default=state.floor)
        self._pending: dict[int, bytes] = {}
        self._pending_promise = False
        self.segment_due = self._position > self._segments[-1].size // 2
        """Whether half of the last segment is used, and nobody has begun to `prepare` the next one."""

    @property
    def used_bytes(self) -> int:
        """What the log has written and not dropped: with the entries' count, a reason to make a snapshot."""
        with self._sharing:
            return sum(segment.used for segment in self._segments)

    @property
    def promised(self) -> Ballot:
        return self._promised

    def append(self, records: Iterable[Record]) -> None:
        """Gathers these; a slot's later record replaces its earlier one."""
        with self._sharing:
            pending, last = self._pending, self._last
            for record in records:
                match record:
                    case Accepted(entry=entry):
                        slot = entry.slot
                        assert 0 < slot <= last + 1, f"slot {slot} would leave a gap after {last}"
                        if slot > last:
                            self._last = last = slot
                        pending[slot] = encode_entry(entry)
                    case Promised(ballot=ballot):
                        assert ballot >= self._promised, f"{ballot} is below the promised {self._promised}"
                        self._promised = ballot
                        self._pending_promise = True
                    case ChosenTo(slot=slot):
                        # Nobody waits for this one, so it rides in the next batch's header and makes none by itself.
                        self._chosen = max(self._chosen, slot)
                    case _:
                        raise AssertionError(record)

    def sync(self) -> None:
        """Returns when everything appended before the call is durable."""
        with self._sharing:
            assert not self._syncing, "two syncs at a time"
            self._fuse.check()
            if not self._pending and not self._pending_promise:
                return
            pending, self._pending = self._pending, {}
            promised, chosen = self._promised, self._chosen
            self._pending_promise = False
            self._syncing = True
        try:
            with self._guard:
                self._write(pending, promised, chosen)
        finally:
            self._syncing = False

    def prepare(self) -> bool:
        """One slice of making the next segment ahead. True while more is to do."""
        self.segment_due = False
        with self._fuse.guarding("Making the log's next segment"):
            return self._maker.step()

    def raise_floor(self, slot: int) -> None:
        """A snapshot of `slot` is durable."""
        with self._sharing:
            self._last = max(self._last, slot)

    def drop(self, slot: int) -> bool:
        """Removes the oldest segment if a durable snapshot of `slot` covers all of it. True if it did.

        The last segment stays, and holds a durable batch whenever there is an older one, so the promise is never
        dropped.
        """
        with self._sharing:
            if len(self._segments) < 2 or self._segments[0].last_slot > slot:
                return False
            oldest = self._segments.pop(0)
        with self._fuse.guarding("Dropping a segment of the log"):
            self._disk.remove(oldest.name)
            # For good, before the next one goes: after a power cut a gap between segments would look like a loss.
            self._disk.sync()
        return True

    def close(self) -> None:
        self._file.close()
        self._maker.close()

    def _write(self, pending: dict[int, bytes], promised: Ballot, chosen: int) -> None:
        body = b"".join(pending.values())
        segment = self._segments[-1]
        length = batches.batch_bytes(len(body))
        fresh = self._position + length > segment.size
        if fresh:
            segment, file = self._maker.take(length)
            self._file.close()
            self._file, self._position = file, 0
        sectors, chain = batches.encode(
            body,
            number=self._number + 1,
            segment=segment.index,
            promised=promised,
            chosen=chosen,
            first=min(pending, default=0),
            last=max(pending, default=0),
            previous=self._chain,
        )
        assert len(sectors) == length
        self._file.write_durable(self._position, sectors)
        self._number += 1
        self._chain = chain
        half = segment.size // 2
        if self._position <= half < self._position + length:
            self.segment_due = True
        self._position += length
        with self._sharing:
            if fresh:  # Only now may an older one be dropped: this one holds the promise, durably.
                self._segments.append(segment)
            segment.last_slot = max(segment.last_slot, *pending, 0)
            segment.used = self._position
