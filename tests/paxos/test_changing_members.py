# SPDX-License-Identifier: Apache-2.0
"""What changes of members ask of consensus: who is there, handing over to one replica, and whom a learner may ask."""

from __future__ import annotations

from replicas.paxos.core import Paxos
from replicas.paxos.limits import WINDOW_ENTRIES
from replicas.paxos.messages import Accepted, Fetch, TakeOver
from replicas.paxos.types import Role
from tests.paxos.bench import TIMING, Bench, accept, configuration, core, only, settle

# --- present(): before a change that would leave the group without a majority, the leader looks who is there ----------


def test_those_are_present_whom_the_leader_has_heard() -> None:
    bench = Bench(5, learners=1)
    paxos = bench.elect(1)
    bench.run(300)
    assert paxos.present() == {1, 2, 3, 4, 5}, "a learner is no member"
    assert bench[2].present() == frozenset(), "only a leader can know"


def test_who_is_silent_for_an_election_timeout_is_not_present() -> None:
    """No sooner: one lost heartbeat is nothing. And it is again, as soon as it is heard again."""
    bench = Bench(5)
    paxos = bench.elect(1)
    bench.run(300)
    bench.isolate(4)
    bench.run(TIMING.election_ms - 200)
    assert 4 in paxos.present()
    bench.run(400)
    assert paxos.present() == {1, 2, 3, 5}
    bench.heal()
    bench.run(300)
    assert paxos.present() == {1, 2, 3, 4, 5}


def test_a_new_leader_has_heard_those_alone_who_have_answered_it() -> None:
    """What was known to its predecessor is not known to it: it must not take a dead member for one that is there."""
    bench = Bench(5)
    bench.elect(1)
    bench.run(300)
    bench.isolate(5)
    bench[1].hand_over(2)
    bench.pump()
    assert bench.leader() == 2
    paxos = bench[2]
    assert 5 not in paxos.present()
    assert paxos.present() <= {1, 2, 3, 4}
    bench.run(200)
    assert paxos.present() == {1, 2, 3, 4}


def test_who_answers_and_lags_by_more_than_a_window_is_not_present() -> None:
    """Its disk hangs, or it fetches what it has missed: it could not carry the group from now on."""
    bench = Bench(3)
    paxos = bench.elect(1)
    bench.run(200)
    bench.nodes[3].holds_disk = True
    proposed = 0
    while proposed <= WINDOW_ENTRIES:
        proposed += sum(slot is not None for slot in bench.propose(1, *[b""] * 1024))
        bench.pump()
    bench.run(200)
    assert paxos.present() == {1, 2}
    bench.nodes[3].holds_disk = False
    bench.run(500)
    assert paxos.present() == {1, 2, 3}


# --- hand_over(target): a leader that is to be removed lets one lead that stays ---------------------------------------


def test_leadership_goes_to_whom_it_is_meant_for() -> None:
    """Not to whoever has most: that one may be leaving, too."""
    for target in (2, 3, 4, 5):
        bench = Bench(5)
        paxos = bench.elect(1)
        bench.propose(1, b"a")
        bench.run(200)
        paxos.hand_over(target)
        bench.pump()
        assert bench.leader() == target
        assert paxos.role is Role.FOLLOWER


def test_it_waits_until_that_one_has_everything() -> None:
    """Else its first deed would be to fetch what it lacks, and nobody would be served meanwhile."""
    bench = Bench(3)
    paxos = bench.elect(1)
    bench.run(200)
    bench.nodes[3].holds_disk = True
    bench.propose(1, b"a")
    bench.pump()
    assert paxos.chosen == 2, "the other follower has it"
    paxos.hand_over(3)
    bench.run(200)
    assert paxos.role is Role.LEADER
    assert paxos.propose(b"b") is None, "nothing new while it is about to go"
    assert paxos.reconfigure(configuration((2, 3), 2)) is None
    bench.nodes[3].holds_disk = False
    bench.run(200)
    assert bench.leader() == 3
    assert bench.nodes[3].values == [b"a"]


