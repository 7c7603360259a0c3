# SPDX-License-Identifier: Apache-2.0
"""A few replicas on a bench: every message, sync and millisecond moves only when a test says so."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from replicas.paxos.core import Paxos
from replicas.paxos.messages import Accept, PeerMessage
from replicas.paxos.types import Ballot, Configuration, Durable, Entry, EntryKind, Member, Role, Timing
from tests.sim.records import RecordDisk

TIMING = Timing(heartbeat_ms=100, election_ms=500, disk_ms=1500)
COMMAND = int(EntryKind.COMMAND)


def configuration(ids: Iterable[int], epoch: int = 1) -> Configuration:
    """A configuration of these members."""
    return Configuration("bench", epoch, tuple(Member(i, f"r{i}", bytes([i])) for i in ids), b"")


def entry(slot: int, ballot: Ballot | tuple[int, int], value: bytes) -> Entry:
    """A command, accepted under that ballot."""
    return Entry(slot, Ballot(*ballot), COMMAND, value)


def accept(
    ballot: tuple[int, int], first: int, *values: bytes, base: int = 1, commit: int = 0, chain: int = 0, beat: int = 0
) -> Accept:
    """An Accept with commands."""
    return Accept(Ballot(*ballot), base, first, bytes([COMMAND]) * len(values), values, commit, chain, beat)


def core(replica: int = 1, ids: Iterable[int] = (1, 2, 3), durable: Durable | None = None) -> Paxos:
    """One replica alone; its luck is always the middle."""
    return Paxos(
        replica=replica,
        configuration=configuration(ids),
        durable=durable or Durable(),
        timing=TIMING,
        luck=lambda: 0.5,
        now_ms=0,
    )


def settle(paxos: Paxos) -> list[tuple[int, PeerMessage]]:
    """Take, sync and take until nothing is left to write; all that was sent."""
    sent: list[tuple[int, PeerMessage]] = []
    while True:
        output = paxos.take()
        sent += output.send_now + output.send_after_sync
        if not output.batch:
            return sent
        paxos.synced(output.batch)


class Node:
    """One replica with its disk of records."""

    def __init__(self, replica: int, members: Configuration, durable: Durable | None) -> None:
        self.replica = replica
        self.members = members
        self.disk = RecordDisk(random.Random(0))
        self.chosen: list[Entry] = []
        self.confirmed: list[object] = []
        self.failed: list[object] = []
        self.fetch_snapshot_from: int | None = None
        self.holds_disk = False
        self.waiting: list[tuple[int, list[tuple[int, PeerMessage]]]] = []
        self.paxos = self._boot(durable or Durable(), 0)

    def _boot(self, durable: Durable, now_ms: int) -> Paxos:
        return Paxos(
            replica=self.replica,
            configuration=self.members,
            durable=durable,
            timing=TIMING,
            luck=lambda: 0.5,
            now_ms=now_ms,
        )

    def restart(self, now_ms: int) -> None:
        """A crash that loses every unsynced write, and a start from what is left."""
        self.disk._unsynced.clear()
        self.waiting.clear()
        self.chosen.clear()
        self.paxos = self._boot(self.disk.recover(), now_ms)

    @property
    def values(self) -> list[bytes]:
        """The commands that this replica has handed out."""
        return [entry.value for entry in self.chosen if entry.kind == COMMAND]


class Bench:
    """Replicas 1 to n, and further ones that are not members yet."""

    def __init__(self, n: int = 3, *, learners: int = 0, durable: dict[int, Durable] | None = None) -> None:
        members = configuration(range(1, n + 1))
        self.now_ms = 0
        self.nodes = {i: Node(i, members, (durable or {}).get(i)) for i in range(1, n + learners + 1)}
        self.flight: list[tuple[int, int, PeerMessage]] = []
        self.lost: list[tuple[int, int, PeerMessage]] = []
        self.cut: set[tuple[int, int]] = set()
        self.down: set[int] = set()

    def __getitem__(self, replica: int) -> Paxos:
        return self.nodes[replica].paxos

    # --- one thing at a time

    def take(self, replica: int) -> None:
        """One take: what may leave now leaves, the rest waits for sync()."""
        node = self.nodes[replica]
        output = node.paxos.take()
        node.chosen += output.chosen
        node.confirmed += output.confirmed
        node.failed += output.failed
        node.fetch_snapshot_from = output.fetch_snapshot_from or node.fetch_snapshot_from
        self._send(replica, output.send_now)
        if output.batch:
            node.disk.write(output.persist)
            node.waiting.append((output.batch, output.send_after_sync))
        elif node.waiting:
            node.waiting.append((0, output.send_after_sync))
        else:
            self._send(replica, output.send_after_sync)

    def sync(self, replica: int) -> bool:
        """The disk of this replica has everything it was given."""
        node = self.nodes[replica]
        waiting, node.waiting = node.waiting, []
        batches = [batch for batch, _ in waiting if batch]
        node.disk.sync(len(batches))
        for _, messages in waiting:
            self._send(replica, messages)
        if batches:
            node.paxos.synced(batches[-1])
        return bool(waiting)

    def _send(self, source: int, messages: list[tuple[int, PeerMessage]]) -> None:
        self.flight += [(source, target, message) for target, message in messages]

    # --- many things

    def pump(self, wanted: Callable[[int, int, PeerMessage], bool] | None = None) -> None:
        """Take, sync and deliver until nothing moves. What is cut off or not `wanted` is lost."""
        moved = True
        while moved:
            moved = False
            for replica, node in self.nodes.items():
                if replica in self.down:
                    continue
                self.take(replica)
                if not node.holds_disk:
                    moved |= self.sync(replica)
            flight, self.flight = self.flight, []
            for source, target, message in flight:
                if (
                    (source, target) in self.cut
                    or target in self.down
                    or target not in self.nodes
                    or (wanted is not None and not wanted(source, target, message))
                ):
                    self.lost.append((source, target, message))
                else:
                    moved = True
                    self.nodes[target].paxos.step(source, message)

    def tick(self, span_ms: int = 0, *replicas: int) -> None:
        """Time passes, for these replicas or for all."""
        self.now_ms += span_ms
        for replica, node in self.nodes.items():
            if replica not in self.down and (not replicas or replica in replicas):
                node.paxos.tick(self.now_ms)

    def run(self, span_ms: int) -> None:
        """Time passes in small steps, with everything delivered."""
        for _ in range(span_ms // 20):
            self.tick(20)
            self.pump()

    def elect(self, replica: int) -> Paxos:
        """Make that replica the ready leader, by its patience ending first."""
        paxos = self[replica]
        paxos._election.deadline_ms = self.now_ms
        self.tick(1)
        self.pump()
        assert paxos.ready, f"{replica} is {paxos.role.name}"
        return paxos

    def isolate(self, *replicas: int) -> None:
        """Cut all links between these and the others."""
        for a in self.nodes:
            for b in self.nodes:
                if (a in replicas) != (b in replicas):
                    self.cut.add((a, b))

    def heal(self) -> None:
        """All links work."""
        self.cut.clear()

    def propose(self, replica: int, *values: bytes) -> list[int | None]:
        """Propose there; nothing moves yet."""
        return [self[replica].propose(value) for value in values]

    def leader(self) -> int:
        """The one ready leader."""
        leaders = [i for i, node in self.nodes.items() if i not in self.down and node.paxos.ready]
        assert len(leaders) == 1, leaders
        return leaders[0]

    def roles(self) -> dict[int, Role]:
        """What everybody is."""
        return {i: node.paxos.role for i, node in self.nodes.items()}


def only(messages: Iterable[Any], kind: type) -> list[Any]:
    """The messages of that class among (target, message) or (source, target, message)."""
    return [message[-1] for message in messages if isinstance(message[-1], kind)]
