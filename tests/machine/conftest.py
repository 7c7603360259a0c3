# SPDX-License-Identifier: Apache-2.0
"""A machine with a leader, and two clients."""

from __future__ import annotations

import pytest

from tests.machine.harness import Bench, Client


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.leads()
    return bench


@pytest.fixture
def ann(bench: Bench) -> Client:
    return bench.open("ann")


@pytest.fixture
def bob(bench: Bench) -> Client:
    return bench.open("bob")
