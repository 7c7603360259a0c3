# SPDX-License-Identifier: Apache-2.0
"""What the service thread runs of the user's, or asks of the system, and may fail: handlers of the logger, `on_lost`,
a new thread. It is the only one: where it ends, or forgets a call, somebody waits for ever.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from client_fake import Fake

from dthreading.client import Client
from dthreading.config import Lost
from dthreading.session import ACQUIRE, READ, ClientSession, PendingCall
from tests.client.calling import target

MakeClient = Callable[..., Client]


def lose(fake: Fake, client: Client) -> None:
    """The group has not heard of the client for a whole lease; it hears of that when it comes back."""
    fake.do(lambda: fake.state.end(client.session))
    fake.cut()


class Broken(logging.Handler):
    """Raises."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error
        self.asked = queue.SimpleQueue[str]()

    def emit(self, record: logging.LogRecord) -> None:
        self.asked.put(record.getMessage())
        raise self.error


@pytest.fixture(params=[RuntimeError("the disk of the log is full"), SystemExit(1)], ids=["an error", "sys.exit"])
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broken]:
    handler = Broken(request.param)
    logger = logging.getLogger("dthreading")
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def call_in_a_thread(client: Client, *arguments: Any) -> Any:
    outcome: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=lambda: outcome.put(client.call(*arguments)), daemon=True).start()
    return outcome.get(timeout=20)


def test_a_handler_of_the_logger_that_fails_stops_nobody(fake: Fake, client: Client, broken: Broken) -> None:
    lock = target()
    client.call(lock, "echo", (), READ)
    lose(fake, client)
    assert "is lost" in broken.asked.get(timeout=20)
    assert call_in_a_thread(client, lock, "acquire", (True, 1), ACQUIRE).value == 1


def test_a_call_that_comes_with_the_bad_news_is_not_forgotten(fake: Fake, client: Client, broken: Broken) -> None:
    """The first call after a loss may be the first to look at the lost session; its handler fails under it."""
    service = client._service
    lost = service.session = ClientSession(namespace="test", label="", ttl_ms=1000)
    lost.close()
    lost.state = type(lost.state).LOST
    call = PendingCall(target(), "acquire", (True, 1), ACQUIRE)
    service._submit(call)
    assert "is lost" in broken.asked.get(timeout=20)
    assert service.session is not lost
    assert service.session.pending == [call]


def test_on_lost_is_called_when_a_thread_can_be_started_again(
    fake: Fake, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program at its limit of threads is told that its locks are gone as soon as there is room for it."""
    told: queue.SimpleQueue[Lost] = queue.SimpleQueue()
    client = make_client(fake, on_lost=told.put)
    lock = target()
    client.call(lock, "echo", (), READ)
    number = client.session
    real, refused = threading.Thread.start, threading.Semaphore(0)

    def start(thread: threading.Thread) -> None:
        if thread.name == "dthreading-on-lost":
            refused.release()
            raise RuntimeError("can't start new thread")
        real(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        lose(fake, client)
        assert refused.acquire(timeout=20)
    client.call(lock, "echo", (), READ)
    assert told.get(timeout=20).session == number
    assert told.empty()
