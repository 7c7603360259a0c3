# SPDX-License-Identifier: Apache-2.0
"""One place of a model: what a process is to the search, and every object and inbox it was ever met with, numbered.

Since a move depends on nothing but the process and its inbox, the code is run once for each (object, event) that ever
comes up, and what came of it is looked up from then on. This file knows nothing of the other places.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from tests.scope.freezing import fingerprint, restore, save

LIVE_MAX = 4096
"""Objects of a place that are kept to be looked at: what comes up together is near each other."""


class Beyond(Exception):
    """The move leads out of the scope: it is not made."""


class Output(NamedTuple):
    """What a process says in one move."""

    target: int
    message: Hashable


class Process:
    """One place of the model. The object is created, moved and judged here; the explorer only copies it."""

    name: str
    """For people."""

    forgets_nothing = False
    """Whether its inbox is a set out of which nothing is ever taken but what has no effect any more: then to have heard
    more is never to be able to do less, which `Explorer` makes use of.
    """

    def start(self) -> Any:
        """The object at the beginning."""
        raise NotImplementedError

    def empty(self) -> Hashable:
        """The inbox at the beginning."""
        raise NotImplementedError

    def receive(
        self, live: Any, inbox: Any, messages: Sequence[Hashable], idle: Callable[[Hashable], bool]
    ) -> Hashable:
        """The inbox after messages have come (or after the object has changed, without any).

        What can have no effect any more need not be kept; `idle` says whether an event has none on the object as it is.
        """
        raise NotImplementedError

    def choices(self, live: Any, inbox: Any) -> Iterator[tuple[Hashable, Hashable]]:
        """Every move that is possible: (event, the inbox that it leaves)."""
        raise NotImplementedError

    def react(self, live: Any, event: Any) -> list[Output]:
        """Makes the move. Raises Beyond, or AssertionError (and anything else) for what must not happen."""
        raise NotImplementedError

    def spent(self, live: Any) -> tuple[int, ...]:
        """What it has used of each budget that all share."""
        return ()

    def facts(self, live: Any) -> Hashable:
        """What the invariants over all processes look at."""
        raise NotImplementedError

    def restless(self, event: Hashable) -> bool:
        """Whether the event is bound to happen: a state in which none is possible is at rest."""
        return True

    def words(self, event: Hashable) -> str:
        """The event for people."""
        return str(event)


class Addition:
    """Messages that come to one place at once, and what that makes of each configuration of it."""

    __slots__ = ("messages", "shifts", "target")

    def __init__(self, target: int, messages: tuple[Hashable, ...]) -> None:
        self.target = target
        self.messages = messages
        self.shifts: dict[int, int] = {}  # configuration -> what to add to the packed state


class Move(NamedTuple):
    shift: int  # what to add to the packed state, besides what the additions say
    outs: tuple[Addition, ...]
    price: int  # what it spends of the budgets, packed
    restless: bool
    event: Hashable
    error: str

    @property
    def only_says(self) -> bool:
        """Whether nothing changes by it but others' inboxes."""
        return not self.shift and not self.price and not self.error


P = TypeVar("P", bound=Process)


class Place(Generic[P]):
    """One process, its objects and its configurations (object, inbox), numbered as they are met."""

    def __init__(self, process: P) -> None:
        self.process = process
        self.saved: list[bytes] = []
        self.spent: list[int] = []  # of each configuration
        self.facts: list[int] = []  # of each configuration
        self._spent_of: list[int] = []  # of each object
        self._facts_of: list[int] = []  # of each object
        self._numbers: dict[Hashable, int] = {}
        self._fact_numbers: dict[Hashable, int] = {}
        self.fact_values: list[Hashable] = []
        self.reactions: dict[tuple[int, Hashable], tuple[int, list[Output], str]] = {}
        self.configurations: list[tuple[int, Hashable]] = []
        self._configuration_numbers: dict[tuple[int, Hashable], int] = {}
        self.moves: list[list[Move] | None] = []
        self.sayings: list[list[Move] | None] = []
        self._live: dict[int, Any] = {}

    def intern(self, live: Any) -> int:
        key = fingerprint(live)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.saved)
            self.saved.append(save(live))
            self._spent_of.append(sum(amount << 8 * index for index, amount in enumerate(self.process.spent(live))))
            facts = self.process.facts(live)
            fact = self._fact_numbers.setdefault(facts, len(self._fact_numbers))
            if fact == len(self.fact_values):
                self.fact_values.append(facts)
            self._facts_of.append(fact)
        return number

    @property
    def reached(self) -> set[Hashable]:
        """The fingerprints of all objects that came up."""
        return set(self._numbers)

    def look(self, number: int) -> Any:
        """The object of that number, to be looked at only."""
        live = self._live.get(number)
        if live is None:
            if len(self._live) > LIVE_MAX:
                self._live.clear()
            live = self._live[number] = restore(self.saved[number])
        return live

    def receive(self, number: int, inbox: Hashable, messages: Sequence[Hashable]) -> int:
        """The configuration when messages have come to the object of that number."""

        def idle(event: Hashable) -> bool:
            return self.react(number, event) == (number, [], "")

        return self.configuration(number, self.process.receive(self.look(number), inbox, messages, idle))

    def configuration(self, number: int, inbox: Hashable) -> int:
        key = (number, inbox)
        found = self._configuration_numbers.get(key)
        if found is None:
            found = self._configuration_numbers[key] = len(self.configurations)
            self.configurations.append(key)
            self.moves.append(None)
            self.sayings.append(None)
            self.spent.append(self._spent_of[number])
            self.facts.append(self._facts_of[number])
        return found

    def react(self, number: int, event: Hashable) -> tuple[int, list[Output], str]:
        """(object after, what it says, what must not happen). The object is -1 where there is no such move."""
        known = self.reactions.get((number, event))
        if known is None:
            live = restore(self.saved[number])
            try:
                outputs = self.process.react(live, event)
            except Beyond:
                known = (-1, [], "")
            except Exception as error:
                known = (-1, [], f"{type(error).__name__}: {error}")
            else:
                known = (self.intern(live), outputs, "")
            self.reactions[number, event] = known
        return known
