# SPDX-License-Identifier: Apache-2.0
"""What a call costs does not depend on how much else there is: counted in steps of the interpreter, not in seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dthreading.wire import messages as wire
from replicas.machine.core import Machine
from tests.machine.harness import Bench, Client
from tests.tracing import times_dearer


def pair(client: Client, handle: Any) -> Callable[[], None]:
    def run() -> None:
        handle.release(handle.acquire(True, 1, lane=0), lane=0)

    return run


def test_a_thousand_locks() -> None:
    def pair_among(others: int) -> Callable[[], None]:
        ann = Bench().open()
        for number in range(others):
            ann.attach("Lock", f"l{number}").acquire(True, 1, lane=1)
        return pair(ann, ann.attach("Lock", "last"))

    assert times_dearer(pair_among, few=0, many=1000) <= 1.2


def test_a_thousand_sessions() -> None:
    def pair_among(others: int) -> Callable[[], None]:
        bench = Bench()
        ann = bench.open()
        lock = ann.attach("Lock", "l")
        for number in range(others):
            bench.open(f"client {number}").attach("Lock", "l").locked()
        return pair(ann, lock)

    assert times_dearer(pair_among, few=0, many=1000) <= 1.2


@pytest.mark.parametrize("kind", ["Lock", "Semaphore", "Condition", "Queue"])
def test_ten_thousand_waiters(kind: str) -> None:
    """To hand over, to join the line and to leave its middle costs the same for ten as for ten thousand."""

    def turn_among(waiters: int) -> Callable[[], None]:
        bench = Bench()
        clients = [bench.open(f"client {number}") for number in range(10)]
        if kind == "Lock":
            handles = [client.attach("Lock", "l") for client in clients]
            handles[0].acquire(True, 1)
            park: tuple[Any, ...] = ("acquire", True, 1)
            wake: tuple[Any, ...] = ("release", None)
        elif kind == "Semaphore":
            handles = [client.attach("Semaphore", "l", 0) for client in clients]
            park, wake = ("acquire", True), ("release", 1)
        elif kind == "Queue":
            handles = [client.attach("Queue", "l", 0, False) for client in clients]
            park, wake = ("get", True), ("put", True, b"x")
        else:
            locks = [client.attach("Lock", "lock") for client in clients]
            handles = [client.attach("Condition", "l", "n", "lock", "Lock") for client in clients]
            park = ("wait", locks[0].number, 1, None)
            wake = ("notify", locks[0].number, 1, 1, None)
            assert len({lock.number for lock in locks}) == 1

        def wait_in_line(number: int) -> Any:
            if kind == "Condition":
                locks[0].acquire(True, 1)
            return handles[number % 10].parked(*park)

        parked = [wait_in_line(number) for number in range(waiters)]

        def turn() -> None:
            if kind == "Condition":
                locks[0].acquire(True, 1)
            clients[0].call(handles[0].number, *wake)
            if kind == "Condition":
                locks[0].release(None)
                locks[0].release(None)
            last = wait_in_line(9)
            middle = parked[len(parked) // 2]
            for one in (last, middle):
                bench.do(wire.Withdraw(one.client.id, *one.call, True))

        return turn

    assert times_dearer(turn_among, few=10, many=10_000) <= 1.2


def test_the_end_of_a_session_costs_what_it_holds() -> None:
    """Not what the others hold, nor what it once was attached to."""

    def end_among(others: int) -> Callable[[], Any]:
        bench = Bench()
        bench.leads()
        crowd = bench.open()
        for number in range(others):
            crowd.attach("Lock", f"other {number}").acquire(True, 1)
        ann = bench.open()
        for number in range(10):
            ann.attach("Lock", f"mine {number}").acquire(True, 1)
        return lambda: bench.expire(ann)

    assert times_dearer(end_among, few=10, many=2000) <= 1.2


def test_a_slice_of_a_snapshot_is_small() -> None:
    """However much there is, a step does about what its budget says: one item may be large, a million are cut up."""
    bench = Bench()
    ann = bench.open()
    queue = ann.attach("Queue", "q", 0, False)
    for _ in range(5000):
        queue.put(True, b"x" * 100)
    writer = bench.machine.snapshot()
    sizes = []
    while chunk := writer.step(4096):
        sizes.append(len(chunk))
        queue.get(True, lane=0)
    assert max(sizes) < 3 * 4096
    assert len(sizes) > 100
    assert Machine.restore([bench.machine.dump()]).dump() == bench.machine.dump()
