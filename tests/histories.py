# SPDX-License-Identifier: Apache-2.0
"""Histories for property tests: rows of steps, as often long as short.

Hypothesis's own `lists(step, max_size=60)` are of six elements or so, whatever their most: five steps of one kind and
one of another never come together in them. It shortens what fails all the same, since the length is drawn first.
"""

from __future__ import annotations

from typing import TypeVar

from hypothesis import strategies as st

__all__ = ["histories"]

T = TypeVar("T")


def histories(step: st.SearchStrategy[T], longest: int) -> st.SearchStrategy[list[T]]:
    """Rows of such steps, of every length up to `longest` alike."""
    return st.integers(0, longest).flatmap(lambda length: st.lists(step, min_size=length, max_size=length))
