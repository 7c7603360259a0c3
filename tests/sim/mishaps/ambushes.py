# SPDX-License-Identifier: Apache-2.0
"""Mishaps that lie in wait for a message of one kind and strike when it passes, before it arrives or just after.

What is rarely on its way (a Withdraw, an undo, an acknowledgement, the answer that opens a session) is rarely hit by
what strikes at random moments; so these strike at it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.sim.mishaps.common import Strike, a_while_us, any_client, crash, silence, silence_client
from tests.sim.network import Ambush, Weather

if TYPE_CHECKING:
    from tests.sim.client import SimulatedClient
    from tests.sim.host import Host
    from tests.sim.world import World

__all__ = ["STRIKES"]

CLIENTS_WORDS = {
    "Acknowledge": 3.0,
    "Alive": 1.0,
    "Attach": 1.0,
    "Call": 1.0,
    "Close": 0.5,
    "Detach": 2.0,
    "Keepalive": 1.0,
    "Open": 1.0,
    "Opened": 2.0,
    "Reply": 2.0,
    "Resume": 2.0,
    "Resumed": 2.0,
    "Withdraw": 4.0,
}
"""Between a client and its replica, with how often each is waited for."""

REPLICAS_WORDS = {
    "Accept": 1.0,
    "Accepted": 1.0,
    "Chosen": 1.0,
    "Forward": 4.0,
    "Prepare": 1.0,
    "Promise": 1.0,
    "SnapshotPart": 2.0,
    "SnapshotRequest": 0.5,
    "TakeOver": 1.0,
    "Vouch": 1.0,
    "Vouched": 1.0,
}
"""The same among replicas."""

PATIENCE_US = 5_000_000
"""So long an ambush waits."""

AT_ONCE_MAX = 3
"""So many are laid together."""


def _client_of(world: World, nodes: tuple[int, int]) -> SimulatedClient | None:
    return next((client for client in world.clients if client.node in nodes), None)


def _host_of(world: World, nodes: tuple[int, int], luck: random.Random) -> Host | None:
    hosts = [world.hosts[node] for node in nodes if world.hosts.get(node) in world.fair_game]
    return luck.choice(hosts) if hosts else None


def _hang_up(world: World, nodes: tuple[int, int], luck: random.Random) -> None:
    if client := _client_of(world, nodes):
        client.hang_up(silently=luck.random() < 0.3, avoiding=luck.random() < 0.5)


def _silence_client(world: World, nodes: tuple[int, int], luck: random.Random) -> None:
    if client := _client_of(world, nodes):
        silence_client(world, client, luck)


def _pause_client(world: World, nodes: tuple[int, int], luck: random.Random) -> None:
    if client := _client_of(world, nodes):
        client.pause(luck.randint(100_000, 2 * world.ttl_us))


def _kill_client(world: World, nodes: tuple[int, int], luck: random.Random) -> None:
    if client := _client_of(world, nodes):
        world.replace(client, client.kill)


def _interrupt(world: World, nodes: tuple[int, int], luck: random.Random) -> None:
    if client := _client_of(world, nodes):
        client.interrupt(luck)


def _cut(world: World, nodes: tuple[int, int], luck: random.Random) -> None:
    silence(world, nodes[:1], nodes[1:], luck.choice((1_000, luck.randint(1_000, 400_000), a_while_us(luck))))


def _crash(world: World, nodes: tuple[int, int], luck: random.Random) -> None:
    if host := _host_of(world, nodes, luck):
        crash(world, host, luck)


def _kill(world: World, nodes: tuple[int, int], luck: random.Random) -> None:
    host = _host_of(world, nodes, luck)
    if host is not None and host.alive:
        host.kill()
        world.kernel.at(luck.randint(10_000, 1_000_000), world.restart, host)


def _pause(world: World, nodes: tuple[int, int], luck: random.Random) -> None:
    if host := _host_of(world, nodes, luck):
        host.pause(luck.randint(50_000, world.ttl_us))


def _nothing(world: World, nodes: tuple[int, int], luck: random.Random) -> None:
    """That the message is lost is enough."""


_Blow = Callable[["World", tuple[int, int], random.Random], None]

_AT_CLIENTS: dict[_Blow, float] = {
    _hang_up: 3.0,
    _silence_client: 2.0,
    _pause_client: 0.5,
    _kill_client: 0.5,
    _interrupt: 1.0,
    _cut: 1.0,
    _crash: 0.5,
    _kill: 0.5,
    _pause: 1.0,
    _nothing: 1.0,
}
_AT_REPLICAS: dict[_Blow, float] = {_cut: 2.0, _crash: 1.0, _kill: 1.0, _pause: 1.0, _nothing: 3.0}


def _lie_in_wait(
    world: World, luck: random.Random, words: dict[str, float], blows: dict[_Blow, float], nodes: list[int]
) -> None:
    for _ in range(luck.randint(1, AT_ONCE_MAX)):
        (kind,) = luck.choices([*words], [*words.values()])
        (blow,) = luck.choices([*blows], [*blows.values()])
        loses = blow is _nothing or luck.random() < 0.5
        until_us = world.kernel.now_us + PATIENCE_US

        def strike(source: int, target: int, blow: _Blow = blow) -> None:
            if not world.scene.peace:
                blow(world, (source, target), luck)

        world.network.lie_in_wait(Ambush(kind, frozenset(nodes), loses, until_us, strike))


def _at_clients(world: World, luck: random.Random) -> None:
    nodes = [client.node for client in world.clients]
    _lie_in_wait(world, luck, CLIENTS_WORDS, _AT_CLIENTS, nodes)


def _at_replicas(world: World, luck: random.Random) -> None:
    _lie_in_wait(world, luck, REPLICAS_WORDS, _AT_REPLICAS, [*world.hosts])


def _fading(world: World, luck: random.Random) -> None:
    """A client's words or their answers take longer and longer, and then nothing passes any more: just when the group
    has vouched for it, or at any moment.
    """
    client = any_client(world, luck)
    slow = luck.choice((luck.randint(20_000, 150_000), luck.randint(150_000, 300_000), luck.randint(300_000, 480_000)))
    last = luck.choice(("", "Alive", "Alive", "Opened", "Opened", "Resumed"))
    fades_us = luck.randint(slow, world.ttl_us)
    if client is None:
        return
    if last == "Opened":
        # Replicas that take longer than a third of a second to open a session are given up.
        slow = min(slow, 290_000)
        world.replace(client, client.kill)
        client = world.clients[-1]
    faded = client
    ways = [(host, client.node) for host in world.hosts]
    if last != "Opened" and luck.random() < 0.7:
        ways += [(client.node, host) for host in world.hosts]
    world.network.give_weather(ways, Weather(delay_us=(slow * 3 // 4, slow)))

    def fall_silent(*_: int) -> None:
        if not world.scene.peace:
            silence(world, [faded.node], [*world.hosts], int(luck.uniform(1.05, 1.8) * world.ttl_us))
            world.network.give_weather(ways, None)

    if last:
        ambush = Ambush(last, frozenset([client.node]), False, world.kernel.now_us + PATIENCE_US, fall_silent)
        world.later(fades_us if last == "Alive" else 0, world.network.lie_in_wait, ambush)
        world.later(PATIENCE_US, world.network.give_weather, ways, None)
    else:
        world.later(fades_us, fall_silent)


STRIKES: dict[str, tuple[float, Strike]] = {
    "ambush of clients": (3.0, _at_clients),
    "ambush of replicas": (2.0, _at_replicas),
    "fading client": (2.0, _fading),
}
