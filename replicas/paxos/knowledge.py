# SPDX-License-Identifier: Apache-2.0
"""The state that all roles of one replica share: promise and log, what is chosen and handed out, and how it catches up.

Which role speaks when is agent.py's business; here is what holds in any of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from replicas.paxos.acceptor import Acceptor
from replicas.paxos.candidate import Candidacy
from replicas.paxos.catchup import CatchUp
from replicas.paxos.election import Election
from replicas.paxos.follower import Following
from replicas.paxos.leader import Leadership
from replicas.paxos.messages import Chosen, Fetch, PeerMessage, Refuse, Truncated
from replicas.paxos.reads import Confirmations
from replicas.paxos.types import Durable, Output, Timing
from replicas.paxos.values import (
    NO_BALLOT,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    decode_ballot,
    decode_configuration,
)


class Knowledge(ABC):
    """One replica's consensus state, and the transitions of it that are the same in every role."""

    def __init__(
        self,
        *,
        replica: int,
        configuration: Configuration,
        durable: Durable,
        timing: Timing,
        luck: Callable[[], float],
        now_ms: int,
    ) -> None:
        assert replica > 0
        self.replica = replica
        self._obey(durable.configuration or configuration)
        self.ballot_in_force = NO_BALLOT  # the highest LEADS up to the floor, as far as it is known here
        self._timing = timing
        self._luck = luck
        self._now_ms = now_ms
        self._acceptor = Acceptor(durable)
        self._log = self._acceptor.log
        self._election = Election(timing, luck, now_ms)
        self._catch_up = CatchUp(2 * timing.heartbeat_ms)
        self._confirmations = Confirmations()
        self._following: Following | None = None
        self._candidacy: Candidacy | None = None
        self._leadership: Leadership | None = None
        self._output = Output()
        self._known = self._log.chosen  # chosen, and in our log, though perhaps not on our disk yet
        self._check = (0, 0)  # (slot, chain) that the leader has told and we have not reached
        self._highest = self._acceptor.promised  # the highest ballot heard of
        self._beat_ms = now_ms  # when the next heartbeat, or the next sending of votes, is due
        self._deadline_ms = now_ms  # when a candidacy or a transfer is given up
        self._transferring = False
        self._successor: int | None = None  # whom the transfer is for; None: whoever has most

    # --- what a role does about it

    @abstractmethod
    def _advance(self) -> None:
        """Something arrived or reached the disk: whatever waited for it goes on."""

    @abstractmethod
    def _enter_epoch(self) -> None:
        """Another set of members votes from the next slot on."""

    # --- the floor

    def _raise_floor(self) -> None:
        """What is known to be chosen, and is on our disk, is handed out. (A leader hands out by its count alone.)"""
        if self._leadership is not None:
            return
        following = self._following
        if following is not None:
            self._known = max(self._known, following.held())
        upto = min(self._known, self._acceptor.durable)
        if upto > self._log.chosen:
            self._deliver(upto)
        slot, chain = self._check
        if self._log.first - 1 <= slot <= self._log.chosen:
            assert self._log.chain_at(slot) == chain, f"another value was chosen at or below slot {slot} elsewhere"
        if following is not None:
            following.join()

    def _deliver(self, upto: int) -> None:
        """The floor rises to `upto`: each entry is handed out, once, and obeyed if it concerns consensus itself."""
        entries = self._log.choose(upto)
        self._output.chosen += entries
        self._known = max(self._known, upto)
        epoch = self.configuration.epoch
        for entry in entries:
            if entry.kind == EntryKind.LEADS:
                # A late re-proposal of an older LEADS takes nothing back.
                self.ballot_in_force = max(self.ballot_in_force, decode_ballot(entry.value))
            elif entry.kind == EntryKind.CONFIGURATION and self._changes_epoch(entry):
                self._obey(decode_configuration(entry.value))
        if self.configuration.epoch != epoch:
            self._enter_epoch()

    def _obey(self, configuration: Configuration) -> None:
        """These are the members from now on."""
        self.configuration = configuration
        # Looked up once: each message and each turn asks.
        self._is_member = self.replica in configuration.ids

    def _changes_epoch(self, entry: Entry) -> bool:
        """A configuration entry that does not follow the epoch in force is a no-op."""
        return decode_configuration(entry.value).epoch == self.configuration.epoch + 1

    # --- catching up --------------------------------------------------------------------------------------------------

    def _fetch(self, source: int, target: int) -> None:
        if target > self._known and self._catch_up.want(source, target, self._now_ms):
            self._output.send_now.append((source, Fetch(self._known + 1)))

    def _on_fetch(self, source: int, message: Fetch) -> None:
        log = self._log
        if message.from_slot < log.first:
            self._output.send_now.append((source, Truncated(log.first)))
        elif message.from_slot <= log.chosen:
            page = log.page(message.from_slot, log.chosen)
            kinds = bytes([entry.kind for entry in page])
            values = tuple([entry.value for entry in page])
            chosen = Chosen(message.from_slot, kinds, values, log.chosen, self._acceptor.promised)
            self._output.send_now.append((source, chosen))

    def _on_chosen(self, source: int, message: Chosen) -> None:
        last = message.first + len(message.values) - 1
        if self._leadership is not None or message.first > self._known + 1 or last <= self._known:
            return
        # These slots will count as accepted, which only a ballot above that of their choosing may hear.
        self._promise_at_least(message.promised)
        ballot = self._acceptor.promised
        for slot in range(self._known + 1, last + 1):
            index = slot - message.first
            # As if accepted at our promise: whoever proposes under that ballot proposes just this value here.
            self._acceptor.write(Entry(slot, ballot, message.kinds[index], message.values[index]))
        self._known = last
        if not self._is_member:
            self._catch_up.want(source, message.chosen, self._now_ms)
        again = self._catch_up.reached(last, self._now_ms)
        if again is not None:
            self._output.send_now.append((again, Fetch(last + 1)))
        if self._candidacy is not None:
            self._deadline_ms = max(self._deadline_ms, self._now_ms + self._timing.election_ms)
        self._raise_floor()
        self._advance()

    def _on_truncated(self, source: int, message: Truncated) -> None:
        if self._leadership is None and message.first_kept > self._known + 1:
            self._output.fetch_snapshot_from = source
            self._catch_up.stop()

    # --- promising and answering

    def _promise_at_least(self, ballot: Ballot) -> None:
        if ballot > self._acceptor.promised:
            self._acceptor.promise(ballot)
            self._following = None

    def _refuse(self, source: int) -> None:
        self._send_promised([source], Refuse(self._acceptor.promised, self._log.chosen))

    def _send_promised(self, members: Sequence[int], message: PeerMessage) -> None:
        """To be sent as soon as our promise is on disk, which it nearly always is."""
        durable = self._acceptor.promised_durably == self._acceptor.promised
        queue = self._output.send_now if durable else self._output.send_after_sync
        queue += [(member, message) for member in members]

    def _others(self) -> list[int]:
        return [member for member in self.configuration.ids if member != self.replica]

    def _next_ballot(self) -> Ballot:
        return Ballot(max(self._highest, self._acceptor.promised).round + 1, self.replica)
