# SPDX-License-Identifier: Apache-2.0
"""Other members: the entry that changes them, what may be proposed around it, and replicas that only learn."""

from __future__ import annotations

import pytest

from replicas.paxos.messages import Accept, Promise
from replicas.paxos.types import Ballot, Durable, Entry, EntryKind, Role
from replicas.paxos.values import decode_configuration, encode_configuration
from tests.paxos.bench import Bench, accept, configuration, core, entry, settle

CONFIGURATION = int(EntryKind.CONFIGURATION)


def change(bench: Bench, leader: int, ids: tuple[int, ...]) -> int | None:
    """Propose these members there."""
    return bench[leader].reconfigure(configuration(ids, bench[leader].configuration.epoch + 1))


def test_a_configuration_is_the_same_after_its_bytes() -> None:
    """It lives in the log, as bytes that consensus itself reads."""
    members = configuration((1, 2, 5), epoch=7)._replace(settings=b"limits", cluster="clüster")
    assert decode_configuration(encode_configuration(members)) == members
    with pytest.raises(AssertionError):
        decode_configuration(encode_configuration(members)[:-1])


def test_nothing_is_proposed_beyond_an_unchosen_configuration() -> None:
    """The leader proposes nothing beyond i until i is chosen: nobody knows yet which quorum those slots need."""
    bench = Bench(3, learners=2)
    paxos = bench.elect(1)
    slot = change(bench, 1, (1, 2, 3, 4, 5))
    assert slot is not None
    assert paxos.propose(b"x") is None
    assert change(bench, 1, (1, 2)) is None, "one change in flight"
    with pytest.raises(AssertionError):
        paxos._leadership.propose(1, b"x")
    bench.pump()
    assert bench.leader() == 1
    assert paxos.propose(b"x") is not None


def test_the_new_configuration_rules_by_a_fresh_phase_1() -> None:
    """The new configuration rules from i + 1: its members have promised nobody anything, so phase 1 runs anew in it.

    A leader that went on with its old ballot could meet newcomers that have let another, lower ballot choose there.
    """
    bench = Bench(3, learners=2)
    paxos = bench.elect(1)
    before = paxos.ballot
    change(bench, 1, (1, 4, 5))
    promises: list[int] = []
    bench.pump(lambda s, t, m: promises.append(s) is None if isinstance(m, Promise) else True)
    assert paxos.ready
    assert paxos.ballot > before
    assert {4, 5} & set(promises)
    bench.propose(1, b"new")
    bench.run(1000)
    assert bench.nodes[4].values == [b"new"]
    assert bench[4].configuration.epoch == 2


def test_old_members_alone_choose_nothing_in_the_new_epoch() -> None:
    """A quorum of the slot's own configuration: 1 to 3 were everybody, and are 3 of 6 now."""
    bench = Bench(3, learners=3)
    bench.elect(1)
    change(bench, 1, (1, 2, 3, 4, 5, 6))
    bench.down = {4, 5, 6}
    bench.pump()
    assert bench[1].configuration.epoch == 2
    assert not bench[1].ready
    bench.run(3000)
    assert not any(bench[i].ready for i in (1, 2, 3)), "3 of 6 is no majority"
    bench.down = {5, 6}
    bench.run(3000)
    assert bench.leader() in {1, 2, 3, 4}


def test_even_sizes_have_majorities() -> None:
    """Even sizes are legal: 2 of 2, 3 of 4."""
    assert [configuration(range(size)).quorum for size in (1, 2, 3, 4, 5, 6, 7)] == [1, 2, 2, 3, 3, 4, 4]
    bench = Bench(2)
    bench.elect(1)
    bench.down = {2}
    bench.propose(1, b"a")
    bench.pump()
    assert bench.nodes[1].values == []


def test_a_configuration_that_names_another_epoch_is_a_noop() -> None:
    """It names the epoch that it changes; a late one, made for an earlier epoch, must change nothing."""
    paxos = core()
    late = encode_configuration(configuration((7, 8, 9), epoch=5))
    paxos.step(2, Accept(Ballot(1, 2), 1, 1, bytes([CONFIGURATION]), (late,), 0, 0, 0))
    settle(paxos)
    paxos.step(2, accept((1, 2), 2, commit=1, chain=_chain(late)))
    settle(paxos)
    assert paxos.chosen == 1
    assert paxos.configuration.ids == (1, 2, 3)


def _chain(value: bytes) -> int:
    from replicas.paxos.log import link

    return link(0, Entry(1, Ballot(1, 2), CONFIGURATION, value))


