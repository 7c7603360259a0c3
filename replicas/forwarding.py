# SPDX-License-Identifier: Apache-2.0
"""A follower's way to the leader: what its clients said is passed on, and again until apply has seen it."""

from __future__ import annotations

from typing import Final

from replicas.hosting import Hosting
from replicas.messages import Forward

__all__ = ["Forwarding"]

RETRY_MS: Final = 1000
"""What the leader has not got chosen for so long is passed on again: the link may have lost it, and copies are
harmless."""

FORWARD_BYTES_MAX: Final = 1024 * 1024
"""The most of one Forward, so that a frame stays well below FRAME_BYTES_MAX whatever is pending."""


class Forwarding:
    """What goes to the leader in this turn. All of it is pending in `hosting`, so forgetting it here loses nothing."""

    def __init__(self, hosting: Hosting, now_ms: int) -> None:
        self._hosting = hosting
        self._bodies: list[bytes] = []
        self._look_ms = now_ms

    def add(self, body: bytes) -> None:
        """A client's command, just noted as pending."""
        self._bodies.append(body)

    def clear(self) -> None:
        """There is another leader, or none: what is pending will be asked for anew."""
        self._bodies.clear()

    def everything(self, now_ms: int) -> None:
        """All that is pending goes (again): there is a new leader, or a new link to it."""
        self._bodies = self._hosting.overdue(now_ms, now_ms)

    def overdue(self, now_ms: int) -> None:
        """What was passed on long ago and is not applied goes again. Looks once in RETRY_MS, at any call."""
        if now_ms >= self._look_ms:
            self._look_ms = now_ms + RETRY_MS
            self._bodies += self._hosting.overdue(now_ms - RETRY_MS, now_ms)

    def take(self) -> list[Forward]:
        """The commands of this turn in as few messages as their size allows, in the order they came."""
        bodies, self._bodies = self._bodies, []
        if not bodies:
            return []
        forwards: list[Forward] = []
        start = size = 0
        for index, body in enumerate(bodies):
            if size + len(body) > FORWARD_BYTES_MAX and index > start:
                forwards.append(Forward(tuple(bodies[start:index])))
                start, size = index, 0
            size += len(body)
        forwards.append(Forward(tuple(bodies[start:])))
        return forwards
