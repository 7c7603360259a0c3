# SPDX-License-Identifier: Apache-2.0
"""What the fuzzers say: values and messages that follow the annotations of a class, or nearly do, and damaged bytes.

Everything is drawn from one `random.Random`, so a seed is a case; hypothesis (`st.randoms`) and a coverage-guided
fuzzer (fuzz.py) hand in one that they steer.
"""

from __future__ import annotations

import random
import struct
from typing import Any, get_args, get_origin, get_type_hints

import msgpack

from dthreading.wire import codec, limits

EDGES = (0, 1, 2, 3, 5, 127, 128, 255, 256, 2**16, 2**31, 2**32 - 1, 2**32, 2**48, 2**63 - 1, 2**63, 2**64 - 1, 2**64)
"""Ints at which something changes: a head of msgpack, a width of ours, a sign."""

HUGE = (2**127, 2**2047 - 1, 2**2047, 2**2111, 2**2112, 10**4400, -(2**2048), -(10**4400))
"""Beyond 64 bits, around INT_BYTES_MAX, and beyond what Python writes as text."""

TEXTS = (
    "",
    "a",
    "acquire",
    "release",
    "x" * 40,
    "n\0ul",
    "\u00e9\u4e16",
    "\U0001f40d",
    "{}%s",
    "Lock",
    "'\"\\",
    "\ud7ff",
)

HEADS = bytes([0x80, 0x81, 0x8F, 0x90, 0x91, 0x9F, 0xA0, 0xBF, *range(0xC0, 0xE0), 0xFF])

ALIENS: tuple[Any, ...] = (
    msgpack.ExtType(0, b""),
    msgpack.ExtType(1, b""),
    msgpack.ExtType(1, b"\0" * 300),
    msgpack.ExtType(7, b"x"),
    msgpack.ExtType(127, b"y" * 20),
    msgpack.Timestamp(1, 2),
    float("nan"),
    float("-inf"),
)


def integer(luck: random.Random) -> int:
    """Small mostly; sometimes at an edge, sometimes huge."""
    dice = luck.random()
    if dice < 0.6:
        return luck.randrange(-1, 9)
    if dice < 0.95:
        return luck.choice(EDGES) * luck.choice((1, 1, -1)) + luck.randrange(-1, 2)
    return luck.choice(HUGE)


def plain(luck: random.Random, depth: int = 3) -> Any:
    """What an argument may be, and now and then what it may not."""
    match luck.randrange(9 if depth else 6):
        case 0:
            return None
        case 1:
            return luck.random() < 0.5
        case 2:
            return integer(luck)
        case 3:
            return luck.choice((0.0, -1.5, 1e308, float("nan"), float("inf")))
        case 4:
            return text(luck)
        case 5:
            return luck.randbytes(luck.choice((0, 1, 5, 31, 32, 300)))
        case 6 | 7:
            return tuple(plain(luck, depth - 1) for _ in range(luck.choice((0, 1, 2, 3, 15, 16, 17))))
        case _:
            return {text(luck): plain(luck, depth - 1) for _ in range(luck.randrange(4))}


def text(luck: random.Random) -> str:
    """Short, and sometimes just longer than a limit."""
    if luck.random() < 0.03:
        return "y" * luck.choice((limits.OP_BYTES_MAX + 1, limits.NAME_BYTES_MAX, limits.NAME_BYTES_MAX + 1))
    return luck.choice(TEXTS)


def deep(luck: random.Random) -> Any:
    """Something in many containers."""
    value: Any = plain(luck, 1)
    for _ in range(luck.choice((1, limits.NESTING_MAX - 1, limits.NESTING_MAX, limits.NESTING_MAX + 1, 100))):
        value = {"k": value} if luck.random() < 0.2 else (value,)
    return value


def fitting(luck: random.Random, hint: Any) -> Any:
    """A value as the annotation asks for it."""
    if hint is int:
        return integer(luck)
    if hint is str:
        return text(luck)
    if hint is bytes:
        return luck.randbytes(luck.choice((0, 1, 12, 16, 32, 60)))
    if hint is bool:
        return luck.random() < 0.5
    if hint is float:
        return luck.choice((0.0, -2.5, float("nan")))
    if hint is Any:
        return deep(luck) if luck.random() < 0.05 else plain(luck)
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(fitting(luck, inner[0]) for _ in range(luck.choice((0, 0, 1, 1, 2, 3, 17))))
        return tuple(fitting(luck, one) for one in inner)
    return message(luck, hint)


