# SPDX-License-Identifier: Apache-2.0
"""What must hold of all replicas together: one value a slot, never another; each command where its leader put it;
nothing acknowledged is lost; no stale answer.
"""

from __future__ import annotations

from replicas.paxos.core import Paxos
from replicas.paxos.types import NO_BALLOT, Ballot, Configuration, Entry, EntryKind
from replicas.paxos.values import decode_ballot, decode_configuration
from tests.sim.evidence import Evidence


class Agreement:
    """Sees everything that any replica hands out as chosen, in every one of its lives."""

    def __init__(self, configuration: Configuration, evidence: Evidence) -> None:
        self.evidence = evidence
        self.log: dict[int, tuple[int, bytes]] = {}
        self.configuration = configuration
        """Who votes about the first slot that nobody has handed out."""
        self.intended: set[Configuration] = {configuration}
        """All that were ever proposed."""
        self.reign = NO_BALLOT
        """The ballot in force there."""
        self.reigns = 0
        self.acknowledged: dict[bytes, int] = {}
        self.confirmed = 0
        self.failed = 0
        self._proposed: dict[bytes, tuple[int, Ballot]] = {}

    @property
    def end(self) -> int:
        """The last slot that anybody has handed out. Whatever was answered anywhere is at or below it."""
        return self.evidence.end

    def propose(self, value: bytes, slot: int, ballot: Ballot) -> None:
        """A leader has put a client's command there."""
        self._proposed[value] = slot, ballot

    def chosen(self, replica: int, entry: Entry) -> None:
        """Replica `replica` says that this is chosen."""
        value = (entry.kind, entry.value)
        before = self.log.get(entry.slot)
        if before is not None:
            assert before == value, f"replica {replica}: slot {entry.slot} is {value}, and was {before} elsewhere"
            return
        self.evidence.choose(entry.slot, entry.kind, entry.value, self.configuration)
        self.log[entry.slot] = value
        if entry.kind == EntryKind.COMMAND:
            self._follows_its_leader(entry)
        elif entry.kind == EntryKind.LEADS:
            ballot = decode_ballot(entry.value)
            self.reigns += ballot > self.reign
            self.reign = max(self.reign, ballot)
        elif entry.kind == EntryKind.CONFIGURATION:
            configuration = decode_configuration(entry.value)
            assert configuration in self.intended, f"slot {entry.slot} holds members that nobody has proposed"
            if configuration.epoch == self.configuration.epoch + 1:
                self.configuration = configuration

    def _follows_its_leader(self, entry: Entry) -> None:
        """It stands where its leader put it, and between that leader's LEADS and the next one: so it follows on all
        that its leader had before it, and on nothing else (Zab's primary order).
        """
        assert entry.value in self._proposed, f"slot {entry.slot} is {entry.value!r}, which nobody has proposed"
        slot, ballot = self._proposed[entry.value]
        assert slot == entry.slot, f"{entry.value!r} was proposed for slot {slot} and is chosen at {entry.slot}"
        assert ballot == self.reign, (
            f"{entry.value!r} was proposed under {tuple(ballot)} and is chosen in the reign of {tuple(self.reign)}"
        )

    def up_to_date(self, replica: int, core: Paxos) -> None:
        """A replica that is as far as anybody has the same opinion of who votes and who reigns."""
        if core.chosen == self.end:
            assert core.configuration.epoch == self.configuration.epoch, f"replica {replica} believes in other members"
            assert core.ballot_in_force == self.reign, f"replica {replica} believes in another reign"

    def acknowledge(self, value: bytes, slot: int) -> None:
        """A client was told that its command is done."""
        self.acknowledged[value] = slot

    def confirm(self, replica: int, floor: int, answered_before: int, leads: bool) -> None:
        """A read may be answered from a state of `floor`. When it was asked, others had answered up to
        `answered_before`, and a quorum was (or was not) free to confirm that this replica `leads`.
        """
        self.confirmed += 1
        assert floor >= answered_before, (
            f"replica {replica} reads at {floor} what others have seen at {answered_before}"
        )
        assert leads, f"replica {replica} was deposed by a quorum before the question, and is confirmed"

    def kept(self) -> None:
        """Everything acknowledged is in the log, where it was."""
        for value, slot in self.acknowledged.items():
            assert self.log[slot] == (EntryKind.COMMAND, value)
