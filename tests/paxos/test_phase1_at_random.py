# SPDX-License-Identifier: Apache-2.0
"""Whatever a quorum has accepted is found by every later candidate, among ballots of which many are of one round.

In a simulated group two candidates of one round that both come to lead are rare. Here acceptors and candidacies are
driven without messages and time: of six ballots in two rounds each is led at most once, by any quorum, in any order,
and each acceptor takes of it what it may, as far as it likes. Some lose on a crash what they had accepted, and know it.
"""

from __future__ import annotations

import random

from replicas.paxos.acceptor import Acceptor
from replicas.paxos.candidate import Candidacy
from replicas.paxos.messages import Promise
from replicas.paxos.types import Durable
from replicas.paxos.values import NO_BALLOT, Ballot, Entry, EntryKind, decode_ballot, encode_ballot
from tests.paxos.bench import COMMAND, configuration

REPLICAS = (1, 2, 3)
BALLOTS = [Ballot(round_, replica) for round_ in (1, 2) for replica in REPLICAS]

HISTORIES = 5000
"""A second of them. With one of the bugs that this is for, every thousandth at least shows it."""

STEPS = 16


class Group:
    """Three acceptors, what each ballot's leader proposed, and who has ever accepted it."""

    def __init__(self) -> None:
        self.acceptors = {replica: Acceptor(Durable()) for replica in REPLICAS}
        self.proposals: dict[Ballot, list[Entry]] = {}
        self.accepted: dict[Ballot, dict[int, int]] = {}
        """By ballot and acceptor, the slot up to which it has accepted at that ballot."""
        self.chosen: dict[int, tuple[int, bytes]] = {}

    def promise(self, replica: int, ballot: Ballot) -> None:
        """Durably, as all that is written here."""
        acceptor = self.acceptors[replica]
        if ballot > acceptor.promised:
            acceptor.promise(ballot)
        acceptor.synced(acceptor.seal(0)[1])

    def lead(self, ballot: Ballot, voter: int, count: int) -> None:
        """The ballot's owner asks `voter`, or everybody, and proposes what it finds, LEADS and some commands."""
        own = ballot.replica
        voters = [other for other in REPLICAS if other != own and voter in {other, own}]
        if ballot in self.proposals or any(self.acceptors[one].promised >= ballot for one in (own, *voters)):
            return
        candidacy = Candidacy(
            replica=own, ballot=ballot, configuration=configuration(REPLICAS), from_slot=1, preparing=True
        )
        for one in (own, *voters):
            self.promise(one, ballot)
        for one in voters:
            log = self.acceptors[one].log
            doubts = tuple(sorted(self.acceptors[one].doubtful))
            assert candidacy.promised(one, Promise(ballot, 1, tuple(log.span(1, log.last)), 0, doubts, 0)) == 0
        if not candidacy.complete(self.acceptors[own]):
            return
        found = candidacy.recovered(self.acceptors[own], NO_BALLOT)
        assert [entry.slot for entry in found] == [*range(1, len(found) + 1)]
        begin = len(found) + 1
        found.append(Entry(begin, ballot, int(EntryKind.LEADS), encode_ballot(ballot)))
        found += [Entry(begin + n, ballot, COMMAND, encode_ballot(ballot)) for n in range(1, count)]
        self.proposals[ballot], self.accepted[ballot] = found, {}
        self.accept(ballot, own, len(found))

    def accept(self, ballot: Ballot, replica: int, count: int) -> None:
        """The next few proposals of that ballot arrive, if it has a leader and nothing higher was promised."""
        acceptor = self.acceptors[replica]
        if ballot not in self.proposals or acceptor.promised > ballot:
            return
        self.promise(replica, ballot)
        before = self.accepted[ballot].get(replica, 0)
        for entry in self.proposals[ballot][before : before + count]:
            acceptor.write(entry)
            self.accepted[ballot][replica] = entry.slot
        self.promise(replica, ballot)

    def doubt(self, replica: int, slot: int) -> None:
        """It starts again, and its disk cannot tell any more what it held in that slot."""
        log = self.acceptors[replica].log
        if not 1 <= slot <= log.last or any(slot in acceptor.doubtful for acceptor in self.acceptors.values()):
            return
        gone = Entry(slot, NO_BALLOT, int(EntryKind.NOOP), b"")
        entries = tuple(gone if entry.slot == slot else entry for entry in log.span(1, log.last))
        former = self.acceptors[replica]
        doubtful = frozenset({slot, *former.doubtful})
        self.acceptors[replica] = Acceptor(Durable(promised=former.promised, entries=entries, doubtful=doubtful))

    def check(self) -> None:
        """One value in a slot at most; and behind a LEADS nothing that an earlier leader has proposed by itself."""
        for ballot, by in self.accepted.items():
            upto = sorted([0, 0, *by.values()])[-2]
            for entry in self.proposals[ballot][:upto]:
                value = (entry.kind, entry.value)
                assert self.chosen.setdefault(entry.slot, value) == value, f"slot {entry.slot} at {ballot}"
        reign = NO_BALLOT
        for _, (kind, value) in sorted(self.chosen.items()):
            if kind != EntryKind.NOOP:
                proposer = decode_ballot(value)
                assert proposer >= reign or kind == EntryKind.LEADS, f"a command of {proposer} is chosen behind {reign}"
                reign = max(reign, proposer)

    def step(self, luck: random.Random) -> None:
        """Something that can happen now: the lowest ballots first, or there would soon be nothing left to happen."""
        replica, count = luck.choice(REPLICAS), luck.randint(1, 4)
        kind = luck.choice(("lead", "lead", "accept", "accept", "accept", "doubt"))
        if kind == "lead":
            free = [ballot for ballot in BALLOTS if ballot > self.acceptors[ballot.replica].promised]
            if free:
                self.lead(luck.choice(free[:2]), replica, count)
        elif kind == "accept" and self.proposals:
            self.accept(luck.choice([*self.proposals]), replica, count)
        elif kind == "doubt" and count == 1:
            self.doubt(replica, luck.randint(1, 3))


def test_what_a_quorum_has_accepted_is_chosen_for_ever() -> None:
    """Also where the two ballots that a candidate finds in a slot, or around a LEADS, are of one round."""
    for seed in range(HISTORIES):
        luck = random.Random(seed)
        group = Group()
        for _ in range(STEPS):
            group.step(luck)
            group.check()
