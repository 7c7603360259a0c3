# SPDX-License-Identifier: Apache-2.0
"""A read without an entry of its own: it sees what its client said before it, and waits for nothing else."""

from __future__ import annotations

from dthreading.wire import codec
from dthreading.wire import messages as wire
from dthreading.wire.messages import Reply
from replicas.machine import commands
from tests.replica.harness import Group


def clients(group: Group) -> dict[int, int]:
    """One at each replica, on the connection of its number, attached to one event; their sessions."""
    sessions = {}
    for number in group.replicas:
        sessions[number] = group.open(number, number)
        group.attach(number, number, sessions[number], "Event")
    return sessions


def answers(group: Group, connection: int) -> dict[int, object]:
    """By lane."""
    return {said.lane: said.value for said in group.said[connection] if isinstance(said, Reply)}


def sets_and_asks(group: Group, number: int, session: int) -> None:
    """In one breath, on two lanes: as a thread does whose former call was given up."""
    for lane, operation in enumerate(("set", "is_set")):
        call = wire.Call(session, lane, 1, 1, operation, (), False)
        group.replicas[number].client_said(number, call, codec.encode(call))
    group.settle()
    group.pass_ms(500)


def successor(group: Group, former: int) -> int:
    """Somebody else leads now."""
    group.isolate(former)
    for _ in range(500):
        for number, replica in group.replicas.items():
            if number != former and replica._tenure is not None:
                return number
        group.pass_ms(20)
    raise AssertionError("nobody leads")


def test_the_first_words_of_a_reign_are_seen_by_the_read_behind_them() -> None:
    """Nothing was proposed in it yet from which their slots could be counted."""
    group = Group()
    leader = group.leader()
    sessions = clients(group)
    number = successor(group, leader)
    sets_and_asks(group, number, sessions[number])
    assert answers(group, number) == {0: None, 1: True}


def test_a_read_waits_for_no_slots_that_a_former_reign_has_left_empty() -> None:
    """What a deposed leader proposed of its own is nowhere; when it leads again nobody may ever come to those slots."""
    group = Group()
    leader = group.leader()
    sessions = clients(group)
    replica = group.replicas[leader]
    group.isolate(leader)
    replica._to_propose.extend(commands.expire(900 + number, 1, replica.paxos.ballot) for number in range(20))
    group.settle()
    other = successor(group, leader)
    (third,) = group.replicas.keys() - {leader, other}
    group.cut.clear()
    group.pass_ms(500)
    group.isolate(third)
    group.replicas[other].hand_over()
    group.pass_ms(1_000)
    assert replica._tenure is not None
    group.say(leader, leader, wire.Call(sessions[leader], 3, 1, 1, "is_set", (), False))
    group.pass_ms(300)
    assert answers(group, leader) == {3: False}
