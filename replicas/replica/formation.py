# SPDX-License-Identifier: Apache-2.0
"""The first forming of a group, without I/O: from a list of addresses to one configuration that is durable on all of
them.

Each replica is EMPTY, then PREPARED (the configuration is on its disk), then FORMED (it is on everybody's). Only a
FORMED replica votes. Every replica says what it is to every other, again and again until it is formed, and in answer
to one that is not:

    EMPTY -> PREPARED    the first of the list, once all others have said that they are empty, draws up the
    configuration; the others, once somebody shows them one that names them in their own incarnation
    PREPARED -> FORMED   once every other member has said that it is prepared for the same cluster, or one that it is
    formed

What a replica says of itself is on its disk before it says it, so any of them, the first included, may crash anywhere:
it says the same again afterwards. An incarnation is drawn when a directory is formatted. So a replica whose data is
gone finds a configuration that names another incarnation in its place, and never votes: what it had promised is
forgotten, and it is to be replaced under a new id.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from replicas.paxos.values import Configuration, Member, decode_configuration, encode_configuration

__all__ = ["MESSAGES", "Census", "Formation", "FormationMessage", "FormationOutput", "Phase", "formed_of"]

CENSUS_MS: Final = 200
"""How often a replica says what it is until the group is formed; starting a group is not urgent, missing a peer is."""

UNFORMED: Final = Configuration("", 0, (), b"")
"""What a replica shows that has no configuration."""


class Phase(IntEnum):
    """How far a replica is."""

    EMPTY = 0
    PREPARED = 1
    FORMED = 2


class Census(NamedTuple):
    """Everybody to everybody: what I am (a Phase), whom I was told to form a group with, and the configuration I
    hold.
    """

    phase: int
    addresses: tuple[str, ...]
    incarnation: bytes
    configuration: Configuration


FormationMessage: TypeAlias = Census
MESSAGES: Final[dict[int, type[FormationMessage]]] = {20: Census}


@dataclass(slots=True)
class FormationOutput:
    """What must happen next, in the order of the fields: nothing of this or a later output leaves before `persist` is
    durable.
    """

    persist: bytes | None = None
    """The formation that is to replace the one in the directory's identity."""
    send: list[tuple[int, Census]] = field(default_factory=list)
    formed: Configuration | None = None
    """The group exists, and this replica, `Formation.replica`, may vote in it. Said once."""
    refused: str | None = None
    """This replica can never be part of the group: one sentence for the operator. Said once; nothing follows it."""
    notice: str | None = None
    """Something only the operator can mend keeps the group from forming. Said when it changes."""