def test_a_new_leader_that_finds_a_configuration_stops_at_it() -> None:
    """A new leader that re-chooses i runs a fresh phase 1 in the new configuration; what lies beyond i is of another
    epoch.
    """
    found = encode_configuration(configuration((1, 2, 3, 4, 5), epoch=2))
    tail = (
        entry(1, (1, 2), b"a"),
        Entry(2, Ballot(1, 2), CONFIGURATION, found),
        entry(3, (1, 1), b"older leader's"),
    )
    bench = Bench(3, learners=2, durable={1: Durable(promised=Ballot(1, 2), entries=tail, chosen=1)})
    bench[1]._election.deadline_ms = 0
    bench.tick(1, 1)
    bench.pump(lambda s, t, m: not (isinstance(m, Accept) and m.values))
    assert bench[1].role is Role.LEADER
    assert bench[1].chosen == 1
    assert not bench[1].ready, "its LEADS is not even proposed"
    assert not bench[1].confirm("a read")
    assert bench[1].propose(b"x") is None
    assert bench[1]._leadership.barrier == 2
    assert bench[1]._leadership.last == 2
    assert bench[1]._log.get(3).ballot == Ballot(1, 1), "not proposed again by the old quorum's leader"
    bench.run(1000)
    assert bench.leader() == 1
    assert bench[1].configuration.epoch == 2


def test_a_new_leader_that_finds_a_configuration_of_another_epoch_goes_on() -> None:
    """It changes nothing, so nothing ends there: a leader that waited for its epoch would wait for ever."""
    late = Entry(2, Ballot(1, 2), CONFIGURATION, encode_configuration(configuration((7, 8, 9), epoch=1)))
    tail = (entry(1, (1, 2), b"a"), late, entry(3, (1, 2), b"behind"))
    bench = Bench(3, durable={1: Durable(promised=Ballot(1, 2), entries=tail, chosen=1)})
    bench.elect(1)
    assert bench.nodes[1].values == [b"a", b"behind"]
    assert bench[1].configuration.ids == (1, 2, 3)


def test_a_leader_that_is_left_out_leads_no_more() -> None:
    """It is a learner from then on, and the others find a leader."""
    bench = Bench(3)
    bench.elect(1)
    change(bench, 1, (2, 3))
    bench.run(3000)
    assert bench[1].role is Role.LEARNER
    assert bench.leader() in {2, 3}
    bench.propose(bench.leader(), b"after")
    bench.run(1000)
    assert bench.nodes[1].values == [b"after"], "it still learns"


def test_a_group_can_be_replaced_wholly() -> None:
    """Even when no old member stays: newcomers hear of the entry by learning."""
    bench = Bench(1, learners=2)
    bench.run(100)
    change(bench, 1, (2, 3))
    bench.run(3000)
    assert bench.leader() in {2, 3}
    assert bench[1].role is Role.LEARNER


def test_a_removed_replica_disturbs_nobody_and_learns_that_it_is_removed() -> None:
    """It does not know yet, and asks for votes; the refusal tells it that there is more to know."""
    bench = Bench(3)
    bench.elect(1)
    bench.isolate(3)
    change(bench, 1, (1, 2))
    bench.run(2000)
    bench.heal()
    ballot = bench[bench.leader()].ballot
    bench.run(3000)
    assert bench[3].role is Role.LEARNER
    assert bench[bench.leader()].ballot == ballot


def test_a_learner_never_stands() -> None:
    """A member of no configuration learns, page after page, and asks all members in turn."""
    bench = Bench(3, learners=1)
    bench.elect(1)
    bench.propose(1, *[b"%d" % number for number in range(50)])
    bench.run(500)
    assert bench.nodes[4].values == bench.nodes[1].values
    bench.down = {1, 2, 3}
    bench.run(5000)
    assert bench[4].role is Role.LEARNER
    assert bench[4].promised <= bench[1].promised


def test_a_learner_alone_in_the_world_asks_nobody() -> None:
    """Nothing breaks in a configuration without others."""
    paxos = core(9, ())
    paxos.tick(200)
    assert settle(paxos) == []


def test_what_was_chosen_before_a_crash_still_configures_after_it() -> None:
    """Entries that are known to be chosen are obeyed when they are read back."""
    value = encode_configuration(configuration((1, 2), epoch=2))
    durable = Durable(promised=Ballot(1, 2), entries=(Entry(1, Ballot(1, 2), CONFIGURATION, value),), chosen=1)
    assert core(3, durable=durable).role is Role.LEARNER
