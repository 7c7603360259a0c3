# SPDX-License-Identifier: Apache-2.0
"""Multi-Paxos with a stable leader, sans-IO: the face that the shell sees. step, tick and propose put in, take gets
out.

After "Paxos Made Moderately Complex" (van Renesse, Altinbuken), the roles collapsed into one process, over a contiguous
log. What a message causes is in agent.py; this file holds what the shell asks for, and what time causes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from replicas.paxos.agent import Agent
from replicas.paxos.follower import Following
from replicas.paxos.leader import Leadership
from replicas.paxos.messages import Fetch, Prepare, PreVote
from replicas.paxos.types import Durable, Output, Role, Timing
from replicas.paxos.values import Ballot, Configuration, EntryKind, encode_configuration

_COMMAND: Final = int(EntryKind.COMMAND)


class Paxos(Agent):
    """One replica's part in the agreement. The shell's loop: step, tick and propose; then take, and do what it says."""

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
        super().__init__(
            replica=replica,
            configuration=configuration,
            durable=durable,
            timing=timing,
            luck=luck,
            now_ms=now_ms,
        )
        self._polled = 0  # counts a learner's questions, so that it asks all members in turn
        self.guides: tuple[int, ...] = ()
        """Other replicas that a learner may ask: those that it has heard to be members now."""
        certain = min((slot - 1 for slot in self._acceptor.doubtful), default=self._log.last)
        chosen = min(durable.chosen, self._log.last, certain)
        if chosen > self._log.chosen:
            self._deliver(chosen)
        if len(self.configuration.members) == 1:
            self._election.deadline_ms = now_ms  # nobody to wait for

    # --- what it is, to read ----------------------------------------------------------------------------------------

    @property
    def role(self) -> Role:
        """What this replica is now."""
        if self._leadership is not None:
            return Role.LEADER
        if self._candidacy is not None:
            return Role.CANDIDATE
        return Role.FOLLOWER if self._is_member else Role.LEARNER

    @property
    def leads(self) -> bool:
        """Whether it is the leader, as far as it knows."""
        return self._leadership is not None

    @property
    def leader(self) -> int | None:
        """Who leads, as far as this replica knows; None when it has heard no leader for an election timeout."""
        if self._leadership is not None:
            return self.replica
        return self._election.live_leader(self._now_ms)

    @property
    def follows(self) -> bool:
        """Whether it has heard its leader lead under the present ballot: one that renews it may still be standing."""
        return self._following is not None

    @property
    def ready(self) -> bool:
        """Whether this replica leads and its LEADS is chosen: only then may it answer for the group."""
        leadership = self._leadership
        return leadership is not None and 0 < leadership.leads_slot <= self._log.chosen

    @property
    def promised(self) -> Ballot:
        """The highest ballot promised. At or above every ballot under which a slot up to `chosen` was chosen."""
        return self._acceptor.promised

    @property
    def ballot(self) -> Ballot:
        """The ballot under which this replica leads, stands or follows."""
        return self._acceptor.promised

    @property
    def chosen(self) -> int:
        """The floor: every slot up to it is chosen and was handed out."""
        return self._log.chosen

    @property
    def told(self) -> int:
        """How far others have said that they are; at least `chosen`."""
        return max(self._known, self._catch_up.target)

    @property
    def chain(self) -> int:
        """The hash chain over everything chosen."""
        return self._log.chain_at(self._log.chosen)

    def chain_at(self, slot: int) -> int:
        """The hash chain at a chosen slot that is kept, or at the one before the first kept: for a snapshot's
        header.
        """
        return self._log.chain_at(slot)

    @property
    def first_kept(self) -> int:
        """The first slot whose entry is still here."""
        return self._log.first

    @property
    def wake_ms(self) -> int:
        """When tick() is due next, if nothing arrives before."""
        if self._leadership is not None:
            return min(self._beat_ms, self._deadline_ms) if self._transferring else self._beat_ms
        if self._candidacy is not None or self.role is Role.LEARNER:
            return self._beat_ms
        retry_ms = self._catch_up.retry_ms
        return self._election.deadline_ms if retry_ms is None else min(retry_ms, self._election.deadline_ms)

    # --- what the shell asks ----------------------------------------------------------------------------------------

    @property
    def last_proposed(self) -> int:
        """The last slot that this leader has proposed to, be it its LEADS; 0 when it does not lead."""
        return self._leadership.last if self._leadership is not None else 0

    def propose(self, value: bytes) -> int | None:
        """Propose a command; its slot, or None when this replica is no ready leader or its window is full.

        The slot is a hint: another leader may put another value there. Whoever must know watches what is chosen.
        """
        return self.propose_all(deque([value]))

    def propose_all(self, values: deque[bytes]) -> int | None:
        """The same for one after the other, as long as it is possible: those that were proposed are taken out of
        `values`. The last one's slot, or None where there was none.
        """
        leadership = self._leadership
        if leadership is None or self._transferring or leadership.barrier or not self.ready:
            return None
        slot = None
        while values and leadership.has_room(values[0]):
            slot = leadership.propose(_COMMAND, values.popleft())
        return slot

    def reconfigure(self, configuration: Configuration) -> int | None:
        """Propose the configuration of the next epoch; None as propose(), or while another change is in flight."""
        leadership = self._leadership
        if leadership is None or self._transferring or leadership.barrier or not self.ready:
            return None
        assert configuration.epoch == self.configuration.epoch + 1
        leadership.barrier = leadership.propose(int(EntryKind.CONFIGURATION), encode_configuration(configuration))
        return leadership.barrier

    def present(self) -> frozenset[int]:
        """The members that are there and nearly as far as this leader, which has heard them at this ballot. Empty when
        it does not lead.
        """
        leadership = self._leadership
        if leadership is None:
            return frozenset()
        return frozenset({self.replica, *leadership.present(self._now_ms, self._timing.election_ms)})

    @property
    def changing(self) -> bool:
        """Whether a change of the members is proposed and not chosen yet."""
        return self._leadership is not None and bool(self._leadership.barrier)

    def confirm(self, token: object) -> bool:
        """Ask whether this replica still leads, by a heartbeat round that starts after now; False when it does not
        lead.
        """
        if not self.ready:
            return False
        self._confirmations.ask(token)
        return True

    def inform(self, replica: int) -> None:
        """That follower waits for what was proposed up to now: tell it once it is chosen, not with the next message."""
        if self._leadership is not None:
            self._leadership.inform(replica)

    def synced(self, batch: int) -> None:
        """Everything persisted up to and with this batch is on disk."""
        self._acceptor.synced(batch)
        self._raise_floor()
        self._advance()

    def compact(self, slot: int, chain: int) -> None:
        """A snapshot of `slot`, or of a later one, is durable: forget the entries at or below `slot`."""
        if slot < self._log.first:
            return
        assert self._log.chain_at(slot) == chain, "a snapshot holds other entries than this log"
        self._log.forget(slot)

    def installed(self, slot: int, configuration: Configuration, chain: int, promised: Ballot) -> None:
        """The shell has fetched, stored and loaded a peer's snapshot of `slot`, made when that peer had promised
        `promised`.

        The promise, and every accepted entry above the slot, are kept. Our promise rises to the peer's: those slots
        count as accepted here from now on, which no leader with a lower ballot may hear. What is handed out next
        follows the snapshot, even if it was not the newest thing known here.
        """
        self._output.chosen = [entry for entry in self._output.chosen if entry.slot > slot]
        if slot <= self._log.chosen:
            return
        if self._leadership is not None:
            self._stand_back()  # more was chosen than its own count shows yet: rare, and simplest begun anew
        self._promise_at_least(promised)
        self._acceptor.restart(slot, chain)
        self._known = max(self._known, slot)
        self._obey(configuration)
        if self._candidacy is not None:
            self._stand_back()
        self._raise_floor()

    def reigned(self, ballot: Ballot) -> None:
        """A snapshot holds the LEADS of `ballot`, which is in force at the floor and not in the log any more."""
        self.ballot_in_force = max(self.ballot_in_force, ballot)

    def hand_over(self, target: int | None = None) -> None:
        """Pass leadership to `target`, or to the follower that has most, and propose nothing more. (A stop, a disk that
        hangs, a leader that is to be removed.)
        """
        leadership = self._leadership
        if leadership is None or self._transferring or not leadership.followers:
            return
        self._transferring = True
        self._successor = target
        self._deadline_ms = self._now_ms + self._timing.election_ms
        self._transfer()

    @property
    def due(self) -> bool:
        """Whether take() may have something to say. Cheaper than to ask it, and never False when it would."""
        if self._acceptor.due or not self._output.is_empty:
            return True
        if self._leadership is not None:
            return self._leadership.due or self._confirmations.asked or self._now_ms >= self._beat_ms
        following = self._following
        return following is not None and (following.ack_due or following.beat_due > 0)

    def take(self) -> Output:
        """Everything that has become due since the last take."""
        if self._leadership is not None:
            self._lead(self._leadership)
        elif self._following is not None:
            self._answer(self._following)
        output, self._output = self._output, Output()
        output.persist, output.batch = self._acceptor.seal(self._now_ms)
        if self._acceptor.idle and output.send_after_sync:
            output.send_now += output.send_after_sync
            output.send_after_sync = []
        return output

    def _lead(self, leadership: Leadership) -> None:
        if self._confirmations.asked or self._now_ms >= self._beat_ms:
            self._confirmations.begin(leadership.beat())
            if self._now_ms >= self._beat_ms:
                self._beat_ms = self._now_ms + self._timing.heartbeat_ms
            self._output.confirmed += self._confirmations.reached(leadership.confirmed())
        self._output.send_now += leadership.flush()

    def _answer(self, following: Following) -> None:
        answer, acknowledgement = following.answers()
        if answer is not None:
            self._send_promised([following.leader], answer)
        if acknowledgement is not None:
            self._output.send_after_sync.append((following.leader, acknowledgement))

    # --- time -------------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> None:
        """It is now `now_ms`. At any time, any number of times; before step(), and no later than `wake_ms`."""
        if now_ms <= self._now_ms:
            return
        late_ms = now_ms - self.wake_ms
        self._now_ms = now_ms
        if late_ms > self._timing.election_ms // 2:
            self._stood_still(late_ms)
        if self._leadership is not None:
            self._tick_leader(self._leadership)
        elif self._candidacy is not None:
            self._tick_candidate()
        elif not self._is_member:
            self._tick_learner()
        else:
            self._tick_follower()

    def _stood_still(self, late_ms: int) -> None:
        """We were stopped, not the others: what they said meanwhile lies unread, so nobody is late yet."""
        self._acceptor.stood_still(late_ms)
        self._deadline_ms += late_ms
        self._election.stood_still(late_ms, self._now_ms + 2 * self._timing.heartbeat_ms)
        if self._leadership is not None:
            self._leadership.stood_still(late_ms)

    def _disk_hangs(self) -> bool:
        since_ms = self._acceptor.waiting_since_ms()
        return since_ms is not None and self._now_ms - since_ms > self._timing.disk_ms

    def _tick_leader(self, leadership: Leadership) -> None:
        if not leadership.has_quorum(self._now_ms, self._timing.election_ms):
            self._stand_back()
        elif self._transferring:
            self._transfer()
        elif self._disk_hangs():
            self.hand_over()

    def _tick_candidate(self) -> None:
        if self._now_ms >= self._deadline_ms:
            self._stand_again()
        elif self._now_ms >= self._beat_ms:
            self._beat_ms = self._now_ms + self._timing.heartbeat_ms
            self._ask_again()
            self._advance()

    def _ask_again(self) -> None:
        candidacy = self._candidacy
        assert candidacy is not None
        for member, slot in candidacy.unanswered():
            if candidacy.preparing:
                self._send_promised([member], Prepare(candidacy.ballot, slot, candidacy.transfer))
            else:
                self._output.send_now.append((member, PreVote(candidacy.ballot)))
        self._fetch_again()

    def _stand_again(self) -> None:
        if self._disk_hangs() or not self._is_member:
            self._stand_back()  # no promise of ours can become durable: leave it to the others
        else:
            self._stand()

    def _tick_follower(self) -> None:
        self._fetch_again()
        if self._now_ms >= self._election.deadline_ms:
            self._stand_again()

    def _fetch_again(self) -> None:
        if self._known >= self._catch_up.target:
            self._catch_up.stop()
        source = self._catch_up.again(self._now_ms)
        if source is not None:
            self._output.send_now.append((source, Fetch(self._known + 1)))

    def _tick_learner(self) -> None:
        """Nobody sends to a learner of itself: it asks, the leader if it knows one, else one member after the other.

        (And the guides: all members of the configuration that it has come to may be long gone.)
        """
        if self._now_ms < self._beat_ms:
            return
        self._beat_ms = self._now_ms + self._timing.heartbeat_ms
        others = self._others()
        others += [guide for guide in self.guides if guide not in others]
        if others:
            self._polled += 1
            source = self._election.live_leader(self._now_ms) or others[self._polled % len(others)]
            self._output.send_now.append((source, Fetch(self._known + 1)))
