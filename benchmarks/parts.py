# SPDX-License-Identifier: Apache-2.0
"""Where the Python of one call goes: the sans-IO parts of a client and three replicas in one process, part by part; and
what the codec takes of it for each sort of message.

No socket, no disk and no other process, so these are the microseconds that code can save; what a call takes beyond
them is the system's and the event loop's.
"""

from __future__ import annotations

import os
import time
import timeit
from collections import deque
from typing import Any

from benchmarks.harness import Options, Section, percentile
from dthreading.session import ACQUIRE, RELEASE, ClientSession, Manner, PendingCall, Target
from dthreading.wire.codec import decode, encode
from dthreading.wire.framing import FrameDecoder, frame
from dthreading.wire.messages import Call, Keepalive, Lifetime, Reply
from replicas.machine.core import Machine
from replicas.paxos.core import Paxos
from replicas.paxos.messages import Accept, Accepted, Promise
from replicas.paxos.types import Ballot, Configuration, Durable, Entry, Member, Timing
from replicas.replica.core import Replica
from replicas.replica.messages import Forward, codec

CONNECTION = 1
LEADER, FOLLOWER = 1, 2
PARTS = (
    "client: begin, number, encode",
    "leader: decode, propose",
    "leader: encode two Accepts",
    "follower: decode, accept, apply what was chosen, encode its answer",
    "leader: decode two answers, choose, apply",
    "leader: encode the reply",
    "client: decode the reply, settle, finish",
)


class Parts:
    """A client's session and three replicas; every word between them is bytes, as it would be on the wire."""

    def __init__(self) -> None:
        members = tuple(Member(number, f"127.0.0.1:{number}", bytes([number])) for number in (1, 2, 3))
        configuration = Configuration("parts", 1, members, b"")
        self._now_ms = 0
        self._replicas = {member.id: _replica(member.id, configuration) for member in members}
        self.spent = dict.fromkeys(PARTS, 0.0)
        self._elect()
        self._outbox: deque[bytes] = deque()
        self._decoder = FrameDecoder()
        self._news: list[PendingCall] = []
        self.session = ClientSession(namespace="bench", label="parts", ttl_ms=3_600_000, news=self._news)
        self.session.connected(self._outbox, os.urandom(16), 0.0)
        while not self.session.ready:
            self.exchange()

    def _elect(self) -> None:
        leader = self._replicas[LEADER]
        while not (leader.paxos.ready and leader.machine.applied):
            self._now_ms += 20
            for replica in self._replicas.values():
                replica.tick(self._now_ms)
            self._settle(self._take_all())

    def _take_all(self) -> list[tuple[int, int, bytes]]:
        return [flight for number in self._replicas for flight in self._take(number)[0]]

    def _take(self, number: int) -> tuple[list[tuple[int, int, bytes]], list[Any]]:
        """All that a replica has to say, once everything is durable: to its peers as bytes, and to clients."""
        replica = self._replicas[number]
        messages: list[tuple[int, Any]] = []
        replies: list[Any] = []
        while True:
            output = replica.take()
            messages += output.send_now + output.send_after_sync
            replies += [message for _, message in output.to_clients]
            if not output.batch:
                break
            replica.synced(output.batch)
        began = time.thread_time()
        words = [(number, to, codec.encode(message)) for to, message in messages]
        if number == LEADER:
            self.spent[PARTS[2]] += time.thread_time() - began
        return words, replies

    def _settle(self, flying: list[tuple[int, int, bytes]]) -> list[Any]:
        """Deliver until nothing is on its way. Returns what the leader says to the client."""
        replies: list[Any] = []
        while flying:
            arrived: dict[int, list[tuple[int, bytes]]] = {}
            for source, to, body in flying:
                arrived.setdefault(to, []).append((source, body))
            flying = []
            for to, words in arrived.items():
                part = {LEADER: PARTS[4], FOLLOWER: PARTS[3]}.get(to)
                encoding = self.spent[PARTS[2]]
                began = time.thread_time()
                for source, body in words:
                    self._replicas[to].peer_said(source, codec.decode(body))
                answers, said = self._take(to)
                if part is not None:
                    self.spent[part] += time.thread_time() - began - (self.spent[PARTS[2]] - encoding)
                flying += answers
                replies += said
        return replies

    def exchange(self) -> None:
        """Carry what the client has to say to the leader, and all that comes of it back."""
        now, spent = time.thread_time, self.spent
        while self._outbox:
            data = self._outbox.popleft()
            encoding = spent[PARTS[2]]
            began = now()
            for body in self._decoder.feed(data):
                self._replicas[LEADER].client_said(CONNECTION, decode(body), body)  # type: ignore[arg-type]
            flying, replies = self._take(LEADER)
            spent[PARTS[1]] += now() - began - (spent[PARTS[2]] - encoding)
            replies += self._settle(flying)
            began = now()
            words = [frame(encode(reply)) for reply in replies]
            spent[PARTS[5]] += now() - began
            began = now()
            for word in words:
                self.session.step(decode(word[4:]), 0.0)
            spent[PARTS[6]] += now() - began

    def call(self, target: Target, operation: str, arguments: tuple[Any, ...], manner: Manner) -> Any:
        """One call and its answer."""
        began = time.thread_time()
        call = PendingCall(target, operation, arguments, manner)
        if not self.session.begin(call):
            self.session.submit(call)
        self.spent[PARTS[0]] += time.thread_time() - began
        self.exchange()
        assert call.settled
        value = call.value
        began = time.thread_time()
        self._news.clear()
        self.session.finish(call)
        self.spent[PARTS[6]] += time.thread_time() - began
        return value


