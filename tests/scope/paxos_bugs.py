# SPDX-License-Identifier: Apache-2.0
"""Bugs that consensus must not have, each with a small scope that finds it."""

from __future__ import annotations

from typing import Final

from tests.scope.planting import Bug
from tests.scope.words import Scope

_PLAIN = Scope(ballots=2, slots=1, catching_up=False)
_COMMANDS = Scope(ballots=2, slots=2, catching_up=False)
_SLOW = Scope(ballots=1, slots=1, slow_disk=True, beats=1, standing=(1,), catching_up=False)
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
)
