# SPDX-License-Identifier: Apache-2.0
"""A replica of a group whose members change: it may come late, move, be taken out, and meets others as links are made.

Its id is the log's to give, so here a replica and the machine that it runs on have numbers of their own. Whom it has
links with it says itself; whom it listens to is settled when a connection is made, by `Entrance.refusal`, as in the
daemon. Both ends of an introduction are read from the two programs at the moment at which its first message arrives.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from dthreading.wire import messages as wire
from replicas.daemon.entrance import Entrance
from replicas.daemon.peers import Introduction
from replicas.replica.acquaintance import LATER, REMOVED, Objection
from replicas.replica.admission import Admission
from replicas.replica.core import Replica
from replicas.replica.formation import Census
from replicas.replica.messages import Learning
from tests.sim.checkers.watched import WatchedProgram
from tests.sim.forming import Forming
from tests.sim.group import ConnectionEnded, ToClient
from tests.sim.host import Gone
from tests.sim.petitions import Asking, Petition, Questions, node_of

if TYPE_CHECKING:
    from replicas.paxos.types import Configuration
    from replicas.replica.output import ReplicaOutput
    from replicas.storage import Storage
    from tests.sim.checkers.members import MembersWatch
    from tests.sim.disk import SimulatedDisk
    from tests.sim.kernel import Kernel

__all__ = ["Join", "MovingProgram", "Objected"]

KNOCK_US = 2_000_000
"""So long after the last message on a link it is made sure that the link is there."""
DIAL_MS = (50, 1_000)
"""The pauses of a link that is refused, as `daemon/peers.py` has them."""


class Objected(NamedTuple):
    """Whoever dialed is not listened to."""

    code: str
    reason: str
    to: int
    life: int


class Knock(NamedTuple):
    """A link is dialed that has nothing to carry yet, or has had nothing for long."""

    to: int


class Join(NamedTuple):
    """How a machine was started that was not there when the group was formed."""

    servers: tuple[str, ...]
    replaces: str = ""


class Neighbourhood(NamedTuple):
    """What one machine needs of the world around it."""

    kernel: Kernel
    programs: dict[int, MovingProgram]
    redial: Callable[[int, int], None]
    """A new connection from one node to another takes the place of the present one."""


class MovingProgram(WatchedProgram):
    """See above. `replica` is its id, and 0 while it has none.

    Args:
        watch: judges.
        node: its machine.
        configuration: the one that the group was formed with.
        join: how it was started, unless it took part in that.

    """

    def __init__(
        self,
        watch: MembersWatch,
        node: int,
        configuration: Configuration,
        luck: random.Random,
        *,
        around: Neighbourhood,
        join: Join | None = None,
        **named: Any,
    ) -> None:
        replica = node if join is None else 0
        self._around = around
        super().__init__(watch, replica or configuration.ids[0], configuration, luck, **named)
        self.node = node
        self.address = f"r{node}"
        self.replica = replica
        self.join = join
        self.life = 0
        self.links: dict[int, str] = {}
        """Whom it dials, as it has said last."""
        self.became: Callable[[Any], None] = lambda core: None
        """Tells the host that its process has come to be another thing."""
        self.now_ms: Callable[[], int] = lambda: 0
        self.petition: Petition | None = None
        self.learning: dict[int, tuple[Learning, int, int]] = {}
        """What newcomers have told this process, when, and how much was chosen by then."""
        self.former: set[int] = set()
        """Ids of replicas that were here, and whose data is gone."""
        self._members_watch = watch
        self._admission: Admission | None = None
        self._questions = Questions(around.kernel.fresh, lambda to, message: self._to_send.append((to, message)))
        self._shared = False
        self._spoke_us: dict[int, int] = {}
        self._came: dict[int, tuple[int, int]] = {}
        self._held: dict[int, tuple[int, int]] = {}  # replica -> (until, pause) of a link that was refused

    @property
    def incarnation(self) -> bytes:
        """Of its directory; b"" while it has none."""
        identity = self._storage.identity if self._storage is not None else None
        return identity.incarnation if identity is not None else b""

    @property
    def spoilt(self) -> bool:
        """See GroupProgram."""
        return self.spoilt_us >= 0

    @spoilt.setter
    def spoilt(self, value: bool) -> None:
        self.spoilt_us = self._around.kernel.now_us if value else -1

    def move_in(self, disk: SimulatedDisk, join: Join) -> None:
        """It will be started on an empty directory, with nothing of what it was."""
        self.disk = disk
        self.join = join

    # --- beginning

    def boot(self, now_ms: int) -> Any:
        self.life += 1
        self.links, self._came, self._held, self.learning = {}, {}, {}, {}
        self._shared = False
        self._spoke_us = {}
        self._questions._connection = 0
        self.petition = self._admission = None
        core = super().boot(now_ms)
        if isinstance(core, Forming):
            self._link({member.id: member.address for member in self._configuration.members if member.id != self.node})
        return core

    def _set_up(self, storage: Storage) -> None:
        if self.join is None:
            super()._set_up(storage)
        elif storage.identity is None:
            storage.format(b"directory %d" % self._around.kernel.fresh())

    def _beginning(self, storage: Storage, now_ms: int) -> Any:
        if self.join is None:
            return super()._beginning(storage, now_ms)
        self._formation = None
        assert storage.identity is not None
        known = storage.identity.formation
        self._admission = Admission.decode(known) if known is not None else None
        if self._admission is None and self.replica:
            # Its disk is empty, and a supervisor starts it as before: it is somebody else now.
            self.former.add(self.replica)
            self.replica, self.spoilt = 0, False
        question = (self.address, storage.identity.incarnation, self.join.replaces, self.replica)
        self.petition = Petition(self._questions, self.join.servers, question, now_ms)
        if self._admission is None:
            return Asking(self.petition, now_ms)
        self.replica = self._admission.replica
        return self._member(storage, self._admission, now_ms)

    def watch_over(self, core: Replica) -> None:
        super().watch_over(core)
        self._members_watch.members.overhear(self, core)

    def _admitted(self, admission: Admission) -> None:
        """As `Entrance.admitted`."""
        self._members_watch.members.admitted(admission.seeds)
        core = self.core
        if isinstance(core, Replica):
            for replica, address in admission.seeds:
                if replica != self.replica:
                    core.acquaintance.met(replica, address, core.machine)
            return
        assert self._storage is not None
        self._storage.form(admission.encode())
        self._seen["members: a newcomer was admitted"] += 1
        self._admission, self.replica = admission, admission.replica
        self.core = core = self._member(self._storage, admission, self.now_ms())
        self.watch_over(core)
        self.became(core)

    # --- links

    def _link(self, links: dict[int, str]) -> None:
        former = {*self.links.values()}
        for replica, address in links.items():
            if self.links.get(replica) != address and address in former:
                self._around.redial(self.node, node_of(address))
        self.links = links
        self._shared = len(set(links.values())) < len(links)
        self._came = {replica: known for replica, known in self._came.items() if replica in links}

    def _node_of(self, replica: int) -> int:
        address = self.links.get(replica)
        return node_of(address) if address is not None else 0

    def _routed(self, messages: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
        now_us = self._around.kernel.now_us
        routed = []
        for replica, message in messages:
            node = self._node_of(replica)
            if self._shared and self._is_another(node, replica):
                continue
            if node and self._held.get(replica, (0, 0))[0] <= now_us:
                self._spoke_us[replica] = now_us
                routed.append((node, message))
        return routed

    def _knock(self) -> None:
        now_us = self._around.kernel.now_us
        for replica in self.links:
            if self._spoke_us.get(replica, -KNOCK_US) + KNOCK_US <= now_us:
                self._spoke_us[replica] = now_us
                self._to_send.append((self._node_of(replica), Knock(replica)))

    def _is_another(self, node: int, replica: int) -> bool:
        """Two are linked at one address, of which one is gone: the dialer that means it is refused there."""
        there = self._around.programs.get(node)
        return there is not None and there.replica != replica and self.links.get(there.replica) == there.address

    def introduction(self, to: int) -> Introduction:
        """As `Entrance.introduction`."""
        core = self.core
        cluster = core.paxos.configuration.cluster if isinstance(core, Replica) else ""
        return Introduction(cluster, self.replica, self.incarnation, to, self.address)

    def _introduced(self, source: int) -> int:
        """The id of whoever speaks from that node; 0 when it is not listened to."""
        sender = self._around.programs[source]
        to = self.replica
        if sender.links.get(to) != self.address:
            to = next((replica for replica, address in sender.links.items() if address == self.address), 0)
        known = (sender.life, to)
        if sender.replica and self._came.get(sender.replica) == known:
            return sender.replica
        if not to or sender.core is None:
            return 0  # it has hung up since
        introduction = sender.introduction(to)
        objection = Entrance.refusal(_Door(self), introduction)  # type: ignore[arg-type]
        if objection is None:
            if introduction.cluster:  # else it only asks who is empty, and nothing else is taken from it
                self._members_watch.members.listens(self.replica, introduction.replica, introduction.incarnation)
            self._came[introduction.replica] = known
            return introduction.replica
        if objection.code == REMOVED:
            assert isinstance(self.core, Replica), "only who is in the group knows who was removed"
            chosen = self.core.paxos.chosen
            self._members_watch.members.tells_it_that_it_was_removed(self.replica, introduction.replica, chosen)
        self._seen[f"members: objected, {objection.code}"] += 1
        self._to_send.append((source, Objected(objection.code, objection.reason, to, sender.life)))
        return 0

    def _objected(self, objected: Objected) -> None:
        if objected.life != self.life or objected.to not in self.links:
            return
        if objected.code == REMOVED and isinstance(self.core, Replica):
            self._seen["members: a removed replica was told"] += 1
            raise Gone(objected.reason)
        pause_ms = min(2 * self._held.get(objected.to, (0, DIAL_MS[0] // 2))[1], DIAL_MS[1])
        pause_ms = pause_ms if objected.code == LATER else DIAL_MS[1]
        self._held[objected.to] = (self._around.kernel.now_us + pause_ms * 1_000, pause_ms)

    # --- messages

    def arrived(self, source: int, message: Any) -> bool:
        if self._questions.owns(message):
            assert self.petition is not None
            admission = self.petition.heard(message, self.now_ms())
            if admission is not None:
                self._admitted(admission)
            return True
        match message:
            case ToClient():
                self._to_send.append((source, ConnectionEnded(message.connection)))
            case Objected():
                self._objected(message)
            case _ if source not in self._around.programs or type(message) is ConnectionEnded:
                return super().arrived(source, message)
            case _ if hasattr(message, "connection"):
                return super().arrived(source, message)  # another machine's question
            case _:
                self._from_peer(source, message)
        return True

    def _from_peer(self, source: int, message: Any) -> None:
        replica = self._introduced(source)
        if not replica:
            return
        core = self.core
        if isinstance(message, Learning) and isinstance(core, Replica):
            self.learning[replica] = (message, self.now_ms(), core.paxos.chosen)
        if isinstance(message, Census):
            if self._formation is not None:
                self._answer(core, replica, message)  # type: ignore[arg-type]
        elif isinstance(core, Replica) and type(message) is not Knock:
            core.peer_said(replica, message)

    def _answer(self, core: Any, source: int, census: Census) -> None:
        if isinstance(core, Forming):
            core.peer_said(source, census)
            return
        assert self._formation is not None
        self._formation.step(source, census)
        self._to_send += self._routed(self._formation.take().send)

    def _greet(self, core: Replica, connection: int, known: Any) -> None:
        super()._greet(core, connection, known)
        self._say(connection, known, wire.Servers(core.servers))

    def handle(self, output: ReplicaOutput) -> None:
        if output.links is not None:
            self._link(output.links)
        output.send_now[:] = self._routed(output.send_now)
        output.send_after_sync[:] = self._routed(output.send_after_sync)
        if self.petition is not None and isinstance(self.core, Replica):
            self.petition.tick(self.now_ms())
        self._knock()
        super().handle(output)


class _Door:
    """What `Entrance.refusal` looks at."""

    def __init__(self, program: MovingProgram) -> None:
        self.core = program.core if isinstance(program.core, Replica) else None
        self.replica = program.replica
        self._formation = program._formation

    def _judged(self, core: Replica, introduction: Introduction) -> Objection | None:
        return Entrance._judged(self, core, introduction)  # type: ignore[arg-type]

    def _wake(self) -> None:
        """The turn follows by itself."""
