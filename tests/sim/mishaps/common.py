# SPDX-License-Identifier: Apache-2.0
"""What the mishaps share: whom they strike, and for how long."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from replicas.replica.core import Replica

if TYPE_CHECKING:
    from tests.sim.client import SimulatedClient
    from tests.sim.host import Host
    from tests.sim.world import World

Strike = Callable[["World", random.Random], None]

_RESTART_AFTER_US = 800_000
"""On average: sometimes before the others have noticed, sometimes after they have elected somebody."""


def leads(host: Host) -> bool:
    """Whether it is a leader that serves."""
    return isinstance(host.core, Replica) and host.core.paxos.ready


def any_host(world: World, luck: random.Random) -> Host:
    """Leaders are struck more often than others."""
    leaders = [host for host in world.fair_game if leads(host)]
    if leaders and luck.random() < 0.4:
        return leaders[-1]
    return luck.choice(world.fair_game)


def any_client(world: World, luck: random.Random) -> SimulatedClient | None:
    """There may be a world without."""
    return luck.choice(world.clients) if world.clients else None


def down_us(luck: random.Random) -> int:
    """How long a replica is down."""
    return int(luck.expovariate(1 / _RESTART_AFTER_US))


def a_while_us(luck: random.Random) -> int:
    """How long something that mends itself lasts: some elections, or some leases."""
    return luck.choice((luck.randint(100_000, 2_000_000), luck.randint(2_000_000, 10_000_000)))


def crash(world: World, host: Host, luck: random.Random) -> None:
    """The power goes, and comes again."""
    if host.alive:
        host.crash()
        world.kernel.at(down_us(luck), world.restart, host)


def some_follower(world: World, luck: random.Random) -> Host | None:
    """A replica that serves clients and does not lead, if there is one; else any that lives."""
    serving = {client.line.replica for client in world.clients}
    others = [host for host in world.fair_game if host.alive and not leads(host)]
    with_clients = [host for host in others if host.number in serving]
    return luck.choice(with_clients or others) if others else None


def silence(world: World, nodes: Collection[int], others: Collection[int], span_us: int) -> None:
    """Nothing passes between these nodes and those for so long; what was cut already is not mended by it."""
    pairs = [(one, other) for one in nodes for other in others if one != other]
    pairs += [(other, one) for one, other in pairs]
    fresh = world.network.cut_each(pairs)
    world.later(span_us, world.network.mend, fresh)


def silence_client(world: World, client: SimulatedClient, luck: random.Random) -> None:
    """It hears nothing and is not heard for about a lease: long enough, often, for the group to give up its session."""
    silence(world, [client.node], [*world.hosts], int(luck.uniform(0.7, 1.7) * world.ttl_us))
