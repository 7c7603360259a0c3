# SPDX-License-Identifier: Apache-2.0
"""Every state that a few processes can reach, each once: breadth first, so the first fault found has a shortest way.

A model is one `Process` for each place (places.py). A process is a live object with an inbox; it moves by an event of
its own or by something out of its inbox, and what it says lands in the inboxes of others. The shipping code is run once
for each (object, event), and the product of the processes, which is where the numbers are, is walked here over small
integers.

Where inboxes are sets that forget nothing, a move that changes no object, and only says something, is made at once and
nothing else beside it: the state after it can do all that the state before it could (the same objects, every inbox at
least as full, the same budgets left), so no fault can be reached from the one and not from the other. What is said then
is not a step of its own: every state is closed under it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.scope.freezing import fingerprint
from tests.scope.places import Addition, Move, Output, Place, Process

BITS = 24
"""Of a packed state, for each process: 16 million different (object, inbox) pairs are more than memory holds."""
_MASK = (1 << BITS) - 1


@dataclass(slots=True)
class Result:
    """What came of a search."""

    states: int = 0
    transitions: int = 0
    depth: int = 0
    complete: bool = False
    at_rest: int = 0
    objects: tuple[int, ...] = ()
    reactions: int = 0
    seconds: float = 0.0
    fault: str = ""
    trace: list[str] = field(default_factory=list)
    replay: str = ""

    def row(self) -> str:
        """The figures in a line."""
        end = "all of it" if self.complete else ("FAULT" if self.fault else "cut short")
        return (
            f"{self.states:>11,} states {self.transitions:>12,} transitions, depth {self.depth:>3}, "
            f"{self.reactions:>8,} runs of the code, {self.seconds:7.1f} s, {end}"
        )


class Explorer:
    """The product of the processes.

    Args:
        processes: one for each place.
        judge: raises AssertionError over the facts of all places; asked once for each combination of facts.
        at_rest: the same, for states in which nothing is bound to happen.
        budgets: the most that all places together may spend of each.

    """

    def __init__(
        self,
        processes: Sequence[Process],
        judge: Callable[[tuple[Any, ...]], None],
        *,
        at_rest: Callable[[tuple[Any, ...]], None] | None = None,
        budgets: tuple[int, ...] = (),
    ) -> None:
        self.places: list[Place[Process]] = [Place(process) for process in processes]
        self._judge = judge
        self._at_rest = at_rest
        self._budgets = budgets
        self._additions: dict[tuple[int, tuple[Hashable, ...]], Addition] = {}
        self._within: dict[int, bool] = {}
        self._parents: dict[int, int] = {}
        self._judged: set[tuple[int, ...]] = set()
        self.result = Result()
        self._closes = all(process.forgets_nothing for process in processes)

    # --- moves of one place

    def _moves(self, index: int, configuration: int) -> list[Move]:
        place = self.places[index]
        moves = place.moves[configuration]
        if moves is None:
            moves = place.moves[configuration] = list(self._find_moves(index, place, configuration))
        return moves

    def _find_moves(self, index: int, place: Place[Process], configuration: int) -> Iterator[Move]:
        number, inbox = place.configurations[configuration]
        process = place.process
        seen = set()
        for event, left in list(process.choices(place.look(number), inbox)):
            after, outputs, error = place.react(number, event)
            if error:
                yield Move(0, (), 0, True, event, error)
            if after < 0:
                continue
            own = place.receive(after, left, ())
            outs = self._outs(outputs)
            if (own, outs) in seen or (own == configuration and not outs):
                continue
            seen.add((own, outs))
            price = place.spent[own] - place.spent[configuration]
            shift = (own - configuration) << BITS * index
            yield Move(shift, outs, price, process.restless(event), event, "")

    def _sayings(self, index: int, configuration: int) -> list[Move]:
        """Those of its moves that only say something."""
        place = self.places[index]
        sayings = place.sayings[configuration]
        if sayings is None:
            moves = self._moves(index, configuration)
            sayings = place.sayings[configuration] = [move for move in moves if move.only_says]
            place.moves[configuration] = [move for move in moves if not move.only_says]
        return sayings

    def _closing(self, packed: int) -> Iterator[tuple[int, int, Move]]:
        """Whatever can be said without any change is said: the state after each such move, who makes it, and which."""
        state = self._unpack(packed)
        growing = self._closes
        while growing:
            growing = False
            for index, place in enumerate(self.places):
                sayings = place.sayings[state[index]]
                for move in self._sayings(index, state[index]) if sayings is None else sayings:
                    before = packed
                    for addition in move.outs:
                        there = state[addition.target]
                        grown = addition.shifts.get(there)
                        packed += self._grow(addition, there) if grown is None else grown
                    if packed != before:
                        growing = True
                        state = self._unpack(packed)
                        yield packed, index, move

    def _closed(self, packed: int) -> int:
        for after, _, _ in self._closing(packed):
            packed = after
        return packed

    def _outs(self, outputs: list[Output]) -> tuple[Addition, ...]:
        sorted_out: dict[int, list[Hashable]] = {}
        for target, message in outputs:
            sorted_out.setdefault(target, []).append(message)
        outs = []
        for target, messages in sorted(sorted_out.items()):
            key = (target, tuple(messages))
            addition = self._additions.get(key)
            if addition is None:
                addition = self._additions[key] = Addition(*key)
            outs.append(addition)
        return tuple(outs)

    def _grow(self, addition: Addition, configuration: int) -> int:
        target = addition.target
        place = self.places[target]
        number, inbox = place.configurations[configuration]
        grown = place.receive(number, inbox, addition.messages)
        shift = addition.shifts[configuration] = (grown - configuration) << BITS * target
        return shift

    def _affordable(self, state: list[int], price: int) -> bool:
        """Whether what all places have spent, and `price` besides, is within every budget."""
        total = price
        for place, configuration in zip(self.places, state, strict=True):
            total += place.spent[configuration]
        known = self._within.get(total)
        if known is None:
            amounts = [total >> 8 * index & 255 for index in range(len(self._budgets))]
            known = all(amount <= most for amount, most in zip(amounts, self._budgets, strict=True))
            self._within[total] = known
        return known

    # --- all of them

    def run(self, *, states_max: int = 1 << 62, seconds_max: float = 1e9) -> Result:
        """Searches until everything was seen, a fault was found, or enough was done."""
        begun = time.process_time()
        result = self.result
        start = []
        for place in self.places:
            live = place.process.start()
            start.append(place.configuration(place.intern(live), place.process.empty()))
        first = self._closed(self._pack(start))
        self._parents[first] = -1
        frontier = [first]
        fault: tuple[int, str, str] | None = self._look(first, self._unpack(first))
        while frontier and fault is None and len(self._parents) < states_max:
            result.depth += 1
            following: list[int] = []
            for count, state in enumerate(frontier, 1):
                fault = self._expand(state, following)
                if fault is not None or (not count & 1023 and time.process_time() - begun > seconds_max):
                    break
            else:
                frontier = following
                continue
            break
        result.complete = not frontier and fault is None
        result.states = len(self._parents)
        result.objects = tuple(len(place.saved) for place in self.places)
        result.reactions = sum(len(place.reactions) for place in self.places)
        result.seconds = time.process_time() - begun
        if fault is not None:
            self._tell(*fault)
        return result

    def _pack(self, state: list[int]) -> int:
        packed = 0
        for number in reversed(state):
            packed = packed << BITS | number
        return packed

    def _unpack(self, packed: int) -> list[int]:
        state = []
        for _ in self.places:
            state.append(packed & _MASK)
            packed >>= BITS
        return state

    def _expand(self, packed: int, following: list[int]) -> tuple[int, str, str] | None:
        """Puts every new neighbour into `following`; (state, event, error) of what must not happen."""
        state = self._unpack(packed)
        parents = self._parents
        closes = self._closes
        transitions = 0
        rests = True
        for index, place in enumerate(self.places):
            moves = place.moves[state[index]]
            if moves is None:
                moves = self._moves(index, state[index])
            for shift, outs, price, restless, event, error in moves:
                if error:
                    return packed, f"{place.process.name}: {place.process.words(event)}", error
                if price and not self._affordable(state, price):
                    continue
                key = packed + shift
                for addition in outs:
                    there = state[addition.target]
                    grown = addition.shifts.get(there)
                    key += self._grow(addition, there) if grown is None else grown
                transitions += 1
                if rests and restless:
                    rests = False
                if key in parents:
                    continue
                if closes:
                    key = self._closed(key)
                if key not in parents:
                    parents[key] = packed
                    following.append(key)
                    fault = self._look(key, self._unpack(key))
                    if fault is not None:
                        return fault
        self.result.transitions += transitions
        if rests and self._at_rest is not None:
            return self._look_at_rest(packed, state)
        return None

    def _facts(self, state: list[int]) -> tuple[int, ...]:
        return tuple([place.facts[number] for place, number in zip(self.places, state, strict=True)])

    def _look(self, packed: int, state: list[int]) -> tuple[int, str, str] | None:
        facts = self._facts(state)
        if facts not in self._judged:
            self._judged.add(facts)
            return self._ask(self._judge, packed, facts)
        return None

    def _look_at_rest(self, packed: int, state: list[int]) -> tuple[int, str, str] | None:
        assert self._at_rest is not None
        self.result.at_rest += 1
        return self._ask(self._at_rest, packed, self._facts(state))

    def _ask(
        self, judge: Callable[[tuple[Any, ...]], None], packed: int, facts: tuple[int, ...]
    ) -> tuple[int, str, str] | None:
        values = tuple([place.fact_values[fact] for place, fact in zip(self.places, facts, strict=True)])
        try:
            judge(values)
        except AssertionError as error:
            return packed, "", f"{error}"
        return None

    # --- the way to a state

    def _tell(self, packed: int, event: str, error: str) -> None:
        """The shortest way to the fault, in words, and as numbers that `follow` takes."""
        path = [packed]
        while (before := self._parents[path[-1]]) >= 0:
            path.append(before)
        path.reverse()
        numbers = []
        for state, after in itertools.pairwise(path):
            options = self._neighbours(state)
            number = next(number for number, option in enumerate(options) if self._closed(option[0]) == after)
            numbers.append(number)
            self.result.trace.append(self._sentences(*options[number]))
        if event:
            self.result.trace.append(event)
        self.result.trace.append(f"FAULT {error}")
        self.result.fault = error
        self.result.replay = ".".join(map(str, numbers))

    def _neighbours(self, packed: int) -> list[tuple[int, int, Move]]:
        state = self._unpack(packed)
        found = []
        for index in range(len(self.places)):
            for move in self._moves(index, state[index]):
                if move.error:
                    continue
                if move.price and not self._affordable(state, move.price):
                    continue
                key = packed + move.shift
                for addition in move.outs:
                    key += self._grow(addition, state[addition.target])
                found.append((key, index, move))
        return found

    def _sentences(self, packed: int, index: int, move: Move) -> str:
        """The move that led there, and what could be said then without a change."""
        sayings = [self._sentence(index, move) for _, index, move in self._closing(packed)]
        return "\n    then ".join([self._sentence(index, move), *sayings])

    def _sentence(self, index: int, move: Move) -> str:
        said = [
            f"\n        to {self.places[addition.target].process.name}: {message}"
            for addition in move.outs
            for message in addition.messages
        ]
        process = self.places[index].process
        return f"{process.name}: {process.words(move.event)}{''.join(said)}"

    def follow(self, replay: str) -> Iterator[str]:
        """Goes the way of `Result.replay` again, with live objects that are never copied, and says each step."""
        begun = [place.process.start() for place in self.places]
        start = [
            place.configuration(place.intern(live), place.process.empty())
            for place, live in zip(self.places, begun, strict=True)
        ]
        state = self._closed(self._pack(start))
        for number in filter(None, replay.split(".")):
            moved, index, move = self._neighbours(state)[int(number)]
            state = self._closed(moved)
            place = self.places[index]
            place.process.react(begun[index], move.event)
            copied = place.look(place.configurations[self._unpack(state)[index]][0])
            same = fingerprint(begun[index]) == fingerprint(copied)
            assert same, "an object that was copied behaves in another way than one that was not"
            yield self._sentences(moved, index, move)
        facts = self._facts(self._unpack(state))
        fault = self._ask(self._judge, state, facts)
        for index, move in [] if fault is not None else self._faulty(state):
            yield f"{self.places[index].process.name}: {self.places[index].process.words(move.event)}"
            yield f"FAULT {move.error}"
            return
        rests = not any(move.restless for _, _, move in self._neighbours(state))
        if fault is None and rests and self._at_rest is not None:
            fault = self._ask(self._at_rest, state, facts)
        yield f"FAULT {fault[2]}" if fault is not None else "nothing wrong here"

    def _faulty(self, packed: int) -> Iterator[tuple[int, Move]]:
        for index, configuration in enumerate(self._unpack(packed)):
            for move in self._moves(index, configuration):
                if move.error:
                    yield index, move
