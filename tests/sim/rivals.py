# SPDX-License-Identifier: Apache-2.0
"""A world of bare consensus in which candidates stand at one moment, so that many ballots are of one round.

Pre-vote, patience and stickiness see to it that two candidates rarely prepare at once, so a ballot compared by its
round alone does hardly ever harm in the other worlds. Here several replicas prepare as if a leader had asked each of
them to take over, again and again: that costs reigns and is otherwise any candidate's right.
"""

from __future__ import annotations

from replicas.paxos.core import Paxos
from tests.sim.simulation import ConsensusSimulation

SPANS = (1, 4, 20)
"""Between two such moments, in election timeouts: most reigns end early, some, or few."""


class Rivalry(ConsensusSimulation):
    """See above."""

    _span_us = 0

    @property
    def shared(self) -> int:
        """How many rounds several candidates have had in common."""
        return sum(len(owners) > 1 for owners in self._owners.values())

    def _work(self) -> None:
        if not self._span_us:
            self._owners: dict[int, set[int]] = {}
            self._span_us = self.kernel.random.choice(SPANS) * self.faults.timing.election_ms * 1_000
            self.kernel.at(self.kernel.between(0, self._span_us), self._rival)
        super()._work()

    def _rival(self) -> None:
        if not self._working:
            return
        luck = self.kernel.random
        many = min(len(self.hosts), luck.choice((2, 2, 3)))
        for number in luck.sample(sorted(self.hosts), many):
            self.kernel.at(luck.choice((0, 0, 500, 5_000)), self.hosts[number].do, self._stand)
        self.kernel.at(self.kernel.between(1_000, 2 * self._span_us), self._rival)

    def _stand(self, core: Paxos) -> None:
        core._prepare(transfer=True)
        self._owners.setdefault(core.ballot.round, set()).add(core.ballot.replica)
