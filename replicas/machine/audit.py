# SPDX-License-Identifier: Apache-2.0
"""Digests of parts of the state at one slot, for replicas to compare: equal where they have the same history.

A part is what can be named when it differs: an object, a session, or the head (what there is one of). Its digest is
that of its image, the very records that a snapshot would hold, read anew from memory each time: so it differs also
when nobody has touched the part and only its memory has gone bad. The leader's `Audit` entry says which parts; going
round all of them in pieces of one size keeps the cost of an entry the same however much there is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from dthreading.wire.codec import pack
from replicas.machine.commands import Audit
from replicas.machine.sessions import Session
from replicas.machine.snapshot import image_of_head, image_of_object, image_of_session
from replicas.objects.base import Replicated
from replicas.objects.registry import GONE

if TYPE_CHECKING:
    from replicas.machine.core import Machine

__all__ = ["FORM", "HEAD", "PART_BYTES", "Inventory", "Round", "digests"]

FORM: Final = 1
"""Raised whenever an image changes its shape: replicas whose forms differ are not compared, or the first of them to be
upgraded would be taken for the one that is wrong."""

PIECE: Final = 256
"""How many objects, and how many sessions and handles of sessions, one audit looks at: about a millisecond's work."""

HEAD: Final = 0
"""The key of the head. An object has its number, a session its id below zero."""

_DIGEST_BYTES: Final = 8
_PART: Final = struct.Struct(f">q{_DIGEST_BYTES}s")
PART_BYTES: Final = _PART.size

_Image = Iterator[tuple[Any, ...]]


class Inventory:
    """The parts that one audit names, as they are in its slot. The images are taken at once, their digests in slices.

    Args:
        machine: has just applied `audit`.

    """

    def __init__(self, machine: Machine, audit: Audit) -> None:
        self.slot = machine.applied
        self.is_whole = len(audit.objects) >= len(machine.registry.numbers)
        """Whether it looks at all objects that there are."""
        self._names: dict[int, tuple[str, ...]] = {}
        self._images: dict[int, _Image] = {HEAD: _taken(_head, machine)}
        for id, handles in audit.sessions:
            session = machine.sessions.get(id)
            if session is not None:
                self._images[-id] = _taken(_session, machine, session, handles)
                self._names[-id] = (session.label,)
        for number in audit.objects:
            known = machine.registry.numbers.get(number)
            if known is not None:
                self._images[number] = _taken(image_of_object, known)
                self._names[number] = (known.kind, known.name, known.namespace)
        self._parts: list[bytes] = []
        self._hash = blake2b(digest_size=_DIGEST_BYTES)

    def step(self, budget: int) -> bool:
        """A slice, about `budget` bytes of images. True when all is done."""
        while self._images:
            key, image = next(iter(self._images.items()))
            try:
                for record in image:
                    body = pack(record)
                    self._hash.update(body)
                    budget -= len(body)
                    if budget <= 0:
                        return False
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - what has gone bad may not even be readable, and is to be named
                self._hash.update(_unreadable(error))
            del self._images[key]
            self._parts.append(_PART.pack(key, self._hash.digest()))
            self._hash = blake2b(digest_size=_DIGEST_BYTES)
        return True

    @property
    def parts(self) -> bytes:
        """The key and the digest of each part that is there, in the order in which the audit names them."""
        assert not self._images
        return b"".join(self._parts)

    def name(self, key: int) -> str:
        """That part, for people."""
        match key, self._names.get(key):
            case _, (kind, name, namespace):
                return f"{kind} {name!r} of namespace {namespace!r}"
            case _, (label,):
                return f"session {-key} ({label})" if label else f"session {-key}"
            case 0, _:
                return "the counters, the members, or the answers that it has given so far"
            case _:
                return f"object number {key}" if key > 0 else f"session {-key}"


def digests(parts: bytes) -> dict[int, bytes]:
    """By its key the digest of each part that `Inventory.parts` tells of."""
    return dict(_PART.iter_unpack(parts))


def _taken(image: Callable[..., _Image], *of: Any) -> _Image:
    try:
        return image(*of)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - as in `Inventory.step`
        return iter([(_unreadable(error),)])


def _unreadable(error: Exception) -> bytes:
    return b"cannot be read: " + type(error).__name__.encode()


def _head(machine: Machine) -> _Image:
    registry = machine.registry
    counts = (len(machine.sessions), len(registry.objects), len(registry.namespaces))
    return iter([counts, *image_of_head(machine)])


def _is_alive(known: Replicated) -> bool:
    return known.fault is not GONE


def _session(machine: Machine, session: Session, handles: tuple[int, ...]) -> _Image:
    namespaces = machine.registry.namespaces
    uses = [(name, namespaces[name].sessions, namespaces[name].epoch) for name in session.namespaces]
    counts = (len(session.handles), len(session.stakes), *uses)
    return iter([counts, *image_of_session(session, _is_alive, handles)])


class Round:
    """A leader's way through the whole state, a piece an audit, and then from the beginning again."""

    def __init__(self) -> None:
        self._sessions: Iterator[tuple[int, tuple[int, ...]]] | None = None
        self._objects: Iterator[int] | None = None

    def next(self, machine: Machine, piece: int = PIECE) -> Audit:
        """The next piece. What has ended since the round began is skipped; what has come is there in the next round."""
        return Audit(tuple(self._next_sessions(machine, piece)), tuple(self._next_objects(machine, piece)))

    def _next_sessions(self, machine: Machine, piece: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        if self._sessions is None:
            self._sessions = _pieces(machine)
        size = 0
        for id, handles in self._sessions:
            yield id, handles
            size += 1 + len(handles)
            if size >= piece:
                return
        self._sessions = None

    def _next_objects(self, machine: Machine, piece: int) -> Iterator[int]:
        if self._objects is None:
            self._objects = iter(list(machine.registry.numbers))
        count = 0
        for number in self._objects:
            if number in machine.registry.numbers:
                yield number
                count += 1
                if count >= piece:
                    return
        self._objects = None


def _pieces(machine: Machine) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Each session with all its handles, or as often as it takes to name them all."""
    for id in list(machine.sessions):
        session = machine.sessions.get(id)
        if session is not None:
            handles = list(session.handles)
            for first in range(0, max(1, len(handles)), PIECE):
                yield id, tuple(handles[first : first + PIECE])
