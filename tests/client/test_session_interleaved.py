# SPDX-License-Identifier: Apache-2.0
"""Two threads in one session: what the one does comes between any two lines of what the other does.

The session's threads share no lock, so the order of its lines is all there is (`dthreading/session/core.py`): a call is
published before the way out is looked up, the way out is opened before the lanes are read, and a handle is there for
others only when its attachment is on the way. No thread is started here: a tracer does the other's part at each line.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from dthreading.session import ACQUIRE, ClientSession, PendingCall, Target
from dthreading.session.lanes import Lanes
from dthreading.wire import codec
from dthreading.wire.framing import FrameDecoder
from dthreading.wire.messages import Attach, Call, Lifetime, Opened, Reply, Resumed, Status
from tests.tracing import calling_at

FILES = {sys.modules[one.__module__].__file__ for one in (ClientSession, Lanes)}
LINES_MAX = 200
"""More than anything here runs."""


class Party:
    """A session of which an object is known to be attached, and the way out of its newest connection."""

    def __init__(self) -> None:
        self.session = ClientSession(namespace="test", label="a test", ttl_ms=10_000)
        self.known, self.new = [Target("test", name, "Lock", (), Lifetime.NAMED) for name in ("known", "new")]
        self.connect()
        self.session.step(Opened(b"n" * 16, 7, 10_000), 1000.0)
        self.proved = {1}
        first = self.ask(self.known)
        self.session.step(Reply(0, 1, Status.OK, 1), 1000.0)
        self.session.finish(first)
        self.outbox.clear()

    def connect(self) -> None:
        self.outbox: deque[bytes] = deque()
        self.session.connected(self.outbox, b"n" * 16, 1000.0)

    def reconnect(self) -> None:
        """As the serving thread does."""
        self.session.disconnected()
        self.connect()
        self.session.step(Resumed(7), 1000.0)

    def ask(self, target: Target) -> PendingCall:
        """As any thread does, and where it can't, as the serving thread does for it."""
        call = PendingCall(target, "acquire", (True, 1), ACQUIRE)
        if not self.session.begin(call):
            self.session.submit(call)
        return call

    def asks_at_once(self, target: Target) -> PendingCall | None:
        """As any thread but the serving one: None where it has to hand the call over."""
        call = PendingCall(target, "acquire", (True, 1), ACQUIRE)
        return call if self.session.begin(call) else None

    def check(self, *calls: PendingCall) -> None:
        """Whoever waits is on the way, each on a lane of its own, and behind the attachment of its object."""
        said = [codec.decode(body) for body in FrameDecoder().feed(b"".join(self.outbox))]
        attached = set(self.proved)
        asked = set()
        for word in said:
            if isinstance(word, Attach):
                attached.add(word.handle)
            elif isinstance(word, Call):
                assert word.handle in attached, "a call has overtaken the attachment of its object"
                asked.add((word.lane, word.number))
        for call in calls:
            if self.session.over:
                assert call.lost, "nobody will ever settle it"
                continue
            assert call.lane is not None
            assert call.lane.call is call, "another call has its lane"
            assert (call.lane.index, call.number) in asked, "nobody sends it"


def between(line: int, does: Callable[[], Any], other: Callable[[], Any]) -> tuple[Any, bool]:
    """What `does` returns, where `other` came before the line of that number; and whether there was such a line."""
    reached = False

    def come(_: str) -> None:
        nonlocal reached
        reached = True
        other()

    with calling_at(line, come, FILES):
        result = does()
    return result, reached


def at_every_line(does: Callable[[Party], Any], other: Callable[[Party], Any], *, away: bool = False) -> int:
    """Checks both for each line; how many there were."""
    for line in range(1, LINES_MAX):
        party = Party()
        if away:
            party.session.disconnected()
        others: list[Any] = []
        # Bound early: each round has its own. The other's second call is on a lane that nobody has had before.
        one, reached = between(line, lambda p=party: does(p), lambda p=party, o=others: o.extend([other(p), other(p)]))
        if not reached:
            return line - 1
        if away and not party.session.ready and not party.session.over:
            party.reconnect()
        party.check(*[call for call in (one, *others) if isinstance(call, PendingCall)])
    raise AssertionError("it never ends")


@pytest.mark.parametrize("away", [False, True])
def test_a_call_that_begins_while_the_connection_comes_back_is_sent(away: bool) -> None:
    """By its own thread or by the one that says all again, perhaps by both, and never by nobody."""
    assert at_every_line(lambda party: party.ask(party.known), Party.reconnect, away=away) > 10


def test_a_call_that_begins_while_the_session_ends_is_lost() -> None:
    """It waits for ever if neither its own thread nor the one that ends the session settles it."""
    assert at_every_line(lambda party: party.ask(party.known), lambda party: party.session.close()) > 10


def test_two_calls_that_begin_at_one_time_have_a_lane_each() -> None:
    for lane_to_spare in (False, True):

        def asks(party: Party, spare: bool = lane_to_spare) -> PendingCall:
            if spare:
                party.session.finish(party.ask(party.known))
            return party.ask(party.known)

        assert at_every_line(asks, lambda party: party.asks_at_once(party.known)) > 10


def test_nobody_calls_an_object_before_its_attachment_is_on_the_way() -> None:
    """The serving thread attaches it; from then on all others call it at once."""
    assert at_every_line(lambda party: party.ask(party.new), lambda party: party.asks_at_once(party.new)) > 20


def test_what_is_said_again_leaves_no_call_out_that_begins_meanwhile() -> None:
    """The other way round: the connection comes back, and between two of its lines a call begins."""

    def comes_back(party: Party) -> None:
        party.reconnect()

    assert at_every_line(comes_back, lambda party: party.asks_at_once(party.known)) > 20


def test_the_end_of_a_session_leaves_no_call_out_that_begins_meanwhile() -> None:
    """Between any two lines of its end a call begins: it is refused at once, or lost with all others."""
    assert at_every_line(lambda party: party.session.close(), lambda party: party.asks_at_once(party.known)) > 10
