# SPDX-License-Identifier: Apache-2.0
"""Attachments and lifetimes: what a name means, how long it means it, and that nothing is kept for nobody."""

from __future__ import annotations

from typing import Any

import pytest

from dthreading.errors import LimitExceeded, ObjectGone, ObjectMismatch, ProtocolError
from dthreading.wire import messages as wire
from dthreading.wire.limits import LABEL_BYTES_MAX, NAME_BYTES_MAX
from dthreading.wire.messages import Lifetime
from replicas.machine import commands
from replicas.machine.core import Machine
from replicas.objects.limits import Limits
from tests.machine.chaos import check
from tests.machine.harness import PARKED, Bench, Client


def test_a_mismatch_names_both(bench: Bench, ann: Client, bob: Client) -> None:
    """And is the answer to every call on that handle; the object itself is not touched."""
    ann.attach("Semaphore", "s", 3)
    for kind, arguments in (("Semaphore", (5,)), ("Lock", ())):
        wrong = bob.attach(kind, "s", *arguments)
        for _ in range(2):
            with pytest.raises(ObjectMismatch, match=r"Semaphore\(3\), not a (Semaphore\(5\)|Lock\(\))"):
                bob.call(wrong.number, "acquire", True)
    assert bench.object("s").attached == 1


@pytest.mark.parametrize(
    ("kind", "arguments", "error"),
    [
        ("Nothing", (), TypeError), ("Lock", (1,), TypeError), ("Semaphore", (), TypeError),
        ("Semaphore", ("1",), TypeError), ("Semaphore", (-1,), ValueError), ("Barrier", (None,), TypeError),
        ("Queue", (1,), TypeError), ("Queue", (True, False), TypeError), ("Queue", (0, 0), TypeError),
        ("Condition", ("n",), TypeError), ("Event", (0,), TypeError), ("SimpleQueue", (0,), TypeError),
    ],
)  # fmt: skip
def test_what_cannot_be_made(bench: Bench, ann: Client, kind: str, arguments: Any, error: type[Exception]) -> None:
    handle = ann.attach(kind, "x", *arguments)
    with pytest.raises(error):
        handle.anything()
    assert bench.object("x") is None


def test_names_have_a_limit(bench: Bench, ann: Client) -> None:
    with pytest.raises(LimitExceeded, match="name_bytes_max"):
        ann.attach("Lock", "x" * 2000).locked()
    with pytest.raises(ValueError, match="lifetime"):
        ann.attach("Lock", "x", lifetime=3).locked()
    assert not bench.machine.registry.objects


def test_a_late_copy_of_an_attach_is_harmless(bench: Bench, ann: Client) -> None:
    """Handles grow and are never reused: one at or below the highest is a copy, even when it was detached since."""
    lock, other = ann.attach("Lock", "a"), ann.attach("Lock", "b")
    lock.detach()
    bench.do(wire.Attach(ann.id, lock.number, "n", "a", "Lock", (), 0, True))
    bench.do(wire.Attach(ann.id, other.number, "n", "a", "Lock", (), 0, True))
    assert bench.object("a") is None
    assert bench.object("b").attached == 1
    with pytest.raises(ProtocolError, match="not attached"):
        lock.locked()


def test_a_late_detach_ends_its_own_attachment_only(bench: Bench, ann: Client) -> None:
    first = ann.attach("Lock", "a")
    second = ann.attach("Lock", "a")
    for _ in range(3):
        first.detach()
    assert bench.object("a").attached == 1
    assert second.locked() is False


def test_an_object_in_its_initial_state_costs_nothing(bench: Bench, ann: Client, bob: Client) -> None:
    """It is dropped with its last attachment; fences go on growing under its name."""
    lock = ann.attach("Lock", "a")
    fence = lock.acquire(True, 1)
    lock.detach()
    assert bench.object("a") is not None  # held
    other = bob.attach("Lock", "a")
    waiting = other.parked("acquire", True, 1)
    ann.close()
    second = waiting.outcome()
    other.release(second)
    other.detach()
    assert bench.object("a") is None
    assert ann.id not in bench.machine.sessions
    assert bob.attach("Lock", "a").acquire(True, 1) > second > fence


