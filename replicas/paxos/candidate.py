# SPDX-License-Identifier: Apache-2.0
"""Phase 1: the votes a candidate has, and what it must propose again. It sends nothing and knows no time.

A candidacy is first a pre-vote, which changes no state anywhere, then a preparation under the ballot that it owns.
For each slot the value accepted under the highest ballot is taken; the rule of the paper, per slot, over a range.
"""

from __future__ import annotations

from replicas.paxos.acceptor import Acceptor
from replicas.paxos.messages import Promise
from replicas.paxos.values import Ballot, Configuration, Entry, EntryKind, decode_ballot


class _Vote:
    """What one acceptor has promised so far: its pages come one after the other."""

    __slots__ = ("done", "floor", "next_slot", "unknown")

    def __init__(self, next_slot: int) -> None:
        self.next_slot = next_slot
        self.done = False
        self.floor = 0
        self.unknown: set[int] = set()


class Candidacy:
    """One attempt of this replica to lead, under `ballot`, in the configuration in force at its floor."""

    def __init__(
        self,
        *,
        replica: int,
        ballot: Ballot,
        configuration: Configuration,
        from_slot: int,
        preparing: bool,
        transfer: bool = False,
    ) -> None:
        self.ballot = ballot
        self.configuration = configuration
        self.from_slot = from_slot
        self.preparing = preparing
        self.transfer = transfer
        self._replica = replica
        self._granted: dict[int, int] = {}  # voter -> its floor
        self._votes = {member: _Vote(from_slot) for member in configuration.ids if member != replica}
        self._found: dict[int, Entry] = {}

    # --- the pre-vote

    def grant(self, voter: int, floor: int) -> None:
        """`voter` would promise, and knows slots up to `floor` to be chosen."""
        if voter in self.configuration.ids:
            self._granted[voter] = floor

    @property
    def granted(self) -> bool:
        """Whether a quorum would promise; this replica would."""
        return len(self._granted.keys() | {self._replica}) >= self.configuration.quorum

    # --- the promises

    def promised(self, voter: int, message: Promise) -> int:
        """One page of promises; the slot at which the next one begins, or 0 when there is nothing more to ask."""
        vote = self._votes.get(voter)
        if vote is None or vote.done or message.from_slot != vote.next_slot:
            return 0  # no member, or a page that was there already
        for entry in message.entries:
            self._find(entry)
        vote.floor = message.chosen
        vote.unknown.update(message.unknown)
        vote.next_slot = message.next_slot
        vote.done = message.next_slot == 0
        return message.next_slot

    def _find(self, entry: Entry) -> None:
        best = self._found.get(entry.slot)
        if best is None or entry.ballot > best.ballot:
            self._found[entry.slot] = entry
        elif entry.ballot == best.ballot:
            assert entry.kind == best.kind, f"slot {entry.slot} has two kinds under {entry.ballot}"
            assert entry.value == best.value, f"slot {entry.slot} has two values under {entry.ballot}"

    def unanswered(self) -> list[tuple[int, int]]:
        """Who has not answered in full, with the slot from which it is to be asked."""
        if self.preparing:
            return [(member, vote.next_slot) for member, vote in self._votes.items() if not vote.done]
        return [(member, self.from_slot) for member in self._votes if member not in self._granted]

    def behind(self) -> tuple[int, int] | None:
        """The voter that knows most, and its floor: a candidate must know as much before it may go on."""
        floors = (
            self._granted if not self.preparing else {m: vote.floor for m, vote in self._votes.items() if vote.done}
        )
        best = max(floors, key=lambda member: floors[member], default=None)
        return None if best is None else (best, floors[best])

    def complete(self, acceptor: Acceptor) -> bool:
        """Whether a quorum has promised in full, and for every slot a quorum of those that can know.

        This replica's own promise counts from the moment that it is on its disk.
        """
        done = [vote.unknown for vote in self._votes.values() if vote.done]
        if acceptor.promised_durably >= self.ballot:
            done.append(acceptor.doubtful)
        quorum = self.configuration.quorum
        if len(done) < quorum:
            return False
        in_doubt = {slot for unknown in done for slot in unknown if slot > acceptor.log.chosen}
        return all(sum(slot not in unknown for unknown in done) >= quorum for slot in in_doubt)

    def recovered(self, acceptor: Acceptor, in_force: Ballot) -> list[Entry]:
        """What has to be proposed again, from the first slot above the floor on, without a gap: values, or no-ops.

        A leader proposes LEADS behind everything that can have been chosen below its ballot. So behind a LEADS, in the
        log or `in_force` at the floor, nothing of a lower ballot was chosen; and it must not be now, for it may follow
        on what is not there ("primary order", as Zab calls it): a client's call on its attachment, say.
        """
        log = acceptor.log
        for entry in log.span(log.chosen + 1, log.last):
            self._find(entry)
        base = log.chosen + 1
        last = max((slot for slot in self._found if slot >= base), default=base - 1)
        entries = []
        reign = in_force
        for slot in range(base, last + 1):
            found = self._found.get(slot)
            if found is None or found.ballot < reign:
                entries.append(Entry(slot, self.ballot, int(EntryKind.NOOP), b""))
                continue
            entries.append(found._replace(ballot=self.ballot))
            if found.kind == EntryKind.LEADS:
                reign = max(reign, decode_ballot(found.value))
        return entries
