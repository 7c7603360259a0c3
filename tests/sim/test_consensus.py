# SPDX-License-Identifier: Apache-2.0
"""Bare consensus in seeded worlds: crashes, lost writes, partitions, slow disks, pauses, transfers, other members."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from replicas.paxos.messages import Accept, Accepted, Prepare, Promise
from replicas.paxos.types import Accepted as AcceptedRecord
from replicas.paxos.types import Ballot, Configuration, Entry, EntryKind, Member
from replicas.paxos.types import Promised as PromisedRecord
from tests.sim import replay
from tests.sim.checker import Agreement
from tests.sim.evidence import ROOMY, Evidence
from tests.sim.faults import Faults
from tests.sim.peace import references
from tests.sim.records import RecordDisk
from tests.sim.rivals import Rivalry
from tests.sim.simulation import SIZES, ConsensusSimulation

FOUND: list[tuple[int, int]] = [
    (1, 5),  # a page of chosen entries was taken without promising what they were chosen under
    (35, 7),  # entries that a snapshot holds were handed out after it
    (0, 3),  # a follower that came back in doubt of what it had acknowledged was never sent it again
]
"""(seed, replicas) of worlds that show a fault that was once here; what it was stands beside each. When worlds change,
the recorded worlds of the same faults, planted (tests/mutants), say which seeds these are by then.
"""

ASKED_TOO_MUCH = [
    (7613, 5),  # a sync that had begun before it was mended hung until the end
    (2083, 4),  # a connection carried nothing until a message of the time of trouble had arrived
    (8413, 3),  # a leader had counted its LEADS and not handed it out, and was looked at in between
    (4533, 7),  # one whose disk hung came back with a promise that it had never sent, above its leader's ballot
]
"""(seed, replicas) of worlds whose peace was once asked for what no protocol can give."""

RIVALRIES = 40
"""Six seconds."""

CALM = Faults(every_us=(1_000, 100_000), mend=1.0)


def test_replicas_agree(sim_seed: int) -> None:
    """No crash, loss, delay or partition makes two replicas choose differently, forget, or stay apart once it is
    over.
    """
    replay.run(sim_seed)


@pytest.mark.parametrize("seed", range(RIVALRIES))
def test_replicas_agree_though_candidates_stand_at_one_moment(seed: int) -> None:
    """Many ballots are of one round, and which of two is the higher one only their replicas say."""
    Rivalry(seed, replicas=SIZES[seed % len(SIZES)]).run()


def test_rivals_share_rounds() -> None:
    """Else their worlds would be like all others."""
    worlds = [Rivalry(seed, replicas=3) for seed in range(4)]
    for world in worlds:
        world.run()
    assert sum(world.shared for world in worlds) > 20


@pytest.mark.parametrize(("seed", "replicas"), FOUND)
def test_what_was_found_stays_mended(seed: int, replicas: int) -> None:
    """Seeds land here first, then as the smallest test in tests/paxos that shows the fault."""
    replay.run(seed, replicas)


@pytest.mark.parametrize(("seed", "replicas"), ASKED_TOO_MUCH)
def test_peace_asks_for_nothing_that_cannot_be(seed: int, replicas: int) -> None:
    """What began before all was mended is over before anybody must be prompt, and to keep a promise is no fault."""
    replay.run(seed, replicas)


def test_one_seed_is_one_story() -> None:
    """The same seed gives the same trace, and another seed another one; else no failure could be looked into."""
    traces = [replay.run(seed, 3).kernel.trace for seed in (11, 11, 12)]
    assert traces[0] == traces[1] != traces[2]


def test_a_calm_world_loses_nothing() -> None:
    """Without mishaps every proposal to the leader is chosen and one leader stays: the simulator itself adds no faults.
    (What follows the time of trouble takes down a minority, perhaps with the leader.)
    """
    simulation = ConsensusSimulation(5, replicas=3, faults=CALM)
    simulation.run()
    assert len(simulation.agreement.acknowledged) > 100
    assert simulation.reigns_in_trouble == 1


def test_worlds_are_wild() -> None:
    """Leaders come and go, snapshots are fetched, disks are in doubt, and questions are answered all the while: else
    the rules would hold for want of an occasion.
    """
    worlds = [replay.run(seed) for seed in range(1_000, 1_024)]
    assert sum(world.agreement.reigns for world in worlds) > 5 * len(worlds)
    assert sum(world.agreement.confirmed for world in worlds) > 20 * len(worlds)
    assert sum(world.agreement.failed for world in worlds) > len(worlds)
    assert sum(world.agreement.configuration.epoch > 2 for world in worlds) > len(worlds) / 10
    spoken = sum((world.agreement.evidence.spoken for world in worlds[1:]), worlds[0].agreement.evidence.spoken)
    for kind in ("TakeOver", "Truncated", "SnapshotGiven", "Chosen", "Refuse", "PreVote", "Promise"):
        assert spoken[kind] > len(worlds), kind


# --- the checks themselves: what cannot fail would prove nothing

MEMBERS = tuple(Member(number, f"r{number}", b"") for number in (1, 2, 3))
CONFIGURATION = Configuration("simulated", 1, MEMBERS, b"")
LOW, HIGH = Ballot(1, 1), Ballot(2, 2)


class Scene:
    """Three disks and what is known of them."""

    def __init__(self) -> None:
        self.evidence = Evidence(ROOMY)
        self.agreement = Agreement(CONFIGURATION, self.evidence)
        luck = ConsensusSimulation(1, replicas=1, faults=CALM).kernel.random
        for member in CONFIGURATION.ids:
            keep: Callable[[Entry], None] = lambda entry, member=member: self.evidence.durable(member, entry)  # noqa: E731
            self.evidence.disks[member] = RecordDisk(luck, keep)
            self.evidence.began(member)

    def accept(self, member: int, ballot: Ballot, slot: int, value: bytes, *, sync: bool = True) -> Entry:
        """That replica has promised, and accepted, and perhaps it is safe."""
        entry = Entry(slot, ballot, EntryKind.COMMAND, value)
        records: list[PromisedRecord | AcceptedRecord] = [AcceptedRecord(entry)]
        if self.evidence._promised[member] < ballot:
            records.insert(0, PromisedRecord(ballot))
        self.evidence.written(member, records)
        self.evidence.disks[member].write(records)
        if sync:
            self.evidence.disks[member].sync(1)
        return entry


def test_the_checker_sees_two_values_in_one_slot() -> None:
    """What was handed out is compared with what was handed out before."""
    simulation = ConsensusSimulation(5, replicas=3, faults=CALM)
    simulation.run()
    slot, (kind, value) = next(iter(simulation.agreement.log.items()))
    with pytest.raises(AssertionError, match=f"slot {slot} is"):
        simulation.agreement.chosen(1, Entry(slot, LOW, kind, value + b"!"))


def test_the_checker_sees_what_no_quorum_holds() -> None:
    """One disk that has it, and another that was only told to write it, are no quorum of three."""
    scene = Scene()
    scene.accept(1, LOW, 1, b"x")
    entry = scene.accept(2, LOW, 1, b"x", sync=False)
    with pytest.raises(AssertionError, match="no quorum's disks hold that"):
        scene.agreement.chosen(1, entry)


def test_the_checker_sees_a_choice_overruled() -> None:
    """Before anybody hands out the other value: it is enough that it was proposed above."""
    scene = Scene()
    scene.agreement.propose(b"x", 1, LOW)
    scene.agreement.reign = LOW
    for member in (1, 2):
        entry = scene.accept(member, LOW, 1, b"x")
    scene.agreement.chosen(1, entry)
    with pytest.raises(AssertionError, match=r"was chosen under .1, 1., and is proposed with another value"):
        scene.accept(3, HIGH, 1, b"y")


def test_the_checker_sees_a_command_out_of_its_reign() -> None:
    """A leader's proposal that is chosen behind a later leader's LEADS stands on what its leader never saw."""
    scene = Scene()
    scene.agreement.propose(b"x", 1, LOW)
    scene.agreement.reign = HIGH
    for member in (1, 2):
        entry = scene.accept(member, LOW, 1, b"x")
    with pytest.raises(AssertionError, match="chosen in the reign of"):
        scene.agreement.chosen(1, entry)


def test_the_checker_sees_what_is_said_and_not_so() -> None:
    """Acknowledgements and promises are held against the disk of who says them."""
    scene = Scene()
    scene.accept(1, LOW, 1, b"x")
    scene.accept(2, LOW, 1, b"x", sync=False)
    promise = Promise(HIGH, 1, (), 0, (), 0)
    for member, message, complaint in (
        (1, Accepted(LOW, 2, 2, 0), "acknowledges slot 2, which it does not hold"),
        (2, Accepted(LOW, 1, 1, 0), "has only promised"),
        (1, promise._replace(ballot=LOW), None),
        (1, promise, "has only promised"),
        (3, Prepare(Ballot(1, 3), 1, False), "has only promised"),
        (1, Accept(LOW, 1, 2, b"", (), 1, 0, 1), "more to be chosen than anybody"),
        (1, Accept(LOW, 1, 2, b"", (b"",) * (ROOMY.page_entries + 1), 0, 0, 1), "entries in one message"),
    ):
        if complaint is None:
            scene.evidence.said(member, message)
        else:
            with pytest.raises(AssertionError, match=complaint):
                scene.evidence.said(member, message)
    scene.accept(1, HIGH, 2, b"y")
    with pytest.raises(AssertionError, match="does not tell of slot 1"):
        scene.evidence.said(1, promise)


def test_the_checker_sees_a_choice_counted_at_a_lower_ballot() -> None:
    """What a later ballot has chosen may stand in a log, and says nothing to the leader of an earlier one."""
    scene = Scene()
    scene.accept(1, LOW, 1, b"x", sync=False)
    scene.agreement.propose(b"y", 1, HIGH)
    scene.agreement.reign = HIGH
    for member in (2, 3):
        entry = scene.accept(member, HIGH, 1, b"y")
    scene.agreement.chosen(2, entry)
    scene.evidence.said(2, Accepted(HIGH, 1, 1, 0))
    with pytest.raises(AssertionError, match=r"under .1, 1., and only .2, 2. chose it"):
        scene.evidence.said(3, Accepted(LOW, 1, 1, 0))


def test_the_checker_sees_stale_answers() -> None:
    """A read below what others have answered, or by a leader that a quorum had deposed before it was asked."""
    scene = Scene()
    scene.agreement.confirm(1, 5, 5, leads=True)
    with pytest.raises(AssertionError, match="reads at 4 what others have seen at 5"):
        scene.agreement.confirm(1, 4, 5, leads=True)
    with pytest.raises(AssertionError, match="deposed by a quorum before the question"):
        scene.agreement.confirm(1, 5, 5, leads=False)
    scene.accept(2, HIGH, 1, b"x")
    assert scene.evidence.could_confirm(LOW, CONFIGURATION)
    scene.accept(3, HIGH, 1, b"x")
    assert not scene.evidence.could_confirm(LOW, CONFIGURATION)


def test_references_are_counted_wherever_they_hang() -> None:
    """Else a leak would be looked for in the wrong place."""
    simulation = ConsensusSimulation(5, replicas=3, faults=CALM)
    simulation.run()
    core = simulation.hosts[1].core
    before = references(core)
    core._confirmations._rounds.append((1, [object()] * 100))
    assert references(core) == before + 103
