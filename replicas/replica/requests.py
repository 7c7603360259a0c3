# SPDX-License-Identifier: Apache-2.0
"""What operators and newcomers ask of the members, and a leader's answers. Each request is "make it so", and is asked
again until it is so: the answer says how far it is. So it does not matter who is interrupted, or how often.

An answer is a dict for people and programs: `say` is one sentence; `done` and `refused` end the asking.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dthreading.errors import ProtocolError
from dthreading.wire.limits import NAME_BYTES_MAX, OP_BYTES_MAX
from replicas.machine import commands
from replicas.machine.core import Machine
from replicas.paxos.core import Paxos
from replicas.paxos.values import Configuration
from replicas.replica.acquaintance import removed
from replicas.replica.admission import Admission
from replicas.replica.changing import MEMBERS_MAX, Changing

__all__ = ["PREFIX", "Requests", "refuse", "wait"]

PREFIX: Final = "members."
"""What the questions begin with that only a leader can answer."""

YOUNG_MS: Final = 1000
"""A leader that was elected more recently may not have heard everybody who is there, and refuses nothing for that."""

DIGITS_MAX: Final = 20
"""No id has more of them, and Python turns a number of some thousands into a ValueError."""

Answer = dict[str, Any]


def done(say: str) -> Answer:
    """It is so."""
    return {"done": True, "say": say}


def wait(say: str) -> Answer:
    """It is under way: ask again."""
    return {"done": False, "say": say}


def refuse(say: str) -> Answer:
    """It will not be done, and nothing was changed."""
    return {"done": False, "refused": True, "say": say}


def _longest(words: tuple[Any, ...]) -> int:
    """All that comes into the log of them stays in the roster of every replica."""
    return max((len(word) for word in words if isinstance(word, str | bytes)), default=0)


class Requests:
    """A leader's ear, during one tenure.

    Args:
        genesis: the configuration that the group was formed with.
        submit: puts a command into the log.

    """

    def __init__(
        self,
        paxos: Paxos,
        machine: Machine,
        changing: Changing,
        genesis: Configuration,
        submit: Callable[[bytes], None],
    ) -> None:
        self._paxos = paxos
        self._machine = machine
        self._roster = machine.roster
        self._changing = changing
        self._genesis = genesis
        self._submit = submit

    def answer(self, question: str, arguments: tuple[Any, ...], now_ms: int) -> Answer:
        """The answer to `members.<something>`.

        Raises:
            ProtocolError: nobody of ours asks like this.

        """
        match question.removeprefix(PREFIX), arguments:
            case "add" | "replace" | "join", words if (longest := _longest(words)) > NAME_BYTES_MAX:
                answer = refuse(f"a word of {longest} characters: NAME_BYTES_MAX = {NAME_BYTES_MAX} are the most")
            case "list", ():
                answer = self._list(now_ms)
            case "add", (str(address), bytes(incarnation)) if incarnation:
                answer = self._add(address, incarnation, now_ms)
            case "replace", (str(old), str(address), bytes(incarnation)) if incarnation:
                answer = self._replace(old, address, incarnation, now_ms)
            case "remove", (str(target),):
                answer = self._remove(target, now_ms)
            case "transfer", (str(target), int(former)):
                answer = self._transfer(target, former, now_ms)
            case "join", (str(address), bytes(incarnation), str(replaces), int(replica)) if incarnation:
                answer = self._join(address, incarnation, replaces, replica)
            case _:
                known = f"{question[:OP_BYTES_MAX]!r} with {len(arguments)} arguments"
                raise ProtocolError(f"no question {known} is known")
        return {**answer, "servers": self._addresses(), "leader": self._paxos.replica}

    # --- looking

    def _list(self, now_ms: int) -> Answer:
        chosen, present = self._paxos.chosen, self._paxos.present()
        leader = self._paxos.replica
        rows: list[Answer] = []
        for member in self._paxos.configuration.members:
            role = "leader" if member.id == leader else "member"
            state = "up" if member.id in present else "not reached, or far behind"
            rows.append({"replica": member.id, "address": member.address, "role": role, "state": state})
        for newcomer in self._roster.newcomers.values():
            state = self._state_of(newcomer.id, now_ms)
            replaces = {"replaces": newcomer.replaces} if newcomer.replaces else {}
            row = {"replica": newcomer.id, "address": newcomer.address, "role": "newcomer", "state": state, **replaces}
            rows.append(row)
        return {
            **done(f"{len(present)} of {len(self._paxos.configuration.members)} members are up"),
            "cluster": self._paxos.configuration.cluster,
            "epoch": self._paxos.configuration.epoch,
            "chosen": chosen,
            "members": rows,
        }

    def _state_of(self, newcomer: int, now_ms: int) -> str:
        if not self._changing.is_here(newcomer, now_ms):
            return "not reached"
        return self._changing.pupils[newcomer].describe(self._paxos.chosen)

    def _addresses(self) -> list[str]:
        return [member.address for member in self._paxos.configuration.members]

    def _members(self) -> str:
        return ", ".join(f"{member.id} at {member.address}" for member in self._paxos.configuration.members)

    def _find(self, target: str) -> int | None:
        """The id of the replica that an operator means, by number or by address; former ones, too."""
        if target.isascii() and target.isdecimal():
            number = int(target[:DIGITS_MAX])
            return number if 0 < number <= self._roster.top else None
        known = {replica: address for replica, address in self._roster.gone.items() if address == target}
        known |= {newcomer.id: newcomer.address for newcomer in self._roster.newcomers.values()}
        known |= {member.id: member.address for member in self._paxos.configuration.members}
        return next((replica for replica, address in reversed(known.items()) if address == target), None)

    def _address_of(self, replica: int) -> str:
        newcomers = {newcomer.id: newcomer.address for newcomer in self._roster.newcomers.values()}
        members = {member.id: member.address for member in self._paxos.configuration.members}
        return {**newcomers, **members}.get(replica, "")

    def _unknown(self, target: str) -> Answer:
        return refuse(f"there is no replica {target} in this group: its members are {self._members()}")

    # --- coming

    def _add(self, address: str, incarnation: bytes, now_ms: int, replaces: int = 0) -> Answer:
        """The replica of this directory shall be a member."""
        known = self._roster.find(incarnation)
        if known in self._roster.members:
            if known in self._roster.unasked:
                self._submit(commands.codec.encode(commands.Admit(address, incarnation, 0, True)))
            return done(f"{address} is a member: replica {known}")
        newcomer = self._roster.newcomers.get(known)
        objection = self._objection_to(address, replaces) if newcomer is None else None
        objection = objection or self._objection_to_place(replaces, known)
        if objection is not None:
            return objection
        if newcomer is None or not newcomer.asked or (replaces and newcomer.replaces != replaces):
            self._submit(commands.codec.encode(commands.Admit(address, incarnation, replaces, True)))
            return wait(f"{address} is being admitted")
        return self._progress(newcomer.id, address, now_ms)

    def _progress(self, replica: int, address: str, now_ms: int) -> Answer:
        if self._changing.is_near(replica, now_ms) and self._changing.hindrance:
            return wait(f"replica {replica} at {address} waits: {self._changing.hindrance}")
        state = self._state_of(replica, now_ms)
        if state == "not reached":
            return wait(f"replica {replica} at {address} is not reached: is its process running?")
        return wait(f"replica {replica} at {address} {state}")

    def _objection_to(self, address: str, replaces: int) -> Answer | None:
        members = {member.id: member.address for member in self._paxos.configuration.members}
        for member, other in members.items():
            if other == address and member != replaces:
                return refuse(
                    f"{address} is the address of replica {member}, which is a member, but not the one that answers"
                    f" there: if its data is gone, run `dthreading members replace {member} {address}`"
                )
        coming = [newcomer for newcomer in self._roster.newcomers.values() if newcomer.replaces not in members]
        if replaces not in members and len(members) + len(coming) >= MEMBERS_MAX:
            return refuse(
                f"the group has {len(members)} members and {len(coming)} newcomers, and {MEMBERS_MAX} are the most:"
                " remove one first, or replace one"
            )
        return None

    def _objection_to_place(self, place: int, known: int) -> Answer | None:
        """Two operators may be at it at once. `known` is the id of the one who is to have the place, or 0."""
        for other in self._roster.newcomers.values():
            if place and other.replaces == place and other.id != known and (not known or other.id < known):
                return refuse(
                    f"replica {other.id} at {other.address} is about to take the place of replica {place}: wait for it,"
                    f" or run `dthreading members remove {other.id}` first"
                )
        return None

    def _join(self, address: str, incarnation: bytes, replaces: str, replica: int) -> Answer:
        """A newcomer asks by itself; or one that was here before, with its id, asks where the others are."""
        if self._roster.has_left(replica):
            return {**refuse(removed(replica, self._paxos.configuration.cluster)), "removed": True}
        known = self._roster.find(incarnation)
        place_known = self._address_of(known)
        if place_known not in {"", address}:
            return refuse(
                f"this is replica {known}, which the others look for at {place_known}, and it was started at {address}:"
                " to move it, let a newcomer on an empty data directory take its place"
            )
        if not known:
            place = self._find(replaces) if replaces else 0
            if place is None:
                return wait(self._unknown(replaces)["say"] + " (--replace)")
            objection = self._objection_to(address, place)
            if objection is not None:
                return wait(objection["say"])
            self._submit(commands.codec.encode(commands.Admit(address, incarnation, place, bool(place))))
            return wait("this replica is being admitted")
        seeds = tuple((member.id, member.address) for member in self._paxos.configuration.members)
        admission = Admission(known, self._genesis, seeds).encode()
        return {**done(f"this is replica {known}"), "admission": admission, "epoch": self._paxos.configuration.epoch}

    # --- going, and both at once

    def _remove(self, target: str, now_ms: int) -> Answer:
        replica = self._find(target)
        if replica is None:
            return self._unknown(target)
        if replica in self._roster.newcomers:
            self._submit(commands.codec.encode(commands.Dismiss(replica)))
            return wait(f"replica {replica}, which is not a member yet, is being dismissed")
        return self._take_out(replica, now_ms)

    def _take_out(self, replica: int, now_ms: int) -> Answer:
        if replica not in self._paxos.configuration.ids:
            return done(f"replica {replica} is no member any more: the members are {self._members()}")
        if self._paxos.changing:
            return wait("another change of the members is being decided")
        new = self._changing.without(replica)
        objection = self._changing.objection(new, now_ms)
        if objection:
            if self._changing.is_young(now_ms, YOUNG_MS) and new:
                return wait("a new leader looks who is there")
            return refuse(f"replica {replica} is not removed: {objection}")
        if replica == self._paxos.replica:
            self._paxos.hand_over(next(iter(self._changing.successors(new)), None))
            return wait(f"replica {replica} leads, and hands over first")
        self._changing.propose(new)
        return wait(f"the group is deciding to go on without replica {replica}")

    def _replace(self, old: str, address: str, incarnation: bytes, now_ms: int) -> Answer:
        place = self._find(old)
        if place is None:
            return self._unknown(old)
        known = self._roster.find(incarnation)
        if place in self._roster.newcomers:
            return refuse(f"replica {place} is not a member yet: run `dthreading members remove {place}`")
        if place not in self._paxos.configuration.ids:
            if known in self._roster.members:
                return self._add(address, incarnation, now_ms)
            if known not in self._roster.newcomers:
                return refuse(
                    f"replica {place} is no member any more, so nobody can take its place:"
                    f" run `dthreading members add {address}`"
                )
            return self._add(address, incarnation, now_ms)
        if known == place:
            return refuse(f"replica {place} cannot replace itself: {address} is where it listens")
        if known in self._roster.members and known not in self._roster.unasked:
            return refuse(
                f"{address} is a member already, replica {known}: to take replica {place} out, run"
                f" `dthreading members remove {place}`"
            )
        if known in self._roster.members:
            # It came by itself a moment ago, and has become a member beside the one whose place was meant for it.
            return self._take_out(place, now_ms)
        return self._add(address, incarnation, now_ms, place)

    # --- leading

    def _transfer(self, target: str, former: int, now_ms: int) -> Answer:
        """Another shall lead: `target`, or with "" anybody but `former` (0 in the first question)."""
        leader = self._paxos.replica
        wanted = self._find(target) if target else 0
        if wanted is None or (wanted and wanted not in self._paxos.configuration.ids):
            return self._unknown(target)
        if leader == wanted or (not wanted and former not in {0, leader}):
            return done(f"replica {leader} leads")
        if len(self._paxos.configuration.members) == 1:
            return refuse(f"replica {leader} is the only member, so nobody else can lead")
        successors = self._changing.successors(self._paxos.configuration.ids)
        if wanted not in successors and not (successors and not wanted):
            if self._changing.is_young(now_ms, YOUNG_MS):
                return wait("a new leader looks who is there")
            who = f"replica {wanted}" if wanted else "any other member"
            return refuse(f"replica {leader} goes on leading: {who} cannot be reached or lags behind")
        self._paxos.hand_over(wanted or None)
        return wait(f"replica {leader} hands over")
