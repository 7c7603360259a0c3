# SPDX-License-Identifier: Apache-2.0
"""Event: a flag and those who wait for it."""

# ruff: noqa: ARG002 - the door gives every operation its call and every hook its facts, wanted or not

from __future__ import annotations

from typing import Any

from replicas.objects.base import Caller, Host, Refused, Replicated, operation
from replicas.objects.waiting import WaitQueue

__all__ = ["Event"]


class Event(Replicated):
    """`threading.Event`. Whoever waits when it is set is answered, even if it is cleared at once."""

    kind = "Event"

    def __init__(self, host: Host, *arguments: Any) -> None:
        super().__init__(host, *arguments)
        if arguments:
            raise Refused("type", "Event() takes no arguments")
        # Invariant: nobody waits while the flag is set.
        self.flag = False
        self.waiting = WaitQueue(self)

    @operation
    def wait(self, call: Caller, thread: int = 0) -> Any:
        """Answers True; False when the caller's time runs out first."""
        return True if self.flag else call.park(self.waiting, None, thread)

    @operation
    def set(self, call: Caller) -> None:
        """Answers everybody who waits."""
        self.flag = True
        for waiter in self.waiting.unpark_all():
            waiter.answer(True)

    @operation
    def clear(self, call: Caller) -> None:
        """Whoever comes from here on waits."""
        self.flag = False

    @operation(reads=True)
    def is_set(self, call: Caller) -> bool:
        """The flag."""
        return self.flag

    def is_initial(self) -> bool:
        return not self.flag

    def sight(self) -> dict[str, Any]:
        return {"set": self.flag}

    def dump(self) -> tuple[Any, ...]:
        return (self.flag,)

    def load(self, state: tuple[Any, ...]) -> None:
        (self.flag,) = state
