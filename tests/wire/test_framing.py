# SPDX-License-Identifier: Apache-2.0
"""Frames survive any cutting of the stream, and a bad length costs nothing."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dthreading.errors import ProtocolError
from dthreading.wire.framing import FrameDecoder, frame


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.lists(st.integers(1, 40), max_size=30))
def test_frames_survive_any_cutting(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(frame(body) for body in bodies)
    decoder = FrameDecoder()
    got: list[bytes] = []
    position = 0
    for cut in [*cuts, len(stream)]:
        got += decoder.feed(stream[position : position + cut])
        position += cut
    assert got == bodies
    assert decoder.partial == 0


@pytest.mark.parametrize("size", [0, 101, 2**32 - 1])
def test_a_bad_length_is_refused_on_the_prefix(size: int) -> None:
    decoder = FrameDecoder(body_bytes_max=100)
    with pytest.raises(ProtocolError, match="a frame of"):
        decoder.feed(struct.pack(">I", size))
    with pytest.raises(ProtocolError):
        decoder.feed(b"anything")


def test_what_came_whole_before_a_bad_length_is_still_given() -> None:
    """A client's last good call is not lost because garbage followed it in the same read."""
    decoder = FrameDecoder(body_bytes_max=100)
    assert decoder.feed(frame(b"good") + struct.pack(">I", 0)) == [b"good"]
    assert decoder.broken is not None
    with pytest.raises(ProtocolError):
        decoder.feed(b"")
