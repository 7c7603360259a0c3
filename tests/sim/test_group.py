# SPDX-License-Identifier: Apache-2.0
"""Whole groups and real client sessions in seeded worlds. A failure names the command that shows it again."""

from __future__ import annotations

from tests.sim.running import run_group


def test_clients_keep_what_they_were_promised(group_seed: int) -> None:
    """Mutual exclusion under leases, fences never twice, items exactly once while their takers live, nobody
    forgotten."""
    run_group(group_seed)


def test_one_seed_is_one_story() -> None:
    """Else a failing seed could not be looked into."""
    traces = [run_group(seed).kernel.trace for seed in (3, 3, 4)]
    assert traces[0] == traces[1] != traces[2]
