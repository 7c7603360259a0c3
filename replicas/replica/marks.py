# SPDX-License-Identifier: Apache-2.0
"""The mark of a replica whose state was found to be wrong: kept in its directory, so that it is not started again.

It stands where the directory says what its replica is in its group, and holds what stood there before: one write, the
old or the new at any moment, and a version that does not know it cannot take the directory for a sound one.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from dthreading.wire.codec import pack, unpack

__all__ = ["Mark"]

_MARK: Final = b"\x81"
"""Tells these bytes from an admission's, and from those of a replica that took part in forming its group."""


class Mark(NamedTuple):
    """One directory's."""

    sentence: str
    """What was found, for people."""
    formation: bytes
    """What the directory said before."""

    def encode(self) -> bytes:
        """For the directory."""
        return _MARK + pack(tuple(self))

    @classmethod
    def decode(cls, data: bytes | None) -> Mark | None:
        """What `encode` gave; None when these bytes are something else."""
        return cls(*unpack(data[1:])) if data is not None and data[:1] == _MARK else None
