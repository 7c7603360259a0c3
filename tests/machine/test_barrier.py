# SPDX-License-Identifier: Apache-2.0
"""Barrier, Semaphore, Event: who is let through, who is told that it broke, and what returns when a client dies."""

from __future__ import annotations

from threading import BrokenBarrierError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dthreading.errors import LockLost
from tests.histories import histories
from tests.machine.harness import PARKED, Bench, Client, Handle


def barriers(bench: Bench, parties: int, count: int | None = None) -> list[Handle]:
    return [bench.open(f"party {n}").attach("Barrier", "b", parties) for n in range(count or parties)]


def all_broken(*waiting: object) -> bool:
    for one in waiting:
        with pytest.raises(BrokenBarrierError):
            one.outcome()  # type: ignore[attr-defined]
    return True


# --- Barrier ---------------------------------------------------------------------------------------------------------


def test_all_parties_are_released_each_with_its_index(bench: Bench) -> None:
    """Three of three, and again: a barrier is used for many rounds."""
    parties = barriers(bench, 3)
    for _ in range(3):
        first, second = parties[0].parked("wait", False), parties[1].parked("wait", False)
        assert parties[0].state() == (3, 2, False)
        assert parties[2].wait(False) == (2, False)
        assert (first.outcome(), second.outcome()) == ((0, False), (1, False))
        assert parties[0].state() == (3, 0, False)


def test_the_action_runs_in_one_party_while_the_others_wait(bench: Bench) -> None:
    """And the barrier is still filling meanwhile."""
    one, two, three = barriers(bench, 3)
    waiting = [one.parked("wait", True), two.parked("wait", True)]
    assert three.wait(True) == (2, True)
    assert [w.outcome() for w in waiting] == [PARKED, PARKED]
    assert one.state() == (3, 3, False)
    three.action_done(True)
    assert [w.outcome() for w in waiting] == [(0, False), (1, False)]


def test_the_action_runs_even_if_the_last_party_brought_none(bench: Bench) -> None:
    one, two = barriers(bench, 2)
    first = one.parked("wait", True)
    last = two.parked("wait", False)
    assert first.outcome() == (0, True)
    one.action_done(True)
    assert last.outcome() == (1, False)


def test_only_the_runner_ends_the_action(bench: Bench) -> None:
    one, two = barriers(bench, 2)
    waiting = one.parked("wait", False)
    with pytest.raises(RuntimeError):
        two.action_done(True)
    two.wait(True)
    with pytest.raises(RuntimeError):
        one.action_done(True)
    assert waiting.outcome() is PARKED


def test_a_failed_action_breaks_it(bench: Bench) -> None:
    one, two = barriers(bench, 2)
    waiting = one.parked("wait", False)
    two.wait(True)
    assert two.action_done(False) is None
    assert all_broken(waiting)
    with pytest.raises(BrokenBarrierError):
        two.wait(False)
    assert one.state() == (2, 0, True)


@pytest.mark.parametrize("how", ["end", "undo"])
def test_the_runner_that_goes_breaks_it(bench: Bench, how: str) -> None:
    """Nobody waits for an action that the dead were to run."""
    one, two = barriers(bench, 2)
    waiting = one.parked("wait", False)
    two.wait(True)
    if how == "end":
        bench.expire(two.client)
    else:
        with pytest.raises(RuntimeError):
            two.client.withdraw(two.client.last, undo=True)
    assert all_broken(waiting)


@pytest.mark.parametrize("how", ["timeout", "undo", "end", "abort", "reset"])
def test_what_breaks_those_who_wait(bench: Bench, how: str) -> None:
    """A timeout breaks it for all, the one whose time ran out too; after a reset it is as new."""
    one, two, three, four = barriers(bench, 4)
    waiting, other = one.parked("wait", False), two.parked("wait", False)
    match how:
        case "timeout":
            with pytest.raises(BrokenBarrierError):
                other.withdraw()
        case "undo":
            with pytest.raises(RuntimeError):
                other.withdraw(undo=True)
        case "end":
            bench.expire(two.client)
        case "abort":
            three.abort()
        case _:
            three.reset()
    assert all_broken(waiting)
    assert four.state() == (4, 0, how != "reset")
    four.reset()
    assert four.state() == (4, 0, False)
    assert four.parked("wait", False).waits


def test_what_comes_while_the_action_runs_waits_for_its_end(bench: Bench) -> None:
    """A timeout comes too late, an abort and a reset take their turn, a party of the next round is let in after."""
    one, two, three, four = barriers(bench, 2, 4)
    first = one.parked("wait", False)
    two.wait(True)
    assert first.withdraw() is PARKED
    third = three.parked("wait", False)
    aborting = four.parked("abort")
    resetting = four.parked("reset")
    fourth = four.parked("wait", False)
    two.action_done(True)
    assert first.outcome() == (0, False)
    assert all_broken(third)  # let in, then broken by the abort that came after it
    assert (aborting.outcome(), resetting.outcome()) == (None, None)
    assert fourth.waits
    assert one.state() == (2, 1, False)


