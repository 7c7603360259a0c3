# SPDX-License-Identifier: Apache-2.0
"""A replica that was told whom to join asks for its place in the group: each address in turn, until one lets it in.

It asks as an operator would (`members.join`), and again and again, since each question says all that is wanted. What
only an operator can mend is said once in the log, and waited for; what nothing can mend ends the process.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final, Protocol

from dthreading.errors import NotAuthenticated, ProtocolError
from dthreading.wire import limits
from dthreading.wire.auth import Connector
from dthreading.wire.codec import decode, encode
from dthreading.wire.messages import Answer, Challenge, Query, Rejected, Role, Welcome
from replicas.daemon.address import Address
from replicas.daemon.connections import Connection, Outgoing
from replicas.daemon.exits import ExitCode
from replicas.daemon.journal import log
from replicas.replica.admission import Admission

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicas.daemon.loop import Loop
    from replicas.daemon.options import Options

__all__ = ["Petition"]

AGAIN_S: Final = 0.1
"""Between two questions while the group is about it."""

PAUSE_S: Final = 0.5
"""Between two rounds when nobody could be asked, or when an operator has to do something first."""

ANSWER_S: Final = 5.0
"""How long one replica may take from connect to answer."""


LOOK: Final = 1
"""The number of the first question, for what the other replica is."""

DIFFERS: Final = "it does not share this replica's secret; give both the same file (--secret-file)"


class Host(Protocol):
    """Who is told."""

    def admitted(self, admission: Admission) -> None: ...
    def unwelcome(self, code: ExitCode, sentence: str) -> None: ...


class Petition:
    """Asks until it is admitted.

    Args:
        options: whom to join, whom to replace, and our own address.
        incarnation: of our directory.
        replica: our id, when the directory knows one already; else 0.
        cluster: the group that the directory belongs to; else "".
        secret: for an address; None where none is needed.

    """

    def __init__(
        self,
        options: Options,
        incarnation: bytes,
        replica: int,
        cluster: str,
        *,
        secret: Callable[[Address], bytes | None],
        outgoing: Outgoing,
        loop: Loop,
        host: Host,
    ) -> None:
        self._servers = list(options.join)
        self._cluster = cluster
        self._replica = replica
        self._directory = str(options.data_dir)
        self._question = (str(options.listen), incarnation, options.replace, replica)
        self._memory = options.memory
        self._secret = secret
        self._outgoing = outgoing
        self._loop = loop
        self._host = host
        self._said = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask."""
        self._task = self._loop.spawn(self._run(), "ask to be admitted")

    def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        at = 0
        while True:
            server = self._servers[at % len(self._servers)]
            at += 1
            pause_s = PAUSE_S / len(self._servers)
            try:
                answer = await self._ask(server)
            except NotAuthenticated as error:
                self._host.unwelcome(ExitCode.REFUSED, f"--join {server}: {error}")
                return
            except (OSError, TimeoutError) as error:
                number = error.errno
                why = os.strerror(number) if number else str(error) or "no answer"
                self._say(f"cannot join by way of {server} ({why}): is the address right, and does that replica run?")
            except _Trouble as trouble:
                self._say(str(trouble))
            else:
                if self._heard(answer, server):
                    return
                if not answer.get("elsewhere"):
                    at -= 1  # it knows the leader: no need to ask another
                    pause_s = AGAIN_S
            await asyncio.sleep(pause_s)

    def _heard(self, answer: dict[str, Any], server: Address) -> bool:
        """Whether that was the last word."""
        if answer.get("refused"):
            self._host.unwelcome(ExitCode.REMOVED if answer.get("removed") else ExitCode.REFUSED, str(answer["say"]))
            return True
        for text in answer.get("servers", ()):
            address = Address.parse(text)
            if address not in self._servers:
                self._servers.append(address)
        if not answer.get("done"):
            self._say(f"asked {server} to be let into the group: {answer.get('say')}")
            return False
        admission = Admission.decode(answer["admission"])
        if admission is None:
            raise ProtocolError(f"{server} has sent no admission")
        self._host.admitted(admission)
        return True

    async def _ask(self, server: Address) -> dict[str, Any]:
        question = _Question(self, self._outgoing, self._secret(server), server)
        async with asyncio.timeout(ANSWER_S):
            try:
                await self._loop.connect(server.path or (server.host, server.port), question)
                answer = await question.answer
            finally:
                question.hang_up()
        if not isinstance(answer, dict):
            raise _Trouble(f"{server} does not know how to let a replica in: is it an older version?")
        return answer

    def welcomed(self, welcome: Welcome, server: Address) -> Query:
        """A replica has welcomed us: what we ask it."""
        if not welcome.cluster:
            raise _Trouble(
                f"{server} is itself in no group yet, so there is nothing to join: start a group first"
                " (dthreading-server without --join), or give the address of a replica that is in one"
            )
        if self._cluster and welcome.cluster != self._cluster:
            sentence = (
                f"{self._directory} belongs to the group {self._cluster}, and --join {server} leads to the group"
                f" {welcome.cluster}: give an empty --data-dir to join that one"
            )
            self._host.unwelcome(ExitCode.REFUSED, sentence)
            raise _Trouble(sentence)
        return Query(LOOK + 1, "members.join", self._question)

    def looked_at(self, about: Any, server: Address) -> None:
        """A replica has told what it is: one that keeps its state belongs to others that do."""
        durable = about.get("durable", True) if isinstance(about, dict) else True
        if durable is not self._memory:
            return
        if durable:
            sentence = (
                f"{server} and its group keep their state on disk, and this replica was started with --memory: it would"
                " forget its promises with each restart; give it a --data-dir"
            )
        else:
            sentence = (
                f"{server} and its group keep nothing on disk (--memory), and this replica was started with a data"
                f" directory, {self._directory}, which would promise what the group does not keep: start it with"
                " --memory, or join a group that is durable"
            )
        self._host.unwelcome(ExitCode.REFUSED, sentence)
        raise _Trouble(sentence)

    def _say(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            log.warning("%s", sentence)


class _Trouble(Exception):
    """Nothing came of it; the text says why, for people."""


class _Question(Connection):
    """One connection: the handshake, a look at whom it leads to, the question, its answer."""

    __slots__ = ("_connector", "_petition", "_question", "_server", "answer")

    def __init__(self, petition: Petition, outgoing: Outgoing, secret: bytes | None, server: Address) -> None:
        super().__init__(outgoing, limits.FRAME_BYTES_MAX)
        self._petition = petition
        self._server = server
        self._question: Query | None = None  # what is asked, once it is known whom
        self._connector = Connector(Role.ADMIN, secret, os.urandom(16))
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.got = self._heard

    def opened(self) -> None:
        self.send(encode(self._connector.hello()))

    def lost(self) -> None:
        self._fail(_Trouble(f"{self._server} ended the connection: is it a dthreading replica?"))

    def broken(self, why: str) -> None:
        self._fail(_Trouble(f"{self._server} is no replica of ours: {why}"))

    def _fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def _heard(self, body: bytes) -> None:
        try:
            match decode(body):
                case Challenge() as challenge:
                    self.send(encode(self._connector.challenged(challenge)))
                case Welcome() as welcome:
                    self._question = self._petition.welcomed(welcome, self._server)
                    self.send(encode(Query(LOOK, "status", ())))
                case Answer(number=number, value=about) if number == LOOK and self._question is not None:
                    self._petition.looked_at(about, self._server)
                    self.send(encode(self._question))
                case Answer(value=value) if not self.answer.done():
                    self.answer.set_result(value)
                case Rejected(code="not_authenticated"):
                    self._fail(NotAuthenticated(DIFFERS))
                case message:
                    self._fail(_Trouble(f"{self._server} answered {message!r}"))
        except NotAuthenticated:
            self._fail(NotAuthenticated(DIFFERS))
        except _Trouble as trouble:
            self._fail(trouble)
