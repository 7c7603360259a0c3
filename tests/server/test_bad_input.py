# SPDX-License-Identifier: Apache-2.0
"""Bad input to the port of a real replica, with a healthy client beside it that is served between any two of them."""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import struct
from collections.abc import Iterator

import pytest

from dthreading.wire import limits
from dthreading.wire.codec import encode
from dthreading.wire.framing import frame
from dthreading.wire.messages import Attach, Call, Keepalive, Lifetime, Open, Proof, Reply, Resume, Role, Status
from tests.server.cluster import Cluster
from tests.server.raw import Raw, Refused, connect

IDLE_CONNECTIONS = 1500
"""Enough to need more descriptors than a shell gives by default (1024), few enough for a test."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(1, memory=True) as cluster:
        cluster.leader()
        yield cluster
        assert cluster.nodes[0].stop() == 0, "it lived through all of it"
        assert "Traceback" not in cluster.nodes[0].log_text()


@pytest.fixture
def healthy(cluster: Cluster) -> Iterator[Raw]:
    with cluster.client() as client:
        client.open(60_000)
        lock = client.attach("Lock", "healthy")
        client.call(lock, "locked")
        yield client


def is_served(client: Raw) -> bool:
    fence = client.call(1, "acquire", True, 1)
    client.call(1, "release", fence)
    return type(fence) is int


def until_cut(stranger: socket.socket) -> None:
    """Reads until the server has ended the connection."""
    with contextlib.suppress(ConnectionError):
        while stranger.recv(65536):
            pass


def test_random_bytes(cluster: Cluster, healthy: Raw) -> None:
    luck = random.Random(7)
    for _ in range(200):
        with connect(cluster.nodes[0].address) as stranger, contextlib.suppress(ConnectionError):
            stranger.sendall(luck.randbytes(luck.randrange(1, 5000)))
    assert is_served(healthy)


def test_random_bytes_in_whole_frames_after_the_handshake(cluster: Cluster, healthy: Raw) -> None:
    """Whoever knows the secret may still be broken: he is cut, and nobody else notices."""
    luck = random.Random(8)
    for _ in range(100):
        with cluster.client(cluster.nodes[0]) as client, contextlib.suppress(ConnectionError):
            client.socket.sendall(frame(luck.randbytes(luck.randrange(1, 200))))
            until_cut(client.socket)
    assert is_served(healthy)


def test_mutated_messages(cluster: Cluster, healthy: Raw) -> None:
    luck = random.Random(9)
    messages = [
        Call(1, 0, 1, 1, "acquire", (True, 1), False),
        Attach(1, 1, "n", "name", "Lock", (), Lifetime.NAMED, True),
        Resume(1, b"n" * 16),
        Keepalive(1, 1),
        Proof(b"p" * 32),
    ]
    for _ in range(300):
        body = bytearray(encode(luck.choice(messages)))
        for _ in range(luck.randrange(1, 4)):
            body[luck.randrange(len(body))] = luck.randrange(256)
        with cluster.client(cluster.nodes[0]) as client, contextlib.suppress(ConnectionError):
            client.open(1000)
            client.socket.sendall(frame(bytes(body)))
    assert is_served(healthy)


def test_odd_but_well_formed_calls(cluster: Cluster, healthy: Raw) -> None:
    """Anything that is a message goes into the log: apply must answer all of it with an error, and never break."""
    with cluster.client() as client:
        session = client.open(60_000)
        lock = client.attach("Lock", "odd")
        number = 0
        for handle in (0, lock, 77, -1, 2**80):
            for operation in ("acquire", "__init__", "dump", "_private", "", "x" * 2000):
                for arguments in ((), (None,) * 20, (True, True), ((((1,),),),), (2**200,), (float("nan"), b"\0")):
                    number += 1
                    client.say(Call(session, 5, number, handle, operation, arguments, False))
        seen = 0
        while seen < number:
            reply = client.expect(Reply)
            assert reply.status == Status.ERROR, reply
            seen = max(seen, reply.number)
        assert client.call(lock, "locked") is False
    assert cluster.nodes[0].ask("status")["broken"] == 0
    assert is_served(healthy)


def test_no_client_can_give_so_many_permits_that_others_cannot_read_the_number(cluster: Cluster, healthy: Raw) -> None:
    """Replicas add up what clients say, and an answer may be longer by so much. Whoever says more than a client may is
    cut: else everybody who looks at that semaphore would lose one connection after the other.
    """
    honest = healthy.attach("Semaphore", "permits", 0)
    assert healthy.call(honest, "value") == 0
    for huge in (2 ** (8 * limits.INT_BYTES_MAX - 1), 2 ** (8 * limits.INT_BYTES_MAX + 60)):
        for words in (
            lambda raw, huge: Call(raw.session, 0, 1, raw.attach("Semaphore", "permits", 0), "release", (huge,), False),
            lambda raw, huge: Call(raw.session, 0, 1, raw.attach("Lock", "x"), "release", ((1, (-huge - 1,)),), False),
            lambda raw, huge: Attach(raw.session, 9, "n", "large", "Semaphore", (huge,), Lifetime.NAMED, True),
        ):
            with cluster.client() as hostile:
                hostile.open()
                hostile.say(words(hostile, huge))
                until_cut(hostile.socket)
    largest = 2 ** (8 * limits.INT_BYTES_MAX - 1) - 1
    for _ in range(3):
        healthy.call(honest, "release", largest)
    assert healthy.call(honest, "value") == 3 * largest
    assert is_served(healthy)


@pytest.mark.parametrize("size", [0, 4097, 2**24 + 1, 2**31, 2**32 - 1])
def test_a_bad_length_is_refused_on_the_prefix(cluster: Cluster, healthy: Raw, size: int) -> None:
    with connect(cluster.nodes[0].address) as stranger:
        stranger.sendall(struct.pack(">I", size))
        until_cut(stranger)
    assert is_served(healthy)


def test_a_known_client_may_not_send_more_than_a_frame(cluster: Cluster, healthy: Raw) -> None:
    with cluster.client() as client:
        client.socket.sendall(struct.pack(">I", 2**24 + 1))
        until_cut(client.socket)
    assert is_served(healthy)


def test_half_frames_and_silence(cluster: Cluster, healthy: Raw) -> None:
    """They cost a descriptor until the handshake's deadline, and then nothing."""
    with contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(connect(cluster.nodes[0].address)) for _ in range(50)]
        for place, stranger in enumerate(strangers):
            stranger.sendall(frame(b"\x95" + b"x" * 40)[: place % 20])
        assert is_served(healthy)
        for stranger in strangers:
            until_cut(stranger)
    assert is_served(healthy)


