# SPDX-License-Identifier: Apache-2.0
"""What replicas say to each other besides Paxos, and the one codec of everything that passes between them."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias

from dthreading.wire.codec import Codec
from replicas.paxos import messages as paxos
from replicas.replica import formation
from replicas.replica.soundness import FLAWS, account

__all__ = [
    "Account",
    "Ask",
    "Forward",
    "Learning",
    "Missed",
    "PeerMessage",
    "SnapshotPart",
    "SnapshotRequest",
    "Told",
    "Vouch",
    "Vouched",
    "codec",
]


class Forward(NamedTuple):
    """Follower -> leader: commands of clients that are connected to the follower, in the order they came.

    `number` counts a `stream` from 0, and a leader takes nothing after a gap: a command must not overtake one that its
    session gave before it (a call its attachment, a later call on a lane the undo of the one before).
    """

    stream: int
    number: int
    bodies: tuple[bytes, ...]


class Missed(NamedTuple):
    """Leader -> follower: a message of this stream has not come, and one after it has."""

    stream: int


class Vouch(NamedTuple):
    """Follower -> leader: this session's client, connected here, sent keepalive number `beat`."""

    session: int
    beat: int


class Vouched(NamedTuple):
    """Leader -> follower: a quorum round that began after the `Vouch` came has confirmed the leader."""

    session: int
    beat: int


class SnapshotRequest(NamedTuple):
    """A replica that is too far behind asks for its source's snapshot; `slot` is 0 with the first request."""

    slot: int
    offset: int


class SnapshotPart(NamedTuple):
    """Part of the snapshot of `slot`. `header` is the storage's, opaque here; a slot other than asked for means start
    again.
    """

    slot: int
    header: bytes
    offset: int
    data: bytes
    last: bool
    total: int = 0
    """Bytes of the whole."""


class Learning(NamedTuple):
    """A newcomer -> everybody, several times a second: how far it is, and what it has of a snapshot on its way."""

    applied: int
    snapshot_bytes: int
    snapshot_total: int = 0
    """How many bytes that snapshot has."""


class Ask(NamedTuple):
    """Any replica -> leader: an operator's question about the members. `number` is the asker's."""

    number: int
    question: str
    arguments: tuple[Any, ...]


class Told(NamedTuple):
    """Leader -> the asker: the answer to `Ask(number)`."""

    number: int
    value: Any


class Account(NamedTuple):
    """Everybody to everybody: the digests of the parts of my state that the audit in `slot` has named."""

    slot: int
    form: int
    """Only accounts of one form can be compared."""
    parts: bytes
    """As `machine.audit.digests` reads them."""


PeerMessage: TypeAlias = (
    paxos.PeerMessage
    | formation.FormationMessage
    | Forward
    | Missed
    | Vouch
    | Vouched
    | SnapshotRequest
    | SnapshotPart
    | Learning
    | Ask
    | Told
    | Account
)

_MESSAGES: Final[dict[int, type]] = {
    **paxos.MESSAGES,
    **formation.MESSAGES,
    160: Forward,
    161: Vouch,
    162: Vouched,
    163: SnapshotRequest,
    164: SnapshotPart,
    165: Learning,
    166: Ask,
    167: Told,
    168: Account,
    169: Missed,
}

_REPEATED: Final = frozenset({Vouch, Vouched, Ask, Told})
"""Their numbers are a client's, or a person's, who may have sent anything: that must not end a link of ours."""

codec: Final[Codec[PeerMessage]] = Codec(
    _MESSAGES, natural={*_MESSAGES.values()} - _REPEATED, flaws={**FLAWS, Account: account}
)
