# SPDX-License-Identifier: Apache-2.0
"""Mends the end of a log that was read, so that it can be added to. The only writing that is not append, drop or
snapshot.

What was read is made durable first: the process before this one may have ended between the write and the end of the
sync, and a sync that failed can have left the system believing that the disk has what it has not.

A torn end is zeroed again, so that "zeros" goes on meaning "unreached". A doubtful batch is left where it stands: a new
segment opens with a batch of the same number, which holds what can be saved of it and says which slots are in doubt,
and the log goes on there. Either can be cut short anywhere, and is then simply done anew at the next start.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from replicas.storage import batches
from replicas.storage.files import SECTOR, Disk, File
from replicas.storage.records import Doubtful, encode_doubtful, encode_entry
from replicas.storage.recovery import LogState, load_segment
from replicas.storage.segments import Segment, SegmentMaker, segment_indexes, segment_name


def mend(disk: Disk, state: LogState, segment_bytes: int) -> tuple[File, SegmentMaker]:
    """Makes `state` true of the disk. Returns the segment to append to and the maker of the next."""
    assert state.rot is None
    segment = state.segments[-1]
    file = disk.open(segment.name)
    position, sectors = state.last_batch
    if sectors:
        file.write_durable(position, sectors)
    if state.lost is not None:
        file.close()
        _remove_after(disk, state.lost.index)
        maker = SegmentMaker(disk, segment_bytes, state.lost.index + 1)
        return _replace_doubtful(state, maker), maker
    _blank(file, state.position)
    return file, _maker_after(disk, segment, segment_bytes)


def _blank(file: File, position: int) -> None:
    """Zeroes again whatever was reached from `position` on."""
    data = file.read(position, file.size() - position)
    sectors = batches.reached(data)
    for at in sectors:
        file.write(position + at, bytes(SECTOR))
    if sectors:
        file.sync()


def _maker_after(disk: Disk, segment: Segment, segment_bytes: int) -> SegmentMaker:
    maker = SegmentMaker(disk, segment_bytes, segment.index + 1)
    ahead = segment.index + 1
    if ahead in segment_indexes(disk.names()):
        data = load_segment(disk, ahead)
        if len(data) >= segment_bytes and not data.strip(b"\0"):
            _remove_after(disk, ahead)
            maker.adopt(disk.open(segment_name(ahead)))
            return maker
        _remove_after(disk, segment.index)
    return maker


def _remove_after(disk: Disk, index: int) -> None:
    """Removes the later segments, the youngest first and each for good, so that no gap can ever appear."""
    for later in reversed(segment_indexes(disk.names())):
        if later > index:
            disk.remove(segment_name(later))
            disk.sync()


def _replace_doubtful(state: LogState, maker: SegmentMaker) -> File:
    lost = state.lost
    assert lost is not None
    saved = [encode_entry(entry) for entry in lost.saved]
    body = b"".join([*saved, *(encode_doubtful(record) for record in _ranges(lost.doubted))])
    sectors, chain = batches.encode(
        body,
        number=state.number + 1,
        segment=lost.index + 1,
        promised=state.promised,
        chosen=state.chosen,
        first=lost.header.first,
        last=lost.header.last,
        previous=state.chain,
    )
    segment, file = maker.take(len(sectors))
    assert segment.index == lost.index + 1
    file.write_durable(0, sectors)
    segment.last_slot = lost.header.last
    segment.used = state.position = len(sectors)
    last_slot = state.segments[-1].last_slot
    passed = range(state.segments[-1].index + 1, segment.index)
    state.segments += [*(Segment(index, 0, last_slot) for index in passed), segment]
    state.number, state.chain, state.last_batch, state.lost = state.number + 1, chain, (0, sectors), None
    return file


def _ranges(slots: list[int]) -> Iterator[Doubtful]:
    for _, run in groupby(enumerate(slots), lambda pair: pair[1] - pair[0]):
        members = [slot for _, slot in run]
        yield Doubtful(members[0], members[-1])