def test_a_timeout_at_the_entrance_breaks_the_next_round(bench: Bench) -> None:
    one, two, three, four = barriers(bench, 2, 4)
    one.parked("wait", False)
    two.wait(True)
    third = three.parked("wait", False)
    assert third.withdraw() is PARKED
    assert third.withdraw() is PARKED, "its caller says so again after a reconnect"
    fourth = four.parked("wait", False)
    two.action_done(True)
    assert all_broken(third, fourth)


def test_a_caller_that_leaves_the_entrance_breaks_nothing(bench: Bench) -> None:
    """It had not been let in."""
    one, two, three, four = barriers(bench, 2, 4)
    one.parked("wait", False)
    two.wait(True)
    three.parked("wait", False)
    resetting = four.parked("reset")
    assert resetting.withdraw() is False
    bench.expire(three.client)
    two.action_done(True)
    assert one.state() == (2, 0, False)


def test_the_action_of_the_next_round_closes_the_entrance_again(bench: Bench) -> None:
    one, two, three, four = barriers(bench, 2, 4)
    one.parked("wait", False)
    two.wait(True)
    third, fourth = three.parked("wait", False), four.parked("wait", True)
    later = one.parked("wait", False)
    two.action_done(True)
    assert fourth.outcome() == (1, True)
    four.action_done(True)
    assert third.outcome() == (0, False)
    assert later.waits


def test_a_party_that_dies_during_the_action_breaks_it_afterwards(bench: Bench) -> None:
    """Not before: else another round's action could run beside this one."""
    one, two, three = barriers(bench, 3)
    first = one.parked("wait", False)
    two.parked("wait", False)
    three.wait(True)
    bench.expire(two.client)
    assert first.outcome() is PARKED
    with pytest.raises(BrokenBarrierError):
        three.action_done(True)
    assert all_broken(first)
    # And the next round is another one.
    one.reset()
    waiting = [one.parked("wait", False), one.parked("wait", False)]
    three.wait(True)
    three.action_done(True)
    assert [w.outcome() for w in waiting] == [(0, False), (1, False)]


def test_an_index_stands_once_it_was_given(bench: Bench) -> None:
    """Withdrawn after the barrier was met: kept, and nobody else is disturbed."""
    one, two = barriers(bench, 2)
    first = one.parked("wait", False)
    two.wait(False)
    assert first.withdraw() == (0, False)
    with pytest.raises(RuntimeError):
        first.withdraw(undo=True)
    assert one.state() == (2, 0, False)


def test_the_undo_of_an_index_leaves_the_action_alone_that_its_session_runs(bench: Bench) -> None:
    """It is another thread's, and of a later round."""
    one, two = barriers(bench, 2)
    first = one.parked("wait", False)
    two.wait(False)
    waiting = two.parked("wait", False)
    assert one.wait(True) == (1, True)
    with pytest.raises(RuntimeError):
        first.withdraw(undo=True)
    assert waiting.outcome() is PARKED
    one.action_done(True)
    assert waiting.outcome() == (0, False)


def test_nobody_fills_a_barrier_of_none(bench: Bench) -> None:
    """Barrier(0), where the running Python allows it, waits for ever."""
    (one,) = barriers(bench, 0, 1)
    assert one.parked("wait", False).waits
    (single,) = [bench.open().attach("Barrier", "single", 1)]
    assert single.wait(False) == (0, False)
    assert single.wait(True) == (0, True)


# --- Semaphore -------------------------------------------------------------------------------------------------------


def test_permits(ann: Client, bob: Client) -> None:
    semaphore, other = ann.attach("Semaphore", "s", 2), bob.attach("Semaphore", "s", 2)
    assert semaphore.acquire(True) is True
    assert semaphore.acquire(True) is True
    assert semaphore.acquire(False) is False
    waiting = [other.parked("acquire", True) for _ in range(3)]
    semaphore.release(2)
    assert [one.outcome() for one in waiting] == [True, True, PARKED]
    assert semaphore.value() == 0


def test_wrong_releases(ann: Client) -> None:
    """They change nothing."""
    semaphore, bounded = ann.attach("Semaphore", "s", 1), ann.attach("BoundedSemaphore", "b", 2)
    with pytest.raises(ValueError, match="n must be one or more"):
        semaphore.release(0)
    bounded.acquire(True)
    with pytest.raises(ValueError, match="Semaphore released too many times"):
        bounded.release(2)
    assert bounded.value() == 1
    bounded.release(1)
    with pytest.raises(ValueError, match="Semaphore released too many times"):
        bounded.release(1)


@pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])
def test_a_permit_that_went_back_with_its_session_is_not_given_again(
    bench: Bench, ann: Client, bob: Client, kind: str
) -> None:
    """Its taker has another session now, and comes to the end of its `with`: there would be one too many for ever."""
    semaphore, other = ann.attach(kind, "s", 2), bob.attach(kind, "s", 2)
    assert semaphore.acquire(True) is True
    assert other.release(1, ann.id) is None, "said in another session, while the taker's lives: it is given back for it"
    assert semaphore.acquire(True) is True
    bench.expire(ann)
    assert other.value() == 2
    with pytest.raises(LockLost, match=f"session {ann.id}"):
        other.release(1, ann.id)
    assert other.value() == 2
    assert other.acquire(True) is True
    with pytest.raises(LockLost):
        other.release(1, ann.id)
    assert other.release(1, bob.id) is None
    assert other.value() == 2


