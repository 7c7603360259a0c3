# SPDX-License-Identifier: Apache-2.0
"""Messages <-> frame bodies. The only home of msgpack on the wire, and of the check that a frame is what it claims to
be.

A `Codec` is made from a table of tags and named-tuple classes; the schema is read from the classes' own annotations,
once.
Whatever is wrong with a body, `decode` raises `ProtocolError` and nothing else: msgpack itself raises half a dozen
types.
Ints beyond 64 bits travel as msgpack's extension type 1, so any int that Python can hold arrives as itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar, cast, get_args, get_origin, get_type_hints

import msgpack

from dthreading.errors import LimitExceeded, ProtocolError
from dthreading.wire import limits, messages
from dthreading.wire.limits import ELEMENTS_MAX, INT_BYTES_MAX
from dthreading.wire.survey import SHORT_BYTES, is_suspect, survey

__all__ = ["Codec", "decode", "encode", "pack", "pack_call", "unpack"]

_BIG_INT: Final = 1

_SUM_BYTES: Final = 8
"""By how much an int of ours may be longer than any that a client sent: replicas add them up (semaphores do)."""

_SCALARS: Final = frozenset({int, str, bytes, bool, float, type(None)})

M = TypeVar("M")


def _pack_other(value: object) -> msgpack.ExtType:
    # msgpack asks here about ints out of its range, too.
    if isinstance(value, int):
        return msgpack.ExtType(_BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    raise TypeError(f"{type(value).__name__} cannot travel in a message")


def _unpack_extension(code: int, data: bytes) -> int:
    if code != _BIG_INT:
        raise ValueError(f"unknown extension type {code}")
    return int.from_bytes(data, "big", signed=True)


def _pack_other_of_caller(value: object) -> msgpack.ExtType:
    if isinstance(value, int) and value.bit_length() // 8 + 1 > INT_BYTES_MAX:
        raise LimitExceeded(f"an int of {value.bit_length()} bits; INT_BYTES_MAX = {INT_BYTES_MAX} bytes are the most")
    return _pack_other(value)


def pack_call(value: object) -> bytes:
    """The same for what a caller hands us. Raises LimitExceeded for an int that no replica would take."""
    return cast("bytes", msgpack.packb(value, default=_pack_other_of_caller))


def _unpack_extension(code: int, data: bytes) -> int:
    if code != _BIG_INT:
        raise ValueError(f"unknown extension type {code}")
    return int.from_bytes(data, "big", signed=True)


def pack(value: object) -> bytes:
    """Plain values (None, bool, int, float, str, bytes, and tuples, lists, dicts of them) as msgpack."""
    return cast("bytes", msgpack.packb(value, default=_pack_other))


def _unpack_extension_of_frame(code: int, data: bytes) -> int:
    if len(data) > INT_BYTES_MAX + _SUM_BYTES:
        raise ValueError(f"an int of {len(data)} bytes")
    return _unpack_extension(code, data)


def unpack(body: bytes) -> Any:
    """The inverse of `pack`; arrays come back as tuples.

    Raises:
        ProtocolError: for whatever is wrong with the bytes.

    """
    return _unpack(body, _unpack_extension)


def _unpack(body: bytes, extension: Callable[[int, bytes], int]) -> Any:
    longest = SHORT_BYTES
    if len(body) > SHORT_BYTES:
        longest = min(len(body), ELEMENTS_MAX)
        if is_suspect(body):
            survey(body)
    try:
        return msgpack.unpackb(body, use_list=False, ext_hook=extension, max_array_len=longest, max_map_len=longest)
    except MemoryError:
        raise  # says nothing about the bytes, and a replica that took it for their fault would differ from the others
    except Exception as error:  # noqa: BLE001 - msgpack raises half a dozen types, all of them mean this
        raise ProtocolError(f"not a msgpack value: {type(error).__name__}") from None


def _check_plain(value: object, depth: int) -> None:
    """Lets only plain values through, nested a few levels: deeper ones would meet the interpreter's own recursion
    limit.
    """
    if type(value) in _SCALARS:
        return
    if depth == 0:
        raise ProtocolError(f"nested deeper than {limits.NESTING_MAX} levels")
    if type(value) is tuple:
        for element in cast("tuple[object, ...]", value):
            _check_plain(element, depth - 1)
    elif type(value) is dict:
        for key, element in cast("dict[object, object]", value).items():
            _check_plain(key, 1)
            _check_plain(element, depth - 1)
    else:
        raise ProtocolError(f"{type(value).__name__} where a plain value belongs")


def _accept_any(value: Any) -> Any:
    _check_plain(value, limits.NESTING_MAX)
    return value


def _accept_plain_tuple(value: Any) -> Any:
    if type(value) is not tuple:
        raise ProtocolError(f"{type(value).__name__} where an array belongs")
    for element in value:
        if type(element) not in _SCALARS:
            _check_plain(element, limits.NESTING_MAX)
    return value


def _accepter(hint: Any) -> Callable[[Any], Any]:
    """How a field with this annotation is checked and, for nested messages, rebuilt."""
    if hint is Any:
        return _accept_any
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        if inner == (Any, ...):
            return _accept_plain_tuple
        if len(inner) == 2 and inner[1] is Ellipsis:
            one = _accepter(inner[0])

            def accept_many(value: Any) -> Any:
                if type(value) is not tuple:
                    raise ProtocolError(f"{type(value).__name__} where an array belongs")
                return tuple([one(element) for element in value])

            return accept_many
        each = [_accepter(element) for element in inner]

        def accept_row(value: Any) -> Any:
            if type(value) is not tuple or len(value) != len(each):
                raise ProtocolError(f"not an array of {len(each)}")
            return tuple([accept(element) for accept, element in zip(each, value, strict=True)])

        return accept_row
    if isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields"):
        return _Schema(hint).accept
    assert hint in (int, str, bytes, bool, float), hint

    def accept_exactly(value: Any) -> Any:
        if type(value) is not hint:
            raise ProtocolError(f"{type(value).__name__} where {hint.__name__} belongs")
        return value

    return accept_exactly


class _Schema:
    """One message class: its exact plain types, compared in one step, and the few fields that need a closer look."""

    def __init__(self, cls: Any) -> None:
        hints = get_type_hints(cls)
        self.cls = cls
        self.arity = len(cls._fields)
        exact = {int, str, bytes, bool, float}
        self.types = tuple(hints[name] if hints[name] in exact else None for name in cls._fields)
        self.closer = tuple(
            (index, _accepter(hints[name])) for index, name in enumerate(cls._fields) if hints[name] not in exact
        )

    def accept(self, fields: Any) -> Any:
        if type(fields) is not tuple or len(fields) != self.arity:
            raise ProtocolError(f"{self.cls.__name__} has {self.arity} fields")
        for value, expected in zip(fields, self.types, strict=True):
            if expected is not None and type(value) is not expected:
                raise ProtocolError(f"{self.cls.__name__}: {type(value).__name__} where {expected.__name__} belongs")
        if self.closer:
            rebuilt = list(fields)
            for index, accept in self.closer:
                rebuilt[index] = accept(rebuilt[index])
            return self.cls._make(rebuilt)
        return self.cls._make(fields)


class Codec(Generic[M]):
    """Encodes and decodes the messages of one table.

    Args:
        table: tag -> named-tuple class. Tags are small ints, and never change their meaning within a protocol version.

    """

    def __init__(self, table: Mapping[int, type]) -> None:
        assert len(set(table.values())) == len(table), "one tag for each class"
        self._tags = {cls: tag for tag, cls in table.items()}
        self._schemas = {tag: _Schema(cls) for tag, cls in table.items()}

    def encode(self, message: M) -> bytes:
        """The frame body of `message`."""
        return cast("bytes", msgpack.packb((self._tags[type(message)], *cast("Any", message)), default=_pack_other))

    def tag(self, message_class: type) -> int:
        """The tag of a class: for callers that encode a hot message by hand."""
        return self._tags[message_class]

    def decode(self, body: bytes) -> M:
        """The message that `body` holds.

        Raises:
            ProtocolError: for whatever is wrong with the bytes.

        """
        fields = _unpack(body, _unpack_extension_of_frame)
        if type(fields) is not tuple or not fields or type(fields[0]) is not int:
            raise ProtocolError("a frame is an array that begins with a tag")
        schema = self._schemas.get(fields[0])
        if schema is None:
            raise ProtocolError(f"unknown tag {fields[0]}")
        return cast("M", schema.accept(fields[1:]))


TAGS: Final[dict[int, type]] = {
    1: messages.Hello,
    2: messages.Challenge,
    3: messages.Proof,
    4: messages.Welcome,
    5: messages.Rejected,
    10: messages.Open,
    11: messages.Resume,
    12: messages.Close,
    13: messages.Attach,
    14: messages.Detach,
    15: messages.Call,
    16: messages.Withdraw,
    17: messages.Acknowledge,
    20: messages.Keepalive,
    21: messages.CloseAtEnd,
    22: messages.Query,
    30: messages.Opened,
    31: messages.Resumed,
    32: messages.Ended,
    33: messages.Reply,
    34: messages.Alive,
    35: messages.Leader,
    36: messages.MoveOn,
    37: messages.Answer,
}
"""Tags of client messages: below 100. Replicas' own are from 100 on, internal commands from 200 on."""

_codec: Final[Codec[messages.Message]] = Codec(TAGS)
encode = _codec.encode
decode = _codec.decode
