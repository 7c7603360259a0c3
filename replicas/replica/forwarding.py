# SPDX-License-Identifier: Apache-2.0
"""A follower's way to the leader: what its clients said is passed on, and again until apply has seen it.

In order, always. A message to the leader may get lost while later ones arrive (its link broke, or did not take it), so
what is passed on is a numbered stream: the leader takes nothing after a gap. The follower begins another stream, with
all that is pending, when the leader tells it so, or when it sees nothing of its own applied any more: nobody else sees
that the last of a stream is lost.
"""

from __future__ import annotations

from typing import Final

from replicas.replica.hosting import Hosting
from replicas.replica.messages import Forward, Missed

__all__ = ["Forwarding", "Streams"]

RETRY_MS: Final = 1000
"""With something pending and nothing of it applied for so long, a new stream begins. (Copies are harmless.)"""

FORWARD_BYTES_MAX: Final = 1024 * 1024
"""The most of one Forward, so that a frame stays well below FRAME_BYTES_MAX whatever is pending."""

FORWARD_BODIES_MAX: Final = 8192
"""The most commands of one Forward: small ones by the hundred thousand would be more than an array may hold."""


class Forwarding:
    """The follower's end. All that it holds is pending in `hosting`, so forgetting it here loses nothing."""

    def __init__(self, hosting: Hosting, now_ms: int) -> None:
        self._hosting = hosting
        self._bodies: list[bytes] = []
        self._stream = 0
        self._number = 0
        self._quiet_since_ms = now_ms
        self._broken = False

    def add(self, body: bytes) -> None:
        """A client's command, just noted as pending."""
        self._bodies.append(body)

    def clear(self) -> None:
        """There is another leader, or none: what is pending will be asked for anew."""
        self._bodies.clear()

    def begin(self, now_ms: int) -> None:
        """A new stream, with all that is pending: there is a new leader, a new link to it, or a gap."""
        self._bodies = list(self._hosting.pending)
        # Not only counted: a replica that was started again must not go on with a stream of its former life.
        self._stream = max(self._stream + 1, now_ms)
        self._number = 0
        self._quiet_since_ms = now_ms
        self._broken = False

    def missed(self, stream: int) -> None:
        """The leader has seen a gap in this stream. `mend` sees to it, so that a link that is too narrow for all that
        is pending is not filled with copies of it as fast as the leader can say so.
        """
        self._broken = self._broken or stream == self._stream

    def applied(self, body: bytes, now_ms: int) -> int | None:
        """Apply has seen this command; if it was pending here, the stream flows. Returns as `Hosting.applied`."""
        if not self._hosting.is_pending(body):
            return None
        self._quiet_since_ms = now_ms
        return self._hosting.applied(body)

    def mend(self, now_ms: int) -> None:
        """Time has passed: if the stream has run dry with something pending, it has a gap, too."""
        if self._broken:
            self.begin(now_ms)
        elif not self._hosting.pending_count or self._bodies:
            self._quiet_since_ms = now_ms
        elif now_ms - self._quiet_since_ms >= RETRY_MS:
            self.begin(now_ms)

    @property
    def due(self) -> bool:
        """Whether `take` has something."""
        return bool(self._bodies)

    def take(self) -> list[Forward]:
        """The commands of this turn in as few messages as their size allows, in the order they came."""
        bodies, self._bodies = self._bodies, []
        forwards: list[Forward] = []
        start = size = 0
        for index, body in enumerate(bodies):
            full = size + len(body) > FORWARD_BYTES_MAX or index - start == FORWARD_BODIES_MAX
            if full and index > start:
                forwards.append(self._next(bodies[start:index]))
                start, size = index, 0
            size += len(body)
        if bodies:
            forwards.append(self._next(bodies[start:]))
        return forwards

    def _next(self, bodies: list[bytes]) -> Forward:
        self._number += 1
        return Forward(self._stream, self._number - 1, tuple(bodies))


class Streams:
    """The leader's end: which message of which stream is due from each follower. Begins empty with each reign."""

    def __init__(self) -> None:
        self._due: dict[int, tuple[int, int]] = {}

    def clear(self) -> None:
        """Another reign: every follower begins a new stream when it hears of it."""
        self._due.clear()

    def takes(self, source: int, forward: Forward) -> bool:
        """Whether this message may be taken: it begins a stream, or continues the one from there without a gap."""
        if forward.number and self._due.get(source) != (forward.stream, forward.number):
            return False
        self._due[source] = (forward.stream, forward.number + 1)
        return True

    def gap(self, source: int, forward: Forward) -> Missed | None:
        """What a follower is to hear whose message was not taken; None: nothing is missing, it is late or a copy."""
        return Missed(forward.stream) if (forward.stream, forward.number) > self._due.get(source, (0, 0)) else None
