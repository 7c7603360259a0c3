# SPDX-License-Identifier: Apache-2.0
"""The group changes its members under busy clients: no call fails, nobody holds twice, whoever is killed meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.cluster import ROOT, Cluster, Node
from tests.system.busy import Busy


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(1, directory=tmp_path / "cluster") as one:
        yield one


@pytest.fixture
def busy(cluster: Cluster, tmp_path: Path) -> Iterator[Busy]:
    clients = Busy(cluster, tmp_path)
    yield clients
    clients.close()


def newcomers(cluster: Cluster, count: int) -> list[Node]:
    """So many, started and listening; whether they are members already is another question."""
    nodes = [cluster.newcomer() for _ in range(count)]
    for node in nodes:
        node.start(wait=False)
    for node in nodes:
        cluster.until(lambda node=node: node.ask("status"))
    return nodes


def well(cluster: Cluster, *arguments: str) -> str:
    """`dthreading members ...` does what it was told."""
    result = cluster.members(*arguments)
    assert result.returncode == 0, (
        result.stdout
        + result.stderr
        + "\n".join(f"--- {node.number}\n{node.log_text()[-3000:]}" for node in cluster.nodes)
    )
    return result.stdout


def members(cluster: Cluster) -> dict[int, str]:
    """Ids and addresses, as the group has them."""
    return {row["replica"]: row["address"] for row in json.loads(well(cluster, "list", "--json"))["members"]}


def test_from_one_to_three_to_five_each_replaced_and_back_to_three(cluster: Cluster, busy: Busy) -> None:
    """The machines under a group that is in use are all others in the end, and the clients have noticed nothing."""
    first = cluster.nodes[0]
    well(cluster, "add", *(node.address for node in newcomers(cluster, 2)))
    assert len(members(cluster)) == 3
    busy.go_on()
    well(cluster, "add", *(node.address for node in newcomers(cluster, 2)))
    five = members(cluster)
    assert sorted(five) == [1, 2, 3, 4, 5]
    busy.go_on()
    old = list(cluster.nodes)
    for number, node in enumerate(old):
        (new,) = newcomers(cluster, 1)
        if number % 2:
            new.wait_ready()  # it has become a member by itself before anybody said whose place it takes
        well(cluster, "replace", node.address, new.address)
        assert node.wait() == 6, node.log_text()
        busy.go_on()
    now = members(cluster)
    assert sorted(now) == [6, 7, 8, 9, 10]
    assert not set(now.values()) & {node.address for node in old}
    for _ in range(2):
        leader = cluster.leader()
        well(cluster, "remove", leader.address)
        assert leader.wait() == 6
        busy.go_on()
    assert len(members(cluster)) == 3
    assert not first.running
    busy.end()


class Command:
    """`dthreading members ...` that runs while other things happen."""

    def __init__(self, cluster: Cluster, *arguments: str) -> None:
        servers = ",".join(node.address for node in cluster.nodes if node.running)
        self._start = lambda: subprocess.Popen(
            [sys.executable, "-m", "dthreading.cli", "members", *arguments],
            env=cluster.client_environment(DTHREADING_SERVERS=servers),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.process = self._start()

    def begins(self) -> str:
        """It waits for something now: the sentence; "" when it was done before it had to wait."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def killed(self) -> None:
        """It dies without a word, and is given again."""
        self.process.kill()
        self.process.communicate()
        self.process = self._start()

    def ends(self) -> None:
        """It ends well."""
        said, complaints = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, said + complaints


def killed(node: Node) -> None:
    """It dies without a word, and its supervisor starts it again."""
    node.kill()
    node.start(wait=False)


def test_whoever_is_killed_in_the_middle_the_change_goes_on(cluster: Cluster, busy: Busy) -> None:
    """A newcomer while it is let in, the leader while it lets others in, the leader while its place is taken; and the
    command each time.
    """
    one = cluster.nodes[0]
    two, three = newcomers(cluster, 2)
    growing = Command(cluster, "add", two.address, three.address)
    growing.begins()
    killed(two)
    cluster.until(lambda: two.ask("status"))  # the command asks it what it is, and has little patience there
    growing.killed()
    growing.ends()
    busy.go_on()

    four, five = newcomers(cluster, 2)
    growing = Command(cluster, "add", four.address, five.address)
    growing.begins()
    killed(cluster.leader())
    growing.ends()
    busy.go_on()
    assert sorted(members(cluster)) == [1, 2, 3, 4, 5]

    for victims in ("leader", "newcomer", "replaced", "command"):
        old = cluster.leader() if victims != "newcomer" else next(iter(cluster.nodes))
        (new,) = newcomers(cluster, 1)
        replacing = Command(cluster, "replace", old.address, new.address)
        replacing.begins()
        if victims == "command":
            replacing.killed()
        victim = {"leader": cluster.leader(), "newcomer": new, "replaced": old}.get(victims)
        if victim is not None and victim.running:
            killed(victim)
        replacing.ends()
        busy.go_on()
        assert old.wait() == 6, old.log_text()
        cluster.nodes.remove(old)
        old.release()
    assert len(members(cluster)) == 5
    assert one not in cluster.nodes

    while len(members(cluster)) > 3:
        leader = cluster.leader()
        shrinking = Command(cluster, "remove", leader.address)
        shrinking.begins()
        shrinking.killed()
        if leader.running:
            killed(leader)
        shrinking.ends()
        busy.go_on()
        assert leader.wait() == 6, leader.log_text()
        cluster.nodes.remove(leader)
        leader.release()
    busy.end()


def test_an_interrupted_command_is_given_again_and_one_member_comes_out(cluster: Cluster) -> None:
    """Ctrl-C ends the waiting, not the change."""
    (two,) = newcomers(cluster, 1)
    for _ in range(3):
        command = Command(cluster, "add", two.address)
        if command.begins():
            command.process.terminate()
        command.process.communicate(timeout=30)
    assert two.address in well(cluster, "add", two.address)
    two.wait_ready()
    killed(two)
    well(cluster, "add", two.address)
    assert members(cluster) == {1: cluster.nodes[0].address, 2: two.address}
