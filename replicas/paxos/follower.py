# SPDX-License-Identifier: Apache-2.0
"""Phase 2, the acceptor's side under one leader: what was received at its ballot without a gap, and what to answer."""

from __future__ import annotations

from replicas.paxos.acceptor import Acceptor
from replicas.paxos.messages import Accept, Accepted
from replicas.paxos.values import Ballot, Entry


class Following:
    """Our part under `ballot`, whose leader proposes from `base` on.

    `received` is None while our floor is below base - 1: an old suffix of ours may hold values that were never chosen,
    and neither an acknowledgement nor a commit may cover it. Those slots are fetched as chosen first.
    """

    __slots__ = ("_acceptor", "ack_due", "ballot", "base", "beat_due", "commit", "leader", "received")

    def __init__(self, acceptor: Acceptor, ballot: Ballot, leader: int, base: int) -> None:
        self._acceptor = acceptor
        self.ballot = ballot
        self.leader = leader
        self.base = base
        self.received: int | None = None
        self.commit = 0  # what this leader says is chosen
        self.ack_due = False
        self.beat_due = 0  # the heartbeat to answer, or 0

    def join(self) -> bool:
        """Whether all below `base` is known to be chosen, so that this ballot's entries may be accepted."""
        if self.received is None and self._acceptor.log.chosen >= self.base - 1:
            self.received = self._accepted_before()
            self.ack_due = True
        return self.received is not None

    def _accepted_before(self) -> int:
        """Chosen slots count as accepted at this ballot; so does what we accepted at it before a restart."""
        log = self._acceptor.log
        slot = log.chosen
        while slot < log.last and log.get(slot + 1).ballot == self.ballot and slot + 1 not in self._acceptor.doubtful:
            slot += 1
        return slot

    def accept(self, message: Accept) -> None:
        """Take what continues what we have. Nothing is ever cut off because a message is old or short."""
        assert self.received is not None
        self.received = max(self.received, self._acceptor.log.chosen)
        count = len(message.values)
        known = self.received + 1 - message.first  # how many of them we have already
        if known < 0:
            return  # something before them got lost; our answer to the next heartbeat tells
        if known > 0:
            self._check_known(message, min(known, count))
        if known < count:
            ballot, first, write = self.ballot, message.first, self._acceptor.write
            for index in range(known, count):
                write(Entry(first + index, ballot, message.kinds[index], message.values[index]))
            self.received = first + count - 1
            self.ack_due = True

    def _check_known(self, message: Accept, count: int) -> None:
        log = self._acceptor.log
        for index in range(max(0, log.first - message.first), count):
            entry = log.get(message.first + index)
            assert entry.value == message.values[index], f"slot {entry.slot} has two values"

    @property
    def upto(self) -> int:
        """Everything from base to here is on our disk at this ballot."""
        if self.received is None:
            return min(self._acceptor.log.chosen, self.base - 2)
        return min(self.received, self._acceptor.durable)

    def held(self) -> int:
        """What this leader has said to be chosen, as far as we hold it at its ballot."""
        return 0 if self.received is None else min(self.commit, self.received)

    def answers(self) -> tuple[Accepted | None, Accepted | None]:
        """(the answer to a heartbeat, which waits for no disk; the acknowledgement, true once all that was taken is
        synced).
        """
        now = after = None
        received = self.upto if self.received is None else self.received
        if self.ack_due and self.received is not None:
            after = Accepted(self.ballot, received, received, 0)
        if self.beat_due:
            now = Accepted(self.ballot, self.upto, received, self.beat_due)
            if after is not None and now.upto == received:
                after = None  # nothing waits for the disk, so one message says it all
        self.ack_due = False
        self.beat_due = 0
        return now, after
