# SPDX-License-Identifier: Apache-2.0
"""Records what a program asked of locks and queues and what it was told, and judges whether that could have been.

    history = History()
    lock = history.watch(dthreading.Lock(name="orders"))     # use it in as many threads as you like
    tasks = history.watch(dthreading.queue.Queue(name="tasks"))
    ...
    history.check()                  # AssertionError, naming the calls, if no order of them explains what was seen
    Path("kept.json").write_text(history.to_json())

The judgement (`linearizability`) trusts nothing of the replicas: its models say what `threading` and `queue` do. A
simulator, or a program with clients of its own, tells the history itself: `invoke`, then `returned` or `raised`, or
`unknown`, `lost` or `gave_up`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any, Final, TypeVar, cast

from dthreading.testing import fairness
from dthreading.testing.linearizability import CONFIGURATIONS_MAX, Finding, Verdict, search
from dthreading.testing.models import MODELS
from dthreading.testing.recorded import SESSION_ENDED, UNDO, Call, Outcome, from_plain, to_plain
from dthreading.testing.report import describe

__all__ = ["History", "Undecided"]

T = TypeVar("T")

VERSION: Final = 1
"""Of the form in JSON."""


class Undecided(Exception):
    """The history is neither explained nor refuted: the search gave up. Shorten it, or allow more configurations."""


class History:
    """What happened, call by call. All threads may record at once: each step is one atomic operation.

    Args:
        process: what this process is called in its own calls.

    """

    def __init__(self, process: str = "this process") -> None:
        self.process = process
        self.calls: list[Call] = []
        self.objects: dict[str, tuple[str, tuple[Any, ...]]] = {}
        """By name: the kind, and the arguments it was made with."""
        self._numbers = itertools.count(1)
        self._positions = itertools.count(1)
        self._lives: dict[str, int] = {}
        self._here: Any = None
        """What `watching` knows of this process."""

    def __len__(self) -> int:
        return len(self.calls)

    # --- recording

    def declare(self, object: str, kind: str, *arguments: Any) -> None:
        """Say what `object` is: a class of `threading` or `queue` by name, and what it was made with.

        Args:
            object: its name in the calls.
            kind: "Lock", "Queue", ...; a "Condition" takes the name of its lock as its argument.
            arguments: the model's: Semaphore(value), Barrier(parties, has_action, timeout), Queue(maxsize, redeliver).

        """
        if kind not in MODELS and kind != "Condition":
            raise ValueError(f"no model of a {kind!r}: there are {', '.join(sorted(MODELS))} and Condition")
        if self.objects.setdefault(object, (kind, arguments)) != (kind, arguments):
            raise ValueError(f"{object!r} was declared otherwise: {self.objects[object]}")

    def watch(self, proxy: T, name: str | None = None) -> T:
        """`proxy`, recording all that is asked of it by whoever uses what this returns.

        Args:
            proxy: a lock, condition, queue ... of `dthreading`, or the standard library's own.
            name: what to call it; by default its own name.

        """
        from dthreading.testing.watching import Here  # noqa: PLC0415 - only this needs a client

        if self._here is None:
            self._here = Here(self)
        return cast("T", self._here.watch(proxy, name))  # it has the methods of what it wraps

    def invoke(
        self,
        process: str,
        object: str,
        operation: str,
        arguments: tuple[Any, ...] = (),
        at: float | None = None,
        *,
        thread: str = "",
    ) -> Call:
        """A call begins. What this returns names it from here on.

        Args:
            process: who calls; a session of its own, until `session_lost`.
            object: one that was declared.
            operation: the method's name, with its arguments by position as the user gave them.
            arguments: likewise.
            at: when, for people to read.
            thread: which thread of the process; only one call at a time is made by each.

        """
        position = next(self._positions)
        session = self.session_of(process)
        call = Call(next(self._numbers), process, session, thread, object, operation, arguments, position, at)
        self.calls.append(call)
        return call

    def session_of(self, process: str) -> str:
        """What the present session of `process` is called."""
        life = self._lives.get(process, 0)
        return f"{process}, life {life + 1}" if life else process

    def parked(self, call: Call) -> None:
        """The caller was told that it stands in line."""
        call.parked = next(self._positions)

    def returned(self, call: Call, value: Any = None, at: float | None = None, *, session: str | None = None) -> None:
        """It came back with `value`; of an acquire that may be the fence that it was granted. (`session`: in which, if
        that is known, and it is not the present one.)
        """
        call.value = value
        self._end(call, Outcome.RETURNED, at, session)

    def raised(self, call: Call, error: BaseException | str, at: float | None = None) -> None:
        """It raised, what the object answers: RuntimeError, Empty, BrokenBarrierError, TasksLost ..."""
        call.value = error if type(error) is str else type(error).__name__
        self._end(call, Outcome.RAISED, at)

    def unknown(self, call: Call, at: float | None = None) -> None:
        """It ended without a verdict: it has taken effect, or may still do so, or never."""
        self._end(call, Outcome.UNKNOWN, at)

    def lost(self, call: Call, at: float | None = None) -> None:
        """It ended without a verdict because its session was lost."""
        if call.session == self.session_of(call.process):
            self.session_lost(call.process, at)
        self.unknown(call, at)

    def gave_up(self, call: Call, at: float | None = None) -> None:
        """It ended without a verdict, and what it may be granted yet is given back: `acquire` over its patience."""
        self.unknown(call, at)
        undo = self.invoke(call.process, call.object, UNDO, (call.number,), at, thread=call.thread)
        undo.session, undo.after, undo.outcome = call.session, call.number, Outcome.UNKNOWN

    def _end(self, call: Call, outcome: Outcome, at: float | None, session: str | None = None) -> None:
        call.returned_at = at
        if outcome is not Outcome.UNKNOWN:
            session = session or self.session_of(call.process)
            if call.session != session:
                # Its session was lost while it was under way, and it was asked again: once in each.
                number = next(self._numbers)
                self.calls.append(replace(call, number=number, outcome=Outcome.UNKNOWN, value=None))
                call.session = session
            call.returned = next(self._positions)
        call.outcome = outcome

    def session_lost(self, process: str | None = None, at: float | None = None, *, since: int | None = None) -> None:
        """From here on the group may end the session of `process`, and give what it holds to others: the process was
        killed, or its lease has run out by its own clock. Whatever it calls after this it calls in a new session.

        Args:
            process: whose; this one's if left out.
            at: when, for people to read.
            since: from which position on, where that lies further back.

        """
        process = self.process if process is None else process
        ending = self.invoke(process, "", SESSION_ENDED, (), at)
        ending.outcome = Outcome.UNKNOWN
        if since is not None:
            ending.called = since
        self._lives[process] = self._lives.get(process, 0) + 1

    # --- judging

    def check(self, *, settled: bool = False, configurations_max: int = CONFIGURATIONS_MAX) -> None:
        """Whether each object's calls have an order that explains every answer.

        Args:
            settled: the program has ended, or nothing goes on in it: who still waits must have nothing to wait for no
                longer. So a lost wake-up is found.
            configurations_max: how long to search, for each object.

        Raises:
            AssertionError: they have none. It shows the shortest beginning of the history that has none.
            Undecided: the search was given up.

        """
        self._check_fences()
        undecided = []
        for name in self._roots():
            calls, finding = self.judge(name, configurations_max=configurations_max, settled=settled)
            if finding.verdict is Verdict.VIOLATION:
                raise AssertionError(describe(name, self.objects[name], calls, finding))
            if finding.verdict is Verdict.UNDECIDED:
                undecided.append(f"{name} ({len(calls)} calls)")
        if undecided:
            raise Undecided(f"no verdict within {configurations_max} configurations on {', '.join(undecided)}")

    def judge(
        self, name: str, *, configurations_max: int = CONFIGURATIONS_MAX, settled: bool = False
    ) -> tuple[list[Call], Finding]:
        """The calls of one object (a lock with all conditions over it), and what the search says of them."""
        kind, arguments = self.objects[name]
        calls = self.calls_of(name)
        return calls, search(MODELS[kind](*arguments), calls, most=configurations_max, settled=settled)

    def check_fairness(self) -> None:
        """Whether waiters were served in the order in which they had been told that they wait (`parked`).

        Raises:
            AssertionError: one who came later went first, and nothing explains it.

        """
        for name in self.objects:
            fairness.check(name, [call for call in self.calls if call.object == name])

    def calls_of(self, name: str) -> list[Call]:
        """The calls to that object, and the ends of the sessions that made any."""
        together = {name} | {other for other in self.objects if self._root(other) == name}
        calls = [call for call in self.calls if call.object in together]
        sessions = {call.session for call in calls}
        endings = [call for call in self.calls if call.operation == SESSION_ENDED and call.session in sessions]
        return sorted([*calls, *endings], key=lambda call: call.called)

    def _root(self, name: str) -> str:
        kind, arguments = self.objects[name]
        return str(arguments[0]) if kind == "Condition" else name

    def _roots(self) -> list[str]:
        roots = dict.fromkeys(self._root(name) for name in self.objects)
        unknown = sorted({call.object for call in self.calls if call.object} | set(roots) - set(self.objects))
        undeclared = [name for name in unknown if name not in self.objects]
        if undeclared:
            raise ValueError(f"what are {undeclared}? say so with declare()")
        return list(roots)

    def _check_fences(self) -> None:
        """A fence belongs to one grant, whatever the lock: the deeper acquires of an RLock repeat their own."""
        owners: dict[int, Call] = {}
        for call in self.calls:
            if call.operation == "acquire" and call.outcome is Outcome.RETURNED and type(call.value) is int:
                owner = owners.setdefault(call.value, call)
                same = (owner.object, owner.session, owner.thread) == (call.object, call.session, call.thread)
                if owner is not call and not (same and self.objects[call.object][0] == "RLock"):
                    raise AssertionError(f"one fence was given twice:\n    {owner}\n    {call}")

    # --- keeping

    def to_json(self) -> str:
        """The whole history, to be kept as a test: the same text for the same history."""
        calls = []
        for call in self.calls:
            plain = {one.name: getattr(call, one.name) for one in fields(Call)}
            plain |= {"outcome": call.outcome.value, "value": to_plain(call.value)}
            plain["arguments"] = [to_plain(argument) for argument in call.arguments]
            calls.append({name: value for name, value in plain.items() if value is not None})
        objects = {name: [kind, *map(to_plain, arguments)] for name, (kind, arguments) in self.objects.items()}
        rows = ",\n  ".join(json.dumps(call) for call in calls)
        head = f'"version": {VERSION},\n "process": {json.dumps(self.process)},\n "objects": {json.dumps(objects)}'
        return f'{{{head},\n "calls": [\n  {rows}\n ]\n}}\n' if rows else f'{{{head},\n "calls": []\n}}\n'

    @classmethod
    def from_json(cls, text: str) -> History:
        """The inverse of `to_json`.

        Raises:
            ValueError: it is none, or one of another version.

        """
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("version") != VERSION:
            raise ValueError(f"not a history of version {VERSION}")
        history = cls(document["process"])
        for name, (kind, *arguments) in document["objects"].items():
            history.declare(name, kind, *map(from_plain, arguments))
        for row in document["calls"]:
            row["arguments"] = tuple([from_plain(argument) for argument in row.get("arguments", ())])
            row["outcome"] = Outcome(row["outcome"])
            row["value"] = from_plain(row.get("value"))
            history.calls.append(Call(**row))
        highest = max((max(call.called, call.returned or 0, call.parked or 0) for call in history.calls), default=0)
        history._positions = itertools.count(highest + 1)
        history._numbers = itertools.count(max((call.number for call in history.calls), default=0) + 1)
        for call in history.calls:
            if call.operation == SESSION_ENDED:
                history._lives[call.process] = history._lives.get(call.process, 0) + 1
        return history

    @classmethod
    def merged(cls, histories: Iterable[History]) -> History:
        """One history of several, each recorded in a process of its own, by their times (`at`).

        Their clocks must be one: `time.monotonic` of one machine. What has the same time counts as overlapping.
        """
        merged = cls("merged")
        events: list[tuple[float, int, Call, str]] = []
        for history in histories:
            for name, (kind, arguments) in history.objects.items():
                merged.declare(name, kind, *arguments)
            offset = next(merged._numbers) - 1
            for call in history.calls:
                if call.at is None or (call.is_settled and call.returned_at is None):
                    raise ValueError(f"without a time it cannot be merged: {call}")
                after = None if call.after is None else call.after + offset
                copy = replace(call, number=call.number + offset, after=after)
                merged.calls.append(copy)
                events.append((call.at, 0, copy, "called"))
                if call.returned is not None:
                    assert call.returned_at is not None
                    events.append((call.returned_at, 1, copy, "returned"))
            merged._numbers = itertools.count(offset + max((call.number for call in history.calls), default=0) + 2)
        for position, (_, _, call, field) in enumerate(sorted(events, key=lambda event: event[:2]), 1):
            setattr(call, field, position)
            call.parked = None
        merged._positions = itertools.count(len(events) + 1)
        return merged
