# SPDX-License-Identifier: Apache-2.0
"""How a replica comes into its group, and whom it lets in: the daemon's part between strangers and the running core.

It begins in one of three ways: it forms a group with others, it asks to be let into one that runs, or its directory
knows already what it is. The layer below server.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from replicas.daemon.clients import Clients
from replicas.daemon.exits import ExitCode
from replicas.daemon.joining import Joining
from replicas.daemon.journal import log
from replicas.daemon.peers import Introduction, Peers
from replicas.daemon.petition import Petition
from replicas.replica.acquaintance import GIVEN_UP, LATER, Objection, given_up
from replicas.replica.admission import Admission
from replicas.replica.formation import Phase
from replicas.replica.marks import Mark
from replicas.storage import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicas.daemon.loop import Loop
    from replicas.daemon.options import Options
    from replicas.paxos.types import Configuration
    from replicas.replica.core import Replica
    from replicas.replica.formation import Formation
    from replicas.replica.messages import PeerMessage
    from replicas.storage import MemoryStorage, Storage

__all__ = ["Entrance"]


class Entrance(ABC):
    """See above. (Host of peers.py, joining.py and petition.py.)

    Args:
        options: the operator's choices, with the address that is really listened on.
        storage: open and formatted.
        formation: this replica's part in forming the group; None when it came later.
        admission: what it was told when it came later; None as long as it has to ask.
        make_core: called once the group is formed, or once it is admitted.
        ready: called once, when clients may come: at once, or when a newcomer has become a member.
        ended: called when this replica cannot go on, with the exit code and the sentence to say.

    """

    clients: Clients
    peers: Peers

    def __init__(
        self,
        options: Options,
        storage: Storage | MemoryStorage,
        *,
        formation: Formation | None,
        admission: Admission | None,
        make_core: Callable[[Admission], Replica],
        ready: Callable[[], None],
        ended: Callable[[ExitCode, str], None],
        loop: Loop,
    ) -> None:
        self.core: Replica | None = None
        """None until this replica is in a group."""
        self.options = options
        self.storage = storage
        self._loop = loop
        self._formation = formation
        self._admission = admission
        self._make_core = make_core
        self._ready: Callable[[], None] | None = ready
        self._end = ended
        # Invariant: once this is set, nothing is stepped, sent or written any more.
        self._failed = False
        self.joining: Joining | None = None
        self.petition: Petition | None = None

    @abstractmethod
    def _wake(self) -> None:
        """Something is about to be stepped into the core."""

    @abstractmethod
    def stop_dead(self) -> None:
        """Nothing leaves from here on."""

    @abstractmethod
    def disk_failed(self, error: StorageFailed) -> None:
        """The process ends."""

    @abstractmethod
    def peer_said(self, source: int, message: PeerMessage) -> None:
        """Another replica said something."""

    @abstractmethod
    def luck(self) -> float:
        """A number in [0, 1)."""

    # --- the beginning

    def start(self) -> None:
        """Dial the others and begin."""
        if self._formation is not None:
            self.joining = Joining(self._formation, self.storage, self.peers, self._loop, self)
            if self._formation.phase is not Phase.FORMED:
                # Once it is formed, the core says with whom to be linked.
                others = dict(enumerate(self.options.cluster, 1))
                others.pop(self.replica, None)
                self.peers.link(others)
            self.joining.start(int(self._loop.time() * 1000))
            self._say_ready()
        elif self._admission is not None:
            self.admitted(self._admission)
        if self.options.join:
            self.petition = self._make_petition()
            self.petition.start()

    def _say_ready(self) -> None:
        if self._ready is not None:
            ready, self._ready = self._ready, None
            ready()

    def _make_petition(self) -> Petition:
        identity, known, formation = self.storage.identity, self._admission, self._formation
        assert identity is not None
        replica, cluster = 0, ""
        if known is not None:
            replica, cluster = known.replica, known.genesis.cluster
        elif formation is not None:
            replica, cluster = formation.replica, formation.configuration.cluster
        return Petition(
            self.options,
            identity.incarnation,
            replica,
            cluster,
            secret=self.peers.secret,
            outgoing=self.peers.outgoing,
            loop=self._loop,
            host=self,
        )

    # --- what forming the group, or asking to be let in, brings

    def formed(self, configuration: Configuration) -> None:
        self.core = self._make_core(Admission(self.replica, configuration, ()))
        self.peers.introduce_again()
        self._wake()

    def refused(self, sentence: str) -> None:
        self.stop_dead()
        self._end(ExitCode.DATA_GONE, sentence)

    def admitted(self, admission: Admission) -> None:
        if self.core is not None:
            # It was here before; what is new to it is where the others are now.
            for replica, address in admission.seeds:
                if replica != self.replica:
                    self.core.acquaintance.met(replica, address, self.core.machine)
            self._wake()
            return
        if self._admission is None:
            try:
                self.storage.form(admission.encode())
            except StorageFailed as error:
                self.disk_failed(error)
                return
            log.info("admitted to the group %s as replica %d", admission.genesis.cluster, admission.replica)
            self._admission = admission
        self.core = self._make_core(self._admission)
        self._wake()

    def unwelcome(self, code: ExitCode, sentence: str) -> None:
        self._end(code, sentence)

    # --- whom it listens to

    @property
    def replica(self) -> int:
        """The id of this one; 0 as long as it has none."""
        if self._formation is not None:
            return self._formation.replica
        return 0 if self._admission is None else self._admission.replica

    def introduction(self, to: int) -> Introduction:
        cluster = self.core.paxos.configuration.cluster if self.core is not None else ""
        assert self.storage.identity is not None
        return Introduction(cluster, self.replica, self.storage.identity.incarnation, to, str(self.options.listen))

    def refusal(self, introduction: Introduction) -> Objection | None:
        source, own = introduction.replica, self.replica
        if not own:
            return Objection(LATER, "this replica is being admitted")
        group = self.core.paxos.configuration.cluster if self.core is not None else ""
        if group and introduction.cluster and (sentence := given_up(source, introduction.cluster, group)):
            return Objection(GIVEN_UP, sentence)
        if group and introduction.cluster not in {"", group}:
            reason = f"replica {source} belongs to the group {introduction.cluster}, this one to {group}"
        elif introduction.to != own:
            reason = f"replica {source} means to reach replica {introduction.to}, and this is replica {own}"
        elif source == own:
            reason = f"it calls itself replica {own}, as this one does"
        elif self._formation is None and not (group and introduction.cluster):
            reason = f"replica {source if group else own} is in no group"
        elif self.core is None or not introduction.cluster:
            return None
        else:
            return self._judged(self.core, introduction)
        return Objection("wrong_group", reason)

    def _judged(self, core: Replica, introduction: Introduction) -> Objection | None:
        objection = core.acquaintance.objection(introduction.replica, introduction.incarnation, core.machine)
        if objection is None:
            core.acquaintance.met(introduction.replica, introduction.address, core.machine)
            self._wake()
        return objection

    def removed(self, sentence: str) -> None:
        """Another member says that this replica is one no more."""
        if self.core is not None and not self._failed:
            self.clients.move_on("this replica was removed from the group")
            self._end(ExitCode.REMOVED, sentence)

    def given_up(self, sentence: str) -> None:
        """At a member's address there is a group that was made of this one. If this one has a leader all the same, it
        lives, and somebody has made a mistake; but a replica that is alone with its memories ends.
        """
        if self.core is not None and self.core.paxos.leader is None:
            self.removed(sentence)

    def diverged(self, sentence: str) -> None:
        """The majority has another state than this replica, so nothing that it says can be believed."""
        log.error("%s", sentence)
        self.clients.move_on("this replica is stopping")
        self.stop_dead()
        known = self.storage.identity
        assert known is not None
        assert known.formation is not None
        try:
            self.storage.form(Mark(sentence, known.formation).encode())
        except StorageFailed as error:
            log.error("and its directory cannot be marked: %s", error)
        self._end(ExitCode.DIVERGED, sentence)

    def link_up(self, replica: int) -> None:
        if self.joining is not None:
            self.joining.link_up()
        if self.core is not None:
            self._wake()
            self.core.peer_linked(replica)
