# SPDX-License-Identifier: Apache-2.0
"""Messages <-> frame bodies. The only home of msgpack on the wire.

A `Codec` is made from a table of tags and named-tuple classes; what a frame of each class may hold is in schema.py.
Whatever is wrong with a body, `decode` raises `ProtocolError` and nothing else: msgpack itself raises half a dozen
types.
Ints beyond 64 bits travel as msgpack's extension type 1, so any int that Python can hold arrives as itself, up to
INT_BYTES_MAX from a client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast

from msgpack import ExtType, Packer, unpackb

from dthreading.errors import LimitExceeded, ProtocolError
from dthreading.wire import messages
from dthreading.wire.limits import ELEMENTS_MAX, ELEMENTS_PER_FRAME_MAX, INT_BYTES_MAX
from dthreading.wire.schema import compiled
from dthreading.wire.survey import SHORT_BYTES, is_suspect, survey

__all__ = ["Codec", "check_ints_of_caller", "decode", "decode_undisturbed", "encode", "pack", "pack_call", "unpack"]

_BIG_INT: Final = 1

_SUM_BYTES: Final = 8
"""By how much an int of ours may be longer than any that a client sent: replicas add them up (semaphores do)."""

_AROUND: Final = 64
"""So many elements more than a frame a record of ours may have: what stood in a client's call, and what we put around
it. A snapshot with a record that cannot be read back would keep every replica from starting."""

_KEPT_BYTES: Final = 64 * 1024
"""A packer keeps room for the largest that it has packed; above this it is given up."""

M = TypeVar("M")


# --- values -> bytes ------------------------------------------------------------------------------------------------


def _pack_other(value: object) -> ExtType:
    # msgpack asks here about ints out of its range, too.
    if isinstance(value, int):
        return ExtType(_BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    raise TypeError(f"{type(value).__name__} cannot travel in a message")


def _pack_other_of_caller(value: object) -> ExtType:
    if isinstance(value, int) and value.bit_length() // 8 + 1 > INT_BYTES_MAX:
        raise LimitExceeded(f"an int of {value.bit_length()} bits; INT_BYTES_MAX = {INT_BYTES_MAX} bytes are the most")
    return _pack_other(value)


def _packing(pack_other: Callable[[object], ExtType]) -> Callable[[object], bytes]:
    """A `packb` that makes no packer for each value. A packer is used by one call at a time: two threads, or a call and
    a finalizer that runs inside it, would write into the same buffer. So it is taken out of the row while it is used,
    which is one step, and one that was interrupted by an error is not put back.
    """
    idle: deque[Callable[[object], bytes]] = deque()
    take, give = idle.pop, idle.append

    def pack(value: object) -> bytes:
        try:
            packer = take()
        except IndexError:
            packer = Packer(default=pack_other).pack
        packed = packer(value)
        if len(packed) <= _KEPT_BYTES:
            give(packer)
        return packed

    return pack


pack: Final = _packing(_pack_other)
"""Plain values (None, bool, int, float, str, bytes, and tuples, lists, dicts of them) as msgpack."""

pack_call: Final = _packing(_pack_other_of_caller)
"""The same for what a caller hands us. Raises LimitExceeded for an int that no replica would take."""


# --- bytes -> values ------------------------------------------------------------------------------------------------


def _unpack_extension(code: int, data: bytes) -> int:
    if code != _BIG_INT:
        raise ValueError(f"unknown extension type {code}")
    return int.from_bytes(data, "big", signed=True)


def _unpack_extension_of_frame(code: int, data: bytes) -> int:
    if len(data) > INT_BYTES_MAX + _SUM_BYTES:
        raise ValueError(f"an int of {len(data)} bytes")
    return _unpack_extension(code, data)


def unpack(body: bytes) -> Any:
    """The inverse of `pack`; arrays come back as tuples.

    Raises:
        ProtocolError: for whatever is wrong with the bytes.

    """
    return _unpack(body, _unpack_extension, ELEMENTS_PER_FRAME_MAX + _AROUND)


def _unpack(body: bytes, extension: Callable[[int, bytes], int], elements: int = ELEMENTS_PER_FRAME_MAX) -> Any:
    longest = SHORT_BYTES
    if len(body) > SHORT_BYTES:
        longest = min(len(body), ELEMENTS_MAX)
        if is_suspect(body):
            survey(body, elements)
    try:
        return unpackb(body, use_list=False, ext_hook=extension, max_array_len=longest, max_map_len=longest)
    except MemoryError:
        raise  # says nothing about the bytes, and a replica that took it for their fault would differ from the others
    except Exception as error:  # noqa: BLE001 - msgpack raises half a dozen types, all of them mean this
        raise ProtocolError(f"not a msgpack value: {type(error).__name__}") from None


_Check: TypeAlias = Callable[[tuple[Any, ...]], Any]
Flaw: TypeAlias = Callable[[Any], str | None]
"""Says what is wrong with a message, or None."""


class _Checks(dict[int, _Check]):
    """By tag, the compiled check of its class: compiled when its first message comes."""

    def __init__(self, table: Mapping[int, type], natural: Iterable[type], flaws: Mapping[type, Flaw]) -> None:
        super().__init__()
        self.table = dict(table)
        self._natural = frozenset(natural)
        self.flaws = dict(flaws)

    def __missing__(self, tag: int) -> _Check:
        cls = self.table.get(tag)
        if cls is None:
            raise ProtocolError(f"unknown tag {tag}")
        check = compiled(cls, natural=cls in self._natural)
        if cls in self.flaws:
            check = _with_flaw(check, self.flaws[cls])
        self[tag] = check
        return check


def _with_flaw(check: _Check, flaw: Flaw) -> _Check:
    def both(fields: tuple[Any, ...]) -> Any:
        message = check(fields)
        wrong = flaw(message)
        if wrong is not None:
            raise ProtocolError(f"{type(message).__name__}: {wrong}")
        return message

    return both


class Codec(Generic[M]):
    """Encodes and decodes the messages of one table.

    Args:
        table: tag -> named-tuple class. Tags are small ints, and never change their meaning within a protocol version.
        natural: those of the classes whose ints are all from 0 to 2**63 - 1.
        flaws: what else has to be looked at in messages of some of them.

    """

    def __init__(
        self, table: Mapping[int, type], natural: Iterable[type] = (), flaws: Mapping[type, Flaw] | None = None
    ) -> None:
        assert len(set(table.values())) == len(table), "one tag for each class"
        self._heads = {cls: (tag,) for tag, cls in table.items()}
        self._checks = _Checks(table, natural, flaws or {})

    def encode(self, message: M) -> bytes:
        """The frame body of `message`."""
        return pack(self._heads[type(message)] + cast("tuple[Any, ...]", message))

    def tag(self, message_class: type) -> int:
        """The tag of a class: for callers that encode a hot message by hand."""
        return self._heads[message_class][0]

    def decode(self, body: bytes) -> M:
        """The message that `body` holds.

        Raises:
            ProtocolError: for whatever is wrong with the bytes.

        """
        if len(body) <= SHORT_BYTES:  # as `_unpack`, which would be a tenth of all that is done here
            try:
                fields = unpackb(
                    body,
                    use_list=False,
                    ext_hook=_unpack_extension_of_frame,
                    max_array_len=SHORT_BYTES,
                    max_map_len=SHORT_BYTES,
                )
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - see `_unpack`
                raise ProtocolError(f"not a msgpack value: {type(error).__name__}") from None
        else:
            fields = _unpack(body, _unpack_extension_of_frame)
        if type(fields) is not tuple or not fields or type(fields[0]) is not int:
            raise ProtocolError("a frame is an array that begins with a tag")
        return cast("M", self._checks[fields[0]](fields))


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
    38: messages.Servers,
}
"""Tags of client messages: below 100. Replicas' own are from 100 on, internal commands from 200 on."""

