# SPDX-License-Identifier: Apache-2.0
"""A data directory without its replica: it is examined, and a lost majority's survivor becomes a new group."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicas.daemon.offline import FENCE_LEAP
from replicas.replica.marks import Mark
from replicas.storage import Storage
from replicas.storage.disk import Directory
from tests.server.cluster import ROOT, Cluster, Node

TIMEOUT_S = 30


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    """A group of three that has kept something and is switched off."""
    with Cluster(3, directory=tmp_path / "cluster") as cluster:
        with cluster.client() as client:
            client.open(600_000)
            client.call(client.attach("Lock", "held"), "acquire", True, 1)
            queue = client.attach("Queue", "work", 0, False)
            for number in range(10):
                client.call(queue, "put", True, b"%d" % number, None)
            newest = cluster.leader().ask("status")["applied"]
        for node in cluster.nodes:
            cluster.until(lambda node=node: node.ask("status")["applied"] >= newest)
        cluster.kill()
        yield cluster


def server(*arguments: str, told: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "replicas.cli", *arguments],
        cwd=ROOT,
        input=told,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_a_sound_directory_is_examined(three: Cluster, tmp_path: Path) -> None:
    node = three.nodes[0]
    before = {path.name: path.read_bytes() for path in node.data.iterdir() if path.name.startswith("log-")}
    result = server("--check", str(node.data))
    assert result.returncode == 0, result.stderr
    assert f"{node.data} is that of replica 1 of the group " in result.stdout
    assert f"1 at {node.address}, 2 at " in result.stdout
    assert "1 sessions, 2 objects, last fence 1" in result.stdout
    assert result.stdout.endswith("no damage was found\n")
    after = {path.name: path.read_bytes() for path in node.data.iterdir() if path.name.startswith("log-")}
    assert after == before
    nothing = server("--check", str(tmp_path / "nothing"))
    assert nothing.returncode == 2
    assert "is not a directory" in nothing.stderr
    node.start()
    assert "in use by another process" in server("--check", str(node.data)).stderr


def test_damage_is_found(three: Cluster) -> None:
    node = three.nodes[0]
    segment = next(path for path in sorted(node.data.iterdir()) if path.name.startswith("log-"))
    data = bytearray(segment.read_bytes())
    data[600:700] = bytes(100)
    segment.write_bytes(data)
    result = server("--check", str(node.data))
    assert result.returncode == 5
    assert "is damaged" in result.stderr
    assert "no damage" not in result.stdout


def test_what_a_survivor_has_becomes_a_new_group(three: Cluster, tmp_path: Path) -> None:
    """Items and holds are there, fences are far beyond the old ones, and the old group's members are refused."""
    old, survivor, _ = three.nodes
    new = tmp_path / "new"
    arguments = ("--recover-unsafe", str(survivor.data), "--listen", survivor.address)
    assert "name the new one with --data-dir" in server(*arguments).stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    full = server(*arguments, "--data-dir", str(tmp_path / "full"), told="lose\n")
    assert full.returncode == 2
    assert "is not empty" in full.stderr
    assert full.stdout == "", "nobody is asked to give a group up for nothing"
    unsure = server(*arguments, "--data-dir", str(new), told="yes\n")
    assert unsure.returncode == 2
    assert "If any 2 members can still be started, do that instead" in unsure.stdout
    assert "nothing was done" in unsure.stderr
    assert not new.exists()
    done = server(*arguments, "--data-dir", str(new), told="lose\n")
    assert done.returncode == 0, done.stderr
    assert "lost: whatever the other members decided after slot" in done.stdout
    again = server(*arguments, "--data-dir", str(new), "--yes")
    assert again.returncode == 2
    assert "is not empty" in again.stderr

    lone = Node(three, 2, joins="alone")
    lone.release()
    lone._reservation, lone.address, lone.data = survivor._reservation, survivor.address, new
    three.nodes[1] = lone
    three.size, lone.joins = 1, ""
    lone.start()
    with three.client(lone) as client:
        client.open()
        queue = client.attach("Queue", "work", 0, False)
        assert [client.call(queue, "get", True) for _ in range(10)] == [b"%d" % number for number in range(10)]
        assert client.call(client.attach("Lock", "held"), "locked") is True, "its holder's lease has not ended yet"
        fence = client.call(client.attach("Lock", "other"), "acquire", True, 1)
        assert isinstance(fence, int)
        assert fence > FENCE_LEAP
    status = lone.ask("status")
    assert status["role"] == "leader"
    assert status["replica"] == 4

    newcomer = three.newcomer(lone.address)
    newcomer.start(wait=False)
    newcomer.wait_ready()
    newest = lone.ask("status")["chosen"]
    three.until(lambda: newcomer.ask("status")["applied"] >= newest)

    # Those of the old group that come back find the new one at the survivor's address, and end with one sentence.
    addresses = ",".join(node.address for node in (old, survivor, three.nodes[2]))
    for returned in (old, three.nodes[2]):
        returned.options = ("--cluster", addresses)
        returned.start(wait=False)
        assert returned.wait() == 6, returned.log_text()
        said = returned.log_text().strip().splitlines()[-1]
        former = status["cluster"].rpartition(".")[0]
        assert f"the group {former} was given up, and the group {status['cluster']} goes on with what" in said
        assert f"replica {returned.number} is no part of it" in said
        assert "start it on an empty data directory with --join" in said


