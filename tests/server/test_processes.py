# SPDX-License-Identifier: Apache-2.0
"""Replicas as processes: they come up, keep what they acknowledged through kill -9, and stop when they are asked to."""

from __future__ import annotations

import resource
import signal
import socket
from collections.abc import Iterator

import pytest

from dthreading.wire.messages import Call, MoveOn, Reply, Resume, Resumed, Status, Welcome
from tests.server.cluster import Cluster, Node
from tests.server.raw import Raw


@pytest.fixture
def three() -> Iterator[Cluster]:
    with Cluster(3) as cluster:
        yield cluster


@pytest.fixture
def one() -> Iterator[Cluster]:
    with Cluster(1) as cluster:
        yield cluster


def held(cluster: Cluster, node: Node, name: str) -> list[int]:
    """The sessions that hold the lock, as this replica sees it."""
    (row,) = node.ask("locks", name)
    return [holder["session"] for holder in row["holders"]]


def test_a_group_of_three_serves(three: Cluster) -> None:
    leader = three.leader()
    with three.client(leader) as client:
        client.open()
        lock = client.attach("Lock", "a")
        fence = client.call(lock, "acquire", True, 1)
        assert type(fence) is int
        assert client.call(lock, "acquire", False, 1) is False
        assert held(three, leader, "a") == [client.session]
        client.call(lock, "release", fence)
        assert isinstance(client.welcome, Welcome)
        assert set(client.welcome.servers) == set(three.servers.split(","))
    for node in three.nodes:
        assert node.ready_line.startswith(f"dthreading-server ready: replica {node.number} of 3 at {node.address}")


def test_a_client_is_served_through_any_replica(three: Cluster) -> None:
    leader = three.leader()
    follower = next(node for node in three.nodes if node is not leader)
    with three.client(follower) as client:
        assert client.welcome.leader == leader.address
        client.open()
        queue = client.attach("Queue", "q", 0, False)
        client.call(queue, "put", True, b"item", None)
        assert client.call(queue, "qsize") == 1


def test_what_was_acknowledged_survives_the_death_of_all(three: Cluster) -> None:
    """kill -9 of all replicas at once: held locks are held, queued items are queued, and the session lives on."""
    client = three.client()
    session = client.open(ttl_ms=60_000)
    lock = client.attach("Lock", "a")
    queue = client.attach("Queue", "q", 0, False)
    fence = client.call(lock, "acquire", True, 1)
    for number in range(20):
        client.call(queue, "put", True, b"%d" % number, None)
    nonce = client.nonce
    client.socket.close()

    three.kill()
    three.start()

    with three.client() as client:
        client.say(Resume(session, nonce))
        assert client.expect(Resumed) == Resumed(session)
        client.session, client.number = session, 1000
        assert client.call(queue, "qsize") == 20
        assert [client.call(queue, "get", True) for _ in range(20)] == [b"%d" % number for number in range(20)]
        assert client.call(lock, "locked") is True
        client.call(lock, "release", fence)
        assert client.call(lock, "locked") is False


def test_the_death_of_the_leader_is_survived_and_it_comes_back(three: Cluster) -> None:
    old = three.leader()
    with three.client(old) as client:
        session, nonce = client.open(ttl_ms=60_000), client.nonce
        lock = client.attach("Lock", "a")
        client.call(lock, "acquire", True, 1)
        old.kill()
    new = three.leader()
    assert new is not old
    with three.client(new) as client:
        client.say(Resume(session, nonce))
        assert client.expect(Resumed) == Resumed(session)
        client.session, client.number = session, 1000
        assert client.call(lock, "locked") is True
        # Sent twice: answered from the lane, not done twice.
        release = Call(session, 0, 2000, lock, "release", (None,), False)
        for _ in range(2):
            client.say(release)
            assert client.expect(Reply).status == Status.OK
        old.start()
        chosen = new.ask("status")["chosen"]
        three.until(lambda: old.ask("status")["applied"] >= chosen)
        digests = {node.ask("status")["digest"] for node in three.nodes}
        assert len(digests) == 1, "the one that came back has the same state"


