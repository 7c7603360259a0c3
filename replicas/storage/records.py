# SPDX-License-Identifier: Apache-2.0
"""One record of the log, to bytes and back. Which record counts, and whether a batch of them is whole, is decided
elsewhere.

    length of value | CRC32 of all else | type | entry kind | slot | ballot | value

A promise is no record: it stands in every batch's header (twice), so the newest batch alone tells what was promised.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple
from zlib import crc32

from replicas.paxos.types import Ballot, Entry

_HEAD: Final = struct.Struct(">IBBQQQ")
_CRC: Final = struct.Struct(">I")
_LAST: Final = struct.Struct(">Q")
HEAD_BYTES: Final = _HEAD.size + _CRC.size

_ACCEPTED: Final = 1
_DOUBTFUL: Final = 2


class Doubtful(NamedTuple):
    """Storage's own record: what was accepted in these slots (both ends count) is not known any more."""

    first: int
    last: int


Stored = Entry | Doubtful


def encode_entry(entry: Entry) -> bytes:
    slot, ballot, kind, value = entry
    head = _HEAD.pack(len(value), _ACCEPTED, kind, slot, ballot[0], ballot[1])
    return head + _CRC.pack(crc32(value, crc32(head))) + value


def encode_doubtful(record: Doubtful) -> bytes:
    head = _HEAD.pack(_LAST.size, _DOUBTFUL, 0, record.first, 0, 0)
    value = _LAST.pack(record.last)
    return head + _CRC.pack(crc32(value, crc32(head))) + value


def decode_all(body: bytes) -> Iterator[Stored]:
    """The records of a body, up to its end or the first one that is damaged: beyond that even lengths mean nothing."""
    position = 0
    while position + HEAD_BYTES <= len(body):
        length, type_, kind, slot, round_, replica = _HEAD.unpack_from(body, position)
        start = position + HEAD_BYTES
        end = start + length
        if end > len(body):
            return
        value = body[start:end]
        (crc,) = _CRC.unpack_from(body, start - _CRC.size)
        if crc32(value, crc32(body[position : start - _CRC.size])) != crc:
            return
        if type_ == _ACCEPTED:
            yield Entry(slot, Ballot(round_, replica), kind, value)
        elif type_ == _DOUBTFUL and length == _LAST.size:
            yield Doubtful(slot, _LAST.unpack(value)[0])
        else:
            return
        position = end


def encoded_bytes(record: Stored) -> int:
    """How long this record is in a body."""
    return HEAD_BYTES + (_LAST.size if isinstance(record, Doubtful) else len(record.value))