def _replica(number: int, configuration: Configuration) -> Replica:
    paxos = Paxos(
        replica=number,
        configuration=configuration,
        durable=Durable(),
        timing=Timing(),
        luck=lambda: 0.0 if number == LEADER else 0.9,
        now_ms=0,
    )
    return Replica(paxos=paxos, machine=Machine(configuration), namespace_term_ms=10_000, now_ms=0)


def _words() -> dict[str, tuple[Any, Any, Any]]:
    """One message of each sort that calls are made of, with what encodes and decodes it."""
    call = Call(5, 0, 7, 1, "acquire", (True, 1), False)
    ballot, body = Ballot(3, 1), encode(call)
    clients = {"Call": call, "Reply": Reply(0, 7, 0, 55), "Keepalive": Keepalive(5, 55)}
    peers = {
        "Accept of 1": Accept(ballot, 10, 20, b"\1", (body,), 19, 123456789, 0),
        "Accept of 64": Accept(ballot, 10, 20, b"\1" * 64, (body,) * 64, 19, 123456789, 0),
        "Accepted": Accepted(ballot, 20, 20, 0),
        "Forward of 1": Forward(1, 2, (body,)),
        "Promise of 64": Promise(ballot, 10, tuple(Entry(slot, ballot, 1, body) for slot in range(10, 74)), 9, (), 0),
    }
    return {
        **{name: (message, encode, decode) for name, message in clients.items()},
        **{name: (message, codec.encode, codec.decode) for name, message in peers.items()},
    }


def _codec(section: Section, options: Options) -> None:
    """What a message costs to encode and to decode, its checks included: the best of the rounds."""
    number = options.pick(20_000, 2_000)
    for name, (message, to_bytes, from_bytes) in _words().items():
        body = to_bytes(message)
        count = max(1, number // (1 + len(body) // 64))
        for verb, act in (("encode", lambda: to_bytes(message)), ("decode", lambda: from_bytes(body))):  # noqa: B023
            best = min(timeit.repeat(act, number=count, repeat=options.pick(9, 5), timer=time.thread_time)) / count
            section.add(f"codec: {verb} {name}", best * 1e6, "us")


def run(options: Options) -> Section:
    section = Section("Where the Python of one call goes")
    section.notes.append(
        "The sans-IO parts alone, in one process, for one command (the mean of an acquire and a release) without"
        " batching, in memory: CPU time, lower quartile of the rounds."
    )
    parts = Parts()
    target = Target("bench", "one", "Lock", (), Lifetime.NAMED)
    rounds: dict[str, list[float]] = {part: [] for part in PARTS}
    pairs = 50
    for _ in range(options.pick(60, 20)):
        parts.spent = dict.fromkeys(PARTS, 0.0)
        for _ in range(pairs):
            fence = parts.call(target, "acquire", (True, 1), ACQUIRE)
            parts.call(target, "release", (fence,), RELEASE)
        for part in PARTS:
            rounds[part].append(parts.spent[part] / pairs / 2)
    for part in PARTS:
        section.add(part, percentile(rounds[part], 0.25) * 1e6, "us")
    _codec(section, options)
    return section
