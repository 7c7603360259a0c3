# SPDX-License-Identifier: Apache-2.0
"""Mishaps in the middle of a change of members. They are drawn only where members change.

A change is struck at the moment at which it is proposed, before anybody has heard of it: its leader falls at each step,
or only one follower hears of it, or disks are slow. And machines that were taken out come back on their old disks.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.sim.host import POINTS, SYNC_US, Armed
from tests.sim.mishaps.common import Strike, a_while_us, crash, down_us, silence
from tests.sim.network import Ambush

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sim.host import Host
    from tests.sim.moving_world import MovingWorld
    from tests.sim.world import World

__all__ = ["STRIKES"]

PATIENCE_US = 6_000_000
"""So long a mishap waits for a change."""
SLOW_US = (20_000, 400_000)


def _at_next_change(world: World, strike: Callable[[MovingWorld, Host], None]) -> None:
    """When somebody proposes other members, within the same turn of its loop."""
    until_us = world.kernel.now_us + PATIENCE_US

    def struck(node: int) -> None:
        host = world.hosts[node]
        if world.kernel.now_us <= until_us and host in world.fair_game:
            world.kernel.note(f"struck in a change {node}")
            world.kernel.seen["members: struck in a change"] += 1
            strike(world, host)  # type: ignore[arg-type]

    world.watch.members.at_proposal.append(struck)  # type: ignore[attr-defined]


def _leader_falls(world: World, luck: random.Random) -> None:
    """At one of the next steps of its loop, or some milliseconds later."""
    if luck.random() < 0.5:
        armed = Armed(luck.choice(POINTS), luck.randrange(6))

        def arm(_: MovingWorld, host: Host) -> None:
            host.down_us = down_us(luck)
            host.armed = armed

        _at_next_change(world, arm)
    else:
        after_us = luck.choice((0, luck.randint(0, 2_000), luck.randint(0, 100_000)))
        _at_next_change(world, lambda world, host: world.later(after_us, crash, world, host, luck))


def _one_hears_of_it(world: World, luck: random.Random) -> None:
    """The proposal reaches one follower, or none; its leader is gone for a while, and its successor may find it."""
    reached, span_us = luck.choice((0, 1, 1)), a_while_us(luck)
    falls = luck.random() < 0.5

    def strike(world: MovingWorld, host: Host) -> None:
        others = [number for number in world.hosts if number != host.number]
        silence(world, [host.number], luck.sample(others, max(0, len(others) - reached)), span_us)
        if falls:
            world.later(luck.randint(1_000, 300_000), crash, world, host, luck)

    _at_next_change(world, strike)


def _leader_stops(world: World, luck: random.Random) -> None:
    """It stands still with a change half done, and comes back to a group that has gone on."""
    span_us = luck.randint(100_000, 5_000_000)
    _at_next_change(world, lambda _, host: host.pause(span_us))


def _disks_are_slow(world: World, luck: random.Random) -> None:
    """Of some, for as long as it takes."""
    span_us = a_while_us(luck)

    def strike(world: MovingWorld, _: Host) -> None:
        for host in world.fair_game:
            if luck.random() < 0.6:
                host.sync_us = SLOW_US
                world.later(span_us, recover, host)

    def recover(host: Host) -> None:
        host.sync_us = SYNC_US
        host.troubled_us = max(host.troubled_us, world.kernel.now_us)

    _at_next_change(world, strike)


def _all_fall(world: World, luck: random.Random) -> None:
    """The power goes everywhere with a change half done."""
    after_us = luck.choice((0, luck.randint(0, 5_000)))

    def strike(world: MovingWorld, _: Host) -> None:
        for host in [*world.fair_game]:
            world.later(after_us, crash, world, host, luck)

    _at_next_change(world, strike)


def _member_is_away(world: World, luck: random.Random) -> None:
    """Somebody hears nothing of a change and of what follows."""
    host, span_us = luck.choice(world.fair_game), luck.randint(1_000_000, 12_000_000)
    others = [number for number in world.hosts if number != host.number]
    _at_next_change(world, lambda world, _: silence(world, [host.number], others, span_us))


def _word_is_caught(world: World, luck: random.Random) -> None:
    """The carrying of a question or its answer, or of a newcomer's report: its reader or its writer falls, or it is
    lost.
    """
    kind = luck.choice(("Ask", "Told", "Learning", "Objected", "Knock"))
    strikes, writer = luck.random() < 0.7, luck.random() < 0.5

    def strike(source: int, target: int) -> None:
        host = world.hosts.get(source if writer else target)
        if strikes and host in world.fair_game:
            crash(world, host, luck)

    nodes = frozenset(host.number for host in world.fair_game)
    world.network.lie_in_wait(Ambush(kind, nodes, luck.random() < 0.5, world.kernel.now_us + PATIENCE_US, strike))


def _come_back(world: World, luck: random.Random) -> None:
    """A machine that was taken out is started again, on its old disk."""
    former = [host for host in world.hosts.values() if host.gone and not host.program.spoilt]
    if former:
        host = luck.choice(former)
        host.gone = ""
        world.kernel.seen["members: a removed replica came back"] += 1
        world.restart(host)


def _newcomer_falls(world: World, luck: random.Random) -> None:
    coming = [host for host in world.fair_game if world.is_newcomer(host)]  # type: ignore[attr-defined]
    for host in coming:
        crash(world, host, luck)


STRIKES: dict[str, tuple[float, Strike]] = {
    "leader falls in a change": (3.0, _leader_falls),
    "one hears of a change": (3.0, _one_hears_of_it),
    "leader stops in a change": (1.0, _leader_stops),
    "slow disks in a change": (1.0, _disks_are_slow),
    "all fall in a change": (1.0, _all_fall),
    "member away in a change": (1.5, _member_is_away),
    "word about members is caught": (1.5, _word_is_caught),
    "removed replica comes back": (1.5, _come_back),
    "newcomer falls": (1.0, _newcomer_falls),
}
