# SPDX-License-Identifier: Apache-2.0
"""One simulated world of bare consensus from its seed: replicas, clients, trouble; then peace, in which all must agree
and go on. What goes wrong is in trouble.py, and what must come about in the end in peace.py.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from replicas.paxos import leader, limits, log
from replicas.paxos.core import Paxos
from replicas.paxos.types import Configuration, Member
from tests.sim.checker import Agreement
from tests.sim.consensus import ConsensusProgram, Habits
from tests.sim.evidence import ROOMY, Evidence, Limits
from tests.sim.faults import Faults, weather_drawn
from tests.sim.host import Host
from tests.sim.kernel import Kernel
from tests.sim.network import Network, Weather
from tests.sim.peace import Peace
from tests.sim.trouble import Trouble

SIZES = (3, 5, 3, 4, 5, 3, 2, 3, 5, 7, 3, 6, 1)
"""Which group a seed gets: mostly those that people run, and the even and odd sizes beside."""

VALUE_BYTES_MAX = 300

WORK_MAX = 300
"""How often clients come in one world, about; each time with one request or with several."""


class ConsensusSimulation:
    """Bare consensus in a world drawn from `seed`."""

    def __init__(
        self, seed: int, *, replicas: int, faults: Faults | None = None, story: Callable[[str], None] | None = None
    ) -> None:
        self.kernel = Kernel(seed, story)
        luck = self.kernel.random
        self.faults = faults = faults if faults is not None else Faults.drawn(luck)
        election_us = faults.timing.election_ms * 1_000
        self.network = Network(self.kernel, weather_drawn(luck, election_us) if faults.weather else Weather())
        self.limits = self._limits_drawn() if luck.random() < 0.5 else ROOMY
        learners = luck.choice((0, 1, 2)) if faults.membership else 0
        self.members = [Member(i, f"r{i}", bytes([i])) for i in range(1, replicas + learners + 1)]
        self.fewest_members = replicas
        if faults.membership:
            self.fewest_members = min(replicas, 3 if faults.doubt else 1)
        configuration = Configuration("simulated", 1, tuple(self.members[:replicas]), b"")
        self.agreement = Agreement(configuration, Evidence(self.limits))
        self.habits = Habits(
            timing=faults.timing,
            snapshot_every=luck.choice((5, 20, 200, 1_000_000)),
            keep=luck.choice((0, 10, 100)),
            save_us=luck.choice(((0, 0), (100, 5_000), (1_000, election_us))),
        )
        self.programs: dict[int, ConsensusProgram] = {}
        self.hosts: dict[int, Host] = {}
        for member in self.members:
            self._install(member.id, configuration)
        self._proposals = 0
        self._work_every_us = max(luck.choice((5_000, 20_000, 100_000)), faults.trouble_us // WORK_MAX)
        self._work_burst = luck.choice((1, 4, 30))
        self._reads = luck.choice((0.1, 0.3, 0.8))
        self._large = luck.choice((0.0, 0.1, 0.5))
        self._working = True
        self.reigns_in_trouble = 0

    def _install(self, number: int, configuration: Configuration) -> None:
        program = ConsensusProgram(number, configuration, self.agreement, self.kernel.random, self.habits)
        host = Host(self.kernel, self.network, number, program)

        def later(delay_us: int, action: Callable[[], None]) -> None:
            self.kernel.at(delay_us, host.do, lambda _: action())

        program.later = later
        self.programs[number], self.hosts[number] = program, host

    def _limits_drawn(self) -> Limits:
        """Pages and windows so small that their edges are met all the time."""
        luck = self.kernel.random
        return Limits(
            page_entries=luck.choice((1, 3, 20)),
            page_bytes=luck.choice((100, 1_000, 100_000)),
            pages=luck.choice((1, 2, 4)),
            window_entries=luck.choice((3, 10, 50)),
            window_bytes=luck.choice((300, 3_000, 100_000)),
            overhead_bytes=limits.ENTRY_OVERHEAD_BYTES,
        )

    # --- a run

    def run(self) -> None:
        """Trouble, then peace; raises as soon as something does not hold."""
        with self._limited():
            self._run()

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        if self.limits is ROOMY:
            yield
            return
        with (
            mock.patch.object(log, "PAGE_ENTRIES", self.limits.page_entries),
            mock.patch.object(log, "PAGE_BYTES", self.limits.page_bytes),
            mock.patch.object(leader, "PAGE_ENTRIES", self.limits.page_entries),
            mock.patch.object(leader, "PAGE_BYTES", self.limits.page_bytes),
            mock.patch.object(leader, "PAGES_IN_FLIGHT", self.limits.pages),
            mock.patch.object(leader, "WINDOW_ENTRIES", self.limits.window_entries),
            mock.patch.object(leader, "WINDOW_BYTES", self.limits.window_bytes),
        ):
            yield

    def _run(self) -> None:
        for host in self.hosts.values():
            host.start()
        self._work()
        trouble, peace = Trouble(self), Peace(self)
        trouble.begin()
        self.kernel.run_until(self.faults.trouble_us)
        trouble.over = True
        self.reigns_in_trouble = self.agreement.reigns
        self._working = False
        self.kernel.note("peace")
        quorum_first = self.kernel.chance(0.5)
        if quorum_first and self._may_lose_some() and not self.faults.membership:
            peace.for_a_quorum()
        peace.for_all()
        if not quorum_first and self._may_lose_some() and self.kernel.chance(0.7):
            peace.for_a_quorum(calm=True)
            peace.after_all_but_some()
        if self._may_lose_some():
            peace.one_comes_back_in_doubt()
        self.agreement.kept()

    def _may_lose_some(self) -> bool:
        """Nobody is in doubt, and a minority is not empty."""
        doubt = any(program.disk.doubtful or program.doubt_next for program in self.programs.values())
        return not doubt and len(self.agreement.configuration.members) >= 3

    def restart(self, host: Host) -> None:
        """Start it, unless it runs."""
        if not host.alive:
            host.start()

    # --- clients

    def _work(self) -> None:
        """Clients ask whom they like; most know the leader, and some believe in one of yesterday."""
        luck = self.kernel.random
        if not self._working:
            return
        numbers, leaders, leader = list(self.hosts), self._leaders(), self.leader()
        for _ in range(luck.randint(1, self._work_burst)):
            number = luck.choice(numbers)
            if luck.random() < self._reads:
                self.read(luck.choice(leaders or numbers))
            else:
                self.propose((luck.random() < 0.8 and leader) or number)
        self.kernel.at(self.kernel.between(0, 2 * self._work_every_us), self._work)

    def propose(self, number: int) -> bytes:
        """A fresh command, given to that replica."""
        self._proposals += 1
        luck = self.kernel.random
        value = b"%d" % self._proposals
        if luck.random() < self._large:
            value += b" " * luck.randint(0, VALUE_BYTES_MAX)
        self.hosts[number].do(functools.partial(self._propose, number, value))
        return value

    def _propose(self, number: int, value: bytes, core: Paxos) -> None:
        self.programs[number].propose(core, value)

    def read(self, number: int) -> None:
        """A question that only a leader may answer, to that replica."""
        self.hosts[number].do(self.programs[number].read)

    def burst(self, number: int) -> None:
        """Several at once."""
        for _ in range(self.kernel.random.randint(1, 8)):
            self.propose(number)
        self.read(number)

    def _leaders(self) -> list[int]:
        """All that believe to lead."""
        return [number for number, host in self.hosts.items() if host.core is not None and host.core.ready]

    def leader(self) -> int | None:
        """The ready leader with the highest ballot."""
        ready = [self.hosts[number].core for number in self._leaders()]
        best: Any = max(ready, key=lambda core: core.ballot, default=None)
        return None if best is None else int(best.replica)

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
