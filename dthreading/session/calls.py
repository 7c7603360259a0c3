# SPDX-License-Identifier: Apache-2.0
"""What a call is: how it behaves when nothing goes as planned, what it is made to, and what is known of one on its way.

The table of manners is the only home of the promise what happens to a call when its session ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dthreading.wire.messages import Lifetime, Reply, Status

if TYPE_CHECKING:
    from dthreading.session.core import ClientSession
    from dthreading.session.lanes import Lane


__all__ = ["Answer", "Manner", "OnLost", "PendingCall", "Target"]

_NONE: Final = -1
_ERROR: Final = int(Status.ERROR)
_PARKED: Final = int(Status.PARKED)


class OnLost(Enum):
    """What becomes of a call whose session ended before its outcome was known."""

    RETRY = "asked again in a new session: nothing that it took has survived the old one"
    LOCK_LOST = "raises LockLost: what was held is gone"
    UNKNOWN = "raises OutcomeUnknown: it happened once or not at all"
    BROKEN = "raises BrokenBarrierError: the end of a waiting session breaks its barrier"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a call behaves when nothing goes as planned; one constant below for each row of the table."""

    parks: bool
    """It may wait in the replicated state. If not: GroupUnreachable after one lease without an answer."""
    on_lost: OnLost
    patience: bool = False
    """Answers False when nobody said anything for timeout + patience, and leaves an undo behind."""
    interrupt_keeps: bool = False
    """Ctrl-C withdraws it, and is raised only when its verdict is there (the lock is held again)."""
    hands_out: bool = False
    """What it answers is taken back by an undo, which is answered by an error then; all else has nothing to undo."""
    carries_item: bool = False
    """Its answer hands something over, which goes back to where it was unless it is acknowledged."""
    silent: bool = False
    """It has nothing to answer, so a finalizer that the collector runs in our own thread does not wait for it."""
    expired: str = ""
    """The error of a timed call that was never sent, or is not asked again as its time is up; "" answers False."""


ACQUIRE: Final = Manner(parks=True, hands_out=True, patience=True, on_lost=OnLost.RETRY)
TRY_ACQUIRE: Final = Manner(parks=False, hands_out=True, on_lost=OnLost.RETRY)
RELEASE: Final = Manner(parks=False, on_lost=OnLost.LOCK_LOST)
"""release, release_save, notify."""
RESTORE: Final = Manner(parks=True, hands_out=True, on_lost=OnLost.LOCK_LOST)
"""acquire_restore."""
WAIT_CONDITION: Final = Manner(parks=True, on_lost=OnLost.LOCK_LOST, interrupt_keeps=True, carries_item=True)
"""What it carries is the notification: unless it arrived, somebody else gets it."""
PUT: Final = Manner(parks=True, on_lost=OnLost.UNKNOWN, expired="full")
PUT_NOWAIT: Final = Manner(parks=False, on_lost=OnLost.UNKNOWN)
PUT_SIMPLE: Final = Manner(parks=False, on_lost=OnLost.UNKNOWN, silent=True)
"""Into a queue that is never full."""
CHANGE: Final = Manner(parks=False, on_lost=OnLost.UNKNOWN, silent=True)
"""Semaphore.release, Event.set and clear, task_done, shutdown, set_maxsize, abort, reset, action_done."""
GET: Final = Manner(parks=True, hands_out=True, on_lost=OnLost.RETRY, carries_item=True, expired="empty")
GET_NOWAIT: Final = Manner(parks=False, hands_out=True, on_lost=OnLost.RETRY, carries_item=True)
WAIT_BARRIER: Final = Manner(parks=True, hands_out=True, on_lost=OnLost.BROKEN, expired="broken")
WAIT_EVENT: Final = Manner(parks=True, patience=True, on_lost=OnLost.RETRY)
JOIN: Final = Manner(parks=True, on_lost=OnLost.RETRY)
READ: Final = Manner(parks=False, on_lost=OnLost.RETRY)


class Target:
    """The replicated object that a proxy stands for. Two targets are two attachments, also when all fields are equal.

    `known` is set once a call on it was answered: a private object is never made anew after that.
    """

    __slots__ = ("__weakref__", "arguments", "create", "kind", "known", "lifetime", "name", "namespace")

    def __init__(
        self, namespace: str, name: str, kind: str, arguments: tuple[Any, ...], lifetime: int, *, create: bool = True
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.kind = kind
        self.arguments = arguments
        self.lifetime = lifetime
        self.create = create
        self.known = False

    def described(self) -> tuple[Any, ...]:
        """As an attachment names it."""
        create = self.create and not (self.known and self.lifetime == Lifetime.PRIVATE)
        return self.namespace, self.name, self.kind, self.arguments, int(self.lifetime), create

    def __repr__(self) -> str:
        return f"{self.kind} {self.name!r}"


class Answer(NamedTuple):
    """What a call gave, and the session it was given to: a hold is valid for that session alone (0: no session)."""

    value: Any
    session: int


class PendingCall:
    """One attempt at one call, from its start to its answer. `wake`, `reading`, `taking` and `read_until` are the
    runtime's; nothing here looks at them.

    What a call begins with stands in the class: to fill so many slots would be a twentieth of what a call costs.
    """

    reading: Any = None
    taking = False
    read_until = 0.0
    session: ClientSession | None = None
    lane: Lane | None = None
    number = 0
    frame = b""
    sent = False
    """It may have left this process. Never False again."""
    abandoned = False
    """Its caller has gone."""
    unwaited = False
    """Nobody waits for its end: whoever settles it gives its lane back."""
    withdrawn = False
    """Its caller waits for the verdict only."""
    finished = False
    """Its caller has the answer, and the lane is free."""
    parked_at: float | None = None
    settled = False
    """Set last: one of the four below says how."""
    status = _NONE
    value: Any = None
    lost = False
    error: Exception | None = None
    """It could not be sent at all."""

    def __init__(
        self,
        target: Target,
        operation: str,
        arguments: tuple[Any, ...],
        manner: Manner,
        others: tuple[Target, ...] = (),
        *,
        tell: bool = False,
        wake: Any = None,
    ) -> None:
        self.target = target
        self.operation = operation
        self.arguments = arguments
        self.manner = manner
        self.others = others
        self.tell = tell
        self.wake = wake

    def heard(self, reply: Reply, now: float) -> None:
        """A replica's word about it."""
        status = reply.status
        if status != _ERROR:
            self.target.known = True
        if status != _PARKED:
            self.status = status
            self.value = reply.value
            self.settled = True
        elif self.parked_at is None:
            self.parked_at = now

    def undone_by(self, reply: Reply) -> bool:
        """Whether `reply` says that the undo of this call is done, and is not the grant, which was on its way."""
        if reply.number != self.number or reply.status == Status.PARKED:
            return False
        return not (self.manner.hands_out and reply.status == Status.OK and reply.value is not False)
