# SPDX-License-Identifier: Apache-2.0
"""Who reads from a connection: the only home of the *read role*, which one thread has at a time.

The service thread has it first, and always when nobody calls. When calls come one at a time it leaves the role to the
callers, and lingers: a caller that has sent its call takes the role, sleeps in poll, reads its own answer, and leaves.
So an answer wakes one thread and not two, which is most of what a call costs. What a caller reads besides, it decodes
no further: it leaves the frames to the service thread, which alone steps the session.

The service thread takes the role back when a caller leaves while answers are on their way to others (it is woken for
that), when a caller has waited for long, and when no caller has read for `LINGER_S`. It looks that often, so a word
that got lost between callers costs that much and nothing else.

An exception may strike a caller at any step (Ctrl-C), and a call may be made inside any step of another one of the same
thread (a signal handler, `__del__`). Whoever is struck between taking bytes from the socket and the end of what is done
with them gives the whole connection up, as it is with writes: everything unanswered is said again on the next one.
"""

from __future__ import annotations

import select
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from dthreading.errors import ProtocolError
from dthreading.wire.codec import decode_undisturbed
from dthreading.wire.messages import Message, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from dthreading.link import Link
    from dthreading.session import ClientSession, PendingCall

__all__ = ["LINGER_S", "Keeper", "ReadRole", "give_up", "read_own", "step_aside", "tell"]

LINGER_S: Final = 0.05
"""How long the service thread leaves an idle connection to callers: a call within that long of the last is cheap, and
one wake-up more is paid after the last. Also how late it is heard, after a burst of calls, that the connection ended.
"""

READ_S: Final = 0.05
"""How long one call is waited for with the role. Who waits for longer would be woken for keepalives and others' answers
only: that is what the service thread is for."""

CROWD_S: Final = 0.05
"""How long the service thread keeps the role after callers were in each other's way, since to hand it over costs more.
Doubled each time that it was soon so again."""

CROWD_S_MAX: Final = 1.0
"""The most of that: a crowd may have gone for good."""

STUCK_S: Final = 1.0
"""After this a caller that has the role will not come back to it: the connection is given up. See `dialing`."""

_READABLE: Final = select.POLLIN


class ReadRole:
    """The right to read from one connection. Made in the service thread, which has it."""

    __slots__ = ("idle", "is_mine", "lock", "ours", "reader", "turns")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        """Never taken twice by one thread. An RLock since it knows its owner: a call inside another's turn asks it."""
        self.is_mine: Callable[[], bool] = self.lock._is_owned  # type: ignore[attr-defined]  # noqa: SLF001 - as Condition
        """Whether the calling thread has it, in a call that this one is inside of."""
        self.lock.acquire()
        self.ours = True
        """The service thread has it."""
        self.reader: PendingCall | None = None
        """Whose caller has it."""
        self.turns = 0
        """Counts callers' turns, so that one who looks sees whether there is progress."""
        self.idle: deque[select.poll] = deque()
        """For callers to sleep in; each is taken out for that, since a call may be made inside the sleep of another."""

    def take(self) -> bool:
        """The service thread takes it; False: a caller has it."""
        self.ours = self.ours or self.lock.acquire(blocking=False)
        return self.ours

    def leave(self) -> None:
        """The service thread leaves it to callers."""
        self.ours = False
        self.lock.release()


# --- a calling thread -----------------------------------------------------------------------------------------------


def read_own(
    link: Link, call: PendingCall, clock: Callable[[], float], wake: Callable[[], None], most_s: float
) -> bool:
    """Reads until there is news of `call`, or for `most_s` seconds (-1: for ever), or as long as one caller may.

    Args:
        link: the connection in use.
        call: whose caller this is.
        clock: seconds.
        wake: wakes the service thread.
        most_s: how long this may take.

    Returns:
        False: nothing was read, since another thread has the role or this call has had its time.

    """
    role = link.role
    if role.ours:
        return False
    if role.is_mine():
        step_aside(link, wake)
    if not call.sent:  # The service thread alone settles it, and would find nobody at the lock.
        return False
    now = clock()
    until = call.read_until
    if not until:
        until = call.read_until = now + READ_S
    if 0 <= most_s < until - now:
        until = now + most_s
    left = until - now
    if left <= 0:
        return False
    # From here on an interrupt makes `give_up` end the connection, unless `_leave` has put everything in order.
    call.reading = link
    if not role.lock.acquire(False):
        call.reading = None
        return False
    try:
        role.reader = call
        role.turns += 1
        _read(link, call, clock, wake, until, left)
    finally:
        _leave(link, call)
    session = call.session
    assert session is not None
    if link.broken is not None or not call.settled or (session.lent() > 1 and session.in_flight()):
        wake()
    return True


