# SPDX-License-Identifier: Apache-2.0
"""The words of the Paxos model: how far a search goes, what may happen to a replica, and both of them for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from replicas.paxos.types import Ballot, EntryKind
from replicas.paxos.values import Configuration, Member, decode_ballot, decode_configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """How far the search goes."""

    ballots: int
    """Prepared by all replicas together."""
    slots: int
    """Commands are proposed up to this slot. LEADS entries stand where the code puts them."""
    crashes: int = 0
    """Of all replicas together; each at most `crashes_each`, and back at once."""
    crashes_each: int = 1
    slow_disk: bool = False
    """A sync is a step of its own, so a crash loses what was not synced; else it is part of the step that writes."""
    beats: int = 0
    """Heartbeats of each leadership. Without any, its entries and its floor are told all the same."""
    refusals: bool = False
    """Whether the answer that a ballot is too low ever arrives."""
    catching_up: bool = True
    """Whether Fetch and Chosen ever arrive."""
    pre_votes: bool = False
    """Whether a candidate asks before it prepares; else every pre-vote is granted at once."""
    hand_overs: bool = False
    replicas: int = 3
    standing: tuple[int, ...] = ()
    """The replicas that may stand for election; empty: all."""
    members: tuple[int, ...] = ()
    """Those of the first configuration; empty: all. The others are learners, which ask for what is chosen."""
    changes: tuple[tuple[int, ...], ...] = ()
    """What the members may become: a leader of the first epoch proposes any of these, in a slot of `slots`."""


class Event(NamedTuple):
    """What happens to a replica."""

    kind: str
    source: int = 0
    message: Any = None
    kept: int = 0

    def __str__(self) -> str:
        match self.kind:
            case "message":
                return f"hears from {self.source}: {short(self.message)}"
            case "ask":
                return f"is a learner and asks replica {self.source} for what is chosen"
            case "change":
                return f"proposes that the members be {', '.join(map(str, self.message))}"
            case "crash":
                return f"crashes, {self.kept} of its unsynced records survive, and starts again"
            case _:
                return WORDS[self.kind]


WORDS: Final = {
    "stand": "has heard no leader for long and stands for election",
    "propose": "proposes a command",
    "sync": "finishes its oldest sync",
    "beat": "sends a heartbeat",
    "hand over": "is told to hand over",
}


class Mail(NamedTuple):
    """A message in an inbox."""

    source: int
    message: Any

    def __str__(self) -> str:
        return short(self.message)


def short(message: Any) -> str:
    """A message without what can be guessed."""
    fields = []
    for name, value in message._asdict().items():
        if isinstance(value, Ballot):
            fields.append(f"{name}={dotted(value)}")
        elif name == "entries":
            fields.append(f"entries={[f'{e.slot}: {what(e.kind, e.value)} at {dotted(e.ballot)}' for e in value]}")
        elif name == "values":
            fields.append(f"values={[what(kind, v) for kind, v in zip(message.kinds, value, strict=True)]}")
        elif name not in {"kinds", "chain", "unknown", "next_slot", "transfer"}:
            fields.append(f"{name}={value}")
    return f"{type(message).__name__}({', '.join(fields)})"


def dotted(ballot: tuple[int, int]) -> str:
    """A ballot for people."""
    return f"{ballot[0]}.{ballot[1]}"


def what(kind: int, value: bytes) -> str:
    """An entry's value for people."""
    if kind == EntryKind.LEADS:
        return f"LEADS {dotted(decode_ballot(value))}"
    if kind == EntryKind.CONFIGURATION:
        configuration = decode_configuration(value)
        return f"members {', '.join(map(str, configuration.ids))} from epoch {configuration.epoch} on"
    return value.decode() if kind == EntryKind.COMMAND else EntryKind(kind).name


def configuration(epoch: int, ids: tuple[int, ...]) -> Configuration:
    """Of the model's group."""
    return Configuration("scope", epoch, tuple(Member(number, "", b"") for number in ids), b"")
