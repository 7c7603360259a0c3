# SPDX-License-Identifier: Apache-2.0
"""What this process has acquired and not released: the record that lets a release name the very hold it ends.

The record belongs to the lock, not to a proxy: a second `Lock(name="orders")` in the process releases what the first
acquired. A hold that was lost stays on record until its thread acquires again, so that each late release of it hears
`LockLost`: forgotten, the second one would pass for a release by somebody who never held the lock, and free the hold of
whoever has it by then.
"""

from __future__ import annotations

import _thread
import os
import weakref
from typing import Final, NamedTuple

__all__ = ["Hold", "Holds", "forget_all", "generation", "holds_of"]


class Hold(NamedTuple):
    """One grant. It is valid in the session that it was given to, and in no other."""

    fence: int
    session: int
    depth: int


class Holds:
    """The holds of one lock in this process, by thread."""

    __slots__ = ("__weakref__", "_by_thread", "_outlives_proxies", "inherited")

    def __init__(self, *, outlives_proxies: bool) -> None:
        self.inherited = False
        """The parent held it when this process was forked, and this process has not acquired it since."""
        # One dictionary and nothing else, each operation of which is atomic: a signal handler or a sibling thread may
        # come in between any two lines.
        self._by_thread: dict[int, Hold] = {}
        self._outlives_proxies = outlives_proxies

    def of(self, thread: int) -> Hold | None:
        """What `thread` holds, by our record."""
        return self._by_thread.get(thread)

    def of_anybody(self, thread: int) -> Hold | None:
        """What `thread` holds, else the latest hold of any thread: any of them may release a Lock."""
        own = self._by_thread.get(thread)
        return own if own is not None else max(list(self._by_thread.values()), default=None)

    def note(self, thread: int, hold: Hold) -> None:
        """`thread` has been granted this."""
        self.inherited = False
        self._by_thread[thread] = hold
        if self._outlives_proxies:
            _outliving.add(self)

    def forget(self, hold: Hold) -> None:
        """It was given back, by whatever thread."""
        for thread, other in list(self._by_thread.items()):
            if other.fence == hold.fence and self._by_thread.get(thread) is other:
                self._by_thread.pop(thread, None)
        if not self._by_thread:
            _outliving.discard(self)
            if self._by_thread and self._outlives_proxies:
                _outliving.add(self)

    def leave_to_parent(self) -> None:
        """In a forked child, which holds nothing."""
        inherited = self.inherited or bool(self._by_thread)
        self.forget_all()
        self.inherited = inherited

    def forget_all(self) -> None:
        """Nobody here holds anything."""
        self._by_thread.clear()
        _outliving.discard(self)


_outliving: Final[set[Holds]] = set()
"""Keeps the records of held locks that have a name: a new proxy may come and release them."""

_known: Final[weakref.WeakValueDictionary[tuple[str, str], Holds]] = weakref.WeakValueDictionary()
_knowing: Final = _thread.RLock()  # a finalizer or signal handler may use a lock for the first time inside another's


def holds_of(namespace: str, name: str, *, outlives_proxies: bool) -> Holds:
    """The one record of that lock in this process."""
    with _knowing:
        holds = _known.get((namespace, name))
        if holds is None:
            holds = Holds(outlives_proxies=outlives_proxies)
            _known[namespace, name] = holds
        return holds


def forget_all() -> None:
    """The process holds nothing: its group has gone."""
    for holds in list(_known.values()):
        holds.forget_all()


_forks: Final[list[int]] = []


def generation() -> int:
    """How many forks lie between this process and the one that imported this module."""
    return len(_forks)


def _forget_in_child() -> None:
    _forks.append(os.getpid())
    _knowing._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001 - made for this
    for holds in list(_known.values()):
        holds.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
