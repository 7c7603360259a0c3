# SPDX-License-Identifier: Apache-2.0
"""What operators get wrong about members is told in one sentence that says what to do, and nothing is changed by it."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.cluster import Cluster, Node


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    """A group of three that was changed once: replica 3 is gone, replica 4 has come."""
    with Cluster(3) as cluster:
        cluster.leader()
        last = cluster.nodes[2]
        new = joined(cluster)
        done(cluster, "replace", last.address, new.address)
        assert last.wait() == 6
        yield cluster


@pytest.fixture(scope="module")
def other() -> Iterator[Cluster]:
    """Another group, with another secret."""
    with Cluster(1) as cluster:
        yield cluster


def joined(cluster: Cluster, *options: str, joins: str = "") -> Node:
    """A newcomer that listens."""
    node = cluster.newcomer(joins, *options)
    node.start(wait=False)
    cluster.until(lambda: node.ask("status"))
    return node


def done(cluster: Cluster, *arguments: str) -> str:
    """It is done: what it says."""
    result = cluster.members(*arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.strip()


def refused(cluster: Cluster, *arguments: str, servers: str = "") -> str:
    """It is refused, in one sentence, and no member has come or gone."""
    before = ids(cluster)
    result = cluster.members(*arguments, servers=servers)
    assert result.returncode == 2, result.stdout + result.stderr
    assert not result.stdout
    sentences = [line for line in result.stderr.splitlines() if not line.startswith("waiting: ")]
    assert len(sentences) == 1, result.stderr
    assert sentences[0].startswith("dthreading: ")
    assert ids(cluster) == before
    return sentences[0]


def ids(cluster: Cluster) -> list[int]:
    """Members and newcomers."""
    rows = json.loads(done(cluster, "list", "--json"))["members"]
    return [row["replica"] for row in rows]


def free_address() -> str:
    """Nobody listens there."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return "{}:{}".format(*unused.getsockname())


@contextlib.contextmanager
def gone_after(node: Node) -> Iterator[Node]:
    """The node's process does not outlive the test, nor does its place in the list."""
    try:
        yield node
    finally:
        if node.process is not None:
            node.kill()
        node.cluster.nodes.remove(node)
        node.release()


def ended(node: Node, code: int) -> str:
    """The process has ended with that code: its last sentence."""
    assert node.wait() == code, node.log_text()
    return node.log_text().strip().splitlines()[-1]


# --- with `dthreading members` ------------------------------------------------------------------------------------


def test_a_member_is_added_twice(three: Cluster) -> None:
    """That is no mistake that needs mending: it is a member, and that is said."""
    node = three.nodes[0]
    assert done(three, "add", node.address) == f"{node.address} is a member: replica 1"
    assert ids(three) == [1, 2, 4]


def test_nobody_listens_at_the_address_to_be_added(three: Cluster) -> None:
    address = free_address()
    said = refused(three, "add", address)
    assert f"no newcomer answers at {address} (Connection refused)" in said
    assert "start it first" in said


def test_what_is_added_is_no_address(three: Cluster) -> None:
    assert "'node7' is not an address: write host:port" in refused(three, "add", "node7")


def test_what_is_added_belongs_to_another_group(three: Cluster, tmp_path: Path) -> None:
    """It shares the secret, but it was started without --join, and is a group of its own."""
    with Cluster(1, directory=tmp_path / "alone") as alone:
        alone.close()
        alone.secret_file.write_bytes(three.secret_file.read_bytes())
        node = Node(alone, 1)
        alone.nodes = [node]
        node.start()
        said = refused(three, "add", node.address)
        assert f"the replica at {node.address} belongs to another group" in said
        assert "--join" in said


def test_what_is_added_has_another_secret(three: Cluster, other: Cluster) -> None:
    said = refused(three, "add", other.nodes[0].address)
    assert "secret" in said


def test_an_unknown_member_is_removed(three: Cluster) -> None:
    said = refused(three, "remove", "9")
    assert "there is no replica 9 in this group: its members are 1 at " in said
    assert "there is no replica 127.0.0.1:1 in this group" in refused(three, "remove", "127.0.0.1:1")


def test_a_member_that_was_removed_already_is_removed(three: Cluster) -> None:
    """Asked again: it is so."""
    assert done(three, "remove", "3").startswith("replica 3 is no member any more: the members are 1 at ")


def test_a_member_is_replaced_by_a_member(three: Cluster) -> None:
    said = refused(three, "replace", "1", three.nodes[1].address)
    assert f"{three.nodes[1].address} is a member already, replica 2" in said
    assert "`dthreading members remove 1`" in said
    assert "cannot replace itself" in refused(three, "replace", "2", three.nodes[1].address)


