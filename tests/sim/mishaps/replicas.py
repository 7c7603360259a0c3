# SPDX-License-Identifier: Apache-2.0
"""Mishaps of a replica's process and machine: it crashes anywhere, stands still, is slow, or its clock is."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.sim.group import PLACES
from tests.sim.host import LAG_US, POINTS, Armed, Killed
from tests.sim.mishaps.common import Strike, a_while_us, any_host, crash, down_us, leads, silence, some_follower

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ["STRIKES", "UNDEFENDED"]


def _crash_one(world: World, luck: random.Random) -> None:
    crash(world, any_host(world, luck), luck)


def _crash_all(world: World, luck: random.Random) -> None:
    for host in world.fair_game:
        crash(world, host, luck)


def _kill(world: World, luck: random.Random) -> None:
    """kill -9: unlike after a crash, what it wrote and did not sync is still there."""
    host = any_host(world, luck)
    if host.alive:
        host.kill()
        world.kernel.at(down_us(luck), world.restart, host)


def _crash_at(world: World, luck: random.Random) -> None:
    """The power goes where the core hands work to its shell."""
    host = any_host(world, luck)
    if host.alive:
        host.down_us = down_us(luck)
        host.armed = Armed(luck.choice(POINTS), luck.randrange(8))


def _cut_power(world: World, luck: random.Random) -> None:
    """The power goes between two operations of the disk, or in the middle of one."""
    host, place = any_host(world, luck), luck.choice(PLACES)
    if place == "recovery":
        crash(world, host, luck)
    host.down_us = down_us(luck)
    # A snapshot comes by rarely: the first operations are no better than those of its end, the rename above all.
    host.program.cuts[place] = luck.randrange(12 if "snapshot" in place else 6)


def _kill_and_crash(world: World, luck: random.Random) -> None:
    """kill -9, a new process that builds upon what it finds, and then the power goes."""
    host = any_host(world, luck)
    if not host.alive:
        return
    again_us = luck.choice((1_000, 20_000, 300_000))
    if luck.random() < 0.5:
        host.kill()
    else:  # with something written that nobody has been told about
        host.down_us = again_us
        host.armed = Armed("written", luck.randrange(3), Killed)
    lives_us = luck.choice((luck.randint(100, 20_000), luck.randint(1_000, 800_000)))
    world.kernel.at(again_us, world.restart, host)
    world.kernel.at(again_us + lives_us, crash, world, host, luck)


def _crash_twice(world: World, luck: random.Random) -> None:
    """Again while it recovers, or soon after."""
    host = any_host(world, luck)
    if not host.alive:
        return
    host.crash()
    if luck.random() < 0.4:
        host.down_us = down_us(luck)
        host.program.cuts["recovery"] = luck.randrange(4)
    again_us = luck.choice((1_000, 20_000, 300_000))
    world.kernel.at(again_us, world.restart, host)
    for _ in range(luck.randint(1, 2)):
        again_us += luck.choice((luck.randint(100, 20_000), luck.randint(1_000, 800_000)))
        world.kernel.at(again_us, crash, world, host, luck)


def _strand(world: World, luck: random.Random) -> None:
    """A leader, stopped for a while or not, and clients of its own on one side; on the other its successor."""
    leaders = [host for host in world.fair_game if leads(host)]
    if not leaders:
        return
    leader = leaders[-1]
    others = [number for number in world.hosts if number != leader.number]
    clients = [client.node for client in world.clients if client.line.replica == leader.number]
    some = [client.node for client in world.clients if client.node not in clients and luck.random() < 0.2]
    span_us = int(luck.uniform(0.4, 2.0) * world.ttl_us)
    silence(world, [leader.number, *clients, *some], others, span_us)
    if luck.random() < 0.7:
        leader.pause(luck.randint(100_000, 2_000_000))


def _lose_touch(world: World, luck: random.Random) -> None:
    """A follower loses some of what the others say, and is soon so far behind that only a snapshot helps; its clients
    stay with it.
    """
    host = some_follower(world, luck)
    if host is None:
        return
    others = [number for number in world.hosts if number != host.number]
    moments = luck.randint(1, 6)
    if luck.random() < 0.5:
        host.down_us = down_us(luck)
        host.program.cuts[luck.choice(PLACES[2:4])] = luck.randrange(6)
    for moment in range(moments):
        world.later(
            moment * luck.randint(10_000, 800_000), silence, world, [host.number], others, luck.randint(500, 450_000)
        )


def _pause(world: World, luck: random.Random) -> None:
    any_host(world, luck).pause(luck.randint(10_000, 5 * world.ttl_us))


def _suspend(world: World, luck: random.Random) -> None:
    """A replica's clock stops with its machine (CLOCK_MONOTONIC)."""
    any_host(world, luck).suspend(luck.randint(10_000, 5 * world.ttl_us))


def _slow(world: World, luck: random.Random) -> None:
    """A busy machine: its loop looks late at what came."""
    host = any_host(world, luck)
    host.lag_us = luck.choice(((1_000, 20_000), (20_000, 150_000)))

    def recover() -> None:
        host.lag_us = LAG_US
        host.troubled_us = max(host.troubled_us, world.kernel.now_us)

    world.later(a_while_us(luck), recover)


def _hand_over(world: World, luck: random.Random) -> None:
    host = any_host(world, luck)
    if hasattr(host.core, "hand_over"):
        host.do(lambda core: core.hand_over())


def _jump(world: World, luck: random.Random) -> None:
    """A replica's clock jumps forward while the machine runs: beyond any rate that leases allow for."""
    any_host(world, luck).suspend(-luck.randint(10_000, world.ttl_us))


STRIKES: dict[str, tuple[float, Strike]] = {
    "crash": (1.5, _crash_one),
    "crash all": (0.2, _crash_all),
    "kill replica": (0.7, _kill),
    "crash at a point": (1.5, _crash_at),
    "cut power": (1.5, _cut_power),
    "kill and crash": (1.0, _kill_and_crash),
    "crash twice": (1.0, _crash_twice),
    "stranded leader": (1.0, _strand),
    "lost touch": (1.5, _lose_touch),
    "pause replica": (0.5, _pause),
    "suspend replica": (0.3, _suspend),
    "slow replica": (0.5, _slow),
    "hand over": (1.0, _hand_over),
}

UNDEFENDED: dict[str, Strike] = {"jump of a replica's clock": _jump}
