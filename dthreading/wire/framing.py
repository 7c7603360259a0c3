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
        buffer = self._buffer
        if not buffer and len(data) > 4:
            (size,) = _LENGTH.unpack_from(data)
            if size == len(data) - 4 and size <= self.body_bytes_max:
                return [bytes(data[4:])]  # one whole frame, as nearly always
        buffer += data
        bodies: list[bytes] = []
        position, end = 0, len(buffer)
        while end - position >= 4:
            (size,) = _LENGTH.unpack_from(buffer, position)
            if not 0 < size <= self.body_bytes_max:
                self._broken = f"a frame of {size} bytes; at most {self.body_bytes_max} are allowed here"
                if bodies:
                    # What came whole before the bad length was in order; the next call reports the rest.
                    break
                raise ProtocolError(self._broken)
            if end - position - 4 < size:
                break
            bodies.append(bytes(buffer[position + 4 : position + 4 + size]))
            position += 4 + size
        if position:
            del buffer[:position]
        return bodies

    @property
    def broken(self) -> str | None:
        """Why this stream can't go on, once a bad length was seen; check it after handling what `feed` returned."""
        return self._broken

    @property
    def partial(self) -> int:
        """Bytes of a frame that has begun and not ended."""
        return len(self._buffer)
