# SPDX-License-Identifier: Apache-2.0
"""What a model is: a plain sequential description of one primitive, which knows nothing of how ours are built.

A model has states, plain values that can stand in a set. Asked about a state and a call, it lists the answers that the
call may have there, each with the state after it; none where the call cannot go on. An `acquire` that may wait has no
answer while the lock is held: that is all there is to blocking. What failed for want of time needs a state in which it
could not go on, at some moment between its beginning and its end: exactly what is asked of one that may not wait.

Where a call has several moments (a Condition's wait frees the lock, and has it again later), it has as many *parts*,
which take effect one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final, TypeAlias

from dthreading.testing.recorded import SESSION_ENDED, UNDO, Call, freeze

__all__ = ["WHOLE", "Answers", "Calls", "Model", "State", "ranked"]

State: TypeAlias = Any
"""Hashable."""

Answers: TypeAlias = Iterable[tuple[Any, State]]
Calls: TypeAlias = Sequence[Call]

WHOLE: Final = ""
"""The part of a call that has one part."""


class Model:
    """One object. Its methods named like operations, with `do_` before, list (answer, next state)."""

    kind: ClassVar[str]

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.ending: frozenset[str] = frozenset()
        """The sessions that end in the history at hand: of the others nothing needs to be remembered."""
        self._process_of: dict[str, str] = {}

    def prepare(self, calls: Calls) -> None:
        """Looks at the whole history of this object before it is searched."""
        self.ending = frozenset(call.session for call in calls if call.operation == SESSION_ENDED)
        self._process_of = {call.session: call.process for call in calls}

    def givers(self, call: Call, sessions: Iterable[str]) -> Iterator[str]:
        """Whose it may be what this call gives back: its own session's, or that of one of `sessions` which its process
        had before, and which the group has not ended yet.
        """
        yield call.session
        for session in sorted({*sessions} - {call.session}):
            if self._process_of.get(session) == call.process:
                yield session

    def initial(self) -> State:
        """The state that the object begins in."""
        raise NotImplementedError

    def parts(self, call: Call) -> tuple[str, ...]:  # noqa: ARG002 - of a model whose calls have parts
        """The moments of that call, in order."""
        return (WHOLE,)

    def answers(self, state: State, call: Call, part: str) -> Answers:  # noqa: ARG002 - as `parts`
        """What that part of the call may answer in that state."""
        does: Callable[[State, Call], Answers] | None = getattr(self, f"do_{call.operation}", None)
        if does is None:
            raise AssertionError(f"the model of a {self.kind} knows no operation {call.operation!r}")
        return does(state, call)

    def steps(self, state: State, call: Call, part: str) -> Iterator[State]:
        """The states after that part of the call, given what its caller saw."""
        if call.operation == SESSION_ENDED:
            yield from self.ended(state, call.session)
        elif call.operation == UNDO:
            yield from self.undone(state, call)
        else:
            for answer, following in self.answers(state, call, part):
                if call.allows(answer):
                    yield following

    def ended(self, state: State, session: str) -> Iterable[State]:  # noqa: ARG002 - of a model that has holders
        """The session ends: what it held passes on."""
        return (state,)

    def undone(self, state: State, call: Call) -> Iterable[State]:  # noqa: ARG002 - as `ended`
        """What a call that was given up was granted after all is taken back."""
        return (state,)

    def kin(self, call: Call) -> Hashable | None:
        """Of a call that nobody knows the outcome of: what it has in common with others that would do the very same, so
        that only the first of them needs to be tried. None: it is like no other.
        """
        if call.operation in {SESSION_ENDED, UNDO} or self.parts(call) != (WHOLE,):
            return None
        owner = call.session if call.session in self.ending else ""
        return (call.operation, call.outcome, owner, freeze(call.arguments))

    def estimates(self, calls: Calls) -> dict[int, tuple[int, int]]:  # noqa: ARG002 - of a model that can tell
        """For some calls, by number: before which position they probably took effect, and in which order among equals.

        Only a help to find an order soon: what it says may be wrong.
        """
        return {}


def ranked(calls: Iterable[Call]) -> dict[int, tuple[int, int]]:
    """Estimates for calls that must have taken effect in the order in which they stand here."""
    estimates = {}
    least: float = float("inf")
    for rank, call in reversed(list(enumerate(calls))):
        least = min(least, float("inf") if call.returned is None else call.returned)
        if least != float("inf"):
            estimates[call.number] = (int(least), rank)
    return estimates
