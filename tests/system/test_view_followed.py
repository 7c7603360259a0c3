# SPDX-License-Identifier: Apache-2.0
"""Whoever was away while the members changed finds the group again: clients with an old list, and members, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.cluster import Cluster, Node
from tests.system.programs import Programs


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as three:
        three.leader()
        yield three


def replaced(cluster: Cluster, *old: Node) -> list[Node]:
    """Newcomers in the places of these."""
    new = []
    for node in old:
        other = cluster.newcomer()
        other.start(wait=False)
        result = cluster.members("replace", node.address, other.address)
        assert result.returncode == 0, result.stdout + result.stderr
        other.wait_ready()
        if node.process is not None:
            assert node.wait() == 6
        new.append(other)
    return new


HOLDER = """
    lock = threading.Lock(name="held")
    lock.acquire()
    fence = lock.fence
    say("holds", fence)
    while told() == "check":
        assert lock.locked()
        assert lock.fence == fence
        with threading.Lock(name="other"):
            say("still", fence)
    lock.release()
    say("released")
"""


def test_clients_with_an_old_list_of_which_one_address_is_valid(cluster: Cluster, tmp_path: Path) -> None:
    """One that stood still meanwhile and one that is started afterwards; and then the last old address goes, too."""
    programs = Programs(cluster.client_environment(DTHREADING_LEASE="120"), tmp_path)
    try:
        holder = programs(HOLDER, script="holder")
        held = holder.hears()
        holder.stop()
        first, second, third = cluster.nodes
        replaced(cluster, first, second)
        late = programs('with threading.Lock(name="other"): say("late")', script="late")
        late.ends(says=("late",))
        holder.go_on()
        holder.tell("check")
        holder.hears(held.replace("holds", "still"))
        replaced(cluster, third)
        holder.tell("check")
        holder.hears(held.replace("holds", "still"))
        holder.tell("end")
        holder.ends(says=("released",))
    finally:
        programs.close()


def test_a_member_that_was_down_while_all_others_were_replaced(cluster: Cluster) -> None:
    """It knows nobody of the present group, and nobody whom it knows is there; the others find it, and it votes."""
    first, second, third = cluster.nodes
    third.kill()
    fourth, fifth = replaced(cluster, first, second)
    with cluster.client(fourth) as client:
        client.open()
        lock = client.attach("Lock", "a")
        for _ in range(20):
            client.call(lock, "acquire", True, 1)
            client.call(lock, "release", None)
    third.start()
    newest = fifth.ask("status")["chosen"]
    cluster.until(lambda: third.ask("status")["applied"] >= newest)
    fourth.kill()
    assert cluster.leader() in {third, fifth}
    with cluster.client() as client:
        client.open()
        assert client.call(client.attach("Lock", "a"), "acquire", True, 1) is not None


def test_a_newcomer_that_was_down_finds_its_way(cluster: Cluster) -> None:
    """Killed when it was just admitted, back when all whom it had been told of are gone."""
    first, second, third = cluster.nodes
    away = cluster.newcomer()
    away.start(wait=False)
    cluster.until(lambda: away.ask("status")["replica"])
    away.kill()
    replaced(cluster, first, second, third)
    away.start(wait=False)  # --join still names the old addresses
    away.wait_ready()
    assert str(away.id_known) in cluster.members("list").stdout
