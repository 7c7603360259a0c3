# SPDX-License-Identifier: Apache-2.0
"""The contiguous log in memory: what stands in each kept slot, up to where it is chosen, and the hash chain over that.

Invariants: `first - 1 <= chosen <= last`; a chosen slot's kind and value never change; one value per (slot, ballot).
The chain covers kinds and values, never ballots: replicas may have accepted one chosen value under different ballots.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

from replicas.paxos.limits import ENTRY_OVERHEAD_BYTES, PAGE_BYTES, PAGE_ENTRIES
from replicas.paxos.values import Entry

_SPREAD = 0x9E3779B1  # makes (slot, kind) touch all bits of the chain


def link(chain: int, entry: Entry) -> int:
    """The chain after `entry`. For equal entries it is one-to-one in `chain`, so a difference, once there, never
    heals.
    """
    return crc32(entry.value, chain ^ (entry.slot * 4 + entry.kind) * _SPREAD & 0xFFFFFFFF)


class Log:
    """Slots `first` to `last`, of which those up to `chosen` are chosen."""

    __slots__ = ("_before", "_chains", "_entries", "chosen", "first", "last")

    def __init__(self, snapshot_slot: int, chain: int, entries: Sequence[Entry]) -> None:
        self.first = snapshot_slot + 1
        self.last = snapshot_slot
        self.chosen = snapshot_slot
        self._before = chain
        self._chains: list[int] = []
        self._entries: list[Entry] = []
        for entry in entries:
            self.put(entry)

    def put(self, entry: Entry) -> None:
        """`entry` stands in its slot now, over whatever stood there, as long as nothing that must not change does."""
        slot = entry.slot
        if slot == self.last + 1:
            self._entries.append(entry)
            self.last = slot
            return
        assert self.first <= slot, f"slot {slot} is in the snapshot already"
        assert slot <= self.last, f"slot {slot} would leave a gap after {self.last}"
        old = self._entries[slot - self.first]
        if slot <= self.chosen or old.ballot == entry.ballot:
            assert old.kind == entry.kind, f"slot {slot} has two kinds"
            assert old.value == entry.value, f"slot {slot} has two values"
        self._entries[slot - self.first] = entry

    def get(self, slot: int) -> Entry:
        """What stands in a kept slot."""
        assert self.first <= slot <= self.last
        return self._entries[slot - self.first]

    def span(self, start: int, stop: int) -> list[Entry]:
        """Slots `start` to `stop`, both included; empty when `stop` is before `start`."""
        assert self.first <= start
        assert stop <= self.last
        return self._entries[start - self.first : stop - self.first + 1]

    def page(self, start: int, stop: int) -> list[Entry]:
        """As much of `start` to `stop` as fits one message, and at least one entry of what there is."""
        entries = self.span(start, min(stop, start + PAGE_ENTRIES - 1))
        size = 0
        for index, entry in enumerate(entries):
            size += len(entry.value) + ENTRY_OVERHEAD_BYTES
            if size > PAGE_BYTES and index:
                return entries[:index]
        return entries

    def choose(self, upto: int) -> list[Entry]:
        """Slots up to `upto` are chosen: those that are so from now on."""
        assert self.chosen <= upto <= self.last
        entries = self.span(self.chosen + 1, upto)
        chain = self._chains[-1] if self._chains else self._before
        for entry in entries:
            chain = link(chain, entry)
            self._chains.append(chain)
        self.chosen = upto
        return entries

    def chain_at(self, slot: int) -> int:
        """The chain over everything chosen up to and including `slot`."""
        assert self.first - 1 <= slot <= self.chosen
        return self._chains[slot - self.first] if slot >= self.first else self._before

    def forget(self, slot: int) -> None:
        """A snapshot holds everything up to `slot`."""
        assert slot <= self.chosen
        if slot >= self.first:
            self._before = self.chain_at(slot)
            count = slot - self.first + 1
            del self._entries[:count]
            del self._chains[:count]
            self.first = slot + 1

    def restart(self, slot: int, chain: int) -> None:
        """A snapshot from elsewhere holds everything up to `slot`. Whatever was accepted above it stays: it may be
        chosen.
        """
        assert slot > self.chosen
        self._entries = self.span(slot + 1, self.last) if slot < self.last else []
        self._chains = []
        self._before = chain
        self.first = slot + 1
        self.last = max(self.last, slot)
        self.chosen = slot
