# SPDX-License-Identifier: Apache-2.0
"""The values that messages and records are made of, and the bytes of the two kinds of entry that consensus itself
reads.

`types.py` re-exports them; they stand apart only so that messages.py can be imported by it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple


class EntryKind(IntEnum):
    """What an entry is to consensus."""

    NOOP = 0
    """Fills a slot in which a new leader found nothing."""
    COMMAND = 1
    """The machine's business; opaque here."""
    CONFIGURATION = 2
    """An encoded Configuration: rules from the next slot on if it changes the epoch in force, else it is a no-op."""
    LEADS = 3
    """An encoded Ballot: the leader's first own entry. Applying it makes that the ballot in force."""


class Ballot(NamedTuple):
    """Ordered by round, then by replica. Replica ids are never reused, so no two proposers ever share a ballot."""

    round: int
    replica: int


NO_BALLOT: Final = Ballot(0, 0)
"""Below every ballot that anybody can own."""


class Entry(NamedTuple):
    """What stands in one slot of the log. The ballot is the one under which it was accepted; only kind and value are
    chosen.
    """

    slot: int
    ballot: Ballot
    kind: int
    value: bytes


class Member(NamedTuple):
    """One replica of a configuration. `incarnation` was minted when its directory was formatted: an empty disk is
    another replica.
    """

    id: int
    address: str
    incarnation: bytes


class Configuration(NamedTuple):
    """Who votes. `settings` is opaque here: limits that apply depends on live in it, so all replicas agree on them."""

    cluster: str
    epoch: int
    members: tuple[Member, ...]
    settings: bytes

    @property
    def ids(self) -> tuple[int, ...]:
        """The members' ids, in the order of the list."""
        return tuple(member.id for member in self.members)

    @property
    def quorum(self) -> int:
        """A majority. Even sizes are legal: 2 of 2, 3 of 4."""
        return len(self.members) // 2 + 1


def encode_ballot(ballot: Ballot) -> bytes:
    """The value of a LEADS entry."""
    return ballot.round.to_bytes(8, "big") + ballot.replica.to_bytes(4, "big")


def decode_ballot(value: bytes) -> Ballot:
    """What `encode_ballot` wrote."""
    assert len(value) == 12
    return Ballot(int.from_bytes(value[:8], "big"), int.from_bytes(value[8:], "big"))


def encode_configuration(configuration: Configuration) -> bytes:
    """The value of a CONFIGURATION entry: integers as eight bytes, everything else with its length before it."""
    parts = [_sized(configuration.cluster.encode()), _number(configuration.epoch), _sized(configuration.settings)]
    for member in configuration.members:
        parts += [_number(member.id), _sized(member.address.encode()), _sized(member.incarnation)]
    return b"".join(parts)


def decode_configuration(value: bytes) -> Configuration:
    """What `encode_configuration` wrote."""
    cluster, at = _read_sized(value, 0)
    epoch, at = _read_number(value, at)
    settings, at = _read_sized(value, at)
    members = []
    while at < len(value):
        number, at = _read_number(value, at)
        address, at = _read_sized(value, at)
        incarnation, at = _read_sized(value, at)
        members.append(Member(number, address.decode(), incarnation))
    return Configuration(cluster.decode(), epoch, tuple(members), settings)


def _number(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _sized(data: bytes) -> bytes:
    return _number(len(data)) + data


def _read_number(value: bytes, at: int) -> tuple[int, int]:
    assert at + 8 <= len(value), "a configuration entry is cut short"
    return int.from_bytes(value[at : at + 8], "big"), at + 8


def _read_sized(value: bytes, at: int) -> tuple[bytes, int]:
    size, at = _read_number(value, at)
    assert at + size <= len(value), "a configuration entry is cut short"
    return value[at : at + size], at + size
