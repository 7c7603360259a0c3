# SPDX-License-Identifier: Apache-2.0
"""Each fault bites: in a world where nothing else goes wrong it is met, and what it leads to; and nobody is harmed.

A world here is some seconds of trouble of one kind and then peace, so each is a small simulation with all its checks.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.sim import mishaps
from tests.sim.group import PLACES
from tests.sim.host import POINTS
from tests.sim.mishaps import lasting
from tests.sim.mishaps.common import leads
from tests.sim.plan import Menu, Mishap, Plan, drawn
from tests.sim.running import MENU
from tests.sim.world import World

TROUBLE_US = 12_000_000

OBJECTS = {"lock:a": 1.0, "semaphore:s": 1.0, "goods:g": 1.0, "meeting:m": 1.0}
"""The same in each of these worlds: what a fault does is looked at here, and not what else there is."""


def _plan(kind: str, seed: int, every_us: int, *, replicas: int = 3, core_only: bool = False) -> Plan:
    plan = drawn(
        seed, Menu(MENU.mishaps, OBJECTS), replicas=replicas, clients=4, trouble_us=TROUBLE_US, core_only=core_only
    )
    moments = range(1_000_000, TROUBLE_US, every_us)
    only = tuple(Mishap(f"m{number}", at_us, kind, number + 1000 * seed) for number, at_us in enumerate(moments))
    clients = tuple(part._replace(think_s=0.5) for part in plan.clients)
    return plan._replace(
        mishaps=only, clients=clients, snapshot_every=40, delay_us=(100, 1_000), straggle=0.0, trouble_us=TROUBLE_US
    )


def _seen(kind: str, *, seeds: range = range(1), every_us: int = 1_000_000, replicas: int = 3) -> Counter[str]:
    """What was met in worlds with this mishap alone."""
    seen: Counter[str] = Counter()
    for seed in seeds:
        world = World(_plan(kind, seed, every_us, replicas=replicas))
        world.run()
        seen += world.kernel.seen
    return seen


BITES = {
    "failing disk": ["disk: a process ended with DISK_FAILED"],
    "full disk": ["disk: a process ended with DISK_FAILED"],
    "hanging disk": ["PreVote"],
    "late bytes": [
        "network: bytes of an old connection came late",
        "network: bytes of an old connection came after the new one's",
    ],
    "half open": ["client: left a connection half open", "network: a client's connection is found to be half open"],
    "two roads": ["client: left a connection half open", "copy of a call"],
    "flaky links": ["network: a client's connection is found to be half open"],
    "end client": ["client: said goodbye by Close", "client: said goodbye by CloseAtEnd"],
    "fork": ["client: forked"],
    "pause client": ["session ended while it held"],
    "jump of a client's clock": ["session ended while it held"],
    "pause replica": ["PreVote", "client: gave up a replica that acknowledged no keepalive"],
    "suspend replica": ["PreVote", "client: gave up a replica that acknowledged no keepalive"],
    "slow replica": ["Accept"],
    "kill replica": ["PreVote", "network: a client's connection is found to be half open"],
    "swizzle": ["client: gave up a replica that did not answer"],
    "bridge": ["PreVote"],
    "ring": ["PreVote"],
    "kill and crash": ["kill: in the middle of the log", "PreVote"],
    "crash twice": ["crash: in the middle of recovery"],
    "stranded leader": ["PreVote", "client: gave up a replica that acknowledged no keepalive"],
    "lost touch": ["a fetched snapshot is installed"],
    "damaged end": ["disk: slots in doubt after a restart", "disk: sound again after its last batch was damaged"],
    "fading client": ["session ended while it held", "ambush: Alive", "ambush: Opened"],
    "ambush of clients": ["ambush: Withdraw", "ambush: Reply", "copy of a call"],
    "ambush of replicas": ["ambush: Forward", "ambush: Accept"],
}


@pytest.mark.parametrize("kind", BITES)
def test_a_mishap_bites(kind: str) -> None:
    """A fault that changes nothing tests nothing."""
    seen = _seen(kind, seeds=range(4) if kind == "kill and crash" else range(2))
    assert seen[f"mishap: {kind}"] > 10
    assert not [what for what in BITES[kind] if not seen[what]]


def test_the_power_goes_at_each_boundary() -> None:
    """Wherever the core hands work to its shell."""
    seen = _seen("crash at a point", seeds=range(3), every_us=200_000)
    assert not [point for point in POINTS if not seen[f"crash: {point}"]]


def test_the_power_goes_in_the_middle_of_the_disks_work() -> None:
    """Of a write, a snapshot, a fetched snapshot (which is fetched anew), and of a recovery itself."""
    seen = _seen("cut power", seeds=range(7, 13), every_us=150_000, replicas=5)
    assert not [place for place in PLACES if not seen[f"crash: in the middle of {place}"]]
    assert seen["a fetched snapshot is installed"]


def test_interrupts_strike_at_every_stage_of_a_call() -> None:
    """While it waits; with the verdict to be waited for; with the answer in hand; and in the middle of a release."""
    seen = _seen("interrupt", seeds=range(2), every_us=50_000)
    for what in ("and undone", "and kept to its verdict", "with the answer in its hands"):
        assert seen[f"client: interrupted{' ' if what.startswith('with') else ', '}{what}"]


@pytest.mark.parametrize("kind", ["rotten disk", "lost disk"])
def test_a_replica_whose_data_is_gone_takes_no_part(kind: str) -> None:
    """It refuses by the daemon's rule, for good; the others go on, and a majority is always left."""
    gone = 0
    for seed in range(4):
        world = World(_plan(kind, seed, 1_000_000, replicas=5))
        world.run()
        lost = [host for host in world.hosts.values() if host.gone]
        assert len(lost) <= 2
        gone += len(lost)
    assert gone >= 4


