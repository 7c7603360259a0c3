# SPDX-License-Identifier: Apache-2.0
"""Judges of a whole world, beside what its workloads see for themselves. A map, no more.

`Watch` sees the log (watch.py) and what threads are told (told.py); `reference.py` is the sequential program that both
are held against, with a model for each kind of object.
"""

from __future__ import annotations

from tests.sim.checkers.watch import Watch
from tests.sim.checkers.watched import WatchedClient, WatchedProgram

__all__ = ["Watch", "WatchedClient", "WatchedProgram"]
