# SPDX-License-Identifier: Apache-2.0
"""When a replica cuts a snapshot of its own state, slice by slice, and how it puts a peer's together from parts.

Simulated worlds have their snapshots sooner than fifty thousand entries: when they are due is held to here.
"""

from __future__ import annotations

import itertools
import random

import pytest

from dthreading.wire import messages as wire
from replicas.machine.core import Machine
from replicas.paxos.types import Ballot
from replicas.replica import snapshots
from replicas.replica.messages import SnapshotPart, SnapshotRequest
from replicas.replica.output import BeginSnapshot, FinishSnapshot, KeepSnapshotPart, SnapshotChunk
from replicas.replica.snapshots import ENTRIES, INSTALL_MS, LOG_BYTES, PART_RETRY_MS, Cutting, Fetching
from tests.replica.harness import Group

# --- our own ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "count"), [(10, ENTRIES), (LOG_BYTES // 8, 8), (LOG_BYTES + 1, 1)])
def test_a_snapshot_is_due_after_so_many_entries_or_so_many_bytes(size: int, count: int) -> None:
    cutting = Cutting(0)
    for _ in range(count - 1):
        cutting.applied(size)
    assert not cutting.busy
    cutting.applied(size)
    assert cutting.busy


def _filled(monkeypatch: pytest.MonkeyPatch) -> tuple[Group, int]:
    """A group whose snapshots are due every 20 entries, in slices of a few bytes; and its leader."""
    monkeypatch.setattr(snapshots, "ENTRIES", 20)
    monkeypatch.setattr(snapshots, "SLICE_BYTES", 10)
    group = Group()
    leader = group.leader()
    session = group.open(leader, 7)
    group.attach(leader, 7, session, "Semaphore", 3)
    for number in range(1, 61):
        group.say(leader, 7, wire.Call(session, 0, number, 1, "release", (1,), False))
    return group, leader


def test_it_is_written_in_slices_while_commands_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was written is the state as it was at its beginning."""
    group, leader = _filled(monkeypatch)
    for number, outputs in group.outputs.items():
        works = [work for output in outputs for work in output.snapshot]
        assert len([work for work in works if isinstance(work, BeginSnapshot)]) >= 2, f"replica {number}"
        begun: BeginSnapshot | None = None
        data, whole = b"", 0
        for work in works:
            match work:
                case BeginSnapshot():
                    assert begun is None, "one at a time"
                    begun, data = work, b""
                case SnapshotChunk(data=chunk):
                    data += chunk
                case FinishSnapshot(slot=slot):
                    assert begun is not None
                    assert slot == begun.slot
                    restored = Machine.restore([data])
                    assert restored.applied == slot
                    begun, whole = None, whole + 1
        assert whole >= 2
    beginnings = [
        work.slot for output in group.outputs[leader] for work in output.snapshot if isinstance(work, BeginSnapshot)
    ]
    assert all(after - before >= 20 for before, after in itertools.pairwise(beginnings))


def test_it_carries_the_promise_and_not_the_ballot_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a new leader has chosen again stands below its own LEADS, chosen under a ballot that is not in force yet."""
    group, leader = _filled(monkeypatch)
    core = group.replicas[leader]
    promised = Ballot(core.paxos.promised.round + 5, core.paxos.promised.replica)
    core.paxos._promise_at_least(promised)
    cutting = Cutting(0)
    cutting.applied(LOG_BYTES)
    (begun,) = cutting.work(core.machine, core.paxos)
    assert isinstance(begun, BeginSnapshot)
    assert begun.promised == promised


def test_what_comes_while_one_is_written_counts_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    group, leader = _filled(monkeypatch)
    core = group.replicas[leader]
    group.settle()
    cutting = Cutting(0)
    for _ in range(20):
        cutting.applied(1)
    assert [type(work) for work in cutting.work(core.machine, core.paxos)] == [BeginSnapshot]
    for _ in range(20):
        cutting.applied(1)
    kinds = [type(work) for _ in range(10_000) for work in cutting.work(core.machine, core.paxos)][:-1]
    finished = kinds.index(FinishSnapshot)
    assert set(kinds[:finished]) == {SnapshotChunk}
    assert kinds[finished + 1] is BeginSnapshot, "the next was due already"


def test_the_log_is_forgotten_only_up_to_a_snapshot_that_is_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    group, leader = _filled(monkeypatch)
    core = group.replicas[leader]
    assert core.paxos.first_kept == 1, "nobody has said yet that one is durable"
    begun = [work for output in group.outputs[leader] for work in output.snapshot if isinstance(work, BeginSnapshot)]
    first, second = begun[:2]
    core.snapshot_saved(second.slot, second.chain)
    assert core.paxos.first_kept == second.slot + 1
    assert core.status()["snapshot"] == second.slot
    core.snapshot_saved(first.slot, first.chain)  # the disk may tell late
    assert core.paxos.first_kept == second.slot + 1
    assert core.status()["snapshot"] == second.slot


def test_a_state_that_was_exchanged_has_no_snapshot_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    group, leader = _filled(monkeypatch)
    core = group.replicas[leader]
    cutting = Cutting(0)
    cutting.applied(LOG_BYTES)
    cutting.work(core.machine, core.paxos)
    cutting.applied(LOG_BYTES - 1)
    cutting.restart(99)
    assert cutting.slot == 99
    assert not cutting.busy
    assert cutting.work(core.machine, core.paxos) == []
    cutting.applied(1)
    assert not cutting.busy, "what is in the other snapshot does not count"


