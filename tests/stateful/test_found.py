# SPDX-License-Identifier: Apache-2.0
"""Differences that were found, each as the shortest program that shows it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stateful.duel import Duel
from tests.stateful.specs import Operation, Spec, assign, call, queue


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """`play(spec, (thread, operation), ...)` compares after each."""
    monkeypatch.setenv("DTHREADING_NAMING", "auto")
    duels = []

    def run(spec: Spec, *steps: tuple[int, Operation]) -> Duel:
        duel = Duel(2, 2, spec.make, spec.reads)
        duels.append(duel)
        for thread, (text, work) in steps:
            duel.step(thread, text, work)
        return duel

    yield run
    for duel in duels:
        duel.end()


@pytest.mark.parametrize("kind", ["Queue", "LifoQueue", "PriorityQueue"])
def test_a_queue_that_was_shut_down_says_so_whatever_the_timeout(play, kind):
    """It is looked at before the arguments are: ShutDown, not ValueError. But get() while there are items."""
    play(
        queue(kind, 1),
        (0, call("it", "put", 1)),
        (0, call("it", "shutdown")),
        (1, call("it", "put", 2, timeout=-1)),
        (1, call("it", "get", timeout=-1)),
        (1, call("it", "get")),
        (1, call("it", "get", timeout=-1)),
    )


def test_a_negative_timeout_is_judged_by_the_size_that_holds(play):
    """Another process has given the queue a bound, or taken it away."""
    play(
        queue("Queue", 0),
        (0, assign("it", "maxsize", 3)),
        (1, call("it", "put", 1, timeout=-1)),
        (1, assign("it", "maxsize", 0)),
        (0, call("it", "put", 1, timeout=-1)),
    )