def _read(
    link: Link, call: PendingCall, clock: Callable[[], float], wake: Callable[[], None], until: float, left: float
) -> None:
    role = link.role
    parked_at = call.parked_at
    try:
        poll = role.idle.pop()
    except IndexError:
        descriptor = link.fileno()
        if descriptor < 0:
            return
        poll = select.poll()
        poll.register(descriptor, _READABLE)
    # An answer that came just before this turn has been read by whoever had the role. It is here, or in the service
    # thread's hands: then the lock is where to wait. (In this order: the frames are taken, then what they say is done.)
    if link.inbox or link.catching_up:
        call.read_until = -1.0
    while not call.settled and call.parked_at is parked_at and link.broken is None:
        if left <= 0 or call.read_until <= 0:
            return
        if poll.poll(left * 1000):
            call.taking = True
            if role.reader is not call:
                return
            _take(link, call, clock)
            call.taking = False
            if link.inbox or link.spoiled:
                wake()
            if call.settled:
                role.idle.append(poll)
                return
        left = until - clock()


def _take(link: Link, call: PendingCall, clock: Callable[[], float]) -> None:
    session = call.session
    assert session is not None
    for body in link.receive():
        try:
            message: Message | None = decode_undisturbed(body)
        except ProtocolError:
            message = None  # The service thread will meet it, too, and knows what to do.
        if type(message) is Reply:
            if session.answered(call, message, clock()):
                continue
            if call.lane is not None and (message.lane, message.number) == (call.lane.index, call.number):
                # Its own, and not to be taken here: the service thread will, and comes to the lock then.
                call.read_until = -1.0
        link.inbox.append(body)


def _leave(link: Link, call: PendingCall) -> None:
    """Nothing but the end of the connection may keep the role from others."""
    role = link.role
    cut_short = call.taking
    call.taking = True  # first: from here on a call inside of this one does not touch the role
    if role.is_mine():
        if cut_short:
            link.broken = link.broken or "reading was cut short"
        role.reader = None
        role.lock.release()
    call.taking = False
    call.reading = None


def step_aside(link: Link, wake: Callable[[], None]) -> None:
    """The calling thread is about to wait. If it reads, in a call that the present one is inside of, others shall."""
    if link.role.is_mine():
        pry(link)
        wake()


def pry(link: Link) -> None:
    """For a call inside the turn of another, on the same thread. The outer one cannot go on before this one is done, so
    it loses the role; if it is anywhere but asleep in poll, or nearly there, the connection is of no more use.
    """
    role = link.role
    outer = role.reader
    if outer is None or outer.taking:
        link.broken = link.broken or "a call was made inside the read of another, on the same thread"
    else:
        role.reader = None
        role.lock.release()


def give_up(call: PendingCall) -> bool:
    """The caller was interrupted and waits no more. True: that was in its turn, so the connection is given up."""
    link: Link | None = call.reading
    if link is None:
        return False
    link.broken = link.broken or "reading was cut short"
    call.reading = None
    return True


# --- the service thread ---------------------------------------------------------------------------------------------


def tell(news: list[PendingCall]) -> None:
    """Wakes those who wait for what the session has heard."""
    calls = news.copy()
    news.clear()
    for call in calls:
        if call.wake.locked():
            call.wake.release()


class Keeper:
    """Decides for the service thread whether it reads."""

    def __init__(self) -> None:
        self._answered_at = float("-inf")
        self._crowded_until = float("-inf")
        self._crowd_s = CROWD_S
        self._turns = 0
        self._since = float("-inf")
        """When callers' turns were last seen to go on."""

    def reads(self, link: Link, session: ClientSession | None, now: float) -> bool:
        """Whether the service thread is to read now. If not, it looks again at `look_at`."""
        role = link.role
        if role.ours:
            return True
        waiting = 0 if session is None else session.in_flight()
        if role.turns != self._turns:
            self._turns, self._since = role.turns, now
        if (waiting or now < self._crowded_until or now - self._since >= LINGER_S) and role.take():
            if waiting > 1:
                self.crowd(now)
            return True
        if now - self._since >= STUCK_S:
            link.broken = link.broken or "a thread did not come back from reading"
        return False

    def crowd(self, now: float) -> None:
        """Callers are in each other's way: one has read what others wait for, or leaves several waiting."""
        if now >= self._crowded_until:
            soon = now - self._crowded_until < self._crowd_s
            self._crowd_s = min(2 * self._crowd_s, CROWD_S_MAX) if soon else CROWD_S
            self._crowded_until = now + self._crowd_s

    def look_at(self, now: float) -> float:
        """When to look whether somebody reads."""
        due = self._since + LINGER_S
        return due if due > now else now + LINGER_S

    def answered(self, link: Link, session: ClientSession, now: float) -> None:
        """The service thread has read answers, and those who wait for them do not know it yet. If calls come one at a
        time, the next caller reads for itself.
        """
        role = link.role
        lively = now - self._answered_at < LINGER_S
        self._answered_at = now
        if not lively or not role.ours or now < self._crowded_until or session.in_flight():
            return
        role.leave()
        if session.in_flight():
            role.take()  # for a caller that has come in between and found us reading; or another one reads for it
        else:
            self._turns, self._since = role.turns, now
