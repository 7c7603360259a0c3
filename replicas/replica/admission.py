# SPDX-License-Identifier: Apache-2.0
"""What a newcomer is told when it is admitted, and keeps in its directory: its id, how the group began, whom to ask.

It learns the log from the first slot (or a snapshot) on, so it begins with the configuration that the group was formed
with, and finds every later one in its place in the log. The members of that first one may be long gone: so it also
keeps where the present ones are.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from dthreading.wire.codec import pack, unpack
from replicas.paxos.values import Configuration, decode_configuration, encode_configuration

__all__ = ["Admission"]

_MARK: Final = b"\x80"
"""Tells these bytes from those of a replica that took part in forming its group, which begin with a `Phase`."""


class Admission(NamedTuple):
    """One newcomer's."""

    replica: int
    genesis: Configuration
    """The group as it was formed."""
    seeds: tuple[tuple[int, str], ...]
    """(id, address) of those who were members when it was admitted."""

    def encode(self) -> bytes:
        """For the directory, and for the way there."""
        return _MARK + pack((self.replica, encode_configuration(self.genesis), self.seeds))

    @classmethod
    def decode(cls, data: bytes) -> Admission | None:
        """What `encode` gave; None when these bytes are something else."""
        if data[:1] != _MARK:
            return None
        replica, genesis, seeds = unpack(data[1:])
        return cls(replica, decode_configuration(genesis), seeds)
