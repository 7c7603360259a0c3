# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C at every single line of the client that a call runs through, one after the other: no ghost is left by any."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from client_fake import Fake

import dthreading.client
import dthreading.dialing
import dthreading.link
import dthreading.reading
import dthreading.service
import dthreading.session.calls
import dthreading.session.core
import dthreading.session.lanes
from dthreading.client import Client
from dthreading.session import ACQUIRE, RELEASE, TRY_ACQUIRE, WAIT_CONDITION, Answer
from tests.client.calling import target, until
from tests.tracing import interrupted_at

FILES = {
    module.__file__
    for module in (
        dthreading.client,
        dthreading.dialing,
        dthreading.link,
        dthreading.reading,
        dthreading.service,
        dthreading.session.calls,
        dthreading.session.core,
        dthreading.session.lanes,
    )
}

UNBROKEN = "free.append(lane)"
"""Between it and the line before it no signal is looked at, only a tracer comes in."""


LINES_WITH_A_LANE_IN_HAND = 8
"""From the one that borrows it to the one that publishes it: there, too."""


@pytest.fixture
def lanes_lost() -> int:
    return LINES_WITH_A_LANE_IN_HAND


def source(place: str) -> str:
    file, _, line = place.rpartition(":")
    with open(file, encoding="utf-8") as lines:  # noqa: PTH123
        return lines.readlines()[int(line) - 1]


@pytest.mark.parametrize("first", [True, False], ids=["the first call", "a later call"])
def test_an_interrupt_at_any_line_of_an_acquire_leaves_no_ghost(
    fake: Fake, make_client: Callable[..., Client], first: bool
) -> None:
    fake.state.lock("orders")
    client, lock = make_client(fake), target()
    if not first:
        client.call(lock, "echo", (), TRY_ACQUIRE)
    step = 0
    while True:
        step += 1
        if first:
            client, lock = make_client(fake), target()
        answers: list[Answer] = []
        place = interrupted_at(
            step,
            lambda: answers.append(client.call(lock, "acquire", (True, 1), ACQUIRE, 5)),
            FILES,
        )
        if not place:
            break
        assert not answers
        if UNBROKEN in source(place):
            fake.do(lambda: fake.state.hand_over(fake.state.things["orders"]))
            client, lock = make_client(fake), target()
            continue
        # The next call works, which also gives a write that was cut short its new connection.
        fence = client.call(lock, "acquire", (True, 1), ACQUIRE, 10).value
        assert fence, place
        client.call(lock, "release", (fence,), RELEASE)
        if first:
            client.close()
    assert step > 30, "the interrupts hit nothing"
    assert answers[0].value


@pytest.mark.parametrize("first", [True, False], ids=["the first call", "a later call"])
def test_an_interrupt_at_any_line_of_a_condition_wait_keeps_the_lock_known(
    fake: Fake, make_client: Callable[..., Client], first: bool
) -> None:
    """Whatever line it hits: either the wait was never asked, or its verdict was waited for and handed over."""
    client, lock = make_client(fake), target()
    if not first:
        client.call(lock, "echo", (), TRY_ACQUIRE)
    step = 0
    while True:
        step += 1
        if first:
            client.close()
            client, lock = make_client(fake), target()
        kept: list[Answer] = []
        applied = len(fake.state.applied)
        place = interrupted_at(
            step,
            lambda: client.call(lock, "wait", (1, None), WAIT_CONDITION, 0.0, kept=kept.append),
            FILES,
        )
        if not place:
            break
        waits = [call for call in fake.state.applied[applied:] if call.operation == "wait"]
        if UNBROKEN not in source(place) and "return answer" not in source(place):
            assert len(waits) == len(kept), place
    assert step > 30


def test_other_threads_go_on_while_one_is_interrupted(fake: Fake, client: Client) -> None:
    lock = target()
    client.call(lock, "echo", (), TRY_ACQUIRE)
    stop = threading.Event()
    echoed: list[int] = []

    def work() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            assert client.call(lock, "echo", (number,), TRY_ACQUIRE).value == (number,)
            echoed.append(number)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for step in range(1, 80):
            interrupted_at(step, lambda: client.call(lock, "echo", (0,), TRY_ACQUIRE), FILES)
        before = len(echoed)
        until(lambda: len(echoed) > before + 20)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert client.call(lock, "echo", (1,), TRY_ACQUIRE).value == (1,)
