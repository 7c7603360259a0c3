# SPDX-License-Identifier: Apache-2.0
"""A person's question to a replica that has other things to say."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from client_fake import SECRET

from dthreading import asking, resolve
from dthreading.errors import GroupUnreachable
from dthreading.wire.auth import Acceptor
from dthreading.wire.codec import decode, encode
from dthreading.wire.framing import FrameDecoder, frame
from dthreading.wire.messages import Answer, MoveOn, Query, Welcome


@pytest.fixture
def stopping() -> Iterator[Any]:
    """`stopping(*last words)`: the address of a replica that says these when it is asked, and ends."""
    threads = []

    def serve(listener: socket.socket, words: tuple[Any, ...]) -> None:
        connection, _ = listener.accept()
        decoder, acceptor = FrameDecoder(), Acceptor(SECRET, os.urandom(16))
        with listener, connection:
            while True:
                for body in decoder.feed(connection.recv(65536)):
                    message = decode(body)
                    if isinstance(message, Query):
                        connection.sendall(b"".join(frame(encode(word)) for word in words))
                        return
                    reply = acceptor.step(message) or Welcome("fake", 1, "", ())
                    connection.sendall(frame(encode(reply)))

    def start(*words: Any) -> resolve.Endpoint:
        listener = socket.create_server(("127.0.0.1", 0))
        threads.append(threading.Thread(target=serve, args=(listener, words)))
        threads[-1].start()
        return resolve.endpoints(f"127.0.0.1:{listener.getsockname()[1]}")[0]

    yield start
    for thread in threads:
        thread.join(20)


def test_a_replica_that_is_stopping_may_still_answer(stopping: Any) -> None:
    """It tells all its clients to move on, people too, and the answer may come after that."""
    assert asking.ask(stopping(MoveOn("stopping"), Answer(1, {"replica": 1})), SECRET, "status", ()) == {"replica": 1}


def test_a_replica_that_stops_without_an_answer_is_one_that_did_not_answer(stopping: Any) -> None:
    """Not one that speaks another protocol: the next one is asked then."""
    with pytest.raises(GroupUnreachable, match="ended the connection"):
        asking.ask(stopping(MoveOn("stopping")), SECRET, "status", ())