def test_a_lost_directory_is_refused_by_the_group_itself() -> None:
    """The empty replica asks, and hears that the group exists without it."""
    seen = _seen("lost disk")
    assert seen["disk: an empty replica asks for its group"]
    assert seen["disk: a replica is gone for good"]
    assert seen["Census"]


def _struck(kind: str, replicas: int) -> World:
    world = World(_plan("mend", 1, 5_000_000, replicas=replicas))
    for host in world.hosts.values():
        host.start()
    world.kernel.run_until(2_000_000)
    mishaps.strike(world, kind, world.kernel.luck(kind))
    return world


def _neighbours(world: World) -> dict[int, int]:
    links = world.network._links
    return {
        one: sum(not links[one, other].cut and not links[other, one].cut for other in world.hosts if other != one)
        for one in world.hosts
    }


def test_in_a_ring_each_sees_two() -> None:
    """Nobody sees everybody, and everybody can be reached by way of others."""
    assert set(_neighbours(_struck("ring", 5)).values()) == {2}


def test_a_bridge_joins_two_halves() -> None:
    """One replica sees all others, and they see their own half and it."""
    assert sorted(_neighbours(_struck("bridge", 5)).values()) == [2, 2, 2, 2, 4]


def test_a_suspended_machine_loses_no_time() -> None:
    """Its clock stands still with it, and never goes back."""
    world = _struck("mend", 3)
    leader = next(host for host in world.hosts.values() if leads(host))
    before_ms = leader.now_ms()
    leader.suspend(5_000_000)
    world.kernel.run_until(world.kernel.now_us + 5_000_000)
    assert 0 <= leader.now_ms() - before_ms <= 1


@pytest.mark.parametrize("fault", lasting._FAULTS)
@pytest.mark.parametrize("replicas", [3, 5])
def test_a_core_goes_on_beside_a_lasting_fault(fault: str, replicas: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody is answered and the core's replicas become equal, whatever the others' state for ever."""
    monkeypatch.setattr(lasting, "_FAULTS", {fault: lasting._FAULTS[fault]})
    world = World(_plan("crash", 3, 3_000_000, replicas=replicas, core_only=True))
    world.run()
    assert world.kernel.seen[f"for ever: {fault}"] == (replicas - 1) // 2
    assert len(world.core) == replicas // 2 + 1


def test_what_is_not_promised_is_not_drawn() -> None:
    """A directory put back to what it was, a replica's clock that jumps: no protocol here stands these."""
    assert mishaps.UNDEFENDED
    assert not mishaps.UNDEFENDED.keys() & MENU.mishaps.keys()


def test_every_mishap_is_repeated_by_its_seed() -> None:
    """One world with all of them, twice."""
    plan = _plan("mend", 7, 5_000_000, replicas=5)
    kinds = [*mishaps.MISHAPS]
    all_of_them = tuple(Mishap(f"m{at}", 500_000 + at * 250_000, kind, at) for at, kind in enumerate(kinds))
    traces = []
    for _ in range(2):
        world = World(plan._replace(mishaps=all_of_them, core_only=True))
        world.run()
        traces.append(world.kernel.trace)
        assert not [kind for kind in kinds if not world.kernel.seen[f"mishap: {kind}"]]
    assert traces[0] == traces[1]
