# SPDX-License-Identifier: Apache-2.0
"""Copies of live objects, and their fingerprints: the one place that knows how to look at all of an object's state.

A fingerprint is a nested tuple of plain values that is equal for equal object graphs: every attribute counts, also one
that was added to the product yesterday, and who shares an object with whom counts too. Nothing is left out here; what a
model wants to abstract from (the time of day), it sets to one value in the object before it asks.
"""

from __future__ import annotations

import enum
import io
import itertools
import pickle
import types
from collections import deque
from collections.abc import Hashable
from typing import Any

from replicas.objects.base import Operation
from replicas.paxos.types import Configuration, Timing

_VALUES = (
    "replicas.paxos.",
    "replicas.machine.commands",
    "replicas.replica.messages",
    "dthreading.wire.",
    "tests.scope.",
)
"""Where named tuples are values all the way down, so that each is its own fingerprint."""

_leaves: set[type] = {int, str, bytes, float, bool, type(None)}
"""Types whose values are their own fingerprints. Named tuples of values join them when they are met."""

_CONSTANT = (Configuration, Timing)
"""Never copied, for nothing changes them."""


def fingerprint(root: Any) -> Hashable:
    """What `root` is, all the way down."""
    return _Freezer().freeze(root)


class _Freezer:
    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # or an id might be used again while we look

    def freeze(self, value: Any) -> Any:
        kind = type(value)
        if kind in _leaves:
            return value
        if isinstance(value, tuple):
            if kind is not tuple and kind.__module__.startswith(_VALUES):
                _leaves.add(kind)
                return value
            return (kind.__name__, *[self.freeze(item) for item in value])
        number = self._seen.get(id(value))
        if number is not None:
            return ("again", number)
        if kind is Operation or kind is Timing:
            return kind.__name__ if kind is Timing else value.name
        if isinstance(value, types.FunctionType | types.MethodType | type):
            return value.__qualname__
        if isinstance(value, int | str | bytes):  # an enum's member
            return (kind.__name__, str(value))
        if isinstance(value, enum.Enum):
            return str(value)
        if isinstance(value, set | frozenset):
            return ("set", *sorted(value))
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        return self._freeze_mutable(kind, value)

    def _freeze_mutable(self, kind: type, value: Any) -> Any:
        freeze = self.freeze
        leaves = _leaves
        if isinstance(value, list | deque):
            return (kind.__name__, *[item if type(item) in leaves else freeze(item) for item in value])
        if isinstance(value, itertools.count):
            return repr(value)
        parts: list[Any] = [kind.__name__]
        if isinstance(value, dict):
            for key, item in value.items():
                parts += (key if type(key) in leaves else freeze(key), item if type(item) in leaves else freeze(item))
        for name in attributes(kind):
            item = getattr(value, name, "unset")
            parts.append(item if type(item) in leaves else freeze(item))
        for name, item in getattr(value, "__dict__", {}).items():
            parts += (name, item if type(item) in leaves else freeze(item))
        return tuple(parts)


_ATTRIBUTES: dict[type, tuple[str, ...]] = {}


def attributes(kind: type) -> tuple[str, ...]:
    """The slots of a class and of its bases."""
    known = _ATTRIBUTES.get(kind)
    if known is None:
        found: list[str] = []
        for base in kind.__mro__:
            slots = vars(base).get("__slots__", ())
            found += [slots] if isinstance(slots, str) else slots
        known = _ATTRIBUTES[kind] = tuple(sorted(set(found) - {"__weakref__", "__dict__"}))
    return known


_constants: list[Any] = []


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> int | None:
        if type(value) not in _CONSTANT:
            return None
        if value not in _constants:
            _constants.append(value)
        return _constants.index(value)

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, itertools.count):  # the standard library has announced to pickle them no more
            return itertools.count, (int(repr(value)[len("count(") : -1]),)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, number: int) -> Any:
        return _constants[number]


def save(value: Any) -> bytes:
    """A copy of `value` to make copies of."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=5).dump(value)
    return buffer.getvalue()


def restore(saved: bytes) -> Any:
    """A fresh copy."""
    return _Unpickler(io.BytesIO(saved)).load()
