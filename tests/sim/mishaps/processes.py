# SPDX-License-Identifier: Apache-2.0
"""Mishaps of client processes: killed, closed, ended, stopped, forked, interrupted, or wrong about their connection."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.sim.mishaps.common import Strike, any_client
from tests.sim.network import Weather

if TYPE_CHECKING:
    from tests.sim.client import SimulatedClient
    from tests.sim.world import World

__all__ = ["STRIKES"]


def _kill(world: World, luck: random.Random) -> None:
    if client := any_client(world, luck):
        world.replace(client, client.kill)


def _close(world: World, luck: random.Random) -> None:
    """It ends in good order."""
    closing = luck.random() < 0.5
    if client := any_client(world, luck):
        world.replace(client, lambda: client.leave(closing=closing))


def _pause(world: World, luck: random.Random) -> None:
    """Several leases long: it must go on believing nothing."""
    if client := any_client(world, luck):
        client.pause(luck.randint(10_000, 5 * world.ttl_us))


def _jump(world: World, luck: random.Random) -> None:
    """A client's clock jumps forward. It gives up what it could have kept, which harms nobody else."""
    if client := any_client(world, luck):
        client.jump(luck.randint(10_000, 3 * world.ttl_us))


def _hang_up(world: World, luck: random.Random) -> None:
    if client := any_client(world, luck):
        client.hang_up()


def _half_open(world: World, luck: random.Random) -> None:
    """One end of a connection forgets it, and the other does not hear of that."""
    client = any_client(world, luck)
    at_replica = luck.random() < 0.5
    if client is None or not client.line.connection:
        return
    if at_replica:
        host, connection = world.hosts.get(client.line.replica), client.line.connection
        if host is not None:
            host.do(lambda _: host.program.drop(connection))
    else:
        client.hang_up(silently=True)


def _two_roads(world: World, luck: random.Random) -> None:
    """What a client said to one replica is still under way when it says it again to another."""
    client = any_client(world, luck)
    slow = luck.randint(20_000, 1_500_000)
    after_us, mended_us = luck.randint(5_000, slow), luck.randint(slow, 3_000_000)
    if client is None or not client.line.connection:
        return
    way = [(client.node, client.line.replica)]
    if way[0] not in world.network.links:
        return
    world.network.give_weather(way, Weather(delay_us=(slow // 2, slow)))
    world.later(after_us, _leave, client)
    world.later(mended_us, world.network.give_weather, way, None)


def _leave(client: SimulatedClient) -> None:
    client.hang_up(silently=True, avoiding=True)


def _interrupt(world: World, luck: random.Random) -> None:
    """Ctrl-C, sometimes several, in the middle of calls; or just when the answer is there."""
    late = luck.random() < 0.3
    moments = [int(luck.expovariate(1 / 10_000)) for _ in range(luck.randint(1, 4))]
    for client in luck.sample(world.clients, len(world.clients)):
        if late:
            client.interrupt_answers += len(moments)
            return
        if client.interrupt(luck):
            for moment in moments[1:]:
                world.later(moment, client.interrupt, luck)
            return


def _fork(world: World, luck: random.Random) -> None:
    if client := any_client(world, luck):
        world.fork(client)


STRIKES: dict[str, tuple[float, Strike]] = {
    "kill client": (0.7, _kill),
    "end client": (0.7, _close),
    "pause client": (1.0, _pause),
    "jump of a client's clock": (0.3, _jump),
    "hang up": (1.0, _hang_up),
    "half open": (1.0, _half_open),
    "two roads": (1.0, _two_roads),
    "interrupt": (2.0, _interrupt),
    "fork": (0.3, _fork),
}
