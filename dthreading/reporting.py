# SPDX-License-Identifier: Apache-2.0
"""What the user hears of the session's state: the log, and `on_lost`. Each change is told once."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Final

from dthreading.config import Lost
from dthreading.session import ClientSession, State

if TYPE_CHECKING:
    from dthreading.config import Settings

__all__ = ["Reporter"]

logger = logging.getLogger("dthreading")

NAMES_MAX: Final = 8
"""Objects named in a log line; a client may use thousands."""

EXIT_LOST: Final = 70
"""The process's status with on_lost="exit" (EX_SOFTWARE of sysexits.h)."""


class Reporter:
    """Tells of one client's sessions."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: ClientSession | None = None
        self._known = State.NEW
        self._unheard: ClientSession | None = None
        self._silent_at = 0.0

    def report(self, session: ClientSession) -> None:
        """Says what has become of the session, once for each change."""
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
            logger.error(
                "session %d is lost: %s; what it held may be another's by now%s",
                session.id, session.why_over, self._in_use(session),
            )  # fmt: skip
            self._tell_lost(Lost(session.id, session.why_over))

    def report_silence(self, session: ClientSession, now: float, trouble: Exception | None) -> None:
        """Says once that nobody has opened the session for a whole lease: who waits for ever should know what for."""
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
                # In a thread of its own: it may use locks, which need this one.
                threading.Thread(target=call, args=(lost,), name="dthreading-on-lost", daemon=True).start()
