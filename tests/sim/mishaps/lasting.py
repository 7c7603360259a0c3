# SPDX-License-Identifier: Apache-2.0
"""The other peace: only a quorum of replicas, the core, is whole again, and the rest stays broken for ever.

Within the core, and between it and all clients, everything works. Each other replica has a fault that never ends, of a
kind that a group must bear: it may be down, unreachable in part or one way, slow, or come and go. Then everybody who
asked must still be answered, and the core's replicas become equal (the liveness check of TigerBeetle's VOPR).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.sim import mishaps
from tests.sim.mishaps.disks import HANGING_US, SLOW_US
from tests.sim.network import Weather

if TYPE_CHECKING:
    from tests.sim.host import Host
    from tests.sim.world import World

__all__ = ["break_for_ever", "core_of"]

GO_ON = ("crash", "kill replica", "crash at a point", "pause replica", "hand over", "failing disk", "slow disk")
"""Mishaps that go on striking those who are not of the core, and harm them alone."""

EVERY_US = 1_500_000


def core_of(world: World, luck: random.Random) -> list[Host]:
    """A quorum of those whose data is whole."""
    sound = [host for host in world.hosts.values() if not host.gone and not host.program.spoilt]
    quorum = len(world.hosts) // 2 + 1
    chosen = luck.sample(sound, quorum)
    return [host for host in world.hosts.values() if host in chosen]


def break_for_ever(world: World, luck: random.Random) -> None:
    """Each replica that may be struck (none of the core) gets a fault of its own, and mishaps go on among them."""
    for host in world.fair_game:
        name = luck.choice([*_FAULTS])
        world.kernel.note(f"for ever {name} {host.number}")
        world.kernel.seen[f"for ever: {name}"] += 1
        if name != "down":
            world.restart(host)
        _FAULTS[name](world, host, luck)
    _go_on(world, luck)


def _go_on(world: World, luck: random.Random) -> None:
    kind, after_us = luck.choice(GO_ON), luck.randint(1, 2 * EVERY_US)
    mishaps.strike(world, kind, luck)
    world.kernel.at(after_us, _go_on, world, luck)


def _others(world: World, host: Host) -> list[int]:
    return [node for node in (*world.hosts, *(client.node for client in world.clients)) if node != host.number]


def _down(world: World, host: Host, luck: random.Random) -> None:
    host.crash()
    host.gone = host.gone or "down for ever"


def _cut_off(world: World, host: Host, luck: random.Random) -> None:
    world.network.cut_off([host.number])


def _cut_off_in_part(world: World, host: Host, luck: random.Random) -> None:
    """Some links, both ways."""
    for other in _others(world, host):
        if luck.random() < 0.5:
            world.network.cut(host.number, other)
            world.network.cut(other, host.number)


def _cut_off_one_way(world: World, host: Host, luck: random.Random) -> None:
    for other in _others(world, host):
        if luck.random() < 0.6:
            world.network.cut(*luck.choice(((host.number, other), (other, host.number))))


def _deaf(world: World, host: Host, luck: random.Random) -> None:
    for other in _others(world, host):
        world.network.cut(other, host.number)


def _mute(world: World, host: Host, luck: random.Random) -> None:
    for other in _others(world, host):
        world.network.cut(host.number, other)


def _slow(world: World, host: Host, luck: random.Random) -> None:
    links = [pair for pair in world.network.links if host.number in pair]
    slow = luck.randint(10_000, 200_000)
    world.network.give_weather(links, Weather(delay_us=(slow // 4, slow)))
    host.lag_us = (1_000, luck.randint(2_000, 100_000))
    host.sync_us = SLOW_US


def _stops(world: World, host: Host, luck: random.Random) -> None:
    """Paused again and again."""
    host.pause(luck.randint(10_000, 2_000_000))
    world.kernel.at(luck.randint(10_000, 4_000_000), _stops, world, host, luck)


def _hangs(world: World, host: Host, luck: random.Random) -> None:
    host.sync_us = HANGING_US


def _flaps(world: World, host: Host, luck: random.Random) -> None:
    """Its links go and come, one by one."""
    links = [pair for pair in world.network.links if host.number in pair]
    link = luck.choice(links)
    if luck.random() < 0.5:
        world.network.cut(*link)
    else:
        world.network.mend((link,))
    world.kernel.at(luck.randint(1_000, 300_000), _flaps, world, host, luck)


_FAULTS: dict[str, Callable[[World, Host, random.Random], None]] = {
    "down": _down,
    "cut off": _cut_off,
    "cut off in part": _cut_off_in_part,
    "cut off one way": _cut_off_one_way,
    "deaf": _deaf,
    "mute": _mute,
    "slow": _slow,
    "stops": _stops,
    "hanging disk": _hangs,
    "flaps": _flaps,
}
