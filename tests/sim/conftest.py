# SPDX-License-Identifier: Apache-2.0
"""How many seeds the simulations run, and the one command that repeats a failing one.

`pytest tests/sim --sim-seeds 2000`, or SIM_SEEDS=2000 in the environment; `--sim-first` begins elsewhere than at 0.
A test that takes `sim_seed` runs once for each seed.
"""

from __future__ import annotations

import os

import pytest

SEEDS_DEFAULT = 300
"""What one core does in less than a minute."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("simulation")
    group.addoption("--sim-seeds", type=int, default=None, help="how many seeds each simulation runs")
    group.addoption("--sim-first", type=int, default=0, help="the first of these seeds")


def _seeds(config: pytest.Config) -> range:
    # Without tests/sim on the command line the options are not known, so everything has a default here, too.
    asked = config.getoption("--sim-seeds", None)
    count = int(asked if asked is not None else os.environ.get("SIM_SEEDS") or SEEDS_DEFAULT)
    first = int(config.getoption("--sim-first", 0))
    return range(first, first + count)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "sim_seed" in metafunc.fixturenames:
        metafunc.parametrize("sim_seed", _seeds(metafunc.config))
