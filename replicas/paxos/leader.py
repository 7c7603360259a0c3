# SPDX-License-Identifier: Apache-2.0
"""Phase 2, the leader's side: what each follower has, what is sent to it next, and up to where a quorum has accepted.

It counts acceptors, never acknowledgements: each follower has one number, and the leader itself counts by what its own
disk has. Heartbeats are numbered; a follower's answer to one means that it followed this ballot after it was sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from replicas.paxos.acceptor import Acceptor
from replicas.paxos.limits import (
    ENTRY_OVERHEAD_BYTES,
    PAGE_BYTES,
    PAGE_ENTRIES,
    PAGES_IN_FLIGHT,
    WINDOW_BYTES,
    WINDOW_ENTRIES,
)
from replicas.paxos.messages import Accept, Accepted, Truncated
from replicas.paxos.values import Configuration, Entry


class Follower:
    """What the leader knows of one other member."""

    __slots__ = ("acked", "beat", "catching_up", "heard_ms", "mark", "pages", "sent", "told", "wants")

    def __init__(self, base: int, now_ms: int) -> None:
        self.acked = 0  # highest slot known to be on its disk at this ballot; 0 until it has said so
        self.sent = base - 1  # highest slot on its way to it
        self.pages: deque[int] = deque()  # last slots of Accepts with entries that are not acknowledged
        self.catching_up = False  # it still fetches what was chosen before this ballot: entries would be dropped
        self.beat = 0  # highest heartbeat answered
        self.heard_ms = now_ms
        self.mark: tuple[int, int] | None = None  # (heartbeat, `sent` when it left): its answer shows what got lost
        self.told = 0  # the commit that it was told last
        self.wants = 0  # it waits for this slot to be chosen


class Leadership:
    """One tenure, under one ballot. Slots below `base` were chosen before; `last` is the last one proposed."""

    def __init__(self, acceptor: Acceptor, replica: int, configuration: Configuration, now_ms: int) -> None:
        assert replica in configuration.ids
        self._acceptor = acceptor
        self._log = acceptor.log
        self.ballot = acceptor.promised
        self.configuration = configuration
        self.base = acceptor.log.chosen + 1
        self.last = acceptor.log.chosen
        self.followers = {member: Follower(self.base, now_ms) for member in configuration.ids if member != replica}
        self.leads_slot = 0  # where LEADS stands, once proposed
        self.barrier = 0  # an unchosen configuration entry: nothing may be proposed beyond it
        self.heartbeat = 0
        self._beat_due = False
        self._sure_until_ms = 0
        self.due = False
        """Whether flush() may have something to send. It is called on each turn, and mostly has nothing."""
        self._window: deque[int] = deque()  # sizes of the last proposals, up to `last`
        self._window_bytes = 0

    # --- proposing

    def propose(self, kind: int, value: bytes) -> int:
        """Accept our own proposal in the next slot; flush() carries it to the others."""
        assert not self.barrier, "nothing is proposed past an unchosen configuration entry"
        self.last += 1
        self.due = True
        self._acceptor.write(Entry(self.last, self.ballot, kind, value))
        size = len(value) + ENTRY_OVERHEAD_BYTES
        self._window.append(size)
        self._window_bytes += size
        return self.last

    def has_room(self, value: bytes) -> bool:
        """Whether one more proposal may be under way. What our own disk has not written counts as under way."""
        size = len(value) + ENTRY_OVERHEAD_BYTES
        if self._fits(size):
            return True
        settled = min(self._log.chosen, self._acceptor.durable)
        while self._window and self.last - len(self._window) < settled:
            self._window_bytes -= self._window.popleft()
        return self._fits(size)

    def _fits(self, size: int) -> bool:
        if not self._window:
            return True
        return len(self._window) < WINDOW_ENTRIES and self._window_bytes + size <= WINDOW_BYTES

    # --- counting

    def accepted(self, source: int, message: Accepted, now_ms: int) -> None:
        """A follower at our ballot says how far it is."""
        follower = self.followers.get(source)
        if follower is None:
            return
        follower.heard_ms = now_ms
        upto, received, last = message.upto, message.received, self.last
        follower.beat = max(follower.beat, message.heartbeat)
        if upto < self.base - 1:
            if follower.acked < self.base - 1:
                follower.catching_up = True
                self._send_again_from(follower, self.base - 1)
            return
        follower.catching_up = False
        upto, received = min(upto, last), min(received, last)
        follower.acked = max(follower.acked, upto)
        pages = follower.pages
        while pages and pages[0] <= follower.acked:
            pages.popleft()
        follower.sent = max(follower.sent, received)  # from an earlier life of this connection, or chosen before
        if follower.mark is not None and message.heartbeat >= follower.mark[0]:
            lost = follower.mark[1] > received
            follower.mark = None
            if lost:
                # Even below what it has acknowledged: its disk may have come back from a crash in doubt of that.
                self._send_again_from(follower, received)
        if follower.sent < last:
            self.due = True  # there may be room for another page

    def _send_again_from(self, follower: Follower, received: int) -> None:
        follower.sent = received
        follower.pages.clear()
        follower.mark = None
        self.due = True

    def _quorum_of(self, own: int, others: list[int]) -> int:
        """The highest number that a quorum of distinct members has reached."""
        others.append(own)
        others.sort(reverse=True)
        return others[self.configuration.quorum - 1]

    def chosen(self) -> int:
        """Up to where a quorum of distinct members has accepted, this one counting by its disk alone."""
        own = min(self.last, self._acceptor.durable)
        reached = self._quorum_of(own, [follower.acked for follower in self.followers.values()])
        return max(self._log.chosen, min(reached, self.last))

    def confirmed(self) -> int:
        """The last heartbeat that a quorum has answered. No disk is asked."""
        return self._quorum_of(self.heartbeat, [follower.beat for follower in self.followers.values()])

    def has_quorum(self, now_ms: int, span_ms: int) -> bool:
        """Whether a quorum was heard within the span. What was counted once holds for a while, since nobody is heard
        less than before, and is not counted again at each tick.
        """
        if now_ms >= self._sure_until_ms:
            heard_ms = self._quorum_of(now_ms, [follower.heard_ms for follower in self.followers.values()])
            self._sure_until_ms = heard_ms + span_ms
        return now_ms < self._sure_until_ms

    def stood_still(self, late_ms: int) -> None:
        """See Election.stood_still."""
        for follower in self.followers.values():
            follower.heard_ms += late_ms

    def most_advanced(self, now_ms: int, span_ms: int) -> int | None:
        """The member that would need least to lead: of those heard lately the one with the most entries."""
        live = [member for member, follower in self.followers.items() if now_ms - follower.heard_ms < span_ms]
        return max(live, key=lambda member: self.followers[member].acked, default=None)

    def present(self, now_ms: int, span_ms: int) -> list[int]:
        """The followers that were heard within the span, in this tenure, and are at most a window behind."""
        return [
            member
            for member, follower in self.followers.items()
            if follower.beat
            and now_ms - follower.heard_ms < span_ms
            and follower.acked + WINDOW_ENTRIES > self._log.chosen
        ]

    # --- sending

    def inform(self, replica: int) -> None:
        """That follower is to be told as soon as all that was proposed is chosen."""
        follower = self.followers.get(replica)
        if follower is not None:
            follower.wants = self.last
            self.due = True

    def beat(self) -> int:
        """The next flush carries a new heartbeat to everybody: its number."""
        if not self._beat_due:
            self._beat_due = self.due = True
            self.heartbeat += 1
        return self.heartbeat

    def flush(self) -> Iterator[tuple[int, Accept | Truncated]]:
        """What has to be sent. Followers that are equally far get the very same message, which the shell encodes
        once.
        """
        if not self.due:
            return
        heartbeat = self.heartbeat if self._beat_due else 0
        self._beat_due = self.due = False
        made: dict[tuple[int, int], Accept] = {}
        for member, follower in self.followers.items():
            stop = self._next_page_end(follower)
            if stop <= follower.sent and not heartbeat and not self._news_for(follower):
                if follower.wants > follower.told:
                    self.due = True  # as soon as it is chosen
                continue
            if heartbeat and not follower.catching_up and follower.sent + 1 < self._log.first:
                yield member, Truncated(self._log.first)
            key = (follower.sent, stop)
            accept = made.get(key)
            if accept is None:
                accept = made[key] = self._accept(follower.sent + 1, stop, heartbeat)
            if stop > follower.sent:
                follower.sent = stop
                follower.pages.append(stop)
            if heartbeat and follower.mark is None:
                follower.mark = (heartbeat, follower.sent)
            follower.told = accept.commit
            if follower.wants > follower.told or follower.sent < self.last:
                self.due = True
            yield member, accept

    def _news_for(self, follower: Follower) -> bool:
        return self._log.chosen >= follower.wants > follower.told

    def _next_page_end(self, follower: Follower) -> int:
        """The last slot that may go to this follower now; `sent` itself when none may."""
        start = follower.sent + 1
        if start > self.last or follower.catching_up or len(follower.pages) >= PAGES_IN_FLIGHT:
            return follower.sent
        if start < self._log.first:
            return follower.sent  # only our snapshot has it
        waiting = self.last - follower.sent
        if waiting <= len(self._window) and self._window_bytes <= PAGE_BYTES and waiting <= PAGE_ENTRIES:
            return self.last
        return self._log.page(start, self.last)[-1].slot

    def _accept(self, first: int, stop: int, heartbeat: int) -> Accept:
        entries = self._log.span(first, stop) if stop >= first else []
        chosen = self._log.chosen
        return Accept(
            ballot=self.ballot,
            base=self.base,
            first=first,
            kinds=bytes([entry.kind for entry in entries]),
            values=tuple([entry.value for entry in entries]),
            commit=chosen,
            chain=self._log.chain_at(chosen),
            heartbeat=heartbeat,
        )
