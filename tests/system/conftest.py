# SPDX-License-Identifier: Apache-2.0
"""One group of three durable replicas for each file of tests; a namespace, a folder and a starter for each test."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.cluster import Cluster
from tests.system.programs import Group, Programs


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as three:
        three.leader()
        yield three


@pytest.fixture
def group(cluster: Cluster, request: pytest.FixtureRequest) -> Group:
    """The file's group, whole at the beginning of each test."""
    for node in cluster.nodes:
        if node.running:
            node.signal(signal.SIGCONT)
        else:
            node.start(wait=False)
            node.wait_ready()
    return Group(cluster, request.node.name)


@pytest.fixture
def start(group: Group, tmp_path: Path) -> Iterator[Programs]:
    """Starts programs against the group."""
    programs = Programs(group.environment(), tmp_path)
    yield programs
    programs.close()
