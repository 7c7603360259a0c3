# SPDX-License-Identifier: Apache-2.0
"""What replicas say to each other for their clients: rounds before an Alive, and streams of commands without a gap.

Both are judged from the messages alone. A keepalive is acknowledged, and a read answered without the log, only when a
quorum has answered a heartbeat that left after it had come. A leader takes from a follower only what follows on what it
has taken before in the same reign; and a replica that begins anew begins other streams than in its former lives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dthreading.wire import messages as wire
from replicas.paxos.messages import Accept, Accepted
from replicas.paxos.types import NO_BALLOT
from replicas.replica.messages import Forward, Vouch, Vouched

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from replicas.replica.core import Replica

__all__ = ["Rounds"]


class Rounds:
    """One life of a replica.

    Args:
        core: the replica.
        answered: says whether the log has answered that call (session, lane, number).
        former: the streams that its former lives have begun; this one's are added.

    """

    def __init__(self, core: Replica, answered: Callable[[tuple[int, int, int]], bool], former: set[int]) -> None:
        self._core = core
        self._answered = answered
        self._former = frozenset(former)
        self._streams = former
        self._ballot = NO_BALLOT
        self._beat = 0
        """The last heartbeat that has left under that ballot, and (below) the last that each member has answered."""
        self._beats: dict[int, int] = {}
        self._asked: dict[Hashable, int] = {}
        """By what was asked in this reign, the last heartbeat that had left by then."""
        self._vouched: set[tuple[int, int]] = set()
        self._taken: dict[int, tuple[int, int]] = {}
        self._overhear()

    def _overhear(self) -> None:
        core = self._core
        client_said, peer_said, takes = core.client_said, core.peer_said, core._streams.takes

        def hears_client(connection: int, message: Any, body: bytes) -> None:
            if type(message) is wire.Keepalive:
                self._asks((message.session, message.beat))
            elif type(message) is wire.Call:
                self._asks((message.session, message.lane, message.number))
            client_said(connection, message, body)

        def hears_peer(source: int, message: Any) -> None:
            if type(message) is Accepted:
                self._reigns()
                if message.ballot == self._ballot:
                    self._beats[source] = max(self._beats.get(source, 0), message.heartbeat)
            elif type(message) is Vouch:
                self._asks((message.session, message.beat))
            elif type(message) is Vouched:
                self._vouched.add((message.session, message.beat))
            peer_said(source, message)

        def taken(source: int, forward: Forward) -> bool:
            self._reigns()
            if not takes(source, forward):
                return False
            before = (forward.stream, forward.number)
            assert not forward.number or self._taken.get(source) == before, (
                f"replica {core.paxos.replica} takes {before} of {source}, and has taken {self._taken.get(source)}"
            )
            self._taken[source] = (forward.stream, forward.number + 1)
            return True

        core.client_said, core.peer_said = hears_client, hears_peer  # type: ignore[method-assign]
        core._streams.takes = taken  # type: ignore[method-assign]

    def _reigns(self) -> None:
        """Another ballot: nothing that was answered or taken before counts."""
        ballot = self._core.paxos.ballot
        if ballot != self._ballot:
            self._ballot, self._beat = ballot, 0
            for table in (self._beats, self._asked, self._taken):
                table.clear()

    def _asks(self, what: Hashable) -> None:
        self._reigns()
        if self._core.paxos.leads:
            self._asked.setdefault(what, self._beat)

    def sent(self, message: Any) -> None:
        """That has left for another replica."""
        if type(message) is Accept and message.heartbeat:
            self._reigns()
            if message.ballot == self._ballot:
                self._beat = max(self._beat, message.heartbeat)
        elif type(message) is Forward:
            assert message.stream not in self._former, (
                f"replica {self._core.paxos.replica} goes on with stream {message.stream} of a former life"
            )
            self._streams.add(message.stream)

    def says(self, to_clients: list[tuple[int, Any]], send_now: list[tuple[int, Any]]) -> None:
        """The words of one turn."""
        self._reigns()
        for connection, message in to_clients:
            if type(message) is wire.Alive:
                if (message.session, message.beat) not in self._vouched:
                    self._is_confirmed((message.session, message.beat), message)
            elif type(message) is wire.Reply and message.status == wire.Status.OK and self._core.paxos.leads:
                link = self._core._hosting._links.get(connection)
                name = (link.session or 0 if link is not None else 0, message.lane, message.number)
                if name in self._asked and not self._answered(name):
                    self._is_confirmed(name, message)
        for _, message in send_now:
            if type(message) is Vouched:
                self._is_confirmed((message.session, message.beat), message)

    def _is_confirmed(self, what: Hashable, message: Any) -> None:
        core = self._core
        before = self._asked.get(what)
        own = f"replica {core.paxos.replica}"
        assert before is not None, f"{own} says {message}, and was not asked while it led under {tuple(self._ballot)}"
        ids, quorum = core.paxos.configuration.ids, core.paxos.configuration.quorum
        have = 1 + sum(self._beats.get(member, 0) > before for member in ids if member != core.paxos.replica)
        assert have >= quorum, f"{own} says {message}, and {have} of {ids} have confirmed it since it was asked"
