# SPDX-License-Identifier: Apache-2.0
"""The first forming of a group: only when all are empty, durably on all before the first vote, whoever crashes when."""

from __future__ import annotations

import random

import pytest

from replicas.paxos.values import Configuration
from replicas.replica.formation import CENSUS_MS, MESSAGES, Census, Formation, Phase

ADDRESSES = ("a:1", "b:1", "c:1")


class Directory:
    """What survives a crash of one replica: its incarnation and its formation."""

    def __init__(self, incarnation: bytes) -> None:
        self.incarnation = incarnation
        self.formation: bytes | None = None


class World:
    """Replicas that form a group; any of them may die between any two of the steps that its output asks for."""

    def __init__(self, n: int = 3, addresses: dict[int, tuple[str, ...]] | None = None) -> None:
        self.addresses = {i: (addresses or {}).get(i, ADDRESSES[:n]) for i in range(1, n + 1)}
        self.directories = {i: Directory(b"first-%d" % i) for i in self.addresses}
        self.replicas: dict[int, Formation] = {}
        self.formed: dict[int, Configuration] = {}
        self.refused: dict[int, str] = {}
        self.notices: dict[int, list[str]] = {i: [] for i in self.addresses}
        self.flight: list[tuple[int, int, Census]] = []
        self.now_ms = 0
        self.clusters = 0
        self.steps_left = 1 << 30
        self.dead: int | None = None

    def start(self, *replicas: int) -> None:
        for i in replicas or self.directories:
            self.clusters += 1
            directory = self.directories[i]
            self.replicas[i] = Formation(
                addresses=self.addresses[i],
                replica=i,
                incarnation=directory.incarnation,
                formation=directory.formation,
                cluster=f"cluster-{self.clusters}",
                settings=b"settings",
                now_ms=self.now_ms,
            )

    def wipe(self, replica: int) -> None:
        self.directories[replica] = Directory(b"second-%d" % replica)
        self.replicas.pop(replica, None)

    def _step(self, replica: int) -> bool:
        """One effect of an output happens, unless this is where the replica dies."""
        self.steps_left -= 1
        if self.steps_left < 0 and self.dead is None:
            self.dead = replica
            self.replicas.pop(replica, None)
        return replica in self.replicas

    def _handle(self, i: int) -> None:
        output = self.replicas[i].take()
        if output.persist is not None:
            if not self._step(i):
                return
            self.directories[i].formation = output.persist
        for target, census in output.send:
            if not self._step(i):
                return
            self.flight.append((i, target, census))
        if output.formed is not None:
            if not self._step(i):
                return
            self._formed(i, output.formed)
        if output.refused is not None:
            self.refused[i] = output.refused
        if output.notice is not None:
            self.notices[i].append(output.notice)

    def _formed(self, i: int, configuration: Configuration) -> None:
        """From here on it may vote: the configuration must be on every disk."""
        self.formed[i] = configuration
        for directory in self.directories.values():
            assert directory.formation is not None, "somebody votes before it is durable on all"
            assert directory.formation[1:] == self.directories[i].formation[1:], "two configurations"

    def run(self, span_ms: int = 2000) -> None:
        for _ in range(span_ms // 50):
            self.now_ms += 50
            for i in list(self.replicas):
                self.replicas[i].tick(self.now_ms)
                self._handle(i)
            flight, self.flight = self.flight, []
            for source, target, census in flight:
                if target in self.replicas:
                    self.replicas[target].step(source, census)
                    self._handle(target)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_group_forms_with_ids_in_the_order_of_the_list(n: int) -> None:
    """The configuration holds each (id, address, incarnation) and a fresh cluster id."""
    world = World(n)
    world.start()
    world.run()
    assert set(world.formed) == set(range(1, n + 1))
    configuration = world.formed[1]
    assert configuration.ids == tuple(range(1, n + 1))
    assert [m.address for m in configuration.members] == list(ADDRESSES[:n])
    assert [m.incarnation for m in configuration.members] == [b"first-%d" % i for i in range(1, n + 1)]
    assert configuration.cluster == "cluster-1"
    assert configuration.settings == b"settings"
    assert configuration.epoch == 1


def test_a_group_is_not_formed_while_one_member_is_silent() -> None:
    """Only when *all* listed members answer that they are empty: the silent one may hold the group's past."""
    world = World()
    world.start(1, 2)
    world.run()
    assert not world.formed
    assert world.replicas[1].missing() == [3]
    world.start(3)
    world.run()
    assert len(world.formed) == 3
    assert world.replicas[1].missing() == []


@pytest.mark.parametrize("dies_at", range(24))
def test_anybody_may_crash_at_any_point(dies_at: int) -> None:
    """Survives the crash of any member between any two effects; nobody votes before all have it on disk."""
    world = World()
    world.steps_left = dies_at
    world.start()
    world.run()
    if world.dead is not None:
        world.start(world.dead)
        world.run()
    assert len(world.formed) == 3
    assert len(set(world.formed.values())) == 1


@pytest.mark.parametrize("dies_at", range(3, 24, 2))
def test_all_may_crash_at_any_point(dies_at: int) -> None:
    """Power fails in the middle of forming, for all at once."""
    world = World()
    world.steps_left = dies_at
    world.start()
    world.run(100)
    world.flight.clear()
    world.steps_left, world.dead = 1 << 30, 0
    world.start()
    world.run()
    assert len(world.formed) == 3


def test_lost_doubled_and_late_messages_do_no_harm() -> None:
    """Everything is said again until it is done, and saying it twice changes nothing."""
    for seed in range(30):
        luck = random.Random(seed)
        world = World()
        world.start()
        for _ in range(200):
            world.run(50)
            late = [m for m in world.flight for _ in range(luck.choice((0, 1, 2)))]
            luck.shuffle(late)
            world.flight = late
        assert len(world.formed) == 3


def test_an_empty_replica_that_meets_a_formed_group_never_votes() -> None:
    """It says in one sentence that its data is gone and that it is to be replaced under a new id."""
    world = World()
    world.start()
    world.run()
    world.wipe(2)
    world.formed.clear()
    world.start(2)
    world.run()
    assert 2 not in world.formed
    assert "data of replica 2 is gone" in world.refused[2]
    assert "replaced under a new id" in world.refused[2]
    assert world.replicas[2].wake_ms is None
    world.replicas[2].step(1, world.replicas[1]._census())
    assert world.replicas[2].take().send == []


def test_a_first_member_that_lost_its_data_forms_no_second_group() -> None:
    """Not even the one that draws up configurations: the others are not empty."""
    world = World()
    world.start()
    world.run()
    world.wipe(1)
    world.start(1)
    world.run()
    assert 1 in world.refused
    assert world.replicas[2].configuration.cluster == "cluster-1"


def test_a_member_that_lost_its_data_half_way_is_named() -> None:
    """The group can never form then; the operator is told what to do."""
    world = World()
    world.start()
    world.now_ms += 50
    empty = {i: world.replicas[i]._census() for i in (2, 3)}
    for i, census in empty.items():
        world.replicas[1].step(i, census)
    world._handle(1)
    assert world.directories[1].formation is not None
    world.flight.clear()
    world.wipe(3)
    for i in (1, 2):
        world.start(i)
    world.start(3)
    world.run()
    assert not world.formed
    assert any("Replica 3 lost its data" in notice for notice in world.notices[1] + world.notices[2])
    assert 3 in world.refused


def test_different_lists_are_named() -> None:
    """One member was started with another list: nobody forms anything until the operator has mended it."""
    world = World(addresses={2: ("a:1", "b:1", "x:1")})
    world.start()
    world.run()
    assert not world.formed
    assert any("same list" in notice for notice in world.notices[1])
    assert len(world.notices[1]) == 1, "said once"
    world.addresses[2] = ADDRESSES
    world.start(2)
    world.run()
    assert len(world.formed) == 3


def test_a_changed_list_after_the_drawing_up_is_named() -> None:
    """The member was restarted with another list while the group was being formed."""
    world = World()
    world.addresses[3] = ("a:1", "x:1", "c:1")
    world.start(3)
    drawn = World()
    drawn.start()
    drawn.run(100)
    census = next(c for _, _, c in drawn.flight) if drawn.flight else drawn.replicas[1]._census()
    assert census.phase > Phase.EMPTY
    world.replicas[3].step(1, census)
    output = world.replicas[3].take()
    assert output.persist is None
    assert output.notice is not None
    assert "same list" in output.notice


def test_a_directory_of_another_group_is_named() -> None:
    """Two groups' directories mixed up: neither side believes the other."""
    world = World()
    world.start()
    world.replicas[1].step(2, world.replicas[2]._census())
    world.replicas[1].step(3, world.replicas[3]._census())
    mine = world.replicas[1]
    assert mine.phase is Phase.PREPARED
    mine.take()
    theirs = mine.configuration._replace(cluster="another")
    mine.step(2, Census(int(Phase.PREPARED), ADDRESSES, b"first-2", theirs))
    assert "another group's data directory" in (mine.take().notice or "")
    assert mine.phase is Phase.PREPARED


def test_a_formed_replica_starts_without_asking_anybody() -> None:
    """Restarting a formed group needs no census; a replica votes from the start."""
    world = World()
    world.start()
    world.run()
    world.formed.clear()
    world.replicas.clear()
    world.start(2)
    world._handle(2)
    assert set(world.formed) == {2}
    assert world.replicas[2].wake_ms is None
    assert world.replicas[2].missing() == []


def test_the_directory_knows_better_than_the_list_who_it_is() -> None:
    """Ids go by incarnation: a list in another order must not make two replicas vote under one id."""
    world = World()
    world.start()
    world.run()
    directory = world.directories[3]
    moved = Formation(
        addresses=("c:1", "a:1", "b:1"),
        replica=1,
        incarnation=directory.incarnation,
        formation=directory.formation,
        cluster="unused",
        settings=b"",
        now_ms=0,
    )
    assert moved.replica == 3
    with pytest.raises(AssertionError):
        Formation(
            addresses=ADDRESSES,
            replica=1,
            incarnation=b"of another directory",
            formation=directory.formation,
            cluster="unused",
            settings=b"",
            now_ms=0,
        )


def test_a_strangers_census_is_not_counted() -> None:
    """Only listed members count, and nobody counts as itself."""
    world = World(1)
    world.start()
    world.replicas[1].step(1, Census(0, ADDRESSES, b"", Configuration("", 0, (), b"")))
    world.replicas[1].step(7, Census(0, ADDRESSES, b"", Configuration("", 0, (), b"")))
    assert world.replicas[1]._heard == {}


def test_the_census_is_repeated_at_its_pace() -> None:
    """Often enough to start soon, and no more often."""
    world = World()
    world.start(2)
    replica = world.replicas[2]
    assert replica.wake_ms == 0
    replica.tick(10)
    assert len(replica.take().send) == 2
    assert replica.wake_ms == 10 + CENSUS_MS
    replica.tick(20)
    assert replica.take().send == []
    assert all(20 <= tag < 30 for tag in MESSAGES)
