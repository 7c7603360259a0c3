# SPDX-License-Identifier: Apache-2.0
"""A whole replica as a program for a host: the shipping Replica, Machine and Storage, on a simulated disk of sectors.

What the daemon does besides with threads and sockets is said here once more, in its simplest form; nothing decides.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from typing import Any, NamedTuple

from dthreading.wire import codec, messages
from replicas.machine.core import Machine
from replicas.paxos.core import Paxos
from replicas.paxos.types import Configuration, Timing
from replicas.replica.admission import Admission
from replicas.replica.core import Replica
from replicas.replica.formation import Census, Formation
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
from replicas.storage import (
    SnapshotDamaged,
    SnapshotHeader,
    SnapshotWriter,
    Storage,
    StorageFailed,
    StorageRefused,
)
from tests.sim.disk import PowerCut, SimulatedDisk
from tests.sim.forming import Forming, formation_of, formed_record
from tests.sim.host import Gone

SEGMENT_BYTES = 64 * 1024
"""Small, so that a world fills several."""
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


PLACES = ("the log", "a snapshot", "a fetched snapshot", "the log after a fetched snapshot", "recovery")
"""What a replica may be doing with its disk when the power goes."""


class _Connection:
    """The replica's end of one."""

    def __init__(self, node: int) -> None:
        self.node = node
        self.heard = 0
        self.said = 0


