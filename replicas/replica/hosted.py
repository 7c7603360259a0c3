# SPDX-License-Identifier: Apache-2.0
"""A replica's words to the clients that are connected to it: what apply brought about for them, and for nobody else.

The layer below core.py: it knows connections, the state and who is a member, and neither time nor what others say.
"""

from __future__ import annotations

from collections.abc import Sequence

from dthreading.wire import messages as wire
from dthreading.wire.limits import LABEL_BYTES_MAX, NAME_BYTES_MAX, OP_BYTES_MAX
from dthreading.wire.messages import ToClient
from replicas.machine.core import Effects, Machine
from replicas.paxos.core import Paxos
from replicas.replica import queries
from replicas.replica.hosting import Hosting
from replicas.replica.output import ReplicaOutput

__all__ = ["Hosted"]


class Hosted:
    """The clients' side of a replica."""

    def __init__(self, paxos: Paxos, machine: Machine) -> None:
        self.paxos = paxos
        self.machine = machine
        self._hosting = Hosting()
        self._output = ReplicaOutput()
        self._deletions = queries.Deletions()
        self._aside = False  # it serves nobody any more

    @property
    def leader_address(self) -> str:
        """Where the leader listens; "" when nobody is known to lead."""
        for member in self.paxos.configuration.members:
            if member.id == self.paxos.leader:
                return member.address
        return ""

    @property
    def servers(self) -> tuple[str, ...]:
        """Where the members listen: what clients are to know."""
        return tuple(member.address for member in self.paxos.configuration.members)

    def _spread(self, effects: Effects, connection: int | None) -> None:
        """Tells this replica's clients what apply did; `connection` is where the command came from, if from here."""
        for session, nonce in effects.opened:
            opener = self._hosting.judged(nonce)
            if opener is not None:
                self._speaks_for(opener, session)
        for nonce, rejection in effects.rejected:
            self._turn_away(self._hosting.judged(nonce), rejection)
        self._output.faults += effects.faults
        self._output.to_clients += self._deletions.applied(effects)
        if connection is not None:
            for session, _ in effects.refused:
                reason = f"session {session} is another client's: its nonce is not the one that was sent"
                self._turn_away(connection, wire.Rejected("wrong_group", reason))
            for session in effects.resumed:
                self._speaks_for(connection, session)
        self._reply(effects.replies, connection)
        for session in effects.ended:
            self._hosting.ended(session)

    def _speaks_for(self, connection: int, session: int) -> None:
        """A session has one mouth: its client's newest connection, whether opened again there or resumed."""
        former = self._hosting.bind(connection, session)
        if former is not None:
            self._hang_up(former, "its session has come back on another connection")

    def _reply(self, replies: Sequence[tuple[int, ToClient]], connection: int | None) -> None:
        for session, message in replies:
            if connection is not None and type(message) is wire.Ended:
                self._output.to_clients.append((connection, message))
            else:
                self._tell(session, message)

    def _catch_up_clients(self) -> None:
        """The state has leapt forward. Answers that fell into the gap were never sent from here: each is sent (again);
        clients ignore what they know.
        """
        for session in self._hosting.sessions:
            if session not in self.machine.sessions:
                self._tell(session, wire.Ended(session))
                self._hosting.ended(session)
                continue
            for reply in self.machine.answers(session):
                self._tell(session, reply)

    def _refuse(self, connection: int, message: wire.Call | wire.Attach | wire.Open, code: str) -> None:
        """What apply would refuse on every replica need not be decided; the number stays unused, which is allowed."""
        if isinstance(message, wire.Attach):
            self._hang_up(connection, f"a name, namespace or argument above {NAME_BYTES_MAX} bytes (NAME_BYTES_MAX)")
            return
        if isinstance(message, wire.Open):
            reason = f"a namespace above {NAME_BYTES_MAX} bytes (NAME_BYTES_MAX), or a label above {LABEL_BYTES_MAX}"
            self._turn_away(connection, wire.Rejected(code, f"{reason} (LABEL_BYTES_MAX)"))
            return
        operation = message.operation[:OP_BYTES_MAX]
        reason = f"{operation}() with {len(message.arguments)} arguments is nothing that objects do"
        reply = wire.Reply(message.lane, message.number, wire.Status.ERROR, (code, reason, ()))
        self._output.to_clients.append((connection, reply))

    def _tell(self, session: int, message: ToClient) -> None:
        connection = self._hosting.connection(session)
        if connection is not None:
            self._output.to_clients.append((connection, message))

    def _tell_all(self, message: ToClient) -> None:
        self._output.to_clients += [(connection, message) for connection in self._hosting.connections]

    def _stand_aside(self) -> None:
        """What this replica would answer is not to be believed: all its clients go to another one, and so does the
        leadership.
        """
        if not self._aside:
            self._aside = True
            self._tell_all(wire.MoveOn("this replica is in doubt about its own state"))
            for connection in tuple(self._hosting.connections):
                self._hang_up(connection, "")
            self.paxos.hand_over()

    def _turn_away(self, connection: int | None, rejection: wire.Rejected) -> None:
        if connection is not None:
            self._output.to_clients.append((connection, rejection))
            self._hang_up(connection, rejection.reason)

    def _hang_up(self, connection: int, reason: str) -> None:
        self._output.hang_up.append((connection, reason))
        self._hosting.gone(connection)
