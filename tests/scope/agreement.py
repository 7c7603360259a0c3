# SPDX-License-Identifier: Apache-2.0
"""What must hold over all replicas of the Paxos model, and named scopes of it.

"Chosen" is counted here from what the disks have ever held, without asking the code: a value is chosen in a slot when a
quorum of distinct replicas has had it on disk under one ballot.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from replicas.paxos.types import Ballot
from tests.scope.exploring import Explorer
from tests.scope.replicas import Facts, Replica, Scope, dotted, what


class Rules:
    """The invariants over the facts of all replicas."""

    def __init__(self, quorum: int) -> None:
        self._quorum = quorum

    def __call__(self, facts: tuple[Facts, ...]) -> None:
        """Raises AssertionError where one is broken."""
        _one_value_a_ballot([vote for fact in facts for vote in (*fact.votes, *fact.proposed)])
        chosen = self._chosen(facts)
        for number, fact in enumerate(facts, 1):
            for slot, value in enumerate(fact.given, 1):
                assert chosen.get(slot) == value, (
                    f"replica {number} takes {what(*value)} for chosen in slot {slot}, "
                    f"where the disks have chosen {what(*chosen[slot]) if slot in chosen else 'nothing'}"
                )

    def _chosen(self, facts: tuple[Facts, ...]) -> dict[int, tuple[int, bytes]]:
        voters: dict[tuple[int, Ballot, int, bytes], int] = {}
        for fact in facts:
            for vote in fact.votes:
                voters[vote] = voters.get(vote, 0) + 1
        chosen: dict[int, tuple[int, bytes]] = {}
        for (slot, _, kind, value), count in sorted(voters.items()):
            if count >= self._quorum:
                before = chosen.setdefault(slot, (kind, value))
                assert before == (kind, value), (
                    f"two values are chosen in slot {slot}: {what(*before)} and {what(kind, value)}"
                )
        return chosen


def _one_value_a_ballot(said: Iterable[tuple[int, Ballot, int, bytes]]) -> None:
    values: dict[tuple[int, Ballot], tuple[int, bytes]] = {}
    for slot, ballot, kind, value in said:
        before = values.setdefault((slot, ballot), (kind, value))
        assert before == (kind, value), f"slot {slot} has two values under ballot {dotted(ballot)}"


def explorer(scope: Scope, kind: type[Replica] = Replica) -> Explorer:
    """The model of that scope, ready to run."""
    replicas = [kind(number, scope) for number in range(1, scope.replicas + 1)]
    return Explorer(replicas, Rules(replicas[0].quorum), budgets=(scope.ballots, scope.crashes))


QUICK: Final = {
    "2 ballots": Scope(ballots=2, slots=1),
    "2 ballots, a command": Scope(ballots=2, slots=2, catching_up=False),
    "3 ballots": Scope(ballots=3, slots=1, catching_up=False, standing=(1, 2)),
    "a crash": Scope(ballots=2, slots=1, crashes=1, catching_up=False),
}
"""What the tests run: seconds each."""

FINISHED: Final = {
    "ballots=2,slots=1": (15_271, 80_484),
    "ballots=2,slots=2": (73_393, 396_708),
    "ballots=2,slots=1,beats=1": (560_116, 4_782_300),
    "ballots=2,slots=1,refusals=True": (4_195_975, 33_304_917),
    "ballots=2,slots=1,crashes=1,catching_up=False": (60_994, 263_403),
    "ballots=2,slots=1,crashes=1": (211_237, 1_234_890),
    "ballots=3,slots=1,catching_up=False": (146_940, 582_711),
    "ballots=3,slots=2,catching_up=False": (480_032, 1_988_795),
}
"""Scopes of three replicas that were searched to the end without a fault: states, transitions. Each takes from seconds
to two minutes of one core; what drops a message early may change the transitions a little.

Larger ones were begun and not ended: three ballots with a crash, and any two ballots with a slow disk.
"""
