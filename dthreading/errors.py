# SPDX-License-Identifier: Apache-2.0
"""Every error that only a distributed program can meet, as one tree. What the standard library raises, we raise: its
very classes.

    Exception
    ├── DThreadingError                      the root of all below
    │   ├── LockLost (RuntimeError)          you held it, and your lease ended before you were done
    │   ├── OutcomeUnknown (RuntimeError)    the session ended with the call on its way: it may have happened, once
    │   ├── GroupUnreachable (ConnectionError)   no replica answered for one lease
    │   ├── TasksLost (RuntimeError)         join(): getters died with n items taken and not done
    │   ├── ItemUnreadable (ValueError)      get(): the item was taken, and this process cannot make an object of it
    │   ├── ObjectGone (RuntimeError)        a private object whose last session has ended
    │   ├── ObjectMismatch (ValueError)      the name belongs to another kind, or was made with other arguments
    │   ├── AmbiguousName (ValueError)       strict naming: this place makes a new object on each evaluation
    │   ├── NotAuthenticated (PermissionError)   the group did not accept our secret, or could not show that it knows it
    │   ├── WrongGroup (RuntimeError)        a pickled proxy, or data, of another group than the one we are bound to
    │   ├── LimitExceeded (RuntimeError)     a named limit of dthreading.wire.limits or of the group
    │   ├── InternalError (RuntimeError)     our fault: an object of ours broke; it is quarantined, nothing else is
    │   └── ProtocolError (ValueError)       bytes that are not our protocol; ends that one connection

An error crosses the wire as (code, message, details); codes and classes are paired in one table here and nowhere else.
"""

from __future__ import annotations

import builtins
import queue as _queue
import threading as _threading
from typing import Any, Final

__all__ = [
    "AmbiguousName",
    "DThreadingError",
    "GroupUnreachable",
    "InternalError",
    "ItemUnreadable",
    "LimitExceeded",
    "LockLost",
    "NotAuthenticated",
    "ObjectGone",
    "ObjectMismatch",
    "OutcomeUnknown",
    "ProtocolError",
    "ShutDown",
    "TasksLost",
    "WrongGroup",
    "from_wire",
]


class DThreadingError(Exception):
    """The root of the errors that only a distributed program can meet."""


class LockLost(DThreadingError, RuntimeError):
    """What you held is no longer yours: your lease ended, and another client may hold it now."""


class OutcomeUnknown(DThreadingError, RuntimeError):
    """The session ended while this call was on its way: it has happened once or not at all, and nobody can say
    which.
    """


class GroupUnreachable(DThreadingError, ConnectionError):
    """No replica of the group answered for one lease."""


class TasksLost(DThreadingError, RuntimeError):
    """`Queue.join()`: getters ended with items taken and not done. `count` says how many."""

    def __init__(self, message: str, count: int = 0) -> None:
        super().__init__(message)
        self.count = count


class ItemUnreadable(DThreadingError, ValueError):
    """`get()`: the item was taken, and this process cannot make an object of its bytes. `payload` has them; the cause
    says why.
    """

    def __init__(self, message: str, payload: bytes = b"") -> None:
        super().__init__(message)
        self.payload = payload


class ObjectGone(DThreadingError, RuntimeError):
    """A private object whose creator's session, and every other one that used it, has ended."""


class ObjectMismatch(DThreadingError, ValueError):
    """The name belongs to an object of another kind, or one made with other arguments."""


class AmbiguousName(DThreadingError, ValueError):
    """Strict naming: an object made here is new on each evaluation, so it is not shared by name. Give it `name=`."""


class NotAuthenticated(DThreadingError, PermissionError):
    """The two ends of a connection do not share a secret."""


class WrongGroup(DThreadingError, RuntimeError):
    """Something that belongs to another group of replicas."""


class LimitExceeded(DThreadingError, RuntimeError):
    """A named limit was reached; the message names it."""


class InternalError(DThreadingError, RuntimeError):
    """An object broke on the replicas: our fault. It is quarantined; everything else goes on."""


class ProtocolError(DThreadingError, ValueError):
    """These bytes are not our protocol."""


if hasattr(_queue, "ShutDown"):
    ShutDown = _queue.ShutDown
else:

    class ShutDown(Exception):  # type: ignore[no-redef]
        """Raised by put and get of a queue that was shut down (CPython 3.13's own class there)."""


_CLASS_OF_CODE: Final[dict[str, type[Exception]]] = {
    # The standard library's own, so that `except` clauses of unchanged programs work.
    "runtime": RuntimeError,
    "value": ValueError,
    "type": TypeError,
    "empty": _queue.Empty,
    "full": _queue.Full,
    "shutdown": ShutDown,
    "broken": _threading.BrokenBarrierError,
    # Ours.
    "lock_lost": LockLost,
    "outcome_unknown": OutcomeUnknown,
    "unreachable": GroupUnreachable,
    "tasks_lost": TasksLost,
    "gone": ObjectGone,
    "mismatch": ObjectMismatch,
    "not_authenticated": NotAuthenticated,
    "wrong_group": WrongGroup,
    "limit": LimitExceeded,
    "internal": InternalError,
    "protocol": ProtocolError,
}

_NO_MESSAGE: Final = frozenset({"empty", "full", "shutdown", "broken"})
"""The standard library raises these without arguments, and so do we when the message is empty."""


def from_wire(code: str, message: str, details: tuple[Any, ...] = ()) -> Exception:
    """The exception that a replica's error stands for.

    Args:
        code: one of the codes of the table above; an unknown one (a newer replica's) becomes `DThreadingError`.
        message: the sentence for the user.
        details: what the class keeps besides, e.g. `(count,)` of `TasksLost`.

    """
    cls = _CLASS_OF_CODE.get(code)
    if cls is None:
        return DThreadingError(f"{code}: {message}")
    if cls is TasksLost:
        return TasksLost(message, *details)
    if code in _NO_MESSAGE and not message:
        return cls()
    return cls(message)


def is_code(code: str) -> bool:
    """Whether `code` stands in the table: replicas assert it of every error that they send."""
    return code in _CLASS_OF_CODE


assert builtins.issubclass(LockLost, RuntimeError), "a program that catches the stdlib's error must catch ours"
