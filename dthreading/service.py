# SPDX-License-Identifier: Apache-2.0
"""The thread behind a client: it reconnects, keeps the lease alive, decides that it is lost, and reads where no calling
thread does (see `reading`). One per process.

Everything that is said to it comes through containers whose single operations are atomic in C, and a wake-up;
everything it says goes out through a `Link`, and to a waiter by the release of that waiter's raw lock. It sleeps until
the next deadline: an idle client wakes for its keepalives only. All that decides is in `session`, `route` and
`reading`.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import random
import select
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from dthreading import reading, waking
from dthreading.dialing import Dialer
from dthreading.errors import GroupUnreachable
from dthreading.finding import Finder
from dthreading.reporting import Reporter, complain
from dthreading.session import ClientSession, PendingCall, Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from dthreading.config import Settings

__all__ = ["Service"]

logger = logging.getLogger("dthreading")

FAILURE_PAUSE_S: Final = 0.1
"""After an error of ours in the service thread, which is logged: it must not spin."""

ASIDE_PER_LEASE: Final = 8
"""How often in a lease to look after another service in this thread: three times for each of its keepalives."""

_NEVER: Final = float("inf")

STOP_S: Final = 2.0
"""How long to wait for the service thread's end. It never blocks, so this is for a machine that is out of breath."""


