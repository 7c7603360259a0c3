# SPDX-License-Identifier: Apache-2.0
"""How members come and go: who may vote when, what is refused, and what a leader leaves to its successor."""

from __future__ import annotations

import random

import pytest

from dthreading.errors import ProtocolError
from dthreading.wire import codec
from dthreading.wire import messages as wire
from replicas.machine import commands
from replicas.machine.commands import Admit
from replicas.machine.core import Machine
from replicas.machine.roster import NEWCOMERS_MAX, Roster
from replicas.paxos import log
from replicas.paxos.messages import Chosen
from replicas.paxos.types import Configuration, Member, Role
from replicas.replica import changing
from replicas.replica.acquaintance import LATER, REMOVED
from replicas.replica.admission import Admission
from replicas.replica.changing import ABSENT_MS, NEAR_ENTRIES, PARTNER_MS, Pupil
from replicas.replica.messages import Learning, SnapshotPart
from replicas.replica.snapshots import Fetching
from tests.replica.harness import Group


def group(size: int) -> tuple[Group, int]:
    """One with a leader, which has heard everybody."""
    made = Group(size)
    leader = made.leader()
    made.pass_ms(1500)
    return made, leader


# --- growing ----------------------------------------------------------------------------------------------------------


def test_a_newcomer_learns_and_then_votes() -> None:
    made, leader = group(1)
    two = made.join("r2")
    assert two == 2
    assert made.replicas[2].paxos.role is Role.LEARNER
    assert made.members(leader) == (1,)
    assert made.until_done(leader, "add", "r2", b"r2") == "r2 is a member: replica 2"
    made.pass_ms(200)
    assert made.members(1) == made.members(2) == (1, 2)
    assert made.replicas[2].machine.digest == made.replicas[1].machine.digest


def test_two_that_are_asked_for_together_come_in_by_one_entry() -> None:
    """A group of two would stand still with either of them; so nobody comes in until both are near."""
    made, leader = group(1)
    made.join("r2")
    made.ask(leader, "add", "r2", b"r2")
    made.ask(leader, "add", "r3", b"r3")
    made.pass_ms(3 * PARTNER_MS)
    assert made.members(leader) == (1,), "replica 3 is not there yet"
    made.join("r3")
    made.until_done(leader, "add", "r3", b"r3")
    assert made.members(leader) == (1, 2, 3)
    assert made.replicas[leader].paxos.configuration.epoch == 2


def test_one_that_was_asked_for_and_never_comes_is_awaited_for_a_while_and_by_name() -> None:
    """Its machine may have died just then, and its operator gone home: the others are not to wait for ever."""
    made, leader = group(1)
    made.join("r2")
    made.ask(leader, "add", "r3", b"r3")
    made.ask(leader, "add", "r2", b"r2")
    made.pass_ms(PARTNER_MS)
    said = made.ask(leader, "add", "r2", b"r2")["say"]
    assert said.startswith("replica 2 at r2 waits: replica 3 at r3 is to come in with it")
    assert said.endswith("`dthreading members remove 3` takes that back")
    assert made.ask(leader, "add", "r3", b"r3")["say"] == "replica 3 at r3 is not reached: is its process running?"
    made.pass_ms(ABSENT_MS)
    assert made.members(leader) == (1, 2)
    made.join("r3")
    made.until_done(leader, "add", "r3", b"r3")
    assert made.members(leader) == (1, 2, 3)


def test_taking_a_newcomer_back_lets_the_one_that_waits_for_it_in() -> None:
    made, leader = group(1)
    made.join("r2")
    made.ask(leader, "add", "r3", b"r3")
    made.pass_ms(PARTNER_MS)
    assert made.members(leader) == (1,)
    made.ask(leader, "remove", "r3")
    made.pass_ms(PARTNER_MS)
    assert made.members(leader) == (1, 2)


