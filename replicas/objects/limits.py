# SPDX-License-Identifier: Apache-2.0
"""The limits and the version that apply depends on. They come from the log, never from a replica's own file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

from dthreading.errors import ProtocolError
from dthreading.wire import limits
from dthreading.wire.codec import pack, unpack

__all__ = ["MACHINE_VERSION", "Limits"]

MACHINE_VERSION: Final = 1
"""What this code can apply. Behaviour that changes between versions asks `Limits.machine_version`, which a
configuration entry raises once every replica runs code that knows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a configuration entry's settings say; what they leave out stays at these defaults."""

    machine_version: int = MACHINE_VERSION
    fence_floor: int = 0
    """Fences are greater than this: restoring a backup raises it far, so that no token repeats."""
    sessions_max: int = limits.SESSIONS_MAX
    lanes_per_session_max: int = limits.LANES_PER_SESSION_MAX
    attachments_per_session_max: int = limits.ATTACHMENTS_PER_SESSION_MAX
    session_ttl_ms_min: int = limits.SESSION_TTL_MS_MIN
    session_ttl_ms_max: int = limits.SESSION_TTL_MS_MAX
    item_bytes_max: int = limits.ITEM_BYTES_MAX
    name_bytes_max: int = limits.NAME_BYTES_MAX

    @classmethod
    def from_settings(cls, settings: bytes) -> Limits:
        """The limits in `Configuration.settings`: a msgpack map of names to numbers. Unknown names are newer ones."""
        try:
            given: Any = unpack(settings) if settings else {}
        except ProtocolError:
            given = {}
        if type(given) is not dict:
            given = {}
        known = [field.name for field in fields(cls)]
        return cls(**{name: given[name] for name in known if type(given.get(name)) is int and given[name] >= 0})

    def to_settings(self) -> bytes:
        """The bytes that say this, for a configuration entry."""
        return pack({field.name: getattr(self, field.name) for field in fields(self)})