def message(luck: random.Random, cls: Any) -> Any:
    """A well-formed message of the class; what it says may be absurd."""
    return cls._make([fitting(luck, hint) for hint in get_type_hints(cls).values()])


def misfit(luck: random.Random, fields: tuple[Any, ...]) -> tuple[Any, ...]:
    """Fields of which one or a few are not what belongs there, or there are too many or too few."""
    changed = list(fields)
    for _ in range(luck.randrange(1, 3)):
        match luck.randrange(6):
            case 0 if changed:
                changed.pop(luck.randrange(len(changed)))
            case 1:
                changed.insert(luck.randrange(len(changed) + 1), plain(luck))
            case 2 if changed:
                place = luck.randrange(len(changed))
                if isinstance(changed[place], tuple):
                    changed[place] = misfit(luck, changed[place])
            case 3 if changed:
                changed[luck.randrange(len(changed))] = luck.choice(ALIENS)
            case 4 if changed:
                changed[luck.randrange(len(changed))] = deep(luck)
            case _ if changed:
                changed[luck.randrange(len(changed))] = plain(luck)
    return tuple(changed)


def damaged(luck: random.Random, body: bytes) -> bytes:
    """The bytes with a few changed, cut, doubled, or another head of msgpack put among them."""
    data = bytearray(body)
    for _ in range(luck.randrange(1, 5)):
        place = luck.randrange(len(data) + 1)
        match luck.randrange(6):
            case 0:
                data[place:] = b""
            case 1:
                data[place:place] = luck.randbytes(luck.randrange(1, 6))
            case 2:
                data[place:place] = data[: luck.randrange(1, 40)]
            case 3:
                data[place : place + 1] = bytes([luck.choice(HEADS)])
            case 4:
                data[place : place + luck.randrange(4)] = struct.pack(">BI", luck.choice(HEADS), luck.getrandbits(32))
            case _:
                data[place : place + 1] = luck.randbytes(1)
    return bytes(data)


def hostile(luck: random.Random) -> bytes:
    """Bytes that are made to cost: heads upon heads, long claims with little behind them, keys that come twice."""
    match luck.randrange(5):
        case 0:
            return luck.randbytes(luck.choice((1, 3, 10, 100, 1000)))
        case 1:
            return bytes(luck.choices(HEADS, k=luck.choice((1, 5, 50, 600, 5000))))
        case 2:
            head = luck.choice((b"\xdc\xff\xff", b"\xdd\0\1\0\0", b"\xde\xff\xff", b"\x91", b"\x81\xa0", b"\xdc\0\x20"))
            return b"\x92\x0f" * luck.randrange(2) + head * luck.choice((3, 16, 17, 170, 1500))
        case 3:
            key = msgpack.packb(luck.choice((b"k", "k", 1, None, "")))
            return b"\x92\x0f\x82" + key + b"\x01" + key + luck.choice((b"\x02", b"\xa1\xff", b"\xc1"))
        case _:
            size = luck.choice((0, 1, 2**8 - 1, 2**16, 2**31, 2**32 - 1))
            return (
                b"\x92\x0f" + bytes([luck.choice((0xC6, 0xC9, 0xDB, 0xDD, 0xDF))]) + size.to_bytes(4, "big") + b"\1\2"
            )


def body(luck: random.Random, table: dict[int, Any]) -> bytes:
    """One frame's body for the codec of the table: in order, nearly so, or nothing of the kind."""
    dice = luck.random()
    if dice < 0.1:
        return hostile(luck)
    tag = luck.choice(list(table))
    fields = tuple(message(luck, table[tag]))
    if dice < 0.5:
        fields = misfit(luck, fields)
    if dice > 0.98:
        tag = luck.choice((integer(luck), True, None, "15", 1.0, luck.choice(ALIENS)))
    whole = codec.pack((tag, *fields))
    return damaged(luck, whole) if 0.4 < dice < 0.8 else whole


def sight(value: Any) -> Any:
    """What can be compared: exact types at every depth, and NaN equal to itself. A list arrives as a tuple."""
    if isinstance(value, list):
        return tuple, tuple(map(sight, value))
    if isinstance(value, tuple):
        return type(value), tuple(map(sight, value))
    if isinstance(value, dict):
        return dict, tuple((sight(key), sight(element)) for key, element in value.items())
    return type(value), "nan" if value != value else value  # noqa: PLR0124 - that is how NaN is known
