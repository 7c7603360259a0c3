# SPDX-License-Identifier: Apache-2.0
"""The pipe that wakes a client's service thread out of its sleep."""

from __future__ import annotations

import os
import time
import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["pipe"]

AGAIN_S: Final = 0.1
"""Between two tries while the process has no descriptor left."""


def pipe(owner: object, complain: Callable[[str], object]) -> tuple[int, int]:
    """Its reading and its writing end, closed when nobody can reach `owner` any more.

    While it cannot be made, this says why and tries again: without it the thread could serve nobody, and callers would
    wait for ever, also when there are descriptors again.
    """
    while True:
        try:
            reading, writing = os.pipe()
            break
        except OSError as error:
            complain(f"the client's thread cannot begin: {error.strerror}")
            time.sleep(AGAIN_S)
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    # Not closed before, or somebody would write to a number that is another file's by then.
    weakref.finalize(owner, _close_both, reading, writing).atexit = False
    return reading, writing


def _close_both(reading: int, writing: int) -> None:
    os.close(reading)
    os.close(writing)
