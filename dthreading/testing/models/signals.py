# SPDX-License-Identifier: Apache-2.0
"""The models of Semaphore, BoundedSemaphore, Event and Barrier.

Semaphore: acquire(blocking, timeout), release(n), value(). Event: set(), clear(), is_set(), wait(timeout). Barrier:
wait(timeout), abort(), reset(), n_waiting(), broken(), parties().
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final, NamedTuple

from dthreading.testing.models.base import Answers, Calls, Model
from dthreading.testing.recorded import Call, Error, Outcome

__all__ = ["Barrier", "BoundedSemaphore", "Event", "Semaphore"]


class Permits(NamedTuple):
    """A semaphore's state."""

    free: int
    taken: tuple[tuple[str, int], ...]
    """By session, in order of their names, what it took less what it gave; kept while some session will end."""
    is_counter: bool
    """A session has given more than it took: nothing returns by itself any more."""


class Semaphore(Model):
    """`threading.Semaphore(value)`. A session's permits return at its end, unless the semaphore counts things."""

    kind: ClassVar[str] = "Semaphore"

    def initial(self) -> Permits:
        return Permits(self.arguments[0] if self.arguments else 1, (), is_counter=False)

    def do_acquire(self, state: Permits, call: Call) -> Answers:
        if state.free:
            yield True, self._taken(state._replace(free=state.free - 1), call.session, 1)
        elif not call.argument(0, True) or call.argument(1, None) is not None:
            yield False, state

    def do_release(self, state: Permits, call: Call) -> Answers:
        n = call.argument(0, 1)
        if self._is_too_much(state, n):
            yield Error("ValueError"), state
        else:
            taken = dict(state.taken)
            for session in self.givers(call, [session for session in taken if taken[session] >= n]):
                yield None, self._taken(state._replace(free=state.free + n), session, -n)

    def do_value(self, state: Permits, call: Call) -> Answers:  # noqa: ARG002
        yield state.free, state

    def _is_too_much(self, state: Permits, n: int) -> bool:  # noqa: ARG002 - of a BoundedSemaphore
        return n < 1

    def _taken(self, state: Permits, session: str, n: int) -> Permits:
        if state.is_counter or not self.ending:
            return state
        taken = dict(state.taken)
        left = taken.pop(session, 0) + n
        if left < 0:
            return state._replace(taken=(), is_counter=True)
        if left:
            taken[session] = left
        return state._replace(taken=tuple(sorted(taken.items())))

    def ended(self, state: Permits, session: str) -> Iterable[Permits]:
        taken = dict(state.taken)
        returning = taken.pop(session, 0)
        yield state._replace(free=state.free + returning, taken=tuple(sorted(taken.items())))
        if state.is_counter and state.free == self.initial().free:
            # As it was at first, and perhaps used by nobody else: then whoever comes next makes it anew.
            yield self.initial()

    def undone(self, state: Permits, call: Call) -> Iterable[Permits]:
        if self._is_too_much(state, 1):
            return (state,)
        return (self._taken(state._replace(free=state.free + 1), call.session, -1),)


class BoundedSemaphore(Semaphore):
    """`threading.BoundedSemaphore(value)`."""

    kind: ClassVar[str] = "BoundedSemaphore"

    def _is_too_much(self, state: Permits, n: int) -> bool:
        return n < 1 or state.free + n > self.initial().free


class Event(Model):
    """`threading.Event`. A wait ends well if the flag was up at some moment while it lasted."""

    kind: ClassVar[str] = "Event"

    def initial(self) -> bool:
        return False

    def do_set(self, state: bool, call: Call) -> Answers:  # noqa: ARG002
        yield None, True

    def do_clear(self, state: bool, call: Call) -> Answers:  # noqa: ARG002
        yield None, False

    def do_is_set(self, state: bool, call: Call) -> Answers:  # noqa: ARG002
        yield state, state

    def do_wait(self, state: bool, call: Call) -> Answers:
        if state:
            yield True, state
        elif call.argument(0, None) is not None:
            yield False, state


class Round(NamedTuple):
    """A barrier's state."""

    arrived: tuple[tuple[int, str], ...]
    """(number of the call, session) of those who wait, in the order they came."""
    going: frozenset[tuple[int, int]]
    """(number of the call, index) of those who were let through and have not come back."""
    failed: frozenset[int]
    """Who will hear that it broke."""
    broken: bool


ARRIVE: Final = "comes"
GO: Final = "goes on"


