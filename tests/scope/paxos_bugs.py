# SPDX-License-Identifier: Apache-2.0
"""Bugs that consensus must not have, each with a small scope that finds it."""

from __future__ import annotations

from typing import Final

from tests.scope.planting import Bug
from tests.scope.words import Scope

_PLAIN = Scope(ballots=2, slots=1, catching_up=False)
_COMMANDS = Scope(ballots=2, slots=2, catching_up=False)
_SLOW = Scope(ballots=1, slots=1, slow_disk=True, beats=1, standing=(1,), catching_up=False)
_GROWS = Scope(replicas=3, members=(1, 2), changes=((1, 2, 3),), ballots=2, slots=2, standing=(1, 2))
_SHRINKS = Scope(replicas=3, changes=((1, 2),), ballots=2, slots=3, standing=(1,))
_REPLACES = Scope(replicas=3, members=(1, 2), changes=((2, 3),), ballots=2, slots=2, standing=(1, 2))
_TWO_OF_ONE = Scope(replicas=2, members=(1,), changes=((1, 2),), ballots=3, slots=3)
_PAXOS = "replicas.paxos."

BUGS: Final = (
    Bug(
        "phase 1 takes the value of the lowest ballot",
        f"{_PAXOS}candidate:Candidacy._find",
        "entry.ballot > best.ballot",
        "entry.ballot < best.ballot",
        Scope(ballots=3, slots=1, catching_up=False),
    ),
    Bug(
        "a promise is not persisted",
        f"{_PAXOS}acceptor:Acceptor.promise",
        "self._persist.append(Promised(ballot))",
        "self._persist += []",
        _PLAIN,
    ),
    Bug(
        "a promise is answered before it is durable",
        f"{_PAXOS}agent:Agent._on_prepare",
        "self._output.send_after_sync.append",
        "self._output.send_now.append",
        _SLOW,
    ),
    Bug(
        "an acceptor accepts below its promise",
        f"{_PAXOS}agent:Agent._on_accept",
        "message.ballot < self._acceptor.promised",
        "message.ballot < self._acceptor.promised and not message.values",
        _PLAIN,
    ),
    Bug(
        "a quorum is half of the members",
        f"{_PAXOS}values:Configuration.quorum",
        "// 2 + 1",
        "// 2",
        _PLAIN,
    ),
    Bug(
        "acknowledgements are counted, not acceptors",
        f"{_PAXOS}leader:Leadership.accepted",
        "follower = self.followers.get(source)",
        "follower = min(self.followers.values(), key=lambda each: each.acked)",
        _SLOW,
    ),
    Bug(
        "a leader counts itself before its own sync",
        f"{_PAXOS}leader:Leadership.chosen",
        "min(self.last, self._acceptor.durable)",
        "self.last",
        _SLOW,
    ),
    Bug(
        "a heartbeat's answer claims what is not on disk yet",
        f"{_PAXOS}follower:Following.answers",
        "Accepted(self.ballot, self.upto, received, self.beat_due)",
        "Accepted(self.ballot, received, received, self.beat_due)",
        _SLOW,
    ),
    Bug(
        "a leader serves before its LEADS is chosen",
        f"{_PAXOS}core:Paxos.ready",
        "0 < leadership.leads_slot <= self._log.chosen",
        "0 < leadership.leads_slot",
        _PLAIN,
    ),
    Bug(
        "a candidate forgets what it has accepted itself",
        f"{_PAXOS}candidate:Candidacy.recovered",
        "log.span(log.chosen + 1, log.last)",
        "()",
        _PLAIN,
    ),
    Bug(
        "a follower takes the leader's floor for what it accepted under another ballot",
        f"{_PAXOS}follower:Following.held",
        "min(self.commit, self.received)",
        "min(self.commit, self._acceptor.log.last)",
        Scope(ballots=3, slots=2, catching_up=False),
    ),
    Bug(
        "what was accepted under an older ballot counts under the new one",
        f"{_PAXOS}follower:Following._accepted_before",
        "log.get(slot + 1).ballot == self.ballot and",
        "",
        _COMMANDS,
    ),
    Bug(
        "a follower accepts on top of a suffix that was never chosen",
        f"{_PAXOS}follower:Following.join",
        "self._acceptor.log.chosen >= self.base - 1:\n        self.received = self._accepted_before()",
        "self._acceptor.log.last >= self.base - 1:\n        self.received = self._acceptor.log.last",
        Scope(ballots=3, slots=2, catching_up=False),
    ),
    Bug(
        "a change of members rules before it is chosen",
        f"{_PAXOS}core:Paxos.reconfigure",
        "return leadership.barrier",
        "leadership.barrier, leadership.configuration, self.configuration = 0, configuration, configuration\n"
        "    return leadership.last",
        _SHRINKS,
    ),
    Bug(
        "a leader proposes past its change of members",
        f"{_PAXOS}core:Paxos.reconfigure",
        "leadership.barrier = leadership.propose(",
        "return leadership.propose(",
        _SHRINKS,
    ),
    Bug(
        "a new leader proposes past a change of members that it found",
        f"{_PAXOS}agent:Agent._lead_after",
        "leadership.barrier = slot",
        "pass",
        _GROWS,
    ),
    Bug(
        "a leader goes on in a new epoch without phase 1",
        f"{_PAXOS}agent:Agent._enter_epoch",
        "self._prepare(transfer=False)",
        "ballot = self._leadership.ballot\n"
        "        self._leadership = Leadership(self._acceptor, self.replica, self.configuration, self._now_ms)\n"
        "        self._leadership.leads_slot = self._leadership.propose(int(EntryKind.LEADS), encode_ballot(ballot))",
        _TWO_OF_ONE,
    ),
    Bug(
        "in a new epoch, phase 1 counts a quorum of the old one's size",
        f"{_PAXOS}candidate:Candidacy.complete",
        "quorum = self.configuration.quorum",
        "quorum = self.configuration.quorum - (self.configuration.epoch > 1)",
        _TWO_OF_ONE,
    ),
    Bug(
        "in a new epoch, phase 2 counts a quorum of the old one's size",
        f"{_PAXOS}leader:Leadership._quorum_of",
        "[self.configuration.quorum - 1]",
        "[self.configuration.quorum - 1 - (self.configuration.epoch > 1)]",
        _TWO_OF_ONE,
    ),
    Bug(
        "a candidate whose epoch ended goes on with the votes of the old one",
        f"{_PAXOS}agent:Agent._enter_epoch",
        " or self._candidacy is not None",
        "",
        _REPLACES,
    ),
    Bug(
        "a learner's acknowledgement counts",
        f"{_PAXOS}leader:Leadership.__init__",
        "for member in configuration.ids if",
        "for member in (1, 2, 3) if",
        _GROWS,
    ),
    Bug(
        "a leader that is removed leads on",
        f"{_PAXOS}agent:Agent._enter_epoch",
        "        self._stand_back()",
        "        if self._leadership is None:\n            self._stand_back()",
        _REPLACES,
    ),
)
