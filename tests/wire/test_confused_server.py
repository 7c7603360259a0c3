# SPDX-License-Identifier: Apache-2.0
"""A whole client whose server says what means nothing: it goes to the next connection, and its callers never notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dthreading.client import Client
from dthreading.config import Settings
from dthreading.session import ACQUIRE, RELEASE, Target
from dthreading.wire import messages as wire
from tests.client.fake import SECRET, Fake

NONSENSE = [
    wire.Reply(0, 0, 9, None),
    wire.Reply(0, 0, wire.Status.ERROR, None),
    wire.Reply(0, 0, wire.Status.ERROR, ("runtime", 5, ())),
    wire.Challenge(1, b"n" * 16, b""),
    wire.Rejected("runtime", "an error of the standard library's"),
    wire.Rejected("nothing", "an error that nobody knows"),
    wire.Leader("nowhere:at:all"),
    wire.Leader("\0"),
    wire.Alive(-1, 2**200),
    wire.Opened(b"", 0, 0),
]


@pytest.mark.parametrize("word", NONSENSE, ids=repr)
def test_a_call_is_answered_though_its_server_was_confused(word: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET.hex())
    secret.chmod(0o600)
    fake = Fake()
    client = Client(Settings(servers=(fake.address,), namespace="test", secret=secret))
    said: list[Any] = []

    def confuse(call: wire.Call) -> bool:
        if said:
            return False
        said.append(word._replace(lane=call.lane, number=call.number) if isinstance(word, wire.Reply) else word)
        for peer in fake._peers.values():
            peer.say(said[0])
        # What is a word about nothing is followed by the answer; any other ends the connection.
        return not isinstance(word, wire.Leader | wire.Alive | wire.Opened | wire.Challenge)

    fake.on_call = confuse
    try:
        lock = Target("test", "orders", "Lock", (), wire.Lifetime.NAMED)
        answer = client.call(lock, "acquire", (True, 1), ACQUIRE)
        assert answer.value == 1
        assert client.holds_are_valid(answer.session), "in the same session as before"
        assert client.call(lock, "release", (1,), RELEASE).value is None
        assert said
    finally:
        client.close()
        fake.stop()