# --- a peer's ---------------------------------------------------------------------------------------------------------


def part(slot: int, offset: int, data: bytes, *, last: bool = False, total: int = 0) -> SnapshotPart:
    return SnapshotPart(slot, b"header", offset, data, last, total)


def test_parts_are_asked_for_one_after_the_other() -> None:
    fetching = Fetching()
    assert fetching.want(2, 0) == [(2, SnapshotRequest(0, 0))]
    first, second = part(50, 0, b"abc", total=5), part(50, 3, b"de", last=True, total=5)
    assert fetching.came(2, first, 10, 1) == ([KeepSnapshotPart(2, first)], [(2, SnapshotRequest(50, 3))])
    assert fetching.received == (3, 5)
    assert fetching.came(2, second, 10, 2) == ([KeepSnapshotPart(2, second)], [])
    assert fetching.want(2, 2 + INSTALL_MS - 1) == [], "it is being checked and loaded"
    assert fetching.want(2, 2 + INSTALL_MS) == [(2, SnapshotRequest(0, 0))]


def test_a_part_that_does_not_come_is_given_up_after_a_while() -> None:
    """And all begins anew: its peer may have another by now."""
    fetching = Fetching()
    fetching.want(2, 0)
    fetching.came(2, part(50, 0, b"abc"), 10, 5)
    assert fetching.want(2, 5 + PART_RETRY_MS - 1) == []
    assert fetching.want(3, 5 + PART_RETRY_MS) == [(3, SnapshotRequest(0, 0))]
    assert fetching.came(2, part(50, 3, b"de"), 10, 5 + PART_RETRY_MS) == ([], []), "the one who was asked before"
    assert fetching.received[0] == 0


def test_a_newer_snapshot_begins_anew_and_pieces_of_two_are_never_put_together() -> None:
    fetching = Fetching()
    fetching.want(2, 0)
    fetching.came(2, part(50, 0, b"abc"), 10, 1)
    newer = part(60, 0, b"xyz")
    assert fetching.came(2, newer, 10, 2) == ([KeepSnapshotPart(2, newer)], [(2, SnapshotRequest(60, 3))])
    assert fetching.came(2, part(50, 3, b"de"), 10, 3) == ([], [])
    assert fetching.received == (0, 0), "nothing is on its way any more"
    assert fetching.want(2, 4) == [(2, SnapshotRequest(0, 0))], "and nothing is waited for"


@pytest.mark.parametrize(
    "wrong", [part(50, 4, b"x"), part(50, 2, b"x"), part(51, 3, b"x"), part(10, 0, b"x"), part(9, 0, b"x")]
)
def test_what_does_not_continue_or_is_behind_us_is_not_kept(wrong: SnapshotPart) -> None:
    fetching = Fetching()
    fetching.want(2, 0)
    fetching.came(2, part(50, 0, b"abc"), 10, 1)
    assert fetching.came(2, wrong, 10, 2) == ([], [])
    assert fetching.want(2, 3) == [(2, SnapshotRequest(0, 0))]


def test_whatever_gets_lost_doubled_or_mixed_a_whole_is_one_snapshot_without_a_gap() -> None:
    """Two peers, each with a new snapshot now and then; parts that get lost, come twice or late."""
    luck = random.Random(3)
    peers = {2: (40, luck.randbytes(40)), 3: (45, luck.randbytes(70))}
    fetching, now_ms, wholes = Fetching(), 0, 0
    kept: list[SnapshotPart] = []
    late: list[tuple[int, SnapshotPart]] = []
    asked: list[tuple[int, SnapshotRequest]] = []
    for _ in range(20_000):
        now_ms += luck.choice((1, 5, PART_RETRY_MS // 3))
        if luck.random() < 0.004:
            peer = luck.choice((2, 3))
            peers[peer] = (peers[peer][0] + luck.randint(1, 9), luck.randbytes(luck.randint(1, 90)))
        if not asked:
            asked += fetching.want(luck.choice((2, 3)), now_ms)  # type: ignore[arg-type]
        for peer, request in asked:
            slot, data = peers[peer]
            offset = request.offset if request.slot == slot else 0
            piece = data[offset : offset + 10]
            answer = SnapshotPart(slot, b"", offset, piece, offset + 10 >= len(data), len(data))
            late += [(peer, answer)] * luck.choice((0, 1, 1, 1, 1, 1, 2))
        asked = []
        while late and luck.random() < 0.9:
            peer, answer = late.pop(luck.randrange(len(late)))
            work, more = fetching.came(peer, answer, 30, now_ms)
            asked += more  # type: ignore[arg-type]
            for piece_kept in work:
                assert isinstance(piece_kept, KeepSnapshotPart)
                kept = [piece_kept.part] if piece_kept.part.offset == 0 else [*kept, piece_kept.part]
                assert sum(len(one.data) for one in kept[:-1]) == piece_kept.part.offset
                assert len({one.slot for one in kept}) == 1
                if piece_kept.part.last:
                    assert sum(len(one.data) for one in kept) == piece_kept.part.total
                    wholes += 1
                    fetching.done()
    assert wholes > 100
