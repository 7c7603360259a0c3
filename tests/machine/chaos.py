# SPDX-License-Identifier: Apache-2.0
"""Random commands of every kind, from a seed, as a log of bytes; and what must hold of the state after each of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from dthreading.wire import messages as wire
from replicas.machine import commands
from replicas.machine.core import Effects, Machine
from replicas.objects import KINDS
from replicas.objects.barrier import ACTING, BROKEN, Barrier
from replicas.objects.lock import Ownable
from replicas.objects.queue import SimpleQueue
from replicas.objects.semaphore import Semaphore
from replicas.paxos.values import Ballot, Entry, EntryKind, encode_ballot

OBJECTS: list[tuple[str, str, tuple[object, ...]]] = [
    ("Lock", "lock", ()),
    ("RLock", "rlock", ()),
    ("Condition", "condition", ("n", "rlock", "RLock")),
    ("Condition", "plain", ("n", "lock", "Lock")),
    ("Semaphore", "semaphore", (2,)),
    ("BoundedSemaphore", "bounded", (1,)),
    ("Event", "event", ()),
    ("Barrier", "barrier", (3,)),
    ("Queue", "queue", (2, False)),
    ("Queue", "redelivers", (0, True)),
    ("LifoQueue", "stack", (3, False)),
    ("PriorityQueue", "priorities", (0, False)),
    ("SimpleQueue", "simple", ()),
]


class Chaos:
    """Writes a log by trying it on a machine: what clients know (sessions, handles, fences) comes from its replies."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._takers = random.Random(seed)
        self.objects = OBJECTS
        self.lanes = 6
        self.lifetimes: tuple[int, ...] = (0, 0, 1, 2)
        self.machine = Machine()
        self.log: list[Entry] = []
        self.round = 1
        self.numbers: dict[tuple[int, int], int] = {}
        self.calls: list[wire.Call] = []
        self.opens = 0

    def entries(self, count: int) -> Iterator[Entry]:
        yield self._add(encode_ballot(Ballot(1, 1)), EntryKind.LEADS)
        while len(self.log) < count:
            yield self._add(commands.codec.encode(self._command()))
            if self.random.random() < 0.01:
                self.round += 1
                yield self._add(encode_ballot(Ballot(self.round, 1)), EntryKind.LEADS)

    def _add(self, value: bytes, kind: int = EntryKind.COMMAND) -> Entry:
        entry = Entry(len(self.log) + 1, Ballot(1, 1), kind, value)
        self.log.append(entry)
        self.applied(entry, self.machine.apply(entry))
        return entry

    def applied(self, entry: Entry, effects: Effects) -> None:
        """What came of it."""
        assert not effects.faults, effects.faults

    def _command(self) -> object:
        sessions = list(self.machine.sessions.values())
        chance = self.random.random()
        if len(sessions) < 2 or (chance < 0.03 and len(sessions) < 6):
            self.opens += 1
            return wire.Open(b"%d" % self.opens, 1000, self.random.choice(["n", "m"]), f"client {self.opens}")
        session = self.random.choice(sessions)
        if chance < 0.045:
            return self._end(session.id, session.epoch)
        if chance < 0.06:
            idle = list(self.machine.idle_namespaces.items())
            if idle:
                namespace, epoch = self.random.choice(idle)
                return commands.Reset(namespace, epoch, self.round, 1)
            return wire.Resume(session.id, session.nonce)
        if chance < 0.16 or not session.handles:
            kind, name, arguments = self.random.choice(self.objects)
            lifetime = self.random.choice(self.lifetimes)
            return wire.Attach(session.id, session.handle_top + 1, "n", f"{name}", kind, arguments, lifetime, True)
        if chance < 0.18:
            return wire.Detach(session.id, self.random.choice(list(session.handles)))
        if chance < 0.28 and self.calls:
            return self.random.choice(self.calls[-40:])
        if chance < 0.42:
            lane = self.random.randrange(self.lanes)
            number = self.numbers.get((session.id, lane), 0) + self.random.choice([0, 0, 0, 1, -1])
            self.numbers[session.id, lane] = max(number, self.numbers.get((session.id, lane), 0))
            return wire.Withdraw(session.id, lane, number, self.random.random() < 0.5)
        if chance < 0.46:
            lane = self.random.randrange(self.lanes)
            return wire.Acknowledge(session.id, ((lane, self.numbers.get((session.id, lane), 0)),))
        if chance < 0.463:
            return commands.Delete("n", self.random.choice(OBJECTS)[1])
        return self._call(session.id)

    def _end(self, session: int, epoch: int) -> object:
        if self.random.random() < 0.5:
            return wire.Close(session)
        return commands.Expire(session, epoch - self.random.choice([0, 0, 1]), self.round, 1)

    def _call(self, session: int) -> wire.Call:
        handles = self.machine.sessions[session].handles
        handle = self.random.choice(list(handles))
        meaning = handles[handle]
        operation = self.operation(getattr(meaning, "kind", "Lock"))
        lane = self.random.randrange(self.lanes)
        number = self.numbers.get((session, lane), 0) + self.random.choice([1, 1, 1, 3])
        self.numbers[session, lane] = number
        arguments = self._arguments(session, meaning, operation)
        call = wire.Call(session, lane, number, handle, operation, arguments, self.random.random() < 0.5)
        self.calls.append(call)
        return call

    def operation(self, kind: str) -> str:
        """What is to be called at an object of that kind."""
        operation = self.random.choice(sorted(KINDS[kind].operations))
        if self.random.random() < 0.6:
            operation = {"Barrier": "wait", "Event": "wait"}.get(kind, operation)
        return operation

    def _taker(self, session: int) -> tuple[int, ...]:
        """In which session it was taken, as far as is known."""
        chance = self._takers  # so that all else is drawn as it was
        return () if chance.random() < 0.5 else (chance.choice([session, session, session - 1, session + 1, 0]),)

    def _arguments(self, session: int, meaning: object, operation: str) -> tuple[object, ...]:
        chance = self.random
        blocking, thread = chance.random() < 0.7, chance.randrange(2)
        fence = getattr(meaning, "fence", 0) if chance.random() < 0.8 else chance.choice([None, 1])
        is_rlock = getattr(meaning, "kind", "") == "RLock"
        match operation:
            case "acquire":
                return (blocking, thread)
            case "release" if isinstance(meaning, Semaphore):
                return (chance.choice([1, 1, 2, 0]), *self._taker(session))
            case "release":
                return (fence, thread) if is_rlock else (fence,)
            case "release_save":
                return (thread,)
            case "acquire_restore":
                return (thread, chance.choice([1, 2]))
            case "wait" if isinstance(meaning, Barrier):
                return (chance.random() < 0.4,)
            case "wait" | "notify" if getattr(meaning, "kind", "") == "Condition":
                lock = self._lock_handle(session, meaning)
                return (lock, thread, None) if operation == "wait" else (lock, thread, chance.choice([1, 2, -1]), None)
            case "action_done":
                return (chance.random() < 0.7,)
            case "put":
                priority = chance.choice([1, 2, 2.5, -(10**30), "a", (1, "b"), (1, 2), True])
                return (blocking, b"%d" % chance.randrange(1000), priority, thread)
            case "get":
                return (blocking, thread)
            case "task_done":
                return (thread, *self._taker(session))
            case "join":
                return (thread,)
            case "shutdown":
                return (chance.random() < 0.3,) if chance.random() < 0.1 else ("no",)
            case "set_maxsize":
                return (chance.randrange(4),)
            case _:
                return ()

    def _lock_handle(self, session: int, condition: object) -> int:
        wanted = getattr(condition, "arguments", ("", "", ""))
        for handle, meaning in self.machine.sessions[session].handles.items():
            if (getattr(meaning, "namespace", ""), getattr(meaning, "name", "")) == wanted[:2]:
                return handle
        return 0


