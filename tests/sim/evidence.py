# SPDX-License-Identifier: Apache-2.0
"""What all disks together hold, and what replicas say of it: lemmas of Paxos, held against each record and message.

A world that waits until two replicas choose differently waits long: a rule that is broken does harm only when more
happens on top. So the rules are looked at themselves. What counts is what the disks were given, never the code's own
opinion of it; and each rule follows from the protocol, so a sound implementation cannot break it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from replicas.paxos import limits
from replicas.paxos.messages import Accept, Accepted, Chosen, Prepare, PreVoteGranted, Promise, Refuse
from replicas.paxos.types import NO_BALLOT, Ballot, Configuration, Entry
from replicas.paxos.types import Accepted as AcceptedRecord
from tests.sim.records import RecordDisk


class Limits(NamedTuple):
    """What this world's consensus may have under way, or say at once."""

    page_entries: int
    page_bytes: int
    pages: int
    window_entries: int
    window_bytes: int
    overhead_bytes: int


ROOMY = Limits(
    page_entries=limits.PAGE_ENTRIES,
    page_bytes=limits.PAGE_BYTES,
    pages=limits.PAGES_IN_FLIGHT,
    window_entries=limits.WINDOW_ENTRIES,
    window_bytes=limits.WINDOW_BYTES,
    overhead_bytes=limits.ENTRY_OVERHEAD_BYTES,
)
"""The product's own."""


class Held:
    """What was proposed in one slot under one ballot, and whose disks have ever held it."""

    __slots__ = ("holders", "kind", "value")

    def __init__(self, kind: int, value: bytes) -> None:
        self.kind = kind
        self.value = value
        self.holders = 0  # a bit for each replica


