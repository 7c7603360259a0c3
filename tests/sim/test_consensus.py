# SPDX-License-Identifier: Apache-2.0
"""Bare consensus in seeded worlds: crashes, lost writes, partitions, slow disks, pauses, transfers, other members."""

from __future__ import annotations

import pytest

from tests.sim import replay
from tests.sim.faults import Faults
from tests.sim.simulation import ConsensusSimulation

SIZES = (3, 5, 3, 5, 3, 1, 3, 7, 2, 4)
"""Which group a seed gets: mostly those that people run, and the even and odd sizes beside."""

FOUND: list[tuple[int, int]] = [
    (136, 3),  # a page of chosen entries was taken without promising what they were chosen under
    (37, 7),  # entries that a snapshot holds were handed out after it
    (27, 7),  # a follower that came back in doubt of what it had acknowledged was never sent it again
]
"""(seed, replicas) of worlds that show a fault that was once here; what it was stands beside each."""


def test_replicas_agree(sim_seed: int) -> None:
    """No crash, loss, delay or partition makes two replicas choose differently, forget, or stay apart once it is
    over.
    """
    replay.run(sim_seed, SIZES[sim_seed % len(SIZES)])


@pytest.mark.parametrize(("seed", "replicas"), FOUND)
def test_what_was_found_stays_mended(seed: int, replicas: int) -> None:
    """Seeds land here first, then as the smallest test in tests/paxos that shows the fault."""
    replay.run(seed, replicas)


def test_one_seed_is_one_story() -> None:
    """The same seed gives the same trace, and another seed another one; else no failure could be looked into."""
    traces = [replay.run(seed, 3).kernel.trace for seed in (11, 11, 12)]
    assert traces[0] == traces[1] != traces[2]


def test_a_calm_world_loses_nothing() -> None:
    """Without mishaps every proposal to the leader is chosen and one leader stays: the simulator itself adds no
    faults.
    """
    simulation = ConsensusSimulation(5, replicas=3, faults=Faults(every_us=(1_000, 100_000), mend=1.0))
    simulation.run()
    assert len(simulation.agreement.acknowledged) > 100
    assert {host.core.promised.round for host in simulation.hosts.values()} == {1}


def test_the_checker_sees_two_values_in_one_slot() -> None:
    """A checker that cannot fail would prove nothing."""
    simulation = ConsensusSimulation(5, replicas=3, faults=Faults(every_us=(1_000, 100_000), mend=1.0))
    simulation.run()
    slot, (kind, value) = next(iter(simulation.agreement.log.items()))
    simulation.agreement.log[slot] = (kind, value + b"!")
    core = simulation.hosts[1].core
    with pytest.raises(AssertionError, match=f"slot {slot} is"):
        simulation.agreement.chosen(1, core._log.get(slot) if slot >= core.first_kept else _entry(slot, kind, value))


def _entry(slot: int, kind: int, value: bytes) -> object:
    from replicas.paxos.types import NO_BALLOT, Entry

    return Entry(slot, NO_BALLOT, kind, value)