def test_a_newcomer_that_nobody_has_asked_for_waits_for_a_partner_but_not_for_ever() -> None:
    made, leader = group(1)
    made.join("r2")
    made.pass_ms(PARTNER_MS // 2)
    assert made.members(leader) == (1,)
    made.pass_ms(PARTNER_MS)
    assert made.members(leader) == (1, 2)
    made.join("r3")
    made.pass_ms(1000)
    assert made.members(leader) == (1, 2, 3), "three is odd: nothing to wait for"


def test_nobody_votes_who_is_far_behind() -> None:
    made, leader = group(1)
    core = made.replicas[leader]
    two = made.join("r2")
    made.isolate(two)
    made.ask(leader, "add", "r2", b"r2")
    for number in range(NEAR_ENTRIES + 10):
        core._submit(b"%d" % number, None)
    made.settle()
    made.cut.clear()
    made.held.add(Chosen)
    made.pass_ms(1000)
    assert made.members(leader) == (1,)
    said = made.ask(leader, "add", "r2", b"r2")["say"]
    assert said.startswith("replica 2 at r2 catches up: ")
    made.held.clear()
    made.until_done(leader, "add", "r2", b"r2")


def test_one_that_was_near_and_falls_behind_again_is_not_near() -> None:
    """It may have to wait for others while the log goes on."""
    made, leader = group(1)
    core = made.replicas[leader]
    two = made.join("r2")
    made.pass_ms(200)
    changing = core._members._changing
    assert changing is not None
    assert changing.is_near(two, made.now_ms)
    made.held.add(Chosen)
    for number in range(NEAR_ENTRIES + 10):
        core._submit(b"%d" % number, None)
    made.pass_ms(PARTNER_MS + 1000)
    assert changing.is_here(two, made.now_ms)
    assert not changing.is_near(two, made.now_ms)
    assert made.members(leader) == (1,)
    made.held.clear()
    made.pass_ms(PARTNER_MS + 1000)
    assert made.members(leader) == (1, 2)


def test_one_that_loads_a_snapshot_is_not_near_however_few_entries_it_lacks() -> None:
    """What it loads may be large, and it acknowledges nothing before that is done."""
    made, leader = group(1)
    two = made.join("r2")
    made.pass_ms(200)
    changing = made.replicas[leader]._members._changing
    assert changing is not None
    assert changing.is_near(two, made.now_ms)
    applied = made.replicas[two].machine.applied
    made.replicas[leader].peer_said(two, Learning(applied, 1_000, 1_000_000))
    assert changing.is_here(two, made.now_ms)
    assert not changing.is_near(two, made.now_ms)


def test_progress_is_told_with_its_total_its_pace_and_what_is_left() -> None:
    """An operator waits for it, and wants to know how long."""
    pupil = Pupil(Learning(0, 0), 1000)
    pupil.heard(Learning(0, 2_000_000, 12_000_000), 2000)
    assert pupil.describe(90_000) == "fetches a snapshot: 2.0 of 12.0 MB, 2.0 MB a second, about 6 s left"
    pupil.heard(Learning(0, 12_000_000, 12_000_000), 3000)
    assert pupil.describe(90_000) == "loads a snapshot of 12.0 MB"
    pupil.heard(Learning(50_000, 0), 3100)
    pupil.heard(Learning(60_000, 0), 4000)
    assert pupil.describe(90_000) == "catches up: 60,000 of 90,000 entries, 60,000 a second, about 1 s left"
    pupil.heard(Learning(89_000, 0), 5000)
    assert pupil.describe(90_000) == "has caught up with 89,000 entries"
    assert Pupil(Learning(0, 0), 1000).describe(90_000) == "catches up: 0 of 90,000 entries, 0 a second"


def test_a_fetched_snapshot_tells_how_much_of_it_is_here() -> None:
    fetching = Fetching()
    assert fetching.received == (0, 0)
    fetching.want(1, 1000)
    assert fetching.received == (0, 0)
    fetching.came(1, SnapshotPart(7, b"", 0, bytes(10), False, 25), 0, 1000)
    fetching.came(1, SnapshotPart(7, b"", 10, bytes(10), False, 25), 0, 1000)
    assert fetching.received == (20, 25)
    fetching.done()
    assert fetching.received == (0, 0)


def test_any_replica_may_be_asked() -> None:
    """It carries the question to the leader; one that hears no leader says so."""
    made, leader = group(3)
    follower = next(number for number in made.replicas if number != leader)
    answer = made.ask(follower, "list")
    assert answer["leader"] == leader
    assert [row["state"] for row in answer["members"]] == ["up"] * 3
    made.isolate(follower)
    made.pass_ms(3000)
    answer = made.ask(follower, "list")
    assert answer["elsewhere"]
    assert answer["servers"] == ["r1", "r2", "r3"]


def test_what_nobody_asks_ends_the_connection() -> None:
    made, leader = group(1)
    for question, arguments in (("list", (1,)), ("add", ("r2",)), ("add", ("r2", b"")), ("vanish", ())):
        with pytest.raises(ProtocolError):
            made.ask(leader, question, *arguments)


def test_a_new_leader_goes_on_with_what_the_old_one_was_asked() -> None:
    """The wish is in the log, so it does not die with whoever took it."""
    made, leader = group(3)
    made.ask(leader, "add", "r4", b"r4")
    four = made.join("r4")
    made.isolate(leader)
    made.pass_ms(5000)
    successor = made.leader()
    assert successor != leader
    made.pass_ms(3 * PARTNER_MS)
    assert made.members(successor) == (1, 2, 3, four)


def test_there_are_at_most_seven() -> None:
    made, leader = group(7)
    said = made.ask(leader, "add", "r8", b"r8")
    assert said["refused"]
    assert "7 are the most" in said["say"]
    made.ask(leader, "replace", "1" if leader != 1 else "2", "r8", b"r8")
    made.join("r8")
    made.until_done(made.leader(), "add", "r8", b"r8")
    assert len(made.members(made.leader())) == 7


def test_those_who_are_on_their_way_count_as_well() -> None:
    """Each was admitted while there was room, and all of them would come in."""
    made, leader = group(6)
    assert not made.ask(leader, "add", "r7", b"r7").get("refused")
    said = made.ask(leader, "add", "r8", b"r8")
    assert said["refused"]
    assert "6 members and 1 newcomers, and 7 are the most" in said["say"]


@pytest.mark.parametrize("side_by_side", [True, False])
def test_two_who_are_asked_for_at_one_time_are_one_too_many(side_by_side: bool) -> None:
    """Two operators, and neither wish was in the log when the other one came: there was room for each."""
    made, leader = group(6)
    for name in ("r7", "r8"):
        query = wire.Query(1, "members.add", (name, name.encode()))
        made.replicas[leader].client_said(-2, query, codec.encode(query))
    made.settle()
    for number in (7, 8):
        made.start(Admission(number, made.replicas[leader].paxos.configuration, ()))
        made.pass_ms(0 if side_by_side else 2 * ABSENT_MS)
    made.pass_ms(2 * PARTNER_MS)
    assert len(made.members(leader)) == 7
    assert (
        made.ask(leader, "add", "r8", b"r8")["say"] == "replica 8 at r8 waits: 7 members are the most: remove one first"
    )


# --- shrinking and replacing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_leader_is_removed_after_it_has_handed_over(size: int) -> None:
    made, leader = group(size)
    made.until_done(leader, "remove", f"r{leader}")
    made.pass_ms(1000)
    rest = tuple(number for number in range(1, size + 1) if number != leader)
    successor = made.leader()
    assert successor in rest
    assert made.members(successor) == rest
    assert made.ask(successor, "remove", str(leader))["done"], "it is so, and may be asked for again"


def test_the_last_but_one_of_three_is_not_removed_with_one_down() -> None:
    made, leader = group(3)
    down, up = (number for number in made.replicas if number != leader)
    made.isolate(down)
    made.pass_ms(1000)
    for victim in (up, leader):
        said = made.ask(leader, "remove", str(victim))
        assert said["refused"]
        assert f"replica {down} at r{down} cannot be reached" in said["say"]
    assert made.members(leader) == (1, 2, 3)
    made.until_done(leader, "remove", str(down))
    assert made.members(leader) == tuple(sorted((leader, up)))


def test_a_leader_that_has_just_come_refuses_nothing_that_it_cannot_know() -> None:
    made, leader = group(3)
    made.until_done(leader, "transfer", str(leader % 3 + 1), 0)
    new = made.leader()
    made.isolate(new)  # it has not heard any answer to a heartbeat of its own yet, as far as it can tell
    core = made.replicas[new]
    for follower in core.paxos._leadership.followers.values():  # type: ignore[union-attr]
        follower.beat = 0
    answer = made.ask(new, "remove", str(new))
    assert not answer.get("refused")
    assert "looks who is there" in answer["say"]


@pytest.mark.parametrize("whose", ["leader", "follower", "only"])
def test_a_newcomer_takes_a_place(whose: str) -> None:
    """In one entry, so the group is never smaller or larger for it."""
    made, leader = group(1 if whose == "only" else 3)
    old = leader if whose != "follower" else leader % 3 + 1
    new = made.join("new", replaces=str(old))
    made.pass_ms(4000)
    now = made.leader()
    assert now != old
    assert made.members(now) == tuple(sorted((set(range(1, new)) - {old}) | {new}))
    assert made.replicas[now].paxos.configuration.epoch == 2


def test_of_two_whose_places_are_taken_neither_hands_over_to_the_other() -> None:
    """They would pass it to and fro, each being the first that the other finds, and nobody would make the change."""
    made, leader = group(3)
    other = leader % 3 + 1
    made.join("a", replaces=str(leader))
    made.join("b", replaces=str(other))
    changing = made.replicas[leader]._members._changing
    assert changing is not None
    third = ({1, 2, 3} - {leader, other}).pop()
    new = changing._with(list(made.replicas[leader].machine.roster.newcomers.values()))
    assert new.keys() == {third, 4, 5}
    assert changing.successors(new) == [third]
    assert other in changing.successors((1, 2, 3)), "it is there"
    made.pass_ms(6000)
    assert made.members(made.leader()) == (third, 4, 5)


def test_a_newcomer_that_was_faster_than_the_operator_takes_the_place_all_the_same() -> None:
    """It became a member by itself; then somebody says whose place was meant for it."""
    made, leader = group(3)
    old = leader % 3 + 1
    new = made.join("new")
    made.pass_ms(2 * PARTNER_MS)
    assert new in made.members(leader)
    made.until_done(leader, "replace", str(old), "new", b"new")
    assert old not in made.members(leader)
    assert len(made.members(leader)) == 3
    made.until_done(leader, "replace", str(old), "new", b"new")
    other = next(number for number in made.members(leader) if number not in {leader, new})
    said = made.ask(leader, "replace", str(other), "new", b"new")
    assert said["refused"], "it has been used up for that: it is a member like any other now"
    assert "is a member already" in said["say"]


def test_a_replacement_that_is_decided_just_after_its_newcomer_came_in_by_itself_goes_on() -> None:
    """The wish was on its way when the newcomer became a member; nobody is told that it cannot be done."""
    made, leader = group(3)
    old = leader % 3 + 1
    new = made.join("new")
    made.pass_ms(2 * PARTNER_MS)
    assert new in made.members(leader)
    made.replicas[leader]._submit(commands.codec.encode(Admit("new", b"new", old, True)), None)
    made.settle()
    made.until_done(leader, "replace", str(old), "new", b"new")
    assert old not in made.members(made.leader())
    assert len(made.members(made.leader())) == 3


def test_one_place_is_taken_once() -> None:
    """Two operators at once: the second is told who comes. If both were heard in one moment, one comes first."""
    made, leader = group(3)
    old = leader % 3 + 1
    first = made.ask(leader, "replace", str(old), "a", b"a")
    second = made.ask(leader, "replace", str(old), "b", b"b")
    assert not first.get("refused")
    assert second["refused"]
    assert f"replica 4 at a is about to take the place of replica {old}" in second["say"]
    core = made.replicas[leader]
    core._submit(commands.codec.encode(Admit("b", b"b", old, True)), None)
    made.settle()
    assert not made.ask(leader, "replace", str(old), "a", b"a").get("refused"), "the first goes on"
    assert made.ask(leader, "replace", str(old), "b", b"b")["refused"]
    new = core._members._changing._with(list(core.machine.roster.newcomers.values()))  # type: ignore[union-attr]
    assert len(new) == 3
    assert 4 in new


def test_one_that_is_admitted_learns_its_id_whatever_place_it_was_started_for() -> None:
    """A typo in its `--replace`, and then an operator names it: it is awaited, so it must not wait itself."""
    made, leader = group(3)
    assert "there is no replica r99" in made.ask(leader, "join", "new", b"new", "r99", 0)["say"]
    made.ask(leader, "add", "new", b"new")
    answer = made.ask(leader, "join", "new", b"new", "r99", 0)
    assert answer["done"]
    assert answer["say"] == "this is replica 4"


def test_a_replacement_tells_how_far_it_is_and_asks_for_one_admission() -> None:
    made, leader = group(3)
    old = leader % 3 + 1
    made.ask(leader, "replace", str(old), "new", b"new")
    changes = made.replicas[leader].machine.roster.changes
    assert made.ask(leader, "replace", str(old), "new", b"new")["say"] == (
        "replica 4 at new is not reached: is its process running?"
    )
    assert made.replicas[leader].machine.roster.changes == changes


def test_a_replica_does_not_replace_itself() -> None:
    made, leader = group(3)
    answer = made.ask(leader, "replace", "2", "r2", b"2")
    assert answer["refused"]
    assert answer["say"].startswith("replica 2 cannot replace itself")


def test_a_newcomer_is_dismissed() -> None:
    made, leader = group(3)
    new = made.join("new")
    made.until_done(leader, "remove", "new")
    made.pass_ms(3 * PARTNER_MS)
    assert made.members(leader) == (1, 2, 3)
    assert made.replicas[leader].machine.roster.has_left(new)
    answer = made.ask(leader, "join", "new", b"new", "", new)
    assert answer["removed"]
    assert made.join("again") == new + 1, "no id is given twice"


def test_an_address_means_whom_it_belongs_to_now() -> None:
    """The one whose place was taken listened there too, and is gone: by that address nobody means it."""
    made, leader = group(3)
    old = leader % 3 + 1
    new = made.join(f"r{old}", replaces=str(old))
    made.pass_ms(4000)
    assert old not in made.members(made.leader())
    made.until_done(made.leader(), "transfer", f"r{old}", 0)
    assert made.leader() == new
    made.until_done(new, "remove", f"r{old}")
    made.pass_ms(2000)
    assert len(made.members(made.leader())) == 2


def test_leadership_is_handed_to_whom_it_shall_go() -> None:
    made, _ = group(5)
    for target in (3, 5, 1):
        made.until_done(made.leader(), "transfer", str(target), 0)
        assert made.leader() == target
    made.until_done(1, "transfer", "", 1)
    assert made.leader() != 1
    for stranger in ("9", "elsewhere:1"):
        answer = made.ask(made.leader(), "transfer", stranger, 0)
        assert answer["refused"]
        assert answer["say"].startswith(f"there is no replica {stranger} in this group")
    leader = made.leader()
    lost = leader % 5 + 1
    made.isolate(lost)
    made.pass_ms(1500)
    said = made.ask(leader, "transfer", str(lost), 0)
    assert said["refused"]
    assert f"replica {lost} cannot be reached" in said["say"]
    assert made.leader() == leader


def test_a_leader_that_has_just_handed_over_does_not_say_that_it_leads() -> None:
    """Two operators' questions may arrive in one turn, and after the first it has stood back already."""
    made, leader = group(3)
    other = leader % 3 + 1
    core = made.replicas[leader]
    for number, target in enumerate((other, leader), 1):
        core.client_said(-1, wire.Query(number, "members.transfer", (str(target), 0)), made.now_ms)
    made.settle()
    answers = [message.value for message in made.said[-1] if isinstance(message, wire.Answer)]
    assert answers[-1]["say"] != f"replica {leader} leads"
    assert not answers[-1]["done"]


# --- who knows whom --------------------------------------------------------------------------------------------------


def test_links_follow_the_log() -> None:
    made, leader = group(1)
    made.join("r2")
    made.pass_ms(100)
    assert _links(made, 1) == {2: "r2"}
    assert _links(made, 2) == {1: "r1"}
    made.until_done(leader, "add", "r2", b"r2")
    made.until_done(leader, "remove", "1")
    made.pass_ms(1000)
    assert _links(made, 2) == {}


def _links(made: Group, number: int) -> dict[int, str]:
    return next(output.links for output in reversed(made.outputs[number]) if output.links is not None)


def test_clients_are_told_of_other_members() -> None:
    made, leader = group(3)
    follower = leader % 3 + 1
    made.open(follower, 7)
    made.join("r4")
    made.pass_ms(2 * PARTNER_MS)
    told = [message for message in made.said[7] if isinstance(message, wire.Servers)]
    assert told == [wire.Servers(("r1", "r2", "r3", "r4"))]


def test_a_newcomer_sends_clients_on() -> None:
    made, _ = group(1)
    two = made.join("r2")
    made.say(two, 9, wire.Open(b"n", 10_000, "test", "lost"))
    assert any(isinstance(message, wire.MoveOn) for message in made.said[9])
    assert 9 in made.hung_up


def test_who_has_become_a_member_serves_clients_and_who_is_one_no_more_does_not() -> None:
    """What a replica is may be otherwise from one entry to the next; its clients hear of it from nobody else."""
    made, _ = group(1)
    two = made.join("r2")
    made.pass_ms(2 * PARTNER_MS)
    assert made.members(1) == (1, two)
    assert made.open(two, 9)
    made.until_done(made.leader(), "remove", str(two))
    made.pass_ms(3000)
    made.say(two, 10, wire.Open(b"n", 10_000, "test", "late"))
    assert any(isinstance(message, wire.MoveOn) for message in made.said[10])


def test_a_newcomer_finds_a_group_of_which_nobody_is_left_whom_it_was_formed_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever in the log its way is interrupted: those that it was told of are known there from the first slot on."""
    monkeypatch.setattr(log, "PAGE_ENTRIES", 1)
    monkeypatch.setattr(changing, "NEAR_ENTRIES", 0)
    made, _ = group(1)
    two = made.join("r2", replaces="1")
    made.pass_ms(2 * PARTNER_MS)
    assert made.members(two) == (two,)
    made.pass_ms(500)
    del made.replicas[1]
    three = made.join("r3")
    made.queue.clear()
    newcomer, made.held = made.replicas[three], {Chosen}
    for _ in range(100):
        made.pass_ms(200)
        if made.queue:
            source, _, page = made.queue[0]
            newcomer.peer_said(source, page)
            made.take(three)
        made.queue.clear()  # its next question gets lost, and it has to think of somebody to ask
    assert newcomer.paxos.configuration.ids == (two, three)


def test_a_newcomer_finds_a_group_of_which_nobody_is_left_but_a_former_newcomer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was away since the other one was still as new as itself: what it knows of members is all past."""
    monkeypatch.setattr(changing, "NEAR_ENTRIES", 0)
    made, _ = group(1)
    two, three = made.join("r2", replaces="1"), made.join("r3")
    newcomer = made.replicas[three]
    while two not in newcomer.machine.roster.newcomers:
        assert made.members(1) == (1,)
        made.pass_ms(1, step_ms=1)
    made.cut = {(1, three), (three, 1), (two, three), (three, two)}
    made.pass_ms(2 * PARTNER_MS)
    assert made.members(two) == (two,)
    assert newcomer.paxos.configuration.ids == (1,)
    del made.replicas[1]
    made.cut.clear()
    made.pass_ms(2 * PARTNER_MS)
    assert made.members(two) == made.members(three) == (two, three)


def test_a_removed_replica_is_told_so_only_when_the_change_is_over() -> None:
    """Until a majority of the new members has all that was decided, they may have it from the removed one alone."""
    made, _ = group(1)
    two = made.join("r2", replaces="1")
    core = made.replicas[two]
    one = made.replicas[1]
    seen = set()
    for _ in range(300):
        made.pass_ms(20)
        objection = core.acquaintance.objection(1, b"1", core.machine)
        if objection is not None:
            seen.add(objection.code)
            over = core.paxos.chosen > core.acquaintance.ruling_since
            assert (objection.code == REMOVED) == over
            assert objection.code in {REMOVED, LATER}
    assert REMOVED in seen
    assert made.leader() == two
    assert one.paxos.role is Role.LEARNER
    assert core.acquaintance.objection(2, b"other", core.machine).code == "wrong_group"  # type: ignore[union-attr]
    assert core.acquaintance.objection(99, b"from the future", core.machine) is None


# --- the roster -------------------------------------------------------------------------------------------------------


def test_a_roster_gives_no_id_twice_and_survives_a_snapshot() -> None:
    machine = Machine(Configuration("c", 1, (Member(1, "a", b"1"), Member(2, "b", b"2")), b""))
    roster = machine.roster
    roster.admit(Admit("x", b"x", 0, False))
    roster.admit(Admit("x", b"x", 2, False))
    assert roster.newcomers[3].replaces == 2
    roster.admit(Admit("x", b"made anew", 0, True))
    assert list(roster.newcomers) == [4], "its directory was made anew: another replica"
    roster.dismiss(4)
    roster.dismiss(4)
    assert [replica for replica in range(8) if roster.has_left(replica)] == [3, 4]
    assert roster.gone == {3: "x", 4: "x"}
    roster.admit(Admit("y", b"y", 0, False))
    roster.configure(Configuration("c", 2, (Member(2, "b", b"2"), Member(5, "y", b"y")), b""))
    assert list(roster.unasked) == [5]
    copy = Machine.restore([machine.dump()])
    assert copy.roster.dump() == roster.dump()
    assert copy.dump() == machine.dump()
    roster.admit(Admit("y", b"y", 0, True))
    assert not roster.unasked
    for number in range(2 * NEWCOMERS_MAX):
        roster.admit(Admit(f"n{number}", b"n%d" % number, 0, True))
    assert len(roster.newcomers) == NEWCOMERS_MAX
    assert roster.top == 5 + NEWCOMERS_MAX
    assert Roster().find(b"nobody") == 0


@pytest.mark.parametrize("seed", range(6))
def test_no_id_is_given_twice_whatever_becomes_of_its_owner(seed: int) -> None:
    """An id that somebody has left would let two replicas vote as one."""
    chance = random.Random(seed)
    roster = Roster(Configuration("c", 1, (Member(1, "a", b"1"), Member(2, "b", b"2")), b""))
    owners: dict[int, bytes] = {}
    named: set[int] = set()
    for step in range(300):
        match chance.randrange(6):
            case 0:
                roster.dismiss(chance.randrange(1, roster.top + 2))
            case 1:
                promoted = [Member(*newcomer[:3]) for newcomer in roster.newcomers.values() if chance.random() < 0.3]
                stay = [member for member in roster.members.values() if chance.random() < 0.9]
                members = (*(stay or roster.members.values()), *promoted)[-7:]
                roster.configure(Configuration("c", step + 2, tuple(members), b""))
            case 2:
                copy = Roster()
                copy.load(*roster.dump())
                roster = copy
            case _:
                directory = chance.randrange(60)
                replaces = chance.choice([0, *roster.members])
                asked = chance.random() < 0.5
                roster.admit(Admit(f"{directory % 10}", b"%d" % directory, replaces, asked))
                replica = roster.find(b"%d" % directory)
                if asked and (replica in roster.newcomers or not replaces):
                    named.add(replica)
        known = {one.id: one.incarnation for one in (*roster.members.values(), *roster.newcomers.values())}
        for replica, directory in known.items():
            assert owners.setdefault(replica, directory) == directory
            assert roster.find(directory) == replica
        assert {one.id for one in roster.newcomers.values() if one.asked} == named & roster.newcomers.keys()
        assert roster.unasked.keys() == roster.members.keys() - named - {1, 2}, "whom an operator has named stays named"
        left = {replica for replica in range(roster.top + 9) if roster.has_left(replica)}
        assert left == owners.keys() - known.keys()
    assert len(owners) > 30


def test_an_admission_is_told_from_a_formation() -> None:
    genesis = Configuration("c", 1, (Member(1, "a", b"1"),), b"")
    admission = Admission(7, genesis, ((1, "a"), (5, "b")))
    assert Admission.decode(admission.encode()) == admission
    for phase in (0, 1, 2):
        assert Admission.decode(bytes([phase]) + b"...") is None


def test_a_stranger_that_is_believed_is_a_reason_for_a_turn() -> None:
    """Nothing else comes of its introduction; and without a turn nobody would dial it."""
    made, leader = group(3)
    core = made.replicas[leader]
    assert not core.due
    core.acquaintance.met(9, "r9", core.machine)
    assert core.due
    links = core.take().links
    assert links is not None
    assert links[9] == "r9"
    assert not core.due
