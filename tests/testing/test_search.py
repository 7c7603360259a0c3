# SPDX-License-Identifier: Apache-2.0
"""The search finds an order where there is one, none where there is none, and says when it does not know.

CHECKER_SEEDS=n in the environment runs n seeds of each world instead of the default.
"""

from __future__ import annotations

import itertools
import os
from random import Random
from typing import Any

import pytest

from dthreading.testing.history import History, Undecided
from dthreading.testing.linearizability import Verdict, beginning, search
from dthreading.testing.models import MODELS
from tests.testing.brute import has_an_order
from tests.testing.mutations import MUTATIONS
from tests.testing.worlds import WORLDS, Locks, Queues, World

SEEDS = int(os.environ.get("CHECKER_SEEDS") or 60)


@pytest.mark.parametrize("world", WORLDS)
def test_what_the_standard_library_did_is_right(world: type[World]) -> None:
    """Histories in which its own objects answered one call at a time: an order exists, and is found."""
    for seed in range(SEEDS):
        world(seed, 3 + seed % 4, 40).run().check()


@pytest.mark.parametrize("world", WORLDS)
def test_the_search_agrees_with_trying_all_orders(world: type[World]) -> None:
    """On small histories, right ones and spoilt ones; so what a mutation leaves unrefuted is still right."""
    refuted = right = 0
    for seed in range(4 * SEEDS):
        history = world(seed, 3, 7).run()
        luck = Random(seed)
        if seed % 8 and not luck.choice(MUTATIONS)(history, luck):
            continue
        kind, arguments = history.objects["it"]
        calls, finding = history.judge("it")
        assert finding.verdict is not Verdict.UNDECIDED
        expected = has_an_order(MODELS[kind](*arguments), calls)
        found = finding.verdict is Verdict.LINEARIZABLE
        assert found is expected, f"{world.__name__} {seed}:\n" + "\n".join(map(str, calls))
        refuted += not found
        right += found
    assert refuted > SEEDS // 2, "too few of the spoilt ones are wrong: this test compares nothing"
    assert right > SEEDS // 2


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_most_of_what_is_spoilt_is_refuted(mutation) -> None:
    """The rest is still right, as the comparison with all orders shows on smaller ones."""
    spoilt = refuted = 0
    for world in WORLDS:
        for seed in range(SEEDS // 2):
            history = world(seed, 3, 30).run()
            if mutation(history, Random(seed)):
                spoilt += 1
                _, finding = history.judge("it")
                refuted += finding.verdict is Verdict.VIOLATION
    least = {"drop_call": 0.3, "come_too_late": 0.1}.get(mutation.__name__, 0.7)
    assert refuted >= least * spoilt, f"{refuted} of {spoilt}"


@pytest.mark.parametrize("world", WORLDS)
def test_the_beginning_that_is_shown_is_the_shortest(world: type[World]) -> None:
    """Without its last call, the one that is named, an order exists; with it, none."""
    shown = 0
    for seed in range(SEEDS):
        history = world(seed, 3, 20).run()
        luck = Random(seed)
        luck.choice(MUTATIONS)(history, luck)
        kind, arguments = history.objects["it"]
        calls, finding = history.judge("it")
        if finding.culprit is None:
            continue
        shown += 1
        end = finding.culprit.returned
        assert end is not None
        for limit, expected in ((end, Verdict.VIOLATION), (end - 1, Verdict.LINEARIZABLE)):
            assert search(MODELS[kind](*arguments), beginning(calls, limit)).verdict is expected
    assert shown > SEEDS // 4


def test_an_order_is_given_that_can_be_followed() -> None:
    """Whoever doubts the verdict can replay it."""
    history = Locks(5, 4, 60).run()
    calls, finding = history.judge("it")
    ends = [(call.called, call.returned) for call in finding.order]
    assert {call.number for call in calls if call.is_settled} <= {call.number for call in finding.order}
    latest = 0
    for called, returned in ends:
        assert returned is None or returned > latest, "it had come back before one that stands earlier was called"
        latest = max(latest, called)


def hammered(calls: int) -> History:
    """Eight processes on one lock, each with its next acquire on its way as soon as it has released."""
    luck = Random(1)
    history = History()
    history.declare("it", "Lock")
    waiting = {f"p{i}": history.invoke(f"p{i}", "it", "acquire") for i in range(8)}
    for fence in range(1, calls // 2 + 1):
        process = luck.choice(sorted(waiting))
        history.returned(waiting[process], fence if calls % 2 else True)
        history.returned(history.invoke(process, "it", "release"))
        waiting[process] = history.invoke(process, "it", "acquire")
    return history


@pytest.mark.parametrize("calls", [1000, 1001])
def test_a_thousand_calls_take_well_under_a_second(calls: int) -> None:
    """By the work done, not by a clock: about one configuration a call. (A thousand of them are ten milliseconds.)"""
    history = hammered(calls)
    _, finding = history.judge("it")
    assert finding.verdict is Verdict.LINEARIZABLE
    assert finding.configurations < 2 * calls
    history = hammered(calls)
    history.calls[calls // 2].value = 1_000_000 if calls % 2 else False
    _, finding = history.judge("it")
    assert finding.verdict is Verdict.VIOLATION
    assert finding.configurations < 3 * calls


def test_long_queues_of_overlapping_puts_are_no_trouble() -> None:
    """The order of puts shows when the items come out, hundreds of calls later: it is guessed beforehand."""
    history = History()
    history.declare("it", "Queue", 0)
    luck = Random(2)
    stored: list[int] = []
    for first in range(0, 480, 8):
        puts = {item: history.invoke(f"p{item % 8}", "it", "put", (item,)) for item in range(first, first + 8)}
        order = luck.sample(sorted(puts), 8)
        stored += order
        for item in luck.sample(sorted(puts), 8):
            history.returned(puts[item])
    for first in range(0, 480, 8):
        gets = {item: history.invoke(f"g{item % 8}", "it", "get") for item in stored[first : first + 8]}
        for item in luck.sample(sorted(gets), 8):
            history.returned(gets[item], item)
    _, finding = history.judge("it")
    assert finding.verdict is Verdict.LINEARIZABLE
    assert finding.configurations < 3000


def test_a_search_that_takes_too_long_says_so() -> None:
    """Undecided is an error of its own: nothing was found wrong, and nothing was shown right."""
    history = Queues(1, 3, 30).run()
    with pytest.raises(Undecided, match="it \\(30 calls\\)"):
        history.check(configurations_max=10)


def test_one_history_has_one_verdict() -> None:
    """Nothing depends on the order of a set or on an address."""
    for world in WORLDS:
        text = world(3, 4, 40).run().to_json()
        assert world(3, 4, 40).run().to_json() == text
        work = {History.from_json(text).judge("it")[1].configurations for _ in range(3)}
        assert len(work) == 1


def test_very_many_ways_to_few_states_end_the_search_too() -> None:
    """Twenty items may each have come back with a session or not, and most of that leads to the same: a search that
    counted nothing but what is new went on for hours.
    """

    class Roundabout(MODELS["Event"]):  # type: ignore[misc, name-defined]
        def ended(self, state: Any, session: str) -> Any:
            yield from itertools.repeat(state, 10**9)

    history = History()
    history.declare("it", "Event")
    history.returned(history.invoke("p", "it", "set", ()), None)
    history.returned(history.invoke("p", "it", "is_set", ()), True)
    history.session_lost("p")
    history.returned(history.invoke("p", "it", "is_set", ()), False)
    finding = search(Roundabout(), history.calls_of("it"), most=100)
    assert finding.verdict is Verdict.UNDECIDED
