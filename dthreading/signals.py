# SPDX-License-Identifier: Apache-2.0
"""Semaphore, BoundedSemaphore, Event and Barrier: what threads signal to each other with, and nobody owns."""

from __future__ import annotations

import logging
import operator
import threading as _threading
import warnings
from typing import TYPE_CHECKING, ClassVar

from dthreading import runtime
from dthreading.entering import STRIKES_MAX, Entered
from dthreading.errors import LockLost
from dthreading.holds import generation
from dthreading.proxy import Proxy, timeout_in_seconds
from dthreading.session.calls import (
    ACQUIRE,
    CHANGE,
    READ,
    TRY_ACQUIRE,
    WAIT_BARRIER,
    WAIT_EVENT,
    Answer,
    Manner,
    OnLost,
)
from dthreading.taking import Taking

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Barrier", "BoundedSemaphore", "Event", "Semaphore"]

logger = logging.getLogger("dthreading")

_NOT_YET = Answer(None, 0)

CHANGE_IN_TURN = Manner(parks=True, on_lost=OnLost.UNKNOWN)
"""Barrier.abort and reset: they wait for the end of an action that runs."""


class Semaphore(Taking, Entered):
    """`threading.Semaphore` for all processes that use the group.

    Permits that a process had when it died return, unless the semaphore counts things: once any process has released
    more than it acquired, nothing returns by itself.

    Args:
        value: how many permits there are at first.
        name: as for `Lock`.

    """

    __module__ = "dthreading"
    _proxy_kind: ClassVar = "Semaphore"
    _proxy_probe = ("value", ())
    _acquired_in: int | None = None
    """In which generation of forked processes a permit was taken last."""

    def __init__(self, value: int = 1, *, name: str | None = None) -> None:
        if value < 0:
            raise ValueError("semaphore initial value must be >= 0")
        self._proxy_init(name, operator.index(value) + 0)

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take a permit: True once there is one; False when it may not, or no longer, wait."""
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        seconds = timeout_in_seconds(timeout)
        waits = bool(blocking) and seconds != 0
        answer = _NOT_YET
        try:
            arguments = (waits, runtime.thread_token())
            answer = self._ask("acquire", arguments, ACQUIRE if waits else TRY_ACQUIRE, seconds)
            if answer.value is True:
                self._proxy_taken.note(answer.session)
                self._acquired_in = generation()
            return answer.value is True
        except BaseException:
            if answer.value is True:
                self._give_back(lambda: Semaphore.release(self))
            raise

    def _check_entered(self) -> None:
        if self._acquired_in not in {None, generation()}:
            # A forked child comes to the end of its parent's `with`: to release would give a permit that is still used.
            raise LockLost(f"{self._proxy_target}: this process was forked, and left the permit to its parent")

    def release(self, n: int = 1) -> None:
        """Give `n` permits, and let in as many of those who wait, in the order they came.

        Raises:
            LockLost: the session in which they were taken is over, and they went back with it. Nothing was given, or
                of several only those that were not lost.
            OutcomeUnknown: the session ended on the way; they were given once or not at all.

        """
        if n < 1:
            raise ValueError("n must be one or more")
        with self._proxy_giving(operator.index(n)) as parts:
            while parts:
                taken_in, count = parts[0]
                self._ask("release", (count, taken_in) if taken_in else (count,), CHANGE)
                parts.popleft()

    @property
    def _value(self) -> int:
        """How many permits are free: private in `threading`, and read everywhere."""
        return int(self._ask("value", (), READ).value)

    def _shown_value(self) -> str:
        value = self._peek("value")
        return "unknown" if value is None else str(value)

    def __repr__(self) -> str:
        cls = type(self)
        return f"<{cls.__module__}.{cls.__qualname__} {self._proxy_place()}: value={self._shown_value()}>"


class BoundedSemaphore(Semaphore):
    """`threading.BoundedSemaphore`: a release too many is a ValueError, and changes nothing."""

    __module__ = "dthreading"
    _proxy_kind: ClassVar = "BoundedSemaphore"

    @property
    def _initial_value(self) -> int:
        return int(self._proxy_target.arguments[0])

    def _shown_value(self) -> str:
        return f"{super()._shown_value()}/{self._initial_value}"


class Event(Proxy):
    """`threading.Event` for all processes that use the group.

    is_set() asks the group each time: a loop `while not stop.is_set()` makes a round trip a turn.

    Args:
        name: as for `Lock`.

    """

    __module__ = "dthreading"
    _proxy_kind: ClassVar = "Event"
    _proxy_probe = ("is_set", ())

    def __init__(self, *, name: str | None = None) -> None:
        self._proxy_init(name)

    def is_set(self) -> bool:
        """Whether the flag is up."""
        return bool(self._ask("is_set", (), READ).value)

    def isSet(self) -> bool:  # noqa: N802 - the standard library's
        """Deprecated: `is_set`."""
        warnings.warn("isSet() is deprecated, use is_set() instead", DeprecationWarning, stacklevel=2)
        return self.is_set()

    def set(self) -> None:
        """Raise the flag. Whoever waits at this moment is let go, also when it is lowered at once."""
        self._ask("set", (), CHANGE)

    def clear(self) -> None:
        """Lower the flag."""
        self._ask("clear", (), CHANGE)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the flag is up: True then, False when the time has run out."""
        seconds = timeout_in_seconds(timeout)
        if seconds == 0:
            return self.is_set()
        return self._ask("wait", (runtime.thread_token(),), WAIT_EVENT, seconds).value is True

    def __repr__(self) -> str:
        up = self._peek("is_set")
        state = "unknown" if up is None else "set" if up else "unset"
        cls = type(self)
        return f"<{cls.__module__}.{cls.__qualname__} {self._proxy_place()}: {state}>"


