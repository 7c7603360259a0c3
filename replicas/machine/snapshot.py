# SPDX-License-Identifier: Apache-2.0
"""The replicated state <-> bytes: the only file that knows what a snapshot looks like.

A snapshot is of one slot, and is written in slices while commands go on: before one touches a session or an object that
is not serialized yet, that one's *image* is taken (copy on write). Images are written in one fixed order whenever they
were taken, so replicas with the same history write the same bytes.

It is a row of records, each a length and a msgpack array that begins with what it is. A record belongs to the session
or object that came last; nothing in it is longer than one answer or one queue item.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from dthreading.errors import ProtocolError
from dthreading.wire.codec import pack, unpack
from dthreading.wire.messages import Reply
from replicas.machine.sessions import Lane, Session
from replicas.objects import KINDS
from replicas.objects.base import Refused, Replicated
from replicas.objects.registry import GONE, Namespace
from replicas.objects.waiting import Waiter

if TYPE_CHECKING:
    from replicas.machine.core import Machine

__all__ = ["SnapshotWriter", "image_of_head", "image_of_object", "image_of_session", "load"]

FORMAT: Final = 1
"""Raised when a record's meaning changes; a snapshot of another format is refused by name."""

_LENGTH_BYTES: Final = 4


class _Is(IntEnum):
    """What a record is."""

    STATE = 0
    NAMESPACE = 1
    SESSION = 2
    LANE = 3
    WAIT = 4
    HANDLE = 5
    STAKE = 6
    USES = 7
    OBJECT = 8
    STANDS = 9
    ROW = 10
    END = 11
    ROSTER = 12


