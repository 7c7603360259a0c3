# SPDX-License-Identifier: Apache-2.0
"""Worlds whose members change: what operators wish is met there, what strikes in a change strikes, and the judge of it
all bites.
"""

from __future__ import annotations

from typing import Any

import pytest

from replicas.machine import commands
from replicas.machine.core import Machine
from replicas.paxos.types import Accepted, Ballot, Configuration, Entry, EntryKind, Member
from replicas.paxos.values import encode_ballot, encode_configuration
from tests.sim import mishaps
from tests.sim.checkers.members import MembersWatch
from tests.sim.kernel import Kernel
from tests.sim.moving_world import MovingWorld
from tests.sim.plan import Menu, Mishap, Plan, Wish, drawn
from tests.sim.running import MENU, Options, world_of
from tests.sim.wishes import WISHES

TROUBLE_US = 12_000_000
OBJECTS = {"lock:a": 1.0, "goods:g": 1.0}


def _plan(seed: int, wishes: list[str], upsets: tuple[str, ...] = (), *, replicas: int = 3) -> Plan:
    plan = drawn(seed, Menu({}, OBJECTS), replicas=replicas, clients=2, trouble_us=TROUBLE_US, core_only=False)
    moments = range(1_000_000, TROUBLE_US, TROUBLE_US // len(wishes))
    return plan._replace(
        wishes=tuple(Wish(f"w{n}", at, kind, n) for n, (at, kind) in enumerate(zip(moments, wishes, strict=False))),
        mishaps=tuple(Mishap(f"u{n}", 500_000 * (n + 1), kind, n) for n, kind in enumerate(upsets)),
        delay_us=(100, 1_000),
        straggle=0.0,
        snapshot_every=40,
    )


def _ran(plan: Plan) -> MovingWorld:
    world = world_of(plan)
    assert isinstance(world, MovingWorld)
    world.run()
    return world


@pytest.mark.parametrize("kind", WISHES)
def test_a_wish_comes_true(kind: str) -> None:
    """Where nothing goes wrong each ends with a verdict, and most with other members."""
    world = _ran(_plan(2, [kind, kind], replicas=5 if kind in {"shrink", "remove the leader"} else 3))
    assert world.kernel.seen[f"wish: {kind}"] >= 2
    assert all(errand.over for errand in world.errands)
    changed = world.watch.members.configuration.epoch > 1
    assert changed or kind in {"transfer", "blunder", "two at once"}


def test_a_group_is_replaced_to_the_last_member() -> None:
    """And its clients, who began with three addresses, are with those who came."""
    world = _ran(_plan(3, ["replace all", "replace all"]))
    assert not {1, 2, 3} & set(world.members)
    assert world.kernel.seen["Servers"]


@pytest.mark.parametrize("kind", mishaps.UPSETS)
def test_a_mishap_of_changes_bites(kind: str) -> None:
    """Whatever it waits for comes."""
    world = _ran(_plan(1, ["replace one", "grow", "replace the leader", "shrink"], (kind,) * 20))
    assert world.kernel.seen[f"mishap: {kind}"] == 20
    seen = world.kernel.seen
    if "change" in kind:
        assert seen["members: struck in a change"]
    elif kind == "removed replica comes back":
        assert seen["members: a removed replica came back"]


def test_members_are_a_part_of_the_plan() -> None:
    """They are drawn from chance of their own: where there are none, a world is what it was without them."""
    without = Menu(MENU.mishaps, MENU.objects)
    changing = 0
    for seed in range(100):
        plan, plain = drawn(seed, MENU), drawn(seed, without)
        changing += bool(plan.wishes)
        if not plan.wishes:
            assert plan == plain
        else:
            names = [wish.name for wish in plan.wishes]
            assert set(names) <= set(plan.parts)
            assert not plan.without(names).wishes
    assert 15 <= changing <= 30


def test_a_world_with_changes_is_repeated_by_its_seed() -> None:
    """Else a failing one could not be looked into."""
    seed = next(seed for seed in range(100) if Options().plan(seed).wishes)
    plan = Options(trouble_s=10).plan(seed)
    assert _ran(plan).kernel.trace == _ran(plan).kernel.trace


# --- the judge


class _Log:
    """A log as the judge sees it, and disks that hold it."""

    def __init__(self) -> None:
        members = tuple(Member(number, f"r{number}", bytes([number])) for number in (1, 2, 3))
        self.configuration = Configuration("simulated", 1, members, b"")
        self.watch = MembersWatch(Kernel(1), self.configuration)
        self.machine = Machine(self.configuration)
        self.slot = 0

    def add(self, kind: EntryKind, value: bytes, disks: tuple[int, ...] = (1, 2)) -> None:
        self.slot += 1
        entry = Entry(self.slot, Ballot(1, 1), int(kind), value)
        for disk in disks:
            self.watch.kept[disk].wrote([Accepted(entry)])
            self.watch.kept[disk].synced([Accepted(entry)])
        self.machine.apply(entry)
        self.watch.members.witnessed(self.machine, entry)

    def admit(self, number: int) -> None:
        admit = commands.Admit(f"r{number}", bytes([number]), 0, True)
        self.add(EntryKind.COMMAND, commands.codec.encode(admit))

    def configure(self, *numbers: int, **changed: Any) -> None:
        members = tuple(Member(number, f"r{number}", bytes([number])) for number in numbers)
        epoch = self.watch.members.configuration.epoch + 1
        new = self.configuration._replace(epoch=epoch, members=members)._replace(**changed)
        self.add(EntryKind.CONFIGURATION, encode_configuration(new))


def test_the_judge_passes_what_is_right() -> None:
    log = _Log()
    log.admit(4)
    log.configure(1, 2, 3, 4)
    log.add(EntryKind.LEADS, encode_ballot(Ballot(2, 4)), (1, 2, 4))
    assert log.watch.members.configuration.ids == (1, 2, 3, 4)


def test_the_judge_wants_a_quorum_of_the_members_of_the_slot() -> None:
    """Two were enough of three, and are not of four; and who only learns does not count."""
    log = _Log()
    log.admit(4)
    with pytest.raises(AssertionError, match="on the disks of 1 of the members"):
        log.add(EntryKind.NOOP, b"", (1, 4))
    log = _Log()
    log.admit(4)
    log.configure(1, 2, 3, 4)
    with pytest.raises(AssertionError, match="on the disks of 2 of the members"):
        log.add(EntryKind.NOOP, b"", (1, 2))


def test_the_judge_knows_who_may_lead() -> None:
    log = _Log()
    log.configure(2, 3)
    with pytest.raises(AssertionError, match="replica 1 leads, which is no member"):
        log.add(EntryKind.LEADS, encode_ballot(Ballot(2, 1)), (2, 3))


def test_the_judge_lets_nobody_come_in_unadmitted_or_again() -> None:
    log = _Log()
    with pytest.raises(AssertionError, match="was never admitted"):
        log.configure(1, 2, 3, 4)
    log = _Log()
    log.configure(1, 2)
    with pytest.raises(AssertionError, match="was never admitted"):
        log.configure(1, 2, 3)


def test_the_judge_compares_rosters() -> None:
    log = _Log()
    log.machine.roster.top = 7
    with pytest.raises(AssertionError, match="the highest id"):
        log.admit(4)
    log = _Log()
    log.admit(4)
    other = Machine(log.configuration)
    with pytest.raises(AssertionError, match="another roster"):
        log.watch.members.followed(other, 1)
