# SPDX-License-Identifier: Apache-2.0
"""Who waits for the word that this replica still leads. A round answers exactly those who asked before it began."""

from __future__ import annotations

from collections import deque


class Confirmations:
    """Tokens of confirm(), in the rounds that will answer them."""

    __slots__ = ("_asked", "_rounds")

    def __init__(self) -> None:
        self._asked: list[object] = []
        self._rounds: deque[tuple[int, list[object]]] = deque()  # (heartbeat, tokens), heartbeats growing

    def ask(self, token: object) -> None:
        """`token` waits for a round that has not begun. A round that is under way may have passed its voters by
        already.
        """
        self._asked.append(token)

    @property
    def asked(self) -> bool:
        """Whether anybody waits for a round to begin."""
        return bool(self._asked)

    @property
    def under_way(self) -> bool:
        """Whether a round has begun that a quorum has not answered."""
        return bool(self._rounds)

    def begin(self, heartbeat: int) -> None:
        """A round begins: it answers everybody who has asked so far."""
        if self._asked:
            self._rounds.append((heartbeat, self._asked))
            self._asked = []

    def reached(self, heartbeat: int) -> list[object]:
        """A quorum has answered this heartbeat or later ones: the tokens that are answered by it."""
        tokens: list[object] = []
        while self._rounds and self._rounds[0][0] <= heartbeat:
            tokens += self._rounds.popleft()[1]
        return tokens

    def drop(self) -> list[object]:
        """All tokens: the replica leads no longer."""
        tokens = self.reached(self._rounds[-1][0]) if self._rounds else []
        tokens += self._asked
        self._asked = []
        return tokens
