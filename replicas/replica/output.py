# SPDX-License-Identifier: Apache-2.0
"""What a replica asks of its shell: the contract between `replica.Replica`, which decides, and whoever has the I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
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


@dataclass(slots=True)
class ReplicaOutput:
    """What the shell does next.

    `send_after_sync` leaves only when `persist`, and that of every earlier output, is durable; then `synced(batch)` is
    called. Everything else may go at once.
    """

    persist: list[Record] = field(default_factory=list)
    batch: int = 0
    """Above 0 exactly when there is something to persist."""
    send_now: list[tuple[int, PeerMessage]] = field(default_factory=list)
    send_after_sync: list[tuple[int, PeerMessage]] = field(default_factory=list)
    to_clients: list[tuple[int, ToClient]] = field(default_factory=list)
    """(connection, message)."""
    hang_up: list[tuple[int, str]] = field(default_factory=list)
    """(connection, why): after what was said to it in this output."""
    faults: list[Exception] = field(default_factory=list)
    """Objects of ours that broke, for the log. Each is quarantined already."""
    snapshot: list[SnapshotWork] = field(default_factory=list)
    links: dict[int, str] | None = None
    """When there is news of them: all other replicas to be linked with from now on, and where they listen."""
    notices: list[str] = field(default_factory=list)
    """For the log: what an operator would like to know."""
    verdict: str = ""
    """Why this replica's state cannot be right, as one sentence. Nothing else of this output, nor of any later one, may
    leave: it is to be kept in the directory (`marks.Mark`), and the process ends."""
