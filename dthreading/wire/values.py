# SPDX-License-Identifier: Apache-2.0
"""Queue items <-> bytes, and items -> priorities. Servers carry an item's bytes and never look inside; what they order
by is the priority, plain values alone.

An item's first byte says how the rest was made. msgpack where that keeps every type exactly, as decided by `type() is`
(a list is no tuple, an IntEnum no int, a bytearray no bytes); pickle elsewhere, which only clients of the group load;
or the queue's own `serializer=`.
"""

from __future__ import annotations

import io
import math
import pickle
import sys
from importlib import import_module
from typing import Any, Final, Protocol, TypeAlias

import msgpack

from dthreading.errors import LimitExceeded, ProtocolError
from dthreading.wire.limits import ITEM_BYTES_MAX, NESTING_MAX
from dthreading.wire.places import find_module, module_name
from dthreading.wire.survey import SHORT_BYTES, is_suspect, survey

__all__ = ["Priority", "Serializer", "decode_item", "encode_item", "priority_of"]

PLAIN: Final = b"m"
PICKLED: Final = b"p"
SERIALIZED: Final = b"s"

PICKLE_PROTOCOL: Final = 5
"""Understood by every version that we run on, so clients on different versions share a queue."""

PLAIN_ELEMENTS_MAX: Final = 64
"""The most elements that are looked at one by one; above it pickle, which looks in C, is faster."""

_BIG_INT: Final = 1
_TUPLE: Final = 2
_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})

Priority: TypeAlias = "bool | int | float | str | bytes | tuple[Priority, ...]"


class Serializer(Protocol):
    """What `Queue(serializer=...)` takes: `pickle`, `json` behind two small functions, or a class of yours."""

    def dumps(self, item: Any, /) -> bytes:
        """The item as bytes."""

    def loads(self, data: bytes, /) -> Any:
        """The item that `dumps` made these bytes of."""


def encode_item(item: object, serializer: Serializer | None = None) -> bytes:
    """The bytes that stand for `item`.

    Raises:
        TypeError: the item cannot be serialized; nothing was sent.
        LimitExceeded: it is too large.

    """
    if serializer is not None:
        body = SERIALIZED + _dump(serializer, item)
    elif type(item) in _SCALARS or _is_plain(item, _Budget(PLAIN_ELEMENTS_MAX), NESTING_MAX):
        body = _pack(item)
    else:
        body = _pickle(item)
    if len(body) > ITEM_BYTES_MAX:
        raise LimitExceeded(f"an item of {len(body)} bytes; at most {ITEM_BYTES_MAX} (ITEM_BYTES_MAX) can be queued")
    return body


def decode_item(body: bytes, serializer: Serializer | None = None) -> Any:
    """The item that `body` stands for: equal to what was put, not identical with it.

    Raises:
        ProtocolError: the bytes of plain values are damaged.
        TypeError: it was put by a newer version, or with a `serializer=` that this queue has not.

    """
    kind, rest = body[:1], body[1:]
    if kind == PLAIN:
        return _unpack(rest, NESTING_MAX)
    if kind == PICKLED:
        return pickle.loads(rest)  # noqa: S301 - made by a client that knows the group's secret; servers never load it
    if kind != SERIALIZED:
        raise TypeError(f"an item of kind {kind!r}: it was put by a newer version")
    if serializer is None:
        raise TypeError("this item was put with a serializer=; make the queue with the same one here")
    return serializer.loads(rest)


# --- plain values --------------------------------------------------------------------------------------------------


class _Budget:
    """How many elements may still be looked at, and which containers were."""

    def __init__(self, elements: int) -> None:
        self.elements = elements
        self.seen: set[int] = set()


def _is_plain(item: object, budget: _Budget, depth: int) -> bool:
    """Whether msgpack gives this back with the very same types."""
    if type(item) in _SCALARS:
        return True
    if type(item) not in {list, tuple, dict} or depth == 0 or id(item) in budget.seen:
        return False  # a list that occurs twice is one list in pickle, and two in msgpack
    assert isinstance(item, (list, tuple, dict))
    budget.elements -= len(item)
    if budget.elements < 0:
        return False
    budget.seen.add(id(item))
    if isinstance(item, dict):
        return all(type(key) in _SCALARS and _is_plain(value, budget, depth - 1) for key, value in item.items())
    return all(_is_plain(element, budget, depth - 1) for element in item)


def _pack(item: object) -> bytes:
    try:
        packed: bytes = msgpack.packb(item, strict_types=True, default=_pack_other)
    except (UnicodeEncodeError, ValueError):
        return _pickle(item)  # lone surrogates
    return PLAIN + packed


