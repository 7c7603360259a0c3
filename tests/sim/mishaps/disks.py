# SPDX-License-Identifier: Apache-2.0
"""Mishaps of a replica's disk: slow, hanging, failing, full, rotten, lost, or put back to what it was.

A directory that is rotten or empty takes its replica out for ever, and nobody replaces it: so no more than a minority
may be lost in one world (`World.may_lose`).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from replicas.replica.core import Replica
from replicas.storage.files import SECTOR
from tests.sim.host import SYNC_US
from tests.sim.mishaps.common import Strike, a_while_us, any_host, crash, down_us

if TYPE_CHECKING:
    from tests.sim.host import Host
    from tests.sim.world import World

__all__ = ["STRIKES", "UNDEFENDED"]

SLOW_US = (10_000, 200_000)
HANGING_US = (500_000, 8_000_000)
"""What one sync takes. A leader's may take Timing.disk_ms, then it hands over."""


def _be_slow(world: World, host: Host, sync_us: tuple[int, int], luck: random.Random) -> None:
    host.sync_us = sync_us

    def recover() -> None:
        host.sync_us = SYNC_US
        host.troubled_us = max(host.troubled_us, world.kernel.now_us)

    world.later(a_while_us(luck), recover)


def _slow(world: World, luck: random.Random) -> None:
    _be_slow(world, any_host(world, luck), SLOW_US, luck)


def _hang(world: World, luck: random.Random) -> None:
    _be_slow(world, any_host(world, luck), HANGING_US, luck)


def _fail(world: World, luck: random.Random) -> None:
    """One of the next writes and syncs raises EIO, once: whoever asks again is told that all is well."""
    host = any_host(world, luck)
    host.down_us = down_us(luck)
    host.program.disk.fail_after = luck.randrange(6)


def _fill(world: World, luck: random.Random) -> None:
    """ENOSPC for a while: the daemon ends, and is started again and again until there is room."""
    host = any_host(world, luck)
    host.down_us = down_us(luck)
    disk = host.program.disk
    disk.capacity = disk.used_bytes() + luck.choice((0, 1_000, 50_000))

    def make_room() -> None:
        disk.capacity = None

    world.later(a_while_us(luck), make_room)


def _rot(world: World, luck: random.Random) -> None:
    """A bit flips in what was synced, or a write for elsewhere has landed there. It is found at the next start."""
    host = any_host(world, luck)
    if not host.alive or not world.may_lose(host):
        return
    host.program.spoilt = host.program.rotten = True
    crash(world, host, luck)
    disk = host.program.disk
    written = [
        (name, at)
        for name in disk.names()
        for at in range(0, len(disk.contents(name)), SECTOR)
        if disk.contents(name)[at : at + SECTOR].strip(b"\0")
    ]
    if not written:
        return
    name, at = luck.choice(written)
    length = min(SECTOR, len(disk.contents(name)) - at)
    if luck.random() < 0.5:
        disk.flip(name, at + luck.randrange(length), 1 << luck.randrange(8))
        world.kernel.seen["disk: a bit has flipped"] += 1
    else:
        other, elsewhere = luck.choice(written)
        stray = disk.contents(other)[elsewhere : elsewhere + length]
        for offset, byte in enumerate(stray):
            disk.flip(name, at + offset, disk.contents(name)[at + offset] ^ byte)
        world.kernel.seen["disk: a write was misdirected"] += 1


def _damage_the_end(world: World, luck: random.Random) -> None:
    """What was acknowledged last cannot be read at the next start; the others still have it. A replica that has come
    through that is sound again, and may be struck once more.
    """
    host = any_host(world, luck)
    disk = host.program.disk
    if not host.alive or disk.last_durable is None or not world.may_lose(host):
        return
    host.program.spoilt = True
    world.kernel.seen["disk: its last batch was damaged"] += 1
    inode, offset, length = disk.last_durable
    if luck.random() < 0.5:
        crash(world, host, luck)
    else:
        host.kill()
        world.kernel.at(luck.randint(1_000, 500_000), world.restart, host)
    for _ in range(luck.choice((1, 1, 3))):
        inode.data[offset + luck.randrange(length)] ^= 1 << luck.randrange(8)
    world.later(luck.randint(1_500_000, 4_000_000), _find_sound, world, host)


def _find_sound(world: World, host: Host) -> None:
    core = host.core
    if not isinstance(core, Replica) or core.paxos._acceptor.doubtful or core.machine.applied < world.watch.top - 5:
        if not host.gone and not host.program.rotten:
            world.later(1_000_000, _find_sound, world, host)
    elif not host.program.rotten:
        host.program.spoilt = False
        world.kernel.seen["disk: sound again after its last batch was damaged"] += 1


def _lose(world: World, luck: random.Random) -> None:
    """The directory is empty, while the group knows this replica."""
    host = any_host(world, luck)
    if host.alive and world.may_lose(host):
        host.program.spoilt = True
        crash(world, host, luck)
        host.program.lose_disk()


def _roll_back(world: World, luck: random.Random) -> None:
    """A copy of the directory that is some seconds old is put in its place, promises and all."""
    host = any_host(world, luck)
    disk = host.program.disk
    copy = disk.clone(disk.luck)

    def put_back() -> None:
        if host.alive and host.program.disk is disk:
            crash(world, host, luck)
            copy.crash()
            host.program.disk = copy
            world.kernel.seen["disk: was rolled back"] += 1

    world.later(luck.randint(100_000, 5_000_000), put_back)


STRIKES: dict[str, tuple[float, Strike]] = {
    "slow disk": (0.5, _slow),
    "hanging disk": (0.4, _hang),
    "failing disk": (0.7, _fail),
    "full disk": (0.4, _fill),
    "rotten disk": (0.15, _rot),
    "damaged end": (0.7, _damage_the_end),
    "lost disk": (0.1, _lose),
}

UNDEFENDED: dict[str, Strike] = {"disk rolled back": _roll_back}
