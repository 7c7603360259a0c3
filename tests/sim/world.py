# SPDX-License-Identifier: Apache-2.0
"""A world from its plan: replicas on their disks, clients with their sessions, trouble for a while, then peace.

In peace everybody who asked must be answered, nothing may be owed to anybody, and all replicas must be equal. In a
world that heals only its core (`Plan.core_only`), that is asked of those that the core can reach.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from replicas.machine.core import Machine
from replicas.paxos.types import Configuration, Member, Timing
from replicas.replica.core import Replica
from tests.sim import mishaps, workloads
from tests.sim.checkers import Watch, WatchedClient, WatchedProgram
from tests.sim.client import SimulatedClient
from tests.sim.group import GroupProgram
from tests.sim.host import Host
from tests.sim.kernel import Kernel
from tests.sim.mishaps import lasting
from tests.sim.network import Network, Weather
from tests.sim.plan import Part, Plan

PEACE_US = 60_000_000
LOOK_EVERY_US = 20_000
"""How often it is asked whether all is well, in peace."""
TTL_MS = 2_000
SUPERVISOR_US = 100_000
"""The least that a daemon that has ended stays down."""
NOBODY = 999
"""A replica that some clients were told of, and that never was."""
CLIENTS_MAX = 12
"""No more forks beyond that: each client costs."""
RATES = (0.995, 1.005)
"""Clocks run within one per cent of each other (`CLOCK_RATE_MARGIN`)."""


class World:
    """Replicas, clients and their workloads, as planned."""

    ttl_us = TTL_MS * 1000

    def __init__(self, plan: Plan, story: Callable[[str], None] | None = None) -> None:
        self.plan = plan
        self.kernel = kernel = Kernel(plan.seed, story)
        weather = Weather(delay_us=plan.delay_us, straggle=plan.straggle)
        self.network = Network(kernel, weather, kernel.luck("network"))
        members = tuple(Member(i, f"r{i}", bytes([i])) for i in range(1, plan.replicas + 1))
        configuration = Configuration("simulated", 1, members, b"")
        self.configuration = configuration
        """The one that the group was formed with."""
        self.watch = self._make_watch()
        self._at_the_edge = kernel.luck("clocks").random() < 0.5
        """All replicas' clocks are as fast as they may be, and all clients' as slow: leases have no room to spare."""
        self.programs: dict[int, GroupProgram] = {}
        self.hosts: dict[int, Host] = {}
        for member in members:
            luck = kernel.luck(f"replica {member.id}")
            self._install(member.id, self._make_program(member.id, luck), luck)
        self.watch.hosts, self.watch.network = self.hosts, self.network
        self.fair_game = [*self.hosts.values()]
        """The replicas that mishaps may strike."""
        self.core = self.fair_game
        """Those that are whole in the end, unless their data is gone."""
        self.scene = workloads.Scene(kernel, whole=not plan.core_only, moments=plan.moments)
        self.workloads: dict[str, workloads.Workload] = {}
        self.clients = self.scene.clients
        self.everyone: list[SimulatedClient] = []
        """Those who were killed, too."""
        self._parts: dict[SimulatedClient, Part] = {}

    def _make_watch(self) -> Watch:
        return Watch(self.kernel)

    def _make_program(self, number: int, luck: random.Random) -> GroupProgram:
        return WatchedProgram(self.watch, number, self.configuration, luck, **self._habits())

    def _habits(self) -> dict[str, Any]:
        """What all replicas have in common."""
        return {"timing": Timing(), "snapshot_every": self.plan.snapshot_every, "seen": self.kernel.seen}

    def _install(self, number: int, program: GroupProgram, luck: random.Random) -> Host:
        """A machine for that program."""
        self.programs[number] = program
        self.hosts[number] = host = Host(self.kernel, self.network, number, program, luck)
        host.rate = luck.choice((*RATES, luck.uniform(*RATES)))
        host.rate = RATES[1] if self._at_the_edge else host.rate
        host.died = partial(self._fell, host)
        return host

    # --- a run

    def run(self) -> None:
        """Trouble, then peace; raises as soon as something does not hold."""
        for host in self.hosts.values():
            host.start()
        for part in self.plan.clients:
            self._play(part)
        for mishap in self.plan.mishaps:
            luck = random.Random(mishap.seed)
            self.kernel.at(mishap.at_us, self._strike, mishap.kind, luck)
        self.kernel.run_until(self.plan.trouble_us)
        self._make_peace()
        self._wait_for_all()
        for workload in self.workloads.values():
            workload.check()
        machines = [machine for machine in self._machines() if machine is not None]
        self.watch.finish(machines)
        self._replicas_agree(machines)

    def _play(self, part: Part) -> None:
        life = sum(other.name.startswith(f"{part.name}.") for other in self.everyone)
        client = WatchedClient(
            self.watch,
            self.kernel,
            self.network,
            1000 + len(self.everyone),
            self._addresses(self.kernel.luck(f"list {part.name}.{life}")),
            ttl_ms=TTL_MS,
            name=f"{part.name}.{life}",
            rate=RATES[0] if self._at_the_edge else None,
        )
        self.clients.append(client)
        self.everyone.append(client)
        self._parts[client] = part
        for use in part.uses:
            workload = self.workloads.get(use)
            if workload is None:
                workload = self.workloads[use] = workloads.workload(use, self.scene)
            for thread in workload.threads(client, self.kernel.luck(f"{client.name} {use}"), part.think_s):
                client.spawn(thread)

    def _addresses(self, luck: random.Random) -> list[int]:
        """The replicas that a new client is told of."""
        return [*self.hosts, *([NOBODY] if luck.random() < 0.15 else [])]

    def _strike(self, kind: str, luck: random.Random) -> None:
        if not self.scene.peace:
            mishaps.strike(self, kind, luck)

    # --- what mishaps may do

    def later(self, delay_us: int, action: Callable[..., object], *arguments: Any) -> None:
        """A mishap's next step, unless it is peace by then, which mends all that has to be mended."""
        self.kernel.at(delay_us, lambda: self.scene.peace or action(*arguments))

    def restart(self, host: Host) -> None:
        """Start it again, unless somebody has, or it refuses for good."""
        if not host.alive and not host.gone:
            host.start()

    def may_lose(self, host: Host) -> bool:
        """Whether the group goes on when this replica's data is gone: a majority must keep all that it has promised."""
        lost = {other for other in self.hosts.values() if other.program.spoilt} | {host}
        return len(lost) <= (len(self.hosts) - 1) // 2

    def replace(self, client: SimulatedClient, end: Callable[[], None]) -> None:
        """`end` ends its process; somebody else starts in its place, and what it had taken and not done comes again."""
        end()
        self.clients.remove(client)
        for workload in self.workloads.values():
            workload.gone(client)
        self._play(self._parts[client])

    def fork(self, client: SimulatedClient) -> None:
        """A child process that holds nothing and does what its parent does, who goes on."""
        if len(self.clients) < CLIENTS_MAX:
            self.kernel.note(f"fork {client.name}")
            self.kernel.seen["client: forked"] += 1
            self._play(self._parts[client])

    def _fell(self, host: Host) -> None:
        """It died by itself, and a supervisor starts it again."""
        self.kernel.at(max(SUPERVISOR_US, host.down_us), self.restart, host)

    # --- peace

    def _make_peace(self) -> None:
        self.scene.peace = True
        self.kernel.note("peace")
        self.network.mend()
        self.network.weather = Weather()
        luck = self.kernel.luck("core")
        if self.plan.core_only:
            self.core = lasting.core_of(self, luck)
        self.fair_game = [host for host in self.hosts.values() if host not in self.core]
        for host in self.core:
            host.heal()
            self.restart(host)
        if self.fair_game:
            lasting.break_for_ever(self, luck)

    def _wait_for_all(self) -> None:
        end_us = self.kernel.now_us + PEACE_US
        while not self._all_is_well():
            assert self.kernel.now_us < end_us, f"somebody waits for ever\n{self.describe()}"
            self.kernel.run_until(self.kernel.now_us + LOOK_EVERY_US)

    def _all_is_well(self) -> bool:
        return (
            all(client.finished for client in self.clients)
            and all(workload.settled() for workload in self.workloads.values())
            and None not in (machines := self._machines())
            and len({machine.applied for machine in machines if machine is not None}) == 1
        )

    def _machines(self) -> list[Machine | None]:
        """Of the core's replicas, but for those whose data is gone. None: one is on its way."""
        hosts = [host for host in self.core if not host.gone]
        return [host.core.machine if isinstance(host.core, Replica) else None for host in hosts]

    def _replicas_agree(self, machines: list[Machine]) -> None:
        assert len({machine.digest for machine in machines}) == 1, "replicas have said different things"
        assert len({machine.dump() for machine in machines}) == 1, "replicas are in different states"

    def describe(self) -> str:
        """Where everybody stands, for a failure's message."""
        lines = [f"{use} is {'settled' if one.settled() else 'not settled'}" for use, one in self.workloads.items()]
        for number, host in self.hosts.items():
            lines.append(f"replica {number}: {host.core.status() if host.core is not None else host.gone or 'down'}")
        for client in self.clients:
            state = client.session.state.name
            lines.append(f"{client.name}: session {client.session.id} {state} waits in {client.waits_in}")
        return "\n".join(lines)
