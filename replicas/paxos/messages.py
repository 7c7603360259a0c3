# SPDX-License-Identifier: Apache-2.0
"""What replicas say to each other to agree: one class a message, its docstring saying who sends it and when. Nothing
else.

That a message comes from the group's own member, in its present incarnation, is settled by the connection it comes on.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

from replicas.paxos.values import Ballot, Entry


class PreVote(NamedTuple):
    """A replica that hears no leader, to all members: would you promise this ballot? Changes nothing anywhere."""

    ballot: Ballot


class PreVoteGranted(NamedTuple):
    """Yes. `chosen` is the voter's floor: a candidate below it catches up before it stands."""

    ballot: Ballot
    chosen: int


class Prepare(NamedTuple):
    """Phase 1a, a candidate to all members. Sent again with a higher `from_slot` for each further page.

    `transfer`: the leader itself asked for this, so it is heard beside a live leader.
    """

    ballot: Ballot
    from_slot: int
    transfer: bool


class Promise(NamedTuple):
    """Phase 1b, one page: what this acceptor has accepted at or above `from_slot` and above its floor `chosen`.

    Counts when its last page has come (`next_slot` is 0); else the next page begins at `next_slot`.
    `unknown`: slots that its disk may have lost; it does not count for them.
    """

    ballot: Ballot
    from_slot: int
    entries: tuple[Entry, ...]
    chosen: int
    unknown: tuple[int, ...]
    next_slot: int


class Accept(NamedTuple):
    """Phase 2a, the leader of `ballot` to a member: slots from `first` on, one `values` and one byte of `kinds` each.

    `base` is the leader's first slot of this ballot: all below it was chosen before. `commit` is its floor, `chain`
    its hash chain there. `heartbeat` greater than 0 asks for an answer at once, disk or no disk.
    """

    ballot: Ballot
    base: int
    first: int
    kinds: bytes
    values: tuple[bytes, ...]
    commit: int
    chain: int
    heartbeat: int


class Accepted(NamedTuple):
    """Phase 2b, a follower to its leader: all slots from base to `upto` are on this disk at this ballot, without a gap.

    `received` is the same in memory: it lets the leader see what the network lost apart from what the disk still
    writes. Both are below base - 1 while the follower fetches what was chosen before this ballot. `heartbeat` answers
    that of an Accept, or is 0.
    """

    ballot: Ballot
    upto: int
    received: int
    heartbeat: int


class Refuse(NamedTuple):
    """The answer to an Accept, Prepare or PreVote that will not be heard: `promised` is higher, or another leader is
    live.
    """

    promised: Ballot
    chosen: int


class Fetch(NamedTuple):
    """Whoever lags, to whoever may know: send me the chosen entries from here on."""

    from_slot: int


class Chosen(NamedTuple):
    """A page for `Fetch`: chosen entries from `first` on, as in Accept; `chosen` is the sender's floor.

    Every one of them was chosen under a ballot of at most `promised`. The receiver promises that ballot: it will count
    these slots as accepted, which no leader with a lower ballot may hear.
    """

    first: int
    kinds: bytes
    values: tuple[bytes, ...]
    chosen: int
    promised: Ballot


class Truncated(NamedTuple):
    """What you need next is in my snapshot only: my entries begin at `first_kept`. To a `Fetch`, or a leader to a
    follower.
    """

    first_kept: int


class TakeOver(NamedTuple):
    """The leader of `ballot` to the member that shall lead next: stand for election now, without a pre-vote."""

    ballot: Ballot


PeerMessage: TypeAlias = (
    PreVote | PreVoteGranted | Prepare | Promise | Accept | Accepted | Refuse | Fetch | Chosen | Truncated | TakeOver
)

MESSAGES: Final[dict[int, type[PeerMessage]]] = {
    1: PreVote,
    2: PreVoteGranted,
    3: Prepare,
    4: Promise,
    5: Accept,
    6: Accepted,
    7: Refuse,
    8: Fetch,
    9: Chosen,
    10: Truncated,
    11: TakeOver,
}
"""Tag on the wire -> class. Tags 1 to 19 are consensus', 20 to 29 are formation's; the glue's begin at 40."""
