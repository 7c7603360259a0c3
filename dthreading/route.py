# SPDX-License-Identifier: Apache-2.0
"""Which replica to dial next, and when. Reads no clock, knows no socket: names of servers in, names out.

The leader is preferred, since any other replica has to pass everything on to it; but any replica will do, and one that
could not be reached is left alone for a while even if everybody calls it the leader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Route"]

DELAY_FIRST_S: Final = 0.02
"""After a first full round without success; doubled for each further one."""

DELAY_MAX_S: Final = 0.5
"""The longest pause between two rounds: how much a client may lag behind a group that has come back."""

AVOID_S: Final = 3.0
"""How long a server that failed is not taken for the leader, whoever says so."""

SERVERS_MAX: Final = 64
"""Servers kept in mind, those that replicas told us of included: no group is nearly as large."""


class Route:
    """The servers of one group, and what is known of them.

    Args:
        servers: as configured, in the order to try.
        luck: numbers in [0, 1), which spread the clients of a group that comes back over time.

    """

    def __init__(self, servers: Sequence[str], luck: Callable[[], float]) -> None:
        self._configured = tuple(servers)
        self._servers = list(servers)
        self._luck = luck
        self._leader = ""
        self._at = 0
        self._tried = 0
        """Dialed since the last success."""
        self._failed: dict[str, float] = {}
        self.dial_at = 0.0

    def next(self, now: float) -> str:
        """The server to dial now."""
        self._tried += 1
        if self._leader and self._usable(self._leader, now):
            return self._leader
        server = self._servers[self._at % len(self._servers)]
        self._at += 1
        return server

    def failed(self, server: str, now: float) -> None:
        """It could not be reached, or does not serve: on to the next, after a pause when all have been tried."""
        self._failed[server] = now
        if server == self._leader:
            self._leader = ""
        rounds = self._tried // len(self._servers)
        if rounds == 0:
            self.dial_at = now
            return
        pause = min(DELAY_FIRST_S * 2 ** min(rounds - 1, 10), DELAY_MAX_S)
        self.dial_at = now + pause * (0.5 + self._luck() / 2)

    def succeeded(self, server: str) -> None:
        """The group has taken our session up there."""
        self._tried = 0
        self._failed.pop(server, None)

    def lost(self, now: float) -> None:
        """A connection that had worked has ended: dial again at once."""
        self._tried = 0
        self.dial_at = now

    def told(self, servers: Sequence[str]) -> None:
        """The members of the group, as a replica or a name server has them now: tried after the configured ones."""
        self._servers = [*self._configured, *(name for name in servers if name not in self._configured)][:SERVERS_MAX]

    def leads(self, server: str) -> None:
        """A replica says who leads; "" when it does not know."""
        self._leader = server

    def should_move(self, server: str, address: str, now: float) -> bool:
        """Whether whoever is connected to `server`, which has this `address`, had better go to the leader."""
        return bool(self._leader) and self._leader not in {server, address} and self._usable(self._leader, now)

    def _usable(self, server: str, now: float) -> bool:
        failed = self._failed.get(server)
        return failed is None or now - failed > AVOID_S
