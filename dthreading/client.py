# SPDX-License-Identifier: Apache-2.0
"""How a call is made, waited for and given up. What that takes from the system (the service thread, the socket) lives
in `service`, `dialing` and `link`.

A calling thread encodes its call, writes it to the socket itself, and sleeps until its answer is there. No step on this
way takes a lock that another call of the same thread might hold (signal handlers, `__del__`), and none makes a `Thread`
object. Whatever exception ends a wait undoes the call, Ctrl-C above all.
"""

from __future__ import annotations

import _thread
import functools
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from dthreading import reading
from dthreading.dialing import STUCK_S
from dthreading.errors import DThreadingError, GroupUnreachable, LockLost, ObjectGone, OutcomeUnknown, from_wire
from dthreading.service import Service
from dthreading.session import (
    Answer,
    Deadline,
    Fate,
    Manner,
    OnLost,
    PendingCall,
    State,
    Target,
    when_late,
    when_lost,
)
from dthreading.wire.messages import Status
from dthreading.wire.places import readable

if TYPE_CHECKING:
    from collections.abc import Callable

    from dthreading.config import Settings

__all__ = ["TIMEOUT_MAX", "Client"]

TIMEOUT_MAX: Final = _thread.TIMEOUT_MAX
EXIT_S: Final = 1.0
"""The most that the end of the process waits for its last words to leave."""

CLOSED: Final = "this client was closed"

_finalizing = sys.is_finalizing
_get_ident = _thread.get_ident
_allocate_lock = _thread.allocate_lock


