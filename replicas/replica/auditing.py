# SPDX-License-Identifier: Apache-2.0
"""Whether this replica's state is still that of the others: what each finds in one slot is compared, and a majority
decides.

All replicas apply the same log, so their states are equal, unless memory goes bad or code of ours is not
deterministic. From time to time the leader puts an `Audit` into the log; every replica sends the digests of the parts
that it names, as they are in that slot, to all others. A replica that a majority of the members is against takes no
further part. Where there is no majority nobody can say who is wrong, and that is said.

An object that is in use may have made its replica say something wrong before its turn came: then the digest of all
answers differs, and its caller's session, and nothing is known of the object. That replica serves nobody from then on,
and the leader goes round the whole state in large pieces, so that the object is named before the replica ends.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from replicas.machine.audit import FORM, HEAD, PIECE, Inventory, Round, digests
from replicas.machine.commands import Audit, codec
from replicas.machine.core import Machine
from replicas.paxos.core import Paxos
from replicas.replica.messages import Account
from replicas.replica.output import ReplicaOutput

__all__ = ["AUDIT_MS", "Auditing", "Findings", "compare"]

AUDIT_MS: Final = 10_000
"""How long after an audit the next one is due, if anything was applied since."""

AUDIT_ENTRIES: Final = 4096
"""After so many entries it is due sooner: a leader that is busy compares the more. A piece costs about a
millisecond, so that is a quarter of a microsecond an entry."""

SLICE_BYTES: Final = 64 * 1024
"""How much of the images is digested in one turn of the loop: well under a millisecond."""

OPEN_MAX: Final = 4
"""Audits that wait for their digests. One that is applied beyond them (as a restart reads its log) is left out."""

KEPT: Final = 8
"""The newest slots of which accounts are kept: for a replica that is a little behind, or ahead."""

PATIENCE_MS: Final = 5_000
"""After so long those who have not told their account are not waited for any more."""

LEAVE_MS: Final = 500
"""How long one that is wrong stays, while its clients go elsewhere and another leads."""

HUNT_MS: Final = 30_000
"""How long one that is known to be wrong waits for the object to be found; seconds suffice for 100,000."""

HUNT_STEP_MS: Final = 100
"""Between two audits meanwhile."""

ACCOUNTS_MS: Final = 1_000
"""Once everything was looked at, the accounts of the others are waited for so long."""

HUNT_PIECE: Final = 8 * PIECE
"""What one of them looks at: less than ten milliseconds' work."""

NAMED_MAX: Final = 3
"""So many parts are named in one sentence."""


class Findings(NamedTuple):
    """What a comparison shows."""

    wrong: dict[int, list[int]]
    """By replica, the parts in which a majority of the members is against it."""
    undecided: list[int]
    """Parts that differ and have no majority."""


def compare(members: Iterable[int], accounts: dict[int, dict[int, bytes]]) -> Findings:
    """Compares, part by part.

    Args:
        members: who has a vote in it.
        accounts: by replica its digests, or nothing where it lacks the part.

    """
    voters = tuple(members)
    findings = Findings({}, [])
    for part in sorted({part for account in accounts.values() for part in account}):
        found = {replica: account.get(part) for replica, account in accounts.items()}
        if len(set(found.values())) == 1:
            continue
        ((most, votes),) = Counter(found[voter] for voter in voters if voter in found).most_common(1) or ((None, 0),)
        if votes <= len(voters) // 2:
            findings.undecided.append(part)
            continue
        for replica, digest in found.items():
            if digest != most:
                findings.wrong.setdefault(replica, []).append(part)
    return findings


class _Slot:
    """All that is known of one audit."""

    __slots__ = ("accounts", "due_ms", "inventory")

    def __init__(self) -> None:
        self.accounts: dict[int, bytes | None] = {}
        """By replica; None of one that writes them differently."""
        self.inventory: Inventory | None = None
        self.due_ms = 0


