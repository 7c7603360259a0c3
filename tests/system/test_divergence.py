# SPDX-License-Identifier: Apache-2.0
"""A replica's memory goes bad while it serves: it stops and says what differs, and another one takes its place."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.cluster import ROOT, Cluster, Node
from tests.server.raw import Raw
from tests.system.busy import Busy


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three that compare their states all the time."""
    three = Cluster(3)
    for node in three.nodes:
        node.program = "tests.system.spoilt"
    with three:
        three.leader()
        yield three


def use(client: Raw, handle: int, times: int = 20) -> None:
    """Something is applied, so there is something to compare."""
    for _ in range(times):
        fence = client.call(handle, "acquire", True, 1)
        client.call(handle, "release", fence)


def check(node: Node) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "replicas.cli", "--check", str(node.data)],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def members(cluster: Cluster) -> dict[int, Any]:
    return {row["replica"]: row for row in json.loads(cluster.members("list", "--json").stdout)["members"]}


def test_a_spoilt_object_is_named_and_its_replica_is_replaced(cluster: Cluster) -> None:
    leader = cluster.leader()
    victim = next(node for node in cluster.nodes if node is not leader)
    with cluster.client(leader) as client:
        client.open(600_000)
        precious, often = client.attach("Lock", "precious"), client.attach("Lock", "often")
        client.call(precious, "acquire", True, 1)
        use(client, often)
        newest = leader.ask("status")["applied"]
        cluster.until(lambda: victim.ask("status")["applied"] >= newest)
        victim.signal(signal.SIGUSR1)

        def ended() -> bool:
            use(client, often)
            return not victim.running

        cluster.until(ended)
        assert victim.wait() == 7
        use(client, often)
    sentence = f"this replica, {victim.number}, differs from that of the majority in Lock 'precious' of namespace '"
    lines = [line for line in victim.log_text().splitlines() if sentence in line]
    assert len(lines) == 2, "one line of the log, and the sentence that ends every process"
    said = f"replica {victim.number} differs from that of the majority in Lock 'precious'"
    cluster.until(lambda: said in leader.log_text())

    checked = check(victim)
    assert checked.returncode == 7
    assert "must not be used any more: " in checked.stderr
    assert sentence in checked.stderr
    assert "no damage" not in checked.stdout
    victim.start(wait=False)
    assert victim.wait() == 7, "not again, although the state would be right once more"
    assert victim.log_text().count(sentence) == 3

    new = cluster.newcomer()
    new.start(wait=False)
    replaced = cluster.members("replace", str(victim.number), new.address)
    assert replaced.returncode == 0, replaced.stderr
    new.wait_ready()
    assert victim.number not in members(cluster)
    assert members(cluster)[new.ask("status")["replica"]]["state"] == "up"
    victim.start(wait=False)
    assert victim.wait() == 7


def test_a_leader_whose_memory_is_spoilt_stops_as_well(cluster: Cluster) -> None:
    """Its followers are the majority, and one of them leads on; the client's next call goes there."""
    victim = cluster.leader()
    with cluster.client(victim) as client:
        client.open(600_000)
        precious, often = client.attach("Lock", "precious"), client.attach("Lock", "often")
        client.call(precious, "acquire", True, 1)
        use(client, often)
        victim.signal(signal.SIGUSR1)
        with pytest.raises((OSError, EOFError, AssertionError)):
            use(client, often, 20_000)
    assert victim.wait() == 7
    assert "in Lock 'precious' of namespace '" in victim.log_text()
    assert cluster.leader() is not victim
    with cluster.client() as client:
        client.open()
        assert client.call(client.attach("Lock", "precious"), "acquire", False, 1) is False


def test_programs_notice_nothing_when_a_leader_is_wrong(cluster: Cluster, tmp_path: Path) -> None:
    """It sends them away and hands over before it ends: no call fails, and none is told what could not be."""
    busy = Busy(cluster, tmp_path, count=3)
    try:
        busy.go_on()
        victim = cluster.leader()
        with cluster.client(victim) as client:
            client.open(600_000)
            client.call(client.attach("Lock", "precious"), "acquire", True, 1)
        victim.signal(signal.SIGUSR1)
        assert victim.wait() == 7
        assert "in Lock 'precious' of namespace '" in victim.log_text()
        busy.go_on()
        busy.end()
    finally:
        busy.close()
