# SPDX-License-Identifier: Apache-2.0
"""A world from its plan: replicas on their disks, clients with their sessions, trouble for a while, then peace.

In peace everybody who asked must be answered, nothing may be owed to anybody, and all replicas must be equal. In a
world that heals only its core (`Plan.core_only`), that is asked of those that the core can reach.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from replicas.paxos.types import Configuration, Member, Timing
from tests.sim import mishaps, workloads
from tests.sim.checkers import Watch, WatchedClient, WatchedProgram
from tests.sim.client import SimulatedClient
from tests.sim.group import GroupProgram
from tests.sim.host import Host
from tests.sim.kernel import Kernel
from tests.sim.network import Network, Weather
from tests.sim.plan import Part, Plan

PEACE_US = 60_000_000
LOOK_EVERY_US = 20_000
"""How often it is asked whether all is well, in peace."""
TTL_MS = 2_000


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
        self.watch = Watch(kernel)
        self.programs: dict[int, GroupProgram] = {}
        self.hosts: dict[int, Host] = {}
        for member in members:
            luck = kernel.luck(f"replica {member.id}")
            program = WatchedProgram(
                self.watch, member.id, configuration, luck, timing=Timing(), snapshot_every=plan.snapshot_every
            )
            self.programs[member.id] = program
            self.hosts[member.id] = Host(kernel, self.network, member.id, program, luck)
        self.scene = workloads.Scene(kernel)
        self.workloads: dict[str, workloads.Workload] = {}
        self.clients: list[SimulatedClient] = []
        self.everyone: list[SimulatedClient] = []
        """Those who were killed, too."""
        self._parts: dict[SimulatedClient, Part] = {}

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
        self.watch.finish([host.core.machine for host in self.hosts.values()])
        self._replicas_agree()

    def _play(self, part: Part) -> None:
        life = sum(other.name.startswith(f"{part.name}.") for other in self.everyone)
        client = WatchedClient(
            self.watch,
            self.kernel,
            self.network,
            1000 + len(self.everyone),
            list(self.hosts),
            ttl_ms=TTL_MS,
            name=f"{part.name}.{life}",
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

    def _strike(self, kind: str, luck: random.Random) -> None:
        if not self.scene.peace:
            mishaps.strike(self, kind, luck)

    # --- what mishaps may do

    def restart(self, host: Host) -> None:
        """Start it again, unless somebody has."""
        if not host.alive:
            host.start()

    def kill(self, client: SimulatedClient) -> None:
        """SIGKILL; somebody else starts in its place, and whatever it had taken and not done comes again."""
        client.kill()
        self.clients.remove(client)
        for workload in self.workloads.values():
            workload.gone(client)
        self._play(self._parts[client])

    # --- peace

    def _make_peace(self) -> None:
        self.scene.peace = True
        self.kernel.note("peace")
        self.network.mend()
        self.network.weather = Weather()
        for host in self.hosts.values():
            host.sync_us = (50, 2_000)
            self.restart(host)

    def _wait_for_all(self) -> None:
        end_us = self.kernel.now_us + PEACE_US
        while not self._all_is_well():
            assert self.kernel.now_us < end_us, f"somebody waits for ever\n{self.describe()}"
            self.kernel.run_until(self.kernel.now_us + LOOK_EVERY_US)

    def _all_is_well(self) -> bool:
        return (
            all(client.finished for client in self.clients)
            and all(workload.settled() for workload in self.workloads.values())
            and len({host.core.machine.applied for host in self.hosts.values()}) == 1
        )

    def _replicas_agree(self) -> None:
        machines = [host.core.machine for host in self.hosts.values()]
        assert len({machine.digest for machine in machines}) == 1, "replicas have said different things"
        assert len({machine.dump() for machine in machines}) == 1, "replicas are in different states"

    def describe(self) -> str:
        """Where everybody stands, for a failure's message."""
        lines = [f"{use} is {'settled' if one.settled() else 'not settled'}" for use, one in self.workloads.items()]
        for number, host in self.hosts.items():
            lines.append(f"replica {number}: {host.core.status() if host.core is not None else 'down'}")
        for client in self.clients:
            asks = [running.ask for running in client._threads]
            lines.append(f"{client.name}: session {client.session.id} {client.session.state.name} waits in {asks}")
        return "\n".join(lines)
