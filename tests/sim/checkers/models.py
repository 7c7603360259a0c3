# SPDX-License-Identifier: Apache-2.0
"""What each object has to do, one call after the other: tiny sequential models, written from the standard library's
documentation and from what a lease adds to it. They know nothing of `replicas.objects`.

A call answers, raises `Raises`, or waits in a line. Whoever leaves a line is told or refused by the reference. A fence
is not foretold: a grant pledges one, and the reference takes whatever the group gave, if it is greater than all others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from tests.sim.checkers.reference import Reference


class Raises(Exception):
    """The call raises the error of this code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Waits:
    """What a call that waits returns."""


WAITS = Waits()


class Caller(NamedTuple):
    """One call's name, and what it called."""

    session: int
    lane: int
    number: int
    operation: str


@dataclass(eq=False, slots=True)
class Waiting:
    """A call that waits."""

    caller: Caller
    owner: Model
    line: list[Waiting] | None
    thread: int = 0
    data: Any = None
    reign: tuple[int, ...] = ()
    """Who led when it began to wait."""

    def leave(self) -> None:
        """Out of its line."""
        assert self.line is not None
        self.line.remove(self)
        self.line = None


class Model:
    """One object."""

    kind: ClassVar[str]
    reads: ClassVar[tuple[str, ...]] = ()
    """Operations that change nothing, in the order of `view`."""
    undoable: ClassVar[frozenset[str]] = frozenset()
    """Operations whose answer hands out something that can be taken back."""
    followed: ClassVar[frozenset[str]] = frozenset()
    """Operations that stand, and whose answer's arrival matters all the same."""

    def __init__(self, reference: Reference, key: tuple[str, str], arguments: tuple[Any, ...], lifetime: int) -> None:
        self.reference = reference
        self.key = key
        self.arguments = arguments
        self.lifetime = lifetime
        self.attached = 0
        self.gone = False
        """It was deleted, though somebody may be attached to it."""
        self.lines: list[list[Waiting]] = []
        self.made()

    def made(self) -> None:
        """Its first state."""
        raise NotImplementedError

    def call(self, caller: Caller, arguments: tuple[Any, ...]) -> Any:
        """Answers, or WAITS; raises Raises."""
        if caller.operation in self.reads:
            return self.view()[self.reads.index(caller.operation)]
        method: Callable[..., Any] = getattr(self, f"do_{caller.operation}")
        return method(caller, *arguments)

    def line(self) -> list[Waiting]:
        """A new line at this object."""
        self.lines.append([])
        return self.lines[-1]

    def park(self, caller: Caller, line: list[Waiting], thread: int = 0, data: Any = None) -> Waits:
        """The call waits at the end of that line."""
        waiting = Waiting(caller, self, line, thread, data)
        line.append(waiting)
        self.reference.waits(waiting)
        return WAITS

    def first(self, line: list[Waiting]) -> Waiting | None:
        """The head of the line, out of it."""
        if not line:
            return None
        waiting = line.pop(0)
        waiting.line = None
        return waiting

    def told(self, waiting: Waiting, value: Any) -> None:
        """It returns `value`."""
        self.reference.settle(waiting, 0, value)

    def refused(self, waiting: Waiting, code: str) -> None:
        """It raises."""
        self.reference.settle(waiting, 1, code)

    # --- what time and death do

    def timed_out(self, waiting: Waiting) -> None:
        """Its caller waits no longer, and wants to hear how it ended."""
        waiting.leave()
        self.told(waiting, False)

    def left(self, waiting: Waiting, line: list[Waiting]) -> None:
        """Its caller is gone, and it was taken out of `line`."""

    def taken_back(self, caller: Caller, value: Any) -> None:
        """The caller has gone before it could use the answer."""

    def heard(self, caller: Caller) -> None:
        """The answer has reached the caller."""

    def ended(self, session: int) -> None:
        """That session is no more; all its waits are gone already."""

    def initial(self) -> bool:
        """As new, but for whoever waits."""
        raise NotImplementedError

    def view(self) -> tuple[Any, ...]:
        """What its reads answer."""
        return ()

    def kept(self) -> bool:
        """Whether anybody waits here."""
        return any(self.lines)
