# SPDX-License-Identifier: Apache-2.0
"""One simulated world from its seed: replicas, clients, mishaps; then everything is mended, and all must agree and go
on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from unittest import mock

from replicas.paxos import leader, log
from replicas.paxos.core import Paxos
from replicas.paxos.types import Configuration, Member, Timing
from tests.sim.checker import Agreement
from tests.sim.consensus import ConsensusProgram
from tests.sim.faults import Faults, weather_drawn
from tests.sim.host import Host
from tests.sim.kernel import Kernel
from tests.sim.network import Network, Weather

TROUBLE_US = 5_000_000
"""How long things go wrong."""

PEACE_US = 30_000_000
"""How long a mended group may take until everybody has everything and a fresh proposal is chosen. It takes a few
elections at worst; the rest is room for worlds with slow links."""


class ConsensusSimulation:
    """Bare consensus in a world drawn from `seed`."""

    def __init__(
        self, seed: int, *, replicas: int, faults: Faults | None = None, story: Callable[[str], None] | None = None
    ) -> None:
        self.kernel = Kernel(seed, story)
        luck = self.kernel.random
        self.faults = faults if faults is not None else Faults.drawn(luck)
        self.network = Network(self.kernel, weather_drawn(luck) if self.faults.weather else Weather())
        self.agreement = Agreement()
        self._proposals = 0
        learners = luck.choice((0, 1, 2)) if self.faults.membership else 0
        self._members = [Member(i, f"r{i}", bytes([i])) for i in range(1, replicas + learners + 1)]
        configuration = Configuration("simulated", 1, tuple(self._members[:replicas]), b"")
        snapshot_every = luck.choice((20, 200, 1_000_000))
        keep = luck.choice((0, 10, 100))
        self.programs: dict[int, ConsensusProgram] = {}
        self.hosts: dict[int, Host] = {}
        for member in self._members:
            program = ConsensusProgram(
                member.id,
                configuration,
                self.agreement,
                luck,
                snapshot_every=snapshot_every,
                keep=keep,
                timing=Timing(),
            )
            self.programs[member.id] = program
            self.hosts[member.id] = Host(self.kernel, self.network, member.id, program)
        self._fewest_members = 1 if self.faults.membership else replicas
        self._work_every_us = luck.choice((5_000, 20_000, 100_000))
        self._work_burst = luck.choice((1, 4, 30))
        self._peace = False

    # --- a run

    def run(self) -> None:
        """Trouble, then peace; raises as soon as something does not hold."""
        with self._limits():
            self._run()

    @contextlib.contextmanager
    def _limits(self) -> Iterator[None]:
        """Half of the worlds have pages and windows so small that their edges are met all the time."""
        if self.kernel.chance(0.5):
            yield
            return
        luck = self.kernel.random
        page, pages, window = luck.choice((1, 3, 20)), luck.choice((1, 4)), luck.choice((3, 50))
        with (
            mock.patch.object(log, "PAGE_ENTRIES", page),
            mock.patch.object(leader, "PAGE_ENTRIES", page),
            mock.patch.object(leader, "PAGES_IN_FLIGHT", pages),
            mock.patch.object(leader, "WINDOW_ENTRIES", window),
        ):
            yield

    def _run(self) -> None:
        for host in self.hosts.values():
            host.start()
        self._work()
        self.kernel.at(self.kernel.between(*self.faults.every_us), self._mishap)
        self.kernel.run_until(TROUBLE_US)
        self._mend_all()
        self._everybody_catches_up()
        self.agreement.kept()

    def _work(self) -> None:
        """Clients ask whom they like; most know the leader."""
        luck = self.kernel.random
        if self._peace:
            return
        for _ in range(luck.randint(1, self._work_burst)):
            number = luck.choice(list(self.hosts))
            if luck.random() < 0.3:
                # Asked of anybody: a deposed leader that does not know it yet must not answer.
                self.hosts[number].do(self.programs[number].read)
            else:
                self.propose((luck.random() < 0.8 and self._leader()) or number)
        self.kernel.at(self.kernel.between(0, 2 * self._work_every_us), self._work)

    def propose(self, number: int) -> bytes:
        """A fresh command, given to that replica."""
        self._proposals += 1
        value = b"%d" % self._proposals
        program = self.programs[number]
        self.hosts[number].do(lambda core: program.propose(core, value))
        return value

    def _leader(self) -> int | None:
        """The ready leader with the highest ballot."""
        best: Paxos | None = None
        for host in self.hosts.values():
            core = host.core
            if core is not None and core.ready and (best is None or core.ballot > best.ballot):
                best = core
        return None if best is None else best.replica

    # --- mishaps

    def _mishap(self) -> None:
        if self._peace:
            return
        faults = self.faults
        kinds: list[tuple[float, Callable[[], None]]] = [
            (faults.crash, self._crash_one),
            (faults.crash_all, self._crash_all),
            (faults.partition, self._partition),
            (faults.one_way, self._cut_one_way),
            (faults.mend, self.network.mend),
            (faults.reset, lambda: self.network.reset(self._any().number)),
            (faults.slow_disk, self._slow_disk),
            (faults.hung_disk, self._hang_disk),
            (faults.pause, self._pause),
            (faults.hand_over, lambda: self._any_leader().do(lambda core: core.hand_over())),
            (faults.membership, lambda: self._any_leader().do(self._change_members)),
            (faults.weather, self._change_weather),
        ]
        luck = self.kernel.random
        luck.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])[0]()
        self.kernel.at(self.kernel.between(*faults.every_us), self._mishap)

    def _any(self) -> Host:
        return self.hosts[self.kernel.random.choice(list(self.hosts))]

    def _any_leader(self) -> Host:
        leader = self._leader()
        return self._any() if leader is None else self.hosts[leader]

    def _crash(self, host: Host) -> None:
        luck = self.kernel.random
        if not host.alive:
            return
        program = self.programs[host.number]
        program.doubt_next = luck.random() < self.faults.doubt and not self._anybody_doubts()
        host.crash()
        self.kernel.at(int(luck.expovariate(1 / 800_000)), self._restart, host)

    def _anybody_doubts(self) -> bool:
        """Too many replicas with lost slots leave no quorum that knows: then waiting for ever is right, not to be
        tested.
        """
        if self._fewest_members < 3:
            return True
        return any(program.disk.recover().doubtful for program in self.programs.values())

    def _restart(self, host: Host) -> None:
        if not host.alive:
            host.start()

    def _crash_one(self) -> None:
        self._crash(self._any_leader() if self.kernel.chance(0.4) else self._any())

    def _crash_all(self) -> None:
        for host in self.hosts.values():
            self._crash(host)

    def _partition(self) -> None:
        luck = self.kernel.random
        nodes = luck.sample(list(self.hosts), luck.randint(1, len(self.hosts)))
        self.kernel.note(f"partition {nodes}")
        self.network.cut_off(nodes)

    def _cut_one_way(self) -> None:
        source = self._any_leader().number if self.kernel.chance(0.5) else self._any().number
        for target in self.hosts:
            if target != source and self.kernel.chance(0.7):
                direction = (source, target) if self.kernel.chance(0.5) else (target, source)
                self.network.cut(*direction)

    def _slow_disk(self) -> None:
        self._any().sync_us = self.kernel.random.choice(((50, 500), (1_000, 50_000), (50_000, 300_000)))

    def _hang_disk(self) -> None:
        host = self._any_leader()
        host.sync_us = (2_000_000, 4_000_000)
        self.kernel.at(10_000, setattr, host, "sync_us", (50, 2_000))

    def _pause(self) -> None:
        host = self._any_leader() if self.kernel.chance(0.5) else self._any()
        host.pause(self.kernel.between(1_000, 3_000_000))

    def _change_weather(self) -> None:
        self.network.weather = weather_drawn(self.kernel.random)

    def _change_members(self, core: Paxos) -> None:
        luck = self.kernel.random
        members = luck.sample(self._members, luck.randint(1, len(self._members)))
        old = core.configuration
        core.reconfigure(old._replace(epoch=old.epoch + 1, members=tuple(members)))

    # --- peace

    def _mend_all(self) -> None:
        self._peace = True
        self.kernel.note("peace")
        self.network.mend()
        self.network.weather = Weather()
        for host in self.hosts.values():
            host.sync_us = (50, 2_000)
            self._restart(host)

    def _everybody_catches_up(self) -> None:
        end_us = self.kernel.now_us + PEACE_US
        kernel = self.kernel
        while True:
            ready = kernel.run_until(end_us, lambda: self._leader() is not None)
            assert ready, f"nobody leads: {self.describe()}"
            value = self.propose(self._leader() or 0)
            within_us = min(end_us, kernel.now_us + 2_000_000)
            if kernel.run_until(within_us, lambda value=value: value in self.agreement.acknowledged):
                break
            assert kernel.now_us < end_us, f"a fresh proposal is not chosen: {self.describe()}"
        last = self.agreement.acknowledged[value]
        done = kernel.run_until(end_us, lambda: self._all_equal(last))
        assert done, f"not everybody has caught up: {self.describe()}"

    def _all_equal(self, last: int) -> bool:
        cores = [host.core for host in self.hosts.values()]
        if any(core.chosen < last for core in cores) or len({core.chosen for core in cores}) > 1:
            return False
        assert len({core.chain for core in cores}) == 1, "the same slots are chosen, with other values"
        return True

    def describe(self) -> str:
        """Where everybody stands, for a failure's message."""
        lines = []
        for number, host in self.hosts.items():
            core = host.core
            lines.append(
                f"{number}: down" if core is None else
                f"{number}: {core.role.name} promised {tuple(core.promised)} chosen {core.chosen} epoch"
                f" {core.configuration.epoch} of {core.configuration.ids} leader {core.leader} ready {core.ready}"
            )  # fmt: skip
        return "\n".join(lines)