class Client:
    """One process's connection to one group. `runtime.client()` gives it; nothing is opened before the first call."""

    def __init__(self, settings: Settings, *, threaded: bool = True) -> None:
        self.settings = settings
        self.closed = False
        """Whether `close` was called: this client is of no more use."""
        self._clock = _clock_for(settings)
        self._service = Service(settings, _label(), self._clock, threaded=threaded)
        self._inner: Client | None = None
        """For calls made inside the service thread while it is at work: see `_inside`."""

    def call(
        self,
        target: Target,
        operation: str,
        arguments: tuple[Any, ...],
        manner: Manner,
        timeout: float | None = None,
        *,
        others: tuple[Target, ...] = (),
        kept: Callable[[Answer], object] | None = None,
    ) -> Answer:
        """One operation, once. Returns its answer, or raises what it raised.

        Args:
            target: attached on first use in each session.
            operation: its name on the wire.
            arguments: plain values. Where the handle of another object belongs, the `Target` itself stands, and it is
                named in `others` as well.
            manner: one of the constants of `dthreading.session`.
            timeout: how long it may wait in the replicated state; None is for ever.
            others: targets among the arguments.
            kept: called with the answer when the wait was interrupted and its verdict was waited for all the same
                (`manner.interrupt_keeps`); the interrupt is raised after that.

        Returns:
            The replica's answer. Where time runs out: the verdict of the object (False, or the error it answers a
            withdrawn call with); Answer(False, 0) when there is none and `manner.patience` allows to go without.

        """
        service = self._service
        if (service.ident == _get_ident() or service.starting) and service.is_served_here():
            if manner.silent and not others:
                return self._say(target, operation, arguments, manner)
            stand_in = self._stand_in()
            if stand_in is not self:
                return stand_in.call(target, operation, arguments, manner, timeout, others=others, kept=kept)
        deadline = None if timeout is None and manner.parks else self._deadline(manner, timeout)
        while True:
            if self.closed or _finalizing():
                raise GroupUnreachable("the interpreter is shutting down" if _finalizing() else CLOSED)
            wake = _allocate_lock()
            wake.acquire()
            call = PendingCall(target, operation, arguments, manner, others, tell=timeout is not None, wake=wake)
            try:
                self._begin(call)
                if not self._wait(call, deadline) and not self._verdict(call, deadline):
                    return _WITHOUT
                session = call.session
                if call.status == _OK and not call.lost and session is not None and call.lane is not None:
                    answer = _answer((call.value, session.id))
                    session.finish(call)
                    return answer
                failure = self._failure(call, deadline)
                if failure is None:
                    return _WITHOUT
            except BaseException:
                self._service.interrupted(call)
                if manner.interrupt_keeps:
                    self._keep(call, kept)
                else:
                    self._service.abandon(call)
                raise
            if failure is not _AGAIN:
                raise failure

    def holds_are_valid(self, session: int) -> bool:
        """False once that session is lost by our own clock, and then for ever."""
        present = self._service.session
        if present is not None and present.id == session:
            return present.holds(self._clock())
        return self._inner is not None and self._inner.holds_are_valid(session)

    def detach(self, target: Target) -> None:
        """Nobody uses this target any more. Safe from `__del__` and finalizers: enqueues, nothing else."""
        self._service.detach(target)
        if self._inner is not None:
            self._inner.detach(target)

    @property
    def state(self) -> State:
        """What is known of the session."""
        session = self._service.session
        if session is None:
            return State.NEW
        if session.id and not session.over and not session.holds(self._clock()):
            return State.LOST
        return session.state

    @property
    def session(self) -> int:
        """The id of the session; 0 before there is one."""
        session = self._service.session
        return 0 if session is None else session.id

    @property
    def cluster(self) -> str:
        """The id of the group; connects to find out.

        Raises:
            GroupUnreachable: no replica answered for one lease.

        """
        service = self._service
        if not service.dialer.cluster:
            opened = _thread.allocate_lock()
            opened.acquire()
            service.when_open(opened)
            if not opened.acquire(True, self.settings.lease):
                raise self._unreachable("connect")
        return service.dialer.cluster

    def close(self) -> None:
        """Ends the session, gives back all that it held, and stops. What still waits raises GroupUnreachable."""
        self.closed = True
        self._service.stop()
        if self._inner is not None:
            self._inner.close()

    # --- calls inside the service thread: the collector has run a finalizer there, or a handler of the logger uses a
    # queue of ours. Nobody would read the answer.

    def _say(self, target: Target, operation: str, arguments: tuple[Any, ...], manner: Manner) -> Answer:
        """What has nothing to answer is sent and not waited for."""
        call = PendingCall(target, operation, arguments, manner)
        call.unwaited = True
        session = self._service.session
        if session is None or not session.begin(call):
            self._service.submit(call)
        self._service.wake()
        return Answer(None, self.session)

    def _stand_in(self) -> Client:
        """All else goes through a session and connection of its own, which this very thread serves while it waits."""
        client = self
        while client._service.turning or client._service.starting:
            if client._inner is None:
                client._inner = Client(self.settings, threaded=False)
                client._service.aside = client._inner.look_after
            client = client._inner
        return client

    def look_after(self) -> None:
        """Keeps a session alive that no thread serves."""
        if not self._service.turning:
            self._service.turn(0.0)
        if self._inner is not None:
            self._inner.look_after()

    def _sleep(self, call: PendingCall, most_s: float) -> None:
        """Until there is news of `call`, or for `most_s` seconds (-1: for ever)."""
        service = self._service
        link = service.dialer.link
        if service.ident == _get_ident() or not service.threaded:
            service.turn(most_s if most_s >= 0 else float("inf"))
        elif link is None or not reading.read_own(link, call, self._clock, service.wake, most_s):
            call.wake.acquire(True, most_s)

    # --- the parts of a call ---

    def _begin(self, call: PendingCall) -> None:
        service = self._service
        session = service.session
        if session is None or not session.begin(call):
            service.submit(call)
            return
        link = service.dialer.link
        if link is None:
            return
        written = link.written
        if not link.flush() and link.broken is None:
            reading.step_aside(link, service.wake)
            if not call.wake.acquire(True, STUCK_S):
                link.check_stuck(written)
        if link.broken is not None or link.unsent:
            service.wake()

    def _failure(self, call: PendingCall, deadline: Deadline | None) -> Exception | None:
        """What became of `call` where nothing was granted: what to raise, or _AGAIN; None: it has waited in vain."""
        if call.lost:
            return self._lost(call, deadline)
        if call.error is not None:
            return call.error
        if call.status == _ERROR:
            failure = from_wire(*call.value)
            if call.session is not None and call.lane is not None:
                call.session.finish(call)
            if type(failure) is ObjectGone and call.target.name not in str(failure):
                return ObjectGone(f"{call.target}: {failure}")  # a deleted object has no name any more, but ours has
            return failure
        return None

    def _wait(self, call: PendingCall, deadline: Deadline | None) -> bool:
        """Until `call` is settled; False when its time is up before."""
        if deadline is None:
            while not call.settled:
                self._sleep(call, -1)
            return True
        while not call.settled:
            left = deadline.at(call) - self._clock()
            if left <= 0:
                return False
            self._sleep(call, min(left, TIMEOUT_MAX))
        return True

    def _verdict(self, call: PendingCall, deadline: Deadline | None) -> bool:
        """The call's time is up. False: nobody says anything, and this manner of call goes without a verdict."""
        assert deadline is not None
        match when_late(call):
            case Fate.UNREACHABLE:
                raise self._unreachable(f"{call.operation} of {call.target}")
            case Fate.LEAVE:
                self._service.abandon(call)
                return False
        self._service.withdraw(call)
        until = self._clock() + deadline.patience if call.manner.patience else float("inf")
        while not call.settled:
            left = until - self._clock()
            if left <= 0:
                self._service.abandon(call)
                return False
            self._sleep(call, min(left, TIMEOUT_MAX))
        return True

    def _lost(self, call: PendingCall, deadline: Deadline | None) -> Exception | None:
        """The session ended before the call did."""
        assert call.session is not None or not call.sent
        fate = when_lost(call, late=deadline is not None and self._clock() >= deadline.at(call))
        if fate is Fate.LOST:
            return self._loss(call)
        if self.closed:
            return GroupUnreachable(CLOSED)
        if fate is Fate.AGAIN:
            return _AGAIN
        if fate is Fate.UNREACHABLE:
            return self._unreachable(f"{call.operation} of {call.target}")
        return from_wire(call.manner.expired, "") if call.manner.expired else None

    def _loss(self, call: PendingCall) -> Exception:
        why = call.session.why_over if call.session is not None else "it ended"
        match call.manner.on_lost:
            case OnLost.LOCK_LOST:
                return LockLost(f"{call.operation} of {call.target}: the session is lost: {why}")
            case OnLost.BROKEN:
                return from_wire("broken", "")
        return OutcomeUnknown(
            f"{call.operation} of {call.target} may have happened, once, or not at all: session lost: {why}"
        )

    def _keep(self, call: PendingCall, kept: Callable[[Answer], object] | None) -> None:
        """Interrupted, and not to be left before the verdict: the lock is held again then. Further interrupts wait."""
        while not call.settled:
            try:
                self._service.withdraw(call)
                self._wait(call, None)
            except BaseException:  # noqa: BLE001, S112 - whatever it is, the first one is raised in the end
                continue
        if call.lost or call.error is not None or call.status == _ERROR or call.finished or not call.sent:
            return
        assert call.session is not None
        answer = Answer(call.value, call.session.id)
        call.session.finish(call)
        if kept is not None:
            kept(answer)

    def _deadline(self, manner: Manner, timeout: float | None) -> Deadline:
        if manner.parks:
            assert timeout is not None
            return Deadline(timeout, self.settings.patience, self._clock())
        return Deadline(self.settings.lease, 0.0, self._clock())

    def _unreachable(self, what: str) -> GroupUnreachable:
        trouble = self._service.dialer.trouble
        if trouble is not None and not isinstance(trouble, GroupUnreachable):
            what = f"{what} ({type(trouble).__name__})"
        reason = f": {trouble}" if trouble is not None else ""
        return GroupUnreachable(f"{what}: no replica answered for one lease ({self.settings.lease:g} s){reason}")

    # --- fork and exit ---

    def say_goodbye(self) -> None:
        """From here on the end of the process is the end of the session: at once, not one lease later."""
        self._service.say_goodbye(EXIT_S)

    def after_fork(self) -> None:
        """In the child: the connection is the parent's, and so is all that was asked there."""
        self.closed = True
        self._service.after_fork(OutcomeUnknown("asked before a fork, which leaves the answer to the parent"))
        if self._inner is not None:
            self._inner.after_fork()


_AGAIN: Final = DThreadingError("to be asked again in a new session")
_WITHOUT: Final = Answer(False, 0)
"""Its time is up, or it was withdrawn before it was sent."""

_OK: Final = int(Status.OK)
_ERROR: Final = int(Status.ERROR)
_answer: Final = functools.partial(tuple.__new__, Answer)
"""`Answer` of a pair of both: the class itself would do the same in Python."""


def _clock_for(settings: Settings) -> Callable[[], float]:
    """Between machines, one that goes on while this one is suspended: the leader's does. On one host, the one that
    stops for both.
    """
    local = all(server.startswith("unix:") for server in settings.servers)
    if not local and hasattr(time, "CLOCK_BOOTTIME"):
        return functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    return time.monotonic


def _label() -> str:
    script = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""  # noqa: PTH119 - as it was typed
    return readable(f"{script or 'python'} {socket.gethostname()}:{os.getpid()}"[:200])