class Auditing:
    """One replica's part in it.

    Args:
        paxos: knows who is a member, and who leads.
        audit_ms: how long after an audit the next one is due; 0: a leader begins none.

    """

    def __init__(self, paxos: Paxos, audit_ms: int, now_ms: int) -> None:
        self.doubted = False
        """Whether this replica is known to be wrong: it must serve nobody."""
        self._doubt = ""  # what is to be said of it at the end
        self._is_found = False  # whether that names an object
        self._end_ms = 0
        self._unseen: dict[int, None] | None = None  # objects that nobody has compared since
        self._hunt_until_ms = 0
        self._verdict = ""
        self._notices: list[str] = []
        self._now_ms = now_ms
        self._paxos = paxos
        self._audit_ms = audit_ms
        self._round = Round()
        self._next_ms = now_ms + audit_ms
        self._last = 0  # the slot of the newest audit
        self._open: deque[Inventory] = deque()
        self._slots: dict[int, _Slot] = {}
        self._told: set[int] = set()  # replicas that the log was told of
        self._hunted: set[int] = set()  # those that were known to be wrong before it was known where
        self._doubted: set[tuple[int, ...]] = set()  # parts likewise

    # --- as the leader

    def due(self, machine: Machine, now_ms: int) -> list[bytes]:
        """The audit that this leader is to propose now, if one is due."""
        since = machine.applied - self._last
        hunts = now_ms < self._hunt_until_ms
        is_time = now_ms >= self._next_ms or since >= AUDIT_ENTRIES
        if not self._audit_ms or self._open or not (since or hunts) or not is_time:
            return []
        self._next_ms = now_ms + (HUNT_STEP_MS if hunts else self._audit_ms)
        self._last = machine.applied
        alone = len(self._paxos.configuration.members) == 1 and not machine.roster.newcomers
        return [] if alone else [codec.encode(self._round.next(machine, HUNT_PIECE if hunts else PIECE))]

    def reign(self, now_ms: int) -> None:
        """It leads from now on: what an earlier leader has left to look at, nobody knows."""
        self._round = Round()
        self._next_ms = now_ms if now_ms < self._hunt_until_ms else now_ms + self._audit_ms

    # --- as one of all

    @property
    def busy(self) -> bool:
        """Whether `work` has anything to do."""
        return bool(self._open or self._notices or self._verdict)

    def begin(self, machine: Machine, audit: Audit) -> None:
        """The machine has just applied this."""
        self._last = machine.applied
        if self.doubted:
            self._note_seen(machine, audit)
        if len(self._open) < OPEN_MAX:
            self._open.append(Inventory(machine, audit))

    def _note_seen(self, machine: Machine, audit: Audit) -> None:
        """What was looked at since this replica is in doubt: when that is everything, there is nothing to wait for."""
        unseen = machine.registry.numbers if self._unseen is None else self._unseen
        seen = frozenset(audit.objects)
        self._unseen = {number: None for number in unseen if number in machine.registry.numbers and number not in seen}
        if not self._unseen:
            self._end_ms = min(self._end_ms, self._now_ms + ACCOUNTS_MS)

    def work(self, output: ReplicaOutput, others: Iterable[int]) -> None:
        """A slice of the digests, if one is due; all others are told of them once they are there."""
        output.verdict = self._verdict  # the account that shows it has left before, so the others know of it as well
        if self._open and self._open[0].step(SLICE_BYTES):
            inventory = self._open.popleft()
            account = Account(inventory.slot, FORM, inventory.parts)
            slot = self._slot(inventory.slot)
            slot.inventory, slot.due_ms = inventory, self._now_ms + PATIENCE_MS
            self.heard(self._paxos.replica, account)
            output.send_now += [(other, account) for other in others]
        if self._notices:
            output.notices += self._notices
            self._notices = []

    def heard(self, source: int, account: Account) -> None:
        """What a replica, perhaps this one, has found."""
        if account.slot in self._slots or len(self._slots) < KEPT or account.slot > min(self._slots):
            slot = self._slot(account.slot)
            slot.accounts[source] = account.parts if account.form == FORM else None
            self._judge(slot, final=False)

    def tick(self, now_ms: int) -> None:
        """Time has passed: some are not waited for any more."""
        self._now_ms = now_ms
        if self.doubted and now_ms >= self._end_ms:
            self._verdict = self._doubt
        for slot in self._slots.values():
            if slot.due_ms and now_ms >= slot.due_ms:
                slot.due_ms = 0
                self._judge(slot, final=True)

    def restart(self) -> None:
        """The state was exchanged for a snapshot's."""
        self._open.clear()

    def _slot(self, number: int) -> _Slot:
        slot = self._slots.setdefault(number, _Slot())
        while len(self._slots) > KEPT:
            del self._slots[min(self._slots)]
        return slot

    # --- who is wrong

    def _judge(self, slot: _Slot, *, final: bool) -> None:
        inventory, own = slot.inventory, self._paxos.replica
        if inventory is None or len(set(slot.accounts.values())) == 1:
            return
        accounts = {replica: digests(parts) for replica, parts in slot.accounts.items() if parts is not None}
        members = self._paxos.configuration.ids
        findings = compare(members, accounts)
        for replica, parts in findings.wrong.items():
            is_found = max(parts) > HEAD or inventory.is_whole
            if not is_found and replica not in self._hunted:
                self._hunted.add(replica)
                self._hunt_until_ms = self._now_ms + HUNT_MS
                self._next_ms = min(self._next_ms, self._now_ms)
            if replica == own:
                self._step_aside(_named(parts, inventory), inventory.slot, is_found=is_found)
            elif is_found and replica not in self._told:
                self._told.add(replica)
                self._notices.append(_of_another(replica, _named(parts, inventory), inventory.slot))
        doubted = tuple(findings.undecided)
        if doubted and doubted not in self._doubted and (final or set(slot.accounts) >= set(members)):
            self._doubted.add(doubted)
            self._notices.append(_undecided(sorted(accounts), len(members), findings.undecided, inventory))

    def _step_aside(self, names: str, slot: int, *, is_found: bool) -> None:
        """It is this one: it serves nobody from now on, and ends when that is arranged and it is known where."""
        if not self.doubted:
            self.doubted = True
            self._end_ms = self._now_ms + HUNT_MS
            self._notices.append(f"this replica serves nobody any more: it differs from the majority in {names}")
        if is_found and not self._is_found:
            self._is_found = True
            self._end_ms = self._now_ms + LEAVE_MS
        elif self._doubt:
            return
        self._doubt = _of_this(self._paxos.replica, names, slot)


