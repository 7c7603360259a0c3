# SPDX-License-Identifier: Apache-2.0
"""What must hold over all replicas of the Paxos model, and named scopes of it.

"Chosen" is counted here from what the disks have ever held, without asking the code: a value is chosen in a slot when a
quorum of distinct replicas of that slot's configuration has had it on disk under one ballot. The configuration of a
slot is the one that was chosen below it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from replicas.paxos.types import Ballot, EntryKind
from replicas.paxos.values import Configuration, decode_configuration
from tests.scope.exploring import Explorer
from tests.scope.nodes import Facts, Vote
from tests.scope.replicas import Replica
from tests.scope.words import Scope, configuration, dotted, what


class History:
    """What the disks of all replicas have chosen, slot by slot, and who rules in each."""

    def __init__(self, facts: tuple[Facts, ...], first: Configuration) -> None:
        self._facts = facts
        self._first = first
        self.chosen: dict[int, tuple[int, bytes]] = {}
        self._bases = dict(base for fact in facts for base in fact.bases)
        voters: dict[Vote, set[int]] = {}
        for number, fact in enumerate(facts, 1):
            for vote in fact.votes:
                voters.setdefault(vote, set()).add(number)
        for vote, numbers in sorted(voters.items()):
            self._count(vote, numbers)

    def _count(self, vote: Vote, numbers: set[int]) -> None:
        slot, ballot, kind, value = vote
        ruling = self.ruling(slot)
        # What an older epoch's leader left behind is no vote in this one, however many have it.
        if ballot in self._bases and self.ruling(min(slot, self._bases[ballot])).epoch < ruling.epoch:
            return
        if len(numbers & set(ruling.ids)) >= _majority(ruling):
            before = self.chosen.setdefault(slot, (kind, value))
            assert before == (kind, value), (
                f"two values are chosen in slot {slot}: {what(*before)} and {what(kind, value)}"
            )

    def ruling(self, slot: int) -> Configuration:
        """Whose quorum chooses in that slot."""
        ruling = self._first
        for below in range(1, slot):
            kind, value = self.chosen.get(below, (EntryKind.NOOP, b""))
            if kind == EntryKind.CONFIGURATION:
                entry = decode_configuration(value)
                ruling = entry if entry.epoch == ruling.epoch + 1 else ruling
        return ruling


def _majority(ruling: Configuration) -> int:
    return len(ruling.ids) // 2 + 1  # counted here, not asked of the code


class Rules:
    """The invariants over the facts of all replicas."""

    def __init__(self, first: Configuration) -> None:
        self._first = first

    def __call__(self, facts: tuple[Facts, ...]) -> None:
        """Raises AssertionError where one is broken."""
        _one_value_a_ballot([vote for fact in facts for vote in (*fact.votes, *fact.proposed)])
        history = History(facts, self._first)
        for number, fact in enumerate(facts, 1):
            for slot, value in enumerate(fact.given, 1):
                chosen = what(*history.chosen[slot]) if slot in history.chosen else "nothing"
                assert history.chosen.get(slot) == value, (
                    f"replica {number} takes {what(*value)} for chosen in slot {slot}, "
                    f"where the disks have chosen {chosen}"
                )
            for ballot, base in fact.bases:
                self._led_by_right(facts, history, ballot, base)
            self._stops_at_a_change(history, fact)

    def _led_by_right(self, facts: tuple[Facts, ...], history: History, ballot: Ballot, base: int) -> None:
        """A leader was elected by those who rule where it begins, and all below that is chosen."""
        for slot in range(1, base):
            assert slot in history.chosen, f"{dotted(ballot)} begins above slot {slot}, which is not chosen"
        ruling = history.ruling(base)
        assert ballot.replica in ruling.ids, f"{dotted(ballot)} leads from slot {base} on, and is no member there"
        promised = [number for number in ruling.ids if ballot in facts[number - 1].promises]
        assert len(promised) >= _majority(ruling), (
            f"{dotted(ballot)} leads from slot {base} on, and of its members {ruling.ids} only {promised} promised it"
        )

    def _stops_at_a_change(self, history: History, fact: Facts) -> None:
        """Under one ballot nothing is proposed beyond an entry that changes the members: another quorum rules there."""
        for slot, ballot, kind, value in fact.proposed:
            if kind != EntryKind.CONFIGURATION or decode_configuration(value).epoch <= history.ruling(slot).epoch:
                continue
            for beyond in fact.proposed:
                assert beyond[1] != ballot or beyond[0] <= slot, (
                    f"{dotted(ballot)} proposes {what(*beyond[2:])} in slot {beyond[0]}, "
                    f"past the change of members in slot {slot}"
                )


def _one_value_a_ballot(said: Iterable[Vote]) -> None:
    values: dict[tuple[int, Ballot], tuple[int, bytes]] = {}
    for slot, ballot, kind, value in said:
        before = values.setdefault((slot, ballot), (kind, value))
        assert before == (kind, value), f"slot {slot} has two values under ballot {dotted(ballot)}"


def explorer(scope: Scope, kind: type[Replica] = Replica) -> Explorer:
    """The model of that scope, ready to run."""
    everybody = tuple(range(1, scope.replicas + 1))
    replicas = [kind(number, scope) for number in everybody]
    rules = Rules(configuration(1, scope.members or everybody))
    return Explorer(replicas, rules, budgets=(scope.ballots, scope.crashes))


QUICK: Final = {
    "2 ballots": Scope(ballots=2, slots=1),
    "2 ballots, a command": Scope(ballots=2, slots=2, catching_up=False),
    "3 ballots": Scope(ballots=3, slots=1, catching_up=False, standing=(1, 2)),
    "a crash": Scope(ballots=2, slots=1, crashes=1, catching_up=False, standing=(1, 2)),
    "a second member": Scope(replicas=2, members=(1,), changes=((1, 2),), ballots=3, slots=3),
    "a third member": Scope(replicas=3, members=(1, 2), changes=((1, 2, 3),), ballots=2, slots=2),
    "another member, and the leader goes": Scope(replicas=3, members=(1, 2), changes=((2, 3),), ballots=2, slots=2),
    "a second member and a crash": Scope(replicas=2, members=(1,), changes=((1, 2),), ballots=2, slots=2, crashes=1),
}
"""What the tests run: seconds each."""

FINISHED: Final = {
    "ballots=2,slots=1": (11_029, 26_667),
    "ballots=2,slots=2": (52_219, 136_515),
    "ballots=2,slots=1,crashes=1,catching_up=False": (60_994, 154_842),
    "ballots=2,slots=1,crashes=1": (145_318, 412_032),
    "ballots=2,slots=1,beats=1": (91_339, 350_919),
    "ballots=3,slots=1,catching_up=False": (146_940, 333_140),
    "replicas=2,members=(1,),changes=((1,2),),ballots=2,slots=2,crashes=1": (459, 780),
    "replicas=2,members=(1,),changes=((1,2),),ballots=3,slots=3": (3_420, 4_756),
    "replicas=3,members=(1,2),changes=((2,3),),ballots=2,slots=2": (1_563, 2_733),
    "replicas=3,members=(1,2),changes=((1,2,3),),ballots=2,slots=2": (9_627, 31_332),
    "replicas=4,members=(1,2,3),changes=((1,2,4),),ballots=2,slots=2,standing=(1,)": (1_205_634, 4_897_971),
    "replicas=4,members=(1,2,3),changes=((1,2,3,4),),ballots=2,slots=2,standing=(1,)": (1_727_427, 7_256_084),
}
"""Scopes that were searched to the end without a fault: states, transitions. Each takes from a second to a minute of
one core; what drops a message early may change the transitions a little.

Larger ones were begun and not ended: three ballots where the members are three, any two ballots with a slow disk.
"""

BEFORE_CLOSING: Final = {
    "ballots=2,slots=1,refusals=True": (4_195_975, 33_304_917),
    "ballots=3,slots=2,catching_up=False": (480_032, 1_988_795),
}
"""The same of earlier code, when what changes nothing was not yet said at once: not counted again since."""
