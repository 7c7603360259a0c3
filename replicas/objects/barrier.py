# SPDX-License-Identifier: Apache-2.0
"""Barrier: filling, running its action, broken.

    FILLING --(the last party came; one has an action)--> ACTING --(the action ended well)--> FILLING
       |                                                    |
       +--(timeout, abort, the end of a waiting session)--> BROKEN <--(the action failed)--+
                                                            BROKEN --reset--> FILLING

The last party completes it; if anybody brought an action, the last one who did runs it, in its own process, while the
others wait. In the standard library the lock of the barrier is held meanwhile. So here: whoever comes then (a party of
the next round, an abort, a reset) waits at the entrance until the action has ended, and is let in by the order it came;
a timeout during the action comes too late to break anything. Draining takes no time: all are answered in one step.
"""

# ruff: noqa: ARG002 - the door gives every operation its call and every hook its facts, wanted or not

from __future__ import annotations

from typing import Any, Final

from replicas.objects.base import Caller, Host, Refused, Replicated, operation
from replicas.objects.waiting import Waiter, WaitQueue

__all__ = ["Barrier"]

FILLING: Final = 0
ACTING: Final = 1
BROKEN: Final = 2

_PARTY: Final = 0
_LATE: Final = 1
"""A party whose time ran out at the entrance: it breaks the barrier when its turn comes."""
_ABORT: Final = 2
_RESET: Final = 3


class Barrier(Replicated):
    """`threading.Barrier`. wait() answers (index, whether this party is to run the action and report `action_done`)."""

    kind = "Barrier"

    def __init__(self, host: Host, *arguments: Any) -> None:
        super().__init__(host, *arguments)
        if len(arguments) != 1 or type(arguments[0]) is not int:
            raise Refused("type", "Barrier() takes the number of its parties")
        # Invariants: runner is not None exactly when ACTING, and its session is alive. The entrance is empty unless
        # ACTING. While FILLING, the payloads of `arrived` are (0, has_action), (1, has_action), ... in order.
        self.phase = FILLING
        self.runner: int | None = None
        self.doomed = False
        """A party's session ended while the action ran: the barrier breaks when it is done."""
        self.arrived = WaitQueue(self)
        self.entrance = WaitQueue(self)

    @property
    def parties(self) -> int:
        """How many make it full. (Barrier(0), where Python allows it, never is.)"""
        return self.arguments[0]  # type: ignore[no-any-return]

    @operation(undo=True)
    def wait(self, call: Caller, has_action: bool, thread: int = 0) -> Any:
        if self.phase == ACTING:
            return call.park(self.entrance, (_PARTY, has_action), thread)
        if self.phase == BROKEN:
            raise Refused("broken")
        parked = call.park(self.arrived, (len(self.arrived), has_action), thread)
        self._fill()
        return parked

    @operation
    def action_done(self, call: Caller, ok: bool) -> None:
        """The party that was told to run the action has done so."""
        if self.runner != call.session:
            raise Refused("runtime", "this session runs no action of this barrier")
        doomed = self.doomed
        self._end_action(ok=ok)
        if ok and doomed:
            raise Refused("broken")

    @operation
    def abort(self, call: Caller) -> Any:
        """Breaks it for all who wait and all who come, until a reset."""
        if self.phase == ACTING:
            return call.park(self.entrance, (_ABORT, False))
        self._break()
        return None

    @operation
    def reset(self, call: Caller) -> Any:
        """As new. Whoever waits now hears that it broke."""
        if self.phase == ACTING:
            return call.park(self.entrance, (_RESET, False))
        self._break()
        self.phase = FILLING
        return None

    @operation(reads=True)
    def state(self, call: Caller) -> tuple[int, int, bool]:
        """(parties, how many of them wait, broken)."""
        return (self.parties, self._waiting_count(), self.phase == BROKEN)

    # --- how it goes on

    def _waiting_count(self) -> int:
        return self.parties if self.phase == ACTING else len(self.arrived)

    def _fill(self) -> None:
        if len(self.arrived) != self.parties:
            return
        for waiter in reversed(self.arrived):
            if waiter.payload[1]:
                self._act(waiter)
                return
        self._release()

    def _act(self, runner: Waiter) -> None:
        self.phase = ACTING
        self.runner = runner.session
        self.host.stake(runner.session, self)
        runner.leave()
        runner.answer((runner.payload[0], True))

    def _release(self) -> None:
        for waiter in self.arrived.unpark_all():
            waiter.answer((waiter.payload[0], False))

    def _end_action(self, *, ok: bool) -> None:
        assert self.phase == ACTING
        assert self.runner is not None
        self.host.unstake(self.runner, self)
        well = ok and not self.doomed
        self.phase, self.runner, self.doomed = FILLING, None, False
        if well:
            self._release()
        else:
            self._break()
        self._let_in()

    def _let_in(self) -> None:
        """The action has ended: whoever came meanwhile has its turn, until the next action begins."""
        while self.phase != ACTING and (waiter := self.entrance.unpark()) is not None:
            kind, has_action = waiter.payload
            if kind == _PARTY and self.phase == FILLING:
                waiter.amend((len(self.arrived), has_action))
                self.arrived.park(waiter)
                self._fill()
            elif kind == _PARTY:
                waiter.refuse(Refused("broken"))
            elif kind == _LATE:
                self._break()
                waiter.refuse(Refused("broken"))
            else:
                self._break()
                if kind == _RESET:
                    self.phase = FILLING
                waiter.answer(None)

    def _break(self) -> None:
        self.phase = BROKEN
        for waiter in self.arrived.unpark_all():
            waiter.refuse(Refused("broken"))

    # --- the door's hooks

    def withdrawn(self, waiter: Waiter) -> None:
        if waiter.queue is self.arrived:
            if self.phase == FILLING:
                self._break()
            # Else the action runs: the verdict is how it ends.
        elif waiter.payload[0] == _PARTY:
            waiter.amend((_LATE, False))
        elif waiter.payload[0] != _LATE:
            super().withdrawn(waiter)

    def abandoned(self, waiter: Waiter, queue: WaitQueue | None) -> None:
        if queue is not self.arrived:
            return  # it had not been let in
        if self.phase == FILLING:
            self._break()
        elif self.phase == ACTING:
            self.doomed = True

    def undo(self, operation: str, session: int, lane: int, answer: Any) -> None:
        # An index stands. But who was to run the action and has gone will never report it.
        if self.runner == session and answer[1]:
            self._end_action(ok=False)

    def session_ended(self, session: int) -> None:
        if self.runner == session:
            self._end_action(ok=False)

    def holders(self) -> tuple[int, ...]:
        return () if self.runner is None else (self.runner,)

    def is_initial(self) -> bool:
        return self.phase == FILLING

    def sight(self) -> dict[str, Any]:
        phase = ("filling", "acting", "broken")[self.phase]
        return {"phase": phase, "parties": self.parties, "arrived": self._waiting_count()}

    def dump(self) -> tuple[Any, ...]:
        return (self.phase, self.runner, self.doomed)

    def load(self, state: tuple[Any, ...]) -> None:
        self.phase, self.runner, self.doomed = state
