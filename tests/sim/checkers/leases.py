# SPDX-License-Identifier: Apache-2.0
"""What a client's line shows of its lease, and of the order of its words. The client's own clock is the only one.

A lease lasts from when the last keepalive that was acknowledged has left, or from the first Open of its session. And on
one connection no call stands behind the Detach of what it was made to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dthreading.wire import messages as wire
from dthreading.wire.codec import TAGS, decode

if TYPE_CHECKING:
    from collections.abc import Hashable

    from dthreading.session.core import ClientSession

__all__ = ["LeaseSeen"]

_TAG_OF: Final = {kind: tag for tag, kind in TAGS.items()}
_LOOKED_AT: Final = {_TAG_OF[kind] for kind in (wire.Keepalive, wire.Open, wire.Detach)}
_CALL: Final = _TAG_OF[wire.Call]


class LeaseSeen:
    """One client, through all of its sessions."""

    def __init__(self) -> None:
        self._left: dict[Hashable, float] = {}
        """When each keepalive (session, beat) or Open (nonce) has left for the first time."""
        self._since: dict[int, float] = {}
        """By session, from when its lease counts."""
        self._connection = 0
        self._detached: set[int] = set()

    def says(self, connection: int, body: bytes, now: float) -> None:
        """Its next word."""
        if connection != self._connection:
            self._connection, self._detached = connection, set()
        tag = body[1]
        if tag not in _LOOKED_AT and not (self._detached and tag == _CALL):
            return
        match message := decode(body):
            case wire.Keepalive():
                self._left.setdefault((message.session, message.beat), now)
            case wire.Open():
                self._left.setdefault(message.nonce, now)
            case wire.Detach():
                self._detached.add(message.handle)
            case wire.Call():
                assert message.handle not in self._detached, f"{message} is said behind its Detach"

    def heard(self, message: Any, session: ClientSession) -> None:
        """It has taken that in."""
        if type(message) is wire.Alive:
            left = self._left.get((message.session, message.beat))
        elif type(message) is wire.Opened:
            left = self._left.get(message.nonce)
        else:
            return
        if left is None or message.session != session.id:
            return
        since = self._since[session.id] = max(self._since.get(session.id, left), left)
        lease = session._lease
        assert lease._deadline <= since + lease.ttl_s, (
            f"session {session.id} believes in its lease until {lease._deadline}, and it counts from {since}"
        )
