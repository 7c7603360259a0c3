# SPDX-License-Identifier: Apache-2.0
"""Asks copies of the state what nobody in the world happens to ask: now and then, of a replica's machine and of the
reference, and both must give the same answers to the end.

A state that is wrong in silence (who has heard of what, what would come back, whose hold a late undo meant) shows only
to whoever asks the right question next. Here the questions are drawn from what the state holds (questions.py); in the
end all that is in it is taken out, and all sessions end. The copy of the machine is made from its snapshot, so what a
snapshot leaves out is found as well. The world itself hears and feels nothing of it.
"""

from __future__ import annotations

import pickle
import random
from typing import Any, Final

from dthreading.wire import messages as wire
from replicas.machine import commands
from replicas.machine.core import Machine
from replicas.paxos.values import Ballot, Entry, EntryKind, encode_ballot
from tests.sim.checkers.judging import judged, same_lines, shows
from tests.sim.checkers.questions import Questions
from tests.sim.checkers.reference import Reference
from tests.sim.kernel import Kernel

__all__ = ["Probe"]

EVERY: Final = 130
"""So many entries lie between two probes, on average."""
QUESTIONS_MAX: Final = 24
DRAWN_MAX: Final = 12
"""So many items are taken out of each queue in the end."""


class Probe:
    """Looks at one world's states."""

    def __init__(self, kernel: Kernel, reference: Reference) -> None:
        self._kernel = kernel
        self._reference = reference
        self._luck = kernel.luck("probe")
        self._next = self._luck.randint(1, 2 * EVERY)

    def perhaps(self, machine: Machine) -> None:
        """An entry was applied by the first replica that comes to it."""
        if machine.applied >= self._next:
            self._next = machine.applied + self._luck.randint(1, 2 * EVERY)
            self._kernel.seen["state: a copy of it was questioned"] += 1
            Examination(machine, self._reference, self._luck).run()


class Examination:
    """One copy of the state, and what it is asked."""

    def __init__(self, machine: Machine, reference: Reference, luck: random.Random) -> None:
        self.machine = Machine.restore([machine.dump()])
        self.reference: Reference = pickle.loads(pickle.dumps(reference, -1))
        self._luck = luck
        self._asked: list[object] = []

    def run(self) -> None:
        """Raises AssertionError, with all that was asked of the copy."""
        try:
            same_lines(self.reference, self.machine)
            questions = Questions(self.reference, self._luck)
            for _ in range(self._luck.randint(0, QUESTIONS_MAX)):
                if (question := questions.draw()) is not None:
                    self.ask(question)
            same_lines(self.reference, self.machine)
            if self._luck.random() < 0.3:
                self._empty(b"probe 1")
            sessions = [*self.reference.sessions]
            self._luck.shuffle(sessions)
            for session in sessions:
                self.ask(commands.Expire(session, self.reference.sessions[session].epoch, *self._in_force()))
            self._empty(b"probe 2")
            same_lines(self.reference, self.machine)
        except Exception as error:
            error.add_note(f"a copy of the state was asked, one after the other: {self._asked}")
            raise

    def ask(self, question: Any) -> None:
        """An entry of the log with that command; or LEADS of a ballot."""
        self._asked.append(question)
        command = None
        if type(question) is Ballot:
            kind, value = EntryKind.LEADS, encode_ballot(question)
        else:
            kind, value, command = EntryKind.COMMAND, commands.codec.encode(question), question
        entry = Entry(self.machine.applied + 1, Ballot(1, 1), kind, value)
        effects = self.machine.apply(entry)
        assert not effects.faults, effects.faults
        judged(self.reference, entry, command, effects)
        shows(self.reference, self.machine)
        assert self.machine.ballot_in_force == self.reference.in_force, "another ballot is in force"

    def _in_force(self) -> tuple[int, int]:
        round, replica = self.reference.in_force
        return round, replica

    def _empty(self, nonce: bytes) -> None:
        """Somebody new takes whatever is to be had."""
        self.ask(wire.Open(nonce, 2_000, "probe", ""))
        (session,) = [id for id, known in self.reference.sessions.items() if known.nonce == nonce]
        calls = 0
        for handle, model in enumerate([*self.reference.objects.values()], 1):
            self.ask(wire.Attach(session, handle, *model.key, model.kind, model.arguments, model.lifetime, False))
            operation, arguments = _LAST.get(model.kind, ("get", (False, 1)))
            for _ in range(len(model.items) and min(len(model.items), DRAWN_MAX) if operation == "get" else 1):  # type: ignore[attr-defined]
                calls += 1
                self.ask(wire.Call(session, calls, 1, handle, operation, arguments, False))
        self.ask(wire.Close(session))


_LAST: Final[dict[str, tuple[str, tuple[Any, ...]]]] = {
    "Lock": ("acquire", (False, 1)),
    "RLock": ("acquire", (False, 1)),
    "Semaphore": ("acquire", (False, 1)),
    "BoundedSemaphore": ("acquire", (False, 1)),
    "Event": ("is_set", ()),
    "Barrier": ("wait", (False, 1)),
    "Condition": ("waiters", ()),
}
"""What is asked of each kind in the end; of queues all their items."""
