# SPDX-License-Identifier: Apache-2.0
"""What operators set out to do: each kind is a generator of commands, drawn from how things stand when it begins.

They keep to docs/operations.md: a newcomer is started first and then asked for, a machine is stopped once its removal
is reported, and nobody is taken out while another one's data is gone; but some forget to stop the machine.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tests.sim.operators import Command, Steps

if TYPE_CHECKING:
    from tests.sim.host import Host
    from tests.sim.moving_world import MovingWorld

__all__ = ["WISHES", "steps_of"]

MACHINES_MAX = 7
"""No more that run at one time: each costs."""
MEMBERS_MIN = 3
"""Fewer are left only sometimes: a group of two stands still with the first that is away."""


def _add(world: MovingWorld, host: Host, *, once: bool = False) -> Command:
    return Command("add", lambda: world.newcomer(host), once, lambda: world.is_lost(host))


def _replace(world: MovingWorld, old: int, host: Host) -> Command:
    def about() -> tuple[str, str, bytes] | None:
        newcomer = world.newcomer(host)
        return (str(old), *newcomer) if newcomer is not None else None

    return Command("replace", about, pointless=lambda: world.is_lost(host))


def _remove(target: int | str) -> Command:
    return Command("remove", lambda: (str(target),))


def _dismissed(world: MovingWorld, hosts: list[Host]) -> Iterator[Command]:
    """Those that never became members are not waited for any more."""
    for host in hosts:
        if world.is_lost(host) and world.is_newcomer(host):
            yield _remove(host.program.address)  # type: ignore[attr-defined]


def _stopped(world: MovingWorld, replica: int, luck: random.Random) -> None:
    """Its removal was reported, so its machine may go, now or when it hears of it."""
    if luck.random() < 0.5:
        world.switch_off(replica)


def _grow(world: MovingWorld, luck: random.Random) -> Steps:
    """By two, in one wish or one by one; or by one that comes by itself."""
    room = min(MACHINES_MAX - world.running, 7 - len(world.members))
    if room < 1:
        return
    if room > 1 and luck.random() < 0.3:
        yield from _grow_slowly(world, luck)
        return
    hosts = [world.start_machine(luck) for _ in range(min(room, luck.choice((1, 2, 2))))]
    if luck.random() < 0.2:
        return
    if luck.random() < 0.6:
        for host in hosts:
            yield _add(world, host, once=True)
    for host in hosts:
        yield _add(world, host)
    yield from _dismissed(world, hosts)


def _grow_slowly(world: MovingWorld, luck: random.Random) -> Steps:
    """The first of two is near, and away again, when the second one comes."""
    early = world.start_machine(luck)
    if luck.random() < 0.5:
        yield _add(world, early, once=True)
    yield luck.randint(500_000, 1_500_000)
    world.put_away(early, luck.randint(2_000_000, 8_000_000))
    yield luck.randint(0, 3_000_000)
    late = world.start_machine(luck)
    yield _add(world, late)
    yield _add(world, early)
    yield from _dismissed(world, [early, late])


def _take_out(world: MovingWorld, replica: int, luck: random.Random) -> Steps:
    while not world.calm and replica in world.members:
        yield 300_000
    if replica in world.members and (len(world.members) > MEMBERS_MIN or luck.random() < 0.3):
        answer = yield _remove(luck.choice((replica, world.members[replica].address)))
        if answer.get("done"):
            _stopped(world, replica, luck)


def _shrink(world: MovingWorld, luck: random.Random) -> Steps:
    """Some members, one after another."""
    for _ in range(luck.choice((1, 2))):
        yield from _take_out(world, luck.choice([*world.members]), luck)


def _remove_leader(world: MovingWorld, luck: random.Random) -> Steps:
    yield from _take_out(world, world.leader or luck.choice([*world.members]), luck)


def _take_place(world: MovingWorld, old: int, luck: random.Random) -> Steps:
    if world.running >= MACHINES_MAX + 1:
        return
    # Sometimes the newcomer says itself whose place it takes.
    host = world.start_machine(luck, replaces=str(old) if luck.random() < 0.3 else "")
    answer = yield _replace(world, old, host)
    if answer.get("done"):
        _stopped(world, old, luck)
    yield from _dismissed(world, [host])


def _replace_one(world: MovingWorld, luck: random.Random) -> Steps:
    yield from _take_place(world, luck.choice([*world.members]), luck)


def _replace_leader(world: MovingWorld, luck: random.Random) -> Steps:
    yield from _take_place(world, world.leader or luck.choice([*world.members]), luck)


def _replace_all(world: MovingWorld, luck: random.Random) -> Steps:
    """Each member that there is now, one after another; perhaps while one of them is away and knows of nothing."""
    members = luck.sample([*world.members], len(world.members))
    if luck.random() < 0.4:
        world.put_away(world.host_of(members[-1]), luck.randint(4_000_000, 12_000_000))
    for old in members[: luck.choice((2, len(members), len(members)))]:
        if old in world.members:
            yield from _take_place(world, old, luck)


def _renew(world: MovingWorld, luck: random.Random) -> Steps:
    """A member's disk is lost: its machine begins anew at the same address, in its own place."""
    lost = [replica for replica in world.members if replica in world.lost]
    replica = luck.choice(lost or [*world.members])
    host = world.host_of(replica)
    if host is None or (not lost and not world.may_lose(host)):
        return
    if not lost:
        world.lose(host)
    yield luck.randint(0, 2_000_000)
    if not world.begin_anew(host, luck, replaces=str(replica) if luck.random() < 0.3 else ""):
        return
    answer = yield _replace(world, replica, host)
    if answer.get("done"):
        world.kernel.seen["members: a lost disk's replica was replaced at its own address"] += 1