def test_it_does_not_wait_for_ever() -> None:
    """After an election timeout it is told to take over as far as it is; and if it is gone, somebody else stands."""
    bench = Bench(3)
    paxos = bench.elect(1)
    bench.run(200)
    bench.isolate(3)
    bench.propose(1, b"a")
    bench.pump()
    paxos.hand_over(3)
    bench.run(TIMING.election_ms - 100)
    assert paxos.role is Role.LEADER
    bench.run(200)
    assert paxos.role is not Role.LEADER
    bench.run(3000)
    assert bench.leader() in {1, 2}
    bench.heal()
    bench.run(2000)
    bench.propose(bench.leader(), b"b")
    bench.run(500)
    assert {tuple(node.values) for node in bench.nodes.values()} == {(b"a", b"b")}


def test_one_that_is_no_follower_is_no_target() -> None:
    """Whoever has most leads then: the operator's choice was out of date, and the leader has to go all the same."""
    bench = Bench(3, learners=1)
    paxos = bench.elect(1)
    bench.run(200)
    paxos.hand_over(4)
    bench.pump()
    assert bench.leader() in {2, 3}


def test_a_second_word_does_not_turn_it_to_another() -> None:
    """Two that are told to take over would outbid each other."""
    bench = Bench(3)
    leader = bench.elect(1)
    bench.run(200)
    leader.hand_over(2)
    leader.hand_over(3)
    told = [target for target, message in settle(leader) if isinstance(message, TakeOver)]
    assert told == [2]


def test_an_acknowledgement_makes_it_go_at_once() -> None:
    """It waits for no tick: each millisecond is one in which nobody is served."""
    bench = Bench(3)
    paxos = bench.elect(1)
    bench.run(200)
    bench.propose(1, b"a")
    paxos.hand_over(3)
    assert not only(settle(paxos), TakeOver)
    paxos.step(3, Accepted(paxos.ballot, paxos._leadership.last, paxos._leadership.last, 0))  # type: ignore[union-attr]
    assert only(settle(paxos), TakeOver)


# --- guides: a learner's configuration may be long past, and all its members gone -------------------------------------


def asked(paxos: Paxos, times: int) -> list[int]:
    """Whom it asks for entries, one heartbeat after the other."""
    found: list[int] = []
    for number in range(1, times + 1):
        paxos.tick(number * TIMING.heartbeat_ms)
        found += [target for target, message in settle(paxos) if isinstance(message, Fetch)]
    return found


def test_a_learner_asks_its_guides_besides_the_members_that_it_knows() -> None:
    """All in turn, and each once: the ones that are gone cost a heartbeat each."""
    paxos = core(9, (1, 2, 3))
    paxos.guides = (7, 3, 8)
    assert paxos.role is Role.LEARNER
    found = asked(paxos, 10)
    assert set(found) == {1, 2, 3, 7, 8}
    assert sorted(found[:5]) == [1, 2, 3, 7, 8]


def test_guides_that_change_are_asked_from_then_on() -> None:
    paxos = core(9, ())
    assert asked(paxos, 2) == []
    paxos.guides = (5,)
    paxos.tick(1000)
    assert [target for target, _ in settle(paxos)] == [5]


def test_a_learner_asks_the_leader_once_it_hears_one() -> None:
    """It is the one that has everything, and it is not asked by all members beside."""
    paxos = core(9, (1, 2, 3))
    paxos.guides = (7,)
    paxos.step(2, accept((3, 2), 1, beat=1))
    settle(paxos)
    assert set(asked(paxos, 3)) == {2}


def test_a_member_asks_no_guide() -> None:
    """It is told by its leader, or stands for election; what it may not do is to learn from whoever is there."""
    paxos = core(1, (1, 2, 3))
    paxos.guides = (7,)
    assert asked(paxos, 10) == []


def test_a_learner_whose_members_are_all_gone_learns_from_its_guides() -> None:
    """And becomes a voter of a configuration of which it knew nobody."""
    bench = Bench(1, learners=3)
    bench.elect(1)
    bench[1].reconfigure(configuration((1, 2, 3), 2))
    bench.run(500)
    bench[1].hand_over(2)
    bench.run(200)
    bench[2].reconfigure(configuration((2, 3), 3))
    bench.run(500)
    leader = bench.leader()
    assert leader in {2, 3}
    bench.down = {1}
    bench.isolate(4)
    bench.propose(leader, b"a")
    bench.run(300)
    bench.heal()
    bench[4].guides = (2, 3)
    bench.run(1000)
    assert bench.nodes[4].values == [b"a"]
    bench[bench.leader()].reconfigure(configuration((2, 3, 4), 4))
    bench.run(1000)
    assert bench[4].role is not Role.LEARNER
