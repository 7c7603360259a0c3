# SPDX-License-Identifier: Apache-2.0
"""A whole replica as a program for a host: the shipping Replica, Machine and Storage, on a simulated disk of sectors.

What the daemon does besides with threads and sockets is said here once more, in its simplest form; nothing decides.
"""

from __future__ import annotations

import contextlib
import random
from typing import Any, NamedTuple

from dthreading.wire import codec
from replicas.machine.core import Machine
from replicas.paxos.core import Paxos
from replicas.paxos.types import Configuration, Timing
from replicas.replica.core import Replica
from replicas.replica.messages import SnapshotPart
from replicas.replica.output import (
    BeginSnapshot,
    FinishSnapshot,
    KeepSnapshotPart,
    ReplicaOutput,
    ServeSnapshot,
    SnapshotChunk,
    SnapshotWork,
)
from replicas.replica.snapshots import Cutting
from replicas.storage import SnapshotHeader, SnapshotWriter, Storage
from tests.sim.disk import PowerCut, SimulatedDisk

SEGMENT_BYTES = 256 * 1024
PART_BYTES = 4096
"""Small, so that a fetched snapshot comes in many parts."""


class ToReplica(NamedTuple):
    """Bytes on a client's connection; `count` numbers them, since a stream never loses one of many."""

    connection: int
    count: int
    body: bytes


class ToClient(NamedTuple):
    """The same in the other direction."""

    connection: int
    count: int
    body: bytes


class ConnectionEnded(NamedTuple):
    """The end of a connection, said by either side."""

    connection: int


class _Connection:
    """The replica's end of one."""

    def __init__(self, node: int) -> None:
        self.node = node
        self.heard = 0
        self.said = 0


