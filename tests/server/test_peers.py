# SPDX-License-Identifier: Apache-2.0
"""The links between replicas: who is listened to, what is dropped, and that a broken link is dialed again."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable

import pytest

from dthreading.wire.messages import Welcome
from replicas.daemon import peers as peers_module
from replicas.daemon.address import Address
from replicas.daemon.clients import Clients
from replicas.daemon.connections import Connection, Outgoing
from replicas.daemon.journal import Muffler
from replicas.daemon.loop import Loop, Server
from replicas.daemon.peers import Introduction, Peers
from replicas.paxos.values import Configuration
from replicas.replica.acquaintance import REMOVED, Objection
from replicas.replica.formation import Census
from replicas.replica.messages import Forward, Vouch

SECRET = bytes(range(32))
CENSUS = Census(0, ("a", "b"), b"i", Configuration("", 0, (), b""))


class FakeReplica:
    """Both ends of the links of one replica; notes what it hears."""

    def __init__(self, number: int, secret: bytes = SECRET, cluster: str = "c") -> None:
        self.number = number
        self.cluster = cluster
        self.heard: list[tuple[int, object]] = []
        self.ups: list[int] = []
        self.gone: set[int] = set()
        self.told_removed: list[str] = []
        self.changed = asyncio.Event()
        self.loop = loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        outgoing = Outgoing(loop.soon)
        self.clients = Clients(self, outgoing, secret, Muffler(), 100)
        self.peers = Peers(self, outgoing, Muffler(), loop, lambda address: secret)
        self.server: Server | None = None
        self.listening: socket.socket | None = None
        self.port = 0

    async def listen(self, port: int = 0) -> Address:
        self.listening = socket.create_server(("127.0.0.1", port))
        self.server = self.loop.serve(self.listening, self.clients.accept, 100)
        self.port = self.listening.getsockname()[1]
        return Address("127.0.0.1", self.port)

    def close(self) -> None:
        self.peers.close()
        if self.server is not None:
            self.server.close()
            self.listening.close()
        for connection in list(self.clients._all):
            connection.cut()

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 10)

    # Host of Clients

    def now_s(self) -> float:
        return 0.0

    def came(self) -> None:
        pass

    def welcome(self) -> Welcome:
        return Welcome(self.cluster, self.number, "", ())

    def replica_came(self, connection: Connection) -> None:
        self.peers.came(connection)

    # Host of Peers

    def introduction(self, to: int) -> Introduction:
        return Introduction(self.cluster, self.number, b"i", to)

    def refusal(self, introduction: Introduction) -> Objection | None:
        if introduction.to != self.number:
            return Objection("wrong_group", f"it means to reach replica {introduction.to}")
        if introduction.replica in self.gone:
            return Objection(REMOVED, f"replica {introduction.replica} was removed")
        return None

    def removed(self, sentence: str) -> None:
        self.told_removed.append(sentence)
        self.changed.set()

    def peer_said(self, source: int, message: object) -> None:
        self.heard.append((source, message))
        self.changed.set()

    def link_up(self, replica: int) -> None:
        self.ups.append(replica)
        self.changed.set()

    def luck(self) -> float:
        return 0.0


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await story()
        for _ in range(20):  # transports end in callbacks of their own
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


@pytest.fixture(autouse=True)
def _heard_log(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("dthreading").propagate = True
    caplog.set_level("INFO")


def test_what_is_said_on_a_link_arrives_in_order() -> None:
    async def story() -> None:
        first, second = FakeReplica(1), FakeReplica(2)
        first.peers.link({2: await second.listen()})
        first.peers.send(2, Vouch(0, 0))  # no link yet: dropped
        await first.until(lambda: first.ups == [2])
        assert first.peers.linked == (2,)
        for beat in range(1, 100):
            first.peers.send(2, Vouch(7, beat))
        await second.until(lambda: len(second.heard) >= 99)
        assert second.heard == [(1, Vouch(7, beat)) for beat in range(1, 100)]
        first.close()
        second.close()

    run(story)


def test_a_link_that_breaks_is_dialed_again(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        first, second = FakeReplica(1), FakeReplica(2)
        address = await second.listen()
        first.peers.link({2: address})
        await first.until(lambda: first.ups == [2])
        second.close()
        again = FakeReplica(2)
        await again.listen(address.port)
        await first.until(lambda: first.ups == [2, 2])
        first.peers.send(2, Vouch(7, 1))
        await again.until(lambda: again.heard)
        first.close()
        again.close()

    run(story)
    assert "lost the link to replica 2" in caplog.text


def test_a_machine_without_a_thread_to_spare_dials_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are looked up in threads. When one cannot be had for a moment, the link must not be lost for ever."""
    monkeypatch.setattr(peers_module, "DIAL_S_MIN", 0.001)

    async def story() -> None:
        first, second = FakeReplica(1), FakeReplica(2)
        look_up = first.loop.getaddrinfo

        async def short(*arguments: object, **more: object) -> object:
            monkeypatch.setattr(first.loop, "getaddrinfo", look_up)
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(first.loop, "getaddrinfo", short)
        first.peers.link({2: await second.listen()})
        await first.until(lambda: first.ups == [2])
        first.close()
        second.close()

    run(story)


