# SPDX-License-Identifier: Apache-2.0
"""A world whose members change: machines come and go, operators ask for it, and in the end the last members are judged.

It heals wholly: then every operator has a verdict, whoever was removed and can hear of it has ended, each client is
connected to a member and knows all of them, and the members' replicas are equal.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from replicas.machine.core import Machine
from replicas.paxos.types import Member
from replicas.replica import changing
from replicas.replica.core import Replica
from tests.sim.checkers.members import MEMBERS_MAX, NEAR_ENTRIES, MembersWatch, Newcomer
from tests.sim.disk import SimulatedDisk
from tests.sim.mishaps.common import leads
from tests.sim.moving import Join, MovingProgram, Neighbourhood
from tests.sim.operators import Errand
from tests.sim.petitions import Asking, node_of
from tests.sim.wishes import steps_of
from tests.sim.world import NOBODY, World

if TYPE_CHECKING:
    from tests.sim.group import GroupProgram
    from tests.sim.host import Host

__all__ = ["MovingWorld"]

OPERATORS = 5_000
"""Where they sit in the network."""
CALM_US = 3_000_000
"""So long after a disk was lost a leader certainly knows that it is gone."""
OFF = "switched off by its operator"


class MovingWorld(World):
    """See above."""

    watch: MembersWatch
    hosts: dict[int, Host]
    programs: dict[int, MovingProgram]  # type: ignore[assignment]

    # --- machines

    def _make_watch(self) -> MembersWatch:
        self.errands: list[Errand] = []
        return MembersWatch(self.kernel, self.configuration)

    def _make_program(self, number: int, luck: random.Random, join: Join | None = None) -> MovingProgram:
        around = Neighbourhood(self.kernel, self.programs, self._redial)
        return MovingProgram(self.watch, number, self.configuration, luck, around=around, join=join, **self._habits())

    def _install(self, number: int, program: GroupProgram, luck: random.Random) -> Host:
        host = super()._install(number, program, luck)
        assert isinstance(program, MovingProgram)

        def became(core: Any) -> None:
            host.core = core

        program.became, program.now_ms = became, host.now_ms
        return host

    def _redial(self, source: int, target: int) -> None:
        if (source, target) in self.network.links:
            self.network.mend(self.network.cut_each([(source, target)]))

    def start_machine(self, luck: random.Random, replaces: str = "") -> Host:
        """A new machine, whose replica asks to be let in."""
        number = max(self.hosts) + 1
        own_luck = self.kernel.luck(f"replica {number}")
        host = self._install(number, self._make_program(number, own_luck, self._join("", luck, replaces)), own_luck)
        self.fair_game.append(host)
        self.kernel.note(f"machine {number} joins")
        host.start()
        return host

    def begin_anew(self, host: Host, luck: random.Random, replaces: str = "") -> bool:
        """A machine whose data is gone is started on an empty disk. False: somebody has done that already."""
        program = self.programs[host.number]
        if not program.spoilt:
            return False
        self.kernel.note(f"machine {host.number} begins anew")
        host.crash()
        program.move_in(SimulatedDisk(random.Random(luck.random())), self._join(program.address, luck, replaces))
        host.gone = ""
        host.start()
        return True

    def _join(self, own: str, luck: random.Random, replaces: str) -> Join:
        servers = [address for address in self._member_addresses if address != own] or ["r1"]
        return Join(tuple(luck.sample(servers, luck.randint(1, len(servers)))), replaces)

    @property
    def running(self) -> int:
        """How many machines there are."""
        return sum(not host.gone for host in self.hosts.values())

    def switch_off(self, replica: int) -> None:
        """For good."""
        host = self.host_of(replica)
        if host is not None and not host.gone:
            self.kernel.note(f"switch off {host.number}")
            host.crash()
            host.gone = OFF

    def put_away(self, host: Host | None, span_us: int) -> None:
        """It is down for so long, whatever happens meanwhile."""
        if host is not None and host.alive and not self.scene.peace:
            self.kernel.note(f"away {host.number} {span_us}")
            self.kernel.seen["members: one was away while others came or went"] += 1
            host.crash()
            self.later(span_us, self.restart, host)

    # --- what operators know

    @property
    def members(self) -> dict[int, Member]:
        """By id, as the log has them."""
        return {member.id: member for member in self.watch.members.configuration.members}

    def host_of(self, replica: int) -> Host | None:
        """The machine of that replica, if it is still that replica's."""
        return next((self.hosts[node] for node, one in self.programs.items() if one.replica == replica), None)

    @property
    def leader(self) -> int:
        """Who leads; 0: nobody is seen to."""
        leaders = [host for host in self.hosts.values() if leads(host)]
        return self.programs[leaders[-1].number].replica if leaders else 0

    def newcomer(self, host: Host) -> tuple[str, bytes] | None:
        """The address and incarnation of a machine that listens, as it would say itself."""
        program = self.programs[host.number]
        petition = program.petition
        if (
            isinstance(program.core, Asking)
            and petition is not None
            and not self._are_members(petition.servers, program.address)
        ):
            # All whom it was told of have been replaced since; its log says so, and its operator starts it again.
            self.kernel.seen["members: a newcomer knew nobody any more"] += 1
            host.crash()
            assert program.join is not None
            program.join = program.join._replace(servers=self._member_addresses)
            self.restart(host)
        return (program.address, program.incarnation) if program.incarnation else None

    @property
    def _member_addresses(self) -> tuple[str, ...]:
        """Where members are that may answer."""
        hosts = {member.address: self.host_of(member.id) for member in self.members.values()}
        return tuple(address for address, host in hosts.items() if host is not None and not host.gone)

    def _are_members(self, addresses: list[str], own: str) -> bool:
        return any(address in self._member_addresses and address != own for address in addresses)

    def is_lost(self, host: Host) -> bool:
        """Whether waiting for this machine to be a member is in vain. Or it is one, and nobody can tell its directory
        any more, to ask for it.
        """
        program = self.programs[host.number]
        gone = bool(host.gone) and (program.replica not in self.members or not program.incarnation)
        return gone or any(
            newcomer.address == program.address and not self._has_place(newcomer)
            for newcomer in self.watch.members.newcomers.values()
        )

    def _has_place(self, newcomer: Newcomer) -> bool:
        """Another may have taken it, where no more may vote: an operator who looks sees that it waits, and for what."""
        return len(self.members) < MEMBERS_MAX or newcomer.replaces in self.members

    def is_newcomer(self, host: Host) -> bool:
        """Whether the log waits for somebody at that address."""
        address = self.programs[host.number].address
        return any(newcomer.address == address for newcomer in self.watch.members.newcomers.values())

    # --- lost disks

    @property
    def lost(self) -> set[int]:
        """Ids of replicas whose data is gone."""
        lost = {replica for program in self.programs.values() for replica in program.former}
        return lost | {program.replica for program in self.programs.values() if program.spoilt}

    @property
    def calm(self) -> bool:
        """Whether a leader can know who is gone for good."""
        return self.kernel.now_us - max(program.spoilt_us for program in self.programs.values()) > CALM_US

    def may_lose(self, host: Host) -> bool:
        """A majority must be left of the members, whatever is being changed: no design survives less."""
        replica = self.programs[host.number].replica
        if replica not in self.members or any(errand.removes for errand in self.errands):
            return False
        if any(one.core.paxos.changing for one in self.hosts.values() if isinstance(one.core, Replica)):
            return False
        if self.watch.top <= self.watch.members.slot:
            return False  # the last change is chosen and not over: the former majority alone may know of it
        lost = {one for one in self.lost if one in self.members} | {replica}
        return len(lost) <= (len(self.members) - 1) // 2

    def lose(self, host: Host) -> None:
        """Its data is gone, and its process with it."""
        self.kernel.note(f"lose {host.number}")
        program = self.programs[host.number]
        program.spoilt = True
        host.crash()
        program.lose_disk()

    # --- a run

    def run(self) -> None:
        for wish in self.plan.wishes:
            self.kernel.at(wish.at_us, self.wish, wish.kind, random.Random(wish.seed))
        near, changing.NEAR_ENTRIES = changing.NEAR_ENTRIES, NEAR_ENTRIES  # type: ignore[misc]
        try:
            super().run()
        finally:
            changing.NEAR_ENTRIES = near  # type: ignore[misc]

    def wish(self, kind: str, luck: random.Random) -> None:
        """An operator begins with that."""
        if self.scene.peace:
            return
        self.kernel.note(f"wish {kind}")
        self.kernel.seen[f"wish: {kind}"] += 1
        number = len(self.errands)
        steps = steps_of(self, kind, luck)
        self.errands.append(
            Errand(
                self.kernel,
                self.network,
                OPERATORS + number,
                f"{number} ({kind})",
                steps,
                lambda: self._member_addresses,
                luck,
            )
        )

    def _addresses(self, luck: random.Random) -> list[int]:
        """Some know one member only, and others that are gone; some know everybody who ever was."""
        nodes = [node_of(address) for address in self._member_addresses]
        former = [node for node in self.hosts if node not in nodes]
        if luck.random() < 0.5:
            return [luck.choice(nodes), *luck.sample(former, min(len(former), 2)), NOBODY]
        return [*nodes, *former]

    # --- peace

    def _make_peace(self) -> None:
        super()._make_peace()
        for errand in self.errands:
            errand.finish()

    def _machines(self) -> list[Machine | None]:
        """The members', but for those whose data is gone."""
        hosts = [self.host_of(replica) for replica in self.members if replica not in self.lost]
        cores = [host.core if host is not None else None for host in hosts]
        epoch = self.watch.members.configuration.epoch
        return [
            core.machine if isinstance(core, Replica) and core.paxos.configuration.epoch == epoch else None
            for core in cores
        ]

    def _all_is_well(self) -> bool:
        self._replace_the_stranded()
        return (
            all(errand.over for errand in self.errands)
            and not any(self._is_coming(newcomer) for newcomer in self.watch.members.newcomers)
            and not any(self._lingers(program) for program in self.programs.values())
            and all(self._is_at_home(client) for client in self.clients)
            and super()._all_is_well()
        )

    def _is_coming(self, newcomer: int) -> bool:
        """It will be a member soon."""
        host = self.host_of(newcomer)
        return host is not None and host.alive and self._has_place(self.watch.members.newcomers[newcomer])

    def _lingers(self, program: MovingProgram) -> bool:
        """A removed replica that somebody could tell, and that serves on."""
        known = self.watch.members
        replica = program.replica
        if not isinstance(program.core, Replica) or replica in self.members or replica in known.newcomers:
            return False
        told = {node_of(address) for address in program.links.values()}
        petition = program.petition
        asks = petition is not None and not petition.over and self._are_members(petition.servers, program.address)
        return asks or any(node_of(address) in told for address in self._member_addresses)

    def _is_at_home(self, client: Any) -> bool:
        """It is connected to a member, and knows them all."""
        if client.session.over or (client.finished and not client.session.id):
            return True
        program = self.programs.get(client.line.replica)
        knows = all(client.line.knows(member.address) for member in self.members.values())
        return program is not None and program.replica in self.members and knows

    def _replace_the_stranded(self) -> None:
        """Clients that were away while all whom they knew were replaced cannot find the group, whatever it does."""
        addresses = self._member_addresses
        for client in [*self.clients]:
            lost = not client.session.over and not any(map(client.line.knows, addresses))
            if lost and not client.session.ready:
                self.kernel.seen["client: knew nobody any more"] += 1
                self.replace(client, client.kill)

    def describe(self) -> str:
        """Where everybody stands, for a failure's message."""
        known = self.watch.members
        lines = [f"members {known.configuration.ids}, newcomers {known.newcomers}, lost {self.lost}"]
        lines += [f"machine {node} lingers" for node, program in self.programs.items() if self._lingers(program)]
        lines += [f"{client.name} is not at home" for client in self.clients if not self._is_at_home(client)]
        lines += [f"machine {node} is replica {program.replica}" for node, program in self.programs.items()]
        return "\n".join([*lines, *map(str, self.errands), super().describe()])
