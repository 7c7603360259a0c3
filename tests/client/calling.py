# SPDX-License-Identifier: Apache-2.0
"""What tests of a client's calls share: what is called, a call in a thread of its own, and waiting until it is so."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dthreading.session import Target
from dthreading.wire.messages import Lifetime

if TYPE_CHECKING:
    from client_fake import Fake

    from dthreading.client import Client

__all__ = ["Caller", "said", "target", "until"]


def target(name: str = "orders") -> Target:
    return Target("test", name, "Lock", (), Lifetime.NAMED)


def until(condition: Callable[[], Any]) -> None:
    """Waits for what another thread is about to do; fails after a time in which any machine would have."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.001)


class Caller(threading.Thread):
    """One call in a thread of its own."""

    def __init__(self, client: Client, *arguments: Any, **more: Any) -> None:
        super().__init__(daemon=True)
        self.outcome: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._call = lambda: client.call(*arguments, **more)
        self.start()

    def run(self) -> None:
        try:
            self.outcome.put(self._call())
        except BaseException as error:
            self.outcome.put(error)

    def result(self) -> Any:
        outcome = self.outcome.get(timeout=20)
        self.join(20)
        return outcome


def said(fake: Fake, kind: type) -> list[Any]:
    return [message for message in list(fake.state.heard) if isinstance(message, kind)]