def test_a_link_that_is_begun_anew_while_it_is_dialed_waits_for_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was hung up before it was connected says nothing on the connection, so nobody must wait for it to."""
    monkeypatch.setattr(peers_module, "HANDSHAKE_S", 3600.0)

    async def story() -> None:
        first, second = FakeReplica(1), FakeReplica(2)
        connect = first.loop.sock_connect
        dialing, gate = asyncio.Event(), asyncio.Event()

        async def slow(*arguments: object) -> None:
            dialing.set()
            await gate.wait()
            await connect(*arguments)

        monkeypatch.setattr(first.loop, "sock_connect", slow)
        first.peers.link({2: await second.listen()})
        await asyncio.wait_for(dialing.wait(), 10)
        first.peers.introduce_again()
        gate.set()
        await first.until(lambda: first.ups == [2])
        first.close()
        second.close()

    run(story)


def test_a_replica_that_is_down_for_long_is_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "DIAL_S_MIN", 0.001)
    monkeypatch.setattr(peers_module, "DIAL_S_MAX", 0.001)

    async def story() -> None:
        first, second = FakeReplica(1), FakeReplica(2)
        address = await second.listen()
        second.close()
        tries = 0

        def luck() -> float:
            nonlocal tries
            tries += 1
            first.changed.set()
            return 0.0

        first.luck = luck
        first.peers.link({2: address})
        await first.until(lambda: tries > 10)
        first.close()

    run(story)
    assert caplog.text.count("no link to replica 2") == 1


def test_whoever_means_another_is_refused_by_name(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        first, third = FakeReplica(1), FakeReplica(3)
        first.peers.link({2: await third.listen()})
        while "it refused us" not in caplog.text:  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0)
        assert third.heard == []
        first.close()
        third.close()

    run(story)
    assert "refused the link from 127.0.0.1:" in caplog.text
    assert "it means to reach replica 2" in caplog.text


def test_one_that_refuses_us_for_long_is_three_lines_and_one_more_when_it_takes_us(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member of a running group on another group's directory, say: both sides dial each other for ever."""
    monkeypatch.setattr(peers_module, "DIAL_S_MIN", 0.001)
    monkeypatch.setattr(peers_module, "DIAL_S_MAX", 0.001)
    monkeypatch.setattr(peers_module, "SETTLED_S", 60.0)

    async def story() -> None:
        first, second = FakeReplica(1), FakeReplica(2)
        second.gone.add(1)
        monkeypatch.setattr(peers_module, "REMOVED", "another code")  # else it would end
        first.peers.link({2: await second.listen()})
        await first.until(lambda: len(first.ups) > 10)
        assert caplog.text.count("linked to replica 2") == 1
        assert caplog.text.count("lost the link to replica 2") == 1
        assert caplog.text.count("no link to replica 2") == 1
        monkeypatch.setattr(peers_module, "SETTLED_S", 0.0)
        second.gone.clear()
        while caplog.text.count("linked to replica 2") == 1:  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0)
        first.peers.send(2, Vouch(7, 1))
        await second.until(lambda: second.heard)
        first.close()
        second.close()

    run(story)


