# SPDX-License-Identifier: Apache-2.0
"""The group within the process: what the garbage collector runs in the middle of it must not stop the user's test."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

import dthreading
import dthreading.queue
from dthreading.errors import GroupUnreachable
from dthreading.testing import local

WAIT_S = 30


@pytest.fixture(autouse=True)
def _quiet_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTHREADING_NAMING", "auto")


def test_a_finalizer_in_the_groups_own_thread_is_heard_or_refused_and_never_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The collector runs it wherever it comes; nobody but that very thread could answer it."""
    outcomes: list[Any] = []
    with local.group() as group:
        items, lock = dthreading.queue.SimpleQueue(name="items"), dthreading.Lock(name="lock")
        applied = group.machine.apply

        def apply(entry: Any) -> Any:
            monkeypatch.setattr(group.machine, "apply", applied)
            assert threading.current_thread().name == "dthreading-local"
            items.put("late")
            try:
                outcomes.append(lock.acquire())
            except GroupUnreachable as error:
                outcomes.append(error)
            return applied(entry)

        lock.locked()
        monkeypatch.setattr(group.machine, "apply", apply)
        caller = threading.Thread(target=lambda: outcomes.append(lock.locked()), daemon=True)
        caller.start()
        caller.join(WAIT_S)
        assert not caller.is_alive(), "the group waits for itself"
        assert "in the thread of the local group" in str(outcomes[0])
        assert outcomes[1:] == [False]
        assert items.get(timeout=WAIT_S) == "late"
        assert not group.faults


def test_finalizers_may_call_and_proxies_may_end_at_any_moment() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.itself = self
            self.event = dthreading.Event()
            self.event.set()

        def __del__(self) -> None:
            items.put("ended")

    def storm() -> None:
        threshold = gc.get_threshold()
        gc.set_threshold(1)
        try:
            for _ in range(300):
                Cycle()
                items.put("made")
        finally:
            gc.set_threshold(*threshold)
        gc.collect()

    with local.group() as group:
        items = dthreading.queue.SimpleQueue(name="items")
        stormy = threading.Thread(target=storm, daemon=True)
        stormy.start()
        stormy.join(WAIT_S)
        assert not stormy.is_alive(), "a call waits for a call that it has interrupted"
        said = [items.get(timeout=WAIT_S) for _ in range(600)]
        assert said.count("made") == said.count("ended") == 300
        assert not group.faults