class Evidence:
    """Sees every record as it is written and as it is safe, and every message as it leaves."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.disks: dict[int, RecordDisk] = {}
        self.end = 0
        """Up to here everything was handed out as chosen by somebody."""
        self.spoken: Counter[str] = Counter()
        """How many messages of each kind have left."""
        self._slots: dict[int, dict[Ballot, Held]] = {}
        self._under: dict[int, Ballot] = {}  # slot -> the lowest ballot at which a quorum held it
        self._voters: dict[int, tuple[int, int]] = {}  # slot -> who voted there, a bit for each, and how many suffice
        self._promised: dict[int, Ballot] = {}  # in the order in which it was written, synced or not
        self._claimed: dict[int, tuple[Ballot, int]] = {}
        self._first: dict[Ballot, int] = {}  # the lowest slot that its owner has written under it
        self._checked: Any = None  # the message that was looked at last: one goes to many

    # --- the disks

    def began(self, replica: int) -> None:
        """It reads its disk: what was written and not synced may be gone."""
        self._promised[replica] = self.disks[replica].promised
        self._claimed.pop(replica, None)

    def written(self, replica: int, records: Iterable[Any]) -> None:
        """It has handed these to its disk."""
        promised = self._promised[replica]
        for record in records:
            if type(record) is AcceptedRecord:
                entry = record.entry
                assert entry.ballot >= promised, f"{replica} accepts at {entry.ballot}, below its promise {promised}"
                self._accepts(replica, entry)
            elif hasattr(record, "ballot"):
                promised = self._promised[replica] = record.ballot

    def _accepts(self, replica: int, entry: Entry) -> None:
        ballots = self._slots.setdefault(entry.slot, {})
        held = ballots.get(entry.ballot)
        if held is None:
            ballots[entry.ballot] = Held(entry.kind, entry.value)
            if entry.ballot.replica == replica:
                self._first.setdefault(entry.ballot, entry.slot)
            under = self._under.get(entry.slot)
            if under is not None and under < entry.ballot:
                self._holds_what_was_chosen(entry.slot, under, entry.ballot)
        else:
            assert (held.kind, held.value) == (entry.kind, entry.value), (
                f"replica {replica}: slot {entry.slot} has two values under {tuple(entry.ballot)}"
            )

    def _holds_what_was_chosen(self, slot: int, under: Ballot, ballot: Ballot) -> None:
        """Nothing else can be proposed under a higher ballot than that of the choice (P2b of Paxos Made Simple)."""
        chosen, later = self._slots[slot][under], self._slots[slot][ballot]
        assert (chosen.kind, chosen.value) == (later.kind, later.value), (
            f"slot {slot} was chosen under {tuple(under)}, and is proposed with another value under {tuple(ballot)}"
        )

    def durable(self, replica: int, entry: Entry) -> None:
        """This disk holds it for good."""
        self._slots[entry.slot][entry.ballot].holders |= 1 << replica

    # --- what is chosen

    def choose(self, slot: int, kind: int, value: bytes, configuration: Configuration) -> None:
        """Somebody hands this out, and is the first to do so: then a quorum must hold it under one ballot."""
        assert slot == self.end + 1
        self.end = slot
        self._voters[slot] = sum(1 << member for member in configuration.ids), configuration.quorum
        ballots = self._slots.get(slot, {})
        reached = [b for b in self._reached(slot) if (ballots[b].kind, ballots[b].value) == (kind, value)]
        assert reached, f"slot {slot} is handed out as chosen, and no quorum's disks hold that under any one ballot"
        under = self._under[slot] = min(reached)
        for ballot in ballots:
            if ballot > under:
                self._holds_what_was_chosen(slot, under, ballot)

    def _reached(self, slot: int) -> list[Ballot]:
        """The ballots at which a quorum's disks hold something there by now."""
        members, quorum = self._voters[slot]
        ballots = self._slots.get(slot, {})
        return [ballot for ballot, held in ballots.items() if (held.holders & members).bit_count() >= quorum]

    def could_confirm(self, ballot: Ballot, configuration: Configuration) -> bool:
        """Whether a quorum has promised nothing above `ballot` yet, so that whoever leads under it may be told so."""
        free = sum(self.disks[member].promised <= ballot for member in configuration.ids)
        return free >= configuration.quorum

    # --- what is said

    def said(self, replica: int, message: Any) -> None:
        """A message leaves: it is true by now, and small enough."""
        self.spoken[type(message).__name__] += 1
        match message:
            case Accept():
                self._said_durably(replica, message.ballot)
                if message is not self._checked:
                    self._checked = message
                    self._one_page(message.values)
                    assert message.ballot.replica == replica, "an Accept under another's ballot"
                    assert message.commit <= self.end, "a leader says more to be chosen than anybody has handed out"
            case Accepted():
                self._said_durably(replica, message.ballot)
                self._acknowledges(replica, message)
            case Promise():
                self._said_durably(replica, message.ballot)
                self._one_page([entry.value for entry in message.entries])
                self._promises(replica, message)
            case Prepare():
                self._said_durably(replica, message.ballot)
            case Chosen():
                self._one_page(message.values)
                assert message.first + len(message.values) - 1 <= self.end, "what is not chosen is said to be"
                assert message.chosen <= self.end, "what is not chosen is said to be"
            case PreVoteGranted() | Refuse():
                assert message.chosen <= self.end, "what is not chosen is said to be"

    def _said_durably(self, replica: int, ballot: Ballot) -> None:
        promised = self.disks[replica].promised
        assert promised >= ballot, f"{replica} speaks at {tuple(ballot)}; its disk has only promised {tuple(promised)}"

    def _one_page(self, values: Iterable[bytes]) -> None:
        sizes = [len(value) + self.limits.overhead_bytes for value in values]
        assert len(sizes) <= self.limits.page_entries, f"{len(sizes)} entries in one message"
        assert len(sizes) <= 1 or sum(sizes) <= self.limits.page_bytes, f"{sum(sizes)} bytes in one message"

    def _acknowledges(self, replica: int, message: Accepted) -> None:
        """What it says to hold is what this ballot's leader proposed, and is on its disk, or chosen up to this ballot.

        (What was chosen above it says nothing of it: that the acceptor knows it and acknowledges it here is as if it
        accepted below its promise.)
        """
        ballot, claimed = self._claimed.get(replica, (NO_BALLOT, 0))
        if ballot != message.ballot:
            claimed = self._first.get(message.ballot, 1) - 1
        for slot in range(claimed + 1, message.upto + 1):
            ballots = self._slots.get(slot, {})
            proposed = ballots.get(message.ballot)
            if proposed is not None and proposed.holders >> replica & 1:
                continue
            assert slot <= self.end, f"{replica} acknowledges slot {slot}, which it does not hold"
            under = self._under[slot]
            assert under <= message.ballot or min(self._reached(slot)) <= message.ballot, (
                f"{replica} acknowledges slot {slot} under {tuple(message.ballot)}, and only {tuple(under)} chose it"
            )
            chosen = ballots[under]
            assert proposed is None or (proposed.kind, proposed.value) == (chosen.kind, chosen.value), (
                f"{replica} acknowledges slot {slot} under {tuple(message.ballot)}, for it holds another value chosen"
            )
        self._claimed[replica] = message.ballot, max(claimed, message.upto)

    def _promises(self, replica: int, message: Promise) -> None:
        """A promise tells everything that this disk holds from before it, and what it may have lost."""
        told = {entry.slot: entry for entry in message.entries}
        disk = self.disks[replica]
        stop = message.next_slot or 1 << 62
        for entry in disk.above(max(message.chosen, message.from_slot - 1)):
            if entry.slot < stop and entry.ballot < message.ballot and entry.slot not in disk.doubtful:
                found = told.get(entry.slot)
                assert found is not None, f"{replica} promises and does not tell of slot {entry.slot}"
                assert found.ballot >= entry.ballot, f"{replica} promises and tells old news of slot {entry.slot}"
        lost = {slot for slot in disk.doubtful if slot > message.chosen}
        assert lost <= set(message.unknown), f"{replica} promises and does not tell that it may have lost {lost}"
