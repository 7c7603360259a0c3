# SPDX-License-Identifier: Apache-2.0
"""Items <-> bytes: every type comes back as itself, and msgpack is used only where it keeps types."""

import collections
import datetime as dt
import enum
import functools
import math
import pickle
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as some

from dthreading.errors import LimitExceeded
from dthreading.wire import values
from dthreading.wire.values import PICKLED, PLAIN, decode_item, encode_item, priority_of


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


class Point(NamedTuple):
    x: int
    y: int


plain = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text() | some.binary(),
    lambda inner: some.lists(inner) | some.tuples(inner, inner) | some.dictionaries(some.text(), inner),
    max_leaves=10,
)


def same(one, other):
    """Equal, and of the very same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(same, one.values(), other.values()))
    return one == other


@given(plain)
def test_plain_values_come_back_as_they_are(item):
    """A list is no tuple, True is no 1, and any int fits."""
    assert same(decode_item(encode_item(item)), item)


DEEP = functools.reduce(lambda inner, _: [inner], range(20), [])


@pytest.mark.parametrize(
    "item",
    [
        Colour.RED,
        Text("x"),
        Point(1, 2),
        bytearray(b"x"),
        [bytearray(b"x")],
        {1, 2},
        1j,
        range(3),
        "\ud800",
        ["\udfff"],
        dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        {(1, 2): 3},
        collections.OrderedDict(a=1),
        DEEP,
        list(range(1000)),
    ],
    ids=lambda item: type(item).__name__,
)
def test_what_msgpack_would_change_is_pickled(item):
    """Decided by `type() is`: msgpack alone takes an IntEnum for an int and a bytearray for bytes."""
    body = encode_item(item)
    assert body[:1] == PICKLED
    assert same(decode_item(body), item)


@pytest.mark.parametrize("item", [None, 1, "x", [1, (2, {"a": b"b"})], 2**64, -(2**100), {1: 2, None: 3}], ids=repr)
def test_what_msgpack_keeps_is_not_pickled(item):
    """Other programs can read it, and nobody has to load a pickle for it."""
    body = encode_item(item)
    assert body[:1] == PLAIN
    assert same(decode_item(body), item)


def test_what_occurs_twice_stays_one_object():
    """As in pickle: `[x, x]` has one list in it on the other side, too."""
    twice = [[]] * 2
    out = decode_item(encode_item(twice))
    assert out[0] is out[1]
    twice.append(twice)
    out = decode_item(encode_item(twice))
    assert out[2] is out


def test_not_a_number_is_an_item():
    assert math.isnan(decode_item(encode_item([math.nan]))[0])


def test_the_limit_is_named(monkeypatch):
    monkeypatch.setattr(values, "ITEM_BYTES_MAX", 10)
    with pytest.raises(LimitExceeded, match="ITEM_BYTES_MAX"):
        encode_item(b"12345678901")


def test_bytes_of_a_newer_version_are_refused():
    with pytest.raises(TypeError, match="newer version"):
        decode_item(b"?")


def test_pickle_protocol_is_one_that_all_our_versions_know():
    """A queue is shared by programs on different versions."""
    assert encode_item({1})[1:3] == b"\x80\x05"
    assert pickle.HIGHEST_PROTOCOL >= 5


@given(some.lists(some.integers() | some.floats(allow_nan=False), min_size=1))
def test_plain_priorities_are_themselves(items):
    assert priority_of(tuple(items)) == tuple(items)


@pytest.mark.parametrize(
    ("item", "priority"),
    [
        ((1, {}), (1,)),
        ((1, (2, {}, 3), 4), (1, (2,))),
        ((1, None, 2), (1,)),
        ((1, ({}, 2)), (1,)),
        ((1, ()), (1, ())),
        (Point(1, 2), (1, 2)),
        (Colour.RED, 1),
        (True, True),
        ((), ()),
    ],
)
def test_the_longest_prefix_counts(item, priority):
    assert same(priority_of(item), priority)


DAY = dt.date(2020, 1, 1)


@pytest.mark.parametrize("item", [DAY, (DAY, "job"), [(DAY,)], ((DAY, 1), "job")])
def test_what_cannot_be_ordered_is_named_itself(item):
    """That a tuple cannot be compared would be untrue, and would not say which of its fields to change. Nor is it taken
    in silence, in no order, because it stands one tuple deeper.
    """
    with pytest.raises(TypeError, match="cannot order by a date: "):
        priority_of(item)
