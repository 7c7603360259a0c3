# SPDX-License-Identifier: Apache-2.0
"""All that two clients of one lock can live to see in a small scope, and bugs that this finds."""

from __future__ import annotations

import pytest

from tests.scope.lock_bugs import BUGS
from tests.scope.mutual import QUICK, explorer
from tests.scope.planting import Bug

COUNTED = {
    "a call is withdrawn": 6_188,
    "a connection breaks": 58_212,
    "a call is withdrawn and a connection breaks": 49_403,
    "a lease lapses": 44_826,
    "another leader": 71_230,
    "the Expire of a deposed leader": 25_040,
}
"""States. Another number is no fault, but half or twice of it is another model, and somebody should know why."""


@pytest.mark.parametrize("name", QUICK)
def test_no_state_of_the_scope_breaks_a_rule(name: str) -> None:
    """Every reachable state is seen: nobody holds the lock beside another, or waits for nothing, and so on."""
    result = explorer(QUICK[name]).run()
    assert not result.fault, "\n".join(result.trace)
    assert result.complete
    assert result.at_rest, "there are states in which nothing is on its way"
    assert COUNTED[name] / 2 < result.states < COUNTED[name] * 2


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    """A search that finds nothing means something only if it finds what is there."""
    with bug.planted():
        search = explorer(bug.scope)
        result = search.run()
        assert result.fault
        assert f"FAULT {result.fault}" in list(search.follow(result.replay)), "the way to it leads there again"
