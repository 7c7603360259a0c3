# SPDX-License-Identifier: Apache-2.0
"""What a PriorityQueue orders an item by, said a second time and from the documentation alone: itself where it is a
number, string, bytes or a tuple of those, else the longest such beginning; a `dataclass(order=True)` by its fields.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, Final

__all__ = ["NoPriorityError", "priority"]

NOTHING: Final = object()


class NoPriorityError(Exception):
    """The item cannot be ordered.

    Args:
        raises: what its putter hears: the name of an exception's class.

    """

    def __init__(self, raises: str) -> None:
        super().__init__(raises)
        self.raises = raises


def priority(item: Any) -> Any:
    """Something that Python compares as the queue does.

    Raises:
        NoPriorityError: there is nothing to compare it by.

    """
    beginning, whole = _beginning(item)
    if beginning is NOTHING or (beginning == () and not whole):
        raise NoPriorityError("TypeError")
    return beginning


def _beginning(item: Any) -> tuple[Any, bool]:
    """What of it can be compared, and whether that is all of it."""
    if isinstance(item, float) and math.isnan(item):
        raise NoPriorityError("ValueError")
    if isinstance(item, int | float | str | bytes):
        return item, True
    parameters = getattr(type(item), "__dataclass_params__", None)
    if parameters is not None and parameters.order:
        item = tuple([getattr(item, field.name) for field in fields(item) if field.compare])
    if not isinstance(item, tuple | list):
        return NOTHING, False
    found = []
    for element in item:
        beginning, whole = _beginning(element)
        if beginning is not NOTHING:
            found.append(beginning)
        if not whole:
            return tuple(found), False
    return tuple(found), True
