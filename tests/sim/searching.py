# SPDX-License-Identifier: Apache-2.0
"""Many worlds, one after another, and what they came to: what one worker process of a long run does."""

from __future__ import annotations

import time
import traceback

from tests.sim.running import run_group
from tests.sim.summary import NOTHING, Tally


def worlds(seeds: range) -> tuple[Tally, list[tuple[int, str]]]:
    """Run these one after another; what they came to, and the failures."""
    tally = NOTHING
    failures: list[tuple[int, str]] = []
    for seed in seeds:
        before = time.process_time()
        try:
            world = run_group(seed)
        except Exception:
            failures.append((seed, traceback.format_exc()))
            continue
        kernel = world.kernel
        calls = sum(client.calls for client in world.everyone)
        cpu_s = time.process_time() - before
        tally = tally.plus(Tally(1, kernel.now_us / 1e6, cpu_s, calls, kernel.seen))
    return tally, failures