class SnapshotWriter:
    """Writes the state as it is now, in slices.

    Args:
        machine: tells the writer before it touches a session or an object, until the writer is done.

    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._sessions = dict(machine.sessions)
        self._objects = dict(machine.registry.numbers)
        # Invariant: who is in _unsaved_... has not changed since the snapshot began.
        self._unsaved_sessions = dict(self._sessions)
        self._unsaved_objects = dict(self._objects)
        self._images: dict[int, Iterator[tuple[Any, ...]]] = {}
        """What was saved before its turn: of a session under its id, of an object under minus its number."""
        self._records = self._in_order(list(_state(machine)))
        self.done = False

    def save_session(self, session: Session) -> None:
        """It is about to change."""
        if self._unsaved_sessions.pop(session.id, None) is not None:
            self._images[session.id] = image_of_session(session, self._was_alive)

    def save_object(self, saved: Replicated) -> None:
        """It is about to change."""
        if self._unsaved_objects.pop(saved.number, None) is not None:
            self._images[-saved.number] = image_of_object(saved)

    def step(self, budget: int) -> bytes:
        """The next slice, about `budget` bytes long; b"" when all is written."""
        chunks: list[bytes] = []
        size = 0
        while size < budget and (record := next(self._records, None)) is not None:
            body = pack(record)
            chunks += (len(body).to_bytes(_LENGTH_BYTES, "big"), body)
            size += len(body)
        if not chunks:
            self.close()
        return b"".join(chunks)

    def close(self) -> None:
        """Nothing more is wanted of it."""
        self.done = True
        self._machine.snapshot_done(self)

    def _was_alive(self, known: Replicated) -> bool:
        """At the snapshot's slot: it may have been dropped before, and another one since."""
        return known.number in self._objects

    def _in_order(self, state: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        yield from state
        for session in self._sessions.values():
            self.save_session(session)
            yield from self._images.pop(session.id)
        for saved in self._objects.values():
            self.save_object(saved)
            yield from self._images.pop(-saved.number)
        yield (_Is.END,)


# --- images: all of them copies, since the state goes on while they are read -----------------------------------


def _state(machine: Machine) -> Iterator[tuple[Any, ...]]:
    yield from image_of_head(machine)
    for name, namespace in machine.registry.namespaces.items():
        yield (_Is.NAMESPACE, name, namespace.sessions, namespace.epoch)


def image_of_head(machine: Machine) -> Iterator[tuple[Any, ...]]:
    """What there is one of: counters, settings, the digest of all that was answered, and who is a member."""
    round, replica = machine.ballot_in_force
    settings = machine.limits.to_settings()
    counters = (machine.applied, machine.fence, machine.registry.made)
    yield (_Is.STATE, FORMAT, *counters, round, replica, machine.configuration_epoch, settings, machine.digest)
    yield (_Is.ROSTER, *machine.roster.dump())


def image_of_session(
    session: Session, is_alive: Callable[[Replicated], bool], handles: Iterable[int] | None = None
) -> Iterator[tuple[Any, ...]]:
    """A session's records.

    Args:
        session: as it is now.
        is_alive: whether an object that it refers to has not been dropped.
        handles: which of its handles, and nothing of its stakes, of which there may be as many; None: all of both.

    """
    records: list[tuple[Any, ...]] = [
        (
            _Is.SESSION, session.id, session.nonce, session.ttl_ms, session.namespace, session.label, session.epoch,
            session.handle_top,
        )
    ]  # fmt: skip
    for number, lane in session.lanes.items():
        reply = None if lane.reply is None else (lane.reply.status, lane.reply.value)
        subject = lane.subject.number if lane.subject is not None and is_alive(lane.subject) else 0
        operation = lane.operation.name if subject and lane.operation is not None else ""
        records.append((_Is.LANE, number, lane.number, reply, subject, operation))
    for lane_number, waiter in session.waits.items():
        who = (waiter.owner.number, waiter.operation.name)
        records.append((_Is.WAIT, lane_number, waiter.number, *who, waiter.thread, waiter.payload))
    for handle in session.handles if handles is None else handles:
        meaning = session.handles.get(handle)
        if isinstance(meaning, Refused):
            records.append((_Is.HANDLE, handle, 0, meaning.value))
        elif meaning is not None and is_alive(meaning):
            records.append((_Is.HANDLE, handle, meaning.number, None))
        else:
            records.append((_Is.HANDLE, handle, 0, GONE.value))
    if handles is None:
        records.extend((_Is.STAKE, holding.number) for holding in session.stakes.values() if is_alive(holding))
    records.extend((_Is.USES, name) for name in session.namespaces)
    return iter(records)


def image_of_object(saved: Replicated) -> Iterator[tuple[Any, ...]]:
    """An object's records."""
    who = (saved.number, saved.namespace, saved.name, saved.kind, saved.arguments, saved.lifetime)
    fault = None if saved.fault is None else saved.fault.value
    header = (_Is.OBJECT, *who, saved.attached, fault, saved.dump())
    stands = [
        (_Is.STANDS, index, waiter.session, waiter.lane) for index, queue in enumerate(saved.queues) for waiter in queue
    ]
    return chain((header,), stands, ((_Is.ROW, row) for row in saved.dump_rows()))


# --- and back ---------------------------------------------------------------------------------------------------


def load(machine: Machine, chunks: Iterable[bytes]) -> None:
    """Fills a new machine with what a writer has written, however the bytes are cut into chunks.

    Raises:
        ProtocolError: the bytes are no snapshot, are cut short, or are of another format.

    """
    loader = _Loader(machine)
    for record in _records(chunks):
        loader.take(record)
    loader.finish()


def _records(chunks: Iterable[bytes]) -> Iterator[tuple[Any, ...]]:
    pending = bytearray()
    for chunk in chunks:
        pending += chunk
        at = 0
        while len(pending) - at >= _LENGTH_BYTES:
            end = at + _LENGTH_BYTES + int.from_bytes(pending[at : at + _LENGTH_BYTES], "big")
            if len(pending) < end:
                break
            yield unpack(bytes(pending[at + _LENGTH_BYTES : end]))
            at = end
        del pending[:at]
    if pending:
        raise ProtocolError("the snapshot is cut short")


class _Loader:
    """Takes records in their order; what refers to something that comes later is linked at the end."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._objects: dict[int, Replicated] = {}
        self._session: Session | None = None
        self._object: Replicated | None = None
        self._links: list[tuple[Session, tuple[Any, ...]]] = []
        self._waiters: dict[tuple[int, int], Waiter] = {}
        self._stands: list[tuple[Replicated, int, int, int]] = []
        self._ended = False

    def take(self, record: tuple[Any, ...]) -> None:
        kind, fields = record[0], record[1:]
        match kind:
            case _Is.STATE:
                self._state(*fields)
            case _Is.ROSTER:
                self._machine.roster.load(*fields)
            case _Is.NAMESPACE:
                name, sessions, epoch = fields
                namespace = self._machine.registry.namespaces[name] = Namespace()
                namespace.sessions, namespace.epoch = sessions, epoch
            case _Is.SESSION:
                self._new_session(*fields)
            case _Is.LANE | _Is.WAIT | _Is.HANDLE | _Is.STAKE | _Is.USES:
                assert self._session is not None
                self._links.append((self._session, record))
            case _Is.OBJECT:
                self._new_object(*fields)
            case _Is.STANDS:
                assert self._object is not None
                self._stands.append((self._object, *fields))
            case _Is.ROW:
                assert self._object is not None
                self._object.load_row(fields[0])
            case _Is.END:
                self._ended = True
            case _:
                raise ProtocolError(f"a snapshot's record of unknown kind {kind!r}")

    def _state(
        self, format: int, applied: int, fence: int, made: int, round: int, replica: int, epoch: int, settings: bytes,
        digest: bytes,
    ) -> None:  # fmt: skip
        if format != FORMAT:
            raise ProtocolError(f"a snapshot of format {format}; this version reads format {FORMAT}")
        machine = self._machine
        machine.set_limits(settings)
        machine.applied, machine.fence, machine.registry.made = applied, fence, made
        machine.ballot_in_force, machine.configuration_epoch = (round, replica), epoch
        machine.digest = digest

    def _new_session(
        self, id: int, nonce: bytes, ttl_ms: int, namespace: str, label: str, epoch: int, handle_top: int
    ) -> None:
        session = self._session = Session(id, nonce, ttl_ms, namespace, label)
        session.epoch, session.handle_top = epoch, handle_top
        self._machine.sessions.add(session)

    def _new_object(
        self, number: int, namespace: str, name: str, kind: str, arguments: tuple[Any, ...], lifetime: int,
        attached: int, fault: Any, state: tuple[Any, ...],
    ) -> None:  # fmt: skip
        made = self._object = KINDS[kind](self._machine, *arguments)
        made.number, made.namespace, made.name = number, namespace, name
        made.lifetime, made.attached, made.fault = lifetime, attached, _refusal(fault)
        made.load(state)
        self._machine.registry.put(made)
        self._objects[number] = made

    def finish(self) -> None:
        if not self._ended:
            raise ProtocolError("the snapshot is cut short")
        for session, (kind, *fields) in self._links:
            self._link(session, kind, fields)
        for where, index, session_id, lane in self._stands:
            where.queues[index].park(self._waiters.pop((session_id, lane)))
        assert not self._waiters, "every waiter stands in a queue"
        self._machine.registry.find_idle()

    def _link(self, session: Session, kind: int, fields: list[Any]) -> None:
        match kind, fields:
            case _Is.LANE, [number, last, reply, subject, operation]:
                lane = session.lanes[number] = Lane(last)
                owner = self._objects.get(subject)
                if reply is not None:
                    lane.settle(Reply(number, last, *reply), owner, owner.operations[operation] if owner else None)
            case _Is.WAIT, [number, last, owner_number, operation, thread, payload]:
                owner = self._objects[owner_number]
                waiter = Waiter(owner, owner.operations[operation], session.id, number, last, thread, payload)
                session.lanes[number].waiter = session.waits[number] = waiter
                self._waiters[session.id, number] = waiter
            case _Is.HANDLE, [handle, number, failure]:
                refusal = _refusal(failure)
                session.handles[handle] = refusal if refusal is not None else self._objects[number]
            case _Is.STAKE, [number]:
                session.stakes[number] = self._objects[number]
            case _, [name]:
                session.namespaces[name] = None
            case _:
                raise ProtocolError(f"a snapshot's record {kind} with {len(fields)} fields")


def _refusal(value: Any) -> Refused | None:
    if value is None:
        return None
    if value == GONE.value:
        return GONE
    code, message, details = value
    return Refused(code, message, *details)
