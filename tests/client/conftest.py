# SPDX-License-Identifier: Apache-2.0
"""A fake group, and a client of it that is gone after the test."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dthreading.client import Client
from dthreading.config import Settings

# The folder is no package (the tests are imported by path), so its helper is loaded by path as well.
_spec = importlib.util.spec_from_file_location("client_fake", Path(__file__).with_name("fake.py"))
assert _spec is not None
assert _spec.loader is not None
fake_module = importlib.util.module_from_spec(_spec)
sys.modules["client_fake"] = fake_module
_spec.loader.exec_module(fake_module)


SETTLED_S = 5.0


def lanes_of_nobody(client: Client) -> list[int]:
    """Lanes that no call waits on and no undo, and that cannot be borrowed all the same: each is one call fewer, for
    ever, and at LANES_PER_SESSION_MAX nobody of the process may call any more.
    """
    session = client._service.session
    if session is None or session.over:
        return []
    busy = [lane for lane in session._lanes.all() if lane not in session._lanes.free]
    return [lane.index for lane in busy if lane.pending is None and lane.undo is None]


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(fake_module.SECRET.hex())
    path.chmod(0o600)
    return path


@pytest.fixture
def fake() -> Iterator[Any]:
    server = fake_module.Fake()
    yield server
    server.stop()


@pytest.fixture
def lanes_lost() -> int:
    """How many lanes a test may cost. (A tracer strikes also between lines where no signal is looked at.)"""
    return 0


@pytest.fixture
def make_client(secret_file: Path, lanes_lost: int) -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def make(*fakes: Any, **settings: Any) -> Client:
        servers = tuple(one if isinstance(one, str) else one.address for one in fakes)
        made.append(Client(Settings(servers=servers, namespace="test", secret=secret_file, **settings)))
        return made[-1]

    yield make
    until = time.monotonic() + SETTLED_S
    while sum(len(lanes_of_nobody(client)) for client in made) > lanes_lost and time.monotonic() < until:
        time.sleep(0.001)  # a caller may be between its answer and its last line
    lost = [lanes_of_nobody(client) for client in made]
    for client in made:
        client.close()
    assert sum(map(len, lost)) <= lanes_lost, f"nobody has these lanes, and nobody will: {lost}"


@pytest.fixture
def client(fake: Any, make_client: Callable[..., Client]) -> Client:
    return make_client(fake)
