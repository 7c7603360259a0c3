# SPDX-License-Identifier: Apache-2.0
"""All roles of one replica and what moves it between them; the rules of who speaks when. core.py is its public face.

A replica follows by default. It stands for election (a candidacy), or leads (a leadership), at most one of the two.
What each role remembers is in acceptor.py, follower.py, candidate.py and leader.py; what it hears is dispatched here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from replicas.paxos import messages
from replicas.paxos.acceptor import Acceptor
from replicas.paxos.candidate import Candidacy
from replicas.paxos.catchup import CatchUp
from replicas.paxos.election import Election
from replicas.paxos.follower import Following
from replicas.paxos.leader import Leadership
from replicas.paxos.messages import (
    Accept,
    Chosen,
    Fetch,
    PeerMessage,
    Prepare,
    PreVote,
    PreVoteGranted,
    Promise,
    Refuse,
    TakeOver,
    Truncated,
)
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
    encode_ballot,
)


class Agent:
    """The state of one replica's consensus, and every transition of it that a message causes."""

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
        self.configuration = durable.configuration or configuration
        self.ballot_in_force = NO_BALLOT  # of the LEADS entries seen in this life; the machine keeps the lasting one
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

    # --- what arrives -------------------------------------------------------------------------------------------------

    def step(self, source: int, message: PeerMessage) -> None:
        """A message of consensus from replica `source` arrived."""
        match message:
            case Accept():
                self._on_accept(source, message)
            case messages.Accepted():
                self._on_accepted(source, message)
            case Prepare():
                self._on_prepare(source, message)
            case Promise():
                self._on_promise(source, message)
            case PreVote():
                self._on_pre_vote(source, message)
            case PreVoteGranted():
                self._on_pre_vote_granted(source, message)
            case Refuse():
                self._on_refuse(source, message)
            case Fetch():
                self._on_fetch(source, message)
            case Chosen():
                self._on_chosen(source, message)
            case Truncated():
                self._on_truncated(source, message)
            case TakeOver():
                self._on_take_over(message)
            case _:
                raise AssertionError(message)

    # --- phase 2 ------------------------------------------------------------------------------------------------------

    def _on_accept(self, source: int, message: Accept) -> None:
        if message.ballot < self._acceptor.promised:
            self._refuse(source)
            return
        if message.ballot.replica != source or source == self.replica:
            return
        self._promise_at_least(message.ballot)
        if self._leadership is not None or self._candidacy is not None:
            self._stand_back()
        self._election.heard(source, self._now_ms)
        following = self._following
        if following is None or following.ballot != message.ballot:
            following = self._following = Following(self._acceptor, message.ballot, source, message.base)
        following.beat_due = max(following.beat_due, message.heartbeat)
        following.commit = max(following.commit, message.commit)
        self._check = max(self._check, (message.commit, message.chain))
        if following.join():
            following.accept(message)
        else:
            self._fetch(source, message.base - 1)
        self._raise_floor()

    def _on_accepted(self, source: int, message: messages.Accepted) -> None:
        leadership = self._leadership
        if leadership is None or message.ballot != leadership.ballot:
            return
        leadership.accepted(source, message, self._now_ms)
        self._count()

    def _count(self) -> None:
        """Hand out what a quorum has accepted, and confirm what a quorum has confirmed."""
        leadership = self._leadership
        assert leadership is not None
        self._output.confirmed += self._confirmations.reached(leadership.confirmed())
        upto = leadership.chosen()
        if upto > self._log.chosen:
            self._deliver(upto)
        if self._transferring:
            self._transfer()

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
                self.configuration = decode_configuration(entry.value)
        if self.configuration.epoch != epoch:
            self._enter_epoch()

    def _changes_epoch(self, entry: Entry) -> bool:
        """A configuration entry that does not follow the epoch in force is a no-op."""
        return decode_configuration(entry.value).epoch == self.configuration.epoch + 1

    def _enter_epoch(self) -> None:
        """Another set of members votes from the next slot on, and has promised nobody anything: phase 1 starts anew."""
        if self._leadership is not None and self.replica in self.configuration.ids:
            assert self._leadership.last == self._log.chosen, "something was proposed past a configuration entry"
            self._prepare(transfer=False)
        elif self._leadership is not None or self._candidacy is not None:
            self._stand_back()

    # --- phase 1 ------------------------------------------------------------------------------------------------------

    def _refuses(self, source: int, transfer: bool) -> bool:
        """Whether we have a live leader that is not the one who asks. Its own higher Prepare is always heard."""
        if transfer:
            return False
        live = self.replica if self._leadership is not None else self._election.live_leader(self._now_ms)
        return live is not None and live != source

    def _on_pre_vote(self, source: int, message: PreVote) -> None:
        if message.ballot <= self._acceptor.promised or self._refuses(source, transfer=False):
            self._refuse(source)
        else:
            self._output.send_now.append((source, PreVoteGranted(message.ballot, self._log.chosen)))

    def _on_pre_vote_granted(self, source: int, message: PreVoteGranted) -> None:
        candidacy = self._candidacy
        if candidacy is not None and not candidacy.preparing and candidacy.ballot == message.ballot:
            candidacy.grant(source, message.chosen)
            self._advance()

    def _on_prepare(self, source: int, message: Prepare) -> None:
        promised = self._acceptor.promised
        if message.ballot.replica != source:
            return
        if message.ballot < promised or (message.ballot > promised and self._refuses(source, message.transfer)):
            self._refuse(source)
            return
        if message.ballot > promised:
            renewed = self._election.live_leader(self._now_ms) == source
            self._promise_at_least(message.ballot)
            self._stand_back()
            if renewed:
                self._election.heard(source, self._now_ms)
        self._output.send_after_sync.append((source, self._promise_page(message)))

    def _promise_page(self, message: Prepare) -> Promise:
        log = self._log
        start = max(message.from_slot, log.chosen + 1)
        entries = log.page(start, log.last) if start <= log.last else []
        more = bool(entries) and entries[-1].slot < log.last
        return Promise(
            ballot=message.ballot,
            from_slot=message.from_slot,
            entries=tuple(entries),
            chosen=log.chosen,
            unknown=tuple(sorted(self._acceptor.doubtful)),
            next_slot=entries[-1].slot + 1 if more else 0,
        )

    def _on_promise(self, source: int, message: Promise) -> None:
        candidacy = self._candidacy
        if candidacy is None or not candidacy.preparing or candidacy.ballot != message.ballot:
            return
        next_slot = candidacy.promised(source, message)
        if next_slot:
            self._output.send_now.append((source, Prepare(candidacy.ballot, next_slot, candidacy.transfer)))
        self._advance()

    def _on_refuse(self, source: int, message: Refuse) -> None:
        if source not in self.configuration.ids:
            return
        self._highest = max(self._highest, message.promised)
        candidacy = self._candidacy
        if self._leadership is not None:
            if message.promised > self._leadership.ballot:
                # It promised in somebody's failed candidacy: without a ballot above that, it is shut out for ever.
                self._prepare(transfer=False)
        elif candidacy is not None:
            if message.chosen > self._known:
                self._fetch(source, message.chosen)
            if message.promised >= candidacy.ballot and not candidacy.preparing:
                self._stand()

    def _on_take_over(self, message: TakeOver) -> None:
        following = self._following
        if following is not None and following.ballot == message.ballot == self._acceptor.promised:
            self._prepare(transfer=True)

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
        if self.replica not in self.configuration.ids:
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

    # --- from role to role --------------------------------------------------------------------------------------------

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

    def _stand_back(self) -> None:
        """Lead no more, stand no more: follow whoever comes."""
        self._leadership = None
        self._candidacy = None
        self._transferring = False
        self._output.failed += self._confirmations.drop()
        self._election.wait(self._now_ms)

    def _candidate(self, candidacy: Candidacy) -> None:
        self._leadership = None
        self._transferring = False
        self._output.failed += self._confirmations.drop()
        self._candidacy = candidacy
        self._catch_up.stop()
        election_ms = self._timing.election_ms
        self._deadline_ms = self._now_ms + election_ms + int(election_ms * self._luck())
        self._beat_ms = self._now_ms + self._timing.heartbeat_ms

    def _stand(self) -> None:
        """Ask whether a candidacy would find a quorum, before anything is changed by it."""
        ballot = self._next_ballot()
        self._candidate(
            Candidacy(
                replica=self.replica,
                ballot=ballot,
                configuration=self.configuration,
                from_slot=self._log.chosen + 1,
                preparing=False,
            )
        )
        self._output.send_now += [(member, PreVote(ballot)) for member in self._others()]
        self._advance()

    def _prepare(self, *, transfer: bool) -> None:
        """Phase 1 under a ballot of our own, above all that we have heard of."""
        if self.replica not in self.configuration.ids:
            return
        ballot = self._next_ballot()
        self._promise_at_least(ballot)
        first = self._log.chosen + 1
        self._candidate(
            Candidacy(
                replica=self.replica,
                ballot=ballot,
                configuration=self.configuration,
                from_slot=first,
                preparing=True,
                transfer=transfer,
            )
        )
        # Only when our own promise is durable: after a restart we propose above it, so no ballot is ever used twice.
        self._send_promised(self._others(), Prepare(ballot, first, transfer))

    def _advance(self) -> None:
        """Something arrived or reached the disk: whatever waited for it goes on."""
        candidacy = self._candidacy
        if self._leadership is not None:
            self._count()
        elif candidacy is not None and candidacy.preparing:
            self._advance_preparing(candidacy)
        elif candidacy is not None:
            if candidacy.ballot <= self._acceptor.promised:
                self._stand()
            elif candidacy.granted and not self._lags(candidacy):
                self._prepare(transfer=False)

    def _advance_preparing(self, candidacy: Candidacy) -> None:
        if candidacy.ballot != self._acceptor.promised:
            self._stand_back()
        elif candidacy.complete(self._acceptor) and not self._lags(candidacy):
            self._lead_after(candidacy)

    def _lags(self, candidacy: Candidacy) -> bool:
        """Whether a voter knows more to be chosen than we do; then we are fetching it."""
        behind = candidacy.behind()
        if behind is None or behind[1] <= self._log.chosen:
            return False
        self._fetch(*behind)
        return True

    def _lead_after(self, candidacy: Candidacy) -> None:
        """Phase 1 is done: propose again whatever may have been chosen, then LEADS, our first own entry."""
        recovered = candidacy.recovered(self._acceptor)
        self._candidacy = None
        self._following = None
        self._catch_up.stop()
        leadership = Leadership(self._acceptor, self.replica, self.configuration, self._now_ms)
        self._leadership = leadership
        for entry in recovered:
            slot = leadership.propose(entry.kind, entry.value)
            if entry.kind == EntryKind.CONFIGURATION and self._changes_epoch(entry):
                leadership.barrier = slot  # it is the last slot of its epoch: another quorum rules beyond it
                break
        if not leadership.barrier:
            leadership.leads_slot = leadership.propose(int(EntryKind.LEADS), encode_ballot(leadership.ballot))
        self._beat_ms = self._now_ms

    def _transfer(self) -> None:
        """Hand over as soon as somebody has everything, or when waiting for that takes too long."""
        leadership = self._leadership
        assert leadership is not None
        target = leadership.most_advanced(self._now_ms, self._timing.election_ms)
        late = self._now_ms >= self._deadline_ms
        if target is None and not late:
            return
        if target is not None:
            if leadership.followers[target].acked < leadership.last and not late:
                return
            self._output.send_now.append((target, TakeOver(leadership.ballot)))
        self._stand_back()
