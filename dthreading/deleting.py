# SPDX-License-Identifier: Apache-2.0
"""`dthreading.delete(name)`: ends an object whatever its state. Over a connection of its own, as an operator does it."""

from __future__ import annotations

__all__ = ["delete"]


def delete(name: str) -> bool:
    """End the object of that name in this process's namespace, with all that is held or queued in it.

    Whoever waits in it gets `ObjectGone`; the name may be used again, for another kind as well.

    Returns:
        Whether there was one.

    """
    raise NotImplementedError(name)
