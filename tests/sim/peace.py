# SPDX-License-Identifier: Apache-2.0
"""What must come about in a world of bare consensus once it is mended, wholly or for a quorum, and within which time.

All can be reached: one leader whom everybody follows, everything known to everybody, silence but for heartbeats, prompt
answers, prompt hand-over, nothing kept that is not needed. Only a quorum is well: it goes on under one leader, whatever
the others do that are down, deaf, mute, cut off from some, or wait for their disks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from replicas.paxos.types import Role
from tests.sim.evidence import ROOMY
from tests.sim.host import Host
from tests.sim.network import Weather

if TYPE_CHECKING:
    from tests.sim.simulation import ConsensusSimulation

OVER_ELECTIONS = 2
"""So many election timeouts after all is mended, what has begun before is over: a pause, a sync, and a message on its
way. Else a sync that hangs would still be a reason to hand over, and a connection that carries nothing a reason to miss
somebody: no protocol is prompt before the machines and the network are (the time of global stabilisation of Dwork,
Lynch and Stockmeyer). Until then everything that is late comes late."""

LEAD_ELECTIONS = 40
"""In so many election timeouts a mended group has a leader and chooses: one is usual, a few when votes are split."""

CATCH_UP_US = 20_000
"""For each page that somebody lacks: a round trip and a sync, asked for again at worst."""

QUIET_ELECTIONS = 6
CORE_ELECTIONS = 12
"""How long it is watched whether a leader stays: longer than anybody's patience."""

EVENTS_PER_MESSAGE = 8
"""A message arrives, a turn is taken, a timer is set and goes off; and something is left over from before."""

PROMPT_US = 15_000
"""A proposal is known to all who wait for it: three ways, two syncs; less than any heartbeat's pace."""

REFERENCES_PER_ENTRY = 4
REFERENCES = 600
"""What a replica may hold: so many references for each entry that it keeps, and so many beside."""


