# SPDX-License-Identifier: Apache-2.0
"""EIO and ENOSPC at each operation of recorded runs; and a disk that does not answer at all.

Deeper: `python -m tests.storage.crashes --failing --stories 100`.
"""

from __future__ import annotations

import contextlib
import random
import threading

import pytest

from replicas.storage import StorageFailed
from tests.sim.disk import SimulatedDisk, SimulatedFile
from tests.storage.crashes.failing import every_failure
from tests.storage.crashes.package import load
from tests.storage.support import formatted, take_snapshot


@pytest.mark.parametrize("seed", range(3))
def test_a_failing_operation_ends_it_and_loses_nothing(seed: int) -> None:
    """StorageFailed comes out; nothing more is acknowledged, or asked of the disk; after any crash all is found that
    was acknowledged. A sync that failed covers nothing, whatever a later one says.
    """
    problems, states = every_failure(load("small"), seed)
    assert not problems, problems[0]
    assert states > 100


@pytest.mark.parametrize("under_way", ["the next segment", "a read of the snapshot"])
def test_the_end_waits_for_no_disk_that_hangs(under_way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a thread is in the middle of belongs to it; the process goes, and lets go of the directory by that."""
    storage = formatted(SimulatedDisk(random.Random(1)))
    take_snapshot(storage, 1)
    inside, gate = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        inside.set()
        assert gate.wait(20)
        raise OSError(5, "the disk is back, and gone")

    monkeypatch.setattr(SimulatedFile, "sync", hang)
    monkeypatch.setattr(SimulatedFile, "read", hang)

    def work() -> None:
        with contextlib.suppress(StorageFailed):
            if under_way == "the next segment":
                storage.prepare()
            else:
                storage.read_snapshot(0, 1)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    assert inside.wait(20)
    closer = threading.Thread(target=storage.close, daemon=True)
    closer.start()
    closer.join(5)
    waits = closer.is_alive()
    gate.set()
    worker.join()
    closer.join()
    assert not waits
