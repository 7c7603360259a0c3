# SPDX-License-Identifier: Apache-2.0
"""A lease ends when it has run out, never before, and never because this process itself was asleep."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dthreading.wire import messages as wire
from replicas.replica.leading import ENDED_AT_ONCE, Tenure, Vouching
from replicas.replica.leases import Leases
from tests.histories import histories
from tests.replica.harness import TTL_MS, Group

ALL = 1000


def test_a_lease_ends_at_its_deadline_once() -> None:
    leases: Leases[int] = Leases()
    leases.renew(1, heard_ms=0, term_ms=100)
    assert leases.due(99, ALL) == []
    assert leases.due(100, ALL) == [1]
    assert leases.due(1000, ALL) == []
    assert 1 not in leases


def test_renewing_moves_the_deadline_and_never_back() -> None:
    leases: Leases[int] = Leases()
    leases.renew(1, heard_ms=50, term_ms=100)
    leases.renew(1, heard_ms=0, term_ms=100)
    assert leases.due(149, ALL) == []
    assert leases.due(150, ALL) == [1]


def test_time_slept_through_is_charged_to_nobody() -> None:
    """A leader that was paused has not been listening: every deadline moves on by the pause."""
    leases: Leases[int] = Leases()
    leases.renew(1, heard_ms=0, term_ms=100)
    leases.slept(1000)
    assert leases.due(1099, ALL) == []
    leases.renew(2, heard_ms=1099, term_ms=100)
    assert leases.due(1100, ALL) == [1]
    assert leases.next_ms() == 1199
    assert leases.due(1199, ALL) == [2]


def test_a_dropped_lease_never_comes_due_and_a_new_shorter_one_is_not_hidden_by_it() -> None:
    leases: Leases[str] = Leases()
    leases.renew("a", heard_ms=0, term_ms=1000)
    leases.drop("a")
    leases.renew("a", heard_ms=0, term_ms=10)
    assert leases.due(10, ALL) == ["a"]
    assert leases.due(5000, ALL) == []
    leases.renew("b", heard_ms=0, term_ms=10)
    leases.clear()
    assert leases.due(5000, ALL) == []


@given(
    histories(st.tuples(st.integers(0, 5), st.integers(0, 50), st.integers(1, 60), st.sampled_from("rdsq")), 80),
)
def test_agrees_with_a_plain_table(steps: list[tuple[int, int, int, str]]) -> None:
    """The lazy heap must tell the same story as a dictionary that is searched from end to end."""
    leases: Leases[int] = Leases()
    plain: dict[int, int] = {}
    now = slept = 0
    for key, advance, term, what in steps:
        now += advance
        if what == "r":
            leases.renew(key, now, term)
            plain[key] = max(plain.get(key, 0), now - slept + term)
        elif what == "d":
            leases.drop(key)
            plain.pop(key, None)
        elif what == "s":
            leases.slept(advance)
            slept += advance
        else:
            due = {other for other, deadline in plain.items() if deadline <= now - slept}
            most = 1 + term % 4
            found = leases.due(now, most)
            assert set(found) <= due
            assert len(found) == len(set(found)) == min(most, len(due))
            for other in found:
                del plain[other]
        assert len(leases) == len(plain)


def test_leases_that_end_in_one_moment_leave_the_leader_time_for_others() -> None:
    """As after a site's power cut. Only so many are ended by one look, and who is heard of before its turn lives on."""
    group = Group(size=1)
    leader = group.leader()
    replica = group.replicas[leader]
    sessions = [group.open(leader, connection) for connection in range(2 * ENDED_AT_ONCE + 50)]
    # From one moment on, as under a new leader.
    replica._tenure = tenure = Tenure(replica.machine, replica.paxos.ballot, 0, group.now_ms)
    late = group.now_ms + TTL_MS
    assert tenure.expired(late - 1, 0) == []
    assert len(tenure.expired(late, 0)) == ENDED_AT_ONCE
    living = [session for session in sessions if tenure.vouches_for(session)][::2]
    for session in living:
        assert tenure.heard(Vouching(None, session, 1, late))
    rest = 2 * ENDED_AT_ONCE + 50 - ENDED_AT_ONCE - len(living)
    ended = [len(tenure.expired(late + 20 * look, 0)) for look in range(1, 4)]
    assert ended == [rest, 0, 0]
    assert all(map(tenure.vouches_for, living))


def test_a_leader_that_wakes_up_ends_no_lease_before_it_has_heard_what_came_meanwhile() -> None:
    """Not even one that had run out when it fell asleep, and was not looked at: the keepalive may lie in a socket."""
    group = Group(size=1)
    leader = group.leader()
    replica = group.replicas[leader]
    heard, silent = group.open(leader, 1), group.open(leader, 2)
    tenure = Tenure(replica.machine, replica.paxos.ballot, 0, group.now_ms)
    woken = group.now_ms + TTL_MS + 10 + 60_000
    assert tenure.expired(woken, 60_000) == []
    assert tenure.heard(Vouching(None, heard, 1, woken))
    assert len(tenure.expired(woken + 20, 0)) == 1
    assert (tenure.vouches_for(heard), tenure.vouches_for(silent)) == (True, False)


def test_namespaces_that_nobody_uses_any_more_are_put_back_as_many_at_one_look() -> None:
    """They go idle together as well, when the sessions of a site end."""
    group = Group(size=1)
    leader = group.leader()
    replica = group.replicas[leader]
    for connection in range(ENDED_AT_ONCE + 1):
        group.say(leader, connection, wire.Open(b"nonce %d" % connection, TTL_MS, f"program {connection}", "a test"))
        (session,) = [said.session for said in group.said[connection] if isinstance(said, wire.Opened)]
        automatic = int(wire.Lifetime.AUTOMATIC)
        group.say(
            leader, connection, wire.Attach(session, 1, f"program {connection}", "e", "Event", (), automatic, True)
        )
        group.say(leader, connection, wire.Call(session, 0, 1, 1, "set", (), False))
        group.say(leader, connection, wire.Close(session))
    assert len(replica.machine.idle_namespaces) == ENDED_AT_ONCE + 1
    tenure = Tenure(replica.machine, replica.paxos.ballot, 0, group.now_ms)
    assert [len(tenure.expired(group.now_ms + look, 0)) for look in range(3)] == [ENDED_AT_ONCE, 1, 0]
