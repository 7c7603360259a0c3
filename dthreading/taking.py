# SPDX-License-Identifier: Apache-2.0
"""What this process has taken and not given back where takes have no names: permits of a semaphore, tasks of a queue.

The end of a session gives back what was taken in it. Whoever gives the same back later, in the next session, would give
what others have by then, for ever one too many. So a release says in which session its permit was taken, as far as is
known here, and the group decides what that means: LockLost, unless nothing comes back by itself there.
"""

from __future__ import annotations

import _thread
import os
import threading
import weakref
from collections import deque
from typing import Any, Final

from dthreading.errors import LockLost
from dthreading.proxy import Proxy
from dthreading.wire.messages import Lifetime

__all__ = ["Giving", "Taken", "Taking", "forget_all"]


class _Own(threading.local):
    """What each thread has of its own; it ends with the thread."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}


class Taken:
    """How many were taken in which session. Any thread may give back what another took, so this is a count, and may err
    where threads do that: it belongs to the object, not to a proxy.

    Args:
        outlives_proxies: a new proxy may come and give back.

    """

    __slots__ = ("__weakref__", "_counts", "_outlives_proxies", "_own", "_updating")

    def __init__(self, *, outlives_proxies: bool) -> None:
        self._outlives_proxies = outlives_proxies
        self._counts: dict[int, int] = {}
        self._own = _Own()
        self._updating = _thread.RLock()  # also for a finalizer that takes or gives in the middle of it

    def note(self, session: int, n: int = 1) -> None:
        """The calling thread has taken `n` in that session."""
        with self._updating:
            for counts in (self._counts, self._own.counts):
                counts[session] = counts.get(session, 0) + n
            if self._outlives_proxies:
                _outliving.add(self)

    def given_back(self, n: int) -> dict[int, int]:
        """How many of the next `n` were taken in which session: this thread's latest, then whoever's earliest, which
        are those that may be lost. 0 stands for what was not taken here. They are off the record then.
        """
        given: dict[int, int] = {}
        with self._updating:
            own = self._own.counts
            latest = [(session, own[session]) for session in sorted(own, reverse=True)]
            earliest = [(session, n) for session in sorted(self._counts)]
            for session, most in (*latest, *earliest):
                taken = min(n, most, self._counts.get(session, 0))
                for counts in (self._counts, own):
                    _lessen(counts, session, taken)
                if taken:
                    given[session] = given.get(session, 0) + taken
                    n -= taken
            if not self._counts:
                _outliving.discard(self)
        if n:
            given[0] = n
        return given

    def forget(self) -> None:
        """Nothing is taken here."""
        self._counts.clear()
        _outliving.discard(self)

    def leave_to_parent(self) -> None:
        """In a forked child, which has taken nothing."""
        self._updating._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001 - made for this
        self.forget()


def _lessen(counts: dict[int, int], session: int, n: int) -> None:
    left = counts.pop(session, 0) - n
    if left > 0:
        counts[session] = left


_outliving: Final[set[Taken]] = set()
_known: Final[weakref.WeakValueDictionary[tuple[str, str], Taken]] = weakref.WeakValueDictionary()
_knowing: Final = _thread.RLock()


def _taken_of(namespace: str, name: str, *, outlives_proxies: bool) -> Taken:
    """The one record of that object in this process."""
    with _knowing:
        taken = _known.get((namespace, name))
        if taken is None:
            taken = _known[namespace, name] = Taken(outlives_proxies=outlives_proxies)
        return taken


class Taking(Proxy):
    """A proxy with such a record."""

    __slots__ = ("_proxy_taken",)

    _proxy_taken: Taken

    def _proxy_settle(self) -> None:
        super()._proxy_settle()
        self._proxy_taken_on_record()

    def _proxy_revived(self, state: dict[str, Any]) -> None:
        super()._proxy_revived(state)
        if self._proxy_settled:
            self._proxy_taken_on_record()

    def _proxy_taken_on_record(self) -> None:
        target = self._proxy_target
        outlives = target.lifetime != Lifetime.PRIVATE
        self._proxy_taken = _taken_of(target.namespace, target.name, outlives_proxies=outlives)

    def _proxy_giving(self, n: int) -> Giving:
        """`n` are about to be given back."""
        if not self._proxy_settled:
            self._proxy_settle()
        return Giving(self._proxy_taken, n)


class Giving:
    """Who gives back does so in here, part by part: no deeper in calls than who takes, or a recursion that ends between
    the two would leave something taken. What could not be said stays on record: whoever tries again means the same.
    """

    __slots__ = ("_taken", "parts")

    def __init__(self, taken: Taken, n: int) -> None:
        self._taken = taken
        given = taken.given_back(n)
        if len(given) > 1 and (unknown := given.pop(0, 0)):
            given[max(given)] += unknown  # in one piece: more than a bounded semaphore takes is refused, and none given
        self.parts = deque(sorted(given.items(), reverse=True))
        """(session, how many), 0 for those that were not taken here. What may be lost, and raises, comes last."""

    def __enter__(self) -> deque[tuple[int, int]]:
        return self.parts

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is LockLost:
            self.parts.popleft()
        for session, count in self.parts:
            if session:
                self._taken.note(session, count)


def forget_all() -> None:
    """The process has taken nothing: its group has gone."""
    for taken in list(_known.values()):
        taken.forget()


def _forget_in_child() -> None:
    _knowing._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001 - made for this
    for taken in list(_known.values()):
        taken.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
