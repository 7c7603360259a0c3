# SPDX-License-Identifier: Apache-2.0
"""What one lock must do, said a second time and as plainly as possible: a holder, a line, and each call's outcome.

It reads the same log as the replicas and shares nothing with them but the words. What a call comes to when it is
withdrawn, copied, or when its session ends stands here as the table in docs/guarantees.md has it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dthreading.wire import messages as wire
from replicas.machine import commands
from replicas.paxos.values import EntryKind, decode_ballot

WAITS = ("waits", 0)
WITHDRAWN = ("withdrawn", 0)

Name = tuple[int, int, int]
"""(session, lane, number) of a call."""


class View(NamedTuple):
    """The state of the lock after an entry."""

    holder: int
    """The session that holds it; 0: nobody."""
    fence: int
    line: tuple[Name, ...]
    epochs: tuple[tuple[int, int], ...]
    """(session, lease epoch) of each that lives."""
    in_force: tuple[int, int]


class Oracle:
    """One lock and the sessions that use it."""

    def __init__(self, sessions: dict[int, int], in_force: tuple[int, int]) -> None:
        self.epochs = dict(sessions)
        self.in_force = in_force
        self.holder: Name | None = None
        self.fence = 0  # of the latest grant; 0 once its holder was lost and nobody followed
        self.fences = 0  # the highest ever
        self.line: list[Name] = []
        self.numbers: dict[tuple[int, int], int] = {}
        self.outcomes: dict[Name, tuple[str, int]] = {}

    def view(self) -> View:
        holder = self.holder[0] if self.holder is not None else 0
        return View(holder, self.fence, tuple(self.line), tuple(self.epochs.items()), self.in_force)

    def apply(self, kind: int, value: bytes) -> None:
        """One entry of the log."""
        if kind == EntryKind.LEADS:
            self.in_force = max(self.in_force, tuple(decode_ballot(value)))
            return
        match commands.codec.decode(value):
            case commands.Expire(session=session, epoch=epoch, round=round, replica=replica):
                if self.epochs.get(session) == epoch and (round, replica) == self.in_force:
                    self._end(session)
            case wire.Close(session=session):
                if session in self.epochs:
                    self._end(session)
            case wire.Resume(session=session):
                if session in self.epochs:
                    self.epochs[session] += 1
            case wire.Call() as call if call.session in self.epochs:
                self._call(call)
            case wire.Withdraw() as withdraw if withdraw.session in self.epochs:
                self._withdraw(withdraw)

    def _is_new(self, session: int, lane: int, number: int) -> bool:
        """Whether nothing of that number, or a higher one, was seen. Then it is, and what stood there has gone."""
        before = self.numbers.get((session, lane), 0)
        if number <= before:
            return False
        self.numbers[session, lane] = number
        old = (session, lane, before)
        if old in self.line:
            self.line.remove(old)
            self.outcomes[old] = WITHDRAWN
        return True

    def _call(self, call: Any) -> None:
        name = (call.session, call.lane, call.number)
        if not self._is_new(*name):
            return
        if call.operation == "acquire":
            self.outcomes[name] = WAITS
            self.line.append(name)
            self._grant()
        elif call.arguments[0] is not None and call.arguments[0] != self.fence:
            self.outcomes[name] = ("lock_lost", 0)
        elif self.holder is None:
            self.outcomes[name] = ("runtime", 0)
        else:
            self.outcomes[name] = ("released", 0)
            self.holder = None
            self._grant()

    def _grant(self) -> None:
        if self.holder is None and self.line:
            self.holder = self.line.pop(0)
            self.fences += 1
            self.fence = self.fences
            self.outcomes[self.holder] = ("granted", self.fence)

    def _withdraw(self, withdraw: Any) -> None:
        name = (withdraw.session, withdraw.lane, withdraw.number)
        if self._is_new(*name):
            self.outcomes[name] = WITHDRAWN
            return
        outcome = self.outcomes.get(name)
        if outcome == WAITS and self.numbers[name[:2]] == name[2]:
            self.line.remove(name)
            self.outcomes[name] = WITHDRAWN if withdraw.undo else ("in vain", 0)
        elif outcome is not None and outcome[0] == "granted" and withdraw.undo and self.numbers[name[:2]] == name[2]:
            self.outcomes[name] = WITHDRAWN
            if self.holder == name:
                self.holder = None
                self._grant()

    def _end(self, session: int) -> None:
        del self.epochs[session]
        for name in self.line:
            if name[0] == session:
                self.outcomes[name] = WITHDRAWN
        self.line = [name for name in self.line if name[0] != session]
        if self.holder is not None and self.holder[0] == session:
            self.holder = None
            self.fence = 0
            self._grant()
