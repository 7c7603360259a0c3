# SPDX-License-Identifier: Apache-2.0
"""What a log says when it is read from its beginning. It changes nothing on the disk; mending.py does.

Reading follows the batches by number and chain, from segment to segment, to the first that cannot be read; what that
one was is judged in batches.py. A segment may end early: the log goes on wherever a later one opens with the batch that
is wanted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from replicas.paxos.types import Entry
from replicas.storage import batches
from replicas.storage.batches import CHAIN_START, Batch, Header, Verdict
from replicas.storage.files import SECTOR, Disk
from replicas.storage.records import Doubtful, Stored, decode_all
from replicas.storage.segments import Segment, segment_name

FIRST_INDEX: Final = 1


@dataclass(frozen=True, slots=True)
class Lost:
    """The doubtful last batch: the segment it stands in, the header that survived of it, and what its slots come to."""

    index: int
    header: Header
    saved: list[Entry]
    doubted: list[int]


@dataclass(slots=True)
class LogState:
    """What the log holds above slot `floor`.

    Invariants: batch `number + 1` belongs at `position` in the last of `segments`; a slot is not doubtful if a later
    batch wrote it.
    """

    floor: int = 0
    segments: list[Segment] = field(default_factory=list)
    position: int = 0
    number: int = 0
    chain: bytes = CHAIN_START
    promised: tuple[int, int] = (0, 0)
    chosen: int = 0
    entries: dict[int, Entry] = field(default_factory=dict)
    doubtful: set[int] = field(default_factory=set)
    last_batch: tuple[int, bytes] = (0, b"")
    """Where the last whole batch stands in its segment, and its sectors: its sync may never have come to an end."""
    lost: Lost | None = None
    rot: str | None = None
    """What is rotten, as the end of a sentence."""

    def keep(self, header: Header, records: Iterator[Stored]) -> set[int]:
        """Takes over what a batch says; returns the slots that its records tell of."""
        told: set[int] = set()
        self.promised = max(self.promised, header.promised)
        self.chosen = max(self.chosen, header.chosen)
        for record in records:
            match record:
                case Entry(slot=slot):
                    told.add(slot)
                    if slot > self.floor:
                        self.entries[slot] = record
                        self.doubtful.discard(slot)
                case Doubtful(first=first, last=last):
                    slots = range(first, last + 1)
                    told.update(slots)
                    self.doubtful.update(slot for slot in slots if slot > self.floor)
        return told


def read_log(disk: Disk, indexes: list[int], floor: int) -> LogState:
    """What the segments of these indexes say, without the entries at or below slot `floor`."""
    state = LogState(floor=floor)
    if not indexes:
        state.rot = "its log is gone"
        return state
    for index, following in itertools.pairwise(indexes):
        if following != index + 1:
            state.rot = f"the file {segment_name(index + 1)} is missing"
            return state
    _Reader(disk, indexes, state).read()
    return state


def load_segment(disk: Disk, index: int) -> bytes:
    file = disk.open(segment_name(index))
    try:
        file.forget_cached()  # after a sync that failed, the cache shows what the disk never got
        return file.read(0, file.size() // SECTOR * SECTOR)
    finally:
        file.close()


class _Reader:
    def __init__(self, disk: Disk, indexes: list[int], state: LogState) -> None:
        self._disk = disk
        self._rest = indexes
        self._state = state

    def read(self) -> None:
        """From the first segment to the end of the log, then judges what stands there."""
        state = self._state
        index = self._rest.pop(0)
        data = load_segment(self._disk, index)
        if index != FIRST_INDEX:
            index, data = self._pass_replaced(index, data)
            # Older segments are dropped only when a younger one holds something durable, so it cannot be torn.
            opening = batches.read(data, 0)
            # Nor may it be another segment's: the log would begin there, and all before it would be forgotten.
            if opening is None or opening.header.segment != index:
                state.rot = f"{segment_name(index)} is damaged at its beginning"
                return
            state.number, state.chain = opening.header.number - 1, opening.header.previous
        self._follow(index, data)
        if index != FIRST_INDEX and self._holds_older(data):
            state.rot = f"{segment_name(index)} is damaged at its beginning"
            return
        while True:
            continuation = self._find_continuation()
            if continuation is None:
                self._judge_end(index, data)
                return
            index, data = continuation
            self._follow(index, data)

    def _pass_replaced(self, index: int, data: bytes) -> tuple[int, bytes]:
        """The first segment that counts. A doubtful batch may have opened its segment, and was replaced by the one that
        opens the next (mending.py); when a drop of old segments was cut short, just that one can be the oldest.

        It is known by what has survived of its header, and holds nothing but sectors of that number. One that is
        damaged and counts holds lower numbers than the next.
        """
        while self._rest and batches.read(data, 0) is None:
            following = load_segment(self._disk, self._rest[0])
            opening = batches.read(following, 0)
            if opening is None or opening.header.segment != self._rest[0]:
                break
            number, previous = opening.header.number, opening.header.previous
            _, header = batches.judge(data, 0, number)
            if header is None or (header.segment, header.previous) != (index, previous):
                break  # a sector of the next segment may have landed here
            if any(batches.stamp_at(data, at) != number for at in batches.reached(data)):
                break
            self._state.segments.append(Segment(index, 0))
            index, data = self._rest.pop(0), following
        return index, data

    def _holds_older(self, data: bytes) -> bool:
        """Whether batches follow that are older than the last before them: then a later one stands at the beginning.
        An older sector within the batch that comes next has damaged that one alone, and it was replaced.
        """
        state = self._state
        _, header = batches.judge(data, state.position, state.number + 1)
        start = state.position
        if header is not None and header.previous == state.chain:
            start += header.sectors * SECTOR
        return any(0 < batches.stamp_at(data, at) <= state.number for at in range(start, len(data), SECTOR))

    def _follow(self, index: int, data: bytes) -> None:
        state = self._state
        segment = Segment(index, len(data))
        state.segments.append(segment)
        state.position = 0
        while (batch := self._wanted_batch(index, data, state.position)) is not None:
            header = batch.header
            end = state.position + header.sectors * SECTOR
            state.number, state.chain = header.number, header.chain
            state.keep(header, decode_all(batch.body))
            state.last_batch = (state.position, data[state.position : end])
            segment.last_slot = max(segment.last_slot, header.last)
            segment.used = state.position = end

    def _wanted_batch(self, index: int, data: bytes, position: int) -> Batch | None:
        batch = batches.read(data, position)
        if batch is None:
            return None
        header = batch.header
        place = (header.number, header.previous, header.segment)
        return batch if place == (self._state.number + 1, self._state.chain, index) else None

    def _find_continuation(self) -> tuple[int, bytes] | None:
        """The later segment that opens with the batch we want, if there is one.

        What is passed over holds a last batch that was doubtful, and was replaced; it is dropped in its turn.
        """
        for skipped, index in enumerate(self._rest):
            data = load_segment(self._disk, index)
            if self._wanted_batch(index, data, 0) is not None:
                last_slot = self._state.segments[-1].last_slot
                self._state.segments += [Segment(passed, 0, last_slot) for passed in self._rest[:skipped]]
                del self._rest[: skipped + 1]
                return index, data
        return None

    def _judge_end(self, index: int, data: bytes) -> None:
        """Judges the batch that was wanted and not found. It may stand where the log ends, or open a later segment."""
        state = self._state
        wanted = state.number + 1
        reached: tuple[int, bytes, int] | None = None
        others: list[tuple[int, int, int]] = []
        for place in self._places(index, data):
            place_index, place_data, position = place
            for at in range(position, len(place_data), SECTOR):
                if batches.is_blank(place_data, at):
                    continue
                if at == position and reached is None:
                    reached = place
                stamp = batches.stamp_at(place_data, at)
                if stamp != wanted:
                    others.append((place_index, at, stamp))
        verdict, header = batches.judge(reached[1], reached[2], wanted) if reached is not None else (Verdict.TORN, None)
        if header is not None and (reached is None or (header.previous, header.segment) != (state.chain, reached[0])):
            state.rot = f"{segment_name(index)} is followed by what another log holds"
        elif _was_durable(wanted, others, reached, header):
            state.rot = f"batch {wanted} of its log was durable and cannot be read in {segment_name(index)}"
        elif verdict is Verdict.ROT:
            assert reached is not None
            where = f"number {wanted}, in {segment_name(reached[0])}"
            state.rot = f"the last batch of its log ({where}) does not even tell any more what it promised"
        elif verdict is Verdict.DOUBTFUL:
            assert reached is not None
            assert header is not None
            state.lost = self._salvage(reached[0], header, batches.salvage(reached[1], reached[2], header))
        # What is torn was never acknowledged: as if it had not been written.

    def _places(self, index: int, data: bytes) -> Iterator[tuple[int, bytes, int]]:
        yield index, data, self._state.position
        for later in self._rest:
            yield later, load_segment(self._disk, later), 0

    def _salvage(self, index: int, header: Header, body: bytes) -> Lost:
        # Each slot stands in a batch at most once, so a record that is whole is the slot's last word whatever follows
        # it.
        state = self._state
        told = state.keep(header, decode_all(body))
        slots = range(header.first, header.last + 1) if header.last else range(0)
        state.doubtful.update(slot for slot in slots if slot not in told and slot > state.floor)
        doubted = sorted(state.doubtful.intersection(slots))
        saved = [state.entries[slot] for slot in sorted(told - state.doubtful) if slot > state.floor]
        return Lost(index, header, saved, doubted)


def _was_durable(
    wanted: int, others: list[tuple[int, int, int]], reached: tuple[int, bytes, int] | None, header: Header | None
) -> bool:
    """Whether something was written after batch `wanted`: `others` are the sectors that are not stamped as its own.

    Where its extent is known, anything beyond it was. Else (a power cut may have left any part of it) a later stamp
    must say so.
    """
    if reached is None or header is None:
        return any(stamp > wanted for _, _, stamp in others)
    index, _, position = reached
    extent = range(position, position + header.sectors * SECTOR)
    return any(not (other == index and at in extent) for other, at, _ in others)
