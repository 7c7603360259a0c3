# SPDX-License-Identifier: Apache-2.0
"""What a frame would cost to unpack, counted from its heads alone: the guard of our memory against frames that are
small on the wire and huge once unpacked.

msgpack takes room for an array as soon as it has read how long that claims to be, so arrays within arrays, each three
bytes long, took twenty thousand times their size, from strangers too; and an empty map is one byte there and seventy
here. So a frame in which many arrays say their length, and any large one, is walked through first. Nothing is unpacked
in here, and what this lets pass is still msgpack's to judge.
"""

from __future__ import annotations

from typing import Final

from dthreading.errors import ProtocolError
from dthreading.wire.limits import ELEMENTS_PER_FRAME_MAX

__all__ = ["LONG_ARRAYS_MAX", "SHORT_BYTES", "is_suspect", "survey"]

SHORT_BYTES: Final = 512
"""A frame up to here may be unpacked unseen if no array is longer: nested as deep as they go they take half a megabyte.
Nearly all frames are shorter, and pay nothing for this file."""

LARGE_BYTES: Final = 64 * 1024
"""A frame above it is always walked through; one below it takes a few megabytes, whatever it is made of."""

LONG_ARRAYS_MAX: Final = 16
"""So many times a frame may hold the first byte of a long array, in an item's bytes perhaps, before we look closer."""


def _size_of_fixed(head: int) -> int:
    """How many bytes follow this head where the head itself says it; -1 where a length follows, or elements do."""
    if 0xA0 <= head <= 0xBF:
        return head - 0xA0
    sizes = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
    sizes |= {0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
    if head in sizes:
        return sizes[head]
    return 0 if head <= 0x7F or head >= 0xE0 or head in {0xC0, 0xC1, 0xC2, 0xC3} else -1


_FIXED: Final = tuple(map(_size_of_fixed, range(256)))

_BYTES: Final = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1), 0xD9: (1, 0), 0xDA: (2, 0),
    0xDB: (4, 0),
}  # fmt: skip
"""Heads of bytes, strings and extensions: how long their length is, and how many bytes come besides what it counts."""

_CONTAINERS: Final = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""Heads of arrays and maps: how long their length is, and how many elements one of it stands for."""


def is_suspect(body: bytes) -> bool:
    """Whether a frame above SHORT_BYTES is to be walked through: counting two bytes costs less than that."""
    return len(body) > LARGE_BYTES or body.count(b"\xdc") + body.count(b"\xdd") > LONG_ARRAYS_MAX


def survey(body: bytes, most: int = ELEMENTS_PER_FRAME_MAX) -> None:
    """Walks over the frame without unpacking it. `most` elements may it have.

    Raises:
        ProtocolError: its containers claim more elements than it has bytes, or hold too many altogether.

    """
    at, end = 0, len(body)
    pending, seen = 1, 0
    while pending:
        # Each element takes a byte at least, so what all containers around this place claim never exceeds the frame.
        if pending > end - at:
            raise ProtocolError("its containers are longer than itself")
        head = body[at]
        at += 1
        pending -= 1
        size = _FIXED[head]
        if size >= 0:
            at += size
        elif head in _BYTES:
            width, more = _BYTES[head]
            at += width + more + int.from_bytes(body[at : at + width], "big")
        else:
            if head in _CONTAINERS:
                width, each = _CONTAINERS[head]
                count = each * int.from_bytes(body[at : at + width], "big")
                at += width
            else:
                count = head - 0x90 if head >= 0x90 else 2 * (head - 0x80)
            pending += count
            seen += count
            if seen > most:
                raise ProtocolError(f"more than ELEMENTS_PER_FRAME_MAX = {most} elements")
