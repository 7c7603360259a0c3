# SPDX-License-Identifier: Apache-2.0
"""A fake group, and a client of it that is gone after the test."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dthreading.client import Client
from dthreading.config import Settings
from dthreading.session import Target
from dthreading.wire.messages import Lifetime

# The folder is no package (the tests are imported by path), so its helper is loaded by path as well.
_spec = importlib.util.spec_from_file_location("client_fake", Path(__file__).with_name("fake.py"))
assert _spec is not None
assert _spec.loader is not None
fake_module = importlib.util.module_from_spec(_spec)
sys.modules["client_fake"] = fake_module
_spec.loader.exec_module(fake_module)


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
def make_client(secret_file: Path) -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def make(*fakes: Any, **settings: Any) -> Client:
        servers = tuple(one if isinstance(one, str) else one.address for one in fakes)
        made.append(Client(Settings(servers=servers, namespace="test", secret=secret_file, **settings)))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(fake: Any, make_client: Callable[..., Client]) -> Client:
    return make_client(fake)


def target(name: str = "orders", kind: str = "Lock") -> Target:
    return Target("test", name, kind, (), Lifetime.NAMED)