class Peace:
    """The end of one world."""

    def __init__(self, world: ConsensusSimulation) -> None:
        self._world = world
        self._kernel = world.kernel
        self._luck = world.kernel.random
        self._election_us = world.faults.timing.election_ms * 1_000
        self._cut: set[tuple[int, int]] = set()
        self._reigns_in_health = 0
        """How many leaders there had been when somebody fell ill."""

    # --- all of them

    def for_all(self) -> None:
        """Everything is mended."""
        self._mend(self._world.hosts.values())
        # One election more, and whatever the last of it brings about can be seen.
        self._kernel.run_until(self._kernel.now_us + (OVER_ELECTIONS + 1) * self._election_us)
        self._settle()
        self._silence()
        self._promptness()

    def after_all_but_some(self) -> None:
        """Those that were ill come back: the leader stays, and wins again only if one of them has promised more.

        (It stood as well when the leader was found without it, and its Prepare was heard by few or never left: its disk
        hung. What it has promised it may not take back, so without a ballot above that it would be shut out for ever.)
        """
        world = self._world
        leader, reigns = world.leader(), world.agreement.reigns
        assert leader is not None
        ballot = world.hosts[leader].core.ballot
        self._mend(world.hosts.values())
        above = sum(world.hosts[number].core.promised > ballot for number in world.agreement.configuration.ids)
        self._settle()
        again = world.agreement.reigns - reigns
        assert not above or reigns != self._reigns_in_health, "somebody was helped to a ballot against a live leader"
        cost = f"somebody came back, and that has cost the leader {leader}:\n{world.describe()}"
        assert world.leader() == leader, cost
        assert bool(above) <= again <= above, cost
        self._silence()
        self._promptness()

    def _settle(self) -> None:
        world = self._world
        self._a_proposal_is_chosen(world.hosts, "everything is mended")
        self._until(lambda: self._all_equal(world.hosts), "not everybody has caught up")
        # Both at one moment: a leader may have counted its LEADS, and not handed it out.
        self._until(lambda: self._all_follow() and self._all_equal(world.hosts), "not everybody follows the leader")

    def _promptness(self) -> None:
        world = self._world
        if len(world.agreement.configuration.members) > 1:
            self._prompt_news()
            self._prompt_hand_over()
        self._until(lambda: self._all_equal(world.hosts), "not everybody has caught up")
        for number, host in world.hosts.items():
            assert not world.programs[number].unanswered, f"{number} never answers some who asked it whether it leads"
            self._keeps_little(number, host.core)

    def _mend(self, hosts: Collection[Host]) -> None:
        world = self._world
        world.network.mend()
        self._cut.clear()
        world.network.weather = Weather()
        for host in hosts:
            if host.sync_us == HUNG_US:
                host.crash()  # nothing else helps
            host.heal()
            world.restart(host)
        over_us = self._kernel.now_us + OVER_ELECTIONS * self._election_us
        world.network.arrived_by(over_us)
        for host in hosts:
            host.moves_by(over_us)

    def _until(self, satisfied: Callable[[], bool], complaint: str) -> None:
        """In time, or it is a failure. Time is for elections, and for what has to be fetched."""
        world = self._world
        pages = world.agreement.end // world.limits.page_entries
        end_us = self._kernel.now_us + LEAD_ELECTIONS * self._election_us + pages * CATCH_UP_US
        assert self._kernel.run_until(end_us, satisfied), f"{complaint}:\n{world.describe()}"

    def _a_proposal_is_chosen(self, among: Collection[int], when: str) -> None:
        """Somebody leads, and a fresh proposal is chosen there: perhaps not the first one, when leaders change."""
        world = self._world
        tried: list[bytes] = []
        asked_us = -1

        def done() -> bool:
            nonlocal asked_us
            if any(value in world.agreement.acknowledged for value in tried):
                return True
            leader = world.leader()
            if leader is not None and self._kernel.now_us >= asked_us:
                asked_us = self._kernel.now_us + 2 * self._election_us
                tried.append(world.propose(leader))
            return False

        self._until(done, f"{when}, and no fresh proposal is chosen among {sorted(among)}")

    def _all_equal(self, numbers: Collection[int]) -> bool:
        world = self._world
        cores = [world.hosts[number].core for number in numbers]
        if any(core is None or core.chosen != world.agreement.end for core in cores):
            return False
        assert len({core.chain for core in cores}) == 1, "the same slots are chosen, with other values"
        for core in cores:
            world.agreement.up_to_date(core.replica, core)
        return True

    def _all_follow(self) -> bool:
        """Everybody who votes follows one leader, which counts on all of them."""
        world = self._world
        leader = world.leader()
        if leader is None:
            return False
        members = frozenset(world.agreement.configuration.ids)
        if world.hosts[leader].core.present() != members or world.hosts[leader].core.changing:
            return False
        followers = [world.hosts[number].core for number in members if number != leader]
        return all(core.role is Role.FOLLOWER and core.leader == leader for core in followers)

    def _silence(self) -> None:
        """Nothing is asked for: the leader stays, nobody doubts it, and little more than heartbeats is said."""
        world = self._world
        leader, reigns = world.leader(), world.agreement.reigns
        before = Counter(world.agreement.evidence.spoken)
        events = self._kernel.events
        span_us = QUIET_ELECTIONS * self._election_us
        self._kernel.run_until(self._kernel.now_us + span_us)
        said = world.agreement.evidence.spoken - before
        assert world.leader() == leader, f"the leader does not stay, and nothing is wrong:\n{world.describe()}"
        assert world.agreement.reigns == reigns, "the leader has to win again, and nothing is wrong"
        assert not said["PreVote"], "somebody stands for election, and nothing is wrong"
        assert not said["Prepare"], "somebody stands for election, and nothing is wrong"
        beats = span_us // (world.faults.timing.heartbeat_ms * 1_000) + 3
        messages = sum(said.values())
        events = self._kernel.events - events
        busy = EVENTS_PER_MESSAGE * messages + 4 * beats * len(world.hosts)
        assert events <= busy, f"{events} events for {messages} messages: somebody is busy with nothing"
        assert messages <= 2 * beats * len(world.hosts), f"{messages} messages in a silent group: {dict(said)}"

    def _prompt_news(self) -> None:
        """Who waits for a proposal to be chosen hears of it at once, not with the next heartbeat."""
        world = self._world
        leader = world.leader()
        assert leader is not None
        world.propose(leader)
        world.hosts[leader].do(lambda core: [core.inform(number) for number in core.configuration.ids])
        end, members = world.agreement.end, world.agreement.configuration.ids

        def done() -> bool:
            return all(world.hosts[number].core.chosen > end for number in members)

        in_time = self._kernel.run_until(self._kernel.now_us + PROMPT_US, done)
        assert in_time, f"news take longer than {PROMPT_US} us:\n{world.describe()}"

    def _hand_over(self, leader: int, target: int | None) -> None:
        program = self._world.programs[leader]
        self._world.hosts[leader].do(lambda core: program.hand_over(core, target))

    def _prompt_hand_over(self) -> None:
        """Another leads long before anybody's patience would end."""
        world = self._world
        leader = world.leader()
        assert leader is not None
        others = [number for number in world.agreement.configuration.ids if number != leader]
        target = self._luck.choice([None, *others])
        self._hand_over(leader, target)
        # It may find leftovers of old reigns in somebody's log, to be proposed one by one when pages are that small.
        leftovers_us = 0 if world.limits is ROOMY else world.limits.window_entries * PROMPT_US // 10
        done = self._kernel.run_until(
            self._kernel.now_us + self._election_us // 2 + leftovers_us,
            lambda: world.leader() in others and world.hosts[leader].core.role is Role.FOLLOWER,
        )
        assert done, f"{leader} was to hand over to {target or 'anybody'}:\n{world.describe()}"
        assert target in (None, world.leader()), f"{leader} was to hand over to {target}:\n{world.describe()}"

    def _keeps_little(self, number: int, core: Any) -> None:
        """Memory is for the entries that are kept, and for what is under way, which is nothing by now."""
        kept = core.chosen - core.first_kept + 1
        window = min(self._world.limits.window_entries, self._world.agreement.end)
        held = references(core)
        assert held <= REFERENCES_PER_ENTRY * kept + window + REFERENCES, f"{number} holds {held} references for {kept}"
        snapshot = self._world.programs[number].disk.floor
        assert core.first_kept > snapshot - self._world.habits.keep, f"{number} keeps what it has a snapshot of"

    def one_comes_back_in_doubt(self) -> None:
        """In the middle of peace somebody's disk cannot read its last batch: the others must tell it that again."""
        world, luck = self._world, self._luck
        number, leader = luck.choice(world.agreement.configuration.ids), world.leader()
        assert leader is not None
        world.burst(leader)
        self._kernel.run_until(self._kernel.now_us + luck.randint(1_000, 8_000))
        world.programs[number].doubt_next = True
        world.hosts[number].crash()
        self._kernel.run_until(self._kernel.now_us + luck.randint(1_000, 20_000))
        world.restart(world.hosts[number])
        self._settle()

    # --- a quorum of them

    def for_a_quorum(self, *, calm: bool = False) -> None:
        """All but a minority of the members are well, and stay so.

        Args:
            calm: the leader is not asked to hand over to somebody who may not be well.

        """
        world = self._world
        members = world.agreement.configuration.ids
        ill = self._luck.sample(members, self._luck.randint(1, (len(members) - 1) // 2))
        leader = world.leader()
        if leader in members and leader not in ill and self._luck.random() < 0.5:
            ill[0] = leader  # what befalls a leader is seen at once
        well = [number for number in world.hosts if number not in ill]
        self._mend([world.hosts[number] for number in well])
        self._reigns_in_health = world.agreement.reigns
        for number in ill:
            self._afflict(number, well)
        self._a_proposal_is_chosen(well, f"all but {ill} are well")
        leader = world.leader()
        if leader is not None and not calm and self._luck.random() < 0.6:
            target = self._luck.choice(members)  # who is there, or not
            self._hand_over(leader, target)
        election_us = self._election_us
        self._kernel.run_until(self._kernel.now_us + CORE_ELECTIONS * election_us)
        reigns = world.agreement.reigns
        for _ in range(3):
            self._a_proposal_is_chosen(well, f"all but {ill} are well")
            self._kernel.run_until(self._kernel.now_us + CORE_ELECTIONS // 3 * election_us)
        assert world.agreement.reigns == reigns, f"all but {ill} are well, and leaders come and go"
        leader = world.leader()
        assert leader is not None
        hangs = world.hosts[leader].sync_us == HUNG_US
        assert not hangs, f"{leader} leads on, and its disk hangs"
        present = world.hosts[leader].core.present()
        for number in members:
            gone = not world.hosts[number].alive or {(leader, number), (number, leader)} & self._cut
            assert not (gone and number in present), f"{leader} takes {number} to be there"
        linked = [number for number in well if not {(leader, number), (number, leader)} & self._cut]
        self._until(lambda: self._all_equal(linked), f"all but {ill} are well, and not all of them have caught up")

    def _afflict(self, number: int, well: list[int]) -> None:
        world, luck = self._world, self._luck
        host = world.hosts[number]
        others = [other for other in world.hosts if other != number]
        leader = world.leader()
        one = leader if leader in well and luck.random() < 0.7 else luck.choice(well)
        illness = luck.choice(ILLNESSES if number != leader else ILLNESSES_OF_LEADERS)
        self._kernel.note(f"{number} is {illness} ({one})")
        world.restart(host)
        host.heal()
        if illness == "down":
            host.crash()
        elif illness == "hangs":
            host.sync_us = HUNG_US
        for other in {"apart": [one], "deaf to one": [one], "mute to one": [one]}.get(illness, others):
            if illness in ("deaf", "alone", "apart", "deaf to one"):
                self._cut.add((other, number))
            if illness in ("mute", "alone", "apart", "mute to one"):
                self._cut.add((number, other))
        for link in self._cut:
            world.network.cut(*link)


ILLNESSES_OF_LEADERS = ("deaf", "mute", "alone", "hangs", "apart")
ILLNESSES = ("down", "deaf", "mute", "alone", "hangs") + 2 * ("apart", "deaf to one", "mute to one")
"""Of one that the others must do without. Most of the harm is done by those that still hear or are heard by some."""

HUNG_US = (1 << 40, 1 << 40)
"""A sync that never ends."""


def references(root: Any) -> int:
    """How many elements all containers hold that can be reached from here, those of values left out."""
    held = 0
    seen: set[int] = set()
    waiting: list[Any] = [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, dict):
            held += len(thing)
            waiting += thing.values()
        elif hasattr(thing, "_fields") or isinstance(thing, bytes | str | int):
            continue
        elif isinstance(thing, Collection):
            held += len(thing)
            waiting += thing
        elif any(kind.__module__.startswith("replicas.paxos") for kind in type(thing).__mro__):
            names = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
            waiting += [getattr(thing, name) for name in names if hasattr(thing, name)]
            waiting += getattr(thing, "__dict__", {}).values()
    return held
