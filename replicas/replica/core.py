# SPDX-License-Identifier: Apache-2.0
"""One replica without its I/O: Paxos decides the order, the machine obeys it, and this file carries words between them.

It owns the leader's duties towards clients (leases, expiry, confirmed reads and keepalives) and the follower's (passing
on, again to every new leader). It reads no clock, owns no socket and touches no disk: the shell hands in time, messages
and the end of a sync, and carries out what `take` returns. The simulator drives this very class.

The way of a command: `client_said` -> pending -> `paxos.propose` here or `Forward` to the leader -> chosen ->
`machine.apply` on every replica -> the replica that holds the client's connection replies.
"""

from __future__ import annotations

from typing import Any, Final

from dthreading.wire import messages as wire
from dthreading.wire.messages import ToReplica
from replicas.machine import commands
from replicas.machine.core import Machine
from replicas.paxos.core import Paxos
from replicas.paxos.messages import MESSAGES
from replicas.paxos.types import Ballot, Configuration, Entry, EntryKind, Role
from replicas.replica import queries
from replicas.replica.acquaintance import Acquaintance
from replicas.replica.auditing import AUDIT_MS, Auditing
from replicas.replica.confirming import Confirming
from replicas.replica.formation import Census
from replicas.replica.forwarding import Forwarding, Streams
from replicas.replica.hosting import PENDING_PER_CONNECTION_MAX
from replicas.replica.leading import Tenure, Vouching
from replicas.replica.membership import Membership
from replicas.replica.messages import (
    Account,
    Ask,
    Forward,
    Learning,
    Missed,
    PeerMessage,
    SnapshotPart,
    SnapshotRequest,
    Told,
    Vouch,
    Vouched,
)
from replicas.replica.output import ReplicaOutput, ServeSnapshot
from replicas.replica.snapshots import Cutting, Fetching

__all__ = ["Replica"]

_COMMAND: Final = int(EntryKind.COMMAND)

_OF_CONSENSUS: Final = frozenset(MESSAGES.values())

DUTIES_MS: Final = 20
"""How often `tick` looks for ended leases, due audits and the like; it is called each millisecond."""

LEADERLESS_MS: Final = 3000
"""Without a leader for this long (several elections' worth), a replica sends its clients on to the others."""


