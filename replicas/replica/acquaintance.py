# SPDX-License-Identifier: Apache-2.0
"""Whom a replica has links with: members and newcomers as the log has them, and whoever is further than this replica.

A replica that was away knows old members only, of whom none may be left. So one that introduces itself with an id that
is not given yet, as far as is known here, is believed: it speaks from a future that this replica is about to learn.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from replicas.machine.core import Machine
from replicas.paxos.core import Paxos

__all__ = ["GIVEN_UP", "LATER", "MET_MAX", "REMOVED", "Acquaintance", "Objection", "descendant", "given_up", "removed"]

REMOVED: Final = "removed"
"""The code of an objection after which a replica need not come again."""

GIVEN_UP: Final = "given_up"
"""The code of an objection to a replica whose group was given up for another one, made of a survivor's directory."""

LATER: Final = "later"
"""The code of one that passes by itself in a moment, and is worth no line in a log."""

MET_MAX: Final = 64
"""Replicas that this one knows of only because they came, the newest: each is a link that is dialed. All members and
newcomers of a group are not half as many."""


class Objection(NamedTuple):
    """Why another replica is not listened to. `code` is `REMOVED`, `GIVEN_UP`, `LATER` or "wrong_group"."""

    code: str
    reason: str


class Acquaintance:
    """The others, their addresses, and what becomes of one that introduces itself.

    Args:
        paxos: knows the configuration, perhaps a moment before the machine does.
        seeds: (id, address) of members that a newcomer was told of.

    """

    def __init__(self, paxos: Paxos, machine: Machine, seeds: tuple[tuple[int, str], ...]) -> None:
        self._paxos = paxos
        self._met = dict(seeds)
        self._seen = -1
        self.ruling_since = machine.applied
        """The slot of the present configuration, or a later one: an entry beyond it shows that the change is over, for
        it was chosen by a majority of the new members, and each of these had learned all before it."""
        self.note(machine)

    def met(self, replica: int, address: str, machine: Machine) -> None:
        """That replica, which `objection` has nothing against, has said where it listens."""
        roster = machine.roster
        if replica not in roster.members and replica not in roster.newcomers and self._met.get(replica) != address:
            self._met[replica] = address
            if len(self._met) > MET_MAX:
                del self._met[next(iter(self._met))]
            self._seen = -1

    def exchanged(self, machine: Machine) -> None:
        """The state has leapt to that of a peer's snapshot."""
        self.ruling_since = machine.applied
        self._seen = -1

    def due(self, machine: Machine) -> bool:
        """Whether `note` would find that there are other links to be had."""
        return machine.roster.changes != self._seen

    def note(self, machine: Machine) -> bool:
        """The machine has gone on. Whether there are other links to be had now."""
        if not self.due(machine):
            return False
        self._seen = machine.roster.changes
        for replica in [replica for replica in self._met if self._is_past(replica, machine)]:
            del self._met[replica]
        own, roster = self._paxos.replica, machine.roster
        # Newcomers last: one that was as new as this replica when it went away may be all that is left of the group.
        known = (*self._met, *roster.members, *roster.newcomers)
        self._paxos.guides = tuple(replica for replica in known if replica != own)
        return True

    def links(self, machine: Machine) -> dict[int, str]:
        """The addresses of all others that this replica is to be linked with."""
        roster = machine.roster
        links = {newcomer.id: newcomer.address for newcomer in roster.newcomers.values()}
        links |= {member.id: member.address for member in self._paxos.configuration.members}
        links |= self._met
        links.pop(self._paxos.replica, None)
        return links

    def _is_past(self, replica: int, machine: Machine) -> bool:
        """Whether the log as far as it is known here says all about that replica."""
        roster = machine.roster
        if roster.has_left(replica):
            return True
        # What a newcomer was told of a member is newer than what it has read so far.
        learns = self._paxos.replica not in roster.members
        return not learns and (replica in roster.members or replica in roster.newcomers)

    def objection(self, replica: int, incarnation: bytes, machine: Machine) -> Objection | None:
        """What there is against listening to that replica."""
        roster, configuration = machine.roster, self._paxos.configuration
        group = configuration.cluster
        known = roster.newcomers.get(replica) or roster.members.get(replica)
        for member in configuration.members:
            if member.id == replica:
                known = member
        if known is not None:
            if known.incarnation == incarnation:
                return None
            return Objection("wrong_group", f"replica {replica} is not who it was: its data directory was made anew")
        if roster.has_left(replica):
            if self._paxos.chosen > self.ruling_since:
                return Objection(REMOVED, removed(replica, group))
            return Objection(LATER, f"replica {replica} is no member of the group {group} any more")
        return None


def descendant(group: str, name: str) -> str:
    """The id of a group that is made of what a replica of `group` held; `name` is random."""
    return f"{group}.{name}"


def given_up(replica: int, former: str, group: str) -> str:
    """The one sentence for a replica of a group that this one was made of; "" when it was not."""
    if not group.startswith(f"{former}."):
        return ""
    return (
        f"the group {former} was given up, and the group {group} goes on with what one of its replicas held: replica"
        f" {replica} is no part of it; to bring this machine in again, start it on an empty data directory with --join"
    )


def removed(replica: int, group: str) -> str:
    """The one sentence for a replica that was taken out."""
    return (
        f"replica {replica} was removed from the group {group} and never comes back: to bring this machine in again,"
        " start it on an empty data directory with --join, and it gets a new id"
    )
