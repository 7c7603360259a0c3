# SPDX-License-Identifier: Apache-2.0
"""A replica of the Paxos model as an outsider knows it: its disk, what it has ever done, what must hold of it alone.

Nothing here asks the code for its opinion, but to contradict it. What must hold over all replicas is in agreement.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from replicas.paxos import messages
from replicas.paxos.core import Paxos
from replicas.paxos.messages import Accept, Prepare, Promise
from replicas.paxos.types import NO_BALLOT, Accepted, Ballot, ChosenTo, Entry, EntryKind, Promised
from replicas.paxos.values import decode_ballot

Vote = tuple[int, Ballot, int, bytes]
"""(slot, ballot, kind, value)."""


class Facts(NamedTuple):
    """What a replica has done for ever, as its disk and its words show."""

    votes: frozenset[Vote]
    """Everything that was ever on its disk."""
    given: tuple[tuple[int, bytes], ...]
    """What it handed out as chosen, from slot 1 on, in any of its lives."""
    proposed: frozenset[Vote]
    """What its Accepts carried."""
    promises: frozenset[Ballot]
    """The ballots that it has promised to their owners, its own ones among them. Only where the members change."""
    bases: frozenset[tuple[Ballot, int]]
    """The ballots under which it has led, with the first slot of each. Only where the members change."""


class Node:
    """A replica with its disk, and what must be remembered of it to judge it."""

    __slots__ = (
        "ballots", "bases", "chosen_to", "commands", "core", "counted", "crashes", "entries", "given", "held",
        "promised", "promises", "proposed", "remembers_elections", "unsynced", "used", "votes",
    )  # fmt: skip

    def __init__(self, *, remembers_elections: bool) -> None:
        self.core: Paxos | None = None
        # the disk
        self.promised = NO_BALLOT
        self.entries: dict[int, Entry] = {}
        self.chosen_to = 0
        self.unsynced: list[tuple[int, list[Any]]] = []
        self.held: list[tuple[int, int, Any]] = []  # (batch that must be synced, target, message)
        # the past
        self.votes: set[Vote] = set()
        self.given: list[tuple[int, bytes]] = []
        self.proposed: set[Vote] = set()
        self.used = NO_BALLOT  # its highest ballot ever prepared
        self.remembers_elections = remembers_elections
        self.promises: set[Ballot] = set()
        self.bases: set[tuple[Ballot, int]] = set()
        self.ballots = 0
        self.crashes = 0
        self.commands = 0
        self.counted = NO_BALLOT  # the ballot counted last in `ballots`

    def facts(self) -> Facts:
        """What stays true of it, whatever comes."""
        return Facts(
            frozenset(self.votes),
            tuple(self.given),
            frozenset(self.proposed),
            frozenset(self.promises),
            frozenset(self.bases),
        )

    # --- what happens to it

    def write(self, record: Any) -> None:
        """The record is on its disk."""
        match record:
            case Promised(ballot=ballot):
                assert ballot > self.promised, "a promise on the disk decreased"
                self.promised = ballot
            case Accepted(entry=entry):
                assert entry.ballot <= self.promised, "an entry is durable under a ballot that is not promised"
                self.entries[entry.slot] = entry
                self.votes.add(tuple(entry))
            case ChosenTo(slot=slot):
                self.chosen_to = max(self.chosen_to, slot)

    def hand_out(self, entries: list[Entry]) -> None:
        """It says that these are chosen; after a restart it begins anew."""
        for entry in entries:
            value = (int(entry.kind), entry.value)
            if entry.slot <= len(self.given):
                assert self.given[entry.slot - 1] == value, f"slot {entry.slot} is handed out with two values"
            else:
                assert entry.slot == len(self.given) + 1, "handed out with a gap"
                self.given.append(value)

    # --- what must hold of it

    def judge_word(self, number: int, message: Any) -> None:
        """No message leaves that depends on something that is not on the disk."""
        match message:
            case Prepare(ballot=ballot):
                assert self.promised >= ballot, "a Prepare left before its promise was durable"
                if ballot != self.used:
                    assert ballot > self.used, "a ballot is used twice, or one below an older one of the same replica"
                    assert ballot.replica == number, "a ballot of somebody else"
                    self.used = ballot
                self._remember_promise(ballot)
            case Promise(ballot=ballot, entries=entries):
                assert self.promised >= ballot, "a Promise left before it was durable"
                for entry in entries:
                    assert tuple(entry) in self.votes, "a Promise tells of an entry that is not durable"
                self._remember_promise(ballot)
            case Accept():
                self._judge_accept(message)
            case messages.Accepted(ballot=ballot, upto=upto):
                assert self.promised >= ballot, "an acknowledgement left before the promise was durable"
                for slot in range(1, upto + 1):
                    at = any(vote[0] == slot and vote[1] == ballot for vote in self.votes)
                    assert at or slot <= len(self.given), f"slot {slot} is acknowledged, but not durable at {ballot}"
                    assert slot in self.entries, f"slot {slot} is acknowledged and is not on the disk"
            case _:
                pass

    def _judge_accept(self, message: Accept) -> None:
        ballot = message.ballot
        assert self.promised >= ballot, "an Accept left before its leader's promise was durable"
        assert ballot == self.used, "an Accept under a ballot that was not prepared"
        for index, (kind, value) in enumerate(zip(message.kinds, message.values, strict=True)):
            self.proposed.add((message.first + index, ballot, int(kind), value))
        if self.remembers_elections:
            self.bases.add((ballot, message.base))

    def _remember_promise(self, ballot: Ballot) -> None:
        if self.remembers_elections:
            self.promises.add(ballot)

    def judge(self, number: int) -> None:
        """After each step: what the code takes for durable is, and it leads by right."""
        core = self.core
        assert core is not None
        assert core.promised >= self.promised, "the core has promised less than its disk"
        assert core._acceptor.promised_durably <= self.promised, "the core takes more for promised than its disk has"
        for slot in range(1, core._acceptor.durable + 1):
            assert slot in self.entries, f"the core takes slot {slot} for durable"
        leadership = core._leadership
        if leadership is not None:
            assert leadership.ballot.replica == number, "it leads under a ballot of somebody else"
            assert leadership.ballot == core.promised == self.used, "it leads below its promise"
            self._judge_reign(core.chosen, leadership.base)
        if core.ready:
            assert leadership is not None
            slot = leadership.leads_slot
            assert slot <= len(self.given), "ready before its LEADS was handed out"
            kind, value = self.given[slot - 1]
            assert kind == EntryKind.LEADS, "ready without a LEADS of its own"
            assert decode_ballot(value) == leadership.ballot, "ready by another's LEADS"

    def _judge_reign(self, floor: int, base: int) -> None:
        """Whoever leads has not handed out, in this life, a change of members above which it was not elected."""
        for slot, (kind, _) in enumerate(self.given[:floor], 1):
            assert kind != EntryKind.CONFIGURATION or base > slot, f"it leads on behind the change in slot {slot}"
