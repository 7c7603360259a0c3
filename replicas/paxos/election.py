# SPDX-License-Identifier: Apache-2.0
"""Who leads as far as this replica has heard, how long ago, and when its own patience ends. Time is handed in."""

from __future__ import annotations

from collections.abc import Callable

from replicas.paxos.types import Timing


class Election:
    """The clock side of elections; the votes are in candidate.py."""

    __slots__ = ("_heard_ms", "_luck", "_patience_ms", "_timing", "deadline_ms", "leader")

    def __init__(self, timing: Timing, luck: Callable[[], float], now_ms: int) -> None:
        self._timing = timing
        self._luck = luck
        self._heard_ms = now_ms
        self._patience_ms = self._draw()
        self.leader: int | None = None
        # A group that starts together has nobody to wait for; the pre-vote keeps a late one from disturbing.
        self.deadline_ms = now_ms + int(timing.election_ms * luck())

    def _draw(self) -> int:
        return self._timing.election_ms + int(self._timing.election_ms * self._luck())

    def heard(self, leader: int, now_ms: int) -> None:
        """`leader` said that it leads, and nothing that we promised contradicts it."""
        self.leader = leader
        self._heard_ms = now_ms
        self.deadline_ms = now_ms + self._patience_ms

    def wait(self, now_ms: int) -> None:
        """Nobody leads for now, and somebody may be about to: be patient once more, for another span."""
        self.leader = None
        self._patience_ms = self._draw()
        self.deadline_ms = now_ms + self._patience_ms

    def live_leader(self, now_ms: int) -> int | None:
        """The leader, if it was heard within the election timeout."""
        return self.leader if now_ms - self._heard_ms < self._timing.election_ms else None

    def stood_still(self, late_ms: int, deadline_ms: int) -> None:
        """A stop of the process for so long: nobody is late before it has read what lies unread."""
        self._heard_ms += late_ms
        self.deadline_ms = max(self.deadline_ms, deadline_ms)
