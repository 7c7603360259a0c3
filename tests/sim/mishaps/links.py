# SPDX-License-Identifier: Apache-2.0
"""Mishaps of the network: cuts in all shapes, links that are slow or break again and again, bytes that come late."""

from __future__ import annotations

import random
from itertools import combinations
from typing import TYPE_CHECKING

from tests.sim.mishaps.common import Strike, a_while_us, any_host
from tests.sim.network import Weather

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.sim.world import World

__all__ = ["STRIKES"]

Pair = tuple[int, int]


def _nodes(world: World) -> list[int]:
    return [*world.hosts, *(client.node for client in world.clients)]


def _cut_between(world: World, pairs: Iterable[Pair]) -> None:
    for one, other in pairs:
        world.network.cut(one, other)
        world.network.cut(other, one)


def _cut(world: World, luck: random.Random) -> None:
    world.network.cut_off(luck.sample(_nodes(world), luck.randint(1, len(world.hosts))))


def _cut_one_way(world: World, luck: random.Random) -> None:
    source = any_host(world, luck).number
    for other in _nodes(world):
        if other != source and luck.random() < 0.5:
            world.network.cut(*((source, other) if luck.random() < 0.5 else (other, source)))


def _ring(world: World, luck: random.Random) -> None:
    """Each replica sees its two neighbours. Of three, one pair does not see each other."""
    ring = luck.sample([*world.hosts], len(world.hosts))
    seen = {frozenset(pair) for pair in zip(ring, ring[1:] + ring[:1], strict=True)}
    apart = [pair for pair in combinations(ring, 2) if frozenset(pair) not in seen]
    _cut_between(world, apart or [(ring[0], ring[-1])])


def _bridge(world: World, luck: random.Random) -> None:
    """Two halves that only one replica sees both of. Clients are in either half, or see everybody."""
    order = luck.sample([*world.hosts], len(world.hosts))
    half = len(order) // 2
    left, right = order[:half], order[half + 1 :]
    sides = {client.node: luck.choice((left, right, ())) for client in world.clients}
    _cut_between(world, [(one, other) for one in left for other in right])
    _cut_between(world, [(node, other) for node, cut in sides.items() for other in cut])


def _swizzle(world: World, luck: random.Random) -> None:
    """Links of some nodes go one by one, and come back one by one in another order (as FoundationDB does it)."""
    some = luck.sample(_nodes(world), luck.randint(1, len(world.hosts)))
    links = [pair for pair in world.network.links if pair[0] in some or pair[1] in some]
    span_us, pause_us = a_while_us(luck), a_while_us(luck)
    for step, link in enumerate(luck.sample(links, len(links))):
        world.later(step * span_us // len(links), world.network.cut, *link)
    for step, link in enumerate(luck.sample(links, len(links))):
        world.later(span_us + pause_us + step * span_us // len(links), world.network.mend, (link,))


def _mend(world: World, luck: random.Random) -> None:
    world.network.mend()


def _reset(world: World, luck: random.Random) -> None:
    world.network.reset(luck.choice(list(world.hosts)))


def _reset_late(world: World, luck: random.Random) -> None:
    """Connections break while much is under way, and it comes all the same: beside what the new ones carry."""
    node = any_host(world, luck).number
    links = [pair for pair in world.network.links if node in pair]
    slow = luck.randint(20_000, 1_000_000)
    world.network.give_weather(links, Weather(delay_us=(slow // 2, slow)))

    def reset() -> None:
        world.network.give_weather(links, None)
        world.network.reset(node, lingering=True)

    world.later(luck.randint(10_000, slow), reset)


def _give_weather(world: World, links: list[Pair], weather: Weather, luck: random.Random) -> None:
    world.network.give_weather(links, weather)
    world.later(a_while_us(luck), world.network.give_weather, links, None)


def _some_links(world: World, luck: random.Random) -> list[Pair]:
    return [pair for pair in world.network.links if luck.random() < 0.3]


def _flaky(world: World, luck: random.Random) -> None:
    """Some links stall and break again and again."""
    weather = Weather(delay_us=(100, 5_000), straggle=luck.choice((0.0, 0.05)), lose=luck.choice((0.01, 0.1)))
    _give_weather(world, _some_links(world, luck), weather, luck)


def _slow(world: World, luck: random.Random) -> None:
    """Some links take long."""
    delay_us = luck.choice(((10_000, 50_000), (50_000, 300_000)))
    _give_weather(world, _some_links(world, luck), Weather(delay_us=delay_us), luck)


STRIKES: dict[str, tuple[float, Strike]] = {
    "cut": (2.0, _cut),
    "cut one way": (1.0, _cut_one_way),
    "ring": (0.7, _ring),
    "bridge": (0.7, _bridge),
    "swizzle": (0.5, _swizzle),
    "mend": (8.0, _mend),
    "reset": (1.0, _reset),
    "late bytes": (0.7, _reset_late),
    "flaky links": (0.7, _flaky),
    "slow links": (0.7, _slow),
}
