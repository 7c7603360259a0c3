# SPDX-License-Identifier: Apache-2.0
"""One replica's part in the changing of members, whatever it is at the moment: leader, follower or newcomer.

A leader answers operators and makes newcomers members; a follower carries questions to the leader and answers back; a
newcomer tells everybody how far it is. All of them keep track of who is who.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dthreading.errors import ProtocolError
from dthreading.wire import messages as wire
from dthreading.wire.limits import FRAME_BYTES_MAX
from replicas.machine.core import Machine
from replicas.paxos.core import Paxos
from replicas.paxos.types import Configuration, Entry, EntryKind, Role
from replicas.replica.acquaintance import Acquaintance
from replicas.replica.changing import Changing, Pupil
from replicas.replica.messages import Ask, Learning, Told, codec
from replicas.replica.output import ReplicaOutput
from replicas.replica.requests import PREFIX, Requests, refuse, wait

__all__ = ["Membership"]

REPORT_MS: Final = 100
"""How often a newcomer says how far it is."""

SAY_MS: Final = 2000
"""How often a newcomer's log says it."""

ASKED_MAX: Final = 1000
"""Questions that were passed on and have no answer yet; the oldest are forgotten, and their askers ask again."""


class Membership:
    """See above.

    Args:
        genesis: the configuration that the group was formed with.
        seeds: (id, address) of members, as a newcomer was told of them.
        submit: puts a command of ours into the log.

    """

    def __init__(
        self,
        paxos: Paxos,
        machine: Machine,
        genesis: Configuration,
        seeds: tuple[tuple[int, str], ...],
        submit: Callable[[bytes], None],
    ) -> None:
        self._paxos = paxos
        self._machine = machine
        self._genesis = genesis
        self._submit = submit
        self.acquaintance = Acquaintance(paxos, machine, seeds)
        self._requests: Requests | None = None  # while this replica leads
        self._changing: Changing | None = None  # likewise
        self._asked: dict[int, tuple[int, int]] = {}  # number -> (connection, number there) of questions passed on
        self._number = 0
        self._epoch = 0
        self._report_ms = self._say_ms = 0
        self._said: Learning | None = None  # what the log was told last
        self._progress = Pupil(Learning(machine.applied, 0), 0)
        self._announced = False

    # --- from role to role

    def reign(self, now_ms: int) -> None:
        """It leads, and may answer for the group."""
        self._changing = Changing(self._paxos, self._machine, now_ms)
        self._requests = Requests(self._paxos, self._machine, self._changing, self._genesis, self._submit)

    def resign(self) -> None:
        """It leads no more."""
        self._changing = self._requests = None

    def exchanged(self, machine: Machine) -> None:
        """The state is that of a peer's snapshot now."""
        self._machine = machine
        self.acquaintance.exchanged(machine)

    def applied(self, entry: Entry) -> None:
        """The machine has applied this entry."""
        if entry.kind == EntryKind.CONFIGURATION and self._machine.configuration_epoch != self._epoch:
            self._epoch = self._machine.configuration_epoch
            self.acquaintance.ruling_since = entry.slot

    # --- what comes in

    @property
    def _ears(self) -> Requests | None:
        """Not between one question that made this leader hand over and the turn in which it resigns."""
        return self._requests if self._paxos.ready else None

    def asked(self, connection: int, query: wire.Query, now_ms: int, output: ReplicaOutput) -> None:
        """An operator, or a newcomer, asks something that only the leader may answer."""
        requests = self._ears
        if requests is not None:
            value = requests.answer(query.question, query.arguments, now_ms)
            output.to_clients.append((connection, wire.Answer(query.number, value)))
            return
        leader = self._paxos.leader
        if leader is None or leader == self._paxos.replica:
            servers = [member.address for member in self._paxos.configuration.members]
            answer = {**wait("the group has no leader at the moment"), "servers": servers, "elsewhere": True}
            output.to_clients.append((connection, wire.Answer(query.number, answer)))
            return
        self._number += 1
        self._asked[self._number] = (connection, query.number)
        if len(self._asked) > ASKED_MAX:
            del self._asked[next(iter(self._asked))]
        output.send_now.append((leader, Ask(self._number, query.question, query.arguments)))

    def said(self, source: int, message: Ask | Told | Learning, now_ms: int, output: ReplicaOutput) -> None:
        """Another replica says something about members."""
        match message:
            case Ask(number=number, question=question, arguments=arguments):
                told = Told(number, self._answer(question, arguments, now_ms))
                if len(codec.encode(told)) > FRAME_BYTES_MAX:
                    told = Told(number, refuse("what there is to say about it is too long to be sent"))
                output.send_now.append((source, told))
            case Told(number=number, value=value):
                connection, asked = self._asked.pop(number, (0, 0))
                if connection:
                    output.to_clients.append((connection, wire.Answer(asked, value)))
            case Learning():
                if self._changing is not None:
                    self._changing.heard(source, message, now_ms)

    def _answer(self, question: str, arguments: tuple[Any, ...], now_ms: int) -> dict[str, Any]:
        requests = self._ears
        if requests is None:
            return wait("the group is changing its leader")
        try:
            return requests.answer(question, arguments, now_ms)
        except ProtocolError as error:  # what the asker's own replica would have told it
            return refuse(str(error))

    # --- as time goes by

    def tick(self, now_ms: int, snapshot: tuple[int, int], output: ReplicaOutput) -> None:
        """To be called often. `snapshot`: bytes of one on its way here, and of the whole."""
        if self._changing is not None:
            self._changing.go_on(now_ms)
        elif self._paxos.role is Role.LEARNER:
            self._report(now_ms, snapshot, output)
        elif self._say_ms:
            self._say_ms = 0
            output.notices.append(f"this replica is a member of the group {self._paxos.configuration.cluster} now")

    def _report(self, now_ms: int, snapshot: tuple[int, int], output: ReplicaOutput) -> None:
        if now_ms < self._report_ms:
            return
        self._report_ms = now_ms + REPORT_MS
        learning = Learning(self._machine.applied, *snapshot)
        self._progress.heard(learning, now_ms)
        output.send_now += [(other, learning) for other in self.acquaintance.links(self._machine)]
        if now_ms >= self._say_ms:
            if learning != self._said:
                told = self._paxos.told
                knows = told or learning.snapshot_bytes
                progress = self._progress.describe(told) if knows else "asks the others how far they are"
                output.notices.append(f"not a member yet: {progress}")
            self._say_ms, self._said = now_ms + SAY_MS, learning

    @property
    def due(self) -> bool:
        """Whether `note` has something to say."""
        return not self._announced or self.acquaintance.due(self._machine)

    def note(self, output: ReplicaOutput) -> None:
        """The machine has gone on: other links may be wanted."""
        if self.acquaintance.note(self._machine) or not self._announced:
            self._announced = True
            output.links = self.acquaintance.links(self._machine)

    def is_question(self, question: str) -> bool:
        """Whether this is for `asked`."""
        return question.startswith(PREFIX)