@pytest.mark.parametrize(
    ("kind", "arguments", "change"),
    [
        ("Event", (), ("set",)), ("Semaphore", (1,), ("release", 1)), ("Queue", (0, False), ("put", True, b"x")),
        ("Barrier", (2,), ("abort",)), ("Queue", (3, False), ("set_maxsize", 1)),
        ("Queue", (0, True), ("shutdown", True)), ("SimpleQueue", (), ("put", True, b"x")),
    ],
)  # fmt: skip
def test_named_state_outlives_its_users(bench: Bench, kind: str, arguments: Any, change: Any) -> None:
    client = bench.open()
    client.call(client.attach(kind, "x", *arguments).number, *change)
    client.close()
    assert not bench.object("x").is_initial()
    again = bench.open().attach(kind, "x", *arguments)
    assert bench.object("x").attached == 1
    assert again.client.bench.machine.describe("locks")[0]["attached"] == 1


def test_a_queue_is_initial_again_when_all_is_done(bench: Bench, ann: Client) -> None:
    queue, simple = ann.attach("Queue", "q", 0, False), ann.attach("SimpleQueue", "s")
    for one in (queue, simple):
        one.put(True, b"x")
        one.get(True, lane=0)
    queue.task_done(lane=0)
    ann.close()
    assert not bench.machine.registry.objects


def test_an_acknowledgement_may_be_the_last_thing(bench: Bench, ann: Client) -> None:
    """Detached first, acknowledged then: that was all that kept it."""
    simple = ann.attach("SimpleQueue", "s")
    simple.put(True, b"x")
    simple.get(True)
    get = ann.last
    simple.detach()
    assert bench.object("s") is not None
    ann.acknowledge(get)
    assert bench.object("s") is None


# --- private ---------------------------------------------------------------------------------------------------------


def test_private_objects_end_with_their_users(bench: Bench, ann: Client, bob: Client) -> None:
    """Whatever their state; and are never made anew."""
    event = ann.attach("Event", "p", lifetime=Lifetime.PRIVATE)
    event.set()
    shared = bob.attach("Event", "p", lifetime=Lifetime.PRIVATE, create=False)
    ann.close()
    assert shared.is_set() is True
    shared.detach()
    assert bench.object("p") is None
    late = bob.attach("Event", "p", lifetime=Lifetime.PRIVATE, create=False)
    with pytest.raises(ObjectGone):
        late.is_set()


def test_a_private_lock_may_be_dropped_while_held(bench: Bench, ann: Client) -> None:
    """Its holder let go of the proxy: nobody can ever ask for it again, and the session forgets it.

    Whoever acquired it and has gone before the answer came hears that this is undone: its lane waits for that word, and
    the grant, said once more, would not be it.
    """
    lock = ann.attach("Lock", "p", lifetime=Lifetime.PRIVATE)
    lock.acquire(True, 1)
    taken = ann.last
    lock.detach()
    assert bench.object("p") is None
    assert not bench.machine.sessions[ann.id].stakes
    twin = Machine.restore([bench.machine.dump()])
    assert twin.dump() == bench.machine.dump()
    with pytest.raises(RuntimeError, match="withdrawn"):
        ann.withdraw(taken, undo=True)
    assert Bench(twin).apply(bench.log[-1].value).replies == bench.last.replies
    assert twin.dump() == bench.machine.dump()
    ann.close()


def test_waiters_keep_a_private_object(bench: Bench, ann: Client) -> None:
    event = ann.attach("Event", "p", lifetime=Lifetime.PRIVATE)
    waiting = event.parked("wait")
    event.detach()
    assert bench.object("p") is not None
    waiting.withdraw()
    assert bench.object("p") is None


def test_a_condition_and_its_lock_live_while_somebody_waits(bench: Bench, ann: Client) -> None:
    """Detached while it waits: both are kept until it has the lock again."""
    lock = ann.attach("RLock", "l", lifetime=Lifetime.PRIVATE)
    condition = ann.attach("Condition", "c", "n", "l", "RLock", lifetime=Lifetime.PRIVATE)
    lock.acquire(True, 1)
    waiting = condition.parked("wait", lock.number, 1, None)
    lock.detach()
    condition.detach()
    assert Machine.restore([bench.machine.dump()]).dump() == bench.machine.dump()
    assert waiting.withdraw()[0] is False
    assert not bench.machine.registry.objects


def test_a_name_outlives_a_place(bench: Bench, ann: Client, bob: Client) -> None:
    """Attached as automatic by one and by name by another, it lives as long as the longer of the two."""
    ann.attach("Event", "x", lifetime=Lifetime.PRIVATE).set()
    bob.attach("Event", "x", lifetime=Lifetime.AUTOMATIC)
    assert bench.object("x").lifetime == Lifetime.AUTOMATIC
    bob.attach("Event", "x", lifetime=Lifetime.NAMED)
    ann.attach("Event", "x", lifetime=Lifetime.PRIVATE)
    ann.close()
    assert not bob.close().idle
    assert bench.object("x").flag
    assert not bench.machine.registry.namespaces


