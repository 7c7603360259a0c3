# SPDX-License-Identifier: Apache-2.0
"""The machine does with every log what the simulator's reference says: the answers, what anybody may read, who ends.

In simulated worlds users behave like users, and what several strange things at once lead to is met there once in a
thousand worlds: two threads of one session with an unheard notify when it ends, an undo of what somebody else gave
back. Here nobody behaves. Sessions by the dozen begin, attach, call, withdraw, acknowledge, repeat and end at random,
a hundred thousand entries in the time of a few worlds, and every entry is judged by the models of tests/sim/checkers.

From time to time the machine is exchanged for what a snapshot holds that was begun some entries before, and the log
since then: whatever is lost on that way is missed by the reference, too.

`REFERENCE_LOGS` in the environment: how many logs, where CI does a few.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from typing import Any, Final

import pytest

from dthreading.wire import messages as wire
from dthreading.wire.messages import Lifetime
from replicas.machine import commands
from replicas.machine.core import Effects, Machine
from replicas.machine.snapshot import SnapshotWriter
from replicas.paxos.values import Entry, EntryKind
from tests.machine.chaos import OBJECTS, Chaos, check
from tests.sim.checkers.judging import judged
from tests.sim.checkers.lock_models import Condition, Lock
from tests.sim.checkers.models import Model
from tests.sim.checkers.reference import Reference

LOGS: Final = int(os.environ.get("REFERENCE_LOGS", "32"))
LENGTH: Final = 1_500

SCENES: Final[tuple[tuple[str, ...], ...]] = (
    ("rlock", "condition"),
    ("lock", "plain"),
    ("lock", "rlock"),
    ("semaphore", "bounded"),
    ("barrier", "event"),
    ("queue", "redelivers"),
    ("redelivers", "simple"),
    ("stack", "priorities"),
)
"""What one log is about: so little that everybody is in everybody's way. In each ninth, everything."""

_OF_A_QUEUE: Final = ("get", "put", "put", "task_done")
USUAL: Final[dict[str, tuple[str, ...]]] = {
    "Lock": ("acquire", "release"),
    "RLock": ("acquire", "release"),
    "Condition": ("wait", "notify"),
    "Semaphore": ("acquire", "release"),
    "BoundedSemaphore": ("acquire", "release"),
    "Event": ("wait", "set", "clear"),
    "Barrier": ("wait", "wait", "action_done"),
    "Queue": _OF_A_QUEUE,
    "LifoQueue": _OF_A_QUEUE,
    "PriorityQueue": _OF_A_QUEUE,
    "SimpleQueue": ("get", "put"),
}
LIFETIMES: Final = ((0, 0, 1, 2), (1, 1, 1, 1, 0), (2, 1))
"""NAMED, AUTOMATIC, PRIVATE; the least of an object's attachments counts."""

SELDOM: Final = frozenset({"shutdown", "abort", "reset", "set_maxsize"})

SNAPSHOT: Final = 0.02
"""How often one is begun."""

EVERYBODY_LEAVES: Final = 0.006
LATE_RESET: Final = 0.02
"""How often a Reset comes, perhaps one that was proposed long ago."""
COPY: Final = 0.06
"""How often something is said once more, perhaps long after it."""
DELETED: Final = 0.02
"""How often an object at which somebody waits is deleted."""
DELETED_CROSSED: Final = 0.2
"""The same while somebody stands in the line of another object than the one that he called."""
POINTED: Final = 0.16
"""How often something happens to one who waits, or has just been answered; each bound counts from the one before."""


