# SPDX-License-Identifier: Apache-2.0
"""How many seeds the simulations run, and the first of them.

`pytest tests/sim --sim-seeds 2000`, or SIM_SEEDS=2000 in the environment; `--sim-first` begins elsewhere than at 0. A
test that takes `sim_seed` (bare consensus) or `group_seed` (whole groups) runs once for each seed.
"""

from __future__ import annotations

import os

import pytest

CONSENSUS_SEEDS = 250
GROUP_SEEDS = 500
"""What CI runs: two cores take about two minutes for all."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("simulation")
    group.addoption("--sim-seeds", type=int, default=None, help="how many seeds each simulation runs")
    group.addoption("--sim-first", type=int, default=0, help="the first of these seeds")


def _seeds(config: pytest.Config, default: int) -> range:
    # Without tests/sim on the command line the options are not known, so everything has a default here, too.
    asked = config.getoption("--sim-seeds", None)
    count = int(asked if asked is not None else os.environ.get("SIM_SEEDS") or default)
    first = int(config.getoption("--sim-first", 0))
    return range(first, first + count)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, default in (("sim_seed", CONSENSUS_SEEDS), ("group_seed", GROUP_SEEDS)):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, _seeds(metafunc.config, default))
