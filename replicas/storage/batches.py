# SPDX-License-Identifier: Apache-2.0
"""One batch of the log as sectors, and how one that cannot be read is judged. The only home of the log's layout.

A batch is what one sync makes durable. It fills whole sectors, and each sector opens with a stamp that holds the
batch's number; what is left of them carries, as one stream,

    header | records | zeros | header again

The header stands at both ends so that one bad sector cannot take with it what was promised and which slots were
written. Its mark says which batch was durable before this one was written (one batch at a time is under way, so: the
one before), and its chain is a hash over the chain before it and all of the batch, so a batch follows one predecessor
only.

Segments are zeroed before use, so a sector of nothing but zeros is one that no batch has reached. From this follows the
judgement of a batch that cannot be read:

    a later batch exists anywhere      its mark says that this one was durable: rot
    some sector of it is zeros         it was cut short by the end of the machine, and never acknowledged: torn
    every sector has been written      it may have been acknowledged: doubtful, for the slots its header names
    ... and neither header is left     nobody can say what it promised: rot
"""

from __future__ import annotations

import enum
import hashlib
import itertools
import struct
from typing import Final, NamedTuple
from zlib import crc32

from replicas.storage.files import SECTOR

STAMP_BYTES: Final = 8
ROOM: Final = SECTOR - STAMP_BYTES
"""What a sector holds beside its stamp."""

CHAIN_BYTES: Final = 16
CHAIN_START: Final = bytes(CHAIN_BYTES)

_STAMP: Final = struct.Struct(">Q")
_STAMP_MARK: Final = 0xD7EB << 48  # never zero, so that a stamped sector cannot be taken for an unreached one
_NUMBER_MAX: Final = (1 << 48) - 1

_MAGIC: Final = b"dtB1"
_FIELDS: Final = struct.Struct(f">4sQQQIIQQQQQ{CHAIN_BYTES}s")
_CRC: Final = struct.Struct(">I")
HEADER_BYTES: Final = _FIELDS.size + CHAIN_BYTES + _CRC.size

BATCH_BYTES_MAX: Final = 1 << 30
"""More than this was never written: a length above it is damage, not a reason to take memory."""

_ZEROS: Final = bytes(SECTOR)


class Header(NamedTuple):
    """What each end of a batch says.

    `promised` and `chosen` are the highest of all records up to the end of this batch. `first` and `last` bound the
    slots that it writes, 0 and 0 when it writes none.
    """

    number: int
    mark: int
    segment: int
    sectors: int
    length: int
    promised: tuple[int, int]
    chosen: int
    first: int
    last: int
    previous: bytes
    chain: bytes


class Batch(NamedTuple):
    """One batch that was read and is whole."""

    header: Header
    body: bytes


class Verdict(enum.Enum):
    TORN = enum.auto()
    DOUBTFUL = enum.auto()
    ROT = enum.auto()


