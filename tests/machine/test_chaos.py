# SPDX-License-Identifier: Apache-2.0
"""Whole histories: the invariants hold after every entry, replicas agree byte for byte, and snapshots are the state."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from dthreading.errors import ProtocolError
from dthreading.wire.codec import encode, pack, unpack
from replicas.machine.core import Effects, Machine
from tests.machine.chaos import Chaos, check

SEEDS = (*range(15), 53, 95, 104, 184, 264)
"""Some that come first, and those that have found something."""

LENGTH = 1200


def told(effects: Effects) -> object:
    """All that an entry brought about, as it would be sent."""
    replies = [(session, encode(message)) for session, message in effects.replies]
    return replies, list(effects.opened), list(effects.resumed), list(effects.ended), list(effects.idle)


@pytest.mark.parametrize("seed", SEEDS)
def test_invariants_hold_after_every_entry(seed: int) -> None:
    """One owner a lock, every waiter in one queue and of a live session, nothing kept for nobody, fences that grow."""
    chaos = Chaos(seed)
    fence = 0
    for _ in chaos.entries(LENGTH):
        check(chaos.machine)
        assert chaos.machine.fence >= fence
        fence = chaos.machine.fence


def test_chaos_reaches_everything() -> None:
    """A random log that never parks, grants, breaks or expires would prove nothing."""
    seen: set[str] = set()
    for seed in SEEDS:
        chaos = Chaos(seed)
        for _ in chaos.entries(LENGTH):
            for session in chaos.machine.sessions.values():
                seen.update(
                    f"{waiter.owner.kind}.{waiter.operation.name} at {waiter.queue.owner.kind}"  # type: ignore[union-attr]
                    for waiter in session.waits.values()
                )
    assert {
        "Lock.acquire at Lock", "RLock.acquire at RLock", "RLock.acquire_restore at RLock",
        "Condition.wait at Condition", "Condition.wait at RLock", "Condition.wait at Lock",
        "Semaphore.acquire at Semaphore", "BoundedSemaphore.acquire at BoundedSemaphore", "Event.wait at Event",
        "Barrier.wait at Barrier", "Barrier.reset at Barrier", "Barrier.abort at Barrier",
        "Queue.put at Queue", "Queue.get at Queue", "Queue.join at Queue", "LifoQueue.put at LifoQueue",
        "PriorityQueue.get at PriorityQueue", "SimpleQueue.get at SimpleQueue",
    } <= seen  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
def test_replicas_with_the_same_log_are_equal(seed: int) -> None:
    """Same log, same replies, same digest, same bytes of the whole state."""
    chaos = Chaos(seed)
    first, second = Machine(), Machine()
    for entry in chaos.entries(LENGTH):
        assert told(first.apply(entry)) == told(second.apply(entry))
    assert first.digest == second.digest == chaos.machine.digest
    assert first.dump() == second.dump() == chaos.machine.dump()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_snapshot_written_in_slices_is_of_its_slot(seed: int) -> None:
    """Written a few bytes at a time while commands go on, it holds what the state was when it began: not a byte more.

    This is what finds a change that nobody announced with `touch`.
    """
    chance = random.Random(seed)
    entries = list(Chaos(seed).entries(LENGTH))
    machine = Machine()
    position = 0
    taken = 0
    while position < len(entries):
        at_once = machine.dump()
        writer = machine.snapshot()
        chunks: list[bytes] = []
        while not writer.done:
            chunk = writer.step(chance.choice([1, 30, 300]))
            chunks.append(chunk)
            for entry in entries[position : position + chance.choice([0, 1, 3])]:
                machine.apply(entry)
                position += 1
        assert b"".join(chunks) == at_once
        taken += 1
        if machine.applied < len(entries):
            machine.apply(entries[position])
            position += 1
    assert taken > 5


@pytest.mark.parametrize("seed", SEEDS)
def test_a_restored_state_behaves_the_same_for_ever_after(seed: int) -> None:
    """restore(dump(state)) gives the same replies to everything that follows, and the same bytes at the end."""
    chance = random.Random(seed)
    entries = list(Chaos(seed).entries(LENGTH))
    machine = Machine()
    restored: list[Machine] = []
    for entry in entries:
        effects = told(machine.apply(entry))
        for other in restored:
            assert told(other.apply(entry)) == effects
        if chance.random() < 0.01:
            whole = machine.dump()
            cut = chance.randrange(1, 40)
            other = Machine.restore(whole[at : at + cut] for at in range(0, len(whole), cut))
            assert other.dump() == whole
            check(other)
            restored = [*restored[-2:], other]
    for other in restored:
        assert other.digest == machine.digest
        assert other.dump() == machine.dump()


def test_a_snapshot_that_was_cut_short_is_refused() -> None:
    """At whatever byte it ends early."""
    chaos = Chaos(1)
    for _ in chaos.entries(200):
        pass
    whole = chaos.machine.dump()
    Machine.restore([whole])
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        with pytest.raises(ProtocolError, match="cut short"):
            Machine.restore([whole[:length]])


def test_a_snapshot_of_another_format_is_refused() -> None:
    """By name; and so is a record that this version does not know."""
    whole = Machine().dump()
    length = int.from_bytes(whole[:4], "big")
    kind, _, *rest = unpack(whole[4 : 4 + length])

    def framed(record: object) -> bytes:
        return len(pack(record)).to_bytes(4, "big") + pack(record)

    assert Machine.restore([framed((kind, 1, *rest)), whole[4 + length :]]).dump() == whole
    with pytest.raises(ProtocolError, match="format 99"):
        Machine.restore([framed((kind, 99, *rest)), whole[4 + length :]])
    with pytest.raises(ProtocolError, match="unknown kind 77"):
        Machine.restore([framed((77, 1)), whole])


PRINT_DUMP = """
import sys
sys.path.insert(0, ".")
from tests.machine.chaos import Chaos
chaos = Chaos(7)
for _ in chaos.entries(600):
    pass
print(chaos.machine.digest.hex(), chaos.machine.dump().hex())
"""


def test_processes_with_other_hash_seeds_agree() -> None:
    """Nothing depends on the order of a set or on hash()."""
    root = Path(__file__).resolve().parents[2]
    outputs = {
        subprocess.run(
            [sys.executable, "-c", PRINT_DUMP],
            check=True, cwd=root, capture_output=True, timeout=60, env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1", "4711")
    }  # fmt: skip
    assert len(outputs) == 1
