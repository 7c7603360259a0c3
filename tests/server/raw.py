# SPDX-License-Identifier: Apache-2.0
"""A client of the fewest lines: a blocking socket, the handshake, and frames. For the server's tests and figures."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Self

from dthreading.wire import auth
from dthreading.wire.codec import decode, encode
from dthreading.wire.framing import FrameDecoder, frame
from dthreading.wire.messages import (
    Answer,
    Attach,
    Call,
    Challenge,
    Ended,
    Lifetime,
    Message,
    Open,
    Opened,
    Query,
    Rejected,
    Reply,
    Role,
    Status,
    Welcome,
)

TIMEOUT_S = 20.0


class Refused(Exception):
    """The server answered Rejected."""


class Raw:
    """One connection. `say` sends, `hear` receives the next message, `expect` the next of one class."""

    def __init__(self, address: str, secret: bytes | None, role: Role = Role.CLIENT, timeout_s: float = TIMEOUT_S):
        self.socket = connect(address, timeout_s)
        self._decoder = FrameDecoder()
        self._came: list[bytes] = []
        self.session = 0
        self.number = 0
        self._handle = 0
        self.nonce = b""
        try:
            connector = auth.Connector(role, secret, os.urandom(16))
            self.say(connector.hello())
            self.say(connector.challenged(self.expect(Challenge)))
            self.welcome = self.expect(Welcome)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, *messages: Message) -> None:
        self.socket.sendall(b"".join(frame(encode(message)) for message in messages))

    def hear(self) -> Message:
        while not self._came:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError("the server ended the connection")
            self._came += self._decoder.feed(data)
        message = decode(self._came.pop(0))
        if isinstance(message, Rejected):
            raise Refused(message.reason)
        return message

    def expect(self, kind):
        """The next message of that class; news of other kinds is passed over, the end of the session is not."""
        while True:
            message = self.hear()
            if isinstance(message, kind):
                return message
            assert not isinstance(message, Ended), "the session has ended"

    def ask(self, question: str, *arguments: object) -> object:
        """A question of an operator."""
        self.number += 1
        self.say(Query(self.number, question, arguments))
        answer = self.expect(Answer)  # a replica that is about to end tells everybody so first
        assert answer.number == self.number
        return answer.value

    def open(self, ttl_ms: int = 10_000, namespace: str = "test", label: str = "raw") -> int:
        """A session."""
        self.say_open(ttl_ms, namespace, label)
        self.session = self.expect(Opened).session
        return self.session

    def say_open(self, ttl_ms: int = 10_000, namespace: str = "test", label: str = "raw") -> None:
        """Ask for a session, and wait for nothing."""
        self.nonce = os.urandom(16)
        self.say(Open(self.nonce, ttl_ms, namespace, label))

    def attach(self, kind: str, name: str, *arguments: object, namespace: str = "test") -> int:
        """A handle on an object."""
        self._handle += 1
        attach = Attach(self.session, self._handle, namespace, name, kind, arguments, Lifetime.NAMED, True)
        self.say(attach)
        return self._handle

    def call(self, handle: int, operation: str, *arguments: object, lane: int = 0) -> object:
        """One call and its answer."""
        self.number += 1
        self.say(Call(self.session, lane, self.number, handle, operation, arguments, False))
        while True:
            reply = self.expect(Reply)
            if (reply.lane, reply.number) == (lane, self.number):
                assert reply.status == Status.OK, reply
                return reply.value


def connect(address: str, timeout_s: float = TIMEOUT_S) -> socket.socket:
    """A blocking socket to host:port or unix:/path."""
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        target: object = address.removeprefix("unix:")
    else:
        host, _, port = address.rpartition(":")
        sock = socket.socket()
        target = (host, int(port))
    sock.settimeout(timeout_s)
    try:
        sock.connect(target)
    except BaseException:
        sock.close()
        raise
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def secret_in(path: Path) -> bytes:
    return auth.load_secret(path)
