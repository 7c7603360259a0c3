# SPDX-License-Identifier: Apache-2.0
"""The ledger speaks of classes that exist."""

from __future__ import annotations

import compat.stdlib.test_locks
import compat.stdlib.test_queues  # noqa: F401 - decorating their classes is what counts
from compat.stdlib.ledger import unused


def test_no_entry_is_left_over() -> None:
    """An entry for a class that is gone would hide nothing, and look as if it did."""
    assert not unused()
