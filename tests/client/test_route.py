# SPDX-License-Identifier: Apache-2.0
"""Which replica is dialed next: the leader first, any other in turn, none in a hurry when all have failed."""

from __future__ import annotations

from dthreading.route import AVOID_S, DELAY_MAX_S, Route


def route(*servers: str) -> Route:
    return Route(servers or ("a:1", "b:1", "c:1"), lambda: 0.0)


def test_servers_are_tried_in_order_and_at_once_in_the_first_round() -> None:
    way = route()
    tried = []
    for _ in range(3):
        tried.append(way.next(10.0))
        if len(tried) < 3:
            way.failed(tried[-1], 10.0)
            assert way.dial_at == 10.0
    assert tried == ["a:1", "b:1", "c:1"]


def test_after_a_round_without_success_there_are_pauses_that_grow_to_a_limit() -> None:
    way = route()
    pauses = []
    for _ in range(60):
        way.failed(way.next(0.0), 0.0)
        pauses.append(way.dial_at)
    assert pauses[1] == 0.0
    assert 0.0 < pauses[2] <= pauses[5] <= pauses[-1] <= DELAY_MAX_S


def test_success_forgets_the_pauses() -> None:
    way = route("a:1")
    for _ in range(10):
        way.failed(way.next(0.0), 0.0)
    way.next(0.0)
    way.succeeded("a:1")
    way.lost(5.0)
    assert way.dial_at == 5.0


def test_the_leader_is_preferred_and_may_be_one_that_was_not_configured() -> None:
    way = route()
    way.leads("z:9")
    assert way.should_move("a:1", "a:1", 0.0)
    assert way.next(0.0) == "z:9"
    assert not way.should_move("z:9", "z:9", 0.0)
    assert not way.should_move("localhost:9", "z:9", 0.0), "one server by two names"


def test_a_leader_that_cannot_be_reached_is_left_alone_for_a_while() -> None:
    """Every follower goes on naming it; without this a client would dial nobody else."""
    way = route()
    way.leads("b:1")
    assert way.next(0.0) == "b:1"
    way.failed("b:1", 0.0)
    way.leads("b:1")
    assert way.next(1.0) == "a:1"
    assert not way.should_move("a:1", "a:1", 1.0)
    assert way.should_move("a:1", "a:1", AVOID_S + 0.1)


def test_an_unknown_leader_is_nobody() -> None:
    way = route()
    way.leads("b:1")
    way.leads("")
    assert not way.should_move("a:1", "a:1", 0.0)
    assert way.next(0.0) == "a:1"


def test_members_that_a_replica_names_are_tried_after_the_configured_ones_and_replaced() -> None:
    way = route("a:1")
    way.told(["b:1", "a:1"])
    assert [way.next(0.0) for _ in range(3)] == ["a:1", "b:1", "a:1"]
    way.told(["c:1"])
    assert {way.next(0.0) for _ in range(4)} == {"a:1", "c:1"}
