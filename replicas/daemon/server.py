# SPDX-License-Identifier: Apache-2.0
"""The daemon's loop: all I/O of a replica and none of its decisions. The only clock and the only source of luck here.

One turn of the loop: what the sockets gave is stepped into the sans-IO core as it comes; then, once, `take`: what may
leave at once leaves in one write for each connection, what must be durable goes to the disk in one sync, and what
depends on that leaves after it. A disk is waited for by nobody but the messages that depend on it.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any, Final

from dthreading.errors import ProtocolError
from dthreading.wire.messages import Answer, MoveOn, Query, ToReplica, Welcome
from replicas.daemon import sight
from replicas.daemon.address import Address, BadOptions
from replicas.daemon.clients import Clients
from replicas.daemon.connections import Connection, Outgoing
from replicas.daemon.entrance import Entrance
from replicas.daemon.exits import ExitCode
from replicas.daemon.journal import Muffler, log
from replicas.daemon.logwriter import LogWriter
from replicas.daemon.peers import Peers, dialable
from replicas.daemon.snapshotting import SnapshotKeeper
from replicas.paxos.types import Role
from replicas.replica.admission import Admission
from replicas.replica.formation import Census
from replicas.storage import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicas.daemon.loop import Loop
    from replicas.daemon.options import Options
    from replicas.machine.core import Machine
    from replicas.replica.core import Replica
    from replicas.replica.formation import Formation
    from replicas.replica.messages import PeerMessage, SnapshotPart
    from replicas.replica.output import ReplicaOutput
    from replicas.storage import MemoryStorage, SnapshotHeader, Storage

__all__ = ["Daemon", "now_ms"]

TAKES_MAX: Final = 16
"""How often one turn asks the core for more. A sync made in the loop brings more, and a turn ends for the sockets."""

PAUSE_S: Final = 0.001
"""Before a turn that only the core wishes for: it is in the middle of a snapshot, or its window is full."""

ADDRESS_AT: Final = {"members.add": 0, "members.join": 0, "members.replace": 1}
"""Which argument of these questions is an address. It comes into the log, where nobody can refuse it any more."""

HAND_OVER_S: Final = 3.0
"""How long a stopping leader waits for a successor. Without one, the others find out by their election timeout."""

HAND_OVER_LOOK_S: Final = 0.005
"""How often it looks whether there is one."""


def now_ms() -> int:
    """The clock of everything here: monotonic, so no step of the wall clock removes a healthy replica or client."""
    return time.monotonic_ns() // 1_000_000


class Daemon(Entrance):
    """One replica between its sockets, its disk and its clock.

    Args:
        options: the operator's choices, with the address that is really listened on.
        storage: open and formatted.
        secret: what guards TCP; None when nothing listens there.
        connections_max: what the descriptors allow.
        formation, admission, make_core, ready, ended: see `Entrance`.

    """

    def __init__(
        self,
        options: Options,
        storage: Storage | MemoryStorage,
        secret: bytes | None,
        *,
        connections_max: int,
        formation: Formation | None,
        admission: Admission | None,
        make_core: Callable[[Admission], Replica],
        ready: Callable[[], None],
        ended: Callable[[ExitCode, str], None],
        loop: Loop,
    ) -> None:
        super().__init__(
            options,
            storage,
            formation=formation,
            admission=admission,
            make_core=make_core,
            ready=ready,
            ended=ended,
            loop=loop,
        )
        self._chance = random.SystemRandom().random
        self._outgoing = Outgoing(loop.soon)
        muffler = Muffler()
        self.clients = Clients(self, self._outgoing, secret, muffler, connections_max)
        self.peers = Peers(self, self._outgoing, muffler, loop, lambda address: None if address.path else secret)
        self.log = LogWriter(None if options.memory else storage, loop, self._synced, self.disk_failed)
        self.snapshots = SnapshotKeeper(storage, loop, self)
        self._turn_due = False
        self._in_turn = False
        self._timer: asyncio.Handle | None = None
        self._timer_due_s = 0.0
        self._sweeper: asyncio.TimerHandle | None = None

    # --- what the sockets bring (Host of clients.py and peers.py)

    def now_s(self) -> float:
        return time.monotonic()

    def luck(self) -> float:
        return self._chance()

    def came(self) -> None:
        """A stranger has connected: somebody must look whether he ever says who he is."""
        if self._sweeper is None:
            self._sweep()

    def welcome(self) -> Welcome:
        core = self.core
        if core is None:
            return Welcome("", self.replica, "", tuple(map(str, self.options.cluster)))
        return Welcome(core.paxos.configuration.cluster, self.replica, core.leader_address, core.servers)

    def client_said(self, connection: int, message: ToReplica, body: bytes) -> None:
        core = self.core
        if core is None:
            self.clients.send(connection, MoveOn("this replica is in no group yet"))
            self.clients.hang_up(connection, "")
            return
        self._wake()
        core.client_said(connection, message, body)

    def client_gone(self, connection: int) -> None:
        if self.core is not None and not self._failed:
            self._wake()
            self.core.client_gone(connection)

    def asked(self, connection: int, query: Query, body: bytes) -> None:
        if query.question == "status":
            self.clients.send(connection, Answer(query.number, self.status()))
        elif self.core is None and query.question.startswith("members."):
            answer = {"done": False, "say": f"{self.options.listen} is in no group yet", "elsewhere": True}
            self.clients.send(connection, Answer(query.number, answer))
        elif self.core is None:
            raise ProtocolError("this replica is in no group yet")
        elif flaw := _flaw_of_address(query):
            self.clients.send(connection, Answer(query.number, {"done": False, "refused": True, "say": flaw}))
        else:
            try:
                self.client_said(connection, query, body)
            except TypeError:
                raise ProtocolError(f"{query.question!r} was asked with arguments that it does not take") from None

    def replica_came(self, connection: Connection) -> None:
        self.peers.came(connection)

    def peer_said(self, source: int, message: PeerMessage) -> None:
        if isinstance(message, Census):
            if self.joining is not None:
                self.joining.said(source, message)
        elif self.core is not None:
            self._wake()
            self.core.peer_said(source, message)

    # --- the turn

    def _wake(self) -> None:
        """Something is about to be stepped in: time goes first, and a turn follows when the sockets are drained."""
        if self._turn_due:
            return
        self._turn_due = True
        assert self.core is not None
        self.core.tick(now_ms())
        self._loop.soon(self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        core = self.core
        if self._failed or core is None:
            return
        is_due = core.due
        if is_due or self.log.due:
            self._in_turn = self._outgoing.held = True
            for _ in range(TAKES_MAX):
                output = core.take()
                if output.verdict:
                    self.diverged(output.verdict)
                    break
                self._send(core, output)
                if output.batch or output.send_after_sync:
                    self.log.add(output.batch, output.persist, output.send_after_sync)
                written = self.log.due and self.log.go()
                if self._failed:
                    break
                self._outgoing.flush()  # others wait for what is on the disk now
                caught_up = core.catch_up()
                is_due = core.due
                if not (is_due and (written or caught_up)):
                    break
            else:
                self._loop.call_soon(self._turn)
            self._in_turn = self._outgoing.held = False
            self._outgoing.flush()
        # Else nothing has come of it: half of the acknowledgements that a leader hears are not needed any more.
        self._plan_next(core.wake_ms / 1000, wants_turn=is_due and core.wants_turn)

    def _send(self, core: Replica, output: ReplicaOutput) -> None:
        send = self.peers.send
        for replica, message in output.send_now:
            send(replica, message)
        for connection, reply in output.to_clients:
            self.clients.send(connection, reply)
        for connection, reason in output.hang_up:
            self.clients.hang_up(connection, reason)
        for fault in output.faults:
            log.error("an object of ours broke and is quarantined", exc_info=fault)
        for work in output.snapshot:
            self.snapshots.do(work, core.machine.digest)
        for notice in output.notices:
            log.info("%s", notice)
        if output.links is not None:
            self.peers.link(dialable(output.links))
        if self._ready is not None and core.paxos.role != Role.LEARNER:
            self._say_ready()
        # Before the disk: a leader's Accepts travel while it writes, and no heartbeat waits for a sync.
        self._outgoing.flush()

    def _synced(self, batch: int, messages: list[tuple[int, PeerMessage]]) -> None:
        assert self.core is not None
        if self._failed:
            return
        if batch:
            self.core.synced(batch)
            if self.storage.segment_due:
                self.snapshots.prepare()
        for replica, message in messages:
            self.peers.send(replica, message)
        if not self._in_turn:
            # The thread has finished: what waited for it goes now, and what came meanwhile goes to the disk.
            self._turn()

    def _plan_next(self, due_s: float, *, wants_turn: bool) -> None:
        if wants_turn:
            due_s = min(due_s, self._loop.time() + PAUSE_S)
        if self._timer is not None:
            if self._timer_due_s <= due_s:
                return  # It looks again when it fires; moving it at each heartbeat would cost more.
            self._timer.cancel()
        self._timer_due_s = due_s
        self._timer = self._loop.call_at(due_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if self._failed or self.core is None:
            return
        if not self._turn_due:
            # Nothing came with it, so there is nothing to wait for: the turn is now.
            self.core.tick(now_ms())
            self._turn()

    def _sweep(self) -> None:
        due_s = self.clients.sweep()
        self._sweeper = None if due_s is None else self._loop.call_at(due_s + 0.1, self._sweep)

    # --- what the disk brings (Host of snapshotting.py)

    def snapshot_saved(self, slot: int, chain: int) -> None:
        if self.core is not None and not self._failed:
            self._wake()
            self.core.snapshot_saved(slot, chain)

    def snapshot_installed(self, header: SnapshotHeader, machine: Machine) -> None:
        if self.core is not None and not self._failed:
            self._wake()
            self.core.snapshot_installed(header.slot, header.configuration, header.chain, header.promised, machine)

    def snapshot_part(self, replica: int, part: SnapshotPart) -> None:
        if not self._failed:
            self.peers.send(replica, part)

    def disk_failed(self, error: StorageFailed) -> None:
        if not self._failed:
            self.stop_dead()
            self._end(ExitCode.DISK_FAILED, f"the disk has failed, and this replica stops: {error}")

    # --- from start to end

    async def hand_over(self) -> None:
        """Let another replica lead, and all that was accepted reach the disk; not longer than `HAND_OVER_S`."""
        core = self.core
        if core is None or self._failed:
            return
        led = core.paxos.role == Role.LEADER
        self._wake()
        core.hand_over()
        deadline_s = self._loop.time() + HAND_OVER_S
        while self._loop.time() < deadline_s:
            if self.log.broken or (self.log.idle and not (led and self._awaits_successor(core))):
                return
            await asyncio.sleep(HAND_OVER_LOOK_S)

    def _awaits_successor(self, core: Replica) -> bool:
        """Whether our vote may still be needed: nobody else leads yet, and those who could are there."""
        there = 1 + len(self.peers.linked)
        return core.paxos.leader in {None, core.paxos.replica} and there >= core.paxos.configuration.quorum > 1

    def close(self) -> None:
        """End all connections and threads. What the disk was given is there, or was promised to nobody."""
        self.stop_dead()
        for asking in (self.joining, self.petition):
            if asking is not None:
                asking.stop()
        for timer in (self._timer, self._sweeper):
            if timer is not None:
                timer.cancel()
        self.clients.close()
        self.peers.close()
        self.snapshots.close()
        self.log.close()

    def stop_dead(self) -> None:
        """Nothing leaves from here on: what this replica would say might not be true."""
        self._failed = True

    @property
    def deserted(self) -> bool:
        """Whether nobody is connected, no session lives and no object is out of its initial state."""
        if self.core is None or len(self.clients) or not self.log.idle:
            return False
        machine = self.core.machine
        return not machine.sessions and not machine.registry.objects

    # --- for people

    def status(self) -> dict[str, Any]:
        """What `dthreading status` shows of this replica."""
        return sight.status(self.options, self.storage, self.core, self.peers.linked)


def _flaw_of_address(query: Query) -> str:
    """What is wrong with the address that it names, if it names one."""
    at = ADDRESS_AT.get(query.question, len(query.arguments))
    text = query.arguments[at] if at < len(query.arguments) else None
    if isinstance(text, str):
        try:
            Address.parse(text)
        except BadOptions as error:
            return str(error)
    return ""
