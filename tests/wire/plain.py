# SPDX-License-Identifier: Apache-2.0
"""The plain, slow form of the checks in dthreading/wire/schema.py: walks through the annotations at each message.

It is the oracle that the compiled checks are compared with, so it shares no line with them.
"""

from __future__ import annotations

from typing import Any, get_args, get_origin, get_type_hints

from dthreading.errors import ProtocolError
from dthreading.wire import limits

EXACT = {int, str, bytes, bool, float}
SCALARS = {*EXACT, type(None)}


def check(cls: Any, fields: Any) -> Any:
    """The message of `cls` that the array holds, without its tag; or ProtocolError."""
    hints = get_type_hints(cls)
    if type(fields) is not tuple or len(fields) != len(hints):
        raise ProtocolError(f"{cls.__name__} has {len(hints)} fields")
    for value, hint in zip(fields, hints.values(), strict=True):
        if hint in EXACT and type(value) is not hint:
            raise ProtocolError(f"{cls.__name__}: {type(value).__name__} where {hint.__name__} belongs")
    rebuilt = [
        value if hint in EXACT else field(hint, value) for value, hint in zip(fields, hints.values(), strict=True)
    ]
    return cls._make(rebuilt)


def field(hint: Any, value: Any) -> Any:
    """One value, of any annotation."""
    if hint is Any:
        plain(value, limits.NESTING_MAX)
        return value
    if hint in EXACT:
        if type(value) is not hint:
            raise ProtocolError(f"{type(value).__name__} where {hint.__name__} belongs")
        return value
    if get_origin(hint) is not tuple:
        return check(hint, value)
    inner = get_args(hint)
    if len(inner) == 2 and inner[1] is Ellipsis:
        if type(value) is not tuple:
            raise ProtocolError(f"{type(value).__name__} where an array belongs")
        return tuple(field(inner[0], element) for element in value)
    if type(value) is not tuple or len(value) != len(inner):
        raise ProtocolError(f"not an array of {len(inner)}")
    return tuple(field(one, element) for one, element in zip(inner, value, strict=True))


def plain(value: Any, depth: int) -> None:
    """Plain values only, nested a few levels."""
    if type(value) in SCALARS:
        return
    if depth == 0:
        raise ProtocolError(f"nested deeper than {limits.NESTING_MAX} levels")
    if type(value) is tuple:
        for element in value:
            plain(element, depth - 1)
    elif type(value) is dict:
        for key, element in value.items():
            plain(key, 1)
            plain(element, depth - 1)
    else:
        raise ProtocolError(f"{type(value).__name__} where a plain value belongs")