class GroupProgram:
    """One replica of a group. Outlives crashes: the disk is in it."""

    def __init__(
        self, replica: int, configuration: Configuration, luck: random.Random, *, timing: Timing, snapshot_every: int
    ) -> None:
        self.replica = replica
        self.disk = SimulatedDisk(random.Random(luck.random()))
        self.core: Replica | None = None
        self.faults: list[Exception] = []
        self._configuration = configuration
        self._luck = luck
        self._timing = timing
        self._snapshot_every = snapshot_every
        self._storage: Storage | None = None
        self._pending: list[list[Any]] = []
        self._connections: dict[int, _Connection] = {}
        self._writing: SnapshotWriter | None = None
        self._receiving: SnapshotWriter | None = None
        self._to_send: list[tuple[int, Any]] = []

    # --- the host's side

    def boot(self, now_ms: int) -> Replica:
        self._storage = storage = Storage.open(self.disk, segment_bytes=SEGMENT_BYTES)
        assert storage.recovered.rot is None, storage.recovered.rot
        if storage.identity is None:
            storage.format(b"incarnation %d" % self.replica)
        if storage.snapshot is not None:
            machine = Machine.restore(self._contents())
            assert machine.digest == storage.snapshot.digest, "a snapshot is not of the state that its header names"
        else:
            machine = Machine(self._configuration)
        durable = storage.recovered.durable
        paxos = Paxos(
            replica=self.replica,
            configuration=self._configuration,
            durable=durable,
            timing=self._timing,
            luck=self._luck.random,
            now_ms=now_ms,
        )
        self._pending = []
        self._connections = {}
        self._writing = self._receiving = None
        self._to_send = []
        self.core = Replica(paxos=paxos, machine=machine, namespace_term_ms=5_000, now_ms=now_ms)
        return self.core

    def _contents(self) -> Any:
        assert self._storage is not None
        offset = 0
        while part := self._storage.read_snapshot(offset, PART_BYTES):
            yield part
            offset += len(part)

    def write(self, records: list[Any]) -> None:
        self._pending.append(records)

    def sync(self, batches: int) -> None:
        assert self._storage is not None
        now, self._pending = self._pending[:batches], self._pending[batches:]
        for records in now:
            self._storage.append(records)
        self._storage.sync()
        self._storage.prepare()

    def crash(self) -> None:
        """The power goes: perhaps in the middle of a write that nobody has been told about."""
        if self._pending and self._storage is not None and self._luck.random() < 0.7:
            self.disk.cut_power_after = self._luck.randint(0, 3)
            with contextlib.suppress(PowerCut):
                self.sync(len(self._pending))
        self.disk.crash()
        self.core = self._storage = None

    def sent(self, message: Any) -> None:
        """Consensus' own promise to take nothing back is checked where it is simulated alone."""

    def arrived(self, source: int, message: Any) -> bool:
        core = self.core
        assert core is not None
        match message:
            case ToReplica():
                self._from_client(core, source, message)
            case ConnectionEnded(connection=connection):
                if self._connections.pop(connection, None) is not None:
                    core.client_gone(connection)
            case _:
                core.peer_said(source, message)
        return True

    def _from_client(self, core: Replica, source: int, message: ToReplica) -> None:
        known = self._connections.get(message.connection)
        if known is None and message.count == 1:
            known = self._connections[message.connection] = _Connection(source)
        if known is None or message.count != known.heard + 1:
            # Something before it is gone, with a crash of ours or a cut cable: a stream is broken then.
            self._drop(core, message.connection)
            self._to_send.append((source, ConnectionEnded(message.connection)))
            return
        known.heard += 1
        core.client_said(message.connection, codec.decode(message.body), message.body)  # type: ignore[arg-type]

    def _drop(self, core: Replica, connection: int) -> None:
        if self._connections.pop(connection, None) is not None:
            core.client_gone(connection)

    def handle(self, output: ReplicaOutput) -> None:
        core = self.core
        assert core is not None
        assert not output.faults, output.faults
        self.faults += output.faults
        for connection, message in output.to_clients:
            known = self._connections.get(connection)
            if known is not None:
                known.said += 1
                self._to_send.append((known.node, ToClient(connection, known.said, codec.encode(message))))
        for connection, _ in output.hang_up:
            known = self._connections.pop(connection, None)
            if known is not None:
                self._to_send.append((known.node, ConnectionEnded(connection)))
        for work in output.snapshot:
            self._snapshot(core, work)
        output.send_now += self._to_send
        self._to_send = []
        self._cut_often(core._cutting)

    def _cut_often(self, cutting: Cutting) -> None:
        """Fifty thousand entries would be more than a simulated life: snapshots come sooner here."""
        if not cutting.busy and cutting._entries >= self._snapshot_every:
            cutting._entries = 10**9

    def _snapshot(self, core: Replica, work: SnapshotWork) -> None:
        storage = self._storage
        assert storage is not None
        match work:
            case BeginSnapshot(slot=slot, configuration=configuration, chain=chain, promised=promised):
                header = SnapshotHeader(slot, configuration, chain, core.machine.digest, promised)
                self._writing = storage.begin_snapshot(header)
                self._header = header
            case SnapshotChunk(data=data):
                assert self._writing is not None
                self._writing.write(data)
            case FinishSnapshot(slot=slot):
                assert self._writing is not None
                self._writing.finish()
                self._writing = None
                if storage.snapshot is not None and storage.snapshot.slot == slot:
                    core.snapshot_saved(slot, self._header.chain)
            case ServeSnapshot(replica=replica, request=request):
                snapshot = storage.snapshot
                if snapshot is not None:
                    offset = request.offset if request.slot == snapshot.slot else 0
                    data = storage.read_snapshot(offset, PART_BYTES)
                    last = offset + len(data) >= snapshot.size
                    part = SnapshotPart(snapshot.slot, snapshot.encode(), offset, data, last)
                    self._to_send.append((replica, part))
            case KeepSnapshotPart(part=part):
                self._keep(core, storage, part)

    def _keep(self, core: Replica, storage: Storage, part: SnapshotPart) -> None:
        if part.offset == 0:
            self._receiving = storage.receive_snapshot(SnapshotHeader.decode(part.header))
        assert self._receiving is not None
        self._receiving.write(part.data)
        if part.last:
            header = self._receiving.finish()
            self._receiving = None
            machine = Machine.restore(self._contents())
            core.snapshot_installed(header.slot, header.configuration, header.chain, header.promised, machine)
