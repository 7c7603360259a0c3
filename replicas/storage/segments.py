# SPDX-License-Identifier: Apache-2.0
"""The log's files: named by their index, made ahead and zeroed to their full size, and removed from the oldest on.

A segment gets its name only when all of it is zeroed and durable, so a named segment never grows under the log's
writes, and a write inside it changes no metadata. What stands in it is the business of others.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Final

from replicas.storage.files import SECTOR, Disk, File

SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""The size of a segment, where nobody says otherwise: large enough that making one is rare, small enough to read in
one piece.
"""

SEGMENT_BYTES_MIN: Final = 8 * SECTOR

ZEROING_SLICE_BYTES: Final = 256 * 1024
"""How much is zeroed and synced in one step: a millisecond or two in which a batch's sync may have to stand in line."""

SEGMENT_ASIDE: Final = "log.next"
_NAME: Final = re.compile(r"log-(\d{10})")


@dataclass(slots=True)
class Segment:
    """A file of the log. `last_slot` is the highest slot that any batch in it writes; it may go when a snapshot
    covers that.
    """

    index: int
    size: int
    last_slot: int = 0
    used: int = 0

    @property
    def name(self) -> str:
        return segment_name(self.index)


def segment_name(index: int) -> str:
    return f"log-{index:010}"


def segment_indexes(names: list[str]) -> list[int]:
    """The indexes of the segments among these files, in order."""
    return sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))


class SegmentMaker:
    """Makes the next segment, slice by slice, on whatever thread calls it."""

    def __init__(self, disk: Disk, size: int, next_index: int) -> None:
        assert size % SECTOR == 0
        assert size >= SEGMENT_BYTES_MIN
        self._disk = disk
        self._size = size
        self._index = next_index
        # Held over a slice: a sync that needs the segment now waits for the slice under way, then makes the rest
        # itself.
        self._making = threading.Lock()
        self._file: File | None = None
        self._zeroed = 0
        self._ready = False

    def adopt(self, file: File) -> None:
        """A whole segment of this maker's index was found on the disk, unused."""
        assert self._file is None
        self._file, self._zeroed, self._ready = file, file.size() // SECTOR * SECTOR, True

    def step(self) -> bool:
        """One slice. True while more is to do."""
        with self._making:
            if not self._ready:
                self._slice(self._size)
            return not self._ready

    def take(self, bytes_needed: int) -> tuple[Segment, File]:
        """The next segment, of at least so many bytes. At once if it was made ahead."""
        with self._making:
            size = max(self._size, -(-bytes_needed // SECTOR) * SECTOR)
            if self._ready and self._zeroed < size:
                # Too small for this batch. What has its name never grows, so it loses it until it is whole again.
                self._disk.rename(segment_name(self._index), SEGMENT_ASIDE)
                self._ready = False
            while not self._ready:
                self._slice(size)
            assert self._file is not None
            taken = Segment(self._index, self._zeroed), self._file
            self._index += 1
            self._file, self._zeroed, self._ready = None, 0, False
            return taken

    def close(self) -> None:
        """Of a slice that is under way on a disk that hangs, the end of the process lets go."""
        if self._making.acquire(blocking=False):
            if self._file is not None:
                self._file.close()
                self._file = None
            self._making.release()

    def _slice(self, size: int) -> None:
        if self._file is None:
            self._file = self._disk.create(SEGMENT_ASIDE)
        if self._zeroed < size:
            length = min(ZEROING_SLICE_BYTES, size - self._zeroed)
            self._file.write(self._zeroed, bytes(length))
            self._file.sync()
            self._zeroed += length
        if self._zeroed >= size:
            self._disk.rename(SEGMENT_ASIDE, segment_name(self._index))
            self._disk.sync()
            self._ready = True
