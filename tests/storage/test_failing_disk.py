# SPDX-License-Identifier: Apache-2.0
"""EIO and ENOSPC at each operation of recorded runs.

Deeper: `python -m tests.storage.crashes --failing --stories 100`.
"""

from __future__ import annotations

import pytest

from tests.storage.crashes.failing import every_failure
from tests.storage.crashes.package import load


@pytest.mark.parametrize("seed", range(3))
def test_a_failing_operation_ends_it_and_loses_nothing(seed: int) -> None:
    """StorageFailed comes out; nothing more is acknowledged, or asked of the disk; after any crash all is found that
    was acknowledged. A sync that failed covers nothing, whatever a later one says.
    """
    problems, states = every_failure(load("small"), seed)
    assert not problems, problems[0]
    assert states > 100
