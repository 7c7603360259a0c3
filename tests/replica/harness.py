# SPDX-License-Identifier: Apache-2.0
"""A few replicas in one process: disks that are always in time, links that can be cut, a clock moved by hand."""

from __future__ import annotations

from collections import deque
from typing import Any

from dthreading.wire import codec
from dthreading.wire import messages as wire
from replicas.machine.core import Machine
from replicas.paxos.core import Paxos
from replicas.paxos.types import Configuration, Durable, Member, Timing
from replicas.replica.admission import Admission
from replicas.replica.core import Replica
from replicas.replica.output import ReplicaOutput

TTL_MS = 10_000


class Group:
    """`size` replicas of which `lead(n)` makes one the leader."""

    def __init__(self, size: int = 3) -> None:
        members = tuple(Member(i, f"r{i}", b"%d" % i) for i in range(1, size + 1))
        configuration = Configuration("test", 1, members, b"")
        self.now_ms = 1_000
        self.replicas = {
            member.id: Replica(
                paxos=Paxos(
                    replica=member.id,
                    configuration=configuration,
                    durable=Durable(),
                    timing=Timing(),
                    luck=lambda number=member.id: number / 10,
                    now_ms=self.now_ms,
                ),
                machine=Machine(configuration),
                namespace_term_ms=5_000,
                now_ms=self.now_ms,
            )
            for member in members
        }
        self.cut: set[tuple[int, int]] = set()
        self.held: set[type] = set()
        """Messages between replicas of these classes stay in `queue` until they are let go."""
        self.queue: deque[tuple[int, int, Any]] = deque()
        self.outputs: dict[int, list[ReplicaOutput]] = {number: [] for number in self.replicas}
        self.said: dict[int, list[Any]] = {}
        self.hung_up: dict[int, str] = {}
        self._asked = 0

    # --- members

    def ask(self, number: int, question: str, *arguments: Any) -> dict[str, Any]:
        """An operator's question about members to one replica, and its answer."""
        self._asked += 1
        self.say(number, -1, wire.Query(self._asked, f"members.{question}", arguments))
        answers = [message for message in self.said.get(-1, []) if isinstance(message, wire.Answer)]
        assert answers[-1].number == self._asked
        return dict(answers[-1].value)

    def until_done(self, number: int, question: str, *arguments: Any) -> str:
        """Asks until it is done; what it says."""
        for _ in range(500):
            answer = self.ask(number, question, *arguments)
            assert not answer.get("refused"), answer
            if answer["done"]:
                return str(answer["say"])
            self.pass_ms(20)
        raise AssertionError(answer)

    def join(self, name: str, *, replaces: str = "") -> int:
        """A newcomer asks to be let in, and starts with what it is told; its id."""
        incarnation = name.encode()
        for _ in range(500):
            answer = self.ask(self.leader(), "join", name, incarnation, replaces, 0)
            if answer["done"]:
                break
            self.pass_ms(20)
        admission = Admission.decode(answer["admission"])
        assert admission is not None
        self.start(admission)
        return admission.replica

    def start(self, admission: Admission) -> None:
        """A newcomer's process, with nothing on its disk but what it was told."""
        self.outputs.setdefault(admission.replica, [])
        self.replicas[admission.replica] = Replica(
            paxos=Paxos(
                replica=admission.replica,
                configuration=admission.genesis,
                durable=Durable(),
                timing=Timing(),
                luck=lambda: admission.replica / 10,
                now_ms=self.now_ms,
            ),
            machine=Machine(admission.genesis),
            namespace_term_ms=5_000,
            now_ms=self.now_ms,
            genesis=admission.genesis,
            seeds=admission.seeds,
        )

    def isolate(self, *numbers: int) -> None:
        """Nothing of theirs arrives, and nothing reaches them."""
        self.cut |= {pair for one in numbers for other in self.replicas for pair in ((one, other), (other, one))}

    def members(self, number: int) -> tuple[int, ...]:
        """Who votes, as that replica knows it."""
        return self.replicas[number].paxos.configuration.ids

    # --- time and messages

    def take(self, number: int) -> None:
        """What this replica wishes for is done; its disk is never slow."""
        replica = self.replicas[number]
        while True:
            output = replica.take()
            self.outputs[number].append(output)
            for target, message in [*output.send_now, *output.send_after_sync]:
                if (number, target) not in self.cut:
                    self.queue.append((number, target, message))
            for connection, message in output.to_clients:
                self.said.setdefault(connection, []).append(message)
            for connection, reason in output.hang_up:
                self.hung_up[connection] = reason
            if not output.batch:
                return
            replica.synced(output.batch)

    def settle(self) -> None:
        """Everything that is on its way arrives, and whatever comes of it."""
        for number in self.replicas:
            self.take(number)
        while any(type(message) not in self.held for _, _, message in self.queue):
            source, target, message = self.queue.popleft()
            if type(message) in self.held:
                self.queue.append((source, target, message))
            elif (source, target) not in self.cut and target in self.replicas:
                self.replicas[target].peer_said(source, message)
                self.take(target)

    def pass_ms(self, span_ms: int, *, step_ms: int = 20) -> None:
        """Time passes in small steps, as it does where nobody is paused."""
        for _ in range(0, span_ms, step_ms):
            self.now_ms += step_ms
            for replica in self.replicas.values():
                replica.tick(self.now_ms)
            self.settle()

    def leader(self) -> int:
        """Let time pass until a leader serves; its number."""
        for _ in range(500):
            serving = [number for number, replica in self.replicas.items() if replica._tenure is not None]
            if serving:
                return max(serving, key=lambda number: self.replicas[number].paxos.ballot)
            self.pass_ms(20)
        raise AssertionError("nobody leads")

    # --- clients

    def say(self, number: int, connection: int, message: Any) -> None:
        """A client on `connection` says something to a replica, and everything that follows from it happens."""
        self.replicas[number].client_said(connection, message, codec.encode(message))
        self.settle()

    def open(self, number: int, connection: int) -> int:
        """A session, opened there; its id."""
        self.say(number, connection, wire.Open(b"nonce %d" % connection, TTL_MS, "test", "a test"))
        return next(message.session for message in self.said[connection] if isinstance(message, wire.Opened))

    def attach(self, number: int, connection: int, session: int, kind: str = "Lock", *arguments: Any) -> None:
        """Handle 1 of the session means the object called "x"."""
        self.say(number, connection, wire.Attach(session, 1, "test", "x", kind, arguments, 0, True))

    def replies(self, connection: int) -> list[wire.Reply]:
        """What calls were answered on that connection, so far."""
        return [message for message in self.said.get(connection, []) if isinstance(message, wire.Reply)]
