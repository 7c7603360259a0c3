# SPDX-License-Identifier: Apache-2.0
"""Feeds what threads asked and were told to the black-box search of `dthreading.testing`, which trusts nothing of ours.

Of the log it hears one thing only: from when on a session may have ended. It costs more than all other checks together,
so it judges one object of each world, chosen by the seed, and gives up early: see the limits below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dthreading.session.calls import PendingCall
from dthreading.testing.history import History
from dthreading.testing.linearizability import Verdict, beginning, search
from dthreading.testing.models import MODELS
from dthreading.testing.recorded import Call, Outcome
from dthreading.testing.report import describe
from dthreading.wire.messages import Lifetime, Status
from tests.sim.kernel import Kernel

if TYPE_CHECKING:
    from dthreading.session.core import ClientSession
    from tests.sim.client import Ask, SimulatedClient

CALLS_MAX: Final = 200
"""An object's history is recorded no further than this; a beginning of what can be explained can be explained."""

CONFIGURATIONS_MAX: Final = 4_000
"""Some 50 ms. Beyond it the search says that it does not know, which is counted."""

ERRORS: Final = {
    "runtime": "RuntimeError",
    "value": "ValueError",
    "full": "Full",
    "empty": "Empty",
    "shutdown": "ShutDown",
    "tasks_lost": "TasksLost",
}

UNKNOWN: Final = frozenset({"lock_lost", "gone", "broken"})
"""Errors that no model of one process knows. What raises them changes nothing."""

NAMESPACE: Final = "simulated"
"""Of the objects that are judged: those of others are known by the same names."""

OPERATIONS: Final = {
    "Lock": {"acquire", "release", "locked"},
    "BoundedSemaphore": {"acquire", "release", "value"},
    "Semaphore": {"acquire", "release", "value"},
    "Event": {"set", "clear", "is_set", "wait"},
    "Condition": {"wait", "notify"},
    "Queue": {"put", "get", "task_done", "join", "qsize", "set_maxsize", "shutdown"},
}
OPERATIONS |= dict.fromkeys(("LifoQueue", "PriorityQueue", "SimpleQueue"), OPERATIONS["Queue"])
OPERATIONS["RLock"] = OPERATIONS["Lock"]


