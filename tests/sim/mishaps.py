# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in a world with a whole group: each kind is one function of the world and of its own luck.

`MISHAPS` says how often each is drawn beside the others. What a mishap breaks is mended by a later one, by itself, or
when peace comes; `CORE_ONLY` is the other peace, in which only a quorum is whole again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sim.host import Host
    from tests.sim.world import World

Strike = Callable[["World", random.Random], None]

_RESTART_AFTER_US = 800_000
"""On average: sometimes before the others have noticed, sometimes after they have elected somebody."""


def strike(world: World, kind: str, luck: random.Random) -> None:
    """Let it happen."""
    world.kernel.note(f"mishap {kind}")
    world.kernel.seen[f"mishap: {kind}"] += 1
    _STRIKES[kind][1](world, luck)


def _any_host(world: World, luck: random.Random) -> Host:
    """Leaders are struck more often than others."""
    leaders = [host for host in world.hosts.values() if host.alive and host.core.paxos.ready]
    if leaders and luck.random() < 0.4:
        return leaders[-1]
    return world.hosts[luck.choice(list(world.hosts))]


def _crash(world: World, host: Host, luck: random.Random) -> None:
    if host.alive:
        host.crash()
        world.kernel.at(int(luck.expovariate(1 / _RESTART_AFTER_US)), world.restart, host)


def _crash_one(world: World, luck: random.Random) -> None:
    _crash(world, _any_host(world, luck), luck)


def _crash_all(world: World, luck: random.Random) -> None:
    for host in world.hosts.values():
        _crash(world, host, luck)


def _nodes(world: World) -> list[int]:
    return [*world.hosts, *(client.node for client in world.clients)]


def _cut(world: World, luck: random.Random) -> None:
    world.network.cut_off(luck.sample(_nodes(world), luck.randint(1, len(world.hosts))))


def _cut_one_way(world: World, luck: random.Random) -> None:
    source = _any_host(world, luck).number
    for other in _nodes(world):
        if other != source and luck.random() < 0.5:
            world.network.cut(*((source, other) if luck.random() < 0.5 else (other, source)))


def _mend(world: World, luck: random.Random) -> None:
    world.network.mend()


def _reset(world: World, luck: random.Random) -> None:
    world.network.reset(luck.choice(list(world.hosts)))


def _pause_replica(world: World, luck: random.Random) -> None:
    _any_host(world, luck).pause(luck.randint(10_000, 5 * world.ttl_us))


def _hand_over(world: World, luck: random.Random) -> None:
    _any_host(world, luck).do(lambda core: core.hand_over())


def _kill_client(world: World, luck: random.Random) -> None:
    if world.clients:
        world.kill(luck.choice(world.clients))


def _pause_client(world: World, luck: random.Random) -> None:
    if world.clients:
        luck.choice(world.clients).pause(luck.randint(10_000, 3 * world.ttl_us))


def _hang_up(world: World, luck: random.Random) -> None:
    if world.clients:
        luck.choice(world.clients).hang_up()


_STRIKES: dict[str, tuple[float, Strike]] = {
    "crash": (2.0, _crash_one),
    "crash all": (0.2, _crash_all),
    "cut": (2.0, _cut),
    "cut one way": (1.0, _cut_one_way),
    "mend": (3.0, _mend),
    "reset": (1.0, _reset),
    "pause replica": (0.5, _pause_replica),
    "hand over": (1.0, _hand_over),
    "kill client": (1.0, _kill_client),
    "pause client": (1.0, _pause_client),
    "hang up": (2.0, _hang_up),
}

MISHAPS = {kind: weight for kind, (weight, _) in _STRIKES.items()}
