# SPDX-License-Identifier: Apache-2.0
"""One recorded call: who asked what of which object, from when to when, and what came of it. And its form in JSON.

Positions, not times, say what came before what: the recorder numbers everything that happens, a call's beginning before
the call is made and its end after it has come back. So of two calls one precedes the other only where it truly did.
Times (`at`) are for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

__all__ = ["SESSION_ENDED", "UNDO", "Call", "Error", "Outcome", "freeze", "from_plain", "to_plain"]

SESSION_ENDED: Final = "session ended"
"""The operation of a session's end. It may take effect at any moment after it was called: a lease runs out when it
does."""

UNDO: Final = "undo"
"""The operation that takes back what a call that was given up may have been granted."""


class Outcome(Enum):
    """What is known of a call's end."""

    OPEN = "open"
    """It has not come back. It may have taken effect, may do so, or never."""
    RETURNED = "returned"
    RAISED = "raised"
    UNKNOWN = "unknown"
    """It came back, or its caller has gone, without a verdict: as OPEN, but nobody waits for its end any more."""


class Error(NamedTuple):
    """What a call raises, in a model: the name of the exception's class."""

    name: str


@dataclass(slots=True, eq=False)
class Call:
    """One call. A `History` makes it, and fills in its end."""

    number: int
    process: str
    session: str
    """What ends when the process, or its lease, does: what it held is free after that."""
    thread: str
    """Who owns an RLock, within the session."""
    object: str
    operation: str
    arguments: tuple[Any, ...]
    called: int
    at: float | None = None
    outcome: Outcome = Outcome.OPEN
    value: Any = None
    """What it returned; of RAISED the name of the exception's class."""
    returned: int | None = None
    returned_at: float | None = None
    parked: int | None = None
    """When its caller had heard that it waits in line."""
    after: int | None = None
    """It takes effect only after that call has."""

    @property
    def is_settled(self) -> bool:
        """Whether its outcome is known, so that it has taken effect exactly once, before it came back."""
        return self.outcome is Outcome.RETURNED or self.outcome is Outcome.RAISED

    def allows(self, answer: Any) -> bool:
        """Whether a model's answer is what the caller saw."""
        if self.outcome is Outcome.RETURNED:
            return type(answer) is not Error and bool(answer == self.value)
        if self.outcome is Outcome.RAISED:
            return type(answer) is Error and answer.name == self.value
        return True

    def argument(self, position: int, default: Any) -> Any:
        """The argument at that position, or what stands for one that was left out."""
        return self.arguments[position] if len(self.arguments) > position else default

    def __str__(self) -> str:
        who = f"{self.process}/{self.thread}" if self.thread else self.process
        arguments = ", ".join(repr(argument) for argument in self.arguments)
        match self.outcome:
            case Outcome.OPEN:
                end = "has not come back"
            case Outcome.RETURNED:
                end = f"-> {self.value!r}"
            case Outcome.RAISED:
                end = f"raised {self.value}"
            case Outcome.UNKNOWN:
                end = "outcome unknown"
        if self.operation == SESSION_ENDED:
            return f"#{self.number} {who}: its session {self.session!r} ends, from {self.called} on"
        span = f"[{self.called}, {'...' if self.returned is None else self.returned}]"
        return f"#{self.number} {who}: {self.object}.{self.operation}({arguments}) {end} {span}"


def freeze(value: Any) -> Any:
    """`value`, or something equal to its like alone that can stand in a set: items may be lists and dictionaries."""
    match value:
        case list():
            return ("a list", *(freeze(element) for element in value))
        case tuple():
            return tuple(freeze(element) for element in value)
        case dict():
            return ("a dictionary", frozenset((freeze(key), freeze(element)) for key, element in value.items()))
        case set() | frozenset():
            return frozenset(freeze(element) for element in value)
        case bytearray():
            return bytes(value)
    return value


def to_plain(value: Any) -> Any:
    """As JSON has it: what JSON would change is wrapped in a dictionary with one key that names its type.

    Raises:
        TypeError: of a value that has no such form, so that the history could not be read back as it was.

    """
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [to_plain(element) for element in value]
        case tuple():
            return {"tuple": [to_plain(element) for element in value]}
        case bytes():
            return {"bytes": value.hex()}
        case dict():
            return {"dict": [[to_plain(key), to_plain(element)] for key, element in value.items()]}
    raise TypeError(f"a {type(value).__qualname__} in a history cannot be kept as JSON: use plain values for items")


def from_plain(value: Any) -> Any:
    """The inverse of `to_plain`."""
    match value:
        case list():
            return [from_plain(element) for element in value]
        case {"tuple": elements}:
            return tuple(from_plain(element) for element in elements)
        case {"bytes": digits}:
            return bytes.fromhex(digits)
        case {"dict": pairs}:
            return {from_plain(key): from_plain(element) for key, element in pairs}
    return value
