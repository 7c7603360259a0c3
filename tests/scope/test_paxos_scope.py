# SPDX-License-Identifier: Apache-2.0
"""All that three replicas can do in a small scope, and bugs that this finds. Bigger scopes: `python -m tests.scope`."""

from __future__ import annotations

import pytest

from tests.scope.agreement import QUICK, explorer
from tests.scope.paxos_bugs import BUGS
from tests.scope.planting import Bug
from tests.scope.replicas import Replica
from tests.scope.words import Scope

COUNTED = {
    "2 ballots": 11_029,
    "2 ballots, a command": 21_280,
    "3 ballots": 44_152,
    "a crash": 26_271,
    "a second member": 3_420,
    "a third member": 9_627,
    "another member, and the leader goes": 1_563,
    "a second member and a crash": 459,
}
"""States. Another number is no fault, but half or twice of it is another model, and somebody should know why."""


@pytest.mark.parametrize("name", COUNTED)
def test_no_state_of_the_scope_breaks_a_rule(name: str) -> None:
    """Every reachable state is seen, and in each of them one value is chosen in a slot at most, and so on."""
    result = explorer(QUICK[name]).run()
    assert not result.fault, "\n".join(result.trace)
    assert result.complete
    assert COUNTED[name] / 2 < result.states < COUNTED[name] * 2


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    """A search that finds nothing means something only if it finds what is there."""
    with bug.planted():
        search = explorer(bug.scope)
        result = search.run()
        assert result.fault
        assert f"FAULT {result.fault}" in list(search.follow(result.replay)), "the way to it leads there again"


class _Keeping(Replica):
    """A replica whose inbox forgets nothing."""

    def _is_dead(self, node: object, mail: object) -> bool:
        return False


class _Patient(Replica):
    """A replica that may also say later what it can say now without a change."""

    forgets_nothing = False


@pytest.mark.parametrize(
    ("kind", "scope"),
    [
        (_Keeping, Scope(ballots=2, slots=1, catching_up=False, standing=(1, 2))),
        (_Patient, Scope(ballots=2, slots=1, standing=(1, 2))),
        (_Patient, Scope(ballots=2, slots=1, crashes=1, catching_up=False, standing=(1, 2))),
    ],
    ids=["what has no effect any more is dropped", "what changes nothing is said at once", "also with a crash"],
)
def test_what_makes_a_search_smaller_leaves_nothing_out(kind: type[Replica], scope: Scope) -> None:
    """Both are argued in words where they are done, so they are tried against doing without: every replica comes into
    just the same states.
    """
    reached = []
    for each in (Replica, kind):
        search = explorer(scope, each)
        assert search.run().complete
        reached.append([place.reached for place in search.places])
    assert reached[0] == reached[1]
