# SPDX-License-Identifier: Apache-2.0
"""What a follower passes on arrives whole, in order and in messages that the wire can carry, whatever is pending."""

from __future__ import annotations

import itertools
import random

import pytest

from dthreading.wire.limits import FRAME_BYTES_MAX
from replicas.replica.forwarding import FORWARD_BODIES_MAX, FORWARD_BYTES_MAX, RETRY_MS, Forwarding, Streams
from replicas.replica.hosting import Hosting
from replicas.replica.messages import Forward, Missed, codec


def passing(bodies: list[bytes]) -> tuple[Hosting, Forwarding]:
    """A follower whose clients have said all that, to a leader that it knows."""
    hosting = Hosting()
    forwarding = Forwarding(hosting, 0)
    forwarding.begin(0)
    for body in bodies:
        assert hosting.add(body, 1)
        forwarding.add(body)
    return hosting, forwarding


def said(forwards: list[Forward]) -> list[bytes]:
    return [body for forward in forwards for body in forward.bodies]


@pytest.mark.parametrize(
    "sizes",
    [
        [10] * 3,
        [10] * FORWARD_BODIES_MAX,
        [10] * (2 * FORWARD_BODIES_MAX + 1),
        [FORWARD_BYTES_MAX // 2 + 1] * 5,
        [FORWARD_BYTES_MAX + 5, 10, FORWARD_BYTES_MAX + 5],
        [FORWARD_BYTES_MAX - 10, 10, 10],
    ],
)
def test_all_goes_in_order_and_each_message_has_its_limits(sizes: list[int]) -> None:
    bodies = [index.to_bytes(4, "big") + bytes(size - 4) for index, size in enumerate(sizes)]
    _, forwarding = passing(bodies)
    assert forwarding.due
    forwards = forwarding.take()
    assert said(forwards) == bodies
    assert [forward.number for forward in forwards] == list(range(len(forwards)))
    assert len({forward.stream for forward in forwards}) == 1
    for forward in forwards:
        assert forward.bodies
        assert len(forward.bodies) <= FORWARD_BODIES_MAX
        assert sum(map(len, forward.bodies)) <= FORWARD_BYTES_MAX or len(forward.bodies) == 1
        assert len(codec.encode(forward)) <= FRAME_BYTES_MAX
    for before, after in itertools.pairwise(forwards):
        together = [*before.bodies, after.bodies[0]]
        assert len(together) > FORWARD_BODIES_MAX or sum(map(len, together)) > FORWARD_BYTES_MAX, "as few as may be"
    assert not forwarding.due
    assert forwarding.take() == []


def test_a_stream_that_has_run_dry_begins_again_with_all_that_is_pending() -> None:
    hosting, forwarding = passing([b"one", b"two", b"three"])
    (first,) = forwarding.take()
    assert forwarding.applied(b"two", RETRY_MS - 1) == 1
    forwarding.mend(2 * RETRY_MS - 2)
    assert not forwarding.due, "it flows: something was applied a moment ago"
    forwarding.mend(2 * RETRY_MS - 1)
    (again,) = forwarding.take()
    assert again.bodies == (b"one", b"three")
    assert again.number == 0
    assert again.stream > first.stream
    for body in (b"one", b"three"):
        assert forwarding.applied(body, 2 * RETRY_MS) == 1
    forwarding.mend(9 * RETRY_MS)
    assert not forwarding.due, "nothing is pending"
    assert not hosting.pending_count


def test_what_others_had_applied_does_not_keep_a_dry_stream_from_its_mending() -> None:
    _, forwarding = passing([b"one"])
    forwarding.take()
    assert forwarding.applied(b"another replica's", RETRY_MS - 1) is None
    forwarding.mend(RETRY_MS)
    assert said(forwarding.take()) == [b"one"]


def test_a_stream_is_newer_than_those_of_a_former_life() -> None:
    """Its process counts from nothing again; its clock goes on."""
    before = Forwarding(Hosting(), 0)
    for now_ms in (5, 5, 6):
        before.begin(now_ms)
    before.add(b"before")
    after = Forwarding(Hosting(), 100)
    after.begin(100)
    after.add(b"after")
    assert after.take()[0].stream > before.take()[0].stream


def test_a_leader_takes_each_stream_without_gaps_and_copies() -> None:
    """Whatever gets lost: what is taken of a stream is a beginning of it."""
    luck = random.Random(7)
    streams, taken = Streams(), dict[tuple[int, int], list[int]]()
    for stream in range(200):
        source = stream % 3
        for number in range(luck.randint(1, 6)):
            if luck.random() < 0.3:
                continue
            if streams.takes(source, Forward(stream, number, (b"x",))):
                taken.setdefault((source, stream), []).append(number)
    assert sum(map(len, taken.values())) > 100
    assert all(numbers == list(range(len(numbers))) for numbers in taken.values())
    assert not streams.takes(0, Forward(999, 1, (b"x",)))
    assert streams.takes(1, Forward(1000, 0, (b"x",)))
    streams.clear()
    assert not streams.takes(1, Forward(1000, 1, (b"x",))), "another reign: each stream begins anew"


def test_a_leader_tells_of_gaps_and_of_nothing_else() -> None:
    streams = Streams()

    def heard(stream: int, number: int) -> Missed | None:
        forward = Forward(stream, number, (b"x",))
        return None if streams.takes(1, forward) else streams.gap(1, forward)

    assert heard(5, 2) == Missed(5), "its beginning has not come"
    assert [heard(6, 0), heard(6, 1)] == [None, None]
    assert heard(6, 3) == Missed(6)
    assert heard(6, 1) is None, "a copy"
    assert heard(5, 3) is None, "late: another stream has begun since"
    assert heard(6, 2) is None
    assert heard(7, 1) == Missed(7)


def test_a_stream_with_a_gap_begins_again_soon_and_once() -> None:
    _, forwarding = passing([b"one"])
    (lost,) = forwarding.take()
    forwarding.missed(lost.stream)
    assert not forwarding.due, "not as fast as a leader can say so"
    forwarding.mend(20)
    (again,) = forwarding.take()
    assert (again.number, again.bodies) == (0, (b"one",))
    assert again.stream > lost.stream
    forwarding.missed(lost.stream)
    forwarding.mend(40)
    assert not forwarding.due, "that gap was mended"


def test_a_gap_is_mended_although_nothing_is_pending_any_more() -> None:
    """Or the next command would come after it, too."""
    hosting, forwarding = passing([b"one"])
    (lost,) = forwarding.take()
    assert forwarding.applied(b"one", 1) == 1
    forwarding.missed(lost.stream)
    forwarding.mend(20)
    hosting.add(b"two", 1)
    forwarding.add(b"two")
    (after,) = forwarding.take()
    assert (after.number, after.bodies) == (0, (b"two",))
