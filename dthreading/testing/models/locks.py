# SPDX-License-Identifier: Apache-2.0
"""The models of Lock and RLock, each together with the Conditions over it: they are one object to whoever orders calls.

Operations of the lock: acquire(blocking, timeout) answers True, False, or the fence of the grant; release(), or
release(fence) by whoever names the hold; locked(). Of a condition: wait(timeout), notify(n), notify_all().

A wait has two parts: it frees the lock and stands in line; then, notified, it takes the lock again. One that answers
False has a part between, in which it leaves the line without having been notified. Waiters are notified in the order
they came.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Any, ClassVar, Final, NamedTuple

from dthreading.testing.models.base import WHOLE, Answers, Calls, Model, ranked
from dthreading.testing.recorded import Call, Error, Outcome

__all__ = ["Lock", "RLock"]

PARK: Final = "frees the lock"
LEAVE: Final = "stops waiting to be notified"
RETAKE: Final = "takes the lock again"


class Hold(NamedTuple):
    """Who has the lock, how deep, and the fence of the grant where that is known."""

    session: str
    thread: str
    depth: int
    fence: int | None


class Waiting(NamedTuple):
    """A wait that has freed the lock."""

    condition: str
    number: int
    session: str
    depth: int
    notified: bool


class LockState(NamedTuple):
    """The lock and all conditions over it."""

    hold: Hold | None
    fence: int
    """The highest fence known to have been given."""
    line: tuple[Waiting, ...]
    """Who waits to be notified, of all conditions, in order."""
    coming: frozenset[Waiting]
    """Who was notified, or has left the line, and does not hold the lock yet."""
    woken: frozenset[Waiting]
    """Of the sessions that will end, who was notified and held the lock again."""


class Lock(Model):
    """`threading.Lock`: whoever releases it need not be who acquired it."""

    kind: ClassVar[str] = "Lock"

    def initial(self) -> LockState:
        return LockState(None, 0, (), frozenset(), frozenset())

    def owns(self, state: LockState, call: Call) -> bool:  # noqa: ARG002 - of an RLock
        """What "owned" means to a condition: of a Lock, held by anybody."""
        return state.hold is not None

    # --- the lock

    def do_acquire(self, state: LockState, call: Call) -> Answers:
        if state.hold is None:
            yield from self._granted(state, call, 1)
        elif may_fail(call):
            yield False, state

    def do_release(self, state: LockState, call: Call) -> Answers:
        hold = state.hold
        if hold is None:
            yield Error("RuntimeError"), state
            return
        named = call.argument(0, None)
        if named is None or hold.fence is None or named == hold.fence:
            yield None, state._replace(hold=None)

    def do_locked(self, state: LockState, call: Call) -> Answers:  # noqa: ARG002
        yield state.hold is not None, state

    def _granted(self, state: LockState, call: Call, depth: int) -> Answers:
        answer: Any = True
        fence: int | None = None
        if call.outcome is Outcome.RETURNED and type(call.value) is int:
            answer = fence = int(call.value)
            if fence <= state.fence:
                return
        yield answer, state._replace(hold=self._hold(call, depth, fence), fence=fence or state.fence)

    def _hold(self, call: Call, depth: int, fence: int | None) -> Hold:
        # Who holds a Lock matters only if that one's session ends; fewer states are sooner searched.
        return Hold(call.session if call.session in self.ending else "", "", depth, fence)

    # --- the conditions

    def parts(self, call: Call) -> tuple[str, ...]:
        if call.operation != "wait" or call.outcome is Outcome.RAISED:
            return (WHOLE,)
        if call.outcome is Outcome.RETURNED:
            return (PARK, RETAKE) if call.value else (PARK, LEAVE, RETAKE)
        return (PARK, RETAKE) if call.argument(0, None) is None else (PARK, LEAVE, RETAKE)

    def answers(self, state: LockState, call: Call, part: str) -> Answers:
        match part:
            case "frees the lock":
                return self._park(state, call)
            case "stops waiting to be notified":
                return self._leave(state, call)
            case "takes the lock again":
                return self._retake(state, call)
        return super().answers(state, call, part)

    def do_wait(self, state: LockState, call: Call) -> Answers:
        """It raised."""
        if not self.owns(state, call):
            yield Error("RuntimeError"), state

    def _park(self, state: LockState, call: Call) -> Answers:
        if self.owns(state, call) and state.hold is not None:
            waiting = Waiting(call.object, call.number, call.session, state.hold.depth, notified=False)
            yield call.value, state._replace(hold=None, line=(*state.line, waiting))

    def _leave(self, state: LockState, call: Call) -> Answers:
        for waiting in state.line:
            if waiting.number == call.number:
                line = tuple([other for other in state.line if other is not waiting])
                yield call.value, state._replace(line=line, coming=state.coming | {waiting})

    def _retake(self, state: LockState, call: Call) -> Answers:
        if state.hold is not None:
            return
        for waiting in state.coming:
            if waiting.number == call.number:
                woken = state.woken
                if waiting.notified and waiting.session in self.ending:
                    woken |= {waiting}
                hold = self._hold(call, waiting.depth, None)
                yield waiting.notified, state._replace(hold=hold, coming=state.coming - {waiting}, woken=woken)

    def do_notify(self, state: LockState, call: Call) -> Answers:
        if self.owns(state, call):
            yield None, notify(state, call.object, max(0, call.argument(0, 1)))
        else:
            yield Error("RuntimeError"), state

    def do_notify_all(self, state: LockState, call: Call) -> Answers:
        if self.owns(state, call):
            yield None, notify(state, call.object, len(state.line))
        else:
            yield Error("RuntimeError"), state

    # --- sessions

    def ended(self, state: LockState, session: str) -> Iterable[LockState]:
        """Its hold is free, its waiters leave, and the notifications that did not reach them go to others.

        One that had reached its caller a moment before may go to another all the same, since the group need not know
        that it had: so of those each number is allowed.
        """
        hold = state.hold if state.hold is None or state.hold.session != session else None
        lost = [waiting for waiting in state.coming if waiting.session == session and waiting.notified]
        heard: list[Waiting] = []
        for waiting in state.woken:
            if waiting.session == session:
                (lost if waiting.number in self._unheard else heard).append(waiting)
        rest = state._replace(
            hold=hold,
            line=tuple([waiting for waiting in state.line if waiting.session != session]),
            coming=frozenset([waiting for waiting in state.coming if waiting.session != session]),
            woken=frozenset([waiting for waiting in state.woken if waiting.session != session]),
        )
        states = [rest]
        for condition in sorted({waiting.condition for waiting in (*lost, *heard)}):
            least = sum(waiting.condition == condition for waiting in lost)
            most = least + sum(waiting.condition == condition for waiting in heard)
            states = [notify(one, condition, n) for one in states for n in range(least, most + 1)]
        return states

    def undone(self, state: LockState, call: Call) -> Iterator[LockState]:
        hold = state.hold
        if hold is None or (hold.session and hold.session != call.session):
            yield state  # somebody else has released it meanwhile
        else:
            yield state._replace(hold=None if hold.depth == 1 else hold._replace(depth=hold.depth - 1))

    def prepare(self, calls: Calls) -> None:
        super().prepare(calls)
        self._unheard = frozenset(call.number for call in calls if call.operation == "wait" and not call.is_settled)

    def estimates(self, calls: Calls) -> dict[int, tuple[int, int]]:
        """Fences tell the order of the grants."""
        fenced = [call for call in calls if call.operation == "acquire" and fence_of(call) is not None]
        return ranked(sorted(fenced, key=lambda call: (fence_of(call) or 0, call.called)))


class RLock(Lock):
    """`threading.RLock`: whoever has it may take it again, and nobody else may release it."""

    kind: ClassVar[str] = "RLock"

    def owns(self, state: LockState, call: Call) -> bool:
        return state.hold is not None and (state.hold.session, state.hold.thread) == (call.session, call.thread)

    def do_acquire(self, state: LockState, call: Call) -> Answers:
        hold = state.hold
        if hold is None:
            yield from self._granted(state, call, 1)
        elif self.owns(state, call):
            answer: Any = True
            if call.outcome is Outcome.RETURNED and type(call.value) is int:
                if hold.fence is not None and hold.fence != call.value:
                    return
                answer = call.value
            yield answer, state._replace(hold=hold._replace(depth=hold.depth + 1))
        elif may_fail(call):
            yield False, state

    def do_release(self, state: LockState, call: Call) -> Answers:
        if not self.owns(state, call) or state.hold is None:
            yield Error("RuntimeError"), state
        elif state.hold.depth > 1:
            yield None, state._replace(hold=state.hold._replace(depth=state.hold.depth - 1))
        else:
            yield None, state._replace(hold=None)

    def _hold(self, call: Call, depth: int, fence: int | None) -> Hold:
        return Hold(call.session, call.thread, depth, fence)

    def kin(self, call: Call) -> Hashable | None:
        kin = super().kin(call)
        return None if kin is None else (kin, call.session, call.thread)


def notify(state: LockState, condition: str, n: int) -> LockState:
    """The first `n` who wait at that condition go on to the lock."""
    chosen = [waiting for waiting in state.line if waiting.condition == condition][:n]
    if not chosen:
        return state
    line = tuple([waiting for waiting in state.line if waiting not in chosen])
    return state._replace(line=line, coming=state.coming | {one._replace(notified=True) for one in chosen})


def may_fail(call: Call) -> bool:
    """Whether this acquire may say False: it may not wait, or not for ever."""
    return not call.argument(0, True) or call.argument(1, -1) not in {-1, None}


def fence_of(call: Call) -> int | None:
    """The fence that an acquire was granted, where it was recorded."""
    return call.value if call.outcome is Outcome.RETURNED and type(call.value) is int else None
