# SPDX-License-Identifier: Apache-2.0
"""How long the client may believe that its session lives, by its own clock. Reads no clock: `now` is handed in.

A lease counts from when the last acknowledged keepalive was *sent*, the leader counts from when it came, a bit later,
and the margin covers clocks of different rates. So the client knows of a loss before the group gives anything away.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = ["Lease", "State"]

CLOCK_RATE_MARGIN: Final = 0.01
"""How far apart the rates of two clocks may be: NTP slews by at most 0.05 %, bare crystals by far less than 1 %."""

LEASE_MARGIN_S: Final = 0.05
"""Taken off every lease besides: the leader looks at its deadlines once a tick, and reads its clock in milliseconds."""

KEEPALIVES_PER_LEASE: Final = 3
"""Two may be lost on the way before the third finds the lease over."""

JEOPARDY_PART: Final = 0.5
"""The part of a lease without an acknowledged keepalive after which it is in danger: the second one is overdue then."""


class State(Enum):
    """What a client knows of its session."""

    NEW = "the group has not answered yet"
    CONNECTED = "the lease runs"
    JEOPARDY = "it may be lost: no keepalive was acknowledged for half a lease"
    LOST = "it is lost, for ever: what it held may be another's by now"
    CLOSED = "we have ended it"


class Lease:
    """One session's lease. `valid` may be asked by any thread; the rest belongs to the thread that serves the session.

    Args:
        ttl_s: the lease that the group granted.
        since: when the word that opened the session was first sent.

    """

    __slots__ = ("_beats", "_deadline", "_expired", "_jeopardy_at", "beat", "keepalive_at", "ttl_s")

    def __init__(self, ttl_s: float, since: float) -> None:
        self.ttl_s = ttl_s
        self.beat = 0
        """The number of the last keepalive."""
        self.keepalive_at = since
        self._beats: dict[int, float] = {}
        self._expired = False
        """Invariant: once True, always. Whoever reads on the clock that the lease is over sets it, from any thread."""
        self._heard(since)

    def _heard(self, sent: float) -> None:
        self._deadline = sent + self.ttl_s * (1 - CLOCK_RATE_MARGIN) - LEASE_MARGIN_S
        self._jeopardy_at = sent + self.ttl_s * JEOPARDY_PART

    def valid(self, now: float) -> bool:
        """False is final: a late acknowledgement revives nothing, not even one that another thread is just reading."""
        if self._expired:
            return False
        if now >= self._deadline:
            self._expired = True
            return False
        return True

    def in_jeopardy(self, now: float) -> bool:
        """No keepalive that was sent within half a lease is acknowledged."""
        return now >= self._jeopardy_at

    def next_beat(self, now: float) -> int:
        """The number of a keepalive that is sent now."""
        self.beat += 1
        self._beats[self.beat] = now
        self.keepalive_at = now + self.ttl_s / KEEPALIVES_PER_LEASE
        return self.beat

    def acknowledged(self, beat: int, now: float) -> bool:
        """A keepalive was acknowledged. False: it is unknown (a copy), or it came too late."""
        sent = self._beats.get(beat)
        if sent is None or not self.valid(now):
            return False
        self._beats = {other: when for other, when in self._beats.items() if other > beat}
        self._heard(sent)
        return True

    def next_at(self, now: float, *, sending: bool) -> float:
        """When something changes by time alone: a keepalive is due (where one can be sent), or danger, or the end."""
        next_at = self._deadline if now >= self._jeopardy_at else self._jeopardy_at
        return min(next_at, self.keepalive_at) if sending else next_at
