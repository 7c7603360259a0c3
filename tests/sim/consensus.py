# SPDX-License-Identifier: Apache-2.0
"""Bare consensus as a program for a host: its machine only remembers how far it is, and it reports to the checker."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from replicas.paxos.core import Paxos
from replicas.paxos.messages import Accept, Prepare, Promise, Refuse
from replicas.paxos.messages import Accepted as AcceptedMessage
from replicas.paxos.types import NO_BALLOT, Ballot, Configuration, Entry, Output, Role, Timing
from replicas.paxos.types import Accepted as AcceptedRecord
from tests.sim.checker import Agreement
from tests.sim.records import RecordDisk, Snapshot
from tests.sim.soundness import consensus_is_sound, nothing_above_is_lost


class SnapshotWanted(NamedTuple):
    """A replica that is too far behind asks for a snapshot."""

    above: int


class SnapshotGiven(NamedTuple):
    """The whole of it in one message, which is enough here."""

    snapshot: Snapshot


class Read(NamedTuple):
    """A token of confirm(): what had been answered anywhere when it was asked, and whether a quorum was free to say
    yes.
    """

    number: int
    answered_before: int
    leads: bool


class Habits(NamedTuple):
    """How the replicas of one world are set up."""

    timing: Timing
    snapshot_every: int
    keep: int
    """So many entries below a snapshot stay in the log."""
    save_us: tuple[int, int]
    """How long a snapshot takes to be written, or to be loaded."""


class ConsensusProgram:
    """One replica: Paxos, a disk of records, and a machine that counts."""

    def __init__(
        self, replica: int, configuration: Configuration, agreement: Agreement, luck: random.Random, habits: Habits
    ) -> None:
        self.replica = replica
        self.disk = RecordDisk(luck, lambda entry: agreement.evidence.durable(replica, entry))
        self.core: Paxos | None = None
        self.applied = 0
        self.doubt_next = False
        self.later: Callable[[int, Callable[[], None]], None] = lambda _, action: action()
        """Does something after so long, in a turn of its own."""
        self._configuration = configuration
        self._agreement = agreement
        self._luck = luck
        self._habits = habits
        self._proposed: set[bytes] = set()
        self._said = NO_BALLOT  # the highest ballot that a message of ours has left with
        self._claimed = 0  # the highest slot that was said to be on this disk
        self._lost = False  # the disk was in doubt once, so it may hold less
        self._to_send: list[tuple[int, Any]] = []
        self._cut = 0  # the slot of the last snapshot that was begun in this life
        self._installing = False
        self._asked: set[Read] = set()
        self._questions = 0
        self._flow = Flow(agreement)
        self._writing: deque[int] = deque()  # the lowest slot of each batch that is not synced
        agreement.evidence.disks[replica] = self.disk

    # --- the host's side

    def boot(self, now_ms: int) -> Paxos:
        durable = self.disk.recover()
        assert durable.promised >= self._said, "a promise that others have seen was forgotten"
        last = durable.entries[-1].slot if durable.entries else durable.snapshot_slot
        assert last >= self._claimed or self._lost, "an acknowledged entry was forgotten"
        self._agreement.evidence.began(self.replica)
        self.applied = self._cut = durable.snapshot_slot
        self._proposed, self._asked, self._to_send = set(), set(), []
        self._installing = False
        self._flow = Flow(self._agreement)
        self._writing.clear()
        self.core = Honest(
            replica=self.replica,
            configuration=self._configuration,
            durable=durable,
            timing=self._habits.timing,
            luck=self._luck.random,
            now_ms=now_ms,
        )
        if self.disk.snapshot is not None:
            self.core.reigned(self.disk.snapshot.state)
        return self.core

    def write(self, records: list[Any]) -> None:
        self._agreement.evidence.written(self.replica, records)
        self.disk.write(records)
        slots = [record.entry.slot for record in records if type(record) is AcceptedRecord]
        self._writing.append(min(slots, default=1 << 62))

    def sync(self, batches: int) -> None:
        for _ in range(batches):
            self._writing.popleft()
        self.disk.sync(batches)

    def crash(self) -> None:
        self.disk.crash(self.doubt_next)
        self._lost |= self.doubt_next
        self.doubt_next = False
        self.core = None

    def end(self) -> None:
        raise AssertionError("bare consensus is never ended otherwise")

    def heal(self) -> None:
        """Its disk has no ills of its own."""

    def arrived(self, source: int, message: Any) -> bool:
        match message:
            case SnapshotWanted(above=above):
                snapshot = self.disk.snapshot
                if snapshot is not None and snapshot.slot > above:
                    self._to_send.append((source, SnapshotGiven(snapshot)))
            case SnapshotGiven(snapshot=snapshot):
                self._fetched(snapshot)
            case _:
                if type(message) is AcceptedMessage:
                    self._flow.acknowledged(source, message)
                return False
        return True

    def handle(self, output: Output) -> None:
        core = self.core
        assert core is not None
        for entry in output.chosen:
            self._apply(entry)
        for token in (*output.confirmed, *output.failed):
            assert isinstance(token, Read)
            assert token in self._asked, "a question is answered that nobody has asked, or twice"
            self._asked.discard(token)
        for token in output.confirmed:
            assert isinstance(token, Read)
            self._agreement.confirm(self.replica, core.chosen, token.answered_before, token.leads)
        self._agreement.failed += len(output.failed)
        if output.chosen or output.persist:
            self._agreement.up_to_date(self.replica, core)
        consensus_is_sound(core, self.disk.entries, self.disk.promised)
        if output.fetch_snapshot_from is not None and not self._installing:
            self._to_send.append((output.fetch_snapshot_from, SnapshotWanted(self.applied)))
        if self.applied - max(self._cut, self.disk.floor) >= self._habits.snapshot_every:
            self._cut_snapshot(core)
        for target, message in output.send_now:
            if type(message) is Accept and message.values:
                self._flow.sends(target, message)
        output.send_now += self._to_send
        self._to_send = []

    def sent(self, message: Any) -> None:
        """A message left this machine: what it says must never be taken back."""
        self._agreement.evidence.said(self.replica, message)
        if isinstance(message, Promise | AcceptedMessage | Prepare | Accept):
            self._said = max(self._said, message.ballot)
        if isinstance(message, AcceptedMessage):
            self._claimed = max(self._claimed, message.upto)

    def _apply(self, entry: Entry) -> None:
        assert entry.slot == self.applied + 1, "handed out of order, or twice"
        self.applied = entry.slot
        self._agreement.chosen(self.replica, entry)
        if entry.value in self._proposed:
            self._proposed.discard(entry.value)
            self._agreement.acknowledge(entry.value, entry.slot)

    # --- snapshots

    def _cut_snapshot(self, core: Paxos) -> None:
        """Here and now; it is on the disk a while later."""
        state = core.ballot_in_force
        snapshot = Snapshot(core.chosen, core.configuration, core.chain, core.promised, state)
        self._cut = snapshot.slot
        self._soon(lambda core: self._saved(core, snapshot))

    def _saved(self, core: Paxos, snapshot: Snapshot) -> None:
        if snapshot.slot <= self.disk.floor:
            return
        self.disk.save(snapshot)
        upto = max(core.first_kept - 1, snapshot.slot - self._habits.keep)
        core.compact(upto, core.chain_at(upto))
        assert core.first_kept == upto + 1, "what a snapshot holds was to be forgotten"

    def _fetched(self, snapshot: Snapshot) -> None:
        if not self._installing and snapshot.slot > self.applied:
            self._installing = True
            self._soon(lambda core: self._install(core, snapshot))

    def _install(self, core: Paxos, snapshot: Snapshot) -> None:
        self._installing = False
        if snapshot.slot > self.applied and snapshot.slot > self.disk.floor:
            self.disk.save(snapshot)
            news = snapshot.slot > core.chosen  # else it is chosen here, too, and not handed out yet
            with nothing_above_is_lost(core, snapshot.slot):
                core.installed(snapshot.slot, snapshot.configuration, snapshot.chain, snapshot.promised)
            core.reigned(snapshot.state)
            self.applied = snapshot.slot
            assert not news or core.promised >= snapshot.promised, "chosen slots are taken over without their promise"

    def _soon(self, action: Callable[[Paxos], None]) -> None:
        """In a while, if this life lasts so long."""
        core = self.core

        def act() -> None:
            if core is not None and self.core is core:
                action(core)

        self.later(self._luck.randint(*self._habits.save_us), act)

    # --- the clients' side

    def propose(self, core: Paxos, value: bytes) -> None:
        """A client asks this replica; it is told when the command is chosen here."""
        slot = core.propose(value)
        if slot is not None:
            self._agreement.propose(value, slot, core.ballot)
            settled = min((lowest - 1 for lowest in self._writing), default=core.chosen)
            self._flow.proposed(core, slot, value, min(settled, core.chosen))
            self._proposed.add(value)
            core.inform(self._luck.choice(core.configuration.ids))

    def read(self, core: Paxos) -> None:
        """A client reads from this replica, if it leads."""
        free = core.ready and self._agreement.evidence.could_confirm(core.ballot, core.configuration)
        self._questions += 1
        token = Read(self._questions, self._agreement.end, free)
        if core.confirm(token):
            self._asked.add(token)

    def hand_over(self, core: Paxos, target: int | None) -> None:
        """An operator asks it to lead no more."""
        if core.role is Role.LEADER and len(core.configuration.members) > 1:
            core.hand_over(target)
            assert core.propose(b"too late") is None, "whoever hands over proposes nothing more"

    @property
    def unanswered(self) -> int:
        """Questions of this life that were neither confirmed nor failed."""
        return len(self._asked)


class Honest(Paxos):
    """What says that it has nothing to say has nothing to say: a shell may leave it alone. And whoever was refused
    for a higher ballot stands above that one next, or it would be refused again and again.
    """

    refused_for = NO_BALLOT

    def step(self, source: int, message: Any) -> None:
        if type(message) is Refuse and source in self.configuration.ids:
            self.refused_for = max(self.refused_for, message.promised)
        super().step(source, message)

    def _next_ballot(self) -> Ballot:
        ballot = super()._next_ballot()
        assert ballot > self.refused_for, f"{self.replica} stands at {ballot}, and was told of {self.refused_for}"
        return ballot

    def take(self) -> Output:
        due = self.due
        output = super().take()
        assert due or output.is_empty, "a core that was not due had something to say"
        return output


class Flow:
    """What one life has under way: the window of its proposals, and the pages to each follower."""

    def __init__(self, agreement: Agreement) -> None:
        self._limits = agreement.evidence.limits
        self._ballot = NO_BALLOT
        self._window: deque[tuple[int, int]] = deque()  # (slot, bytes)
        self._bytes = 0
        self._pages: dict[int, deque[int]] = {}
        self._received: dict[int, int] = {}
        self._base = 0
        self._before = 0

    def _under(self, ballot: Ballot) -> None:
        if ballot != self._ballot:
            self._ballot = ballot
            self._window.clear()
            self._bytes = self._before = 0
            self._pages, self._received = {}, {}

    def proposed(self, core: Paxos, slot: int, value: bytes, settled: int) -> None:
        """That much is proposed and not chosen, or not on the leader's own disk, at most.

        What had been chosen before its first proposal was never in its window.
        """
        self._under(core.ballot)
        limits = self._limits
        if not self._window:
            self._before = max(self._before, core.chosen)
        settled = max(settled, self._before)
        self._window.append((slot, len(value) + limits.overhead_bytes))
        self._bytes += len(value) + limits.overhead_bytes
        while self._window[0][0] <= settled:
            self._bytes -= self._window.popleft()[1]
        assert slot - settled <= max(limits.window_entries, 1), "more entries are under way than the window holds"
        assert len(self._window) <= 1 or self._bytes <= limits.window_bytes, "more bytes are under way"

    def sends(self, target: int, message: Accept) -> None:
        """So many pages, at most, are under way to somebody who acknowledges none."""
        self._under(message.ballot)
        pages = self._pages.setdefault(target, deque())
        if pages and pages[-1] >= message.first:
            pages.clear()  # something was lost, and what is not received is sent again
        self._base = message.base
        pages.append(message.first + len(message.values) - 1)
        assert len(pages) <= self._limits.pages, f"{len(pages)} pages are under way to {target}"

    def acknowledged(self, source: int, message: AcceptedMessage) -> None:
        """Pages that arrived, synced or not: what is sent next may begin behind them."""
        pages = self._pages.get(source)
        if pages is not None and message.ballot == self._ballot:
            if message.upto < self._base - 1:
                pages.clear()  # it took none of them: it fetches what is older
            received = self._received[source] = max(self._received.get(source, 0), message.received)
            while pages and pages[0] <= received:
                pages.popleft()
