# SPDX-License-Identifier: Apache-2.0
"""From no connection to one on which the group has taken the session up, again and again. The only user of `Link`.

It decides nothing about calls: what comes from a replica about the session goes to the session. One connection at a
time is dialed or in use; a former one whose write end a thread still holds waits in a corner until it can be closed.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from dthreading.errors import DThreadingError, GroupUnreachable, NotAuthenticated, ProtocolError, WrongGroup
from dthreading.link import LAST_S, Link
from dthreading.session import ClientSession, State
from dthreading.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from dthreading.finding import Finder

__all__ = ["Dialer"]

logger = logging.getLogger("dthreading")

ATTEMPT_S_MAX: Final = 2.0
"""How long one replica may take from connect() to "your session is taken up" before the next is tried."""

ATTEMPT_S_MIN: Final = 0.25
"""The same for the shortest leases; otherwise a sixth of the lease, so that several replicas are tried within it."""

GRAVE_S: Final = 60.0
"""After this the descriptor of a connection whose writer never came back is closed all the same."""

STUCK_S: Final = 1.0
"""When a thread has been in the middle of one write for so long, it will not come back: we reconnect. (A hundred busy
threads may keep one from the interpreter for half of that.)"""


class Dialer:
    """The connection to the group. All methods belong to the service thread; `link` may be read by any.

    Args:
        finder: says where to dial, and when.
        lease: that is asked for, in seconds.
        connect: makes a connection of what the finder says.
        fresh: so many random bytes.

    """

    def __init__(
        self,
        finder: Finder,
        lease: float,
        *,
        connect: Callable[..., Link] = Link,
        fresh: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.link: Link | None = None
        """The connection on which the session is taken up."""
        self.trouble: DThreadingError | None = None
        """Why there is none, as far as is known."""
        self.cluster = ""
        """The id of the group, once a replica has told it."""
        self._finder = finder
        self._route = finder.route
        self._connect = connect
        self._fresh = fresh
        self._dialing: Link | None = None
        self._held_up: tuple[Link, int, float] | None = None
        """A connection that another thread is writing to, how many writes there were, and since when."""
        self._announced: ClientSession | None = None
        """The session that the present connection is for, from the end of the handshake on."""
        self._give_up_at = 0.0
        self._attempt_s = max(ATTEMPT_S_MIN, min(lease / 6, ATTEMPT_S_MAX))
        self._graves: deque[tuple[float, Link]] = deque()

    @property
    def current(self) -> Link | None:
        """The connection in use, or the one that is being made."""
        return self.link if self.link is not None else self._dialing

    def next_at(self, session: ClientSession | None) -> float:
        """When `tend` is due."""
        due = float("inf")
        if self._dialing is not None or (
            self.link is not None and session is not None and session.state is State.JEOPARDY
        ):
            due = self._give_up_at
        elif self.link is None and session is not None and not session.over:
            due = self._finder.dial_at()
        return due if self._held_up is None else min(due, self._held_up[2] + STUCK_S)

    def tend(self, session: ClientSession | None, now: float) -> None:
        """Gives up what is of no more use, and dials where there is something to say."""
        link = self.current
        if link is not None:
            self._look_after(link, session, now)
        self._bury(now)
        if self.current is None and session is not None and not session.over and now >= self._finder.dial_at():
            self._dial(session, now)

    def serve(self, session: ClientSession | None, events: int, clock: Callable[[], float]) -> bool:
        """The connection's socket has something for us, or room. True: answers came and nothing else."""
        link = self.current
        if link is None:
            return False
        if events & select.POLLOUT and link.wants_to_write:
            link.writable()
        if not events & ~select.POLLOUT or link.broken is not None:
            return False
        if not link.role.ours:
            link.broken = f"the connection to {link.name} has ended"
            return False
        return self._take_in(link, session, clock, receive=True) and events == select.POLLIN

    def catch_up(self, session: ClientSession | None, clock: Callable[[], float]) -> None:
        """Takes in what calling threads have read that is not for them."""
        link = self.link
        if link is not None and link.broken is None and (link.inbox or link.spoiled):
            link.catching_up = True
            try:
                self._take_in(link, session, clock, receive=False)
            finally:
                link.catching_up = False

    def _take_in(self, link: Link, session: ClientSession | None, clock: Callable[[], float], *, receive: bool) -> bool:
        """True: answers came and nothing else, on the connection in use, which goes on."""
        try:
            messages = link.read(receive=receive)
        except DThreadingError as error:
            if isinstance(error, ProtocolError) and link.name not in str(error):
                error = ProtocolError(f"{link.name} is no replica of ours: {error}")
            self._refused(link, session, error)
            return False
        now = clock()
        if link is self._dialing and link.welcome is not None and self._announced is None:
            self._welcomed(link, session, now)
        answers = link is self.link
        try:
            for message in messages:
                if type(message) is wire.Reply and session is not None:
                    session.step(message, now)
                else:
                    answers = False
                    self._step(link, session, message, now)
        except ProtocolError as error:
            self._refused(link, session, error)
        if link is self._dialing and session is not None and session.ready and link.broken is None:
            self._finder.succeeded()
            self.trouble = None
            self._dialing = None
            # A session that comes here in jeopardy is given time for a keepalive.
            self._give_up_at = now + self._attempt_s
            # From here on any thread writes there.
            self.link = link
        return answers and link.broken is None and not link.unsent and session is not None and not session.over

    def flush(self, clock: Callable[[], float]) -> None:
        """Writes what waits, or watches whoever is writing: a thread may never come back from there."""
        link = self.current
        if link is None or link.flush():
            self._held_up = None
            return
        now = clock()
        held_up = self._held_up
        if held_up is None or held_up[0] is not link or held_up[1] != link.written:
            self._held_up = (link, link.written, now)
        elif now - held_up[2] >= STUCK_S:
            link.broken = link.broken or "a thread did not come back from a write"

    def drop(self, session: ClientSession | None, now: float, why: str, *, failed: bool = True) -> None:
        """Gives the present connection up."""
        link = self.current
        if link is None:
            return
        logger.debug("the connection to %s ended: %s", link.name, why)
        was_used = self.link is not None
        self.link = self._dialing = self._held_up = None
        if session is not None:
            session.disconnected()
        if failed and not isinstance(self.trouble, NotAuthenticated | WrongGroup):
            self.trouble = GroupUnreachable(why)
        if not link.close():
            self._graves.append((now + GRAVE_S, link))
        if was_used:
            self._route.lost(now)
        if failed:
            self._failed(session, now)

    def close(self, *, forked: bool = False) -> None:
        """Closes every descriptor. `forked`: they are the parent's as well, who goes on with them."""
        for link in (self.link, self._dialing, *(link for _, link in self._graves)):
            if link is not None and (forked or not self._closed_in_time(link)):
                link.close(at_once=True)
        self.link = self._dialing = None

    @staticmethod
    def _closed_in_time(link: Link) -> bool:
        """Whoever is still at work there hears of its end, and is given a moment to come back."""
        until = time.monotonic() + LAST_S
        while not link.close():
            if time.monotonic() >= until:
                return False
            time.sleep(LAST_S / 100)
        return True

    def _look_after(self, link: Link, session: ClientSession | None, now: float) -> None:
        if session is None or session.over:
            link.flush_last()
            self.drop(session, now, "its session is over", failed=False)
        elif link.broken is not None:
            self.drop(session, now, link.broken)
        elif link.welcome is not None and session is not self._announced:
            # A call has asked for the next session already, and nobody would say Open for that one here.
            link.flush_last()
            self.drop(session, now, "its session was over", failed=False)
        elif link is self._dialing:
            if now >= self._give_up_at:
                self.drop(session, now, f"{link.name} did not answer within {self._attempt_s:g} s")
        elif session.state is State.JEOPARDY and now >= self._give_up_at:
            self.drop(session, now, f"{link.name} has acknowledged no keepalive for half a lease")
        elif self._route.should_move(link.name, link.peer, now):
            self.drop(session, now, "moving to the leader", failed=False)

    def _step(self, link: Link, session: ClientSession | None, message: wire.Message, now: float) -> None:
        match message:
            case wire.Leader(address=address):
                self._route.leads(address)
            case wire.Servers(addresses=addresses):
                self._route.told(addresses)
            case wire.MoveOn(reason=reason):
                link.broken = f"{link.name} sends its clients on: {reason}"
            case _ if session is not None:
                session.step(message, now)

    def _dial(self, session: ClientSession, now: float) -> None:
        try:
            found = self._finder.next(now)
            if found is None:
                return
            self._announced = None
            self._give_up_at = now + self._attempt_s
            self._dialing = self._connect(*found)
        except DThreadingError as error:
            self._trouble(session, error)
            self._failed(session, now)
        except OSError as error:
            why = f"connecting to {self._finder.name} failed: {error.strerror}{self._finder.hint}"
            self._trouble(session, GroupUnreachable(why))
            self._failed(session, now)

    def _failed(self, session: ClientSession | None, now: float) -> None:
        try:
            self._finder.failed(now)
        except DThreadingError as error:
            self._trouble(session, error)
            if session is not None:
                session.refuse(error)

    def _welcomed(self, link: Link, session: ClientSession | None, now: float) -> None:
        assert link.welcome is not None
        cluster = link.welcome.cluster
        if cluster and self.cluster and cluster != self.cluster:
            self._refused(
                link, session, WrongGroup(f"{link.name} belongs to the group {cluster}, this process to {self.cluster}")
            )
            return
        self.cluster = self.cluster or cluster
        self._route.told(link.welcome.servers)
        self._route.leads(link.welcome.leader)
        if session is not None and not session.over:
            self._announced = session
            session.connected(link.outbox, self._fresh(16), now)
            link.flush()

    def _refused(self, link: Link, session: ClientSession | None, error: DThreadingError) -> None:
        """The other end is not what we look for, or does not speak our language."""
        link.broken = str(error)
        if str(error) != str(self.trouble):  # which is tried again and again, until somebody mends it
            logger.warning("%s", error)
        if isinstance(error, ProtocolError) and link.welcome is not None:
            return
        self._trouble(session, error)

    def _trouble(self, session: ClientSession | None, error: DThreadingError) -> None:
        """What waiting cannot mend is told to those who wait, unless there is a session to save."""
        self.trouble = error
        if session is not None and isinstance(error, NotAuthenticated | WrongGroup | ProtocolError):
            session.refuse(error)

    def _bury(self, now: float) -> None:
        for _ in range(len(self._graves)):
            until, link = self._graves.popleft()
            if not link.close(at_once=now >= until):
                self._graves.append((until, link))