def test_what_is_no_address_is_dialed_by_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It may stand in a log from before it was refused at the door: to end would be to end at each start anew."""
    there = {1: "127.0.0.1:7450", 4: "nonsense", 5: "unix:/run/x"}
    assert peers_module.dialable(there) == {1: Address("127.0.0.1", 7450), 5: Address("", 0, "/run/x")}
    (record,) = caplog.records
    assert record.getMessage().startswith("replica 4 cannot be linked to: 'nonsense' is not an address")


def test_another_secret_makes_no_link(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        first, second = FakeReplica(1), FakeReplica(2, secret=os.urandom(32))
        first.peers.link({2: await second.listen()})
        while "no link to replica 2" not in caplog.text:  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0)
        assert first.ups == []
        first.close()
        second.close()

    run(story)
    assert "could not prove that it knows our secret" in caplog.text


def test_a_replica_of_no_group_can_only_say_what_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """One that lost its data must not vote, accept or forward."""

    async def story() -> None:
        first, second = FakeReplica(1, cluster=""), FakeReplica(2)
        first.peers.link({2: await second.listen()})
        await first.until(lambda: first.ups == [2])
        first.peers.send(2, CENSUS)
        first.peers.send(2, Forward(1, 0, (b"x",)))
        await first.until(lambda: len(first.ups) == 2)
        assert second.heard == [(1, CENSUS)]
        first.close()
        second.close()

    run(story)
    assert "Forward from a replica that is in no group" in caplog.text


def test_a_new_connection_of_a_replica_silences_its_old_one() -> None:
    """What still comes over the old one is older than what came over the new one."""

    async def story() -> None:
        first, second = FakeReplica(1), FakeReplica(2)
        first.peers.link({2: await second.listen()})
        await first.until(lambda: first.ups == [2])
        first.peers.introduce_again()
        await first.until(lambda: first.ups == [2, 2])
        first.peers.send(2, Vouch(7, 1))
        await second.until(lambda: second.heard)
        assert second.heard == [(1, Vouch(7, 1))]
        first.close()
        second.close()

    run(story)


def test_messages_for_one_that_does_not_read_are_dropped(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its queue must not grow for ever, and news must not wait behind old news."""
    monkeypatch.setattr(peers_module, "UNREAD_BYTES_MAX", 100_000)

    async def story() -> None:
        first, second = FakeReplica(1), FakeReplica(2)
        first.peers.link({2: await second.listen()})
        await first.until(lambda: first.ups == [2])
        page = Forward(1, 0, (bytes(1_000_000),))
        await second.until(lambda: second.clients._all)
        (accepted,) = second.clients._all
        accepted._transport.pause_reading()
        sent = 0
        while "does not read" not in caplog.text:
            first.peers.send(2, page)
            sent += 1
            await asyncio.sleep(0)
        for _ in range(100):
            first.peers.send(2, page)
        link = first.peers._dialers[2].link
        assert link is not None
        assert link._transport.get_write_buffer_size() < 10_000_000
        accepted._transport.resume_reading()
        await second.until(lambda: not link.clogged)
        first.peers.send(2, Vouch(7, 1))
        await second.until(lambda: second.heard[-1:] == [(1, Vouch(7, 1))])
        assert len(second.heard) == sent + 1, "the hundred were dropped, and only they"
        first.close()
        second.close()

    run(story)
