# SPDX-License-Identifier: Apache-2.0
"""The ground that the machine stands on: its parts, what objects may ask of them, and what happens when one breaks.

No command is looked at here. Everything that changes a session or an object passes by `touch`, so that a snapshot that
is being written can save it first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from dthreading.wire.messages import Rejected, Reply, ToClient
from replicas.machine.commands import Audit
from replicas.machine.sessions import Session, Sessions, refused
from replicas.objects.base import Refused, Replicated
from replicas.objects.limits import MACHINE_VERSION, Limits
from replicas.objects.registry import GONE, Registry
from replicas.objects.waiting import Waiter

__all__ = ["Effects", "State", "Writer"]

_NOTHING: Final[tuple[Any, ...]] = ()


class Effects:
    """What one entry brought about. In order; the replica that holds a client's connection says it to the client.

    Nearly every entry brings replies and nothing else, so all else has its defaults here, and costs nothing to make.
    """

    opened: Sequence[tuple[int, bytes]] = _NOTHING
    """(session, nonce): opened, now or before."""
    resumed: Sequence[int] = _NOTHING
    ended: Sequence[int] = _NOTHING
    """Sessions that this entry has ended."""
    idle: Sequence[str] = _NOTHING
    """Namespaces whose last session has ended and that have automatic objects to reset one lease later."""
    refused: Sequence[tuple[int, bytes]] = _NOTHING
    """(session, nonce): a Resume of a live session with a nonce that is not its own. Nobody else may be told."""
    rejected: Sequence[tuple[bytes, Rejected]] = _NOTHING
    """(nonce, why): an Open that a limit refuses."""
    deleted: Sequence[tuple[str, str, bool]] = _NOTHING
    """(namespace, name, whether it was there)."""
    faults: Sequence[Exception] = _NOTHING
    """Objects of ours broke: for the replica's log."""
    audit: Audit | None = None
    """What of the state, as it is now, is to be compared with that of other replicas."""

    def __init__(self) -> None:
        self.replies: list[tuple[int, ToClient]] = []
        """(session, message). An `Ended` answers whoever sent the command, or tells the session that it has ended."""

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing but replies."""
        return len(self.__dict__) == 1


class Writer(Protocol):
    """A snapshot that is being written."""

    def save_session(self, session: Session) -> None:
        """It is about to change."""

    def save_object(self, saved: Replicated) -> None:
        """It is about to change."""


class State:
    """Sessions, objects and counters; the `Host` of every object."""

    def __init__(self, settings: bytes) -> None:
        self.applied = 0
        """The slot that was applied last."""
        self.fence = 0
        """The fence that was taken last."""
        self.limits = Limits()
        self.sessions = Sessions()
        self.registry = Registry(self)
        self._effects = Effects()
        self._writer: Writer | None = None
        self.set_limits(settings)

    def set_limits(self, settings: bytes) -> None:
        """Takes what apply depends on from a configuration's settings."""
        self.limits = Limits.from_settings(settings)
        if self.limits.machine_version > MACHINE_VERSION:
            message = f"the group has gone on to machine version {self.limits.machine_version}; this code knows up to"
            raise RuntimeError(f"{message} {MACHINE_VERSION}: upgrade this replica")
        self.fence = max(self.fence, self.limits.fence_floor)

    def settings_above(self, fence: int) -> bytes:
        """The present settings, but with all further fences above that one: for a configuration entry."""
        return replace(self.limits, fence_floor=max(fence, self.limits.fence_floor)).to_settings()

    # --- what objects ask of the state (objects.base.Host) ----------------------------------------------------------

    def next_fence(self) -> int:
        """The next value of the one fence counter."""
        self.fence += 1
        return self.fence

    def parked(self, waiter: Waiter) -> None:
        """The call waits from now on."""
        session = self.sessions[waiter.session]
        session.waits[waiter.lane] = waiter
        session.lanes[waiter.lane].waiter = waiter

    def answer(self, waiter: Waiter, value: Any) -> None:
        """The parked call returns `value`."""
        subject = waiter.owner if waiter.operation.followed else None
        self._settle(waiter, Reply(waiter.lane, waiter.number, 0, value), subject)

    def refuse(self, waiter: Waiter, refusal: Refused) -> None:
        """The parked call raises `refusal`."""
        self._settle(waiter, refused(waiter.lane, waiter.number, refusal), None)

    def _settle(self, waiter: Waiter, reply: Reply, subject: Replicated | None) -> None:
        assert waiter.queue is None, "who is answered stands in no queue"
        session = self.sessions[waiter.session]
        self._touch_session(session)
        lane = session.lanes[waiter.lane]
        assert lane.waiter is waiter
        lane.settle(reply, subject, waiter.operation if subject is not None else None)
        del session.waits[waiter.lane]
        self._effects.replies.append((session.id, reply))

    def stake(self, session: int, holding: Replicated) -> None:
        """`session` has something in `holding`."""
        known = self.sessions[session]
        if self._writer is not None:
            self._writer.save_session(known)
        known.stakes[holding.number] = holding

    def unstake(self, session: int, holding: Replicated) -> None:
        """It has nothing there any more."""
        known = self.sessions.get(session)
        if known is None:
            return  # what broke while the session lived may speak of it still
        if self._writer is not None:
            self._writer.save_session(known)
        known.stakes.pop(holding.number, None)

    def touch(self, other: Replicated) -> None:
        """`other` is about to change."""
        if self._writer is not None:
            self._writer.save_object(other)

    def touch_session(self, session: int) -> None:
        """A waiter of `session` is about to change."""
        self._touch_session(self.sessions[session])

    def _touch_session(self, session: Session) -> None:
        if self._writer is not None:
            self._writer.save_session(session)

    def _touch_around(self, waiter: Waiter) -> None:
        assert waiter.queue is not None
        self.touch(waiter.owner)
        self.touch(waiter.queue.owner)

    def pin(self, other: Replicated) -> None:
        """`other` must not be dropped."""
        self.touch(other)
        other.attached += 1

    def unpin(self, other: Replicated) -> None:
        """Takes one `pin` back."""
        self.registry.release(other)

    def attached(self, session: int, handle: int) -> Replicated:
        """The object that `handle` means in `session`; raises Refused where it means none."""
        known = self.sessions[session]
        meaning = known.handles.get(handle)
        if isinstance(meaning, Replicated):
            if meaning.fault is not None:
                raise meaning.fault.fresh()
            return meaning
        if meaning is not None:
            raise meaning.fresh()
        most = self.limits.attachments_per_session_max
        if len(known.handles) >= most:
            raise Refused("limit", f"a session is attached to at most {most} objects (attachments_per_session_max)")
        raise Refused("protocol", f"handle {handle} is not attached in this session")

    def find(self, namespace: str, name: str) -> Replicated | None:
        """The object of that name, if it exists."""
        return self.registry.objects.get((namespace, name))

    def _say(self, session: int, message: ToClient) -> None:
        self._effects.replies.append((session, message))

    # --- when an object breaks --------------------------------------------------------------------------------------

    def _guard(self, blamed: Replicated, hook: Callable[..., None], *arguments: Any) -> None:
        """Runs a hook of an object that has not broken; whatever it raises is that object's end, not ours."""
        if blamed.fault is not None and blamed.fault is not GONE:
            return
        try:
            hook(*arguments)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - see above
            self._quarantine(blamed, error)

    def _quarantine(self, broken: Replicated, error: Exception) -> Refused:
        """Nobody may use it any more, and whoever waits at it is told. The error's own text may differ from replica to
        replica, so only its type is said.
        """
        message = f"{broken.kind} {broken.name!r} broke on the replicas ({type(error).__name__}) and is in quarantine"
        broken.fault = fault = Refused("internal", message)
        self._effects.faults = [*self._effects.faults, error]
        self._evict(broken, fault)
        return fault

    def _evict(self, closed: Replicated, fault: Refused) -> None:
        """Refuses whoever waits at it, those of its callers who stand in another object's line, and whoever stands
        nowhere because it broke while it was moving them. O(all waits), which a deleted or broken object may cost.
        """
        waits = (waiter for session in self.sessions.values() for waiter in session.waits.values())
        elsewhere = [w for w in waits if w.queue is None or (w.owner is closed and w.queue.owner is not closed)]
        stood = [(waiter, waiter.queue) for waiter in (*closed.standing(), *elsewhere)]
        for waiter, queue in stood:
            self.touch(waiter.owner)
            if queue is not None:
                self.touch(queue.owner)
                waiter.leave()
            self.refuse(waiter, fault)
        for waiter, queue in stood:
            self._guard(waiter.owner, waiter.owner.abandoned, waiter, queue)
