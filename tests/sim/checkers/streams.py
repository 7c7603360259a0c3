# SPDX-License-Identifier: Apache-2.0
"""The order of words on each client's connection, in both directions. No clock is looked at.

What a client says first on a connection that lasts stands in the log in the order in which it was said, and a read is
answered from a state that has all of it. And before a replica acknowledges a keepalive it has told its client of every
answer that it had applied by the time the keepalive left: nothing needs a new connection to be heard of.

What is said again after a reconnect, up to the first keepalive, may overtake or be overtaken by its older copies. By
then nothing is missing there that may have been lost with the former connection and still matters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dthreading.session.calls import READ
from dthreading.wire import messages as wire
from dthreading.wire.codec import TAGS, decode

if TYPE_CHECKING:
    from collections.abc import Callable

    from dthreading.session.calls import PendingCall
    from dthreading.session.core import ClientSession
    from tests.sim.client import Ask, SimulatedClient

__all__ = ["Streams", "Words"]

_TAG_OF: Final = {kind: tag for tag, kind in TAGS.items()}
_KEEPALIVE: Final = _TAG_OF[wire.Keepalive]
_ORDERED: Final = {_TAG_OF[kind] for kind in (wire.Call, wire.Withdraw, wire.Attach, wire.Detach, wire.Acknowledge)}
_KEPT: Final = {_TAG_OF[kind] for kind in (wire.Withdraw, wire.Detach, wire.Acknowledge)}


Answered = dict[tuple[int, int, int], tuple[int, int]]


class Words:
    """What one client has said on its present connection."""

    def __init__(self, client: SimulatedClient) -> None:
        self.client = client
        self.connection = 0
        self.began_us = -1
        self.ready_us = -1
        """When it was taken up: the first keepalive left. -1: not yet."""
        self.said: dict[bytes, int] = {}
        """Words said here for the first time that the log does not hold yet, with their numbers, in order."""
        self.reads: dict[bytes, int] = {}
        """Reads on their way, and how many words were said before each."""
        self.count = 0
        self.taken_up = 0
        """What the replica had applied when this connection was ready."""
        self.beats: dict[int, tuple[int, int]] = {}
        """By keepalive: what the replica had applied when it left, and how many words were said before it."""
        self.arrived = 0
        """So many words have been shown to have come there."""
        self.owed: dict[bytes, Any] = {}
        """Words of former connections that may be lost, decoded: those that the session must not forget."""
        self.again: dict[bytes, Any] = {}
        """Those that were said again here, and may be lost once more."""
        self.session: ClientSession | None = None


class Streams:
    """The connections of all clients.

    Args:
        applied: what a replica has applied, and 0 while it is down.
        stands: whether something is left of an abandoned call.

    """

    def __init__(self, applied: Callable[[int], int], stands: Callable[[tuple[int, int, int]], bool]) -> None:
        self._applied = applied
        self._stands = stands
        self._words: dict[bytes, Words] = {}
        """Whose word that is, of all that is in somebody's `said`."""
        self.heard: dict[int, tuple[int, int]] = {}
        """By session: when its client last said that it lives, and the lease that it has."""
        self._reads: set[bytes] = set()
        """Frames of calls that only read."""
        self._unframed: list[PendingCall] = []
        """Such calls whose frame is not made yet."""

    def asks(self, call: PendingCall) -> None:
        """A call has begun; if it goes to the log, its turn is kept."""
        if call.manner is READ:
            self._unframed.append(call)

    def says(self, words: Words, connection: int, body: bytes, now_us: int) -> None:
        """The client's next word on that connection."""
        if connection != words.connection:
            self._begin(words, connection)
            words.began_us = now_us
        if self._unframed:
            self._reads.update(call.frame[4:] for call in self._unframed if call.frame)
            self._unframed = [call for call in self._unframed if not call.frame and not call.settled]
        tag = body[1]
        if words.client.session.id:
            self.heard[words.client.session.id] = now_us, words.client._ttl_ms * 1000
        if tag == _KEEPALIVE:
            applied = self._applied(words.client.line.replica)
            if words.ready_us < 0:
                words.ready_us, words.taken_up = now_us, applied
                self._all_is_said_again(words)
            words.beats[decode(body).beat] = applied, words.count  # type: ignore[union-attr]
        elif tag not in _ORDERED:
            return
        elif words.ready_us < 0:
            if (word := words.owed.pop(body, None)) is not None:
                words.again[body] = word
        elif body in self._reads:
            self._reads.discard(body)
            words.reads[body] = words.count
        elif body not in self._words:
            words.count += 1
            words.said[body] = words.count
            self._words[body] = words

    def _begin(self, words: Words, connection: int) -> None:
        if words.session is not words.client.session:
            words.session = words.client.session
            for bodies in (words.owed, words.said, words.again):
                self._forget(bodies)
            words.owed, words.said, words.again = {}, {}, {}
        lost = [body for body, number in words.said.items() if number > words.arrived]
        for body in words.said:
            del self._words[body]
        words.owed |= words.again
        words.owed |= {body: decode(body) for body in lost if body[1] in _KEPT}
        for body in words.owed:
            self._words[body] = words
        words.said, words.again, words.reads, words.beats = {}, {}, {}, {}
        words.connection, words.ready_us = connection, -1

    def _forget(self, bodies: dict[bytes, Any]) -> None:
        for body in bodies:
            self._words.pop(body, None)

    def _all_is_said_again(self, words: Words) -> None:
        """The session has been taken up on a new connection: it has remembered all that it owes."""
        session, owed = words.client.session, words.owed
        words.owed = {}
        self._forget(owed)
        for word in owed.values():
            if type(word) is wire.Withdraw:
                lane = session._lanes.get(word.lane)
                assert lane is not None
                call = lane.undo if word.undo else lane.pending
                stands = word.undo and self._stands((word.session, word.lane, word.number))
                if not stands and (call is None or call.number != word.number):
                    continue
            raise AssertionError(f"{words.client.name} came back, and did not say again {word}")

    def applied(self, value: bytes) -> None:
        """The log's next entry."""
        words = self._words.pop(value, None)
        if words is None:
            return
        if words.owed.pop(value, None) is not None or words.again.pop(value, None) is not None:
            return
        first = next(iter(words.said))
        del words.said[value]
        if words.client.line.connection == words.connection:
            assert first == value, f"{words.client.name}: {decode(value)} has overtaken {decode(first)}"

    def read_answered(self, words: Words, ask: Ask, call: PendingCall) -> None:
        """A read was answered without the log."""
        before = words.reads.pop(call.frame[4:], None)
        if before is None or words.client.line.connection != words.connection:
            return
        first = next(iter(words.said.items()), None)
        assert first is None or first[1] > before, (
            f"{words.client.name} was answered {ask} before it had done {decode(first[0])}, which it said first"
        )

    def acknowledged(self, words: Words, beat: int, answered: Answered) -> None:
        """The client hears that a keepalive has arrived. `answered`: where and when the log last answered each call."""
        session = words.client.session
        if words.client.line.connection != words.connection or beat not in words.beats:
            return
        known, words.arrived = words.beats[beat]
        if words.again:
            self._forget(words.again)
            words.again = {}
        words.beats = {other: then for other, then in words.beats.items() if other > beat}
        for lane in session._lanes.all():
            call = lane.pending
            if call is None:
                continue
            slot, _ = answered.get((session.id, lane.index, call.number), (0, 0))
            assert not words.taken_up < slot <= known, (
                f"{words.client.name} was not told of the answer to {call.operation} on {call.target} in slot {slot},"
                f" though its replica was at {known}"
            )