class BlackBox:
    """The histories of a world's objects."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.history = History("the simulation")
        self._calls: dict[PendingCall, Call] = {}
        self._counts: dict[str, int] = {}
        self._sessions: dict[str, ClientSession] = {}
        self._over: set[ClientSession] = set()
        self._cut: dict[str, int] = {}
        """By object, the position at which its history ends, if it was cut short."""
        self._left_out: set[str] = set()
        self._items: dict[bytes, Any] = {}

    # --- what happens

    def asks(self, client: SimulatedClient, thread: str, ask: Ask, call: PendingCall) -> None:
        """A call begins."""
        self._watch_session(client)
        name = self._object(ask)
        if name is None:
            return
        root = ask.others[0].name if ask.others else name
        count = self._counts[root] = self._counts.get(root, 0) + 1
        if count > CALLS_MAX:
            # What comes back from here on may be explained by calls that are not recorded.
            self._cut.setdefault(root, next(self.history._positions))
            return
        operation, arguments = self._as_user(ask)
        self._calls[call] = self.history.invoke(client.name, name, operation, arguments, thread=thread)

    def hears(self, ask: Ask, call: PendingCall) -> None:
        """It has ended."""
        recorded = self._calls.get(call)
        if recorded is None:
            return
        if call.lost or call.lane is None:
            self.history.unknown(recorded)  # a call that was never sent: Empty says that it had no time, and no more
        elif call.status == Status.ERROR:
            code = call.value[0]
            if code in UNKNOWN:
                self.history.unknown(recorded)
            else:
                # As `raised`, in the session of the call: its client may have the next one already.
                recorded.value = ERRORS[code]
                self.history._end(recorded, Outcome.RAISED, None, recorded.session)
        else:
            self.history.returned(recorded, self._as_told(ask, call.value), session=recorded.session)

    def abandons(self, ask: Ask, call: PendingCall) -> None:
        """Its thread was interrupted, perhaps with the answer in its hands: what it gave is given back."""
        recorded = self._calls.get(call)
        if recorded is None:
            return
        recorded.returned, recorded.value = None, None
        if ask.manner.hands_out:
            self.history.gave_up(recorded)
        else:
            self.history.unknown(recorded)

    def _watch_session(self, client: SimulatedClient) -> None:
        known = self._sessions.get(client.name)
        if known is not client.session:
            if known is not None:
                self._session_over(client.name, known)
            self._sessions[client.name] = client.session

    def ended(self, session: int) -> None:
        """The log ends that session."""
        for name, known in self._sessions.items():
            if known.id == session:
                self._session_over(name, known)

    def _session_over(self, name: str, session: ClientSession) -> None:
        if session not in self._over:
            self._over.add(session)
            self.history.session_lost(name)

    # --- in the words of the models

    def _object(self, ask: Ask) -> str | None:
        target = ask.target
        name, kind = target.name, target.kind
        if target.namespace != NAMESPACE:
            return None  # there some ask for the same object by its place, and it is put back: half would be missing
        if ask.operation not in OPERATIONS.get(kind, ()) or target.lifetime != Lifetime.NAMED:
            if kind == "RLock":
                self._left_out.add(name)  # release_save: half of its calls would be missing
            return None
        arguments = target.arguments
        if kind == "Condition":
            lock = ask.others[0]
            self.history.declare(lock.name, lock.kind)
            arguments = (lock.name,)
        elif kind == "Semaphore" and not arguments[0]:
            return None  # one that counts things is a new one when it is back at its beginning and nobody uses it
        self.history.declare(name, kind, *arguments)
        return name

    def _as_user(self, ask: Ask) -> tuple[str, tuple[Any, ...]]:
        """The operation as a user of `threading` calls it."""
        kind, arguments = ask.target.kind, ask.arguments
        match ask.operation:
            case "acquire":
                never = -1 if kind in {"Lock", "RLock"} else None
                return "acquire", (arguments[0], never if ask.timeout is None else ask.timeout)
            case "release":
                return "release", () if kind == "RLock" else arguments[:1]
            case "wait":
                return "wait", (ask.timeout,)
            case "notify":
                return ("notify_all", ()) if arguments[2] == -1 else ("notify", (arguments[2],))
            case "put":
                item = arguments[1] if kind != "PriorityQueue" else (arguments[2], frozenset([arguments[1]]))
                self._items[arguments[1]] = item
                return "put", (item, arguments[0], ask.timeout)
            case "get":
                return "get", (arguments[0], ask.timeout)
            case "task_done" | "join":
                return ask.operation, ()
        return ask.operation, arguments

    def _as_told(self, ask: Ask, value: Any) -> Any:
        match ask.target.kind, ask.operation:
            case "RLock", "acquire":
                return value if value is False else value[0]
            case "RLock", "release":
                return None
            case "Condition", "wait":
                return value[0]
            case _, "get":
                return self._items.get(value, value)
            case _, "join":
                return None
        return value

    # --- the judgement

    def judge(self, name: str) -> Verdict:
        """Whether that object's calls have an order that explains every answer; raises AssertionError if they have
        none.
        """
        kind, arguments = self.history.objects[name]
        calls = self.history.calls_of(name)
        end = self._cut.get(name)
        if end is not None:
            calls = beginning(calls, end)
        finding = search(MODELS[kind](*arguments), calls, most=CONFIGURATIONS_MAX)
        if finding.verdict is Verdict.VIOLATION:
            raise AssertionError(describe(name, (kind, arguments), calls, finding))
        self.kernel.seen[f"black box: {kind} {finding.verdict.value}"] += 1
        return finding.verdict

    def finish(self) -> None:
        """Judges the object whose turn it is."""
        names = [name for name, (kind, _) in self.history.objects.items() if kind != "Condition"]
        names = [name for name in names if name not in self._left_out]
        if names:
            self.judge(names[self.kernel.seed % len(names)])
