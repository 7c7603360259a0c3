# SPDX-License-Identifier: Apache-2.0
"""`dthreading-server` with a weak memory, for tests: SIGUSR1 spoils the lock "precious" in it, and states are compared
all the time. Nothing of this is in the product.
"""

from __future__ import annotations

import functools
import signal
import sys
from types import FrameType

from replicas import cli
from replicas.daemon import running
from replicas.machine.core import Machine
from replicas.replica.core import Replica

AUDIT_MS = 100

machines: list[Machine] = []


class Remembered(Machine):
    """One that the signal finds."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        machines.append(self)


def spoil(number: int, frame: FrameType | None) -> None:
    """One bit of one object flips."""
    del number, frame
    for machine in machines:
        for known in machine.registry.objects.values():
            if known.name == "precious":
                known.fence ^= 1 << 30  # type: ignore[attr-defined]


if __name__ == "__main__":
    running.Machine = Remembered  # type: ignore[misc]
    running.Replica = functools.partial(Replica, audit_ms=AUDIT_MS)  # type: ignore[assignment,misc]
    signal.signal(signal.SIGUSR1, spoil)
    sys.exit(cli.main())