class Replica(Confirming):
    """The sans-IO whole of one replica.

    Args:
        paxos: the consensus core, restored from what is durable.
        machine: the replicated state, restored from the snapshot that the core starts above.
        namespace_term_ms: how long after its last session a namespace's automatic objects are put back.
        now_ms: the shell's monotonic clock.
        genesis: the configuration that the group was formed with; None: the core's.
        seeds: (id, address) of members, as a newcomer was told of them.
        audit_ms: how often a leader has all states compared; 0: never.

    """

    def __init__(
        self,
        *,
        paxos: Paxos,
        machine: Machine,
        namespace_term_ms: int,
        now_ms: int,
        genesis: Configuration | None = None,
        seeds: tuple[tuple[int, str], ...] = (),
        audit_ms: int = AUDIT_MS,
    ) -> None:
        super().__init__(paxos, machine, now_ms)
        paxos.reigned(Ballot(*machine.ballot_in_force))
        self._namespace_term_ms = namespace_term_ms
        self._due_ms = now_ms  # a tick long after it means that the process was paused
        self._duties_ms = now_ms
        self._forwarding = Forwarding(self._hosting, now_ms)
        self._streams = Streams()
        self._cutting = Cutting(machine.applied)
        self._fetching = Fetching()
        self._auditing = Auditing(paxos, audit_ms, now_ms)
        self._reign: tuple[int | None, Ballot, bool] = (None, paxos.ballot, False)
        self._leaderless_since_ms: int | None = now_ms
        self._informed: set[int] = set()
        self._leapt = True  # the state is not what the last take() left behind
        self._postponed: list[Entry] = []  # chosen, and not applied before an acknowledgement has left
        self._members = Membership(paxos, machine, genesis or paxos.configuration, seeds, self._submit_own)
        self._epoch = paxos.configuration.epoch
        self._learns = paxos.role is Role.LEARNER  # looked up once an epoch: each message of a client asks

    # --- what comes in --------------------------------------------------------------------------------------------

    def client_said(self, connection: int, message: ToReplica, body: bytes) -> None:
        """A message of an authenticated client; `body` is its frame as it came, which goes into the log as it is."""
        if type(message) is wire.Call and not self._learns:
            self._called(connection, message, body)
            return
        match message:
            case wire.Query():
                self._answer(connection, message)
            case _ if self._learns or self._aside:
                self._output.to_clients.append((connection, wire.MoveOn("this replica is not a member of the group")))
                self._hang_up(connection, "")
            case wire.Open() | wire.Attach() if (code := self.machine.check(message)) is not None:
                self._refuse(connection, message, code)
            case wire.Open():
                self._hosting.opening(connection, message.nonce)
                self._submit(body, connection)
            case wire.Resume():
                # Only when apply has accepted it does this connection speak for the session: the nonce may be a guess.
                self._submit(body, connection)
            case _ if message.session != self._hosting.link(connection).session:
                self._hang_up(connection, f"it speaks for session {message.session}, which is not the connection's")
            case wire.Keepalive():
                self._keepalive(Vouching(None, message.session, message.beat, self._now_ms))
            case wire.CloseAtEnd():
                self._hosting.link(connection).close_at_end = True
            case _:
                self._submit(body, connection)

    def client_gone(self, connection: int) -> None:
        """The connection has ended, by whichever side."""
        link = self._hosting.gone(connection)
        self._deletions.gone(connection)
        if link is not None and link.close_at_end and link.session is not None:
            self._submit(commands.codec.encode(wire.Close(link.session)), None)

    def peer_said(self, source: int, message: PeerMessage) -> None:
        """A message of another replica of the group."""
        if type(message) in _OF_CONSENSUS:
            self.paxos.step(source, message)  # type: ignore[arg-type]
            self._notice_reign()
            return
        match message:
            case Forward(bodies=bodies):
                if self._leads and self._streams.takes(source, message):
                    self._to_propose.extend(bodies)
                    self._informed.add(source)
                elif self._leads and (missed := self._streams.gap(source, message)):
                    self._output.send_now.append((source, missed))
            case Missed(stream=stream):
                self._forwarding.missed(stream)
            case Vouch(session=session, beat=beat):
                self._keepalive(Vouching(source, session, beat, self._now_ms))
            case Vouched(session=session, beat=beat):
                self._tell(session, wire.Alive(session, beat))
            case SnapshotRequest():
                self._output.snapshot.append(ServeSnapshot(source, message))
            case SnapshotPart():
                work, requests = self._fetching.came(source, message, self.machine.applied, self._now_ms)
                self._output.snapshot += work
                self._output.send_now += requests
            case Ask() | Told() | Learning():
                self._members.said(source, message, self._now_ms, self._output)
            case Account():
                self._auditing.heard(source, message)
            case _:
                assert not isinstance(message, Census), "the shell's Formation hears those"
                raise AssertionError(message)

    def peer_linked(self, replica: int) -> None:
        """A new connection to that replica: what was passed on over the old one may be lost."""
        if replica == self.paxos.leader:
            self._forwarding.begin(self._now_ms)

    def tick(self, now_ms: int) -> None:
        """Time has passed. A late call means that the process was paused, and is charged to nobody's lease."""
        if now_ms == self._now_ms:
            return
        late_ms = now_ms - self._due_ms
        self._now_ms = now_ms
        self.paxos.tick(now_ms)
        self._notice_reign()
        if now_ms >= self._duties_ms:
            self._duties_ms = now_ms + DUTIES_MS
            if self._tenure is not None:
                self._to_propose.extend(self._tenure.expired(now_ms, late_ms))
                self._to_propose.extend(self._auditing.due(self.machine, now_ms))
            self._members.tick(now_ms, self._fetching.received, self._output)
            self._auditing.tick(now_ms)
            self._follow()
        self._due_ms = max(now_ms, self.paxos.wake_ms)  # or one pause would be counted again by the next tick

    @property
    def wake_ms(self) -> int:
        """When `tick` is due at the latest; it is also called before what a turn of the loop brings in."""
        return self.paxos.wake_ms

    def synced(self, batch: int) -> None:
        """All up to and with this batch is durable."""
        self.paxos.synced(batch)
        self._notice_reign()

    def hand_over(self) -> None:
        """Before this process stops: let another lead, and send the clients on."""
        self.paxos.hand_over()
        self._tell_all(wire.MoveOn("this replica is stopping"))

    # --- what goes out --------------------------------------------------------------------------------------------

    def take(self) -> ReplicaOutput:
        """All that is to be done since the last call."""
        if self._postponed:
            self.catch_up()
        if self._leads:
            self._propose_pending()
        elif self.paxos.leader is not None:
            self._output.send_now += [(self.paxos.leader, forward) for forward in self._forwarding.take()]
        paxos = self.paxos.take()
        self._leapt = False
        output = self._output
        output.persist, output.batch = paxos.persist, paxos.batch
        output.send_now[:0] = paxos.send_now
        output.send_after_sync += paxos.send_after_sync
        self._postponed += paxos.chosen
        if not output.send_after_sync or not paxos.persist or self._leads or self._cutting.busy:
            self.catch_up()
        # Else the leader waits for this acknowledgement, and hardly anybody for our state. (A snapshot is of all.)
        for token in paxos.failed:
            self._unconfirmed(token)
        for token in paxos.confirmed:
            self._confirmed(token)
        self._answer_reads()
        self._members.note(output)
        if self.paxos.configuration.epoch != self._epoch:
            self._epoch = self.paxos.configuration.epoch
            self._learns = self.paxos.role is Role.LEARNER
            self._tell_all(wire.Servers(self.servers))
        if paxos.fetch_snapshot_from is not None:
            output.send_now += self._fetching.want(paxos.fetch_snapshot_from, self._now_ms)
        output.snapshot += self._cutting.work(self.machine, self.paxos)
        if self._auditing.busy:
            self._auditing.work(output, self.acquaintance.links(self.machine))
            if self._auditing.doubted:
                self._stand_aside()
        self._output = ReplicaOutput()
        return output

    @property
    def due(self) -> bool:
        """Whether `take` may have something to say. Much cheaper than to ask it, and never False when it would."""
        if self._leapt or self._postponed or self._to_propose or self.wants_turn or not self._output.is_empty:
            return True
        return self.paxos.due or self._forwarding.due or self._members.due

    def catch_up(self) -> bool:
        """Apply what the last `take` left for later; the next one would. Whether there was anything."""
        postponed, self._postponed = self._postponed, []
        for entry in postponed:
            self._apply(entry)
        return bool(postponed)

    @property
    def wants_turn(self) -> bool:
        """Whether `take` is due soon although nothing came in: a snapshot is being written, or a window was full."""
        return self._cutting.busy or self._auditing.busy or bool(self._to_propose and self._leads)

    # --- commands -------------------------------------------------------------------------------------------------

    def _submit_own(self, body: bytes) -> None:
        self._submit(body, None)

    def _submit(self, body: bytes, connection: int | None, call: wire.Call | None = None) -> None:
        """Into the log with it, by way of whoever leads."""
        hosting = self._hosting
        if not hosting.add(body, connection, call):
            return
        if connection is not None and hosting.link(connection).pending > PENDING_PER_CONNECTION_MAX:
            reason = f"more than PENDING_PER_CONNECTION_MAX = {PENDING_PER_CONNECTION_MAX} commands on their way"
            self._hang_up(connection, reason)
        if self._leads:
            self._to_propose.append(body)
        else:
            self._forwarding.add(body)

    def _propose_pending(self) -> None:
        if self._to_propose:
            self.paxos.propose_all(self._to_propose)
        for source in self._informed:
            # Clients wait there for these answers: that follower is told as soon as they are chosen.
            self.paxos.inform(source)
        self._informed.clear()

    def _apply(self, entry: Entry) -> None:
        value = entry.value
        effects = self.machine.apply(entry, self._hosting.call(value))
        self._cutting.applied(len(value))
        connection = self._forwarding.applied(value, self._now_ms)
        if effects.is_plain and entry.kind == _COMMAND:
            self._reply(effects.replies, connection)
            return
        self._spread(effects, connection)
        self._members.applied(entry)
        if effects.audit is not None:
            self._auditing.begin(self.machine, effects.audit)
        if self._tenure is not None:
            self._tenure.applied(effects, self._now_ms)
        elif entry.kind == EntryKind.LEADS and self._leads and self.machine.ballot_in_force == self.paxos.ballot:
            self._tenure = Tenure(self.machine, self.paxos.ballot, self._namespace_term_ms, self._now_ms)
            self._members.reign(self._now_ms)
            self._auditing.reign(self._now_ms)

    # --- following ------------------------------------------------------------------------------------------------

    def _notice_reign(self) -> None:
        """A new leader (or the same one anew): what is pending is passed on to it, and the clients are told."""
        reign = (self.paxos.leader, self.paxos.promised, self.paxos.follows)
        if reign == self._reign:
            return
        old_leader, self._reign = self._reign[0], reign
        self._to_propose.clear()
        self._forwarding.clear()
        self._streams.clear()
        self._members.resign()
        tenure, self._tenure = self._tenure, None
        if tenure is not None:
            for reading in tenure.abandoned():
                if self._hosting.is_here(reading.connection):
                    self._hosting.add(reading.body, reading.connection, reading.call)
        leader = self.paxos.leader
        self._leaderless_since_ms = self._now_ms if leader is None else None
        if leader is None:
            return
        if self._leads:
            self._to_propose.extend(self._hosting.pending)
        else:
            self._forwarding.begin(self._now_ms)
        if leader != old_leader:
            self._tell_all(wire.Leader(self.leader_address))

    @property
    def acquaintance(self) -> Acquaintance:
        """Who the other replicas are, for the shell, which meets them first."""
        return self._members.acquaintance

    def _follow(self) -> None:
        if self.paxos.leader is not None and not self._leads:
            self._forwarding.mend(self._now_ms)
        since = self._leaderless_since_ms
        if since is not None and self._now_ms - since > LEADERLESS_MS:
            self._leaderless_since_ms = self._now_ms
            self._tell_all(wire.MoveOn("this replica hears no leader"))

    # --- snapshots ------------------------------------------------------------------------------------------------

    def snapshot_saved(self, slot: int, chain: int) -> None:
        """The shell has made the snapshot of `slot` durable: the log up to it can go."""
        if slot > self._cutting.slot:
            self._cutting.slot = slot
            self.paxos.compact(slot, chain)

    def snapshot_installed(
        self, slot: int, configuration: Configuration, chain: int, promised: Ballot, machine: Machine
    ) -> None:
        """The shell has stored a peer's snapshot durably and restored the machine from it."""
        self._fetching.done()
        self._leapt = True
        if slot <= self.machine.applied:
            return
        assert machine.applied == slot
        self.machine = machine
        self._postponed = [entry for entry in self._postponed if entry.slot > slot]
        self._cutting.restart(slot)
        self._auditing.restart()
        self.paxos.installed(slot, configuration, chain, promised)
        self.paxos.reigned(Ballot(*machine.ballot_in_force))
        self._members.exchanged(machine)
        self._catch_up_clients()

    # --- for people -----------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What `dthreading status` shows of this replica, besides what only the shell knows."""
        return queries.status(self.paxos, self.machine, self._hosting, self._cutting.slot)

    def _answer(self, connection: int, query: wire.Query) -> None:
        if self._members.is_question(query.question):
            self._members.asked(connection, query, self._now_ms, self._output)
            return
        if query.question == "delete":
            self._submit(self._deletions.ask(connection, query), connection)
            return
        about = wire.Answer(query.number, self.status()) if query.question == "status" else None
        self._output.to_clients.append((connection, about or queries.answer(self.machine, query)))
