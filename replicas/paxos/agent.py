# SPDX-License-Identifier: Apache-2.0
"""All roles of one replica and what moves it between them; the rules of who speaks when. core.py is its public face.

A replica follows by default. It stands for election (a candidacy), or leads (a leadership), at most one of the two.
What each role remembers is in acceptor.py, follower.py, candidate.py and leader.py; what it hears is dispatched here.
"""

from __future__ import annotations

from replicas.paxos import messages
from replicas.paxos.candidate import Candidacy
from replicas.paxos.follower import Following
from replicas.paxos.knowledge import Knowledge
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
from replicas.paxos.values import EntryKind, encode_ballot


class Agent(Knowledge):
    """The roles of one replica, and every transition between them that a message causes."""

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
        if self._confirmations.under_way:
            self._output.confirmed += self._confirmations.reached(leadership.confirmed())
        if leadership.last > self._log.chosen:
            upto = leadership.chosen()
            if upto > self._log.chosen:
                self._deliver(upto)
        if self._transferring:
            self._transfer()

    def _enter_epoch(self) -> None:
        """Another set of members votes from the next slot on, and has promised nobody anything: phase 1 starts anew."""
        if self._leadership is not None and self._is_member:
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

    # --- from role to role --------------------------------------------------------------------------------------------

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
        if not self._is_member:
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
        recovered = candidacy.recovered(self._acceptor, self.ballot_in_force)
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
        target = self._successor
        if target not in leadership.followers:
            target = leadership.most_advanced(self._now_ms, self._timing.election_ms)
        late = self._now_ms >= self._deadline_ms
        if target is None and not late:
            return
        if target is not None:
            if leadership.followers[target].acked < leadership.last and not late:
                return
            self._output.send_now.append((target, TakeOver(leadership.ballot)))
        self._stand_back()