def sectors_for(body_length: int) -> int:
    return -(-(2 * HEADER_BYTES + body_length) // ROOM)


def batch_bytes(body_length: int) -> int:
    """How much of a segment a batch with such a body takes."""
    return sectors_for(body_length) * SECTOR


def encode(
    body: bytes,
    *,
    number: int,
    segment: int,
    promised: tuple[int, int],
    chosen: int,
    first: int,
    last: int,
    previous: bytes,
) -> tuple[bytes, bytes]:
    """The batch's sectors and its chain."""
    assert 0 < number <= _NUMBER_MAX
    assert len(body) <= BATCH_BYTES_MAX
    sectors = sectors_for(len(body))
    length = len(body)
    fields = _FIELDS.pack(
        _MAGIC, number, number - 1, segment, sectors, length, *promised, chosen, first, last, previous
    )
    padded = body + bytes(sectors * ROOM - 2 * HEADER_BYTES - length)
    chain = _chain(fields, padded)
    head = fields + chain
    head += _CRC.pack(crc32(head))
    stream = head + padded + head
    stamp = _STAMP.pack(_STAMP_MARK | number)
    if sectors == 1:
        return stamp + stream, chain
    return stamp + stamp.join([stream[at : at + ROOM] for at in range(0, len(stream), ROOM)]), chain


def read(data: bytes, position: int) -> Batch | None:
    """The whole, undamaged batch that begins at `position`, if there is one. Its place in the log is the caller's to
    check.
    """
    header = header_at(data, position)
    if header is None:
        return None
    end = position + header.sectors * SECTOR
    if end > len(data):
        return None
    stamp = _STAMP.pack(_STAMP_MARK | header.number)
    starts = range(position, end, SECTOR)
    if any(data[at : at + STAMP_BYTES] != stamp for at in starts):
        return None
    stream = b"".join([data[at + STAMP_BYTES : at + SECTOR] for at in starts])
    if stream[:HEADER_BYTES] != stream[-HEADER_BYTES:]:
        return None
    padded = stream[HEADER_BYTES:-HEADER_BYTES]
    if _chain(stream[: _FIELDS.size], padded) != header.chain:
        return None
    return Batch(header, padded[: header.length])


def header_at(data: bytes, position: int) -> Header | None:
    """The header in the sector at `position`, as a batch's first sector holds it."""
    return _parse(data[position + STAMP_BYTES : position + STAMP_BYTES + HEADER_BYTES])


def trailer_at(data: bytes, position: int) -> Header | None:
    """The header in the sector at `position`, as a batch's last sector holds it."""
    return _parse(data[position + SECTOR - HEADER_BYTES : position + SECTOR])


def is_blank(data: bytes, position: int) -> bool:
    """Whether no batch has reached the sector at `position`."""
    return data[position : position + SECTOR] == _ZEROS


def reached(data: bytes) -> list[int]:
    """Where sectors are that hold anything."""
    return [at for at in range(0, len(data), SECTOR) if not is_blank(data, at)]


def stamp_at(data: bytes, position: int) -> int:
    """The batch's number that the sector at `position` is stamped with; 0 if that is no stamp.

    Stamps are ours alone: no value of a user's, whatever it looks like, ever reaches these bytes.
    """
    (stamp,) = _STAMP.unpack_from(data, position)
    number: int = stamp & _NUMBER_MAX
    return number if stamp - number == _STAMP_MARK else 0


def judge(data: bytes, position: int, number: int) -> tuple[Verdict, Header | None]:
    """What batch `number`, which should begin at `position` and cannot be read, was. Nothing later than it exists."""
    header = _surviving_header(data, position, number)
    if header is not None:
        end = position + header.sectors * SECTOR
        torn = any(is_blank(data, at) for at in range(position, end, SECTOR))
        return (Verdict.TORN if torn else Verdict.DOUBTFUL), header
    # With its first sector unreached it is torn wherever it ended. Else its last one must be there, and is not to be
    # found: either it is unreached, and the first is damaged besides, or both are damaged; what was promised is lost in
    # both.
    return (Verdict.TORN if is_blank(data, position) else Verdict.ROT), None


def salvage(data: bytes, position: int, header: Header) -> bytes:
    """The body of a batch that is damaged, up to the first sector that is not its own.

    Its records vouch for themselves, one by one, but not for their place: in another batch's sector stands what a slot
    held before.
    """
    starts = range(position, position + header.sectors * SECTOR, SECTOR)
    own = itertools.takewhile(lambda at: stamp_at(data, at) == header.number, starts)
    stream = b"".join([data[at + STAMP_BYTES : at + SECTOR] for at in own])
    return stream[HEADER_BYTES : HEADER_BYTES + header.length]


def _surviving_header(data: bytes, position: int, number: int) -> Header | None:
    header = header_at(data, position)
    if header is not None and header.number == number and position + header.sectors * SECTOR <= len(data):
        return header
    # Backwards: whatever a user's value looks like, the batch's true end is the last thing that was written.
    for at in range(len(data) - SECTOR, position - 1, -SECTOR):
        header = trailer_at(data, at)
        if header is not None and header.number == number and at + SECTOR - header.sectors * SECTOR == position:
            return header
    return None


def _parse(raw: bytes) -> Header | None:
    if len(raw) != HEADER_BYTES or not raw.startswith(_MAGIC):
        return None
    (crc,) = _CRC.unpack_from(raw, HEADER_BYTES - _CRC.size)
    if crc32(raw[: -_CRC.size]) != crc:
        return None
    _, number, mark, segment, sectors, length, *promise, chosen, first, last, previous = _FIELDS.unpack_from(raw)
    if mark != number - 1 or length > BATCH_BYTES_MAX or sectors != sectors_for(length):
        return None
    chain = raw[_FIELDS.size : _FIELDS.size + CHAIN_BYTES]
    promised = (promise[0], promise[1])
    return Header(number, mark, segment, sectors, length, promised, chosen, first, last, previous, chain)


def _chain(fields: bytes, padded: bytes) -> bytes:
    digest = hashlib.blake2b(fields, digest_size=CHAIN_BYTES)
    digest.update(padded)
    return digest.digest()