def test_another_session_is_nobodys_to_use(cluster: Cluster, healthy: Raw) -> None:
    """A client that names the session of another is hung up, and that session does not notice."""
    with cluster.client() as thief:
        thief.open()
        thief.say(Call(healthy.session, 0, 10**6, 1, "acquire", (True, 1), False))
        until_cut(thief.socket)
    with cluster.client() as thief:
        thief.say(Resume(healthy.session, b"guess" * 3 + b"!"))
        with pytest.raises(Refused, match="another client's"):
            thief.hear()
    assert is_served(healthy)


@pytest.mark.parametrize(
    ("question", "before", "after"),
    [("add", (), (b"i" * 16,)), ("join", (), (b"j" * 16, "", 0)), ("replace", ("1",), (b"k" * 16,))],
)
@pytest.mark.parametrize(
    "address",
    ["nonsense", "127.0.0.1:99999", "unix:relative", "", "h" * 300 + ":1", "unix:/" + "p" * 300, "\0" * 5_000_000],
    ids=lambda address: address[:10],
)
def test_what_is_no_address_comes_into_no_log(
    cluster: Cluster, healthy: Raw, question: str, before: tuple[str, ...], address: str, after: tuple[object, ...]
) -> None:
    """Every replica dials whoever is admitted, now and after each start: none could live with such an entry."""
    answer = cluster.nodes[0].ask(f"members.{question}", *before, address, *after)
    assert answer["refused"]
    assert "is not an address" in answer["say"]
    assert len(answer["say"]) < 2000
    assert is_served(healthy)
    assert [row["replica"] for row in cluster.nodes[0].ask("members.list")["members"]] == [1]