def test_a_group_that_can_still_have_a_majority_is_not_given_up(three: Cluster, tmp_path: Path) -> None:
    """One other member runs: this one need only be started again, and there would be two groups otherwise."""
    first, second, third = three.nodes
    first.start(wait=False)
    three.until(lambda: first.ask("status"))
    arguments = ("--recover-unsafe", str(second.data), "--listen", second.address, "--data-dir", str(tmp_path / "new"))
    result = server(*arguments, "--yes")
    assert result.returncode == 2
    assert (
        f"replica 1 at {first.address} can be reached and with this one they are a majority of the 3" in result.stderr
    )
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "new").exists()
    second.start(wait=False)
    third.start(wait=False)
    three.leader()


def test_a_group_that_lives_is_not_ended_by_one_that_was_made_of_it(three: Cluster, tmp_path: Path) -> None:
    """Somebody has recovered a copy of a directory while nobody could be reached: the old group's members say what they
    are told, and serve on.
    """
    first, second, third = three.nodes
    copy = tmp_path / "new"
    assert server("--recover-unsafe", str(third.data), "--listen", third.address, "--data-dir", str(copy), "--yes")
    first.start(wait=False)
    second.start(wait=False)
    three.leader()
    third.data = copy
    three.size = 1  # it is a group of its own
    third.start()
    three.size = 3
    three.until(lambda: "was given up" in first.log_text() and "was given up" in second.log_text())
    with three.client(first) as client:
        client.open()
        assert client.call(client.attach("Lock", "held"), "locked") is True


def test_a_directory_that_is_marked_as_wrong_is_the_last_resort(three: Cluster, tmp_path: Path) -> None:
    """It may be all that is left; whoever recovers it is told what was found."""
    node = three.nodes[0]
    storage = Storage.open(Directory(node.data))
    assert storage.identity is not None
    assert storage.identity.formation is not None
    storage.form(Mark("Lock 'held' is wrong.", storage.identity.formation).encode())
    storage.close()
    for options in (("--check", str(node.data)), ("--listen", node.address, "--data-dir", str(node.data))):
        result = server(*options, "--secret-file", str(three.secret_file))
        assert result.returncode == 7
        assert f"{node.data} must not be used any more: Lock 'held' is wrong." in result.stderr
    new = str(tmp_path / "new")
    recovered = server("--recover-unsafe", str(node.data), "--listen", node.address, "--data-dir", new, "--yes")
    assert recovered.returncode == 0, recovered.stderr
    assert "DO NOT TRUST IT if there is any other survivor: Lock 'held' is wrong." in recovered.stdout
    assert server("--check", new).returncode == 0