class Formation:
    """One replica's part. The shell: step and tick, then take, and do what it says. It goes on answering once formed.

    Args:
        addresses: all members in the order of the operator's list; ids are 1..n in that order.
        replica: this one's id.
        incarnation: what was drawn when this directory was formatted.
        formation: what the directory holds from an earlier `persist`, or None.
        cluster: a fresh random name, used if this replica draws up the configuration.
        settings: what the configuration is to say to the machine, used likewise.

    """

    def __init__(
        self,
        *,
        addresses: tuple[str, ...],
        replica: int,
        incarnation: bytes,
        formation: bytes | None,
        cluster: str,
        settings: bytes,
        now_ms: int,
    ) -> None:
        assert 1 <= replica <= len(addresses)
        assert cluster
        self.replica = replica
        self.phase = Phase.EMPTY
        self.configuration = UNFORMED
        self._addresses = addresses
        self._incarnation = incarnation
        self._cluster = cluster
        self._settings = settings
        self._heard: dict[int, Census] = {}
        self._output = FormationOutput()
        self._noticed: str | None = None
        self._over = False  # refused: nothing is said any more
        self._census_ms = now_ms
        if formation is not None:
            self._recover(formation)
        self._go_on()

    def _recover(self, formation: bytes) -> None:
        self.phase = Phase(formation[0])
        self.configuration = decode_configuration(formation[1:])
        # The directory knows better than the operator's list who this is.
        own = [member.id for member in self.configuration.members if member.incarnation == self._incarnation]
        assert len(own) == 1, "a directory's configuration does not name its own incarnation"
        self.replica = own[0]
        if self.phase is Phase.FORMED:
            self._output.formed = self.configuration

    # --- what the shell calls ---------------------------------------------------------------------------------------

    def step(self, source: int, message: Census) -> None:
        """Replica `source` says what it is."""
        if self._over or source == self.replica or source not in self._others():
            return
        self._heard[source] = message
        if message.phase < Phase.FORMED and (self.phase is Phase.FORMED or message.phase < self.phase):
            self._output.send.append((source, self._census()))
        self._go_on()

    def tick(self, now_ms: int) -> None:
        """It is now `now_ms`; to be called by `wake_ms`."""
        if self._over or self.phase is Phase.FORMED or now_ms < self._census_ms:
            return
        self._census_ms = now_ms + CENSUS_MS
        self._tell_all()

    @property
    def wake_ms(self) -> int | None:
        """When tick() is due; None when it is not needed any more."""
        return None if self._over or self.phase is Phase.FORMED else self._census_ms

    def take(self) -> FormationOutput:
        """Everything that has become due since the last take."""
        output, self._output = self._output, FormationOutput()
        return output

    def missing(self) -> list[int]:
        """Whom the forming waits for, for people."""
        if self.phase is Phase.FORMED:
            return []
        wanted = Phase.EMPTY if self.phase is Phase.EMPTY else Phase.PREPARED
        return [other for other in self._others() if other not in self._heard or self._heard[other].phase < wanted]

    # --- from phase to phase ------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        if self.phase is Phase.EMPTY:
            self._from_empty()
        if self.phase is Phase.PREPARED:
            self._from_prepared()

    def _from_empty(self) -> None:
        for census in self._heard.values():
            if census.phase > Phase.EMPTY:
                self._take_over(census.configuration)
                return
        others = self._others()
        if len(self._heard) < len(others):
            return
        for other in others:
            if self._heard[other].addresses != self._addresses:
                theirs, ours = ", ".join(self._heard[other].addresses), ", ".join(self._addresses)
                self._notice(
                    f"Replica {other} was started with the members {theirs}, this one with {ours}: all must be given"
                    " the same list."
                )
                return
        if len({self._incarnation, *(census.incarnation for census in self._heard.values())}) <= len(others):
            self._notice(
                "Two replicas were started with copies of one data directory: clear all but one of them, and start"
                " those replicas again."
            )
        elif self.replica == 1:
            self._move(Phase.PREPARED, self._draw_up())

    def _draw_up(self) -> Configuration:
        incarnations = {other: census.incarnation for other, census in self._heard.items()}
        incarnations[self.replica] = self._incarnation
        members = tuple(Member(i, address, incarnations[i]) for i, address in enumerate(self._addresses, 1))
        return Configuration(self._cluster, 1, members, self._settings)

    def _take_over(self, configuration: Configuration) -> None:
        """Somebody has a configuration. It is for us if it names us, as we are, in the place that we were given."""
        own = [member for member in configuration.members if member.id == self.replica]
        if not own or own[0].incarnation != self._incarnation:
            self._refuse(
                f"The group {configuration.cluster} exists already, and this replica's data directory is empty: the"
                f" data of replica {self.replica} is gone, so it must not vote again, and is to be replaced under a new"
                f" id: start it with --join and the address of another member, and --replace {self.replica}."
            )
        elif tuple(member.address for member in configuration.members) != self._addresses:
            theirs = ", ".join(member.address for member in configuration.members)
            self._notice(
                f"The group is being formed of {theirs}, but this replica was started with"
                f" {', '.join(self._addresses)}: all must be given the same list."
            )
        else:
            self._move(Phase.PREPARED, configuration)

    def _from_prepared(self) -> None:
        same = {
            other: census.phase
            for other, census in self._heard.items()
            if census.phase > Phase.EMPTY and census.configuration == self.configuration
        }
        if Phase.FORMED in same.values() or len(same) == len(self._others()):
            self._move(Phase.FORMED, self.configuration)
            self._output.formed = self.configuration
            return
        for other, census in self._heard.items():
            if census.phase > Phase.EMPTY and census.configuration.cluster != self.configuration.cluster:
                self._notice(
                    f"Replica {other} belongs to the group {census.configuration.cluster}, this one to"
                    f" {self.configuration.cluster}: one of them has another group's data directory."
                )
            elif census.phase == Phase.EMPTY and census.incarnation != self._member(other).incarnation:
                self._notice(
                    f"Replica {other} lost its data while the group was being formed: unless another member is formed"
                    " already, clear the data directories of all members and start them again."
                )

    def _move(self, phase: Phase, configuration: Configuration) -> None:
        assert phase > self.phase
        self.phase = phase
        self.configuration = configuration
        self._output.persist = bytes([phase]) + encode_configuration(configuration)
        self._noticed = None
        self._output.send.clear()  # what it says is no longer so
        self._tell_all()

    # --- what is said -------------------------------------------------------------------------------------------------

    def _others(self) -> list[int]:
        ids = [member.id for member in self.configuration.members] or range(1, len(self._addresses) + 1)
        return [other for other in ids if other != self.replica]

    def _member(self, replica: int) -> Member:
        return next(member for member in self.configuration.members if member.id == replica)

    def _census(self) -> Census:
        return Census(int(self.phase), self._addresses, self._incarnation, self.configuration)

    def _tell_all(self) -> None:
        census = self._census()
        self._output.send += [(other, census) for other in self._others()]

    def _refuse(self, sentence: str) -> None:
        self._over = True
        self._output.send.clear()
        self._output.refused = sentence

    def _notice(self, sentence: str) -> None:
        if sentence != self._noticed:
            self._noticed = sentence
            self._output.notice = sentence


def formed_of(formation: bytes) -> tuple[str, ...]:
    """The addresses of the group that a directory's formation names, in the order of their ids."""
    return tuple(member.address for member in decode_configuration(formation[1:]).members)