class Barrier(Model):
    """`threading.Barrier(parties, has_action, timeout)`: indices 0 to parties - 1 in the order they came, once each.

    While an action may be running the barrier is full, and whoever comes, aborts or resets waits for its end; whoever
    raised anything but BrokenBarrierError ran it.
    """

    kind: ClassVar[str] = "Barrier"

    def initial(self) -> Round:
        return Round((), frozenset(), frozenset(), broken=False)

    @property
    def parties_wanted(self) -> int:
        """How many must come."""
        return int(self.arguments[0])

    @property
    def has_action(self) -> bool:
        """Whether somebody brought an action."""
        return len(self.arguments) > 1 and bool(self.arguments[1])

    def prepare(self, calls: Calls) -> None:
        super().prepare(calls)
        self._certain = frozenset(call.number for call in calls if call.outcome is Outcome.RETURNED)
        self._awaited = frozenset(call.number for call in calls if call.outcome is not Outcome.UNKNOWN)

    def parts(self, call: Call) -> tuple[str, ...]:
        return (ARRIVE, GO) if call.operation == "wait" else ("",)

    def answers(self, state: Round, call: Call, part: str) -> Answers:
        if part == ARRIVE:
            # Whatever it answers in the end, its coming answers nothing that anybody sees.
            return ((self._seen(call), following) for following in self._arrive(state, call))
        if part == GO:
            return self._go(state, call)
        return super().answers(state, call, part)

    def _seen(self, call: Call) -> Any:
        return Error(call.value) if call.outcome is Outcome.RAISED else call.value

    def _arrive(self, state: Round, call: Call) -> Iterator[Round]:
        for one in self._resolved(state):
            if one.broken:
                if call.outcome is not Outcome.RETURNED:
                    yield one._replace(failed=one.failed | {call.number})
            elif call.outcome is not Outcome.RETURNED or call.value == len(one.arrived):
                full = one._replace(arrived=(*one.arrived, (call.number, call.session)))
                is_full = len(full.arrived) == self.parties_wanted
                yield self._let_through(full) if is_full and not self.has_action else full

    def _go(self, state: Round, call: Call) -> Answers:
        if call.outcome is Outcome.RAISED and call.value != "BrokenBarrierError":
            if self._is_full(state) and any(number == call.number for number, _ in state.arrived):
                yield Error(call.value), self._break_up(state, call.number)
            return
        for one in self._resolved(state):
            for number, index in one.going:
                if number == call.number:
                    yield index, one._replace(going=one.going - {(number, index)})
            if call.number in one.failed:
                yield Error("BrokenBarrierError"), one._replace(failed=one.failed - {call.number})
            elif self._may_break(call) and any(number == call.number for number, _ in one.arrived):
                yield Error("BrokenBarrierError"), self._break_up(one, call.number)

    def _may_break(self, call: Call) -> bool:
        """Whether this wait may have ended the round by its own end: its time ran out, or nobody knows."""
        default = self.arguments[2] if len(self.arguments) > 2 else None
        if call.operation != "wait":
            return False
        return call.outcome is Outcome.UNKNOWN or call.argument(0, default) is not None

    def _is_full(self, state: Round) -> bool:
        return len(state.arrived) == self.parties_wanted

    def _resolved(self, state: Round) -> Iterator[Round]:
        """If the barrier is full, its action ends now: well, or, where nobody can tell, in failure."""
        if not self._is_full(state):
            yield state
            return
        yield self._let_through(state)
        if any(number not in self._certain for number, _ in state.arrived):
            yield self._break_up(state)

    def do_abort(self, state: Round, call: Call) -> Answers:  # noqa: ARG002
        for one in self._resolved(state):
            yield None, self._break_up(one)

    def do_reset(self, state: Round, call: Call) -> Answers:  # noqa: ARG002
        for one in self._resolved(state):
            yield None, self._break_up(one)._replace(broken=False)

    def do_n_waiting(self, state: Round, call: Call) -> Answers:  # noqa: ARG002
        yield len(state.arrived), state
        if self._is_full(state):
            for one in self._resolved(state):
                yield len(one.arrived), one

    def do_broken(self, state: Round, call: Call) -> Answers:  # noqa: ARG002
        for one in self._resolved(state):
            yield one.broken, one

    def do_parties(self, state: Round, call: Call) -> Answers:  # noqa: ARG002
        yield self.parties_wanted, state

    def ended(self, state: Round, session: str) -> Iterator[Round]:
        """Whoever waited there breaks it. (Of those who were let through nothing is left to tell.)"""
        waits = any(waiting == session for _, waiting in state.arrived)
        if not waits:
            yield state
        elif self._is_full(state):
            yield from self._resolved(state)
        else:
            yield self._break_up(state)

    def _let_through(self, state: Round) -> Round:
        """All have come: each gets its index. (Who will not be heard of again needs none.)"""
        indices = [(number, index) for index, (number, _) in enumerate(state.arrived)]
        going = frozenset([one for one in indices if one[0] in self._awaited])
        return state._replace(arrived=(), going=state.going | going)

    def _break_up(self, state: Round, but: int = 0) -> Round:
        """Everybody who waits will hear that it broke, but for the call that knows already."""
        told = [number for number, _ in state.arrived if number != but and number in self._awaited]
        return state._replace(arrived=(), failed=state.failed | frozenset(told), broken=True)

    def estimates(self, calls: Calls) -> dict[int, tuple[int, int]]:
        """The n-th of each index were in one round, mostly; and who heard that it broke came before what broke it."""
        rounds: dict[int, list[Call]] = {}
        ends: list[int] = []
        counts: dict[int, int] = {}
        by_end = sorted((call for call in calls if call.returned is not None), key=lambda call: call.returned or 0)
        for call in by_end:
            if call.operation == "wait" and call.outcome is Outcome.RETURNED:
                counts[call.value] = counts.get(call.value, 0) + 1
                rounds.setdefault(counts[call.value], []).append(call)
            elif call.operation in {"abort", "reset"} or self._may_break(call):
                ends.append(call.returned or 0)
        estimates: dict[int, tuple[int, int]] = {}
        for together in rounds.values():
            first = min(call.returned or 0 for call in together)
            estimates |= {call.number: (first, int(call.value)) for call in together}
        for call in by_end:
            if call.outcome is Outcome.RAISED:
                broke = bisect_right(ends, call.called)
                end = ends[broke] if broke < len(ends) else call.returned or 0
                estimates[call.number] = (min(end, call.returned or 0), -1)
        return estimates