def test_leadership_goes_to_nobody(three: Cluster, other: Cluster) -> None:
    assert "there is no replica 3" in refused(three, "transfer-leader", "3")
    assert "the only member" in refused(other, "transfer-leader")
    assert "it is the only member" in refused(other, "remove", "1")


def test_the_last_but_one_of_three_is_removed_with_one_down(three: Cluster) -> None:
    """Two members would be left of which one is down: nothing could be decided any more."""
    leader = three.leader()
    down, up = (node for node in three.nodes if node.running and node is not leader)
    down.kill()
    three.until(lambda: "not reached" in done(three, "list"))
    for victim in (up, leader):
        said = refused(three, "remove", victim.address)
        assert "of the 2 members that would be left, 2 must be up" in said
        assert f"replica {down.id_known} at {down.address} cannot be reached" in said
    down.start(wait=False)
    down.wait_ready()
    three.until(lambda: "not reached" not in done(three, "list"))


def test_no_replica_answers(three: Cluster) -> None:
    result = three.members("list", servers=free_address())
    assert result.returncode == 1
    assert "no replica could answer" in result.stderr


# --- with `dthreading-server --join` ------------------------------------------------------------------------------


def server(*arguments: str) -> subprocess.CompletedProcess[str]:
    import sys

    from tests.server.cluster import ROOT

    return subprocess.run(
        [sys.executable, "-m", "replicas.cli", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip


def test_a_newcomer_joins_itself_or_forms_a_group_at_the_same_time() -> None:
    for arguments, sentence in (
        (("--join", "127.0.0.1:7450"), "--join names 127.0.0.1:7450, which is this replica's own address"),
        (("--join", "127.0.0.1:1", "--cluster", "127.0.0.1:7450"), "give one of the two"),
        (("--replace", "2"), "it goes with --join"),
    ):
        result = server("--listen", "127.0.0.1:7450", *arguments)
        assert result.returncode == 2
        assert sentence in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_a_newcomer_has_no_secret(three: Cluster, tmp_path: Path) -> None:
    arguments = ("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "d"), "--join", three.nodes[0].address)
    result = server(*arguments, "--secret-file", str(tmp_path / "none"))
    assert result.returncode == 2
    assert "copy it there from one of the members" in result.stderr
    assert not (tmp_path / "none").exists()


def test_a_newcomer_has_another_secret(three: Cluster, other: Cluster) -> None:
    with gone_after(three.newcomer("", "--secret-file", str(other.secret_file))) as node:
        node.start(wait=False)
        assert "it does not share this replica's secret" in ended(node, 2)


def test_nobody_listens_where_a_newcomer_is_sent(three: Cluster) -> None:
    """It says so and tries again: what it was told to join may be starting."""
    address = free_address()
    with gone_after(joined(three, joins=address)) as node:
        three.until(lambda: f"cannot join by way of {address} (Connection refused)" in node.log_text())
        assert "is the address right" in node.log_text()


def test_a_newcomer_is_sent_to_a_replica_that_is_in_no_group(three: Cluster) -> None:
    with gone_after(joined(three, joins=free_address())) as lost, gone_after(joined(three, joins=lost.address)) as node:
        three.until(lambda: f"{lost.address} is itself in no group yet" in node.log_text())
        assert "there is nothing to join" in node.log_text()
        said = three.members("list", servers=node.address)
        assert said.returncode == 1
        assert "is in no group yet" in said.stderr


def test_a_directory_of_another_group_is_used_for_a_newcomer(three: Cluster, other: Cluster) -> None:
    with gone_after(three.newcomer()) as node:
        other.kill()
        node.data = other.nodes[0].data
        node.start(wait=False)
        said = ended(node, 2)
        assert f"{node.data} belongs to the group " in said
        assert "give an empty --data-dir" in said
    other.nodes[0].start()


def test_the_directory_of_a_removed_member_is_used_again(three: Cluster) -> None:
    """As it was started before, or as a newcomer: its id is used up."""
    removed = three.nodes[2]
    assert not removed.running
    removed.start(wait=False)
    assert "replica 3 was removed from the group" in ended(removed, 6)
    with gone_after(three.newcomer()) as node:
        node.data = removed.data
        node.start(wait=False)
        assert "start it on an empty data directory with --join" in ended(node, 6)


def test_a_member_has_lost_its_disk_and_comes_back_at_its_address(three: Cluster) -> None:
    """It must not take its own old place by itself; an operator says that it shall, and it gets a new id."""
    leader = three.leader()
    victim = next(node for node in three.nodes if node.running and node is not leader)
    was = victim.id_known
    victim.kill()
    victim.data.rename(victim.data.with_name("lost"))
    victim.joins = leader.address
    victim.start(wait=False)
    sentence = f"if its data is gone, run `dthreading members replace {was} {victim.address}`"
    three.until(lambda: sentence in victim.log_text())
    assert sentence in refused(three, "add", victim.address)
    highest = max(ids(three))
    assert f"is a member: replica {highest + 1}" in done(three, "replace", str(was), victim.address)
    victim.wait_ready()
    assert was not in ids(three)
    assert highest + 1 in ids(three)


def test_a_member_is_started_elsewhere(three: Cluster) -> None:
    """The others would not find it."""
    last = three.nodes[-1]
    last.kill()
    with gone_after(three.newcomer()) as node:
        node.data = last.data
        node.start(wait=False)
        assert f"which the others look for at {last.address}" in ended(node, 2)
        result = server(
            "--listen", "127.0.0.1:0", "--data-dir", str(last.data), "--secret-file", str(three.secret_file)
        )
        assert result.returncode == 2
        assert f"at {last.address}, but this one was started at" in result.stderr
    last.start()


# --- what else goes wrong ------------------------------------------------------------------------------------------


def test_a_durable_newcomer_joins_a_group_that_keeps_nothing_and_the_other_way_round(
    three: Cluster, tmp_path: Path
) -> None:
    with Cluster(1, memory=True) as forgetful:
        forgetful.memory = False
        with gone_after(forgetful.newcomer()) as node:
            node.start(wait=False)
            said = ended(node, 2)
            assert f"{forgetful.nodes[0].address} and its group keep nothing on disk (--memory)" in said
            assert f"a data directory, {node.data}" in said
            assert "start it with --memory" in said
    three.memory = True
    try:
        with gone_after(three.newcomer()) as node:
            node.start(wait=False)
            said = ended(node, 2)
            assert "keep their state on disk, and this replica was started with --memory" in said
            assert "give it a --data-dir" in said
    finally:
        three.memory = False


def test_two_operators_replace_one_member_at_once(three: Cluster) -> None:
    """One of them is told who has come first; the group has as many members as before, whoever it was."""
    before = ids(three)
    victim = before[0]
    first, second = three.newcomer(), three.newcomer()
    for node in (first, second):
        node.start(wait=False)
    for node in (first, second):
        three.until(lambda node=node: node.ask("status"))
    commands = [members_command(three, "replace", str(victim), node.address) for node in (first, second)]
    ended_with = [command.communicate(timeout=60) for command in commands]
    codes = [command.returncode for command in commands]
    assert 0 in codes, ended_with
    loser = codes.index(2) if 2 in codes else None
    if loser is not None:
        (sentence,) = [line for line in ended_with[loser][1].splitlines() if not line.startswith("waiting: ")]
        told = (f"the place of replica {victim}", "nobody can take its place", f"`dthreading members remove {victim}`")
        assert any(words in sentence for words in told), sentence
        done(three, "remove", (first, second)[loser].address)
    else:  # the second came when all was over; then it is one more member, which that operator is told
        done(three, "remove", second.address)
    assert victim not in ids(three)
    assert len(ids(three)) == len(before)


def members_command(cluster: Cluster, *arguments: str) -> subprocess.Popen[str]:
    """`dthreading members ...`, begun."""
    import sys

    from tests.server.cluster import ROOT

    servers = ",".join(node.address for node in cluster.nodes if node.running)
    return subprocess.Popen(
        [sys.executable, "-m", "dthreading.cli", "members", *arguments],
        env=cluster.client_environment(DTHREADING_SERVERS=servers),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_member_that_missed_a_change_is_started_with_the_new_list() -> None:
    """From what it knows, that may be another group's list as well as its own; it says what to do in both cases."""
    with Cluster(3) as cluster:
        cluster.leader()
        away = cluster.nodes[2]
        away.kill()
        new = joined(cluster)
        done(cluster, "replace", cluster.nodes[0].address, new.address)
        assert cluster.nodes[0].wait() == 6
        present = [node.address for node in cluster.nodes if node.running or node is away]
        away.options = ("--cluster", ",".join(present))
        away.start(wait=False)
        said = ended(away, 2)
        assert f"{away.data} belongs to a group of " in said
        assert (
            "if its members were changed while it was away, start it with --join and the address of one of them" in said
        )
        away.options, away.joins = (), new.address
        away.start(wait=False)
        newest = new.ask("status")["chosen"]
        cluster.until(lambda: away.ask("status")["applied"] >= newest)
        assert away.ask("status")["replica"] == 3, "it is who it was"
