# SPDX-License-Identifier: Apache-2.0
"""What the user hears of the session's state: the log, and `on_lost`. Each change is told once.

It runs code of the user's in the service thread (handlers of the logger), which has to go on whatever that raises.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from dthreading.config import Lost
from dthreading.session import ClientSession, State

if TYPE_CHECKING:
    from dthreading.config import Settings

__all__ = ["Reporter", "complain"]

logger = logging.getLogger("dthreading")

NAMES_MAX: Final = 8
"""Objects named in a log line; a client may use thousands."""

EXIT_LOST: Final = 70
"""The process's status with on_lost="exit" (EX_SOFTWARE of sysexits.h)."""

AGAIN_S: Final = 0.5
"""Between two tries to start the thread of `on_lost`, while the process may have no more of them."""


def complain() -> None:
    """Tells of the present error of the user's code as of one that ends its thread; but this thread goes on."""
    with contextlib.suppress(BaseException):
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


class Reporter:
    """Tells of one client's sessions."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: ClientSession | None = None
        self._known = State.NEW
        self._unheard: ClientSession | None = None
        self._silent_at = 0.0
        self._untold: deque[Lost] = deque()
        """Losses that `on_lost` has not been called with, since no thread could be started."""
        self.again_at = float("inf")
        """When `report_silence` tries that again."""

    def report(self, session: ClientSession) -> None:
        """Says what has become of the session, once for each change."""
        try:
            self._report(session)
        except BaseException:  # noqa: BLE001 - or the call that comes with these news would be lost
            complain()

    def warn(self, why: str) -> None:
        """Logs it."""
        try:
            logger.warning("%s", why)
        except BaseException:  # noqa: BLE001 - as above
            complain()

    def _report(self, session: ClientSession) -> None:
        state, known = session.state, self._known if session is self._session else State.NEW
        if state is known and session is self._session:
            return
        self._session, self._known = session, state
        if state is State.JEOPARDY:
            logger.warning(
                "session %d is in jeopardy: no replica has acknowledged a keepalive for half a lease (%g s)%s",
                session.id, self._settings.lease, self._in_use(session),
            )  # fmt: skip
        elif state is State.CONNECTED and known is State.JEOPARDY:
            logger.warning("session %d is safe again", session.id)
        elif state is State.LOST:
            try:
                logger.error(
                    "session %d is lost: %s; what it held may be another's by now%s",
                    session.id, session.why_over, self._in_use(session),
                )  # fmt: skip
            finally:
                self._tell_lost(Lost(session.id, session.why_over))

    def report_silence(self, session: ClientSession, now: float, trouble: Exception | None) -> None:
        """Says once that nobody has opened the session for a whole lease: who waits for ever should know what for."""
        if now >= self.again_at:
            self._call_untold(now + AGAIN_S)
        if session is not self._unheard:
            self._unheard, self._silent_at = session, now + self._settings.lease
        elif not session.id and not session.over and now >= self._silent_at:
            self._silent_at = float("inf")
            logger.warning(
                "no replica has answered for a whole lease (%g s), and whatever may wait goes on waiting%s",
                self._settings.lease, f": {trouble}" if trouble is not None else "",
            )  # fmt: skip

    def _in_use(self, session: ClientSession) -> str:
        names = [repr(target) for target in list(session.handles)]
        more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
        return f"; in use: {', '.join(names[:NAMES_MAX])}{more}" if names else ""

    def _tell_lost(self, lost: Lost) -> None:
        match self._settings.on_lost:
            case None:
                pass
            case "interrupt":
                # A real signal: `_thread.interrupt_main` leaves the main thread asleep where it sleeps.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            case "exit":
                logger.error("this process ends, as on_lost='exit' says")
                os._exit(EXIT_LOST)
            case call:
                assert callable(call)
                self._untold.append(lost)
                self._call_untold(0.0)

    def _call_untold(self, again_at: float) -> None:
        """Calls `on_lost` in a thread of its own: it may use locks, which need this one."""
        call: Any = self._settings.on_lost
        self.again_at = again_at
        while self._untold:
            try:
                threading.Thread(target=call, args=(self._untold[0],), name="dthreading-on-lost", daemon=True).start()
            except RuntimeError:  # too many threads
                return
            self._untold.popleft()
        self.again_at = float("inf")