_codec: Final[Codec[messages.Message]] = Codec(TAGS)
encode = _codec.encode
decode = _codec.decode


def check_ints_of_caller(body: bytes, message: messages.Message) -> None:
    """What a client calls with, held to what `pack_call` lets a caller say; `decode` has room for sums of that.

    Raises:
        ProtocolError: it has an int of more than INT_BYTES_MAX bytes.

    """
    if len(body) <= INT_BYTES_MAX or not isinstance(message, messages.Call | messages.Attach):
        return
    values: list[Any] = [message]
    while values:
        value = values.pop()
        if isinstance(value, tuple):
            values.extend(value)
        elif isinstance(value, dict):
            values.extend((*value.keys(), *value.values()))
        elif isinstance(value, int) and value.bit_length() // 8 >= INT_BYTES_MAX:
            raise ProtocolError(f"an int of {value.bit_length()} bits; INT_BYTES_MAX = {INT_BYTES_MAX} bytes")


def decode_undisturbed(body: bytes) -> messages.Message:
    """`decode` for threads that a signal handler may interrupt: what that raises is not taken for the decoder's.

    Raises:
        ProtocolError: for what is wrong with the bytes, and for nothing else.

    """
    try:
        return decode(body)
    except ProtocolError as error:
        decode(body)
        # Nothing is wrong with them: what a signal handler raised in the middle was taken for msgpack's.
        raise (error.__suppress_context__ and error.__context__) or error from None