def check(machine: Machine) -> None:
    """The invariants of the whole state, from every field that says the same thing twice."""
    objects = machine.registry.objects
    standing: dict[tuple[int, int], Any] = {}
    for known in objects.values():
        assert known.fault is None
        for queue in known.queues:
            for waiter in queue:
                assert waiter.queue is queue
                assert (waiter.session, waiter.lane) not in standing, "a waiter stands in exactly one queue"
                standing[waiter.session, waiter.lane] = waiter
        for holder in known.holders():
            assert known.number in machine.sessions[holder].stakes, "a holder's session is alive and will tell its end"
        _check_object(known)
    waits = {
        (session.id, lane): waiter for session in machine.sessions.values() for lane, waiter in session.waits.items()
    }
    assert waits == standing
    attached = dict.fromkeys((known.number for known in objects.values()), 0)
    for session in machine.sessions.values():
        for lane, waiter in session.waits.items():
            assert session.lanes[lane].waiter is waiter
            assert session.lanes[lane].reply is None
        for number, lane_ in session.lanes.items():
            assert (lane_.waiter is not None) == (number in session.waits)
        for holding in session.stakes.values():
            assert session.id in holding.holders()
            assert objects[holding.namespace, holding.name] is holding
        for meaning in session.handles.values():
            if getattr(meaning, "number", 0) in attached:
                attached[meaning.number] += 1  # type: ignore[union-attr]
    for waiter in standing.values():
        if waiter.owner.kind != "Condition":
            continue
        for pinned in (waiter.owner.number, waiter.payload[2]):
            if pinned in attached:
                attached[pinned] += 1
    assert attached == {known.number: known.attached for known in objects.values()}
    for known in objects.values():
        kept = known.attached or any(known.queues) or not known.is_initial()
        assert kept, f"{known.kind} {known.name} is in its initial state, and costs something"
    for name, namespace in machine.registry.namespaces.items():
        users = sum(name in session.namespaces for session in machine.sessions.values())
        assert users == namespace.sessions
        assert users or namespace.automatic
        assert (name in machine.idle_namespaces) == (not users)


def _check_object(known: object) -> None:
    match known:
        case Ownable():
            assert (known.owner is None) == (known.count == 0)
            assert known.owner is not None or not known.waiting
        case Semaphore():
            assert known.available >= 0
            assert not (known.available and known.waiting)
            assert all(count > 0 for count in known.taken.values())
            if known.kind == "BoundedSemaphore":
                assert known.available <= known.arguments[0]
        case Barrier():
            assert (known.runner is not None) == (known.phase == ACTING)
            assert known.phase == ACTING or not known.entrance
            assert known.phase == ACTING or not known.doomed
            assert known.phase != BROKEN or not known.arrived
            assert len(known.arrived) < known.parties
        case SimpleQueue():
            assert len(known.store) == sum(1 for _ in known.store.dump_rows())
            assert not (len(known.store) and known.getters)
            assert not known.putters or 0 < known.maxsize <= len(known.store)
            assert known.unfinished >= 0
        case _:
            pass
