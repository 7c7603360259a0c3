# SPDX-License-Identifier: Apache-2.0
"""The border of the wire: whatever comes in, either a well-formed message or the one ProtocolError."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dthreading.errors import ProtocolError
from dthreading.wire import codec, limits, messages
from dthreading.wire.codec import Codec

_plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=10,
)
_id = st.integers(min_value=0, max_value=2**63)


@given(_id, _id, _id, _id, st.text(max_size=30), st.lists(_plain, max_size=5).map(tuple), st.booleans())
def test_a_call_comes_back_as_it_was(session, lane, number, handle, operation, arguments, tell) -> None:
    """Exact types too: a tuple stays a tuple and an int of any size an int."""
    call = messages.Call(session, lane, number, handle, operation, arguments, tell)
    back = codec.decode(codec.encode(call))
    assert back == call
    assert type(back) is messages.Call


@given(st.binary(max_size=200))
def test_random_bytes_raise_protocol_error_only(body: bytes) -> None:
    try:
        codec.decode(body)
    except ProtocolError:
        return


@given(st.sampled_from(sorted(codec.TAGS)), st.lists(_plain, max_size=9))
def test_right_tags_with_wrong_fields_raise_protocol_error_only(tag: int, fields: list[Any]) -> None:
    try:
        codec.decode(codec.pack((tag, *fields)))
    except ProtocolError:
        return


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc0",
        msgpack.packb([]),
        msgpack.packb([99]),
        msgpack.packb(["15"]),
        msgpack.packb([True, 1]),
        msgpack.packb([20, 1]),
        msgpack.packb([20, 1, 2, 3]),
        msgpack.packb([20, 1, True]),
        msgpack.packb([20, 1, 2]) + b"\x00",
        msgpack.packb([12, 1.0]),
        msgpack.packb([17, 1, [[1, "x"]]]),
        msgpack.packb([33, 1, 1, 0, msgpack.ExtType(7, b"x")]),
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 3000,
    ],
)
def test_malformed_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        codec.decode(body)


def test_deep_nesting_is_refused_at_the_border() -> None:
    """Deeper values would meet the interpreter's recursion limit inside apply, at another depth on each replica."""
    value: Any = ()
    for _ in range(limits.NESTING_MAX + 1):
        value = (value,)
    body = codec.encode(messages.Call(1, 1, 1, 1, "put", (value,), False))
    with pytest.raises(ProtocolError, match="nested"):
        codec.decode(body)


def test_an_unencodable_value_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="object cannot travel"):
        codec.encode(messages.Call(1, 1, 1, 1, "put", (object(),), False))


class _Inner(NamedTuple):
    round: int
    name: str


class _Outer(NamedTuple):
    inner: _Inner
    many: tuple[_Inner, ...]
    pair: tuple[int, bytes]


def test_nested_messages_are_checked_and_rebuilt() -> None:
    nested: Codec[_Outer] = Codec({1: _Outer})
    outer = _Outer(_Inner(1, "a"), (_Inner(2, "b"), _Inner(3, "c")), (4, b"d"))
    back = nested.decode(nested.encode(outer))
    assert back == outer
    assert type(back.many[1]) is _Inner
    for wrong in ((1, (1, 2), (), (4, b"")), (1, (1, "a"), ((1,),), (4, b"")), (1, (1, "a"), (), (4,))):
        with pytest.raises(ProtocolError):
            nested.decode(codec.pack(wrong))
