# SPDX-License-Identifier: Apache-2.0
"""Storage alone, in directories that live through many short lives. `SIM_SEEDS` or `--sim-seeds` for more of them."""

from __future__ import annotations

import pytest

from tests.sim.directory import Directory

SEEDS = 150
"""Two seconds."""


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_what_was_promised_is_found_in_every_life(first: int) -> None:
    """Whatever the processes before have begun and not finished, and however often they fell."""
    for seed in range(first, first + 50):
        Directory(seed).run()


def test_a_mended_log_stays_readable_when_what_was_before_is_dropped() -> None:
    """A batch that opened its segment was in doubt, and was replaced in the next one. Then a snapshot drops all older
    segments, and the power goes before this one is dropped, or an older sector in that batch is taken for rot.
    """
    Directory(84).run()
