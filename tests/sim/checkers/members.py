# SPDX-License-Identifier: Apache-2.0
"""Judges the changing of members: a roster of its own beside the log, and the words of leaders to operators.

What is chosen was accepted by a quorum of the members of just that slot; only a member leads; an id is one replica's
for ever, and one directory has one id. A change is reported when an entry beyond it is chosen, a refused wish leaves
nothing behind, and a leader makes no member of a replica that it has not heard to be near.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dthreading.errors import ProtocolError
from replicas.machine import commands
from replicas.paxos.types import Configuration, Entry, EntryKind
from replicas.paxos.values import decode_ballot, decode_configuration
from tests.sim.checkers.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicas.machine.core import Effects, Machine
    from replicas.replica.core import Replica
    from tests.sim.kernel import Kernel
    from tests.sim.moving import MovingProgram

__all__ = ["MEMBERS_SOMETIMES", "Members", "MembersWatch"]

MEMBERS_SOMETIMES: Final = (
    "members: a change of the members was chosen",
    "members: a leader was elected in another configuration",
    "members: a newcomer was admitted",
    "members: a newcomer was dismissed",
    "members: a removed replica was told",
    "members: objected, later",
    "members: objected, removed",
    "members: objected, wrong_group",
    "members: reported, add",
    "members: reported, remove",
    "members: reported, replace",
    "members: reported, transfer",
    "members: refused",
    "members: 2 came at once",
    "members: a lost disk's replica was replaced at its own address",
    "members: a newcomer knew nobody any more",
    "members: a removed replica came back",
    "members: an operator was interrupted",
    "members: a successor carried a change through",
    "members: one became a member while it was down",
    "members: one was away while others came or went",
    "members: struck in a change",
    "members: two operators at once",
    "client: knew nobody any more",
)
"""What every long run should have met of this."""

NEWCOMERS_MAX: Final = 16
MEMBERS_MAX: Final = 7
SILENT_MS: Final = 1_700
"""As `changing.py` has it, with room for clocks and a turn of the loop."""
KNOWN_US: Final = 2_500_000
"""So long after a replica has fallen every leader that has been well knows it."""
NEAR_ENTRIES: Final = 60
"""Whoever lacks no more may vote. A simulated log is short: in these worlds the product's own figure is this, too."""


class Newcomer(NamedTuple):
    """Whoever shall become a member."""

    address: str
    incarnation: bytes
    replaces: int
    asked: bool