def _transfer(world: MovingWorld, luck: random.Random) -> Steps:
    if luck.random() < 0.7:
        target = luck.choice([*world.members])
        yield Command("transfer", lambda: (str(target), 0))
    else:
        listed = yield Command("list", lambda: ())
        former = int(listed.get("leader", 0))
        yield Command("transfer", lambda: ("", former))


def _one_too_many(world: MovingWorld, luck: random.Random) -> Steps:
    """As many are down as a group can do without, and one of the others is to be taken out."""
    members = luck.sample([*world.members], len(world.members))
    down = members[: (len(members) - 1) // 2]
    for replica in down:
        world.put_away(world.host_of(replica), luck.randint(5_000_000, 8_000_000))
    yield luck.randint(2_600_000, 4_000_000)
    yield _remove(members[-1])


def _blunder(world: MovingWorld, luck: random.Random) -> Steps:
    """What is to be refused, or is done already: somebody who never was, or has left; a member for its own place."""
    some = luck.choice([*world.members])
    host = world.host_of(some)
    if luck.random() < 0.5 and world.calm and len(world.members) in {2, 3, 5}:
        yield from _one_too_many(world, luck)
        return
    gone = luck.choice([*world.watch.members.left, 99])
    yield _remove(luck.choice((gone, "r77")))
    if host is not None and host.alive and world.newcomer(host) is not None:
        yield luck.choice((_replace(world, some, host), _add(world, host), _replace(world, gone, host)))


def _two_at_once(world: MovingWorld, luck: random.Random) -> Steps:
    """Another operator does not know of this one."""
    others = [kind for kind in WISHES if kind != "two at once"]
    for _ in range(2):
        world.wish(luck.choice(others), random.Random(luck.random()))
    world.kernel.seen["members: two operators at once"] += 1
    yield 0


WISHES: dict[str, tuple[float, Callable[[MovingWorld, random.Random], Steps]]] = {
    "grow": (2.0, _grow),
    "shrink": (1.0, _shrink),
    "remove the leader": (0.7, _remove_leader),
    "replace one": (1.0, _replace_one),
    "replace the leader": (0.7, _replace_leader),
    "replace all": (1.0, _replace_all),
    "renew": (0.7, _renew),
    "transfer": (0.7, _transfer),
    "blunder": (0.5, _blunder),
    "two at once": (0.5, _two_at_once),
}


def steps_of(world: MovingWorld, kind: str, luck: random.Random) -> Steps:
    """How that wish is carried out."""
    return WISHES[kind][1](world, luck)
