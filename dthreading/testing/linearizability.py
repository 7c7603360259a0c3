# SPDX-License-Identifier: Apache-2.0
"""Whether one object's history has an order that its model explains: the search of Wing and Gong, as Lowe improved it.

Each call takes effect at one moment between its beginning and its end; one that did not come back may at any moment
after its beginning, or never. The search looks for an order of those moments in which the model gives every answer that
was seen. It goes along the ends of the calls, and lets something take effect only when the call that ends next needs it
("just in time"); a configuration (which end is next, what of the calls under way has taken effect, the state) is tried
once; and each object is searched by itself, since orders that exist for each exist for all together (Herlihy, Wing).

J. Wing, C. Gong: Testing and Verifying Concurrent Objects, 1993. G. Lowe: Testing for Linearizability, 2017.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, TypeAlias

from dthreading.testing.models.base import Model, State
from dthreading.testing.recorded import SESSION_ENDED, UNDO, Call, Outcome

__all__ = ["CONFIGURATIONS_MAX", "Finding", "Verdict", "beginning", "search"]

CONFIGURATIONS_MAX: Final = 200_000
"""How many configurations are tried before the search says that it does not know: some seconds of one core."""

TRIES_PER_CONFIGURATION_MAX: Final = 50
"""How many steps may lead to configurations that are known already, for each that may be tried: a model can have very
many ways to the same few states (which of twenty items came back with a session), and nothing else counts them."""

STATES_SHOWN_MAX: Final = 4
"""How many of the states that may have been are kept for the report."""


class Verdict(Enum):
    """What the search says."""

    LINEARIZABLE = "linearizable"
    VIOLATION = "not linearizable"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Moment:
    """One part of a call. It has its place in the order."""

    call: Call
    part: str
    index: int
    after: tuple[int, ...]
    """What must have taken effect before."""
    before: int | None
    """What must not have: the end of its session."""
    kin: int | None
    """Of a call with an unknown outcome, an earlier one like it: that one goes first."""


@dataclass(slots=True)
class Finding:
    """What came out, and what a reader needs to believe it."""

    verdict: Verdict
    configurations: int
    culprit: Call | None = None
    """The first call to come back that no order explains, together with all that had come back before it."""
    forgotten: tuple[Call, ...] = ()
    """Everything that came back is explained, but in the end these could have gone on, in every order there is."""
    states: list[State] = field(default_factory=list)
    """The states that may have been when the culprit came back, at most STATES_SHOWN_MAX."""
    order: list[Call] = field(default_factory=list)
    """LINEARIZABLE: an order that explains it, by the moments of the calls."""


Configuration: TypeAlias = tuple[int, int, State]
"""(how many ends have been passed, which moments under way have taken effect as a set of bits, the state)."""


class _Search:
    def __init__(self, model: Model, calls: Sequence[Call]) -> None:
        self.model = model
        model.prepare(calls)
        self.moments: list[Moment] = []
        ends: list[tuple[int, int, int]] = []
        last_of: dict[int, int] = {}
        endings: dict[str, int] = {}
        kin: dict[object, int] = {}
        for call in sorted(calls, key=lambda call: (call.operation != SESSION_ENDED, call.called)):
            previous = last_of.get(call.after) if call.after is not None else None
            for part in model.parts(call) if call.operation != SESSION_ENDED else ("",):
                index = len(self.moments)
                after = () if previous is None else (previous,)
                likeness = None if call.is_settled else model.kin(call)
                like = kin.get(likeness) if likeness is not None else None
                kin[likeness] = index
                self.moments.append(Moment(call, part, index, after, endings.get(call.session), like))
                if call.is_settled:
                    assert call.returned is not None
                    ends.append((call.returned, index, call.called))
                previous = index
            if call.operation == SESSION_ENDED:
                endings[call.session] = index
            last_of[call.number] = index
        self.closed: dict[int, int] = {}
        """By the moment of a session's end, the calls of it, as a set of bits, that can take effect no more then."""
        for moment in self.moments:
            if moment.before is not None and not moment.call.is_settled:
                self.closed[moment.before] = self.closed.get(moment.before, 0) | 1 << moment.index
        self.forgotten: tuple[Call, ...] = ()
        self.ends = [index for _, index, _ in sorted(ends)]
        self.ranks = {index: rank for rank, index in enumerate(self.ends)}
        self.candidates = self._candidates()

    def _candidates(self) -> list[list[Moment]]:
        """For each end, the moments that may come before it, those first that probably do."""
        estimates = self.model.estimates([moment.call for moment in self.moments if not moment.after])

        def probably(moment: Moment) -> tuple[float, float, int]:
            call = moment.call
            late = float("inf") if not call.is_settled or call.returned is None else call.returned
            guess = estimates.get(call.number) if not moment.after else None
            return (*(guess or (late, float("inf"))), moment.index)

        begun = sorted(self.moments, key=lambda moment: moment.call.called)
        under_way: dict[int, Moment] = {}
        lists = []
        position = 0
        for index in self.ends:
            end = self.moments[index].call.returned
            assert end is not None
            while position < len(begun) and begun[position].call.called < end:
                under_way[begun[position].index] = begun[position]
                position += 1
            lists.append(sorted(under_way.values(), key=probably))
            del under_way[index]
        for moment in begun[position:]:
            under_way[moment.index] = moment
        self.left_over = sorted(under_way.values(), key=probably)
        return lists

    def following(self, configuration: Configuration) -> Iterator[tuple[Configuration, Moment]]:
        """What may be next, one moment later."""
        passed, done, state = configuration
        ending = self.ends[passed] if passed < len(self.ends) else -1
        for moment in self.candidates[passed] if passed < len(self.ends) else self.left_over:
            if not self._may_come(moment, done, ending):
                continue
            # Which of its calls that nobody knows the outcome of had taken effect makes no difference after a session's
            # end, but for the state: so those are all marked, and configurations that differ in them only are one.
            bit = 1 << moment.index | self.closed.get(moment.index, 0)
            for next_state in self.model.steps(state, moment.call, moment.part):
                if moment.index == ending:
                    yield self._pass_ends(passed + 1, done, next_state), moment
                elif next_state != state or moment.call.is_settled or moment.call.operation in {SESSION_ENDED, UNDO}:
                    yield (passed, done | bit, next_state), moment

    def _may_come(self, moment: Moment, done: int, ending: int) -> bool:
        if done >> moment.index & 1:
            return False
        if moment.before is not None and done >> moment.before & 1:
            return False
        if moment.kin is not None and not done >> moment.kin & 1:
            return False
        # A part whose call has ended was counted off with its end; what is under way stands in `done`.
        return all(done >> index & 1 or self._has_passed(index, ending) for index in moment.after)

    def _has_passed(self, index: int, ending: int) -> bool:
        """Whether that moment's end lies behind: then it is in `done` no more."""
        call = self.moments[index].call
        if not call.is_settled:
            return False
        if ending == -1:
            return True
        return self.ranks[index] < self.ranks[ending]

    def _pass_ends(self, passed: int, done: int, state: State) -> Configuration:
        """Past all ends whose moments have come, which are then forgotten: no other configuration lacks them."""
        while passed < len(self.ends) and done >> self.ends[passed] & 1:
            done &= ~(1 << self.ends[passed])
            passed += 1
        return passed, done, state

    def run(self, most: int, *, settled: bool) -> Finding:
        """Depth first, so that a history that is right is mostly seen to be so at the first attempt."""
        start = (0, 0, self.model.initial())
        seen: set[Configuration] = {start}
        path: list[Moment] = []
        stack = [self.following(start)]
        if self._ends_here(start, settled=settled):
            return Finding(Verdict.LINEARIZABLE, 1)
        deepest, states, tries = 0, [start[2]], 0
        while stack:
            step = next(stack[-1], None)
            tries += 1
            if step is None:
                stack.pop()
                if path:
                    path.pop()
                continue
            configuration, moment = step
            if configuration in seen and tries < TRIES_PER_CONFIGURATION_MAX * most:
                continue
            if len(seen) >= most or tries >= TRIES_PER_CONFIGURATION_MAX * most:
                return Finding(Verdict.UNDECIDED, len(seen))
            seen.add(configuration)
            if self._ends_here(configuration, settled=settled):
                return Finding(Verdict.LINEARIZABLE, len(seen), order=[one.call for one in (*path, moment)])
            passed, _, state = configuration
            if passed > deepest:
                deepest, states = passed, [state]
            elif passed == deepest and len(states) < STATES_SHOWN_MAX and state not in states:
                states.append(state)
            stack.append(self.following(configuration))
            path.append(moment)
        if deepest == len(self.ends):
            return Finding(Verdict.VIOLATION, len(seen), forgotten=self.forgotten, states=states)
        culprit = self.moments[self.ends[deepest]].call
        return Finding(Verdict.VIOLATION, len(seen), culprit, states=states)

    def _ends_here(self, configuration: Configuration, *, settled: bool) -> bool:
        """Whether the history may end like this: all that came back is explained; if it has settled, all leases have
        run out, all that was given up is taken back, and nobody is forgotten.
        """
        passed, done, _ = configuration
        if passed < len(self.ends):
            return False
        if not settled:
            return True
        for moment in self.left_over:
            if moment.call.operation in {SESSION_ENDED, UNDO} and self._may_come(moment, done, -1):
                return False
        forgotten = self._forgotten(configuration)
        self.forgotten = forgotten or self.forgotten
        return not forgotten

    def _forgotten(self, configuration: Configuration) -> tuple[Call, ...]:
        """Who has not come back although it could, or although it has taken effect."""
        _, done, state = configuration
        forgotten: dict[int, Call] = {}
        for moment in self.left_over:
            call = moment.call
            if call.outcome is not Outcome.OPEN or call.operation == SESSION_ENDED:
                continue
            if moment.before is not None and done >> moment.before & 1:
                continue
            has_come = bool(done >> moment.index & 1)
            is_last = moment.index + 1 == len(self.moments) or self.moments[moment.index + 1].call is not call
            if (has_come and is_last) or (
                not has_come and self._may_come(moment, done, -1) and self._can_go_on(moment, state)
            ):
                forgotten[call.number] = call
        return tuple(forgotten.values())

    def _can_go_on(self, moment: Moment, state: State) -> bool:
        return any(True for _ in self.model.steps(state, moment.call, moment.part))


