# SPDX-License-Identifier: Apache-2.0
"""A person's question to one replica: a connection of its own, blocking, with a deadline, and no session."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dthreading import embedded, resolve
from dthreading.errors import DThreadingError, GroupUnreachable, NotAuthenticated, ProtocolError, from_wire
from dthreading.wire.auth import Connector, default_secret_path, load_secret
from dthreading.wire.codec import decode, encode
from dthreading.wire.framing import FrameDecoder, frame
from dthreading.wire.messages import Answer, Challenge, Message, MoveOn, Query, Rejected, Role, Welcome

if TYPE_CHECKING:
    from pathlib import Path

    from dthreading.config import Settings
    from dthreading.resolve import Endpoint

__all__ = ["ask", "ask_any", "ask_server", "read_secret"]

TIMEOUT_S: Final = 5.0
"""For each step of the conversation: what is asked of a person's patience when a replica hangs."""

PASSING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What says nothing against the file: there were too many open ones, or no memory."""

M = TypeVar("M")


def ask_any(settings: Settings, question: str, arguments: tuple[Any, ...]) -> Any:
    """Asks the replicas in turn until one answers.

    Raises:
        GroupUnreachable: none did; says why of the last.

    """
    trouble: Exception | None = None
    for server in resolve.each(settings.servers or (embedded.server_name(),)):
        try:
            return ask_server(settings, server, question, arguments)
        except (NotAuthenticated, ProtocolError):
            raise
        except (OSError, DThreadingError) as error:
            trouble = error
    raise GroupUnreachable(f"no replica answered: {trouble}") from trouble


def ask_server(settings: Settings, server: str, question: str, arguments: tuple[Any, ...]) -> Any:
    """One question to that replica, as the settings name it: the one way there, so that no way leaves out a check.

    Raises:
        OSError: it cannot be reached, or does not answer in time.
        DThreadingError: it refuses, or is not to be spoken to.

    """
    if settings.embedded:
        embedded.guard(server)
    endpoint = resolve.endpoints(server)[0]
    secret = read_secret(settings.secret) if endpoint.guarded else None
    return ask(endpoint, secret, question, arguments)


def ask(endpoint: Endpoint, secret: bytes | None, question: str, arguments: tuple[Any, ...]) -> Any:
    """One question to one replica.

    Raises:
        OSError: it cannot be reached, or does not answer in time.
        DThreadingError: it refuses.

    """
    with socket.socket(endpoint.family, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_S)
        connection.connect(endpoint.address)
        talk = _Talk(connection, endpoint.name)
        connector = Connector(Role.ADMIN, secret, os.urandom(16))
        talk.say(connector.hello())
        talk.say(connector.challenged(talk.hear(Challenge)))
        talk.hear(Welcome)
        talk.say(Query(1, question, arguments))
        return talk.hear(Answer).value


def read_secret(path: Path | None) -> bytes:
    """The secret of the group, from the file that the settings name or from the default one.

    Raises:
        NotAuthenticated: it cannot be read, or is no secret.
        GroupUnreachable: this process or machine is out of what it takes to read a file, which may pass.

    """
    try:
        path = path or default_secret_path()
    except RuntimeError as error:
        raise NotAuthenticated(f"the group's secret file: {error}; DTHREADING_SECRET_FILE names one") from None
    try:
        return load_secret(path)
    except NotAuthenticated:
        raise  # an OSError, too: a PermissionError
    except OSError as error:
        if error.errno in PASSING:
            raise GroupUnreachable(f"the group's secret file {path} cannot be read now ({error.strerror})") from None
        raise NotAuthenticated(
            f"the group's secret file {path} cannot be read ({error.strerror}): dthreading-server makes it on its first"
            " start; DTHREADING_SECRET_FILE names another one"
        ) from None


class _Talk:
    """Messages over a blocking socket."""

    def __init__(self, connection: socket.socket, name: str) -> None:
        self._connection = connection
        self._name = name
        self._decoder = FrameDecoder()
        self._bodies: list[bytes] = []

    def say(self, message: Message) -> None:
        self._connection.sendall(frame(encode(message)))

    def hear(self, kind: type[M]) -> M:
        """The next message. That the replica is stopping, which it tells all, is passed over: it may answer yet."""
        message = self._next()
        while isinstance(message, MoveOn):
            message = self._next()
        if isinstance(message, Rejected):
            raise from_wire(message.code, f"{self._name}: {message.reason}")
        if not isinstance(message, kind):
            raise ProtocolError(f"{self._name} sent {type(message).__name__} instead of {kind.__name__}")
        return message

    def _next(self) -> Message:
        while not self._bodies:
            data = self._connection.recv(65536)
            if not data:
                raise GroupUnreachable(f"{self._name} ended the connection")
            self._bodies += self._decoder.feed(data)
        return decode(self._bodies.pop(0))
