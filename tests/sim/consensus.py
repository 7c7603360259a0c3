# SPDX-License-Identifier: Apache-2.0
"""Bare consensus as a program for a host: its machine only remembers how far it is, and it reports to the checker."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from replicas.paxos.core import Paxos
from replicas.paxos.messages import Accept, Prepare, Promise
from replicas.paxos.messages import Accepted as AcceptedMessage
from replicas.paxos.types import NO_BALLOT, Configuration, Entry, Output, Timing
from tests.sim.checker import Agreement
from tests.sim.records import RecordDisk, Snapshot


class SnapshotWanted(NamedTuple):
    """A replica that is too far behind asks for a snapshot."""

    above: int


class SnapshotGiven(NamedTuple):
    """The whole of it in one message, which is enough here."""

    snapshot: Snapshot


class Read(NamedTuple):
    """A token of confirm(): what had been answered anywhere when it was asked."""

    answered_before: int


class ConsensusProgram:
    """One replica: Paxos, a disk of records, and a machine that counts."""

    def __init__(
        self,
        replica: int,
        configuration: Configuration,
        agreement: Agreement,
        luck: random.Random,
        *,
        snapshot_every: int,
        keep: int,
        timing: Timing,
    ) -> None:
        self.replica = replica
        self.disk = RecordDisk(luck)
        self.core: Paxos | None = None
        self.applied = 0
        self.doubt_next = False
        self._configuration = configuration
        self._agreement = agreement
        self._luck = luck
        self._snapshot_every = snapshot_every
        self._keep = keep
        self._timing = timing
        self._proposed: set[bytes] = set()
        self._said = NO_BALLOT  # the highest ballot that a message of ours has left with
        self._claimed = 0  # the highest slot that was said to be on this disk
        self._lost = False  # the disk was in doubt once, so it may hold less
        self._to_send: list[tuple[int, Any]] = []

    # --- the host's side

    def boot(self, now_ms: int) -> Paxos:
        durable = self.disk.recover()
        assert durable.promised >= self._said, "a promise that others have seen was forgotten"
        last = durable.entries[-1].slot if durable.entries else durable.snapshot_slot
        assert last >= self._claimed or self._lost, "an acknowledged entry was forgotten"
        self.applied = durable.snapshot_slot
        self._proposed = set()
        self._to_send = []
        self.core = Paxos(
            replica=self.replica,
            configuration=self._configuration,
            durable=durable,
            timing=self._timing,
            luck=self._luck.random,
            now_ms=now_ms,
        )
        return self.core

    def write(self, records: list[Any]) -> None:
        self.disk.write(records)

    def sync(self, batches: int) -> None:
        self.disk.sync(batches)

    def crash(self) -> None:
        self.disk.crash(self.doubt_next)
        self._lost |= self.doubt_next
        self.doubt_next = False
        self.core = None

    def arrived(self, source: int, message: Any) -> bool:
        match message:
            case SnapshotWanted(above=above):
                snapshot = self.disk.snapshot
                if snapshot is not None and snapshot.slot > above:
                    self._to_send.append((source, SnapshotGiven(snapshot)))
            case SnapshotGiven(snapshot=snapshot):
                self._install(snapshot)
            case _:
                return False
        return True

    def handle(self, output: Output) -> None:
        core = self.core
        assert core is not None
        for entry in output.chosen:
            self._apply(entry)
        for token in output.confirmed:
            assert isinstance(token, Read)
            self._agreement.confirm(self.replica, core.chosen, token.answered_before)
        self._agreement.failed += len(output.failed)
        if output.fetch_snapshot_from is not None:
            self._to_send.append((output.fetch_snapshot_from, SnapshotWanted(self.applied)))
        saved = 0 if self.disk.snapshot is None else self.disk.snapshot.slot
        if self.applied - saved >= self._snapshot_every:
            self.disk.save(Snapshot(core.chosen, core.configuration, core.chain, core.promised, self.applied))
            upto = max(core.first_kept - 1, core.chosen - self._keep)
            core.compact(upto, core.chain_at(upto))
        output.send_now += self._to_send
        self._to_send = []

    def sent(self, message: Any) -> None:
        """A message left this machine: what it says must never be taken back."""
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

    def _install(self, snapshot: Snapshot) -> None:
        core = self.core
        assert core is not None
        if snapshot.slot > core.chosen:
            self.disk.save(snapshot)
            core.installed(snapshot.slot, snapshot.configuration, snapshot.chain, snapshot.promised)
            self.applied = snapshot.slot

    # --- the clients' side

    def propose(self, core: Paxos, value: bytes) -> None:
        """A client asks this replica; it is told when the command is chosen here."""
        if core.propose(value) is not None:
            self._proposed.add(value)

    def read(self, core: Paxos) -> None:
        """A client reads from this replica, if it leads."""
        core.confirm(Read(self._agreement.highest_answered))
