# SPDX-License-Identifier: Apache-2.0
"""Frames that are made to hurt: small on the wire, and large, deep or endless for whoever unpacks them naively.

What they cost is counted in bytes by tracemalloc, never in seconds. The fuzzers beside this file look for more of them;
what they find is kept here by name.
"""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest

from dthreading.errors import LimitExceeded, ProtocolError
from dthreading.wire import codec, limits, messages
from dthreading.wire.auth import Acceptor
from tests.tracing import traced

HUGE = msgpack.ExtType(1, b"\x7f" * 1900)
"""An int of 4,577 digits, in less than a stranger's frame: Python refuses to write it as text."""

ARRAY_16, ARRAY_32 = b"\xdc\xff\xff", b"\xdd\x00\x01\x00\x00"


def peak_of(body: bytes) -> int:
    """The most memory that decoding the body took."""
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            codec.decode(body)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_tag_with_thousands_of_digits_is_a_protocol_error() -> None:
    """A stranger may send this: anything but ProtocolError would end the replica."""
    with pytest.raises(ProtocolError):
        codec.decode(msgpack.packb([HUGE]))


@pytest.mark.parametrize("place", [1, 2])
def test_a_greeting_with_thousands_of_digits_is_a_protocol_error(place: int) -> None:
    """Its version and its role are named in what is said about them."""
    hello: list[Any] = [1, messages.PROTOCOL_MAGIC, messages.PROTOCOL_VERSION, 0, b"n" * 16]
    hello[place + 1] = HUGE
    with pytest.raises(ProtocolError):
        Acceptor(b"s" * 32, b"n" * 16).step(codec.decode(msgpack.packb(hello)))


@pytest.mark.parametrize("head", [ARRAY_16, ARRAY_32], ids=["16", "32"])
def test_arrays_within_arrays_cost_a_stranger_no_memory_of_ours(head: bytes) -> None:
    """msgpack makes room for what an array claims before it reads it."""
    body = head * (limits.HANDSHAKE_FRAME_BYTES_MAX // len(head))
    assert peak_of(body) < 1_000_000


@pytest.mark.parametrize("size", [100, 510, 513, 1000, 60_000, 70_000])
@pytest.mark.parametrize("head", [ARRAY_16, ARRAY_32, b"\xdc\x01\xf0", b"\x91"], ids=["16", "32", "496", "one"])
def test_arrays_within_arrays_cost_little_at_any_length(head: bytes, size: int) -> None:
    assert peak_of(head * (size // len(head))) < 2_000_000 + 20 * size


@pytest.mark.parametrize(
    "unit", [b"\xdc\xff\xff", b"\x91", b"\x81\xa0", b"\x80", b"\xc4\x00", b"\xcd\x01\x01", b"\xc7\x00\x01"], ids=repr
)
@pytest.mark.parametrize("size", [300, 3000, 100_000])
def test_a_frame_takes_no_more_steps_than_it_has_bytes(unit: bytes, size: int) -> None:
    """Lines of ours that run for it, counted: each byte may cost a few, however the frame is made."""
    body = ARRAY_32 + unit * (size // len(unit))
    lines = 0

    def count(frame: Any, event: str, argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    with traced(count), pytest.raises(ProtocolError):
        codec.decode(body)
    assert lines < 15 * len(body) + 100


def test_few_long_arrays_with_much_behind_them_cost_little() -> None:
    """As many as pass uncounted."""
    assert peak_of(ARRAY_32 * 16 + bytes(4000)) < 20_000_000
    assert peak_of(ARRAY_16 * 16 + bytes(60_000)) < 20_000_000


@pytest.mark.parametrize("filling", [b"\x80", b"\x81\xa0\xc0", b"\x91\x90"], ids=repr)
def test_a_million_tiny_values_are_refused_before_they_are_made(
    filling: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty map is one byte on the wire and seventy here: one frame of 16 MB was more than a gigabyte."""
    monkeypatch.setattr(codec, "unpackb", lambda *_, **__: pytest.fail("it was unpacked"))
    row = ARRAY_32 + filling * 65_536
    with pytest.raises(ProtocolError, match="ELEMENTS_PER_FRAME_MAX"):
        codec.decode(b"\x92\x0f\xdc\x00\x10" + row * 16)


def test_a_frame_as_full_as_allowed_comes_through() -> None:
    """As many answers as a session has lanes, in one Acknowledge."""
    most = messages.Acknowledge(2**63, tuple((lane, 2**63) for lane in range(limits.LANES_PER_SESSION_MAX)))
    assert codec.decode(codec.encode(most)) == most


def test_the_largest_int_of_a_call_is_refused_by_name_before_it_is_sent() -> None:
    """Replicas take no larger one, and a call that they refuse would be sent again for ever."""
    largest = 2 ** (8 * limits.INT_BYTES_MAX - 1) - 1
    call = messages.Call(1, 1, 1, 1, "put", (largest, -largest), False)
    body = codec.encode(call)
    assert codec.pack_call((15, *call)) == body
    assert codec.decode(body) == call
    assert len(str(largest)) < 640, "the least that Python can be told to write"
    for beyond in (largest + 1, -largest - 1, 10**5000):
        with pytest.raises(LimitExceeded, match="INT_BYTES_MAX"):
            codec.pack_call((15, *call._replace(arguments=(beyond,))))
    with pytest.raises(ProtocolError):
        codec.decode(codec.encode(call._replace(arguments=(largest**2,))))


def test_what_replicas_add_up_is_still_read() -> None:
    """A semaphore's value may be more than any one release gave."""
    sum_of_many = 2 ** (8 * limits.INT_BYTES_MAX - 1) * 2**50
    reply = messages.Reply(1, 1, 0, sum_of_many)
    assert codec.decode(codec.encode(reply)) == reply


def test_memory_that_ran_out_is_not_the_frame_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that skipped a command for it would have another state than the others; so it must end instead."""

    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(codec, "unpackb", exhausted)
    for size in (1, 10_000):
        with pytest.raises(MemoryError):
            codec.decode(bytes(size))