class Users(Chaos):
    """Chaos of which the reference knows what has to come of it, and that is judged by it, entry by entry."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        if scene := (*SCENES, ())[seed % (len(SCENES) + 1)]:
            self.objects = [known for known in OBJECTS if known[1] in scene]
        self.lanes = self.random.choice((4, 10, 20))
        self.lifetimes = self.random.choice(LIFETIMES)
        self.reference = Reference()
        self.seen: Counter[str] = Counter()
        self._words: deque[object] = deque(maxlen=40)
        self._were_idle: deque[tuple[str, int]] = deque(maxlen=4)
        self._leaving: list[int] = []
        self._writer: SnapshotWriter | None = None
        self._chunks: list[bytes] = []
        self._since: list[Entry] = []

    # --- what is done

    def _command(self) -> object:
        chance = self.random.random()
        if self._leaving:
            return wire.Close(self._leaving.pop())
        idle = tuple(self.machine.idle_namespaces.items())
        self._were_idle.extend(idle)
        if chance < EVERYBODY_LEAVES:
            self._leaving = list(self.machine.sessions)
        elif self._were_idle and chance < (0.3 if idle else LATE_RESET):
            return commands.Reset(*self.random.choice(self._were_idle), self.round, 1)
        elif self._words and chance < (0.8 if idle else COPY):
            return self.random.choice(self._words)
        elif chance < POINTED and (pointed := self._pointed()) is not None:
            return pointed
        while True:
            command = super()._command()
            if not isinstance(command, commands.Delete):
                self._words.append(command)
                return command

    def _pointed(self) -> object | None:
        """To somebody who waits, or whose answer may not have arrived, something happens."""
        lanes = [
            (id, index, lane)
            for id, session in self.reference.sessions.items()
            for index, lane in session.lanes.items()
            if lane.waiting is not None or lane.handed_by is not None
        ]
        if not lanes:
            return None
        id, index, lane = self.random.choice(lanes)
        where = lane.waiting.owner if lane.waiting is not None else lane.handed_by
        handles = [handle for handle, meant in self.reference.sessions[id].handles.items() if meant is where]
        chance = self.random.random()
        if chance < 0.2 and handles:
            return wire.Detach(id, handles[0])
        return wire.Close(id) if chance < 0.27 else wire.Withdraw(id, index, lane.number, chance < 0.7)

    def operation(self, kind: str) -> str:
        """Often what makes others wait or go on, and seldom what ends it all."""
        if self.random.random() < 0.6:
            return self.random.choice(USUAL[kind])
        operation = super().operation(kind)
        return operation if operation not in SELDOM or self.random.random() < 0.1 else USUAL[kind][0]

    def _arguments(self, session: int, meaning: object, operation: str) -> tuple[object, ...]:
        # What is refused for its arguments alone is the business of other tests.
        chance = self.random
        if operation == "release" and "Semaphore" in getattr(meaning, "kind", ""):
            return (chance.choice([1, 1, 1, 2]),)
        if operation == "put":
            return (chance.random() < 0.7, b"%d" % chance.randrange(1000), chance.randrange(3), chance.randrange(2))
        if operation == "shutdown":
            return (chance.random() < 0.5,)
        return super()._arguments(session, meaning, operation)

    # --- what comes of it

    def applied(self, entry: Entry, effects: Effects) -> None:
        assert not effects.faults, effects.faults
        reference = self.reference
        command: Any = commands.codec.decode(entry.value) if entry.kind == EntryKind.COMMAND else None
        judged(reference, entry, command, effects)
        case = f"slot {entry.slot} is {command}"
        objects = self.machine.registry.objects
        assert objects.keys() == reference.objects.keys(), case
        for key, model in reference.objects.items():
            view = tuple([getattr(objects[key], read)(None) for read in model.reads])
            assert view == model.view(), (case, key, view, model.view())
        assert self.machine.idle_namespaces == self._idle(), case
        self.seen.update(reference.seen)
        self._exchange(entry)

    def _idle(self) -> dict[str, int]:
        """Namespaces that nobody uses and that have something to be put back, with the slot of who came last."""
        used = {name for session in self.reference.sessions.values() for name in session.namespaces}
        left = [key for key, model in self.reference.objects.items() if model.lifetime == Lifetime.AUTOMATIC]
        return {name: self.reference.members[name] for name, _ in left if name not in used}

    def _exchange(self, entry: Entry) -> None:
        """The state goes through a snapshot that is written while it changes, and goes on from that and the log."""
        if self._writer is None:
            if self.random.random() < (0.3 if self.machine.idle_namespaces else SNAPSHOT):
                self._writer, self._chunks, self._since = self.machine.snapshot(), [], []
            return
        self._since.append(entry)
        self._chunks.append(self._writer.step(self.random.choice([1, 100, 1_000])))
        if self._writer.done:
            self._writer = None
            restored = Machine.restore(self._chunks)
            for later in self._since:
                restored.apply(later)
            assert restored.digest == self.machine.digest
            self.machine = restored
            self.seen["went through a snapshot"] += 1


class Crowd(Users):
    """All at one object, which soon ends with its users; what ends a queue or a barrier they do again and again, and a
    replica that does not lead speaks for sessions and namespaces as a leader does.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        alone = [known for known in OBJECTS if known[0] != "Condition"]
        self.objects = [alone[seed % len(alone)]]
        self.lanes = self.random.choice((2, 4, 8))
        self.lifetimes = self.random.choice(((2,), (1, 2), (0, 2)))

    def _command(self) -> object:
        command = super()._command()
        if isinstance(command, commands.Expire | commands.Reset) and self.random.random() < 0.2:
            return command._replace(replica=2)
        return command

    def operation(self, kind: str) -> str:
        return self.random.choice(USUAL[kind]) if self.random.random() < 0.7 else Chaos.operation(self, kind)

    def _arguments(self, session: int, meaning: object, operation: str) -> tuple[object, ...]:
        arguments = super()._arguments(session, meaning, operation)
        if operation == "put":
            blocking, item, _, thread = arguments
            return (blocking, item, self.random.randrange(2), thread)  # so that there are equals
        return arguments


