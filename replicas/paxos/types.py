# SPDX-License-Identifier: Apache-2.0
"""The nouns of consensus: ballots, entries, configurations, what must be durable, and what a step asks the shell to do.

Only values live here; no rule of the protocol does. Commands are opaque bytes. Values that travel are named tuples, so
the wire encodes them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from replicas.paxos.messages import PeerMessage
from replicas.paxos.values import NO_BALLOT, Ballot, Configuration, Entry, EntryKind, Member

__all__ = [
    "NO_BALLOT",
    "Accepted",
    "Ballot",
    "ChosenTo",
    "Configuration",
    "Durable",
    "Entry",
    "EntryKind",
    "Member",
    "Output",
    "Promised",
    "Record",
    "Role",
    "Timing",
]


# --- what must be durable ---------------------------------------------------------------------------------------------


class Promised(NamedTuple):
    """From now on nothing below `ballot` is accepted or promised here. Never decreases."""

    ballot: Ballot


class Accepted(NamedTuple):
    """`entry` stands in its slot, over whatever stood there. (The message of the same name is in messages.py.)"""

    entry: Entry


class ChosenTo(NamedTuple):
    """Every slot up to this one holds its chosen value in what was written before.

    Never waited for: it only spares a restarted replica from learning again what it knew.
    """

    slot: int


Record: TypeAlias = Promised | Accepted | ChosenTo


@dataclass(frozen=True, slots=True, kw_only=True)
class Durable:
    """What the storage found when it opened: the state that a replica starts from. The defaults are those of a new
    one.
    """

    promised: Ballot = NO_BALLOT
    entries: tuple[Entry, ...] = ()
    """Contiguous, from snapshot_slot + 1 on, each the last one written for its slot."""
    snapshot_slot: int = 0
    chain: int = 0
    """The hash chain over the chosen entries up to and including snapshot_slot."""
    configuration: Configuration | None = None
    """In force at snapshot_slot; None: the one that the group was formed with."""
    chosen: int = 0
    """The highest ChosenTo; at least snapshot_slot."""
    doubtful: frozenset[int] = frozenset()
    """Slots whose last record was written and may have been acknowledged, but cannot be read any more.

    Where such a slot lies within `entries`, an older record of it or `Entry(slot, NO_BALLOT, EntryKind.NOOP, b"")`
    keeps its place.
    """


# --- how a replica is tuned, what it is, what it asks for -------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """All spans in milliseconds of the shell's monotonic clock."""

    heartbeat_ms: int = 100
    """A leader says that it lives at least this often; what got no answer is sent again at this pace."""
    election_ms: int = 500
    """A leader that was not heard for so long is not live any more. Each replica waits one to two times as long, by
    luck.
    """
    disk_ms: int = 1500
    """A leader whose disk has not finished one sync for so long hands over: it still beats, but is no use as a
    leader.
    """


class Role(IntEnum):
    """What a replica is at this moment."""

    LEARNER = 0
    """In no configuration that it knows of: it learns what is chosen and never stands for election."""
    FOLLOWER = 1
    CANDIDATE = 2
    LEADER = 3


@dataclass(slots=True, init=False)
class Output:
    """What must happen next; the order of the fields is the contract.

    `send_now` may leave at once. `send_after_sync` may leave only when `persist`, and the `persist` of every earlier
    output, is on disk; then `synced(batch)` tells the core. `chosen` is contiguous, in order, each entry exactly once
    in the life of this object: to be applied soon, in this order.
    """

    persist: list[Record]
    batch: int
    """Greater than 0 exactly when there is something to persist; grows by one each."""
    send_now: list[tuple[int, PeerMessage]]
    send_after_sync: list[tuple[int, PeerMessage]]
    chosen: list[Entry]
    confirmed: list[object]
    """Tokens of confirm(): this replica still led after they were asked."""
    failed: list[object]
    """Tokens of confirm() that this replica can answer no more, since it leads no longer."""
    fetch_snapshot_from: int | None
    """This replica is behind what that one keeps in entries: fetch its snapshot, store it, then call installed().
    Said again at every heartbeat until it is done, so a shell that is at it ignores this, and one that failed just
    waits."""

    def __init__(self) -> None:
        # Written out: one is made on each turn, and default factories would cost it three times as much.
        self.persist = []
        self.batch = 0
        self.send_now = []
        self.send_after_sync = []
        self.chosen = []
        self.confirmed = []
        self.failed = []
        self.fetch_snapshot_from = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing must happen."""
        return not (
            self.send_now
            or self.chosen
            or self.persist
            or self.send_after_sync
            or self.confirmed
            or self.failed
            or self.fetch_snapshot_from is not None
        )
