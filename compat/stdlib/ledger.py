# SPDX-License-Identifier: Apache-2.0
"""Which of CPython's own tests are expected to fail, and why: read from ledger.toml, marked as strict xfails.

Strict, so that a test which begins to pass fails the run until its line is struck out.
"""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

C = TypeVar("C", bound=type)

_LEDGER = tomllib.loads((Path(__file__).parent / "ledger.toml").read_text(encoding="utf-8"))
_used: set[str] = set()


def ledger(key: str) -> Callable[[C], C]:
    """Marks the tests of the decorated class that `key` names in the ledger."""

    def mark(cls: C) -> C:
        _used.add(key)
        for name, reason in _LEDGER.get(key, {}).items():
            test = getattr(cls, name, None)
            if test is not None:  # this Python's suite may not have it
                setattr(cls, name, pytest.mark.xfail(strict=True, reason=reason)(_copy(test)))
        return cls

    return mark


def unused() -> set[str]:
    """Entries of the ledger for classes that do not exist."""
    return set(_LEDGER) - _used


def _copy(test: Any) -> Any:
    """A function of its own, since a mark is kept on the function, which other classes share."""

    @functools.wraps(test)
    def copied(self: Any) -> None:
        test(self)

    return copied
