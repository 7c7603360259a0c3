# SPDX-License-Identifier: Apache-2.0
"""Where one frame ends and the next begins: four bytes of length, big-endian, before each body. Knows nothing of what
is inside.

A length is refused as soon as its four bytes are there, before the body is read or memory for it is taken.
"""

from __future__ import annotations

import struct
from typing import Final

from dthreading.errors import ProtocolError
from dthreading.wire.limits import FRAME_BYTES_MAX

__all__ = ["FrameDecoder", "frame"]

_LENGTH: Final = struct.Struct(">I")


def frame(body: bytes) -> bytes:
    """`body` with its length before it, ready for the socket."""
    size = len(body)
    assert 0 < size <= FRAME_BYTES_MAX, f"a frame of {size} bytes: the sender checks FRAME_BYTES_MAX first"
    return _LENGTH.pack(size) + body


class FrameDecoder:
    """Bytes in as they come, whole frame bodies out."""

    def __init__(self, body_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.body_bytes_max = body_bytes_max
        self._buffer = bytearray()
        self._broken: str | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Takes what a socket gave; returns the bodies that are complete now.

        Raises:
            ProtocolError: a length that is zero or above the limit. The connection is of no use after it.

        """
        if self._broken is not None:
            raise ProtocolError(self._broken)
        rest = self._buffer  # the beginning of a frame; nearly always there is none
        begun = bool(rest)
        if not begun and len(data) > 4:
            (size,) = _LENGTH.unpack_from(data)
            if size == len(data) - 4 and size <= self.body_bytes_max:
                return [bytes(data[4:])]  # one whole frame, as nearly always where there is little to do
        if begun:
            rest += data
            data = rest
        bodies: list[bytes] = []
        most, end = self.body_bytes_max, len(data)
        start = _LENGTH.size  # of the body
        while start <= end:
            (size,) = _LENGTH.unpack_from(data, start - 4)
            if not 0 < size <= most:
                self._broken = f"a frame of {size} bytes; at most {most} are allowed here"
                if bodies:
                    # What came whole before the bad length was in order; the next call reports the rest.
                    break
                raise ProtocolError(self._broken)
            after = start + size
            if after > end:
                break
            bodies.append(bytes(data[start:after]))
            start = after + 4
        if begun:
            del rest[: start - 4]
        elif start - 4 < end:
            rest += data[start - 4 :]
        return bodies

    @property
    def broken(self) -> str | None:
        """Why this stream can't go on, once a bad length was seen; check it after handling what `feed` returned."""
        return self._broken

    @property
    def partial(self) -> int:
        """Bytes of a frame that has begun and not ended."""
        return len(self._buffer)
