# SPDX-License-Identifier: Apache-2.0
"""Whom this replica asks for chosen entries, up to where, and when it asks again."""

from __future__ import annotations


class CatchUp:
    """One fetch at a time. `source` is None while nothing is wanted."""

    __slots__ = ("_asked_ms", "_retry_ms", "source", "target")

    def __init__(self, retry_ms: int) -> None:
        self._retry_ms = retry_ms
        self._asked_ms = 0
        self.source: int | None = None
        self.target = 0

    def want(self, source: int, target: int, now_ms: int) -> bool:
        """Slots up to `target` are to be had from `source`; whether to ask it now."""
        self.target = max(self.target, target)
        if self.source == source and now_ms - self._asked_ms < self._retry_ms:
            return False
        self.source = source
        self._asked_ms = now_ms
        return True

    def again(self, now_ms: int) -> int | None:
        """Whom to ask once more, since no page came for long: the question or its answer was lost."""
        if self.source is None or now_ms - self._asked_ms < self._retry_ms:
            return None
        self._asked_ms = now_ms
        return self.source

    def reached(self, known: int, now_ms: int) -> int | None:
        """A page came and all up to `known` is known: whom to ask for the next one, if that is not all."""
        self._asked_ms = now_ms
        if known >= self.target:
            self.source = None
        return self.source

    def stop(self) -> None:
        """Nothing is wanted any more, or not from there."""
        self.source = None
        self.target = 0

    @property
    def retry_ms(self) -> int | None:
        """When to ask again, if a page is awaited."""
        return None if self.source is None else self._asked_ms + self._retry_ms
