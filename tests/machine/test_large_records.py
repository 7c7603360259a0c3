# SPDX-License-Identifier: Apache-2.0
"""States whose records are as large as clients can make them: a snapshot is of use only if it can be read back, since
every replica starts from one, and all would fail alike.
"""

from __future__ import annotations

import pytest

from dthreading.errors import ProtocolError
from dthreading.wire import messages as wire
from dthreading.wire.codec import decode, encode
from dthreading.wire.limits import ELEMENTS_PER_FRAME_MAX
from replicas.machine.core import Machine
from replicas.objects.condition import Condition
from tests.machine.harness import Bench, Client


def test_a_priority_of_as_many_elements_as_a_frame_may_have_is_restored(bench: Bench, ann: Client) -> None:
    """A snapshot puts more around it than the call did, and no replica could start from one that it cannot read."""
    queue = ann.attach("PriorityQueue", "q", 0, False)
    rows = ((0,) * 65_000,) * 16
    elements = 8 + 3 + 17 + 16 * 65_000  # of the frame, the arguments, the priority, its first rows
    priority = (*rows, (0,) * (ELEMENTS_PER_FRAME_MAX - elements))
    call = wire.Call(ann.id, 1, 1, queue.number, "put", (True, b"x", priority), False)
    assert decode(encode(call)) == call
    with pytest.raises(ProtocolError):
        decode(encode(call._replace(arguments=(True, b"x", (*priority, 0)))))
    bench.do(call)
    for _ in range(2):
        assert Machine.restore([bench.machine.dump()]).dump() == bench.machine.dump()
        queue.get(True)


def with_small_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a record's array might have a thousandth of what it may."""
    monkeypatch.setattr("dthreading.wire.codec.ELEMENTS_MAX", 65)
    monkeypatch.setattr("replicas.objects.condition.TOGETHER_MAX", 64, raising=False)


@pytest.mark.parametrize("size", [3, 63, 64, 600])
def test_notifies_that_many_have_not_heard_of_are_restored(
    bench: Bench, ann: Client, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A session may have more lanes than a record's array may have elements, and so may a group have sessions."""
    with_small_records(monkeypatch)
    lock = ann.attach("Lock", "l")
    condition = ann.attach("Condition", "c", "n", "l", "Lock")
    for lane in range(size):
        lock.acquire(True, 1, lane=lane)
        condition.wait(lock.number, 1, None, lane=lane)
    lock.acquire(True, 1, lane=size)
    condition.notify(lock.number, 1, -1, None, lane=size)
    for _ in range(size + 1):
        lock.release(None, lane=size)
    unheard = bench.object("c").unheard
    assert [len(lanes) for lanes in unheard.values()] == [size]
    restored = Machine.restore([bench.machine.dump()])
    assert restored.registry.objects["n", "c"].unheard == unheard  # type: ignore[attr-defined]
    assert restored.dump() == bench.machine.dump()


def test_notifies_that_many_sessions_have_not_heard_of_are_restored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_small_records(monkeypatch)
    clients = [bench.open() for _ in range(600)]
    locks = [client.attach("Lock", "l") for client in clients]
    conditions = [client.attach("Condition", "c", "n", "l", "Lock") for client in clients]
    for client, lock, condition in zip(clients, locks, conditions, strict=True):
        lock.acquire(True, 1, lane=1)
        condition.wait(lock.number, 1, None, lane=1)
    locks[0].acquire(True, 1, lane=2)
    conditions[0].notify(locks[0].number, 1, -1, None, lane=2)
    for _ in clients:
        locks[0].release(None, lane=2)
    unheard = bench.object("c").unheard
    assert len(unheard) == len(clients)
    restored = Machine.restore([bench.machine.dump()])
    assert list(restored.registry.objects["n", "c"].unheard) == list(unheard)  # type: ignore[attr-defined]
    assert restored.dump() == bench.machine.dump()


def test_notifies_of_a_former_snapshot_are_all_read() -> None:
    """They all stood in one record."""
    condition = Condition(Machine(), "n", "l", "Lock")
    condition.load(((7, 1, 2), (8, 3)))
    assert condition.unheard == {7: {1: None, 2: None}, 8: {3: None}}
    assert condition.dump() == ((7, 1, 2), (8, 3))
    assert list(condition.dump_rows()) == []
