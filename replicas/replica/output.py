# SPDX-License-Identifier: Apache-2.0
"""What a replica asks of its shell: the contract between `replica.Replica`, which decides, and whoever has the I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from dthreading.wire.messages import ToClient
from replicas.paxos.types import Ballot, Configuration, Record
from replicas.replica.messages import PeerMessage, SnapshotPart, SnapshotRequest

__all__ = [
    "BeginSnapshot",
    "FinishSnapshot",
    "KeepSnapshotPart",
    "ReplicaOutput",
    "ServeSnapshot",
    "SnapshotChunk",
    "SnapshotWork",
]


class BeginSnapshot(NamedTuple):
    """Begin writing the snapshot of `slot` aside."""

    slot: int
    configuration: Configuration
    chain: int
    promised: Ballot


class SnapshotChunk(NamedTuple):
    """Append this to it."""

    data: bytes


class FinishSnapshot(NamedTuple):
    """Make it durable, then call `Replica.snapshot_saved`."""

    slot: int


class ServeSnapshot(NamedTuple):
    """Read a part of the newest durable snapshot and send it to `replica` as a `SnapshotPart`."""

    replica: int
    request: SnapshotRequest


class KeepSnapshotPart(NamedTuple):
    """Store this part; after the last, check and install the whole, then call `Replica.snapshot_installed`."""

    source: int
    part: SnapshotPart


SnapshotWork: TypeAlias = BeginSnapshot | SnapshotChunk | FinishSnapshot | ServeSnapshot | KeepSnapshotPart
"""To be done in order, beside everything else: no turn of the loop waits for it."""


@dataclass(slots=True, init=False)
class ReplicaOutput:
    """What the shell does next.

    `send_after_sync` leaves only when `persist`, and that of every earlier output, is durable; then `synced(batch)` is
    called. Everything else may go at once.
    """

    persist: list[Record]
    batch: int
    """Above 0 exactly when there is something to persist."""
    send_now: list[tuple[int, PeerMessage]]
    send_after_sync: list[tuple[int, PeerMessage]]
    to_clients: list[tuple[int, ToClient]]
    """(connection, message)."""
    hang_up: list[tuple[int, str]]
    """(connection, why): after what was said to it in this output."""
    faults: list[Exception]
    """Objects of ours that broke, for the log. Each is quarantined already."""
    snapshot: list[SnapshotWork]
    links: dict[int, str] | None
    """When there is news of them: all other replicas to be linked with from now on, and where they listen."""
    notices: list[str]
    """For the log: what an operator would like to know."""
    verdict: str
    """Why this replica's state cannot be right, as one sentence. Nothing else of this output, nor of any later one, may
    leave: it is to be kept in the directory (`marks.Mark`), and the process ends."""

    def __init__(self) -> None:
        self.persist = []
        self.batch = 0
        self.send_now = []
        self.send_after_sync = []
        self.to_clients = []
        self.hang_up = []
        self.faults = []
        self.snapshot = []
        self.links = None
        self.notices = []
        self.verdict = ""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (
            self.to_clients
            or self.send_now
            or self.persist
            or self.send_after_sync
            or self.hang_up
            or self.snapshot
            or self.notices
            or self.faults
            or self.verdict
            or self.links is not None
        )