def _pack_other(item: object) -> msgpack.ExtType:
    if type(item) is tuple:
        return msgpack.ExtType(_TUPLE, msgpack.packb(list(item), strict_types=True, default=_pack_other))
    assert type(item) is int, item
    return msgpack.ExtType(_BIG_INT, item.to_bytes(item.bit_length() // 8 + 1, "big", signed=True))


def _unpack(data: bytes, depth: int) -> Any:
    """Plain values, at most `depth` tuples in each other: each is unpacked inside the one around it, on the C stack."""

    def unpack_extension(code: int, inner: bytes) -> Any:
        if code == _BIG_INT:
            return int.from_bytes(inner, "big", signed=True)
        if code != _TUPLE:
            raise _Newer(f"a value of extension type {code}: it was put by a newer version")
        if depth == 0:
            raise ProtocolError(f"an item with tuples nested deeper than {NESTING_MAX} levels")
        elements = _unpack(inner, depth - 1)
        if type(elements) is not list:
            raise ProtocolError("an item with a tuple that is none")
        return tuple(elements)

    if len(data) > SHORT_BYTES and is_suspect(data):
        survey(data)
    try:
        return msgpack.unpackb(data, strict_map_key=False, ext_hook=unpack_extension)
    except (ProtocolError, _Newer, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - msgpack raises half a dozen types, all of them mean this
        raise ProtocolError(f"an item of damaged bytes: {type(error).__name__}") from None


class _Newer(TypeError):
    """The bytes are in order, and we are too old for them."""


# --- everything else -----------------------------------------------------------------------------------------------


class _Pickler(pickle.Pickler):
    """Pickle, but for a bare `object()`: a copy of that is equal to nothing, and a loop that compares with it never
    ends.
    """

    def reducer_override(self, item: Any) -> Any:
        if type(item) is not object:
            return NotImplemented
        return _global_named, _name_of_global(item)


def _pickle(item: object) -> bytes:
    buffer = io.BytesIO()
    buffer.write(PICKLED)
    try:
        _Pickler(buffer, PICKLE_PROTOCOL).dump(item)
    except Exception as error:
        if type(error) is TypeError and error.args[:1] == (_BARE_OBJECT,):
            raise
        raise TypeError(f"a {type(item).__qualname__} cannot be put into a distributed queue: {error}") from error
    return buffer.getvalue()


def _dump(serializer: Serializer, item: object) -> bytes:
    try:
        body: object = serializer.dumps(item)
    except Exception as error:
        raise TypeError(f"serializer= cannot serialize a {type(item).__qualname__}: {error}") from error
    if not isinstance(body, bytes):
        raise TypeError(f"serializer.dumps() must return bytes, not {type(body).__name__}")
    return body


_BARE_OBJECT: Final = (
    "object() cannot be put into a distributed queue: what comes out is a copy, and `item is SENTINEL` would never be"
    " true. Make it a global of a module (it is then sent by name), or use None, a string or an Enum member"
)

_known_globals: dict[int, tuple[object, str, str]] = {}
"""id -> (the sentinel, its module, its name): the search through all modules is done once for each sentinel."""


def _name_of_global(sentinel: object) -> tuple[str, str]:
    """The module and name under which every process finds `sentinel`."""
    known = _known_globals.get(id(sentinel))
    if known is not None and known[0] is sentinel and _lookup(known[1], known[2]) is sentinel:
        return known[1:]
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", None)
        if not isinstance(names, dict):
            continue
        name = next((name for name, value in list(names.items()) if value is sentinel), None)
        home = module_name(names)
        if name is not None and home is not None and _lookup(home, name) is sentinel:
            _known_globals[id(sentinel)] = (sentinel, home, name)
            return home, name
    raise TypeError(_BARE_OBJECT)


def _lookup(home: str, name: str) -> object:
    module = find_module(home)
    return getattr(module, name, None)


def _global_named(home: str, name: str) -> object:
    """What a sentinel's pickle calls: the same global, here."""
    module = find_module(home) or import_module(home)
    found: object = getattr(module, name)
    if type(found) is not object:
        raise TypeError(f"the item is the object() that its sender knows as {home}.{name}, which here is {found!r}")
    return found


# --- priorities ----------------------------------------------------------------------------------------------------


def priority_of(item: object) -> Priority:
    """What replicas order `item` by: itself if it is plain, else its longest prefix of plain values.

    Ties are first come, first served, so `(3, anything)` works.

    Raises:
        TypeError: the item begins with something that only Python code can compare.

    """
    prefix, whole = _prefix(item, NESTING_MAX)
    if prefix is None or (prefix == () and not whole):
        raise TypeError(
            f"a PriorityQueue cannot order by a {_first(item)}: replicas compare numbers, strings, bytes and"
            " tuples of them (a dataclass(order=True) by its compare fields). Put (priority, item), or give the queue"
            " a key= function"
        )
    return prefix


def _first(item: object) -> str:
    """The type that stands where comparing begins: of a tuple, that of its first element."""
    for _ in range(NESTING_MAX):
        if _ordered_dataclass(item):
            item = _compared_fields(item)
        if not isinstance(item, (tuple, list)) or not item:
            break
        item = item[0]
    return type(item).__qualname__


def _prefix(item: object, depth: int) -> tuple[Priority | None, bool]:
    """The plain prefix of `item` (None where it has none), and whether that is all of it."""
    if isinstance(item, (int, float, str, bytes)):
        return _plain_scalar(item), True
    if isinstance(item, (tuple, list)):
        elements: tuple[object, ...] = tuple(item)
    elif _ordered_dataclass(item):
        elements = _compared_fields(item)
    else:
        return None, False
    if depth == 0:
        return None, False
    done: list[Priority] = []
    for element in elements:
        prefix, whole = _prefix(element, depth - 1)
        if prefix is not None and (whole or prefix != ()):
            done.append(prefix)
        if not whole:
            return tuple(done), False
    return tuple(done), True


def _plain_scalar(item: float | str | bytes) -> Priority:
    """`item` as the plain type it is a subclass of: an IntEnum is sent as its int."""
    match item:
        case bool():
            return bool(item)
        case int():
            return int(item)
        case float():
            if math.isnan(item):
                raise ValueError("NaN has no place in an order, so it cannot be a priority")
            return float(item)
        case str():
            if not _encodable(item):
                raise TypeError("a string with lone surrogates cannot be sent, so it cannot be a priority")
            return str.__str__(item)
        case _:
            return bytes(item)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _ordered_dataclass(item: object) -> bool:
    parameters = getattr(type(item), "__dataclass_params__", None)
    return parameters is not None and bool(parameters.order)


def _compared_fields(item: Any) -> tuple[object, ...]:
    from dataclasses import fields  # noqa: PLC0415 - whoever has a dataclass has paid for this import

    return tuple(getattr(item, field.name) for field in fields(item) if field.compare)
