# SPDX-License-Identifier: Apache-2.0
"""What a thread of a simulated client is: a generator that yields its calls and is sent what they came to."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

from dthreading.session.calls import ACQUIRE, READ, RELEASE, Manner, PendingCall, Target
from dthreading.session.core import ClientSession
from dthreading.session.fate import Deadline

__all__ = ["Ask", "Outcome", "Running", "Sleep", "Thread"]


class Ask(NamedTuple):
    """One call of a thread."""

    target: Target
    operation: str
    arguments: tuple[Any, ...]
    manner: Manner = ACQUIRE
    timeout: float | None = None
    others: tuple[Target, ...] = ()


class Sleep(NamedTuple):
    """The thread does something else for so long, by the client's clock."""

    seconds: float


class Outcome(NamedTuple):
    """What a call came to: "ok", "error" (its code is the value), "lost", or "interrupted".

    An interrupted call is undone, so the thread did not get it. Condition.wait alone waits for its verdict all the
    same: then the value is what it answered (the lock is held again), or None where there was no answer to keep.
    """

    how: str
    value: Any
    session: ClientSession | None


Thread = Generator[Ask | Sleep, Outcome, None]


@dataclass(eq=False)
class Running:
    """A thread, and where it stands."""

    thread: Thread
    life: int
    """Of its process."""
    ask: Ask | None = None
    call: PendingCall | None = None
    """What it waits for."""
    answered: PendingCall | None = None
    """Its call's answer is there, and the thread has not run yet."""
    interrupted: bool = False
    """Ctrl-C came, and is raised once the call has its verdict."""
    released: Ask | None = None
    """The release that was interrupted, until it is known whether it happened."""
    parked: bool = False
    """It was heard to be parked, in some session, and its time counts from then."""
    deadline: Deadline | None = None
    """When its time is up, whichever session it is asked in."""
    turn: int = 0
    """How often it has run, so that an answer that was taken back does not arrive."""

    @property
    def interruptible(self) -> bool:
        """Whether it is in the middle of a call after whose interruption the user can know how things stand.

        Whether an interrupted `Semaphore.release`, say, has happened cannot be told, so nothing follows of it. An
        RLock's can, by its depth, which is known to the proxy and not here.
        """
        ask = self.ask
        if ask is None or self.interrupted or self.released or (self.call is None and self.answered is None):
            return False
        if ask.manner is RELEASE:
            return ask.operation != "release" or ask.target.kind == "Lock"
        return ask.manner.parks or ask.manner.hands_out or ask.manner is READ
