# SPDX-License-Identifier: Apache-2.0
"""How a leader changes the members: who is near enough to vote, which change comes next, and what would lose the group.

A newcomer's wish is in the log, so any leader goes on with it; nothing of it depends on who has asked, or on whether he
is still there. One change at a time, each a single configuration entry, and none that the members who are there could
not carry on alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from replicas.machine.core import Machine
from replicas.machine.roster import Newcomer
from replicas.paxos.core import Paxos
from replicas.paxos.values import Member
from replicas.replica.messages import Learning

__all__ = ["Changing", "Pupil"]

NEAR_ENTRIES: Final = 4096
"""A newcomer that lacks no more than this (one page) votes at once: what is left is there within a few milliseconds."""

SILENT_MS: Final = 1500
"""A newcomer that was not heard for so long is not there: nobody waits for it, and it is not made a member."""

ABSENT_MS: Final = 10_000
"""But one that an operator has asked for ran a moment ago, and may only be starting again: it is awaited so long."""

PARTNER_MS: Final = 2000
"""How long a newcomer that came by itself, and would make the group even, waits for a partner or an operator's word."""

RATE_MS: Final = 500
"""Over at least so long a newcomer's pace is measured."""

MEMBERS_MAX: Final = 7
"""The most voting members. Beyond it every call waits for more replicas, and nothing is gained by that."""