def test_sigterm_hands_leadership_over(three: Cluster) -> None:
    """A planned stop must not cost the group an election timeout."""
    leader = three.leader()
    with three.client(leader) as client:
        client.open()
        assert leader.stop() == 0
        client.expect(MoveOn)
    log = leader.log_text()
    assert "handing over" in log
    assert "stopped" in log
    assert three.leader() is not leader


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_single_replica_cleanly(one: Cluster, number: int) -> None:
    (node,) = one.nodes
    with one.client() as client:
        client.open()
        lock = client.attach("Lock", "a")
        client.call(lock, "acquire", True, 1)
        node.signal(number)
        assert node.wait() == 0
    node.start()
    three_sessions = node.ask("status")["sessions"]
    assert three_sessions == 1, "the session was not closed by the end of its replica"


def test_all_stop_at_once(three: Cluster) -> None:
    three.leader()
    assert three.stop() == [0, 0, 0]


def test_a_frozen_leader_is_replaced_and_follows_when_it_wakes(three: Cluster) -> None:
    old = three.leader()
    old.signal(signal.SIGSTOP)
    others = [node for node in three.nodes if node is not old]
    three.until(lambda: others[0].ask("status")["leader"] not in {None, old.number})
    old.signal(signal.SIGCONT)
    three.until(lambda: old.ask("status")["role"] == "follower" and old.ask("status")["leader"] is not None)


def test_a_memory_replica_that_comes_back_empty_does_not_vote() -> None:
    """What it had promised is forgotten; it says so, and how it is to be replaced."""
    with Cluster(3, memory=True) as cluster:
        leader = cluster.leader()
        victim = next(node for node in cluster.nodes if node is not leader)
        victim.kill()
        victim.start(wait=False)
        assert victim.wait() == 5
        assert "new id" in victim.log_text()
        with cluster.client(leader) as client:
            client.open()


def test_an_emptied_directory_does_not_vote(three: Cluster) -> None:
    leader = three.leader()
    victim = next(node for node in three.nodes if node is not leader)
    victim.kill()
    victim.data.rename(victim.data.with_name("lost"))
    victim.start(wait=False)
    assert victim.wait() == 5
    assert "must not vote again" in victim.log_text()
    assert f"with --join and the address of another member, and --replace {victim.number}" in victim.log_text()


def test_a_directory_of_another_place_is_refused(three: Cluster) -> None:
    three.leader()
    first, second, _ = three.nodes
    first.kill()
    second.kill()
    first.data, second.data = second.data, first.data
    first.start(wait=False)
    assert first.wait() == 2
    assert "is that of replica 2" in first.log_text()


def test_a_group_forms_only_of_all_its_members() -> None:
    """Two of three empty replicas must wait: the third may hold the only memory of an older group."""
    cluster = Cluster(3)
    try:
        for node in cluster.nodes[:2]:
            node.start()
        with Raw(cluster.nodes[0].address, cluster.secret) as client:
            assert client.welcome.cluster == ""
            client.say_open()
            assert isinstance(client.hear(), MoveOn)
        assert cluster.nodes[0].ask("status")["role"] == "forming"
        cluster.nodes[2].start()
        assert cluster.leader() in cluster.nodes
    finally:
        cluster.close()


