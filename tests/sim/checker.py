# SPDX-License-Identifier: Apache-2.0
"""What must hold of all replicas together: one value a slot, never another; nothing acknowledged is lost; no stale
leader.
"""

from __future__ import annotations

from replicas.paxos.types import Entry, EntryKind


class Agreement:
    """Sees everything that any replica hands out as chosen, in every one of its lives."""

    def __init__(self) -> None:
        self.log: dict[int, tuple[int, bytes]] = {}
        self.slots: dict[bytes, int] = {}  # command -> its slot
        self.acknowledged: dict[bytes, int] = {}
        self.highest_answered = 0  # the highest slot whose effect some client has seen
        self.confirmed = 0
        self.failed = 0

    def chosen(self, replica: int, entry: Entry) -> None:
        """Replica `replica` says that this is chosen."""
        value = (entry.kind, entry.value)
        before = self.log.setdefault(entry.slot, value)
        assert before == value, f"replica {replica}: slot {entry.slot} is {value}, and was {before} elsewhere"
        if entry.kind == EntryKind.COMMAND:
            slot = self.slots.setdefault(entry.value, entry.slot)
            assert slot == entry.slot, f"{entry.value!r} was proposed once and is chosen at {slot} and at {entry.slot}"

    def acknowledge(self, value: bytes, slot: int) -> None:
        """A client was told that its command is done."""
        self.acknowledged[value] = slot
        self.highest_answered = max(self.highest_answered, slot)

    def confirm(self, replica: int, floor: int, answered_before: int) -> None:
        """A read may be answered from a state of `floor`; others had seen `answered_before` when it was asked."""
        self.confirmed += 1
        assert floor >= answered_before, (
            f"replica {replica} reads at {floor} what others have seen at {answered_before}"
        )

    def kept(self) -> None:
        """Everything acknowledged is in the log, where it was."""
        for value, slot in self.acknowledged.items():
            assert self.log[slot] == (EntryKind.COMMAND, value)
