# SPDX-License-Identifier: Apache-2.0
"""The group that CPython's suites run against: three durable replicas, or with `--group local` one in this process."""

from __future__ import annotations

import gc
import os
import weakref
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLS_SECONDS_MAX = 600
"""For the one test that makes some 20 000 calls one after the other: 20 s where nothing else runs, and more than the
usual limit on a machine that is shared by many."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--group", choices=("replicas", "memory", "local"), default="replicas",
        help="three replicas as processes (the default), the same without disks, or one inside this process",
    )  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.name == "test_reentrancy":
            item.add_marker(pytest.mark.timeout(CALLS_SECONDS_MAX))


@pytest.fixture(scope="session", autouse=True)
def _group(request: pytest.FixtureRequest) -> Iterator[None]:
    """All tests share a group and a client. Its service thread is there before the first test, since the suites count
    threads.
    """
    os.environ["DTHREADING_NAMING"] = "auto"
    kind = request.config.getoption("--group")
    if kind == "local":
        from dthreading.testing import local

        with local.group() as group:
            _warm_up()
            yield
            assert not group.faults
        return
    from tests.server.cluster import Cluster

    with Cluster(3, memory=kind == "memory") as cluster:
        os.environ.update(cluster.client_environment())
        cluster.leader()
        _warm_up()
        yield
        from dthreading import runtime

        collect_all()
        runtime.client().close()


def collect_all() -> None:
    """Runs all finalizers: test_reentrancy leaves thousands of objects behind that put into its queue when they go.

    `gc.collect()` does nothing while another thread collects, and that may be ours, amid those very objects.
    A cycle that is made only now goes with the collection after that.
    """

    class Cycle:
        def __init__(self) -> None:
            self.itself = self

    gone = weakref.ref(Cycle())
    while gone() is not None:
        gc.collect()


def _warm_up() -> None:
    import dthreading

    with dthreading.Lock():
        pass