# --- automatic -------------------------------------------------------------------------------------------------------


def reset(bench: Bench, namespace: str = "n", epoch: int | None = None) -> None:
    known = bench.machine.idle_namespaces.get(namespace, 0) if epoch is None else epoch
    bench.do(commands.Reset(namespace, known, *bench.machine.ballot_in_force))


def test_automatic_objects_go_one_lease_after_the_last_session(bench: Bench, ann: Client, bob: Client) -> None:
    """The second run of a program starts afresh; a run that overlaps it, or comes within the lease, does not."""
    ann.attach("Event", "x", lifetime=Lifetime.AUTOMATIC).set()
    ann.attach("Event", "named").set()
    assert not ann.close().idle
    assert list(bob.close().idle) == ["n"]
    epoch = bench.machine.idle_namespaces["n"]
    carol = bench.open("carol")
    assert "n" not in bench.machine.idle_namespaces
    reset(bench, epoch=epoch)
    assert carol.attach("Event", "x", lifetime=Lifetime.AUTOMATIC).is_set() is True
    assert list(carol.close().idle) == ["n"]
    reset(bench, epoch=epoch)
    assert bench.object("x") is not None
    reset(bench)
    assert bench.object("x") is None
    assert bench.object("named") is not None
    assert not bench.machine.idle_namespaces
    assert not bench.machine.registry.namespaces


def test_a_deposed_leaders_reset_is_ignored(bench: Bench, ann: Client) -> None:
    ann.attach("Event", "x", lifetime=Lifetime.AUTOMATIC).set()
    ann.close()
    epoch = bench.machine.idle_namespaces["n"]
    bench.leads(2, 2)
    bench.do(commands.Reset("n", epoch, 1, 1))
    assert bench.object("x") is not None


def test_whoever_attaches_uses_the_namespace(bench: Bench, ann: Client) -> None:
    """A session of another namespace keeps the objects alive that it has attached to."""
    foreign = bench.open("foreign", namespace="m")
    ann.attach("Event", "x", lifetime=Lifetime.AUTOMATIC).set()
    event = foreign.attach("Event", "x", lifetime=Lifetime.AUTOMATIC)
    assert not ann.close().idle
    reset(bench, epoch=bench.machine.registry.namespaces["n"].epoch)
    assert event.is_set() is True
    assert list(foreign.close().idle) == ["n"]


def test_namespaces_without_a_trace(bench: Bench) -> None:
    """Nothing is left of a namespace whose sessions left nothing, and what one holds is not seen from another."""
    ann, bob = bench.open(namespace="a"), bench.open(namespace="b")
    ann.attach("Lock", "x", namespace="a").acquire(True, 1)
    assert bob.attach("Lock", "x", namespace="b").acquire(False, 1)
    ann.close()
    bob.close()
    assert not bench.machine.registry.namespaces
    assert not bench.machine.registry.objects


# --- deletion --------------------------------------------------------------------------------------------------------


def test_delete(bench: Bench, ann: Client, bob: Client) -> None:
    """Whoever waits is told, every old handle is dead, and the name is free for a new object."""
    lock = ann.attach("Lock", "x")
    fence = lock.acquire(True, 1)
    waiting = bob.attach("Lock", "x").parked("acquire", True, 1)
    assert list(bench.do(commands.Delete("n", "x")).deleted) == [("n", "x", True)]
    with pytest.raises(ObjectGone):
        waiting.outcome()
    with pytest.raises(ObjectGone):
        lock.release(fence)
    assert bob.attach("Lock", "x").acquire(False, 1) > fence
    lock.detach()
    ann.close()
    assert bench.object("x").owner == bob.id
    assert list(bench.do(commands.Delete("n", "nothing")).deleted) == [("n", "nothing", False)]