class Service:
    """One client's connection to its group, and the thread that serves it once `start` was called.

    Args:
        settings: where the group is, and the lease to ask for.
        label: says to people who this is.
        clock: seconds; the one that counts what it has to count (see `runtime`).

    """

    def __init__(self, settings: Settings, label: str, clock: Callable[[], float], *, threaded: bool = True) -> None:
        self.session: ClientSession | None = None
        """The present one. Any thread may read it, and call what any thread may call."""
        self.closing = False
        """Nothing new is asked."""
        self.stopped = False
        """The thread does nothing more."""
        self.threaded = threaded
        """False: whoever makes calls serves them by `turn`."""
        self.ident = 0
        """The thread that serves; 0: none yet, or no more. (The system gives numbers of ended threads out again.)"""
        self.starting: list[threading.Thread] = []
        """Threads on their way to their first line: the collector may run finalizers there before it."""
        self.turning = False
        """Whether that thread is inside `turn`, so that nothing that runs there now may enter it."""
        self.aside: Callable[[], None] | None = None
        """Called once a turn, where another service shares this thread (see `Client`)."""
        self._settings = settings
        self._label = label
        self._clock = clock
        self.dialer = Dialer(Finder(settings, random.random, self.wake), settings.lease)
        self._requests: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._detached: deque[Target] = deque()
        self._reporter = Reporter(settings)
        self._keeper = reading.Keeper()
        self._woken = False
        self._wake_read = self._wake_write = -1
        self._news: list[PendingCall] = []
        self._opened: deque[Any] = deque()
        """Locks of threads that wait for any session at all."""
        self._ended = _thread.allocate_lock()
        self._ended.acquire()
        self._started = False
        self._claim = [None]
        """Whoever takes it serves."""

    # --- any thread ---

    def start(self) -> None:
        """Starts the thread unless it runs already. Interrupted, or by two callers at once, it may start two: the first
        to come serves, and the other ends.
        """
        if self._started or not self.threaded:
            return
        thread = threading.Thread(target=self._run, name="dthreading-client", daemon=True)
        self.starting.append(thread)
        try:
            thread.start()
        except RuntimeError:
            self.starting.remove(thread)
            raise
        self._started = True

    def is_served_here(self) -> bool:
        """Whether the calling thread is the one that serves, or about to be."""
        me = _thread.get_ident()
        return me == self.ident or (bool(self.starting) and me in [thread.ident for thread in self.starting])

    def wake(self) -> None:
        """The thread shall look."""
        if not self._woken:
            try:
                self._woken = True
                os.write(self._wake_write, b"!")
            except OSError:
                pass  # Not there yet, or no more: there is nobody to wake. Full: it will wake.
            except BaseException:
                self._woken = False  # or nobody else would wake it
                raise

    def submit(self, call: PendingCall) -> None:
        """Begin this call."""
        self._ask(self._submit, call)

    def interrupted(self, call: PendingCall) -> None:
        """Its caller was struck by an exception, at any step."""
        if reading.give_up(call):
            self.wake()

    def withdraw(self, call: PendingCall) -> None:
        """Its time is up; its caller waits for the verdict."""
        self._ask(self._withdraw, call)

    def abandon(self, call: PendingCall) -> None:
        """Its caller has gone."""
        call.abandoned = True
        if call.session is not None:
            # At once, before the caller's next call borrows this very lane.
            call.session.reclaim(call)
        self._ask(self._abandon, call)

    def detach(self, target: Target) -> None:
        """From finalizers: noted for the next turn, without waking anybody."""
        session = self.session
        if session is not None and target in session.handles:
            self._detached.append(target)

    def when_open(self, lock: Any) -> None:
        """Release `lock` once there is a session."""
        self._ask(self._open, lock)

    def _ask(self, action: Callable[[Any], None], argument: Any) -> None:
        self._requests.append((action, argument))
        self.start()
        self.wake()

    # --- the service thread ---

    def _run(self) -> None:
        self.starting.remove(threading.current_thread())
        try:
            self._claim.pop()
        except IndexError:
            return
        self.ident = _thread.get_ident()
        self._wake_read, self._wake_write = waking.pipe(self, self._cannot_begin)
        try:
            while not self.stopped:
                try:
                    self._turn_safely()
                except BaseException:  # noqa: BLE001 - a handler of the logger has failed here, too
                    complain()
        finally:
            self.ident = 0
            self._ended.release()

    def _cannot_begin(self, why: str) -> None:
        if self.dialer.trouble is None:
            self._reporter.warn(why)
        self.dialer.trouble = GroupUnreachable(why)

    def _turn_safely(self) -> None:
        try:
            self.turn()
            if self.aside is not None:
                self.aside()
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a handler, too: nobody else would serve
            try:
                logger.exception("an error in the client's service thread; it goes on with a new connection")
            finally:
                self.dialer.drop(self.session, self._clock(), f"{type(error).__name__} in the service thread")
                select.select((), (), (), FAILURE_PAUSE_S)

    def turn(self, most_s: float = _NEVER) -> None:
        """Does all that is to be done now, then sleeps until something comes or is due, and takes in what came.

        Args:
            most_s: how long to sleep at most.

        """
        self.turning = True
        try:
            self._turn(most_s)
        finally:
            self.turning = False

    def _turn(self, most_s: float) -> None:
        now = self._clock()
        self._woken = False
        self._obey(now)
        session = self.session
        known = len(self._news)
        self.dialer.catch_up(session, self._clock)
        if len(self._news) > known:
            self._keeper.crowd(now)
        if session is not None:
            session.tick(now)
            self._reporter.report(session)
            self._reporter.report_silence(session, now, self.dialer.trouble)
        self.dialer.tend(session, now)
        self._pass_on(session)
        if self.stopped:
            return
        poll = select.poll()
        if self._wake_read >= 0:
            poll.register(self._wake_read, select.POLLIN)
        link = self.dialer.current
        if link is not None:
            reads = self._keeper.reads(link, session, now)
            if not reads:
                most_s = min(most_s, self._keeper.look_at(now) - now)
            events = (select.POLLIN if reads else 0) | (select.POLLOUT if link.wants_to_write else 0)
            if events:
                poll.register(link, events)
        self._listen(poll, session, now, self._due(session, now, most_s))

    def _listen(self, poll: select.poll, session: ClientSession | None, now: float, due: float) -> None:
        """Sleeps until something comes or is due, and takes it in; goes on with that while nothing but answers comes,
        which changes nothing that a turn looks at.
        """
        link = self.dialer.current
        answers = True
        while answers:
            # Rounded up: waking a moment early would mean to sleep for nothing again.
            ready = poll.poll(None if due == _NEVER else max(0, int((due - now) * 1000) + 1))
            answers = len(ready) == 1 and self.threaded
            for descriptor, events in ready:
                if descriptor == self._wake_read:
                    os.read(self._wake_read, 4096)
                    answers = False
                    continue
                answers = self.dialer.serve(session, events, self._clock) and answers
                if self._news and link is not None and session is not None and self.threaded:
                    self._keeper.answered(link, session, now)
                    answers = answers and link.role.ours
            reading.tell(self._news)
            now = self._clock()
            answers = answers and now < due and not self._requests
        self._pass_on(session)

    def _due(self, session: ClientSession | None, now: float, most_s: float) -> float:
        """When to stop listening."""
        link = self.dialer.current
        if self._requests or (link is not None and (link.broken is not None or link.inbox)):
            return 0.0
        due = min(now + most_s, self.dialer.next_at(session), self._reporter.again_at)
        if session is not None:
            due = min(due, session.next_at(now))
        if self.aside is not None:
            due = min(due, now + self._settings.lease / ASIDE_PER_LEASE)
        return due

    def _pass_on(self, session: ClientSession | None) -> None:
        """What the session has to say goes to the socket, what it has heard to those who wait for it."""
        self.dialer.flush(self._clock)
        reading.tell(self._news)
        if self._opened and session is not None and session.id:
            while self._opened:
                self._opened.popleft().release()

    def _obey(self, now: float) -> None:
        asked = bool(self._requests)
        while self._requests:
            action, argument = self._requests.popleft()
            action(argument)
        session = self.session
        # With other words or a keepalive, never because this thread looks who reads: a child that was just forked has
        # to attach what its parent lets go of, and is given time.
        while self._detached and (asked or session is None or now >= session.next_at(now)):
            target = self._detached.popleft()
            if session is not None and not session.over:
                session.detach(target)

    def _submit(self, call: PendingCall) -> None:
        self._living_session().submit(call)

    def _open(self, lock: Any) -> None:
        self._living_session()
        self._opened.append(lock)

    def _living_session(self) -> ClientSession:
        """The present session, or a new one: after a loss the next call opens it."""
        session = self.session
        if session is None or (session.over and not self.closing):
            if session is not None:
                self._reporter.report(session)
            settings = self._settings
            ttl_ms = int(settings.lease * 1000)
            session = ClientSession(namespace=settings.namespace, label=self._label, ttl_ms=ttl_ms, news=self._news)
            self.session = session
        return session

    def _withdraw(self, call: PendingCall) -> None:
        session = self._session_of(call)
        if session is not None:
            session.withdraw(call, call.manner.expired)
        elif not call.settled:
            # Interrupted before it was even asked.
            call.abandoned = call.settled = True
            self._news.append(call)

    def _abandon(self, call: PendingCall) -> None:
        session = self._session_of(call)
        if session is not None:
            session.abandon(call)

    def _session_of(self, call: PendingCall) -> ClientSession | None:
        return call.session if call.session is not None else self.session

    # --- the end ---

    def stop(self) -> None:
        """Closes the session and ends the thread; waits for that, but not for a group that does not answer."""
        if self.closing:
            return
        self.closing = True
        if not self.threaded:
            self._ask(self._close, None)
            self.turn(0.0)
            self.dialer.close()
        elif self._claim:
            # Nobody serves; nor will anybody, once it is taken.
            with contextlib.suppress(IndexError):
                self._claim.pop()
        else:
            self._ask(self._close, None)
            if self._ended.acquire(True, STOP_S):
                self.dialer.close()

    def say_goodbye(self, most_s: float) -> None:
        """Declares that the end of the connection is the end of the session; waits for the words to leave."""
        if self.closing or not self._is_up():
            return
        said = _thread.allocate_lock()
        said.acquire()
        self._ask(self._say_goodbye, said)
        said.acquire(True, most_s)
        until = self._clock() + most_s
        while (link := self.dialer.link) is not None and (link.outbox or link.unsent) and self._clock() < until:
            self.wake()
            said.acquire(True, most_s / 100)

    def after_fork(self, error: Exception) -> None:
        """In the child of a fork, where the thread never was: lets go of the parent's descriptors."""
        self.closing = self.stopped = True
        self.dialer.close(forked=True)
        session = self.session
        for call in session.pending if session is not None else ():
            call.error, call.settled = error, True
            if call.wake.locked():
                call.wake.release()

    def _is_up(self) -> bool:
        session = self.session
        return session is not None and session.ready

    def _close(self, _: None) -> None:
        self.stopped = True
        session = self.session
        if session is not None and not session.over:
            session.close()

    def _say_goodbye(self, said: Any) -> None:
        session = self.session
        if session is not None and not session.over:
            session.close_at_end()
            link = self.dialer.link
            if link is not None:
                link.flush_last()
        said.release()