def test_what_is_counted_is_given_whoever_took_it(bench: Bench, ann: Client, bob: Client) -> None:
    """Nothing came back with the session, so nothing is given twice."""
    counter, other = ann.attach("Semaphore", "s", 0), bob.attach("Semaphore", "s", 0)
    counter.release(1)
    assert counter.acquire(True) is True
    bench.expire(ann)
    assert other.value() == 0
    other.release(2, ann.id)
    assert other.value() == 2


def test_permits_of_the_dead_return(bench: Bench, ann: Client, bob: Client) -> None:
    """What it took less what it gave, to those who wait first."""
    semaphore, other = ann.attach("Semaphore", "s", 3), bob.attach("Semaphore", "s", 3)
    for _ in range(3):
        semaphore.acquire(True)
    semaphore.release(1)
    other.acquire(True)
    waiting = other.parked("acquire", True)
    bench.expire(ann)
    assert waiting.outcome() is True
    assert other.value() == 1


def test_nothing_returns_to_a_counter(bench: Bench, ann: Client, bob: Client) -> None:
    """A producer gives what it never took: what a dead consumer took must not come back as something nobody made."""
    things, taking = ann.attach("Semaphore", "s", 0), bob.attach("Semaphore", "s", 0)
    things.release(3)
    taking.acquire(True)
    taking.acquire(True)
    bench.expire(bob)
    assert things.value() == 1


def test_undo_gives_a_permit_back(ann: Client, bob: Client) -> None:
    """Also where it counts things; but never beyond a bound that somebody else's release has filled."""
    semaphore = ann.attach("Semaphore", "s", 0)
    semaphore.release(1)
    semaphore.acquire(True)
    with pytest.raises(RuntimeError):
        ann.withdraw(ann.last, undo=True)
    assert semaphore.value() == 1
    bounded, other = ann.attach("BoundedSemaphore", "b", 1), bob.attach("BoundedSemaphore", "b", 1)
    bounded.acquire(True)
    taken = ann.last
    other.release(1)
    with pytest.raises(RuntimeError):
        ann.withdraw(taken, undo=True)
    assert bounded.value() == 1


def test_an_undo_that_comes_after_the_release_makes_no_counter(ann: Client, bob: Client) -> None:
    """Another thread has released what the interrupted one took: what the dead have taken still comes back."""
    bounded, other = ann.attach("BoundedSemaphore", "b", 1), bob.attach("BoundedSemaphore", "b", 1)
    bounded.acquire(True)
    taken = ann.last
    bounded.release(1)
    with pytest.raises(RuntimeError):
        ann.withdraw(taken, undo=True)
    bounded.acquire(True)
    waiting = other.parked("acquire", True)
    ann.close()
    assert waiting.outcome() is True


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 3),
    histories(st.tuples(st.sampled_from(["acquire", "try", "release", "end"]), st.integers(0, 2)), 50),
)
def test_semaphores_behave_like_the_model(initial: int, steps: list[tuple[str, int]]) -> None:
    """A number, a line, and each client's balance until one of them is a giver."""
    bench = Bench()
    bench.leads()
    handles = [bench.open().attach("Semaphore", "s", initial) for _ in range(3)]
    keeper = bench.open().attach("Semaphore", "s", initial)
    free, line, balance, counter = initial, list[int](), [0, 0, 0], False

    def give(n: int) -> None:
        nonlocal free
        free += n
        while free and line:
            free -= 1
            balance[line.pop(0)] += 1

    for action, who in steps:
        if action == "acquire" and not free:
            handles[who].parked("acquire", True)
            line.append(who)
        elif action in {"acquire", "try"}:
            assert handles[who].acquire(action == "acquire") is bool(free)
            balance[who] += bool(free)
            free -= bool(free)
        elif action == "release":
            handles[who].release(1)
            balance[who] -= 1
            counter = counter or balance[who] < 0
            give(1)
        else:
            bench.expire(handles[who].client)
            handles[who] = bench.open().attach("Semaphore", "s", initial)
            line = [other for other in line if other != who]
            returned, balance[who] = balance[who], 0
            if not counter:
                give(max(0, returned))
        assert keeper.value() == free
        assert [waiter.session for waiter in bench.object("s").waiting] == [handles[one].client.id for one in line]


# --- Event -----------------------------------------------------------------------------------------------------------


def test_event(ann: Client, bob: Client) -> None:
    """Whoever waited when it was set is answered, even if it is cleared in the same breath."""
    event, other = ann.attach("Event", "e"), bob.attach("Event", "e")
    waiting = [other.parked("wait") for _ in range(3)]
    assert waiting[2].withdraw() is False
    event.set()
    event.clear()
    assert [one.outcome() for one in waiting[:2]] == [True, True]
    assert other.is_set() is False
    assert other.parked("wait").waits
    event.set()
    assert other.wait() is True
    assert other.is_set() is True