class GroupProgram:
    """One replica of a group. Outlives crashes: the disk is in it."""

    def __init__(
        self,
        replica: int,
        configuration: Configuration,
        luck: random.Random,
        *,
        timing: Timing,
        snapshot_every: int,
        seen: Counter[str] | None = None,
    ) -> None:
        self.replica = replica
        self.disk = SimulatedDisk(random.Random(luck.random()))
        self.core: Replica | Forming | None = None
        self.audit_ms = 0
        """How often a leader has states compared. Off, so that the worlds are those that were recorded."""
        self.faults: list[Exception] = []
        self.spoilt = False
        """Whether somebody has laid hands on its disk, so that it may be found rotten."""
        self.rotten = False
        """Whether what has been done to its disk may be found at any later time."""
        self.cuts: dict[str, int] = {}
        """Where the disk is to cut the power: one of `PLACES`, and how many operations into it."""
        self._seen: Counter[str] = seen if seen is not None else Counter()
        self._place = ""
        self._formation: Formation | None = None
        self._configuration = configuration
        self._own = next(member for member in configuration.members if member.id == replica)
        self._formed = False
        self._luck = luck
        self._timing = timing
        self._snapshot_every = snapshot_every
        self._storage: Storage | None = None
        self._pending: list[list[Any]] = []
        self._connections: dict[int, _Connection] = {}
        self._writing: SnapshotWriter | None = None
        self._receiving: SnapshotWriter | None = None
        self._fetched = False
        """Nothing was written to the log since a fetched snapshot was put in place."""
        self._to_send: list[tuple[int, Any]] = []

    # --- the host's side

    def boot(self, now_ms: int) -> Replica | Forming:
        """Raises Gone where the daemon would refuse to serve, now and always."""
        self._pending = []
        self._connections = {}
        self._writing = self._receiving = None
        self._fetched = False
        self._to_send = []
        self._storage = storage = self._opened()
        self.core = self._beginning(storage, now_ms)
        return self.core

    def _beginning(self, storage: Storage, now_ms: int) -> Replica | Forming:
        """What this directory makes of its process."""
        self._formation = formation_of(storage, self._configuration, self.replica, now_ms)
        if self._formation.take().formed is None:
            self._seen["disk: an empty replica asks for its group"] += 1
            return Forming(self._formation, now_ms)
        return self._member(storage, Admission(self.replica, self._configuration, ()), now_ms)

    def _member(self, storage: Storage, admission: Admission, now_ms: int) -> Replica:
        """A replica that has its place in the group, as `daemon/running.py` makes one."""
        if storage.snapshot is not None:
            machine = Machine.restore(self._contents())
            assert machine.digest == storage.snapshot.digest, "a snapshot is not of the state that its header names"
        else:
            machine = Machine(admission.genesis)
        durable = storage.recovered.durable
        if durable.doubtful:
            self._seen["disk: slots in doubt after a restart"] += 1
        paxos = Paxos(
            replica=admission.replica,
            configuration=admission.genesis,
            durable=durable,
            timing=self._timing,
            luck=self._luck.random,
            now_ms=now_ms,
        )
        beginning = {"now_ms": now_ms, "genesis": admission.genesis, "seeds": admission.seeds}
        return Replica(paxos=paxos, machine=machine, namespace_term_ms=5_000, audit_ms=self.audit_ms, **beginning)

    def _opened(self) -> Storage:
        """The disk's storage, that of a formed group's replica, unless this is another disk than it was formed on."""
        self._enter("recovery")
        try:
            storage = Storage.open(self.disk, segment_bytes=SEGMENT_BYTES)
        except StorageRefused as error:
            if not self.spoilt:
                raise
            raise Gone(str(error)) from error
        if storage.recovered.rot is not None:
            assert self.spoilt, storage.recovered.rot
            raise Gone(storage.recovered.rot)
        self._set_up(storage)
        return storage

    def _set_up(self, storage: Storage) -> None:
        """An empty directory is formatted. Simulated groups are formed before their worlds begin."""
        if storage.identity is None:
            storage.format(b"another life" if self._formed else self._own.incarnation)
        assert storage.identity is not None
        if storage.identity.formation is None and storage.identity.incarnation == self._own.incarnation:
            storage.form(formed_record(self._configuration))
            self._formed = True

    def lose_disk(self) -> None:
        """The directory is empty when it is opened next."""
        self.disk = SimulatedDisk(self.disk.luck)

    def _enter(self, place: str) -> None:
        """The disk is used for that from here on."""
        self._place = place
        if place in self.cuts:
            self.disk.cut_power_after = self.cuts.pop(place)

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
        self._enter("the log after a fetched snapshot" if self._fetched else "the log")
        self._fetched = False
        now, self._pending = self._pending[:batches], self._pending[batches:]
        for records in now:
            self._storage.append(records)
        self._storage.sync()
        self._storage.prepare()

    def crash(self) -> None:
        """The power goes: perhaps in the middle of a write that nobody has been told about."""
        if self.disk.is_off:
            self._seen[f"crash: in the middle of {self._place}"] += 1
        elif self._pending and self._storage is not None and self._luck.random() < 0.7:
            self.disk.cut_power_after = self._luck.randint(0, 3)
            with contextlib.suppress(PowerCut, StorageFailed):
                self.sync(len(self._pending))
        self.disk.crash()
        self._gone()

    def end(self) -> None:
        """The process goes, and what it wrote stays with the system: read back as written, and not yet safe. It may go
        in the middle of a write that nobody has been told about, or after it and before its sync.
        """
        if self._pending and self._storage is not None and not self.disk.is_off and self._luck.random() < 0.7:
            self.disk.cut_power_after = self._luck.randint(0, 3)
            with contextlib.suppress(PowerCut, StorageFailed):
                self.sync(len(self._pending))
            self._seen["kill: in the middle of the log"] += self.disk.is_off
        self.disk.kill()
        self._gone()

    def heal(self) -> None:
        self.cuts.clear()
        self.disk.capacity = self.disk.fail_after = self.disk.cut_power_after = None

    def _gone(self) -> None:
        self.core = self._storage = None
        self.cuts.clear()

    def sent(self, message: Any) -> None:
        """Consensus' own promise to take nothing back is checked where it is simulated alone."""

    def arrived(self, source: int, message: Any) -> bool:
        core = self.core
        assert core is not None
        match message:
            case ToReplica():
                self._from_client(core, source, message)
            case ConnectionEnded(connection=connection):
                if not self.drop(connection):
                    self._seen["network: a connection's end came late"] += 1
            case Census():
                self._answer(core, source, message)
            case _:
                core.peer_said(source, message)
        return True

    def _answer(self, core: Replica | Forming, source: int, census: Census) -> None:
        if isinstance(core, Forming):
            core.peer_said(source, census)
            return
        assert self._formation is not None
        self._formation.step(source, census)
        self._to_send += self._formation.take().send

    def _from_client(self, core: Replica | Forming, source: int, message: ToReplica) -> None:
        if not isinstance(core, Replica):
            self._to_send.append((source, ConnectionEnded(message.connection)))
            return
        known = self._connections.get(message.connection)
        if known is None and message.count == 1:
            known = self._connections[message.connection] = _Connection(source)
            self._greet(core, message.connection, known)
        if known is None or message.count != known.heard + 1:
            # Something before it is gone, with a crash of ours or a cut cable: a stream is broken then.
            self._seen["network: a client's connection is found to be half open"] += 1
            self.drop(message.connection)
            self._to_send.append((source, ConnectionEnded(message.connection)))
            return
        known.heard += 1
        core.client_said(message.connection, codec.decode(message.body), message.body)  # type: ignore[arg-type]

    def _greet(self, core: Replica, connection: int, known: _Connection) -> None:
        """What a Welcome says, as far as it is used here."""
        self._say(connection, known, messages.Leader(core.leader_address))

    def drop(self, connection: int) -> bool:
        """That connection is no more, as far as this end knows; False when there was none."""
        known = self._connections.pop(connection, None)
        if known is not None and isinstance(self.core, Replica):
            self.core.client_gone(connection)
        return known is not None

    def _say(self, connection: int, known: _Connection, message: messages.ToClient) -> None:
        known.said += 1
        self._to_send.append((known.node, ToClient(connection, known.said, codec.encode(message))))

    def handle(self, output: ReplicaOutput) -> None:
        core = self.core
        assert core is not None
        assert not output.faults, output.faults
        assert not output.verdict, output.verdict
        self.faults += output.faults
        for connection, message in output.to_clients:
            known = self._connections.get(connection)
            if known is not None:
                self._say(connection, known, message)
        for connection, _ in output.hang_up:
            known = self._connections.pop(connection, None)
            if known is not None:
                self._to_send.append((known.node, ConnectionEnded(connection)))
        for work in output.snapshot:
            self._snapshot(core, work)  # type: ignore[arg-type]
        output.send_now += self._to_send
        self._to_send = []
        if isinstance(core, Replica):
            self._cut_often(core._cutting)

    def _cut_often(self, cutting: Cutting) -> None:
        """Fifty thousand entries would be more than a simulated life: snapshots come sooner here."""
        if not cutting.busy and cutting._entries >= self._snapshot_every:
            cutting.applied(10**9)

    def _snapshot(self, core: Replica, work: SnapshotWork) -> None:
        storage = self._storage
        assert storage is not None
        if not isinstance(work, ServeSnapshot):
            self._enter("a fetched snapshot" if isinstance(work, KeepSnapshotPart) else "a snapshot")
        match work:
            case BeginSnapshot(slot=slot, configuration=configuration, chain=chain, promised=promised):
                header = SnapshotHeader(slot, configuration, chain, core.machine.digest, promised)
                if self._writing is not None:
                    self._writing.abort()
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
                    self._to_send.append((self._node_of(replica), part))
            case KeepSnapshotPart(part=part):
                self._keep(core, storage, part)

    def _node_of(self, replica: int) -> int:
        """Where in the network that replica is."""
        return replica

    def _keep(self, core: Replica, storage: Storage, part: SnapshotPart) -> None:
        if part.offset == 0:
            if self._receiving is not None:
                self._receiving.abort()
            self._receiving = storage.receive_snapshot(SnapshotHeader.decode(part.header))
            self._header_received = part.slot
        if self._receiving is None or self._header_received != part.slot or self._receiving.offset != part.offset:
            return
        try:
            self._receiving.write(part.data)
            if part.last:
                header = self._receiving.finish()
                self._receiving = None
                self._fetched = True
                self._seen["a fetched snapshot is installed"] += 1
                machine = Machine.restore(self._contents())
                core.snapshot_installed(header.slot, header.configuration, header.chain, header.promised, machine)
        except SnapshotDamaged:
            self._receiving = None
            self._seen["a fetched snapshot was refused"] += 1
