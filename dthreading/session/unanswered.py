# SPDX-License-Identifier: Apache-2.0
"""Words that nobody answers (Detach, Acknowledge): how long to keep them, and which answers are to be acknowledged.

Such a word has arrived when a keepalive that was sent after it, on the same connection, is acknowledged. Arrived is not
chosen: a replica that dies just then may take the word with it. That costs nobody what was promised: an attachment then
lasts as long as its session, and an item counts as on its way until its lane is used again, so it would come once more
if this client died before that.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dthreading.session.lanes import Lane

__all__ = ["Unanswered"]


class Unanswered:
    """Kept words, and lanes whose last answer carried an item."""

    def __init__(self) -> None:
        self._words: deque[tuple[int, bytes]] = deque()
        """Each with the number of the last keepalive before it."""
        self._carried: deque[Lane] = deque()

    def carried(self, lane: Lane, number: int) -> None:
        """The caller has the item that came with this answer; 0: none came. Any thread, while it owns the lane."""
        lane.unacknowledged = number
        if number and not lane.acknowledging:
            lane.acknowledging = True
            self._carried.append(lane)

    def acknowledgements(self) -> tuple[tuple[int, int], ...]:
        """(lane, number) of the items to acknowledge; a lane that was used again has said so by itself."""
        answers: list[tuple[int, int]] = []
        for _ in range(len(self._carried)):
            lane = self._carried.popleft()
            lane.acknowledging = False
            number = lane.unacknowledged
            if number and number == lane.number:
                answers.append((lane.index, number))
        return tuple(answers)

    def keep(self, word: bytes, beat: int) -> None:
        """The word was said after keepalive `beat`, or will be."""
        self._words.append((beat, word))

    def acknowledged(self, beat: int) -> None:
        """Keepalive `beat` has arrived, and all that was said before it."""
        while self._words and self._words[0][0] < beat:
            self._words.popleft()

    def again(self, beat: int) -> list[bytes]:
        """All words, which are said again now, after keepalive `beat`."""
        self._words = deque((beat, word) for _, word in self._words)
        return [word for _, word in self._words]