def _refuses_no_parties() -> bool:
    """Whether this Python's own Barrier refuses zero parties: later ones do."""
    try:
        _threading.Barrier(0)
    except ValueError:
        return True
    return False


class Barrier(Proxy):
    """`threading.Barrier` for all processes that use the group.

    The end of a process that waits at it breaks it. Of those who brought an action the last to come runs it, in its own
    process, and the others wait until it has ended; if it fails, or its process dies, the barrier breaks.

    Args:
        parties: how many must come.
        action: called by one of them when all have come, before any goes on.
        timeout: what wait() waits by default.
        name: as for `Lock`.

    """

    __module__ = "dthreading"
    _proxy_kind: ClassVar = "Barrier"
    _proxy_probe = ("state", ())

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        name: str | None = None,
    ) -> None:
        if parties < 1 and _refuses_no_parties():
            raise ValueError("parties must be > 0")
        self._proxy_init(name, operator.index(parties) + 0)
        self._action = action
        self._timeout = timeout

    def wait(self, timeout: float | None = None) -> int:
        """Wait for all parties.

        Returns:
            0 for the first that came, up to parties - 1 for the last.

        Raises:
            BrokenBarrierError: somebody's time ran out, or its process died, or the barrier was aborted or reset.

        """
        seconds = timeout_in_seconds(self._timeout if timeout is None else timeout)
        arguments = (self._action is not None, runtime.thread_token())
        acts = False
        try:
            index, acts = self._ask("wait", arguments, WAIT_BARRIER, seconds).value
            if acts:
                assert self._action is not None, "only who brought an action is told to run one"
                self._action()
                self._ask("action_done", (True,), CHANGE)
                acts = False
            return int(index)
        except BaseException:
            if acts:
                self._end_in_failure()
            raise

    def _end_in_failure(self) -> None:
        """The action has failed, or its end could not be said. All others wait for that, so further interrupts wait,
        too; and what is raised in the end is what came first.
        """
        for _ in range(STRIKES_MAX):
            try:
                self._ask("action_done", (False,), CHANGE)
            except Exception as error:  # noqa: BLE001 - it has ended already; or the group is away, as its log says
                logger.debug("%r: the end of an action was not taken: %s", self._proxy_target, error)
            except BaseException:  # noqa: BLE001, S112 - see above
                continue
            return

    def reset(self) -> None:
        """As new; whoever waits now gets BrokenBarrierError."""
        self._ask("reset", (), CHANGE_IN_TURN)

    def abort(self) -> None:
        """Break it: whoever waits, and whoever comes, gets BrokenBarrierError until it is reset."""
        self._ask("abort", (), CHANGE_IN_TURN)

    @property
    def parties(self) -> int:
        """How many must come."""
        return int(self._proxy_target.arguments[0])

    @property
    def n_waiting(self) -> int:
        """How many wait at it now."""
        return int(self._ask("state", (), READ).value[1])

    @property
    def broken(self) -> bool:
        """Whether it is broken."""
        return bool(self._ask("state", (), READ).value[2])

    def __repr__(self) -> str:
        state = self._peek("state")
        shown = "unknown" if state is None else "broken" if state[2] else f"waiters={state[1]}/{state[0]}"
        cls = type(self)
        return f"<{cls.__module__}.{cls.__qualname__} {self._proxy_place()}: {shown}>"
