# SPDX-License-Identifier: Apache-2.0
"""What is well-formed and absurd, from operators and from replicas: each is refused in one sentence at the door, and
whatever of it stands in a log already ends nobody.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from dthreading.wire import codec
from dthreading.wire import messages as wire
from dthreading.wire.limits import FRAME_BYTES_MAX
from replicas.replica.acquaintance import MET_MAX
from replicas.replica.messages import codec as peers
from tests.replica.harness import Group

OPERATOR = 9


class Measured(deque[tuple[int, int, Any]]):
    """Notes how long what replicas say to each other is."""

    longest = 0

    def append(self, flight: tuple[int, int, Any]) -> None:
        self.longest = max(self.longest, len(peers.encode(flight[2])))
        super().append(flight)


@pytest.fixture
def group() -> Group:
    group = Group(3)
    group.queue = Measured()
    group.leader()
    return group


def asked(group: Group, number: int, question: str, *arguments: Any) -> dict[str, Any]:
    """An operator's question to that replica, and its answer."""
    group.say(number, OPERATOR, wire.Query(1, question, arguments))
    group.pass_ms(100)
    answer = group.said[OPERATOR].pop()
    assert isinstance(answer.value, dict)
    assert group.queue.longest <= FRAME_BYTES_MAX  # type: ignore[attr-defined]
    return answer.value


@pytest.mark.parametrize(("address", "incarnation"), [("h:1", b"i" * 2000), ("h" * 2000 + ":1", b"i" * 16)])
@pytest.mark.parametrize(
    ("question", "before", "after"), [("add", (), ()), ("replace", ("1",), ()), ("join", (), ("", 0))]
)
def test_long_words_of_an_operator_come_into_no_log(
    group: Group, question: str, before: tuple[str, ...], address: str, incarnation: bytes, after: tuple[Any, ...]
) -> None:
    """Each newcomer's stand in the roster of every replica, in each snapshot, and in all that is said about members."""
    for number in group.replicas:
        answer = asked(group, number, f"members.{question}", *before, address, incarnation, *after)
        assert answer["refused"]
        assert "NAME_BYTES_MAX" in answer["say"]
    assert not any(replica.machine.roster.newcomers for replica in group.replicas.values())


@pytest.mark.parametrize(
    ("question", "arguments"), [("members." + "\0" * 5_000_000, ()), ("members.remove", ("x" * 15_000_000,))]
)
def test_what_a_leader_answers_to_a_follower_fits_a_frame(
    group: Group, question: str, arguments: tuple[Any, ...]
) -> None:
    """Or it would end, and the next leader as well when it is asked again."""
    follower = next(number for number in group.replicas if number != group.leader())
    assert asked(group, follower, question, *arguments)["refused"]


def test_a_list_of_members_that_fits_no_frame_is_said_to_be_too_long(group: Group) -> None:
    """A log of old may hold newcomers with addresses of any length."""
    leader = group.leader()
    follower = next(number for number in group.replicas if number != leader)
    for replica in group.replicas.values():
        first = replica.paxos.configuration.members[0]
        for number in (8, 9):
            newcomer = (number, "x" * 9_000_000 + str(number), b"%d" % number, 0, True)
            replica.machine.roster.load(9, (first,), (newcomer, *replica.machine.roster.newcomers.values()), (), ())
    assert "too long" in asked(group, follower, "members.list")["say"]


def test_whoever_comes_from_the_future_costs_so_many_links() -> None:
    """Any id that is not given yet is believed, and there are 2**63 of them."""
    replica = Group(1).replicas[1]
    known = replica.acquaintance
    for number in range(100, 100 + 3 * MET_MAX):
        assert known.objection(number, b"x", replica.machine) is None
        known.met(number, f"h:{number}", replica.machine)
    known.met(99 + 3 * MET_MAX, "moved:1", replica.machine)
    links = known.links(replica.machine)
    assert len(links) == MET_MAX
    assert links[99 + 3 * MET_MAX] == "moved:1", "the newest are kept"


def test_two_operators_who_delete_the_same_at_one_time_are_answered_both(group: Group) -> None:
    """Their commands are one and the same, which the second one's connection speaks for, if it is there still."""
    for number in group.replicas:
        for leaves in (False, True):
            for connection in (20, 21):
                query = wire.Query(connection, "delete", ("test", "x"))
                group.replicas[number].client_said(connection, query, codec.encode(query))
            if leaves:
                group.replicas[number].client_gone(21)
            group.settle()
            group.pass_ms(1_000)
            assert group.said.pop(20) == [wire.Answer(20, False)]
            assert group.said.pop(21, []) == [wire.Answer(21, False)] * (not leaves)