def _named(parts: list[int], inventory: Inventory) -> str:
    # What has a name comes first: the head differs as a rule because something else does.
    names = [inventory.name(part) for part in sorted(parts, key=lambda part: (part <= 0, part))]
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return ", ".join(names[:NAMED_MAX]) + more


def _replicas(replicas: list[int]) -> str:
    return f"replica{'s' if len(replicas) > 1 else ''} {' and '.join(map(str, replicas))}"


def _of_this(replica: int, names: str, slot: int) -> str:
    return (
        f"the state of this replica, {replica}, differs from that of the majority in {names}, as it was in slot {slot}:"
        " its memory has gone bad, or its program, so it takes no further part; let a newcomer on an empty data"
        f" directory take its place (dthreading members replace {replica} ADDRESS), and test the machine's memory"
    )


def _of_another(replica: int, names: str, slot: int) -> str:
    return (
        f"the state of replica {replica} differs from that of the majority in {names}, as it was in slot {slot}: it"
        f" stops by itself; let a newcomer take its place (dthreading members replace {replica} ADDRESS)"
    )


def _undecided(replicas: list[int], members: int, parts: list[int], inventory: Inventory) -> str:
    return (
        f"the states of {_replicas(replicas)} differ in {_named(parts, inventory)}, as it was in slot {inventory.slot},"
        f" and no majority of the {members} members says which one is right: they go on; start the members that are"
        " down, or restart these one after the other, so that each makes its state anew from its disk"
    )
