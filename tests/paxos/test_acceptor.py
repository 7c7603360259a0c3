# SPDX-License-Identifier: Apache-2.0
"""What an acceptor believes to be on its disk is what the batches that are there hold, in whatever order it wrote.

A new leader writes slots again that an older batch under way holds, too, and several batches are handed out before the
first of them is synced. The acceptor keeps one number for all that; here each record is kept, and looked up.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from replicas.paxos.acceptor import Acceptor
from replicas.paxos.types import Accepted, Durable, Promised
from replicas.paxos.values import NO_BALLOT, Ballot, Entry, EntryKind
from tests.histories import histories

STEPS = histories(
    st.tuples(st.sampled_from([*["write"] * 3, "promise", "seal", "sync", "chosen", "install"]), st.integers(0, 5)), 60
)


class Disk:
    """The batches of one acceptor, record by record."""

    def __init__(self) -> None:
        self.acceptor = Acceptor(Durable())
        self.batches: list[tuple[int, dict[int, Entry], Ballot]] = []
        """Of each its number, what it writes, and the highest promise up to it."""
        self.written: dict[int, Entry] = {}
        """What was written and not handed out."""
        self.synced = 0

    def write(self, back: int) -> None:
        """Some slot, up to `back` slots before the end of the log, is accepted anew."""
        log = self.acceptor.log
        slot = max(log.chosen + 1, log.last + 1 - back)
        if self.acceptor.promised == NO_BALLOT:
            self.acceptor.promise(Ballot(1, 1))
        ballot = self.acceptor.promised
        entry = Entry(slot, ballot, int(EntryKind.COMMAND), b"%d" % ballot.round)
        self.acceptor.write(entry)
        self.written[slot] = entry

    def seal(self) -> None:
        """The shell takes what there is."""
        records, number = self.acceptor.seal(0)
        told = {record.entry.slot: record.entry for record in records if isinstance(record, Accepted)}
        assert told == self.written, "each record is handed out, once"
        assert bool(number) == bool(records)
        promises = [record.ballot for record in records if isinstance(record, Promised)]
        before = self.batches[-1][2] if self.batches else NO_BALLOT
        if number:
            self.batches.append((number, told, max([before, *promises])))
        self.written = {}

    def sync(self, count: int) -> None:
        """The next batches reach the disk."""
        self.synced = min(len(self.batches), self.synced + count)
        if self.synced:
            self.acceptor.synced(self.batches[self.synced - 1][0])

    def install(self, above: int) -> None:
        """A snapshot comes from a peer: the batches that are under way stay so, and what they hold above it is kept."""
        self.acceptor.restart(self.acceptor.log.chosen + 1 + above, 0)

    def check(self) -> None:
        """Up to `durable`, and promised durably: just what is there."""
        on_disk: dict[int, Entry] = {}
        promised = NO_BALLOT
        for _, entries, ballot in self.batches[: self.synced]:
            on_disk.update(entries)
            promised = ballot
        log = self.acceptor.log
        for slot in range(log.first, self.acceptor.durable + 1):
            assert on_disk.get(slot) == log.get(slot), f"slot {slot} counts as durable"
        assert self.acceptor.promised_durably == promised
        everything = self.synced == len(self.batches) and not self.written
        assert not everything or self.acceptor.durable == log.last, "what is on the disk counts"
        assert not self.acceptor.idle or self.synced == len(self.batches)


@settings(derandomize=True, database=None, max_examples=300, deadline=None)
@given(STEPS)
def test_durable_is_what_the_disk_holds(steps: list[tuple[str, int]]) -> None:
    """Neither more, which would count what a crash loses, nor less in the end, which would stand still."""
    disk = Disk()
    for what, number in steps:
        match what:
            case "write":
                disk.write(number)
            case "promise":
                promised = disk.acceptor.promised
                disk.acceptor.promise(Ballot(promised.round + 1, 1))
            case "seal":
                disk.seal()
            case "sync":
                disk.sync(1 + number % 3)
            case "install":
                disk.install(number)
            case _:
                log = disk.acceptor.log
                log.choose(max(log.chosen, min(disk.acceptor.durable, log.chosen + number)))
        disk.check()
    disk.seal()
    disk.sync(len(disk.batches))
    disk.check()
