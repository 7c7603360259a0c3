# SPDX-License-Identifier: Apache-2.0
"""One replica without its I/O: Paxos decides the order, the machine obeys it, and this file carries words between them.

It owns the leader's duties towards clients (leases, expiry, confirmed reads and keepalives) and the follower's (passing
on, again to every new leader). It reads no clock, owns no socket and touches no disk: the shell hands in time, messages
and the end of a sync, and carries out what `take` returns. The simulator drives this very class.

The way of a command: `client_said` -> pending -> `paxos.propose` here or `Forward` to the leader -> chosen ->
`machine.apply` on every replica -> the replica that holds the client's connection replies.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from dthreading.errors import ProtocolError
from dthreading.wire import messages as wire
from dthreading.wire.limits import NAME_BYTES_MAX
from dthreading.wire.messages import ToClient, ToReplica
from replicas import commands
from replicas.formation import Census
from replicas.hosting import PENDING_PER_CONNECTION_MAX, Hosting
from replicas.leases import LATE_MS, Leases
from replicas.machine import Effects, Machine
from replicas.messages import Forward, PeerMessage, SnapshotPart, SnapshotRequest, Vouch, Vouched
from replicas.paxos.core import Paxos
from replicas.paxos.types import NO_BALLOT, Ballot, Configuration, Entry, EntryKind, Record, Role

__all__ = ["Replica", "ReplicaOutput", "SnapshotWork"]

FORWARD_RETRY_MS: Final = 1000
"""A follower whose forwarded commands have made no progress for this long passes them on again (the link may have lost
them; copies are harmless)."""

FORWARD_BYTES_MAX: Final = 1024 * 1024
"""The most of one Forward, so that a frame stays well below FRAME_BYTES_MAX whatever is pending."""

LEADERLESS_MS: Final = 3000
"""Without a leader for this long (several elections' worth), a replica sends its clients on to the others."""

SNAPSHOT_ENTRIES: Final = 50_000
"""Entries applied since the last snapshot that make it time for another: a few seconds of replay at most after a
restart."""

SNAPSHOT_LOG_BYTES: Final = 32 * 1024 * 1024
"""The same for the bytes of those entries, so that a log of large items stays bounded as well."""

SNAPSHOT_SLICE_BYTES: Final = 64 * 1024
"""How much of a snapshot is serialized in one turn of the loop: well under a millisecond."""


# --- what the shell does with snapshots, in order -----------------------------------------------------------------


class BeginSnapshot(NamedTuple):
    """Begin writing the snapshot of `slot` aside."""

    slot: int
    configuration: Configuration
    chain: int


class SnapshotChunk(NamedTuple):
    """Append this to it."""

    data: bytes


class FinishSnapshot(NamedTuple):
    """Make it durable, then call `Replica.snapshot_saved(slot)`."""

    slot: int


class ServeSnapshot(NamedTuple):
    """Read a part of the newest durable snapshot and send it to `replica` as a `SnapshotPart`."""

    replica: int
    request: SnapshotRequest
    promised: Ballot


class KeepSnapshotPart(NamedTuple):
    """Store this part; after the last, check and install the whole, then call `Replica.snapshot_installed`."""

    source: int
    part: SnapshotPart


SnapshotWork: TypeAlias = BeginSnapshot | SnapshotChunk | FinishSnapshot | ServeSnapshot | KeepSnapshotPart


@dataclass(slots=True)
class ReplicaOutput:
    """What the shell does next. `send_after_sync` leaves only when `persist` is durable; all else may go at once."""

    persist: list[Record] = field(default_factory=list)
    batch: int = 0
    send_now: list[tuple[int, PeerMessage]] = field(default_factory=list)
    send_after_sync: list[tuple[int, PeerMessage]] = field(default_factory=list)
    to_clients: list[tuple[int, ToClient]] = field(default_factory=list)
    faults: list[Exception] = field(default_factory=list)
    """Objects of ours that broke: for the log. Each is quarantined already."""
    hang_up: list[tuple[int, str]] = field(default_factory=list)
    snapshot: list[SnapshotWork] = field(default_factory=list)


# --- tokens of confirm(): what is answered once leadership is confirmed -------------------------------------------


class _Vouching(NamedTuple):
    source: int | None
    """The follower that asked; None: the client is connected here."""
    session: int
    beat: int
    heard_ms: int


class _Reading(NamedTuple):
    connection: int
    call: wire.Call
    body: bytes
    slot: int
    """The read sees at least what was proposed before it came, its own session's calls included."""


class Replica:
    """The sans-IO whole of one replica.

    Args:
        paxos: the consensus core, restored from what is durable.
        machine: the replicated state, restored from the snapshot that the core starts above.
        namespace_term_ms: how long after its last session a namespace's automatic objects are put back.
        now_ms: the shell's monotonic clock.

    """

    def __init__(self, *, paxos: Paxos, machine: Machine, namespace_term_ms: int, now_ms: int) -> None:
        self.paxos = paxos
        self.machine = machine
        self._namespace_term_ms = namespace_term_ms
        self._now_ms = now_ms
        self._due_ms = now_ms
        self._hosting = Hosting()
        self._output = ReplicaOutput()
        # The leader's side.
        self._to_propose: deque[bytes] = deque()
        self._sessions: Leases[int] = Leases()
        self._namespaces: Leases[str] = Leases()
        self._doomed: set[int] = set()
        self._waiting_reads: list[_Reading] = []
        self._informed: set[int] = set()
        self._proposed = 0
        self._serving = False
        self._deletions: dict[tuple[int, str, str], list[int]] = {}
        # The follower's side.
        self._reign: tuple[int | None, Any] = (None, None)
        self._forward_due_ms = 0
        self._leaderless_since_ms: int | None = now_ms
        # Snapshots.
        self._snapshot: Any = None
        self._snapshot_slot = machine.applied
        self._since_snapshot = 0
        self._bytes_since_snapshot = 0
        self._fetching: tuple[int, int, int] | None = None
        self._fetch_due_ms = 0
        self._fetched_promise = NO_BALLOT

    # --- what comes in --------------------------------------------------------------------------------------------

    def client_said(self, connection: int, message: ToReplica, body: bytes) -> None:
        """A message of an authenticated client; `body` is its frame as it came, which goes into the log as it is."""
        match message:
            case wire.Open():
                self._hosting.opening(connection, message.nonce)
                self._submit(body, connection)
            case wire.Resume():
                # Its calls may follow at once; answers come here only when apply has accepted the Resume.
                self._hosting.link(connection).session = message.session
                self._submit(body, connection)
            case wire.Query():
                self._answer(connection, message)
            case _ if message.session != self._hosting.link(connection).session:
                self._hang_up(connection, f"it speaks for session {message.session}, which is not the connection's")
            case wire.Keepalive():
                self._keepalive(_Vouching(None, message.session, message.beat, self._now_ms))
            case wire.CloseAtEnd():
                self._hosting.link(connection).close_at_end = True
            case wire.Call() | wire.Attach() if (code := self.machine.check(message)) is not None:
                self._refuse(connection, message, code)
            case wire.Call() if self._serving and self.machine.is_read(message):
                self._read(_Reading(connection, message, body, self._proposed + len(self._to_propose)))
            case _:
                self._submit(body, connection)

    def client_gone(self, connection: int) -> None:
        """The connection has ended, by whichever side."""
        link = self._hosting.gone(connection)
        for key in [key for key in self._deletions if key[0] == connection]:
            del self._deletions[key]
        if link is not None and link.close_at_end and link.session is not None:
            self._submit(commands.codec.encode(wire.Close(link.session)), None)

    def peer_said(self, source: int, message: PeerMessage) -> None:
        """A message of another replica of the group."""
        match message:
            case Forward(bodies=bodies):
                if self._leads:
                    self._to_propose.extend(bodies)
                    self._informed.add(source)
            case Vouch(session=session, beat=beat):
                self._keepalive(_Vouching(source, session, beat, self._now_ms))
            case Vouched(session=session, beat=beat):
                self._tell(session, wire.Alive(session, beat))
            case SnapshotRequest():
                self._output.snapshot.append(ServeSnapshot(source, message, self.paxos.promised))
            case SnapshotPart():
                self._snapshot_part(source, message)
            case Census():
                raise AssertionError("the shell's Formation hears those")
            case _:
                self.paxos.step(source, message)

    def peer_linked(self, replica: int) -> None:
        """A new connection to that replica: what was passed on over the old one may be lost."""
        if replica == self.paxos.leader:
            self._forward_all()

    def tick(self, now_ms: int) -> None:
        """Time has passed. A late call means that the process was paused, and is charged to nobody's lease."""
        late_ms = now_ms - self._due_ms
        self._now_ms = now_ms
        paused = late_ms > LATE_MS
        if paused:
            self._sessions.slept(late_ms)
            self._namespaces.slept(late_ms)
        self.paxos.tick(now_ms)
        if self._serving and not paused:
            # After a pause the sockets are drained first: the keepalives in them may be what we are waiting for.
            self._expire()
        self._follow()
        self._due_ms = self.paxos.wake_ms

    @property
    def wake_ms(self) -> int:
        """When `tick` is due at the latest; it is also called before what a turn of the loop brings in."""
        return self.paxos.wake_ms

    @property
    def _leads(self) -> bool:
        return self.paxos.role == Role.LEADER

    def synced(self, batch: int) -> None:
        """All that was to persist with this batch is durable."""
        self.paxos.synced(batch)

    def hand_over(self) -> None:
        """Before this process stops: let another lead, and send the clients on."""
        self.paxos.hand_over()
        for connection in self._hosting.connections:
            self._output.to_clients.append((connection, wire.MoveOn("this replica is stopping")))

    # --- what goes out --------------------------------------------------------------------------------------------

    def take(self) -> ReplicaOutput:
        """All that is to be done since the last call."""
        self._notice_reign()
        self._propose_pending()
        paxos = self.paxos.take()
        output = self._output
        output.persist = paxos.persist
        output.batch = paxos.batch
        output.send_now[:0] = paxos.send_now
        output.send_after_sync[:0] = paxos.send_after_sync
        for entry in paxos.chosen:
            self._apply(entry)
        for token in paxos.failed:
            self._unconfirmed(token)
        for token in paxos.confirmed:
            self._confirmed(token)
        if self._waiting_reads:
            self._serve_waiting_reads()
        self._fetch_snapshot(paxos.fetch_snapshot_from)
        self._slice_snapshot()
        self._output = ReplicaOutput()
        return output

    @property
    def wants_turn(self) -> bool:
        """Whether `take` should be called again soon although nothing came in: a snapshot is being written, or a window
        was full.
        """
        return self._snapshot is not None or bool(self._to_propose and self._leads)

    # --- commands -------------------------------------------------------------------------------------------------

    def _submit(self, body: bytes, connection: int | None) -> None:
        """Into the log with it, by way of whoever leads."""
        if not self._hosting.add(body, connection):
            return
        if connection is not None and self._hosting.link(connection).pending > PENDING_PER_CONNECTION_MAX:
            reason = f"more than PENDING_PER_CONNECTION_MAX = {PENDING_PER_CONNECTION_MAX} commands on their way"
            self._hang_up(connection, reason)
        if self._leads:
            self._to_propose.append(body)
        elif self.paxos.leader is not None:
            self._forward([body])

    def _refuse(self, connection: int, message: wire.Call | wire.Attach, code: str) -> None:
        """What apply would refuse on every replica need not be decided; the number stays unused, which is allowed."""
        if isinstance(message, wire.Call):
            value = (
                code,
                f"{message.operation}() with {len(message.arguments)} arguments is nothing that objects do",
                (),
            )
            self._output.to_clients.append(
                (connection, wire.Reply(message.lane, message.number, wire.Status.ERROR, value))
            )
        else:
            self._hang_up(connection, f"a name or namespace above {NAME_BYTES_MAX} bytes (NAME_BYTES_MAX)")

    def _propose_pending(self) -> None:
        queue = self._to_propose
        while queue:
            slot = self.paxos.propose(queue[0])
            if slot is None:
                break
            self._proposed = slot
            queue.popleft()
        for source in self._informed:
            # Clients wait there for these answers: that follower is told as soon as they are chosen.
            self.paxos.inform(source)
        self._informed.clear()

    def _forward(self, bodies: list[bytes]) -> None:
        leader = self.paxos.leader
        assert leader is not None
        self._forward_due_ms = self._now_ms + FORWARD_RETRY_MS
        outgoing = self._output.send_now
        if outgoing and outgoing[-1][0] == leader and isinstance(outgoing[-1][1], Forward) and len(bodies) == 1:
            last = outgoing[-1][1]
            if sum(map(len, last.bodies)) + len(bodies[0]) < FORWARD_BYTES_MAX:
                outgoing[-1] = (leader, Forward((*last.bodies, *bodies)))
                return
        batch: list[bytes] = []
        size = 0
        for body in bodies:
            if batch and size + len(body) > FORWARD_BYTES_MAX:
                outgoing.append((leader, Forward(tuple(batch))))
                batch, size = [], 0
            batch.append(body)
            size += len(body)
        outgoing.append((leader, Forward(tuple(batch))))

    def _forward_all(self) -> None:
        if self._hosting.pending_count and self.paxos.leader is not None and not self._leads:
            self._forward(list(self._hosting.pending))

    def _apply(self, entry: Entry) -> None:
        effects = self.machine.apply(entry)
        self._since_snapshot += 1
        self._bytes_since_snapshot += len(entry.value)
        connection = None
        if entry.kind == EntryKind.COMMAND:
            connection = self._hosting.applied(entry.value)
            if self._hosting.pending_count:
                self._forward_due_ms = self._now_ms + FORWARD_RETRY_MS
        self._spread(effects, connection)
        if entry.kind == EntryKind.LEADS and self._leads and self.machine.ballot_in_force == self.paxos.ballot:
            self._begin_serving()

    def _spread(self, effects: Effects, connection: int | None) -> None:
        """Tells this replica's clients what apply did; `connection` is where the command came from, if from here."""
        for session, nonce in effects.opened:
            self._hosting.opened(nonce, session)
        for nonce, rejection in effects.rejected:
            self._turn_away(self._hosting.opened(nonce, None), rejection)
        for fault in effects.faults:
            self._output.faults.append(fault)
        if connection is not None:
            for session, _ in effects.refused:
                reason = f"session {session} is another client's: its nonce is not the one that was sent"
                self._turn_away(connection, wire.Rejected("wrong_group", reason))
            for namespace, name, existed in effects.deleted:
                self._answer_deletion(connection, namespace, name, existed)
            for session in effects.resumed:
                former = self._hosting.bind(connection, session)
                if former is not None:
                    self._hang_up(former, "its session has come back on another connection")
        for session, message in effects.replies:
            if connection is not None and isinstance(message, wire.Ended):
                self._output.to_clients.append((connection, message))
            else:
                self._tell(session, message)
        for session in effects.ended:
            self._hosting.ended(session)
        if not self._serving:
            return
        for session, _ in effects.opened:
            self._renew(session, self._now_ms)
        for session in effects.resumed:
            self._doomed.discard(session)
            self._renew(session, self._now_ms)
        for session in effects.ended:
            self._doomed.discard(session)
            self._sessions.drop(session)
        for namespace in effects.idle:
            self._namespaces.renew(namespace, self._now_ms, self._namespace_term_ms)

    def _tell(self, session: int, message: ToClient) -> None:
        connection = self._hosting.connection(session)
        if connection is not None:
            self._output.to_clients.append((connection, message))

    def _turn_away(self, connection: int | None, rejection: wire.Rejected) -> None:
        if connection is not None:
            self._output.to_clients.append((connection, rejection))
            self._hang_up(connection, rejection.reason)

    def _hang_up(self, connection: int, reason: str) -> None:
        self._output.hang_up.append((connection, reason))
        self._hosting.gone(connection)

    # --- the leader's duties: leases, confirmed reads and keepalives ----------------------------------------------

    def _begin_serving(self) -> None:
        """Our own LEADS entry is applied: everyone gets a full term, since nobody knows what the last leader heard."""
        self._serving = True
        self._doomed.clear()
        self._sessions.clear()
        self._namespaces.clear()
        for session in self.machine.sessions:
            self._renew(session, self._now_ms)
        for namespace in self.machine.idle_namespaces:
            self._namespaces.renew(namespace, self._now_ms, self._namespace_term_ms)

    def _renew(self, session: int, heard_ms: int) -> None:
        known = self.machine.sessions.get(session)
        if known is not None and session not in self._doomed:
            self._sessions.renew(session, heard_ms, known.ttl_ms)

    def _expire(self) -> None:
        for session in self._sessions.due(self._now_ms):
            known = self.machine.sessions.get(session)
            if known is None:
                continue
            # From here on nothing of this session is acknowledged: its client may count on that.
            self._doomed.add(session)
            self._to_propose.append(commands.expire(session, known.epoch, self.paxos.ballot))
        for namespace in self._namespaces.due(self._now_ms):
            epoch = self.machine.idle_namespaces.get(namespace)
            if epoch is not None:
                self._to_propose.append(commands.reset(namespace, epoch, self.paxos.ballot))

    def _keepalive(self, vouching: _Vouching) -> None:
        if self._serving:
            if vouching.session not in self._doomed:
                self.paxos.confirm(vouching)
        elif vouching.source is None and self.paxos.leader is not None and not self._leads:
            self._output.send_now.append((self.paxos.leader, Vouch(vouching.session, vouching.beat)))

    def _read(self, reading: _Reading) -> None:
        if not self.paxos.confirm(reading):
            self._submit(reading.body, reading.connection)

    def _confirmed(self, token: object) -> None:
        match token:
            case _Vouching(source=source, session=session, beat=beat, heard_ms=heard_ms):
                if not self._serving or session in self._doomed or session not in self.machine.sessions:
                    return
                self._renew(session, heard_ms)
                if source is None:
                    self._tell(session, wire.Alive(session, beat))
                else:
                    self._output.send_now.append((source, Vouched(session, beat)))
            case _Reading():
                self._waiting_reads.append(token)
            case _:
                raise AssertionError(token)

    def _unconfirmed(self, token: object) -> None:
        """Leadership has gone: a read goes through the log, and a keepalive's client will send the next."""
        if isinstance(token, _Reading):
            self._submit(token.body, token.connection)

    def _serve_waiting_reads(self) -> None:
        later: list[_Reading] = []
        for reading in self._waiting_reads:
            if reading.slot > self.machine.applied:
                later.append(reading)
            elif self._hosting.connection(reading.call.session) == reading.connection:
                self._output.to_clients.append((reading.connection, self.machine.read(reading.call)))
        self._waiting_reads = later

    # --- following ------------------------------------------------------------------------------------------------

    def _notice_reign(self) -> None:
        """A new leader (or the same one anew): what is pending is passed on to it, and the clients are told."""
        reign = (self.paxos.leader, self.paxos.ballot)
        if reign == self._reign:
            return
        old_leader, self._reign = self._reign[0], reign
        self._serving = False
        self._to_propose.clear()
        waiting, self._waiting_reads = self._waiting_reads, []
        for reading in waiting:
            self._submit(reading.body, reading.connection)
        leader = self.paxos.leader
        if leader is None:
            self._leaderless_since_ms = self._now_ms
            return
        self._leaderless_since_ms = None
        if self._leads:
            self._to_propose.extend(self._hosting.pending)
        else:
            self._forward_all()
        if leader != old_leader:
            address = self.leader_address
            for connection in self._hosting.connections:
                self._output.to_clients.append((connection, wire.Leader(address)))

    @property
    def leader_address(self) -> str:
        """Where the leader listens; "" when nobody is known to lead."""
        for member in self.paxos.configuration.members:
            if member.id == self.paxos.leader:
                return member.address
        return ""

    def _follow(self) -> None:
        if self._now_ms >= self._forward_due_ms:
            self._forward_all()
        since = self._leaderless_since_ms
        if since is not None and self._now_ms - since > LEADERLESS_MS:
            self._leaderless_since_ms = self._now_ms
            for connection in self._hosting.connections:
                self._output.to_clients.append((connection, wire.MoveOn("this replica hears no leader")))

    # --- snapshots ------------------------------------------------------------------------------------------------

    def snapshot_saved(self, slot: int, chain: int) -> None:
        """The shell has made the snapshot of `slot` durable: the log up to it can go."""
        assert slot > self._snapshot_slot
        self._snapshot_slot = slot
        self.paxos.compact(slot, chain)

    def snapshot_installed(self, slot: int, configuration: Configuration, chain: int, machine: Machine) -> None:
        """The shell has stored a peer's snapshot durably and restored the machine from it."""
        self._fetching = None
        if slot <= self.machine.applied:
            return
        assert machine.applied == slot
        self.machine = machine
        self._snapshot = None
        self._snapshot_slot = slot
        self._since_snapshot = self._bytes_since_snapshot = 0
        self.paxos.installed(slot, configuration, chain, self._fetched_promise)
        # Answers that fell into the gap were never sent from here: each is sent (again); clients ignore what they know.
        for session in self._hosting.sessions:
            if session not in machine.sessions:
                self._tell(session, wire.Ended(session))
                self._hosting.ended(session)
                continue
            for reply in machine.answers(session):
                self._tell(session, reply)

    def _slice_snapshot(self) -> None:
        if self._snapshot is None:
            if self._since_snapshot < SNAPSHOT_ENTRIES and self._bytes_since_snapshot < SNAPSHOT_LOG_BYTES:
                return
            self._since_snapshot = self._bytes_since_snapshot = 0
            self._snapshot = (self.machine.applied, self.machine.snapshot())
            self._output.snapshot.append(
                BeginSnapshot(self.machine.applied, self.paxos.configuration, self.paxos.chain)
            )
        slot, writer = self._snapshot
        data = writer.step(SNAPSHOT_SLICE_BYTES)
        if data:
            self._output.snapshot.append(SnapshotChunk(data))
        else:
            self._output.snapshot.append(FinishSnapshot(slot))
            self._snapshot = None

    def _fetch_snapshot(self, source: int | None) -> None:
        """Paxos says that this replica is behind what its peers still have as entries."""
        if source is None or (self._fetching is not None and self._now_ms < self._fetch_due_ms):
            return
        self._fetching = (source, 0, 0)
        self._request_part()

    def _request_part(self) -> None:
        assert self._fetching is not None
        source, slot, offset = self._fetching
        self._fetch_due_ms = self._now_ms + FORWARD_RETRY_MS
        self._output.send_now.append((source, SnapshotRequest(slot, offset)))

    def _snapshot_part(self, source: int, part: SnapshotPart) -> None:
        if self._fetching is None or self._fetching[0] != source:
            return
        _, slot, offset = self._fetching
        if part.slot <= self.machine.applied or part.offset != offset or (slot and part.slot != slot):
            if part.offset == 0 and part.slot > self.machine.applied:
                self._fetching = (source, part.slot, 0)
            else:
                self._fetching = None
                return
        self._fetched_promise = max(self._fetched_promise, part.promised)
        self._output.snapshot.append(KeepSnapshotPart(source, part))
        self._fetching = (source, part.slot, part.offset + len(part.data))
        if not part.last:
            self._request_part()

    # --- for people -----------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What `dthreading status` shows of this replica, besides what only the shell knows."""
        paxos = self.paxos
        return {
            "replica": paxos.replica,
            "role": "leader" if self._leads else "follower",
            "leader": paxos.leader,
            "ballot": list(paxos.ballot),
            "chosen": paxos.chosen,
            "applied": self.machine.applied,
            "snapshot": self._snapshot_slot,
            "digest": self.machine.digest.hex(),
            "connections": len(self._hosting.connections),
            "pending": self._hosting.pending_count,
            **self.machine.describe("status", ()),
        }

    def _answer(self, connection: int, query: wire.Query) -> None:
        if query.question == "status":
            value: Any = self.status()
        elif query.question == "delete":
            self._delete(connection, query)
            return
        else:
            try:
                value = self.machine.describe(query.question, query.arguments)
            except KeyError:
                raise ProtocolError(f"unknown question {query.question!r}") from None
        self._output.to_clients.append((connection, wire.Answer(query.number, value)))

    def _delete(self, connection: int, query: wire.Query) -> None:
        """The one question that changes something: it goes through the log, and is answered when it is applied."""
        match query.arguments:
            case (str() as namespace, str() as name):
                self._deletions.setdefault((connection, namespace, name), []).append(query.number)
                self._submit(commands.delete(namespace, name), connection)
            case _:
                raise ProtocolError("delete takes a namespace and a name")

    def _answer_deletion(self, connection: int, namespace: str, name: str, existed: bool) -> None:
        for number in self._deletions.pop((connection, namespace, name), []):
            self._output.to_clients.append((connection, wire.Answer(number, existed)))