def test_a_stranger_on_the_port_of_a_replica_is_no_replica() -> None:
    """The link proves the secret both ways before a word is said over it."""
    cluster = Cluster(3)
    try:
        first, second, third = cluster.nodes
        with socket.socket() as impostor:
            impostor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            host, port = third.address.split(":")
            impostor.bind((host, int(port)))
            impostor.listen()
            impostor.settimeout(20)
            first.start()
            second.start()
            connection, _ = impostor.accept()
            with connection:
                connection.settimeout(20)
                said = connection.recv(4096)
                assert cluster.secret not in said
                connection.sendall(b"\0\0\0\x05hello")
                while connection.recv(4096):
                    pass
        cluster.until(lambda: "no link to replica 3" in first.log_text() or "no link to replica 3" in second.log_text())
        third.start()
        assert cluster.leader() in cluster.nodes
    finally:
        cluster.close()


def fill(cluster: Cluster, client: Raw, queue: int, megabytes: int) -> None:
    """Through a queue, and out of it again but for one item: enough bytes for a snapshot."""
    for _ in range(megabytes):
        client.call(queue, "put", True, bytes(1_000_000), None)
        client.call(queue, "get", True)


def test_the_log_is_cut_by_snapshots_and_the_state_survives(three: Cluster) -> None:
    """Whoever was away meanwhile gets a snapshot; whoever restarts begins at his own."""
    leader = three.leader()
    away = next(node for node in three.nodes if node is not leader)
    with three.client(leader) as client:
        session, nonce = client.open(ttl_ms=600_000), client.nonce
        lock = client.attach("Lock", "a")
        fence = client.call(lock, "acquire", True, 1)
        queue = client.attach("Queue", "q", 0, False)
        client.call(queue, "put", True, b"kept", None)
        away.kill()
        fill(three, client, queue, 40)
        three.until(lambda: leader.ask("status")["snapshot"] > 0)
        snapshot = leader.ask("status")["snapshot"]
        away.start()
        three.until(lambda: away.ask("status")["applied"] >= snapshot)
        assert away.ask("status")["snapshot"] >= snapshot, "the entries are gone: a snapshot was all it could get"
        chosen = leader.ask("status")["chosen"]
        three.until(lambda: all(node.ask("status")["applied"] >= chosen for node in three.nodes))
        assert len({node.ask("status")["digest"] for node in three.nodes}) == 1
        assert leader.ask("status")["log_bytes"] < 40_000_000
    three.kill()
    three.start()
    with three.client() as client:
        client.say(Resume(session, nonce))
        assert client.expect(Resumed) == Resumed(session)
        client.session, client.number = session, 10_000
        assert client.call(lock, "locked") is True
        client.call(lock, "release", fence)
        assert client.call(queue, "qsize") == 1


def test_the_next_segment_of_the_log_is_made_before_it_is_needed(one: Cluster) -> None:
    """Else a batch, and all that the loop serves, waits until 16 MB of zeros are on the disk."""
    (node,) = one.nodes
    with one.client() as client:
        client.open()
        queue = client.attach("Queue", "q", 0, False)
        fill(one, client, queue, 9)
    one.until(lambda: len(list(node.data.glob("log-*"))) == 2)
    assert node.ask("status")["log_bytes"] < 16_000_000, "the first segment had room for all that"


def use(client: Raw, lock: int, times: int) -> None:
    for _ in range(times):
        client.call(lock, "acquire", True, 1)
        client.call(lock, "release", None)


def test_a_disk_that_fails_ends_the_replica_with_one_sentence(one: Cluster) -> None:
    """A failed write is never tried again: what the page cache forgot would be reported as written."""
    (node,) = one.nodes
    with one.client() as client:
        client.open()
        lock = client.attach("Lock", "a")
        assert node.process is not None
        # Its log file (on standard error) is shorter than this, the write-ahead log's next batch lies beyond it.
        limit = max(4096, node.log.stat().st_size + 1024)
        use(client, lock, limit // 512)
        resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises((EOFError, ConnectionError)):
            use(client, lock, 10)
    assert node.wait() == 3
    last = node.log_text().splitlines()[-1]
    assert last.startswith("dthreading-server: the disk has failed")
    assert "Traceback" not in node.log_text()
    node.start()
    with one.client() as client:
        client.open()
