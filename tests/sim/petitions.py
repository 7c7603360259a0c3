# SPDX-License-Identifier: Apache-2.0
"""Questions about members over simulated connections, and the newcomer that asks to be let in.

What daemon/petition.py does with tasks and sockets is said here once more without them; the question, its answers and
the admission are the shipping ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dthreading.wire import codec
from dthreading.wire.messages import Answer, Query
from replicas.replica.admission import Admission
from replicas.replica.output import ReplicaOutput
from tests.sim.group import ConnectionEnded, ToClient, ToReplica
from tests.sim.host import Gone

__all__ = ["ENDED", "Asking", "Petition", "Questions", "node_of"]

ENDED = "ended"
"""What is heard when the other side hangs up instead of answering."""

AGAIN_MS = 100
PAUSE_MS = 500
ANSWER_MS = 1_000
"""As in daemon/petition.py, but that a replica that is down is given up sooner: nobody refuses a connection here."""


def node_of(address: str) -> int:
    """Where in the network somebody listens."""
    return int(address[1:])


class Questions:
    """One question at a time to one replica, each on a connection of its own, as people ask.

    Args:
        fresh: numbers for connections.
        send: puts a message on its way to a node.

    """

    def __init__(self, fresh: Callable[[], int], send: Callable[[int, Any], None]) -> None:
        self._fresh = fresh
        self._send = send
        self._connection = 0
        self._node = 0

    @property
    def waits(self) -> bool:
        """Whether there is no answer yet."""
        return self._connection != 0

    def ask(self, server: str, question: str, arguments: tuple[Any, ...]) -> None:
        """Connect there and ask."""
        self.hang_up()
        self._connection, self._node = self._fresh(), node_of(server)
        self._send(self._node, ToReplica(self._connection, 1, codec.encode(Query(1, question, arguments))))

    def hang_up(self) -> None:
        """No answer is waited for any more."""
        if self._connection:
            self._send(self._node, ConnectionEnded(self._connection))
            self._connection = 0

    def owns(self, message: Any) -> bool:
        """Whether this is the other side of the present conversation."""
        return isinstance(message, ToClient | ConnectionEnded) and message.connection == self._connection != 0

    def heard(self, message: ToClient | ConnectionEnded) -> Any:
        """The answer, or `ENDED`; None when that was something else."""
        if isinstance(message, ConnectionEnded):
            self._connection = 0
            return ENDED
        said = codec.decode(message.body)
        if not isinstance(said, Answer):
            return None
        self.hang_up()
        return said.value


class Petition:
    """Asks until it is admitted: each address in turn, until one lets it in. (As `daemon.petition.Petition`.)

    Args:
        servers: whom to ask first.
        question: the arguments of `members.join`.

    """

    def __init__(self, questions: Questions, servers: tuple[str, ...], question: tuple[Any, ...], now_ms: int) -> None:
        self.over = False
        self._questions = questions
        self.servers = [*servers]
        self._question = question
        self._at = 0
        self._due_ms = now_ms

    def tick(self, now_ms: int) -> None:
        """Ask, when it is time for that."""
        if self.over or now_ms < self._due_ms:
            return
        self._questions.ask(self.servers[self._at % len(self.servers)], "members.join", self._question)
        self._at += 1
        self._due_ms = now_ms + ANSWER_MS

    def heard(self, message: ToClient | ConnectionEnded, now_ms: int) -> Admission | None:
        """The admission, once it is there. Raises Gone where the daemon would end."""
        answer = self._questions.heard(message)
        if answer is None:
            return None
        self._due_ms = now_ms + PAUSE_MS // len(self.servers)
        if answer == ENDED:
            return None
        if answer.get("refused"):
            raise Gone(str(answer["say"]))
        self.servers += [server for server in answer.get("servers", ()) if server not in self.servers]
        if answer.get("done"):
            self.over = True
            return Admission.decode(answer["admission"])
        if not answer.get("elsewhere"):
            self._at -= 1
            self._due_ms = now_ms + AGAIN_MS
        return None


class Asking:
    """What a host runs instead of a replica while its directory has no place in a group."""

    due = True
    """Whether `take` may have something to do."""

    def __init__(self, petition: Petition, now_ms: int) -> None:
        self._petition = petition
        self._now_ms = now_ms

    @property
    def wake_ms(self) -> int:
        return self._now_ms + AGAIN_MS

    def tick(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._petition.tick(now_ms)

    def take(self) -> ReplicaOutput:
        return ReplicaOutput()

    def status(self) -> dict[str, str]:
        """For a failure's message."""
        return {"role": "asking to be let in"}