@pytest.mark.parametrize("doomed", ["l", "c"])
@pytest.mark.parametrize("notified", [False, True])
def test_delete_under_a_waiting_condition(bench: Bench, ann: Client, bob: Client, doomed: str, notified: bool) -> None:
    """Its lock, or itself, in whichever line its waiters stand: none of them waits for ever."""
    locks = [one.attach("RLock", "l") for one in (ann, bob)]
    conditions = [one.attach("Condition", "c", "n", "l", "RLock") for one in (ann, bob)]
    locks[0].acquire(True, 1)
    waiting = conditions[0].parked("wait", locks[0].number, 1, None)
    locks[1].acquire(True, 1)
    if notified:
        conditions[1].notify(locks[1].number, 1, 1, None)
    bench.do(commands.Delete("n", doomed))
    if doomed == "l" and not notified:
        assert waiting.outcome() is PARKED
        bob.attach("RLock", "l").acquire(True, 1)  # another lock of that name is another lock
        with pytest.raises(ObjectGone):
            waiting.withdraw()
    else:
        with pytest.raises(ObjectGone):
            waiting.outcome()
    ann.close()
    bob.close()
    assert not bench.machine.registry.objects


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_delete_of_a_lock_with_a_notified_waiter(bench: Bench, ann: Client, bob: Client, kind: str) -> None:
    """One notified waiter stands there and goes with it; the next one, who gets its notify, must not take its place in
    a line that nobody will ever serve, and that no snapshot knows.
    """
    clients = (ann, bob, bench.open("cid"))
    locks = [one.attach(kind, "l") for one in clients]
    conditions = [one.attach("Condition", "c", "n", "l", kind) for one in clients]
    waiting = []
    for lock, condition in zip(locks[:2], conditions[:2], strict=True):
        lock.acquire(True, 1)
        waiting.append(condition.parked("wait", lock.number, 1, None))
    locks[2].acquire(True, 1)
    conditions[2].notify(locks[2].number, 1, 1, None)
    bench.do(commands.Delete("n", "l"))
    for one in waiting:
        with pytest.raises(ObjectGone):
            one.outcome()
    check(bench.machine)
    assert Machine.restore([bench.machine.dump()]).dump() == bench.machine.dump()
    for client in clients:
        client.close()
    assert not bench.machine.registry.objects


def test_an_attachment_that_its_detach_has_overtaken_attaches_nothing(bench: Bench, ann: Client) -> None:
    """It was said on a connection of old that is still being read, and nobody would end it before the session ends."""
    bench.do(wire.Detach(ann.id, 1))
    late = ann.attach("Lock", "l")
    assert late.number == 1
    with pytest.raises(ProtocolError):
        late.acquire(True, 1)
    assert not bench.machine.registry.objects
    assert ann.attach("Lock", "l").acquire(True, 1)


def test_a_copy_of_an_attachment_that_there_was_no_room_for_attaches_nothing(bench: Bench, ann: Client) -> None:
    """There may be room when it comes; but its Detach has been by then, and nobody would end it."""
    bench.machine.set_limits(Limits(attachments_per_session_max=1).to_settings())
    first, second = ann.attach("Lock", "l"), ann.attach("Lock", "m")
    second.detach()
    first.detach()
    bench.do(wire.Attach(ann.id, second.number, "n", "m", "Lock", (), 0, True))
    assert not bench.machine.sessions[ann.id].handles
    assert not bench.machine.registry.objects


def test_what_is_said_by_name_is_measured_in_bytes(bench: Bench) -> None:
    """So it is on the wire and in the memory of all replicas, whatever the alphabet."""
    judge = bench.machine.check
    name, label = "\u00e4" * (NAME_BYTES_MAX // 2), "\u00e4" * (LABEL_BYTES_MAX // 2)
    assert judge(wire.Open(b"n", 1000, name, label)) is None
    assert judge(wire.Open(b"n", 1000, name, label + "x")) == "limit"
    assert judge(wire.Open(b"n", 1000, name + "x", label)) == "limit"
    for place, words in enumerate(((name, "x", ()), ("x", name, ()), ("x", "x", (name,)))):
        namespace, called, arguments = words
        assert judge(wire.Attach(1, 1, namespace, called, "Lock", arguments, 0, True)) is None
        longer = [(name + "x",) if one == (name,) else name + "x" if one == name else one for one in words]
        assert judge(wire.Attach(1, 1, longer[0], longer[1], "Lock", longer[2], 0, True)) == "limit", place


def test_a_session_uses_no_more_namespaces_than_it_may_be_attached_to_objects(bench: Bench) -> None:
    """It leaves none before it ends, so one that comes and goes would fill the memory of all replicas."""
    bench.machine.set_limits(Limits(attachments_per_session_max=3).to_settings())
    client = bench.open(namespace="own")
    for number in range(10):
        client.attach("Lock", "l", namespace=f"n{number}").detach()
    assert len(bench.machine.registry.namespaces) == 3
    with pytest.raises(LimitExceeded, match="attachments_per_session_max"):
        client.attach("Lock", "l", namespace="one more").locked()
    assert client.attach("Lock", "l", namespace="n1").locked() is False
    assert bench.open().attach("Lock", "l", namespace="one more").locked() is False
    assert Machine.restore([bench.machine.dump()]).dump() == bench.machine.dump()
