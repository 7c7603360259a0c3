# SPDX-License-Identifier: Apache-2.0
"""Semaphore, BoundedSemaphore, Event and Barrier as models."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.sim.checkers.models import Caller, Model, Raises, Waiting


class Semaphore(Model):
    """Permits. Those that an ended session had taken return, unless somebody has given more than it took."""

    kind = "Semaphore"
    reads = ("value",)
    undoable = frozenset({"acquire"})
    bounded: ClassVar[bool] = False

    def made(self) -> None:
        self.free: int = self.arguments[0]
        self.taken: dict[int, int] = {}
        self.counts_things = not self.free
        self.waiting = self.line()

    def do_acquire(self, caller: Caller, blocking: bool, thread: int = 0) -> Any:
        if self.free:
            self._take(caller.session)
            return True
        return self.park(caller, self.waiting, thread) if blocking else False

    def do_release(self, caller: Caller, n: int, taken_in: int = 0) -> None:
        giver = taken_in or caller.session
        if giver != caller.session and not self.counts_things and self.taken.get(giver, 0) < n:
            raise Raises("lock_lost")
        if self.bounded and self.free + n > self.arguments[0]:
            raise Raises("value")
        self._given(giver, n)
        self._more(n)

    def _take(self, session: int) -> None:
        self.free -= 1
        if not self.counts_things:
            self.taken[session] = self.taken.get(session, 0) + 1
            self.reference.has(session, self)

    def _given(self, session: int, n: int) -> None:
        if self.counts_things:
            return
        left = self.taken.pop(session, 0) - n
        if left > 0:
            self.taken[session] = left
            return
        self.reference.has_not(session, self)
        if left < 0:
            for other in self.taken:
                self.reference.has_not(other, self)
            self.taken.clear()
            self.counts_things = True

    def _more(self, n: int) -> None:
        self.free += n
        while self.free and (waiting := self.first(self.waiting)) is not None:
            self._take(waiting.caller.session)
            self.told(waiting, True)

    def taken_back(self, caller: Caller, value: Any) -> None:
        if value is True and not (self.bounded and self.free == self.arguments[0]):
            self._given(caller.session, 1)
            self._more(1)

    def ended(self, session: int) -> None:
        if count := self.taken.pop(session, 0):
            self._more(count)

    def initial(self) -> bool:
        return self.free == self.arguments[0] and not self.taken

    def view(self) -> tuple[Any, ...]:
        return (self.free,)


class BoundedSemaphore(Semaphore):
    """Never more permits than at first."""

    kind = "BoundedSemaphore"
    bounded = True


class Event(Model):
    """A flag. Whoever waits when it goes up is let go, also if it comes down at once."""

    kind = "Event"
    reads = ("is_set",)

    def made(self) -> None:
        self.flag = False
        self.waiting = self.line()

    def do_wait(self, caller: Caller, thread: int = 0) -> Any:
        return True if self.flag else self.park(caller, self.waiting, thread)

    def do_set(self, caller: Caller) -> None:
        self.flag = True
        while (waiting := self.first(self.waiting)) is not None:
            self.told(waiting, True)

    def do_clear(self, caller: Caller) -> None:
        self.flag = False

    def initial(self) -> bool:
        return not self.flag

    def view(self) -> tuple[Any, ...]:
        return (self.flag,)


class Barrier(Model):
    """All parties wait until the last has come; the last of them that brought an action runs it before anybody goes on.

    While an action runs the barrier is shut: whoever comes, to wait, abort or reset, stands at the door until it ends.
    """

    kind = "Barrier"
    reads = ("state",)
    undoable = frozenset({"wait"})

    def made(self) -> None:
        self.broken = False
        self.runner: int | None = None
        self.lost_a_party = False
        self.inside = self.line()
        self.door = self.line()

    def do_wait(self, caller: Caller, has_action: bool, thread: int = 0) -> Any:
        if self.runner is not None:
            return self.park(caller, self.door, thread, ("wait", has_action))
        if self.broken:
            raise Raises("broken")
        parked = self.park(caller, self.inside, thread, ("wait", has_action))
        self._full()
        return parked

    def do_action_done(self, caller: Caller, ok: bool) -> None:
        if self.runner != caller.session:
            raise Raises("runtime")
        broke = self.lost_a_party
        self._action_ended(ok)
        if ok and broke:
            raise Raises("broken")

    def do_abort(self, caller: Caller) -> Any:
        if self.runner is not None:
            return self.park(caller, self.door, data=("abort", False))
        self._break()
        return None

    def do_reset(self, caller: Caller) -> Any:
        if self.runner is not None:
            return self.park(caller, self.door, data=("reset", False))
        self._break()
        self.broken = False
        return None

    def _full(self) -> None:
        if len(self.inside) < self.arguments[0]:
            return
        with_action = [index for index, waiting in enumerate(self.inside) if waiting.data[1]]
        if not with_action:
            self._let_go()
            return
        index = with_action[-1]
        runner = self.inside[index]
        for place, waiting in enumerate(self.inside):
            waiting.data = ("index", place)
        runner.leave()
        self.runner = runner.caller.session
        self.reference.has(self.runner, self)
        self.told(runner, (index, True))

    def _let_go(self) -> None:
        for place in range(len(self.inside)):
            waiting = self.first(self.inside)
            assert waiting is not None
            self.told(waiting, (waiting.data[1] if waiting.data[0] == "index" else place, False))

    def _action_ended(self, ok: bool) -> None:
        assert self.runner is not None
        self.reference.has_not(self.runner, self)
        well = ok and not self.lost_a_party
        self.runner, self.lost_a_party = None, False
        if well:
            self._let_go()
        else:
            self._break()
        while self.runner is None and (waiting := self.first(self.door)) is not None:
            self._enter(waiting)

    def _enter(self, waiting: Waiting) -> None:
        what = waiting.data[0]
        if what == "wait" and not self.broken:
            self.inside.append(waiting)
            waiting.line = self.inside
            self._full()
        elif what in {"wait", "late"}:
            if what == "late":
                self._break()
            self.refused(waiting, "broken")
        else:
            self._break()
            self.broken = what == "abort"
            self.told(waiting, None)

    def _break(self) -> None:
        self.broken = True
        while (waiting := self.first(self.inside)) is not None:
            self.refused(waiting, "broken")

    def timed_out(self, waiting: Waiting) -> None:
        if waiting.line is self.inside:
            if self.runner is None:
                self._break()
        elif waiting.data[0] in {"wait", "late"}:
            waiting.data = ("late", False)
        else:
            super().timed_out(waiting)

    def left(self, waiting: Waiting, line: list[Waiting]) -> None:
        if line is self.inside:
            if self.runner is None:
                self._break()
            else:
                self.lost_a_party = True

    def taken_back(self, caller: Caller, value: Any) -> None:
        if value[1] and self.runner == caller.session:
            self._action_ended(False)

    def ended(self, session: int) -> None:
        if self.runner == session:
            self._action_ended(False)

    def initial(self) -> bool:
        return not self.broken and self.runner is None

    def view(self) -> tuple[Any, ...]:
        waiting = self.arguments[0] if self.runner is not None else len(self.inside)
        return ((self.arguments[0], waiting, self.broken),)
