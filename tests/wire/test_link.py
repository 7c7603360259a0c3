# SPDX-License-Identifier: Apache-2.0
"""The client's end of a connection, on a socket, whose other end is a stranger who took the server's port."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import pytest

from dthreading.errors import DThreadingError, NotAuthenticated, ProtocolError
from dthreading.link import Link
from dthreading.resolve import Endpoint
from dthreading.wire import messages as wire
from dthreading.wire.auth import Acceptor
from dthreading.wire.codec import decode, encode
from dthreading.wire.framing import FrameDecoder, frame

SECRET = b"s" * 32
WELCOME = wire.Welcome("group", 1, "", ())


class Stranger:
    """Accepts one connection and says what it is told to."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = server.getsockname()
            self.link = Link(Endpoint("stranger", socket.AF_INET, address), SECRET)
            self.socket, _ = server.accept()
        self.link.writable()
        self.decoder = FrameDecoder()

    def hear(self) -> object:
        bodies: list[bytes] = []
        while not bodies:
            bodies = self.decoder.feed(self.socket.recv(65536))
        return decode(bodies[0])

    def say(self, *messages: object) -> None:
        self.socket.sendall(b"".join(frame(encode(message)) for message in messages))  # type: ignore[arg-type]

    def read(self) -> list[wire.Message]:
        select.select([self.link], [], [], 10)
        return self.link.read()


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    stranger = Stranger()
    yield stranger
    stranger.socket.close()
    stranger.link.close()


def test_who_leaves_the_challenge_out_is_not_believed(stranger: Stranger) -> None:
    """Whoever is welcomed without a proof would be told everything, and could hand out pickled items."""
    stranger.hear()
    stranger.say(WELCOME)
    with pytest.raises(ProtocolError, match="Welcome"):
        stranger.read()
    assert stranger.link.welcome is None


def test_who_fails_the_challenge_is_not_believed_afterwards(stranger: Stranger) -> None:
    stranger.hear()
    stranger.say(wire.Challenge(1, b"n" * 16, b"p" * 32), WELCOME)
    with pytest.raises(NotAuthenticated):
        stranger.read()
    stranger.say(WELCOME)
    with pytest.raises(ProtocolError):
        stranger.read()
    assert stranger.link.welcome is None


def test_who_knows_the_secret_is_believed_and_asks_once(stranger: Stranger) -> None:
    acceptor = Acceptor(SECRET, os.urandom(16))
    challenge = acceptor.step(stranger.hear())
    stranger.say(challenge)
    assert stranger.read() == []
    assert acceptor.step(stranger.hear()) is None
    stranger.say(WELCOME)
    assert stranger.read() == []
    assert stranger.link.welcome == WELCOME


def test_a_second_challenge_is_none_of_ours(stranger: Stranger) -> None:
    challenge = Acceptor(SECRET, os.urandom(16)).step(stranger.hear())
    stranger.say(challenge, challenge)
    with pytest.raises(ProtocolError, match="Challenge"):
        stranger.read()


@pytest.mark.parametrize(
    "code", ["runtime", "value", "type", "empty", "full", "broken", "protocol", "nothing", "tasks_lost"]
)
def test_whatever_a_server_refuses_us_with_is_an_error_of_ours(stranger: Stranger, code: str) -> None:
    """An error of the standard library's ended the thread that serves all calls."""
    stranger.hear()
    stranger.say(wire.Rejected(code, "because"))
    with pytest.raises(DThreadingError, match="because"):
        stranger.read()
