# SPDX-License-Identifier: Apache-2.0
"""What one replica remembers of its clients: enough to answer them and to pass on again what was not applied yet."""

from __future__ import annotations

from replicas.replica.hosting import Hosting


def test_what_is_pending_keeps_its_order_and_ends_with_apply() -> None:
    hosting = Hosting()
    assert hosting.add(b"attach", 1)
    assert hosting.add(b"call", 1)
    assert list(hosting.pending) == [b"attach", b"call"]
    assert hosting.applied(b"attach") == 1
    assert hosting.applied(b"attach") is None
    assert list(hosting.pending) == [b"call"]
    assert hosting.link(1).pending == 1


def test_a_copy_of_what_is_on_its_way_costs_nothing_and_speaks_for_the_newest_connection() -> None:
    """A client that came back sends the same bytes; they are proposed once, and answered where it is now."""
    hosting = Hosting()
    hosting.add(b"resume", 1)
    assert not hosting.add(b"resume", 2)
    assert hosting.link(1).pending == 0
    assert hosting.applied(b"resume") == 2


def test_what_a_gone_connection_said_stays_pending() -> None:
    hosting = Hosting()
    hosting.add(b"call", 1)
    assert hosting.gone(1) is not None
    assert list(hosting.pending) == [b"call"]
    assert hosting.applied(b"call") is None
    assert hosting.gone(1) is None


def test_an_open_finds_the_newest_connection_that_said_it() -> None:
    hosting = Hosting()
    hosting.opening(1, b"n")
    hosting.opening(2, b"n")
    assert hosting.judged(b"n") == 2
    assert hosting.judged(b"n") is None
    assert hosting.judged(b"other") is None


def test_the_end_of_a_connection_leaves_the_open_to_the_newer_one_that_said_it() -> None:
    """A client that has come back elsewhere says the same Open, and its former connection ends at any time."""
    hosting = Hosting()
    hosting.opening(1, b"n")
    hosting.opening(2, b"n")
    hosting.gone(1)
    assert hosting.judged(b"n") == 2


def test_nothing_waits_for_an_open_on_a_connection_that_has_ended() -> None:
    """Whatever it has said before: bound to a session, it would be a connection for ever."""
    hosting = Hosting()
    hosting.opening(1, b"first")
    hosting.opening(1, b"second")
    hosting.gone(1)
    assert hosting.judged(b"first") is None
    assert hosting.judged(b"second") is None


def test_a_session_moves_with_its_client_and_the_old_end_does_not_unbind_it() -> None:
    hosting = Hosting()
    assert hosting.bind(1, 7) is None
    assert hosting.bind(2, 7) == 1
    hosting.gone(1)
    assert hosting.connection(7) == 2
    hosting.ended(7)
    assert hosting.connection(7) is None
    assert hosting.link(2).session is None
    assert hosting.sessions == ()
