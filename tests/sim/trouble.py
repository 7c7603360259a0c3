# SPDX-License-Identifier: Apache-2.0
"""The mishaps of bare consensus: single ones, and schemes of several steps that lead to where errors of consensus hide.

A scheme knows the protocol, but no code: a leader that is cut off with a backlog and comes back after others have led;
answers that are under way longer than a reign lasts; a disk that comes back in doubt, and an election at once; a change
of members in the moment of a split; somebody who is left behind until only a snapshot helps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from replicas.paxos.core import Paxos
from tests.sim.faults import weather_drawn
from tests.sim.host import POINTS, SYNC_US, Armed, Host
from tests.sim.network import Ambush, Weather

if TYPE_CHECKING:
    from tests.sim.simulation import ConsensusSimulation


class Trouble:
    """What goes wrong in one world, until `over`."""

    def __init__(self, world: ConsensusSimulation) -> None:
        self._world = world
        self._kernel = world.kernel
        self._luck = world.kernel.random
        self._network = world.network
        self._faults = faults = world.faults
        self._election_us = faults.timing.election_ms * 1_000
        self.over = False
        kinds: list[tuple[float, Callable[[], None]]] = [
            (faults.mend, self._network.mend),
            (faults.crash, self._crash_one),
            (faults.crash_all, self._crash_all),
            (faults.partition, self._partition),
            (faults.one_way, self._cut_one_way),
            (faults.deafen, self._deafen),
            (faults.reset, self._reset),
            (faults.slow_disk, self._slow_disk),
            (faults.hung_disk, self._hang_disk),
            (faults.pause, self._pause),
            (faults.hand_over, self._hand_over),
            (faults.membership, lambda: self._any_leader().do(self._change_members)),
            (faults.weather, self._change_weather),
            (faults.slow_answers, self._slow_answers),
            (faults.backlog, self._isolate_with_backlog),
            (faults.depose, self._depose_one_after_the_other),
            (faults.doubt_and_elect if faults.doubt else 0.0, self._doubt_and_elect),
            (faults.change_and_split if faults.membership else 0.0, self._change_and_split),
            (faults.leave_behind, self._leave_behind),
            (faults.stall, self._stall),
            (faults.half_an_election, self._half_an_election),
        ]
        self._kinds = [kind for weight, kind in kinds if weight]
        self._weights = [weight for weight, _ in kinds if weight]
        for host in world.hosts.values():
            host.died = lambda host=host: self._restart_later(host)

    def begin(self) -> None:
        """From now on."""
        self._kernel.at(self._kernel.between(*self._faults.every_us), self._mishaps)
        # The last one shows best what is not mended by itself: nothing that comes after it hides that.
        last = self._kernel.luck("the last mishap").choice((self._mishap, self._stall, self._half_an_election))
        if len(self._kinds) == 1:
            last = self._mishap  # a calm world is calm to the end
        self._then(max(0, self._faults.trouble_us - self._reign_us(0.5, 6.0)), last)

    def _mishaps(self) -> None:
        if not self.over:
            self._mishap()
            self._kernel.at(self._kernel.between(*self._faults.every_us), self._mishaps)

    def _mishap(self) -> None:
        self._luck.choices(self._kinds, self._weights)[0]()

    def _then(self, delay_us: int, action: Callable[[], None]) -> None:
        """The next step of a scheme, unless trouble is over by then."""

        def act() -> None:
            if not self.over:
                action()

        self._kernel.at(delay_us, act)

    def _reign_us(self, least: float = 0.2, most: float = 4.0) -> int:
        """So many election timeouts, evenly drawn."""
        return int(self._election_us * self._luck.uniform(least, most))

    def _any(self) -> Host:
        return self._world.hosts[self._luck.choice(list(self._world.hosts))]

    def _any_leader(self) -> Host:
        leader = self._world.leader()
        return self._any() if leader is None else self._world.hosts[leader]

    # --- machines

    def _crash(self, host: Host, *, doubt: bool) -> None:
        """At once, or where the core hands work to its shell next."""
        if not host.alive:
            return
        self._world.programs[host.number].doubt_next = doubt and self._may_doubt()
        if self._luck.random() < 0.5:
            host.armed = Armed(self._luck.choice(POINTS), self._luck.randint(0, 3))
        else:
            host.crash()
            self._restart_later(host)

    def _restart_later(self, host: Host) -> None:
        quick = self._luck.random() < 0.4
        span_us = self._luck.randint(500, 20_000) if quick else int(self._luck.expovariate(0.7 / self._election_us))
        self._kernel.at(span_us, self._world.restart, host)

    def _may_doubt(self) -> bool:
        """Too many replicas with lost slots leave no quorum that knows: then waiting for ever is right, not to be
        tested.
        """
        programs = self._world.programs.values()
        return self._world.fewest_members >= 3 and not any(p.disk.doubtful or p.doubt_next for p in programs)

    def _crash_one(self) -> None:
        host = self._any_leader() if self._luck.random() < 0.4 else self._any()
        self._crash(host, doubt=self._luck.random() < self._faults.doubt)

    def _crash_all(self) -> None:
        for host in self._world.hosts.values():
            self._crash(host, doubt=self._luck.random() < self._faults.doubt)

    def _slow_disk(self) -> None:
        self._any().sync_us = self._luck.choice((SYNC_US, (50, 500), (1_000, 50_000), (50_000, 300_000)))

    def _hang_disk(self) -> None:
        host, election_us = self._any_leader(), self._election_us
        host.sync_us = (4 * election_us, 8 * election_us)
        self._kernel.at(10_000, setattr, host, "sync_us", SYNC_US)

    def _pause(self) -> None:
        host = self._any_leader() if self._luck.random() < 0.5 else self._any()
        host.pause(self._kernel.between(1_000, 6 * self._election_us))

    # --- the network

    def _reset(self) -> None:
        self._network.reset(self._any().number, lingering=self._luck.random() < 0.5)

    def _change_weather(self) -> None:
        self._network.weather = weather_drawn(self._luck, self._election_us)

    def _partition(self) -> None:
        numbers = list(self._world.hosts)
        self._split(self._luck.sample(numbers, self._luck.randint(1, len(numbers))))

    def _split(self, nodes: list[int]) -> None:
        self._kernel.note(f"partition {nodes}")
        self._network.cut_off(nodes)

    def _cut_one_way(self) -> None:
        source = self._any_leader().number if self._luck.random() < 0.5 else self._any().number
        for target in self._world.hosts:
            if target != source and self._luck.random() < 0.7:
                direction = (source, target) if self._luck.random() < 0.5 else (target, source)
                self._network.cut(*direction)

    def _deafen(self) -> None:
        """One that hears nobody, or is heard by nobody, for a while."""
        host = self._any_leader() if self._luck.random() < 0.5 else self._any()
        links = self._links_to(host.number) if self._luck.random() < 0.5 else self._links_from(host.number)
        for link in links:
            self._network.cut(*link)
        self._then(self._reign_us(), lambda: self._network.mend(links))

    def _links_to(self, number: int) -> list[tuple[int, int]]:
        return [(other, number) for other in self._world.hosts if other != number]

    def _links_from(self, number: int) -> list[tuple[int, int]]:
        return [(number, other) for other in self._world.hosts if other != number]

    # --- leaders and members

    def _hand_over(self) -> None:
        target = self._luck.choice([None, *self._world.hosts])
        leader = self._any_leader()

        def hand_over(core: Paxos) -> None:
            if not self.over:  # the machine stood still in between
                self._world.programs[leader.number].hand_over(core, target)

        leader.do(hand_over)

    def _change_members(self, core: Paxos) -> None:
        if self.over:
            return  # the machine stood still in between
        old = core.configuration
        everybody, now = self._world.members, list(old.members)
        if self._luck.random() < 0.5:
            members = self._luck.sample(everybody, self._luck.randint(self._world.fewest_members, len(everybody)))
        else:
            others = [member for member in everybody if member not in now]
            if others and self._luck.random() < 0.6:
                now.append(self._luck.choice(others))
            if len(now) > self._world.fewest_members and self._luck.random() < 0.6:
                now.remove(self._luck.choice(now))
            members = now
        new = old._replace(epoch=old.epoch + 1, members=tuple(members))
        self._world.agreement.intended.add(new)
        core.reconfigure(new)

    def _change_and_split(self) -> None:
        """Another set of members is proposed, and some hear of it, and some do not: for a time there are two groups."""
        leader = self._any_leader()
        numbers = list(self._world.hosts)
        leader.do(self._change_members)
        nodes = self._luck.sample(numbers, self._luck.randint(1, len(numbers)))

        def split() -> None:
            self._split(nodes)
            self._world.burst(leader.number)

        self._then(self._luck.choice((0, 100, 1_000, 5_000, 20_000)), split)
        self._then(self._reign_us(1.0, 6.0), self._network.mend)

    # --- schemes

    def _slow_answers(self) -> None:
        """What others say to one takes about as long as a reign; then it is not heard itself, and does not know yet."""
        number = self._any_leader().number
        numbers = [other for other in self._world.hosts if other != number]
        slow = self._luck.sample(numbers, self._luck.randint(len(numbers) // 2, len(numbers)))
        links = [(other, number) for other in slow]
        beat_us = self._faults.timing.heartbeat_ms * 1_000
        streams = self._luck.random() < 0.7

        def slower(delay_us: int, steps: int) -> None:
            """Bit by bit, so that nobody is missed meanwhile."""
            self._network.give_weather(links, Weather(streams=streams, delay_us=(delay_us, delay_us + 1_000)))
            if steps:
                self._then(beat_us, lambda: slower(delay_us + beat_us, steps - 1))
            else:
                self._then(delay_us + self._luck.randint(0, 2 * beat_us), cut)

        def cut() -> None:
            self._world.burst(number)
            for link in self._links_from(number):
                self._network.cut(*link)
            for half in range(1, 9):
                self._then(half * self._election_us // 2, lambda: self._world.read(number))
            self._then(self._reign_us(1.0, 5.0), lambda: self._network.mend(links + self._links_from(number)))

        slower(beat_us, self._luck.randint(1, 5 * self._election_us // beat_us))

    def _isolate_with_backlog(self) -> None:
        """A leader has proposals under way, of which few or no others hear; it comes back when others have led."""
        leader = self._any_leader().number
        self._world.burst(leader)
        numbers = [number for number in self._world.hosts if number != leader]
        company = self._luck.sample(numbers, self._luck.randint(0, max(0, len(numbers) // 2)))

        def isolate() -> None:
            self._split([leader, *company])
            for _ in range(self._luck.randint(0, 2)):
                self._world.burst(leader)

        self._then(self._luck.choice((0, 0, 300, 1_000, 3_000)), isolate)
        self._then(self._reign_us(1.0, 6.0), self._network.mend)

    def _depose_one_after_the_other(self) -> None:
        """Each leader in turn is cut off with a few entries that only it, or one more, has (Raft's figure 8)."""
        self._depose(self._luck.randint(2, 6), [])

    def _depose(self, rounds: int, before: list[int]) -> None:
        if not rounds:
            self._network.mend()
            return
        leader = self._world.leader()
        if leader is None or leader in before:
            self._then(self._reign_us(0.2, 0.6), lambda: self._depose(rounds - 1, before))
            return
        self._network.mend()
        friends = [number for number in self._world.hosts if number != leader]
        friend = self._luck.choice([[], [self._luck.choice(friends)]]) if friends else []
        for target in friends:
            if target not in friend:
                self._network.cut(leader, target)
        self._world.burst(leader)

        def leave() -> None:
            self._split([leader])
            if self._luck.random() < 0.3:
                self._crash(self._world.hosts[leader], doubt=False)
            self._then(self._reign_us(1.0, 2.5), lambda: self._depose(rounds - 1, [leader]))

        self._then(self._luck.randint(0, 10_000), leave)

    def _doubt_and_elect(self) -> None:
        """A disk cannot read its last batch; at once somebody else is gone who knew, and a leader is to be found."""
        leader = self._any_leader()
        others = [number for number in self._world.hosts if number != leader.number]
        self._luck.shuffle(others)
        quorum = len(self._world.hosts) // 2 + 1
        know, ignorant = others[: quorum - 1], others[quorum - 1 :]
        for number in ignorant:
            self._network.cut(leader.number, number)
        self._world.burst(leader.number)
        doubter = leader if self._luck.random() < 0.6 else self._world.hosts[self._luck.choice(know or others or [1])]
        gone = know if doubter is leader else [leader.number, *(number for number in know if number != doubter.number)]

        def strike() -> None:
            if doubter.alive and self._may_doubt():
                self._world.programs[doubter.number].doubt_next = True
                doubter.crash()
                self._kernel.at(self._luck.randint(500, 5_000), self._world.restart, doubter)
            self._network.mend()
            self._split(gone)

        self._then(self._luck.randint(0, 8_000), strike)
        self._then(self._reign_us(1.0, 5.0), self._network.mend)

    def _stall(self) -> None:
        """A leader is not heard for about as long as others are patient, and is there again as they begin to vote."""
        leader = self._any_leader()
        self._world.burst(leader.number)
        span_us = self._reign_us(0.8, 2.2)
        if self._luck.random() < 0.3:
            leader.pause(span_us)
            return
        links = self._links_from(leader.number)
        links = self._luck.sample(links, self._luck.randint(len(links) // 2, len(links)))
        for link in links:
            self._network.cut(*link)

        def heard_again() -> None:
            self._network.mend(links)
            self._world.burst(leader.number)

        self._then(span_us, heard_again)

    def _half_an_election(self) -> None:
        """A leader stands still, a candidate's Prepare comes to one alone, and the leader is there again: somebody has
        promised what nobody leads under.
        """
        leader, numbers = self._any_leader(), frozenset(self._world.hosts)
        self._world.burst(leader.number)
        leader.pause(self._reign_us(1.2, 3.0))

        def strike(candidate: int, _target: int) -> None:
            if not self.over:
                self._split([candidate])
                self._world.burst(leader.number)

        until_us = self._kernel.now_us + 3 * self._election_us
        self._network.lie_in_wait(Ambush("Prepare", numbers, self._luck.random() < 0.2, until_us, strike))
        self._then(self._reign_us(3.0, 6.0), self._network.mend)

    def _leave_behind(self) -> None:
        """One is away until the others have forgotten what it needs; as it comes back, the leader goes."""
        away = self._any().number
        self._split([away])

        def come_back() -> None:
            leader = self._any_leader()
            self._network.mend()
            ways = (
                lambda: leader.pause(self._reign_us(1.0, 3.0)),
                lambda: self._crash(leader, doubt=False),
                lambda: self._split([leader.number]),
                lambda: self._split([leader.number, away]),
            )
            self._then(self._luck.randint(1_000, self._election_us // 2), self._luck.choice(ways))

        for part in range(3):
            self._then(part * self._election_us // 2, self._burst_at_the_leader)
        self._then(self._reign_us(1.0, 4.0), come_back)

    def _burst_at_the_leader(self) -> None:
        self._world.burst(self._any_leader().number)
