# SPDX-License-Identifier: Apache-2.0
"""A whole world from its seed: replicas on their disks, clients with their sessions, trouble for a while, then peace.

In peace everybody who asked must be answered, every item surely put must be done, and all replicas must be equal.
"""

from __future__ import annotations

from collections.abc import Callable

from replicas.paxos.types import Configuration, Member, Timing
from tests.sim import workload
from tests.sim.client import SimulatedClient
from tests.sim.group import GroupProgram
from tests.sim.host import Host
from tests.sim.kernel import Kernel
from tests.sim.network import Network, Weather

TROUBLE_US = 12_000_000
PEACE_US = 60_000_000
TTL_MS = 2_000


class GroupSimulation:
    """Replicas, clients and their workloads in a world drawn from `seed`."""

    def __init__(
        self, seed: int, *, replicas: int = 3, clients: int = 4, story: Callable[[str], None] | None = None
    ) -> None:
        self.kernel = Kernel(seed, story)
        luck = self.kernel.random
        delay_us = luck.choice(((50, 300), (100, 3_000), (1_000, 20_000)))
        self.network = Network(self.kernel, Weather(delay_us=delay_us, straggle=luck.choice((0.0, 0.01))))
        configuration = Configuration(
            "simulated", 1, tuple(Member(i, f"r{i}", bytes([i])) for i in range(1, replicas + 1)), b""
        )
        snapshot_every = luck.choice((50, 300, 1_000_000))
        self.programs: dict[int, GroupProgram] = {}
        self.hosts: dict[int, Host] = {}
        for number in range(1, replicas + 1):
            program = GroupProgram(number, configuration, luck, timing=Timing(), snapshot_every=snapshot_every)
            self.programs[number] = program
            self.hosts[number] = Host(self.kernel, self.network, number, program)
        self.clients: list[SimulatedClient] = []
        self._everyone: list[SimulatedClient] = []
        self._client_count = clients
        self._peace = False
        self._numbers = 0
        self.locks = [workload.Inside(f"lock {i}") for i in range(luck.choice((1, 2)))]
        self.semaphore = workload.Inside("semaphore", 2)
        self.goods = workload.Goods("goods")
        self.meeting = workload.Meeting("meeting")
        self.room = workload.Inside("room")
        self._mishap_us = luck.choice((100_000, 400_000, 1_500_000))
        self._crashes = luck.choice((0.0, 1.0, 2.0))
        self._cuts = luck.choice((0.0, 1.0, 2.0))
        self._client_trouble = luck.choice((0.0, 1.0, 2.0))

    # --- a run

    def run(self) -> None:
        """Trouble, then peace; raises as soon as something does not hold."""
        for host in self.hosts.values():
            host.start()
        for _ in range(self._client_count):
            self._new_client()
        self.kernel.at(self.kernel.between(0, self._mishap_us), self._mishap)
        self.kernel.run_until(TROUBLE_US)
        self._make_peace()
        end_us = self.kernel.now_us + PEACE_US
        done = self.kernel.run_until(end_us, self._all_is_well)
        assert done, self.describe()
        self._replicas_agree()

    def _new_client(self) -> None:
        luck = self.kernel.random
        node = 1000 + len(self._everyone)
        client = SimulatedClient(
            self.kernel, self.network, node, list(self.hosts), ttl_ms=TTL_MS, name=f"client {node}"
        )
        self.clients.append(client)
        self._everyone.append(client)
        busy = self._busy
        for lock in self.locks:
            client.spawn(workload.lock_user(client, self._next_number(), lock, busy))
            if luck.random() < 0.5:
                client.spawn(workload.lock_user(client, self._next_number(), lock, busy))
        client.spawn(workload.semaphore_user(client, self._next_number(), self.semaphore, busy))
        client.spawn(workload.producer(client, self.goods, busy))
        client.spawn(workload.consumer(client, self.goods, busy, lambda: not self.goods.settled()))
        client.spawn(workload.condition_user(client, self._next_number(), self.meeting, self.room, busy))

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _busy(self) -> bool:
        return not self._peace

    # --- mishaps

    def _mishap(self) -> None:
        if self._peace:
            return
        luck = self.kernel.random
        kinds: list[tuple[float, Callable[[], None]]] = [
            (0.5, lambda: None),
            (2 * self._crashes, self._crash_one),
            (0.2 * self._crashes, self._crash_all),
            (2 * self._cuts, self._cut),
            (self._cuts, self._cut_one_way),
            (3 * self._cuts, self.network.mend),
            (self._cuts, lambda: self.network.reset(luck.choice(list(self.hosts)))),
            (0.5 * self._crashes, self._pause_replica),
            (self._crashes, self._hand_over),
            (self._client_trouble, self._kill_client),
            (self._client_trouble, self._pause_client),
            (2 * self._client_trouble, lambda: luck.choice(self.clients).hang_up()),
        ]
        luck.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])[0]()
        self.kernel.at(self.kernel.between(1, 2 * self._mishap_us), self._mishap)

    def _any_host(self) -> Host:
        leaders = [host for host in self.hosts.values() if host.alive and host.core.paxos.ready]
        if leaders and self.kernel.chance(0.4):
            return leaders[-1]
        return self.hosts[self.kernel.random.choice(list(self.hosts))]

    def _crash(self, host: Host) -> None:
        if host.alive:
            host.crash()
            self.kernel.at(int(self.kernel.random.expovariate(1 / 800_000)), self._restart, host)

    def _restart(self, host: Host) -> None:
        if not host.alive:
            host.start()

    def _crash_one(self) -> None:
        self._crash(self._any_host())

    def _crash_all(self) -> None:
        for host in self.hosts.values():
            self._crash(host)

    def _cut(self) -> None:
        luck = self.kernel.random
        nodes = luck.sample([*self.hosts, *(client.node for client in self.clients)], luck.randint(1, len(self.hosts)))
        self.kernel.note(f"cut {nodes}")
        self.network.cut_off(nodes)

    def _cut_one_way(self) -> None:
        source = self._any_host().number
        for other in [*self.hosts, *(client.node for client in self.clients)]:
            if other != source and self.kernel.chance(0.5):
                self.network.cut(*((source, other) if self.kernel.chance(0.5) else (other, source)))

    def _pause_replica(self) -> None:
        self._any_host().pause(self.kernel.between(10_000, 5 * TTL_MS * 1000))

    def _hand_over(self) -> None:
        self._any_host().do(lambda core: core.hand_over())

    def _kill_client(self) -> None:
        doomed = self.kernel.random.choice(self.clients)
        doomed.kill()
        self.clients.remove(doomed)
        self.goods.producers.discard(doomed)
        # Whatever it had taken and not done comes again.
        self._new_client()

    def _pause_client(self) -> None:
        client = self.kernel.random.choice(self.clients)
        span_us = self.kernel.between(10_000, 3 * TTL_MS * 1000)
        self.kernel.note(f"pause {client.name} {span_us}")
        client.pause(span_us)

    # --- peace

    def _make_peace(self) -> None:
        self._peace = True
        self.kernel.note("peace")
        self.network.mend()
        self.network.weather = Weather()
        for host in self.hosts.values():
            host.sync_us = (50, 2_000)
            self._restart(host)

    def _all_is_well(self) -> bool:
        return self.goods.settled() and all(client.finished for client in self.clients) and self._all_equal()

    def _all_equal(self) -> bool:
        cores = [host.core for host in self.hosts.values()]
        return len({core.machine.applied for core in cores}) == 1

    def _replicas_agree(self) -> None:
        machines = [host.core.machine for host in self.hosts.values()]
        assert len({machine.digest for machine in machines}) == 1, "replicas have said different things"
        assert len({machine.dump() for machine in machines}) == 1, "replicas are in different states"

    def describe(self) -> str:
        """Where everybody stands, for a failure's message."""
        lines = [f"not done: {sorted(self.goods.put - self.goods.done - self.goods.perhaps_done)}"]
        for number, host in self.hosts.items():
            lines.append(f"replica {number}: {host.core.status() if host.core is not None else 'down'}")
        for client in self.clients:
            asks = [running.ask for running in client._threads]
            lines.append(f"{client.name}: session {client.session.id} {client.session.state.name} waits in {asks}")
        return "\n".join(lines)