class Pupil:
    """What the leader has heard of one newcomer."""

    __slots__ = ("_from", "_from_ms", "heard_ms", "learning", "near_since_ms", "rate", "snapshot_rate")

    def __init__(self, learning: Learning, now_ms: int) -> None:
        self.learning = learning
        """What it said last."""
        self.heard_ms = now_ms
        self.near_since_ms: int | None = None
        self.rate = 0
        """Entries in a second, lately."""
        self.snapshot_rate = 0
        """Bytes of a snapshot, likewise."""
        self._from, self._from_ms = learning, now_ms

    def heard(self, learning: Learning, now_ms: int) -> None:
        """It says how far it is."""
        self.learning = learning
        self.heard_ms = now_ms
        span_ms = now_ms - self._from_ms
        if span_ms >= RATE_MS:
            before, self._from, self._from_ms = self._from, learning, now_ms
            self.rate = max(0, (learning.applied - before.applied) * 1000 // span_ms)
            self.snapshot_rate = max(0, (learning.snapshot_bytes - before.snapshot_bytes) * 1000 // span_ms)

    def describe(self, chosen: int) -> str:
        """How far it is, for people: of how much, how fast, and how long it will take yet."""
        applied, here, total = self.learning
        if total and here >= total:
            return f"loads a snapshot of {total / 1e6:,.1f} MB"
        if here:
            left = _left(total - here, self.snapshot_rate)
            pace = f"{self.snapshot_rate / 1e6:,.1f} MB a second{left}"
            return f"fetches a snapshot: {here / 1e6:,.1f} of {total / 1e6:,.1f} MB, {pace}"
        missing = max(0, chosen - applied)
        if missing <= NEAR_ENTRIES:
            return f"has caught up with {applied:,} entries"
        left = _left(missing, self.rate)
        return f"catches up: {applied:,} of {chosen:,} entries, {self.rate:,} a second{left}"


def _left(missing: int, rate: int) -> str:
    return f", about {max(0, missing) // rate + 1:,} s left" if rate else ""


class Changing:
    """One leader's time of changing members. Made anew with each tenure; all that lasts is in the log."""

    def __init__(self, paxos: Paxos, machine: Machine, now_ms: int) -> None:
        self._paxos = paxos
        self._machine = machine
        self._since_ms = now_ms
        self.pupils: dict[int, Pupil] = {}
        self._missed_ms: dict[int, int] = {}  # newcomer that was never heard -> since when it is looked for
        self.hindrance = ""
        """Why newcomers that are near are not made members; "" when nothing is in the way."""

    def heard(self, source: int, learning: Learning, now_ms: int) -> None:
        """A newcomer says how far it is."""
        pupil = self.pupils.get(source)
        if pupil is None:
            pupil = self.pupils[source] = Pupil(learning, now_ms)
        else:
            pupil.heard(learning, now_ms)
        is_near = not learning.snapshot_bytes and learning.applied + NEAR_ENTRIES >= self._paxos.chosen
        if not is_near:
            pupil.near_since_ms = None
        elif pupil.near_since_ms is None:
            pupil.near_since_ms = now_ms

    def is_young(self, now_ms: int, span_ms: int) -> bool:
        """Whether this leader may not have heard all that are there yet."""
        return now_ms - self._since_ms < span_ms

    def is_here(self, replica: int, now_ms: int) -> bool:
        """Whether that newcomer is heard."""
        pupil = self.pupils.get(replica)
        return pupil is not None and now_ms - pupil.heard_ms < SILENT_MS

    # --- what comes next

    def go_on(self, now_ms: int) -> None:
        """Makes newcomers members, when it is time for that."""
        newcomers = self._machine.roster.newcomers
        if not newcomers or self._paxos.changing:
            return
        near = [newcomer for newcomer in newcomers.values() if self.is_near(newcomer.id, now_ms)]
        new = self._with(near)
        if near and new.keys() == set(self._paxos.configuration.ids):
            self.hindrance = f"{MEMBERS_MAX} members are the most: remove one first"
            return
        self.hindrance = (self._reason_to_wait(near, now_ms) or self.objection(new, now_ms)) if near else ""
        if self.hindrance or not near:
            return
        if self._paxos.replica not in new and len(self._paxos.configuration.members) > 1:
            # It is the leader's own place that is taken: another one does it.
            self._paxos.hand_over(next(iter(self.successors(new)), None))
        else:
            self.propose(new)

    def is_near(self, replica: int, now_ms: int) -> bool:
        """Whether that newcomer is heard, and could vote at once."""
        return self.is_here(replica, now_ms) and self.pupils[replica].near_since_ms is not None

    def _reason_to_wait(self, near: list[Newcomer], now_ms: int) -> str:
        """Whom else to wait for, as an even group survives no more losses than one less; "" when for nobody."""
        if len(self._with(near)) % 2 or all(newcomer.replaces in self._machine.roster.members for newcomer in near):
            return ""
        ids = {newcomer.id for newcomer in near}
        for other in self._machine.roster.newcomers.values():
            if other.id not in ids and (self.is_here(other.id, now_ms) or self._is_expected(other, now_ms)):
                return (
                    f"replica {other.id} at {other.address} is to come in with it, so that the number of members"
                    f" stays odd; `dthreading members remove {other.id}` takes that back"
                )
        if all(newcomer.asked for newcomer in near):
            return ""
        since_ms = max(self.pupils[newcomer.id].near_since_ms or 0 for newcomer in near)
        return (
            "the number of members would be even, so it waits a moment for one more"
            if now_ms - since_ms < PARTNER_MS
            else ""
        )

    def _is_expected(self, newcomer: Newcomer, now_ms: int) -> bool:
        """Whether one that is silent will come all the same."""
        pupil = self.pupils.get(newcomer.id)
        heard_ms = pupil.heard_ms if pupil is not None else self._missed_ms.setdefault(newcomer.id, now_ms)
        return newcomer.asked and now_ms - heard_ms < ABSENT_MS

    def _with(self, near: list[Newcomer]) -> dict[int, Member]:
        members = {member.id: member for member in self._paxos.configuration.members}
        taken: list[int] = []
        for newcomer in near:
            if newcomer.replaces in taken:
                continue  # two were meant for one place, at the same moment: the first has it
            if newcomer.replaces not in members and len(members) >= MEMBERS_MAX:
                continue  # so were these: each was let in while there was room for one
            if newcomer.replaces:
                taken.append(newcomer.replaces)
            members.pop(newcomer.replaces, None)
            members[newcomer.id] = Member(newcomer.id, newcomer.address, newcomer.incarnation)
        return members

    # --- carrying it out

    def without(self, replica: int) -> dict[int, Member]:
        """The present members without that one."""
        return {member.id: member for member in self._paxos.configuration.members if member.id != replica}

    def successors(self, new: Iterable[int]) -> list[int]:
        """Members that are there and will be: one of them may lead."""
        return [member for member in sorted(self._paxos.present()) if member in new and member != self._paxos.replica]

    def objection(self, new: dict[int, Member], now_ms: int) -> str:
        """Why the group would not survive this change; "" when it would."""
        if not new:
            return "it is the only member: a group needs one"
        addresses = [member.address for member in new.values()]
        doubles = sorted({address for address in addresses if addresses.count(address) > 1})
        if doubles:
            return f"two members would listen at {doubles[0]}"
        present = self._paxos.present()
        absent = [member for member in new if member not in present and not self.is_near(member, now_ms)]
        quorum = len(new) // 2 + 1
        if len(new) - len(absent) >= quorum:
            return ""
        who = ", ".join(f"replica {member} at {new[member].address}" for member in absent)
        return (
            f"of the {len(new)} members that would be left, {quorum} must be up, and {who} cannot be reached or lags"
            " behind: the group would stand still"
        )

    def propose(self, new: dict[int, Member]) -> bool:
        """Puts these members into the log. False: not now."""
        present = self._paxos.configuration
        members = tuple(new[replica] for replica in sorted(new))
        return self._paxos.reconfigure(present._replace(epoch=present.epoch + 1, members=members)) is not None
