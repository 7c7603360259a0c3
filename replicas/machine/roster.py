# SPDX-License-Identifier: Apache-2.0
"""Who belongs to the group, as every replica knows it from the log: members, newcomers, and ids that are used up.

Ids are given here and nowhere else: each is one above the highest that the log has ever seen, so none is used twice,
whatever became of its owner. Who votes is a configuration entry's business alone; a newcomer only has an id, an
address, and the wish to vote one day.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from replicas.machine.commands import Admit
from replicas.paxos.values import Configuration, Member

__all__ = ["NEWCOMERS_MAX", "Newcomer", "Roster"]

NEWCOMERS_MAX: Final = 16
"""Newcomers at one time. A group of seven that is replaced as a whole has seven."""

GONE_MAX: Final = 256
"""Addresses of former members that are remembered, for people's questions only: that an id is gone needs no memory."""


class Newcomer(NamedTuple):
    """A replica that learns, and shall vote once it is near."""

    id: int
    address: str
    incarnation: bytes
    replaces: int
    """The member whose place it takes, or 0."""
    asked: bool
    """Whether an operator has named it; else it came by itself."""


class Roster:
    """The replicated memory of who is who."""

    def __init__(self, configuration: Configuration | None = None) -> None:
        self.top = 0
        """The highest id that was ever given."""
        self.members: dict[int, Member] = {}
        self.newcomers: dict[int, Newcomer] = {}
        self.unasked: dict[int, None] = {}
        """Members that came by themselves and that no operator has named since."""
        self.gone: dict[int, str] = {}
        self.changes = 0
        """Grows with each change, on this replica only: for whoever follows them."""
        if configuration is not None:
            self.configure(configuration)

    def configure(self, configuration: Configuration) -> None:
        """From now on these are the members."""
        members = {member.id: member for member in configuration.members}
        for former in self.members.values():
            if former.id not in members:
                self._is_gone(former.id, former.address)
        for newcomer in [self.newcomers.pop(replica) for replica in members if replica in self.newcomers]:
            if not newcomer.asked:
                self.unasked[newcomer.id] = None
        self.unasked = {replica: None for replica in self.unasked if replica in members}
        self.members = members
        self.top = max((self.top, *members))
        self.changes += 1

    def admit(self, wish: Admit) -> None:
        """Gives an id to a replica that has none; for one that is known, takes its wish to heart."""
        self.changes += 1
        known = self.find(wish.incarnation)
        if known in self.members:
            if wish.asked and not wish.replaces:
                # Else it came in by itself just before: the member whose place was meant for it is to go yet.
                self.unasked.pop(known, None)
            return
        if known:
            newcomer = self.newcomers[known]
            replaces, asked = wish.replaces or newcomer.replaces, wish.asked or newcomer.asked
            self.newcomers[known] = newcomer._replace(replaces=replaces, asked=asked)
            return
        for other in [other for other in self.newcomers.values() if other.address == wish.address]:
            # Its directory was made anew since: whoever it was, it does not come back.
            self.dismiss(other.id)
        if len(self.newcomers) < NEWCOMERS_MAX:
            self.top += 1
            self.newcomers[self.top] = Newcomer(self.top, *wish)

    def dismiss(self, replica: int) -> None:
        """A newcomer will not become a member; its id is used up."""
        newcomer = self.newcomers.pop(replica, None)
        if newcomer is not None:
            self._is_gone(replica, newcomer.address)
            self.changes += 1

    def find(self, incarnation: bytes) -> int:
        """The id of the member or newcomer with this directory; 0 when there is none."""
        members = {member.incarnation: member.id for member in self.members.values()}
        newcomers = {newcomer.incarnation: newcomer.id for newcomer in self.newcomers.values()}
        return {**newcomers, **members}.get(incarnation, 0)

    def has_left(self, replica: int) -> bool:
        """Whether this id was given once and is nobody's any more. It stays so."""
        return 0 < replica <= self.top and replica not in self.members and replica not in self.newcomers

    def _is_gone(self, replica: int, address: str) -> None:
        self.gone[replica] = address
        while len(self.gone) > GONE_MAX:
            del self.gone[next(iter(self.gone))]

    # --- for snapshots

    def dump(self) -> tuple[Any, ...]:
        """As plain values."""
        members, newcomers = tuple(map(tuple, self.members.values())), tuple(map(tuple, self.newcomers.values()))
        return self.top, members, newcomers, tuple(self.unasked), tuple(self.gone.items())

    def load(self, top: int, members: Any, newcomers: Any, unasked: Any, gone: Any) -> None:
        """What `dump` gave."""
        self.top = top
        self.members = {fields[0]: Member(*fields) for fields in members}
        self.newcomers = {fields[0]: Newcomer(*fields) for fields in newcomers}
        self.unasked = dict.fromkeys(unasked)
        self.gone = dict(gone)