def search(model: Model, calls: Sequence[Call], *, most: int = CONFIGURATIONS_MAX, settled: bool = False) -> Finding:
    """Looks for an order of `calls` that `model` explains.

    Args:
        model: of the object that all of them were made to. Used for this search only.
        calls: in any order.
        most: how many configurations to try before giving up.
        settled: nothing goes on by itself any more when the history ends. So whoever has not come back must be unable
            to: else a wake-up was lost.

    """
    finding = _Search(model, calls).run(most, settled=settled)
    return _shortened(model, calls, finding, most) if finding.culprit is not None else finding


def _shortened(model: Model, calls: Sequence[Call], finding: Finding, most: int) -> Finding:
    """The same of the shortest beginning that has no order.

    The search knew what calls under way at its end would answer later, and may have stopped sooner for that. What has
    no order has none whatever follows, so the shortest is found by halves.
    """
    ends = sorted(call.returned for call in calls if call.is_settled and call.returned is not None)
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        tried = _Search(model, beginning(calls, ends[middle])).run(most, settled=False)
        if tried.verdict is Verdict.VIOLATION:
            high = middle
        else:
            low = middle + 1
    shortest = _Search(model, beginning(calls, ends[high])).run(most, settled=False)
    if shortest.culprit is None:
        return finding  # it cannot be decided so shortly
    culprit = next(call for call in calls if call.returned == ends[high])
    return replace(shortest, culprit=culprit, configurations=finding.configurations)


def beginning(calls: Sequence[Call], end: int) -> list[Call]:
    """What had happened up to that position: calls that came back later are under way."""
    begun = [call for call in calls if call.called < end]
    return [
        replace(call, outcome=Outcome.OPEN, value=None, returned=None)
        if call.returned is not None and call.returned > end
        else call
        for call in begun
    ]