class Members:
    """The log's word on members, read once more by other eyes."""

    def __init__(self, watch: MembersWatch, configuration: Configuration) -> None:
        self.configuration = configuration
        self.slot = 0
        """Of the present configuration's entry."""
        self.epochs: dict[int, tuple[int, Configuration]] = {configuration.epoch: (0, configuration)}
        """By epoch, where it stands and what it is."""
        self.newcomers: dict[int, Newcomer] = {}
        self.top = max(configuration.ids)
        self.left: dict[int, str] = {}
        """Ids that are used up, and where they were."""
        self.left_slot: dict[int, int] = {}
        """In which slot a member was taken out."""
        self.directories = {member.id: member.incarnation for member in configuration.members}
        """By id, for ever, whose it is."""
        self.at_proposal: list[Callable[[int], None]] = []
        """Called once each, with the node that proposes other members next."""
        self._proposers: dict[Configuration, int] = {}
        self._watch = watch
        self._dumps: dict[int, Any] = {}
        """By slot that touches it, the roster as the witness has it."""

    # --- the log

    def witnessed(self, machine: Machine, entry: Entry) -> None:
        """Somebody applies this slot before all others."""
        self._was_accepted(entry)
        if entry.kind == EntryKind.LEADS:
            leader = decode_ballot(entry.value).replica
            assert leader in self.configuration.ids, f"replica {leader} leads, which is no member at {entry.slot}"
            if self.configuration.epoch > 1:
                self._watch.kernel.seen["members: a leader was elected in another configuration"] += 1
        elif entry.kind == EntryKind.CONFIGURATION:
            new = decode_configuration(entry.value)
            if self._proposers.get(new, entry.ballot.replica) != entry.ballot.replica:
                self._watch.kernel.seen["members: a successor carried a change through"] += 1
            self._configure(entry.slot, new)
        elif entry.kind == EntryKind.COMMAND:
            self._obey(entry)
        else:
            return
        if entry.kind == EntryKind.CONFIGURATION or self._touched:
            self._same_roster(machine)
            self._dumps[entry.slot] = machine.roster.dump()

    _touched = False

    def _was_accepted(self, entry: Entry) -> None:
        """By a quorum of the configuration that rules this slot, each on its disk. (One promise of Paxos, and all of
        what must hold where one configuration follows another.)
        """
        kept, configuration = self._watch.kept, self.configuration
        have = 0
        for member in configuration.ids:
            held = kept[member]._synced.get(entry.slot)
            have += held is not None and (held.kind, held.value) == (entry.kind, entry.value)
        assert have >= configuration.quorum, (
            f"slot {entry.slot} is on the disks of {have} of the members {configuration.ids} and is said to be chosen"
        )

    def _configure(self, slot: int, new: Configuration) -> None:
        old, seen = self.configuration, self._watch.kernel.seen
        if new.epoch != old.epoch + 1:
            assert new.epoch <= old.epoch, f"epoch {new.epoch} follows {old.epoch}"
            seen["members: a configuration came too late for its epoch"] += 1
            return
        assert new.members, "nobody is a member"
        assert len(new.members) <= max(MEMBERS_MAX, len(old.members)), f"{new.ids} are more than may vote"
        assert new.cluster == old.cluster
        former = {member.id: member for member in old.members}
        came = 0
        for member in new.members:
            if member.id in former:
                assert member == former[member.id], f"{member} was {former[member.id]}"
                continue
            newcomer = self.newcomers.pop(member.id, None)
            assert newcomer is not None, f"{member} becomes a member, and was never admitted (or has left)"
            assert (newcomer.address, newcomer.incarnation) == (member.address, member.incarnation), (member, newcomer)
            came += 1
            host = self._watch.hosts.get(int(member.address[1:]))
            if host is not None and not host.alive:
                seen["members: one became a member while it was down"] += 1
        assert len({member.address for member in new.members}) == len(new.members), new
        assert len({member.incarnation for member in new.members}) == len(new.members), new
        self.left |= {member.id: member.address for member in old.members if member.id not in new.ids}
        self.left_slot |= {member.id: slot for member in old.members if member.id not in new.ids}
        self.configuration, self.slot = new, slot
        self.epochs[new.epoch] = slot, new
        self._watch.kernel.note(f"the members behind slot {slot} are {new.ids}")
        seen["members: a change of the members was chosen"] += 1
        if came > 1:
            seen["members: 2 came at once"] += 1

    def _obey(self, entry: Entry) -> None:
        self._touched = False
        try:
            command = commands.codec.decode(entry.value)
        except ProtocolError:
            return
        if isinstance(command, commands.Admit):
            self._touched = True
            self._admit(Newcomer(*command))
        elif isinstance(command, commands.Dismiss):
            self._touched = True
            newcomer = self.newcomers.pop(command.replica, None)
            if newcomer is not None:
                self.left[command.replica] = newcomer.address
                self._watch.kernel.seen["members: a newcomer was dismissed"] += 1

    def _admit(self, wish: Newcomer) -> None:
        if any(member.incarnation == wish.incarnation for member in self.configuration.members):
            return
        for known, newcomer in self.newcomers.items():
            if newcomer.incarnation == wish.incarnation:
                replaces = wish.replaces or newcomer.replaces
                self.newcomers[known] = newcomer._replace(replaces=replaces, asked=wish.asked or newcomer.asked)
                return
        for known in [known for known, newcomer in self.newcomers.items() if newcomer.address == wish.address]:
            self.left[known] = self.newcomers.pop(known).address
        if len(self.newcomers) < NEWCOMERS_MAX:
            self.top += 1
            self.newcomers[self.top] = wish
            self.directories[self.top] = wish.incarnation

    def _same_roster(self, machine: Machine) -> None:
        roster = machine.roster
        assert roster.top == self.top, f"the highest id is {roster.top}, and {self.top} was given"
        assert tuple(roster.members.values()) == self.configuration.members, (roster.members, self.configuration)
        newcomers = {newcomer.id: Newcomer(*newcomer[1:]) for newcomer in roster.newcomers.values()}
        assert newcomers == self.newcomers, (newcomers, self.newcomers)
        assert machine.configuration_epoch == self.configuration.epoch

    def followed(self, machine: Machine, slot: int) -> None:
        """Another replica has applied that slot, too, or begins there."""
        if slot in self._dumps:
            assert machine.roster.dump() == self._dumps[slot], f"another roster at {slot}: {machine.roster.dump()}"

    def begins(self, machine: Machine) -> None:
        """A replica begins from a snapshot."""
        self.followed(machine, max((slot for slot in self._dumps if slot <= machine.applied), default=0))

    # --- who meets whom

    def listens(self, listener: int, replica: int, incarnation: bytes) -> None:
        """Somebody who introduces itself so is listened to: it is who it was, whatever the listener has read so far."""
        known = self.directories.get(replica, incarnation)
        assert known == incarnation, f"replica {listener} listens to {incarnation!r} as {replica}, which is {known!r}"

    def tells_it_that_it_was_removed(self, teller: int, replica: int, chosen: int) -> None:
        """It goes for good when it hears that, so nobody may need its disk any more: an entry beyond is chosen, though
        perhaps applied by nobody yet. (`chosen`: as the teller has it. Whether that is true is judged when it applies.)
        """
        slot = self.left_slot.get(replica)
        over = replica in self.left and (slot is None or max(self._watch.top, chosen) > slot)
        assert over, f"replica {teller} tells {replica} to go, before anything beyond slot {slot} is chosen"

    def admitted(self, seeds: tuple[tuple[int, str], ...]) -> None:
        """A newcomer is told who the members are, as they were at some time since the group was formed."""
        known = [{member.id: member.address for member in one.members} for _, one in self.epochs.values()]
        assert dict(seeds) in known, f"a newcomer is told that the members are {seeds}, which they never were: {known}"

    # --- what leaders do and say

    def overhear(self, program: MovingProgram, core: Replica) -> None:
        """Whatever this replica answers to operators, and proposes for them, from now on."""
        members = core._members
        reign, reconfigure = members.reign, core.paxos.reconfigure

        def reigns(now_ms: int) -> None:
            reign(now_ms)
            requests = members._requests
            assert requests is not None
            answer = requests.answer

            def answers(question: str, arguments: tuple[Any, ...], at_ms: int) -> dict[str, Any]:
                before = _state(core)
                value = answer(question, arguments, at_ms)
                if value.get("refused"):
                    self._watch.kernel.seen["members: refused"] += 1
                    assert _state(core) == before, f"{question}{arguments} was refused, and changed something"
                elif value.get("done"):
                    self._reported(core, question.removeprefix("members."), arguments, value)
                return value

            requests.answer = answers  # type: ignore[method-assign]

        def proposes(new: Configuration) -> int | None:
            slot = reconfigure(new)
            if slot is not None:
                self._proposed(program, core, new)
                waiting, self.at_proposal = self.at_proposal, []
                for strike in waiting:
                    strike(program.node)
            return slot

        members.reign, core.paxos.reconfigure = reigns, proposes  # type: ignore[method-assign]

    def _reported(self, core: Replica, verb: str, arguments: tuple[Any, ...], value: dict[str, Any]) -> None:
        """An operator is told that it is so: by then it is so for ever, whoever is lost."""
        if verb in {"list", "join"}:
            return
        self._watch.kernel.seen[f"members: reported, {verb}"] += 1
        if verb == "transfer":
            assert core.paxos.ready
            assert arguments[0] in {"", str(core.paxos.replica)}, (arguments, value)
            return
        epoch = core.paxos.configuration.epoch
        slot, configuration = self.epochs[epoch]
        assert configuration == core.paxos.configuration
        assert core.machine.applied > slot or epoch == 1, f"{verb} is reported before anything beyond {slot} is chosen"
        if verb in {"add", "replace"}:
            incarnations = [member.incarnation for member in configuration.members]
            assert arguments[-1] in incarnations, f"{verb}{arguments} is reported, and the members are {configuration}"
        if verb in {"remove", "replace"} and arguments[0].isdecimal():
            assert int(arguments[0]) not in configuration.ids, f"{verb}{arguments} is reported in {configuration}"

    def _proposed(self, program: MovingProgram, core: Replica, new: Configuration) -> None:
        self._proposers[new] = core.paxos.replica
        old, now_ms = core.paxos.configuration, program.now_ms()
        if len(old.members) > 1:
            assert core.paxos.replica in new.ids, f"replica {core.paxos.replica} leads, and takes itself out"
        self._is_survived(program.node, new)
        for member in new.members:
            if member.id in old.ids:
                continue
            heard = program.learning.get(member.id)
            assert heard is not None, f"replica {member.id} becomes a member, and was never heard"
            (applied, snapshot_bytes, *_), heard_ms, chosen = heard
            assert now_ms - heard_ms < SILENT_MS, f"replica {member.id} becomes a member, and is silent"
            near = not snapshot_bytes and applied + NEAR_ENTRIES >= chosen
            assert near, f"replica {member.id} becomes a member, and has {applied} of {chosen}"

    def _is_survived(self, leader: int, new: Configuration) -> None:
        """The group can go on with those of these members that have not been down for long."""
        hosts, since_us = self._watch.hosts, self._watch.kernel.now_us - KNOWN_US
        well_us = hosts[leader].well_since_us
        if well_us is None or well_us > since_us:
            return
        machines = [hosts[int(member.address[1:])] for member in new.members]
        down = sum(not host.alive and host.down_since_us < since_us for host in machines)
        assert len(new.members) - down >= new.quorum, f"{down} of {new.ids} are down, and the group stands still"


def _state(core: Replica) -> tuple[Any, ...]:
    """What a wish may change."""
    paxos = core.paxos
    return paxos.changing, paxos._transferring, len(core._to_propose), len(core._hosting._pending), paxos._log.last


class MembersWatch(Watch):
    """A watch that knows of members, too."""

    def __init__(self, kernel: Kernel, configuration: Configuration) -> None:
        super().__init__(kernel)
        self.members = Members(self, configuration)

    def machine(self, replica: int, machine: Machine) -> None:
        super().machine(replica, machine)
        self.members.begins(machine)

    def applied(self, replica: int, machine: Machine, entry: Entry, effects: Effects) -> None:
        fresh = entry.slot > self.top
        super().applied(replica, machine, entry, effects)
        if fresh:
            self.members.witnessed(machine, entry)
        else:
            self.members.followed(machine, entry.slot)
