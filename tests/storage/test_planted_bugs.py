# SPDX-License-Identifier: Apache-2.0
"""The searches bite: each bug that is planted in a copy of the storage package is caught, after not too many states.

As a table: `python -m tests.storage.crashes --planted`.
"""

from __future__ import annotations

import pytest

from tests.storage.crashes.package import Edit, load
from tests.storage.crashes.planted import PLANTED, Planted, hunt

STATES_MAX = 3_000
"""More would mean that a search has grown blind: each is caught after far fewer."""


@pytest.mark.parametrize("planted", PLANTED, ids=[planted.name for planted in PLANTED])
def test_a_planted_bug_is_caught(planted: Planted) -> None:
    """And the run or the directory that it is tried on is one that the real package stands, as other tests say."""
    caught = hunt(planted)
    assert caught is not None
    assert caught.states <= STATES_MAX


def test_a_bug_that_cannot_be_planted_is_an_error() -> None:
    """The package has changed: the text must be looked for anew, or the test above would try the package itself."""
    with pytest.raises(AssertionError, match="holds 0 times"):
        load("nothing", [Edit("log.py", "no such text", "")])


def test_a_copy_shares_nothing_with_the_package() -> None:
    """What is planted stays in its copy."""
    assert load("small") is load("small")
    assert load("small").Storage is not load("other").Storage