class Deleted(Users):
    """Objects are deleted under their users, and most of all those at which somebody waits. Every other log is about a
    Condition and its lock: whoever waits at the one may stand at the other.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        if seed % 2:
            self.objects = [known for known in OBJECTS if known[1] in SCENES[seed // 2 % 2]]

    def _command(self) -> object:
        chance = self.random.random()
        standing = [waiting for session in self.reference.sessions.values() for waiting in session.waits.values()]
        elsewhere = [waiting for waiting in standing if not any(waiting.line is line for line in waiting.owner.lines)]
        if chance < (DELETED_CROSSED if elsewhere and len(standing) > 2 else DELETED) and standing:
            owner = self.random.choice(elsewhere or standing).owner
            name = owner.arguments[1] if elsewhere and self.random.random() < 0.7 else owner.key[1]
            return commands.Delete("n", name)
        if chance < 0.5:
            # Or there would soon be nothing but handles that mean nothing.
            for id, session in self.reference.sessions.items():
                for handle, meant in session.handles.items():
                    if isinstance(meant, Model) and meant.gone:
                        return wire.Detach(id, handle)
        return self._of_a_holder() or super()._command()

    def _of_a_holder(self) -> wire.Call | None:
        """Whoever holds the lock waits, or notifies: where all call at random the lines of a Condition are short."""
        for model in self.reference.objects.values():
            if not isinstance(model, Condition):
                continue
            lock = self.reference.objects.get(model.arguments[:2])
            if not isinstance(lock, Lock) or lock.holder is None:
                continue
            id, thread = lock.holder
            session = self.reference.sessions[id]
            handles = {meant: handle for handle, meant in session.handles.items()}
            free = [lane for lane in range(self.lanes) if lane not in session.waits]
            if model in handles and lock in handles and free and self.random.random() < 0.7:
                lane = self.random.choice(free)
                number = self.numbers[id, lane] = self.numbers.get((id, lane), 0) + 1
                where = (handles[lock], thread)
                notifies = self.random.random() < 0.4
                operation, arguments = ("notify", (*where, 1, None)) if notifies else ("wait", (*where, None))
                call = wire.Call(id, lane, number, handles[model], operation, arguments, self.random.random() < 0.5)
                self.calls.append(call)
                return call
        return None


@pytest.mark.parametrize("seed", range(LOGS))
def test_the_machine_does_as_the_reference(seed: int) -> None:
    """Whatever the log."""
    users = Users(seed)
    for _ in users.entries(LENGTH):
        check(users.machine)


@pytest.mark.parametrize("seed", range(LOGS))
def test_the_machine_does_as_the_reference_in_a_crowd(seed: int) -> None:
    """What it takes many of the same strange things for."""
    users = Crowd(seed)
    for _ in users.entries(LENGTH):
        check(users.machine)


@pytest.mark.parametrize("seed", range(LOGS))
def test_the_machine_does_as_the_reference_while_objects_are_deleted(seed: int) -> None:
    """An operator may do that at any time; nobody waits for what is no more."""
    users = Deleted(seed)
    for _ in users.entries(LENGTH):
        check(users.machine)


def test_the_logs_reach_what_is_rare_in_simulated_worlds() -> None:
    """Or nothing would have been judged."""
    seen: Counter[str] = Counter()
    for seed in range(len(SCENES) + 1):
        users = Users(seed)
        for _ in users.entries(LENGTH):
            pass
        seen += users.seen
    wanted = {
        "went through a snapshot", "automatic object put back", "copy of a call", "answered from the lane",
        "session ended while it waited", "session ended while it held", "withdrawn before it was seen",
        "withdrawn while it waited", "given up while it waited", "withdrawn after it was granted",
        "given back after it was granted",
    }  # fmt: skip
    assert wanted <= set(seen), wanted - set(seen)
