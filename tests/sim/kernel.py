# SPDX-License-Identifier: Apache-2.0
"""Virtual time and luck: everything in a simulation happens because it was scheduled here, drawn from one seed.

Time is in microseconds inside and in milliseconds for the cores. Two events at one moment happen in the order in which
they were scheduled, so a seed repeats everything; `trace` is a hash over all that was noted, to show that it did.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import Counter
from collections.abc import Callable
from typing import Any


class Kernel:
    """The scheduler, the clock and the only source of luck of one simulation."""

    def __init__(self, seed: int, story: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now_us = 0
        self.events = 0
        self.seen: Counter[str] = Counter()
        """How often each thing that is worth meeting was met."""
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._scheduled = 0
        self._given = 0
        self._hash = hashlib.blake2b(digest_size=8)
        self._story = story

    def at(self, delay_us: int, action: Callable[..., None], *arguments: Any) -> None:
        """Call `action` after so many microseconds."""
        assert delay_us >= 0
        self._scheduled += 1
        heapq.heappush(self._queue, (self.now_us + delay_us, self._scheduled, action, arguments))

    def hasten(self, end_us: int, concerns: Callable[[Callable[..., None]], bool]) -> None:
        """What is scheduled for later than `end_us` happens then, in the order in which it was scheduled, where
        `concerns(action)`.
        """
        self._queue = [
            (end_us, *rest) if due_us > end_us and concerns(rest[1]) else (due_us, *rest)
            for due_us, *rest in self._queue
        ]
        heapq.heapify(self._queue)

    def run_until(self, end_us: int, satisfied: Callable[[], bool] | None = None) -> bool:
        """Let time pass up to `end_us`, or until `satisfied`, which is asked after each event."""
        while self._queue and self._queue[0][0] <= end_us:
            self.now_us, _, action, arguments = heapq.heappop(self._queue)
            self.events += 1
            action(*arguments)
            if satisfied is not None and satisfied():
                return True
        self.now_us = max(self.now_us, end_us)
        return satisfied is not None and satisfied()

    def fresh(self) -> int:
        """A number that was never given before."""
        self._given += 1
        return self._given

    def note(self, text: str) -> None:
        """Something happened that a repetition must show as well."""
        line = f"{self.now_us} {text}"
        self._hash.update(line.encode())
        if self._story is not None:
            self._story(line)

    @property
    def trace(self) -> str:
        """A hash of everything noted so far."""
        return self._hash.hexdigest()

    @property
    def tells(self) -> bool:
        """Whether somebody reads the story, so that it is worth telling in full."""
        return self._story is not None

    def tell(self, text: str) -> None:
        """For the reader alone: more words about what was noted."""
        if self._story is not None:
            self._story(f"{self.now_us} {text}")

    def luck(self, purpose: str) -> random.Random:
        """Chance for one purpose alone: what else is there, or is left out, does not change what it draws."""
        return random.Random(f"{self.seed}/{purpose}")

    def chance(self, probability: float) -> bool:
        """True that often."""
        return self.random.random() < probability

    def between(self, low_us: int, high_us: int) -> int:
        """A time span, evenly drawn."""
        return self.random.randint(low_us, high_us)
