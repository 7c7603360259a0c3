# SPDX-License-Identifier: Apache-2.0
"""Histories written down by hand: `told` turns lines of a story into one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dthreading.testing.history import History
from dthreading.testing.recorded import Call


class Story:
    """A history told in order. `a = story("A", "acquire")` begins a call; `story.done(a, True)` ends it."""

    def __init__(self, kind: str, *arguments: object) -> None:
        self.history = History()
        self.history.declare("it", kind, *arguments)

    def __call__(self, process: str, operation: str, *arguments: object, object: str = "it", thread: str = "") -> Call:
        return self.history.invoke(process, object, operation, arguments, thread=thread)

    def done(self, call: Call, value: object = None) -> None:
        self.history.returned(call, value)

    def failed(self, call: Call, error: str) -> None:
        self.history.raised(call, error)

    def one(self, process: str, operation: str, *arguments: object, gives: object = None, raises: str = "") -> None:
        """A call that overlaps none that is told after it."""
        call = self(process, operation, *arguments)
        if raises:
            self.failed(call, raises)
        else:
            self.done(call, gives)

    def holds(self, **how: bool) -> bool:
        """The verdict."""
        try:
            self.history.check(**how)
        except AssertionError:
            return False
        return True


@pytest.fixture
def tell() -> Callable[..., Story]:
    """`tell("Queue", 5)` begins a story of a queue."""
    return Story