@pytest.mark.parametrize("question", ["remove", "transfer"])
def test_a_member_of_five_thousand_digits_is_no_member(cluster: Cluster, healthy: Raw, question: str) -> None:
    """More digits than Python turns into a number."""
    answer = cluster.nodes[0].ask(f"members.{question}", "9" * 5000, *([0] if question == "transfer" else []))
    assert "there is no replica 999" in answer["say"]
    assert is_served(healthy)


@pytest.mark.parametrize("place", range(3))
def test_an_error_that_names_a_condition_s_lock_is_no_longer_than_a_frame(
    cluster: Cluster, healthy: Raw, place: int
) -> None:
    """What a Condition is over is said in full to whoever waits with another lock. An answer that fits no frame would
    end the replica that owes it, and the next one that its client turns to.
    """
    words = ["n", "l", "Lock"]
    words[place] = "\0" * 5_000_000  # four characters each where they are named
    with cluster.client() as hostile:
        session = hostile.open()
        lock, condition = hostile.attach("Lock", "l"), hostile.attach("Condition", "long", *words)
        hostile.say(Call(session, 1, 1, condition, "wait", (lock, 1, None), False))
        until_cut(hostile.socket)
    assert is_served(healthy)


@pytest.mark.parametrize("place", range(3))
def test_a_session_of_long_words_is_not_opened(cluster: Cluster, healthy: Raw, place: int) -> None:
    """Its label stands at each of its locks in what operators are shown: 8 MB a hundred thousand times."""
    words: list[object] = [b"n" * 16, "n", "l"]
    words[place] *= 100_000  # type: ignore[operator]
    with cluster.client() as hostile:
        hostile.say(Open(words[0], 10_000, words[1], words[2]))  # type: ignore[arg-type]
        with pytest.raises(Refused, match="BYTES_MAX"):
            hostile.hear()
    assert is_served(healthy)


def test_a_client_that_does_not_read(cluster: Cluster, healthy: Raw) -> None:
    """Its answers are kept up to a limit; then it is cut, and the replica's memory is its own again."""
    with cluster.client() as client:
        session = client.open(60_000)
        queue = client.attach("Queue", "large", 0, False)
        client.call(queue, "put", True, bytes(4_000_000), None)
        client.socket.settimeout(60)
        with contextlib.suppress(ConnectionError):
            for number in range(100, 200):
                # Taken and put back by the end of the session, each a different call: 400 MB of answers.
                client.say(Call(session, 1, number, queue, "put", (True, bytes(1_000_000), None), False))
                client.say(Call(session, 2, number, queue, "get", (True,), False))
            client.socket.recv(1)
    assert is_served(healthy)


def test_many_idle_connections(cluster: Cluster, healthy: Raw) -> None:
    """Silent strangers and silent clients by the hundred: a descriptor each, and nobody waits for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * IDLE_CONNECTIONS + 100
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"only {hard} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(IDLE_CONNECTIONS):
                stack.enter_context(connect(cluster.nodes[0].address))
            assert is_served(healthy)
            known = [stack.enter_context(Raw(cluster.nodes[0].address, cluster.secret)) for _ in range(100)]
            operator = stack.enter_context(Raw(cluster.nodes[0].address, cluster.secret, Role.ADMIN))
            assert operator.ask("status")["replica"] == 1
            assert is_served(healthy)
            assert all(client.open() for client in known)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert is_served(healthy)
