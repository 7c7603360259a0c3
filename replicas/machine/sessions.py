# SPDX-License-Identifier: Apache-2.0
"""Sessions and their lanes as replicated values: who is there, which call each lane has seen last, and its one answer.

At most once, from these fields alone: (session, lane, number) names a call for ever and a lane's numbers grow. So a
number above the lane's last is new, the last itself is a copy (answered again, or told that it is parked), and a lower
one is a copy of something whose caller has moved on. Nothing here decides; the machine does.
"""

from __future__ import annotations

from typing import Any, Final

from dthreading.wire.messages import Reply, Status
from replicas.objects.base import Operation, Refused, Replicated
from replicas.objects.waiting import Waiter

__all__ = ["WITHDRAWN", "Lane", "Session", "Sessions", "parked", "refused"]

WITHDRAWN: Final = ("runtime", "withdrawn by its caller: it has not happened, or was undone", ())
"""The answer that stands on a lane whose call was withdrawn and not answered by its object. Nobody waits for it but the
client's own bookkeeping, and a caller that asked for the verdict of a call that no replica had seen."""


def refused(lane: int, number: int, refusal: Refused) -> Reply:
    """The reply by which a call raises."""
    return Reply(lane, number, int(Status.ERROR), refusal.value)


def parked(lane: int, number: int) -> Reply:
    """The reply that says: it waits."""
    return Reply(lane, number, int(Status.PARKED), None)


class Lane:
    """One call slot. At most one of `waiter` and `reply` is set; neither: the answer was acknowledged."""

    __slots__ = ("number", "operation", "reply", "subject", "waiter")

    def __init__(self, number: int) -> None:
        self.number = number
        self.waiter: Waiter | None = None
        self.reply: Reply | None = None
        # What the answer handed out and who could take it back; None once the answer is acknowledged.
        self.subject: Replicated | None = None
        self.operation: Operation | None = None

    @property
    def undoable(self) -> bool:
        """Whether its answer handed out something that can be taken back."""
        return self.operation is not None and self.operation.undoable

    @property
    def stands(self) -> bool:
        """Whether an undo leaves its answer as it is: it gave nothing, or nothing that can be taken back. A grant whose
        object is gone does not stand, since whoever undoes it takes a grant for one that was still on its way.
        """
        reply = self.reply
        if reply is None or self.undoable:
            return False
        return self.subject is not None or reply.status != Status.OK or reply.value is None or reply.value is False

    def settle(self, reply: Reply, subject: Replicated | None = None, operation: Operation | None = None) -> None:
        """The call of this lane is answered."""
        self.waiter = None
        self.reply = reply
        self.subject = subject
        self.operation = operation


class Session:
    """One client. `id` is the slot of its opening."""

    __slots__ = (
        "epoch", "handle_top", "handles", "id", "label", "lanes", "namespace", "namespaces", "nonce", "stakes",
        "ttl_ms", "waits",
    )  # fmt: skip

    def __init__(self, id: int, nonce: bytes, ttl_ms: int, namespace: str, label: str) -> None:
        self.id = id
        self.nonce = nonce
        self.ttl_ms = ttl_ms
        self.namespace = namespace
        self.label = label
        self.epoch = 1
        """Raised by every Open and Resume that is applied: an Expire proposed before it has come too late."""
        self.lanes: dict[int, Lane] = {}
        self.handles: dict[int, Replicated | Refused] = {}
        """What each handle means, or why it means nothing."""
        self.handle_top = 0
        """The highest handle ever attached or detached: an Attach that comes again, or too late, is known by it."""
        self.stakes: dict[int, Replicated] = {}
        """By number, the objects that are to hear of the session's end, by when it came to have something there."""
        self.waits: dict[int, Waiter] = {}
        """By lane, its parked calls in the order they parked."""
        self.namespaces: dict[str, None] = {}
        """Its own namespace and all others that it has attached to objects of."""


class Sessions(dict[int, Session]):
    """All live sessions by id, in the order they were opened; and by nonce, so that a resent Open finds its session."""

    def __init__(self) -> None:
        super().__init__()
        self._by_nonce: dict[bytes, Session] = {}

    def add(self, session: Session) -> None:
        """A session that was just opened or restored."""
        assert session.id not in self
        assert session.nonce not in self._by_nonce
        self[session.id] = session
        self._by_nonce[session.nonce] = session

    def drop(self, session: Session) -> None:
        """It has ended."""
        del self[session.id]
        del self._by_nonce[session.nonce]

    def opened_with(self, nonce: bytes) -> Session | None:
        """The session that this Open has opened before."""
        return self._by_nonce.get(nonce)


def label_of(sessions: dict[int, Session], session: int) -> Any:
    """Who that is, for people."""
    known = sessions.get(session)
    return known.label if known is not None else ""
