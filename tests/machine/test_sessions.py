# SPDX-License-Identifier: Apache-2.0
"""Sessions and lanes: each call at most once, however often and late it comes; ends judged from the log."""

from __future__ import annotations

from queue import Empty

import pytest

from dthreading.errors import LimitExceeded, ProtocolError
from dthreading.wire import messages as wire
from dthreading.wire.codec import encode
from dthreading.wire.limits import OBJECTS_LISTED_MAX, SESSION_TTL_MS_MAX, SESSION_TTL_MS_MIN
from dthreading.wire.messages import Answer, Ended, Reply, Status
from replicas.machine import commands
from replicas.machine.core import Machine
from replicas.machine.sight import WAITERS_MAX
from replicas.objects.limits import MACHINE_VERSION, Limits
from replicas.paxos.values import Ballot, Configuration, Entry, EntryKind, encode_configuration
from tests.machine.harness import PARKED, Bench, Client

# --- open, resume, close, expire -------------------------------------------------------------------------------------


def test_the_same_nonce_is_the_same_session(bench: Bench) -> None:
    """An Open that was sent twice; and the second shows that the client is there, so it raises the lease epoch."""
    opening = wire.Open(b"n", 10_000, "n", "label")
    first = list(bench.do(opening).opened)
    assert first == [(bench.machine.applied, b"n")]
    second = bench.do(opening)
    assert list(second.opened) == first
    assert [message for _, message in second.replies] == [wire.Opened(b"n", first[0][0], 10_000)]
    assert bench.machine.sessions[first[0][0]].epoch == 2
    assert len(bench.machine.sessions) == 1


@pytest.mark.parametrize(("asked", "given"), [(1, SESSION_TTL_MS_MIN), (10**12, SESSION_TTL_MS_MAX), (7000, 7000)])
def test_leases_have_bounds(bench: Bench, asked: int, given: int) -> None:
    assert bench.machine.sessions[bench.open(ttl_ms=asked).id].ttl_ms == given


def test_resume(bench: Bench, ann: Client) -> None:
    """It raises the epoch. With a wrong nonce nothing happens to the session, and only the stranger may be told."""
    assert list(bench.do(wire.Resume(ann.id, ann.nonce)).resumed) == [ann.id]
    assert bench.machine.sessions[ann.id].epoch == 2
    stranger = bench.do(wire.Resume(ann.id, b"wrong"))
    assert not stranger.replies
    assert not stranger.resumed
    assert list(stranger.refused) == [(ann.id, b"wrong")]
    unknown = bench.do(wire.Resume(4711, b"n"))
    assert unknown.replies == [(4711, Ended(4711))]


@pytest.mark.parametrize(
    "command",
    [
        wire.Call(4711, 0, 1, 1, "acquire", (True, 1), False),
        wire.Withdraw(4711, 0, 1, True),
        wire.Acknowledge(4711, ((0, 1),)),
        wire.Attach(4711, 1, "n", "l", "Lock", (), 0, True),
        wire.Detach(4711, 1),
        wire.Close(4711),
    ],
)
def test_unknown_sessions_are_told_that_they_have_ended(bench: Bench, command: object) -> None:
    """By apply only, and finally."""
    assert bench.do(command).replies == [(4711, Ended(4711))]
    assert not bench.machine.registry.objects


def test_expiry_is_judged_from_the_log_alone(bench: Bench, ann: Client) -> None:
    """Only by the ballot in force, and only if no Resume or Open was chosen since it was proposed."""
    known = bench.machine.sessions[ann.id]
    bench.leads(2, 3)
    bench.do(commands.Expire(ann.id, known.epoch, 1, 1))
    bench.do(commands.Expire(ann.id, known.epoch, 2, 1))
    bench.do(wire.Resume(ann.id, ann.nonce))
    bench.do(commands.Expire(ann.id, known.epoch - 1, 2, 3))
    assert ann.id in bench.machine.sessions
    effects = bench.do(commands.Expire(ann.id, known.epoch, 2, 3))
    assert list(effects.ended) == [ann.id]
    assert effects.replies == [(ann.id, Ended(ann.id))]
    assert not bench.do(commands.Expire(ann.id, known.epoch, 2, 3)).replies


def test_the_ballot_in_force_never_goes_back(bench: Bench, ann: Client) -> None:
    """A later leader chooses again what an earlier one left, its LEADS among it; what that one proposed stays dead."""
    bench.leads(3, 1)
    bench.leads(2, 2)
    bench.do(commands.Expire(ann.id, 1, 2, 2))
    assert ann.id in bench.machine.sessions
    assert bench.machine.ballot_in_force == (3, 1)


def test_the_ballot_of_the_entry_does_not_matter(ann: Client, bench: Bench) -> None:
    """Replicas that learn an entry late have it at another ballot; only its value is the same everywhere."""
    value = commands.expire(ann.id, 1, (1, 1))
    twin = Machine.restore([bench.machine.dump()])
    slot = bench.machine.applied + 1
    for machine, ballot in ((bench.machine, Ballot(1, 1)), (twin, Ballot(9, 2))):
        assert list(machine.apply(Entry(slot, ballot, EntryKind.COMMAND, value)).ended) == [ann.id]
    assert twin.digest == bench.machine.digest


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_a_copy_is_answered_and_not_applied_again(ann: Client) -> None:
    lock = ann.attach("Lock", "l")
    fence = lock.acquire(True, 1, lane=0)
    for _ in range(2):
        assert ann.again(lock.number, "acquire", True, 1, call=ann.last) == [Reply(0, 1, Status.OK, fence)]


def test_a_copy_of_a_parked_call_is_told_so(ann: Client, bob: Client) -> None:
    """Whether it asked to be told or not: after a reconnect silence would be ambiguous."""
    bob.attach("Lock", "l").acquire(True, 1)
    lock = ann.attach("Lock", "l")
    waiting = lock.parked("acquire", True, 1)
    assert not [message for message in ann.heard if isinstance(message, Reply)]
    assert ann.again(lock.number, "acquire", True, 1, call=waiting.call) == [Reply(*waiting.call, Status.PARKED, None)]
    assert ann.call(lock.number, "acquire", True, 2, tell=True) is PARKED
    assert ann.heard[-1] == Reply(*ann.last, Status.PARKED, None)


def test_the_answer_of_a_blocked_call_survives_a_reconnect(bench: Bench, ann: Client, bob: Client) -> None:
    """The grant writes the answer into the waiter's lane; whoever asks again, of whichever replica, gets it."""
    lock, other = ann.attach("Lock", "l"), bob.attach("Lock", "l")
    fence = lock.acquire(True, 1)
    waiting = other.parked("acquire", True, 1)
    lock.release(fence)
    bench.machine = Machine.restore([bench.machine.dump()])
    bench.do(wire.Resume(bob.id, bob.nonce))
    (reply,) = bob.again(other.number, "acquire", True, 1, call=waiting.call)
    assert reply.value == waiting.outcome()
    assert reply in bench.machine.answers(bob.id)


def test_an_error_is_an_answer_too(ann: Client) -> None:
    queue = ann.attach("Queue", "q", 0, False)
    with pytest.raises(Empty):
        queue.get(False, lane=0)
    call = ann.last
    queue.put(True, b"x")
    (reply,) = ann.again(queue.number, "get", False, call=call)
    assert reply.value[0] == "empty"
    assert queue.qsize() == 1


def test_lower_numbers_are_ignored_and_gaps_are_not(bench: Bench, ann: Client) -> None:
    lock = ann.attach("Lock", "l")
    ann.numbers[0] = 41
    fence = lock.acquire(True, 1, lane=0)
    assert ann.again(lock.number, "release", fence, call=(0, 17)) == []
    ann.withdraw((0, 17), undo=True)
    assert bench.object("l").owner == ann.id


def ends_alike(bench: Bench, ended: Client) -> bool:
    """Whether a state that went through a snapshot says the same at that session's end, in the same order."""
    restored = Machine.restore([bench.machine.dump()])
    slot = bench.machine.applied
    effects = bench.expire(ended)
    assert len(effects.replies) > 2
    value = commands.codec.encode(commands.Expire(ended.id, 1, *restored.ballot_in_force))
    again = restored.apply(Entry(slot + 1, Ballot(1, 1), EntryKind.COMMAND, value))
    return again.replies == effects.replies and restored.digest == bench.machine.digest


def test_what_a_session_held_passes_on_in_the_order_in_which_it_came_to_hold_it(
    bench: Bench, ann: Client, bob: Client
) -> None:
    """On a replica that was restarted, too: or its answers would be others, and it would be taken for a broken one."""
    older, younger = ann.attach("Lock", "older"), ann.attach("Lock", "younger")
    younger.acquire(True, 1)
    older.acquire(True, 1)
    for name in ("older", "younger"):
        bob.attach("Lock", name).parked("acquire", True, 1)
    assert ends_alike(bench, ann)


def test_a_sessions_waits_end_in_the_order_in_which_they_began(bench: Bench, ann: Client, bob: Client) -> None:
    """Whatever lanes they are on."""
    for name, lane in (("b", 9), ("a", 3)):
        assert ann.attach("Barrier", name, 3).wait(False, lane=lane) is PARKED
    for name in ("a", "b"):
        bob.attach("Barrier", name, 3).parked("wait", False)
    assert ends_alike(bench, ann)


def test_a_new_call_undoes_what_waits_on_its_lane(bench: Bench, ann: Client, bob: Client) -> None:
    """Whoever waited there has gone: no ghost is granted later."""
    fence = bob.attach("Lock", "l").acquire(True, 1)
    lock = ann.attach("Lock", "l")
    lock.parked("acquire", True, 1)
    ann.call(lock.number, "locked", lane=ann.last[0])
    bench.do(wire.Call(bob.id, 0, 1, 1, "release", (fence,), False))
    assert bench.object("l").owner is None


def test_a_withdraw_that_overtakes_its_call_leaves_no_ghost(bench: Bench, ann: Client) -> None:
    """It consumes the number, so the call that comes later is a copy of something that never happened."""
    lock = ann.attach("Lock", "l")
    lock.locked(lane=0)
    for lane, number in ((0, 2), (7, 1)):
        with pytest.raises(RuntimeError, match="withdrawn"):
            ann.withdraw((lane, number), undo=True)
        (reply,) = ann.again(lock.number, "acquire", True, 1, call=(lane, number))
        assert reply.status == Status.ERROR
    assert bench.object("l").owner is None


def test_a_withdraw_that_comes_twice(bench: Bench, ann: Client) -> None:
    """The second finds nothing to give back; in between the lock may be somebody else's."""
    lock = ann.attach("Lock", "l")
    lock.acquire(True, 1, lane=0)
    taken = ann.last
    with pytest.raises(RuntimeError):
        ann.withdraw(taken, undo=True)
    lock.acquire(True, 1, lane=1)
    with pytest.raises(RuntimeError):
        ann.withdraw(taken, undo=True)
    assert bench.object("l").owner == ann.id


def test_an_acknowledged_answer_is_kept_no_longer(bench: Bench, ann: Client) -> None:
    """A copy that comes after the acknowledgement is dropped: the client has said that it needs no answer."""
    queue = ann.attach("Queue", "q", 0, False)
    queue.put(True, b"x" * 1000)
    queue.get(True, lane=0)
    get = ann.last
    assert [len(reply.value or b"") for reply in bench.machine.answers(ann.id)][-1] == 1000
    ann.acknowledge((0, 99), (55, 1), get)
    assert not [reply for reply in bench.machine.answers(ann.id) if reply.value]
    assert ann.again(queue.number, "get", True, call=get) == []
    assert queue.qsize() == 0


# --- reads -----------------------------------------------------------------------------------------------------------


def test_reads_change_nothing(bench: Bench, ann: Client) -> None:
    """Answered from the state, with every error that apply would give; and the lane never hears of it."""
    lock = ann.attach("Lock", "l")
    before = bench.machine.dump()

    def call(operation: str, *arguments: object, handle: int = lock.number, session: int = ann.id) -> wire.Call:
        return wire.Call(session, 9, 1, handle, operation, arguments, False)

    assert bench.machine.is_read(call("locked"))
    assert not bench.machine.is_read(call("acquire", True, 1))
    assert not bench.machine.is_read(call("locked", handle=99))
    assert not bench.machine.is_read(call("locked", session=99))
    assert bench.machine.read(call("locked")) == Reply(9, 1, Status.OK, False)
    assert bench.machine.read(call("locked", 1)).value[0] == "type"
    assert bench.machine.read(call("locked", handle=99)).value[0] == "protocol"
    assert bench.machine.read(call("locked", session=99)) == Ended(99)
    assert bench.machine.dump() == before


# --- limits and settings ---------------------------------------------------------------------------------------------


def configuration(epoch: int, **settings: int) -> Configuration:
    return Configuration("c", epoch, (), Limits(**settings).to_settings())


def test_limits_come_from_the_log() -> None:
    """An error that names the limit, and nothing has happened; a configuration entry raises it."""
    bench = Bench(Machine(configuration(1, sessions_max=1, lanes_per_session_max=1, attachments_per_session_max=1)))
    ann = bench.open()
    rejected = bench.do(wire.Open(b"other", 1000, "n", ""))
    ((nonce, why),) = rejected.rejected
    assert (nonce, why.code) == (b"other", "limit")
    assert "sessions_max" in why.reason
    lock, too_much = ann.attach("Lock", "l"), ann.attach("Lock", "m")
    assert lock.locked(lane=0) is False
    with pytest.raises(LimitExceeded, match="attachments_per_session_max"):
        too_much.locked(lane=0)
    with pytest.raises(LimitExceeded, match="lanes_per_session_max"):
        lock.acquire(True, 1, lane=1)
    (copy,) = ann.again(lock.number, "acquire", True, 1, call=(1, 1))
    assert copy.status == Status.ERROR, "nothing is remembered of it, and a copy is refused as it was"
    with pytest.raises(LimitExceeded, match="lanes_per_session_max"):
        ann.withdraw((2, 1))
    bench.apply(encode_configuration(configuration(2)), EntryKind.CONFIGURATION)
    assert lock.acquire(True, 1, lane=1)
    assert bench.open().id


def test_an_open_said_again_finds_its_session_in_a_group_that_is_full() -> None:
    """With that session it is full: whoever is turned away for it would be turned away for being there."""
    bench = Bench(Machine(configuration(1, sessions_max=1)))
    ann = bench.open()
    again = bench.do(wire.Open(ann.nonce, 10_000, "n", ""))
    assert (list(again.opened), list(again.rejected)) == ([(ann.id, ann.nonce)], [])


def test_only_the_next_epoch_counts() -> None:
    """A configuration entry that does not follow the epoch in force is a no-op."""
    machine = Machine(configuration(4))
    bench = Bench(machine)
    for epoch, limit in ((4, 1), (6, 2), (5, 3), (5, 4)):
        bench.apply(encode_configuration(configuration(epoch, sessions_max=limit)), EntryKind.CONFIGURATION)
    assert machine.limits.sessions_max == 3


def test_settings_that_make_no_sense_are_the_defaults() -> None:
    for settings in (b"", b"\xc1", b"\x01", b"\x81\xa1x\x01", b"\x81\xacsessions_max\xff", b"\x81\xacsessions_max\xc3"):
        assert Limits.from_settings(settings) == Limits()


def test_a_newer_machine_version_stops_this_code() -> None:
    """Applying what it does not know would make this replica differ from the others."""
    with pytest.raises(RuntimeError, match="upgrade"):
        Machine(configuration(1, machine_version=MACHINE_VERSION + 1))


def test_fences_start_above_the_floor() -> None:
    """After a restore from a backup no token repeats."""
    bench = Bench(Machine(configuration(1, fence_floor=1000)))
    assert bench.open().attach("Lock", "l").acquire(True, 1) == 1001
    assert Machine.restore([bench.machine.dump()]).fence == 1001


def test_the_log_is_contiguous(bench: Bench) -> None:
    for slot in (bench.machine.applied, bench.machine.applied + 2):
        with pytest.raises(AssertionError, match="contiguous"):
            bench.machine.apply(Entry(slot, Ballot(1, 1), EntryKind.NOOP, b""))


def test_bytes_that_are_no_command_do_nothing(bench: Bench) -> None:
    """And nothing is what they do on every replica. An internal command is none of a client's."""
    before = bench.machine.dump()
    for value in (b"", b"\xc1", b"\x01", commands.codec.encode(commands.Delete("n", "x"))[:-1]):
        assert not bench.apply(value).replies
    bench.apply(b"", EntryKind.NOOP)
    assert len(bench.machine.dump()) == len(before)
    with pytest.raises(ProtocolError):
        commands.client_codec.decode(commands.expire(1, 1, (1, 1)))


def test_cheap_refusals(bench: Bench) -> None:
    """What is not worth an entry of the log."""
    check = bench.machine.check
    assert check(wire.Call(1, 0, 1, 1, "acquire", (True, 1), False)) is None
    assert check(wire.Call(1, 0, 1, 1, "__class__", (), False)) == "type"
    assert check(wire.Call(1, 0, 1, 1, "acquire", (1,) * 17, False)) == "limit"
    assert check(wire.Attach(1, 1, "n", "x" * 2000, "Lock", (), 0, True)) == "limit"
    assert check(wire.Close(1)) is None


def test_who_holds_is_told_before_what_is_idle(bench: Bench, ann: Client, bob: Client) -> None:
    """An answer has so many rows only, and whoever asks wants to know what is held, and who waits for it."""
    for number in range(OBJECTS_LISTED_MAX):
        ann.attach("Event", f"idle {number}")
    ann.attach("Lock", "held").acquire(True, 7)
    bob.attach("Event", "awaited").parked("wait")
    told = bench.machine.describe("locks")
    assert [row["name"] for row in told[:3]] == ["held", "awaited", "idle 0"]
    assert len(told) == OBJECTS_LISTED_MAX
    assert len(bench.machine.describe("locks", ("idle",))) == OBJECTS_LISTED_MAX


def test_what_people_ask(bench: Bench, ann: Client, bob: Client) -> None:
    """Who holds, who waits, in which order; plain values that can be sent."""
    from dthreading.wire.codec import pack

    fence = ann.attach("Lock", "orders").acquire(True, 7)
    bob.attach("Lock", "orders").parked("acquire", True, 8)
    bob.attach("Event", "other")
    ((lock,), everything) = bench.machine.describe("locks", ("ord",)), bench.machine.describe("locks")
    assert lock["holders"] == [{"session": ann.id, "label": "ann"}]
    assert [waiter["label"] for waiter in lock["waiters"]] == ["bob"]
    assert (lock["fence"], lock["thread"], lock["waiting"]) == (fence, 7, 1)
    assert len(everything) == 2
    assert [one["waits"] for one in bench.machine.describe("sessions")] == [[], ["Lock orders"]]
    status = bench.machine.describe("status")
    assert (status["sessions"], status["objects"], status["waiting"]) == (2, 2, 1)
    for question in ("locks", "sessions", "status"):
        assert pack(bench.machine.describe(question, ()))
    with pytest.raises(KeyError):
        bench.machine.describe("meaning of life")


def test_so_many_waiters_are_listed_and_all_are_counted(bench: Bench, ann: Client, bob: Client) -> None:
    """Or nobody would see how long a line has become."""
    ann.attach("Lock", "orders").acquire(True, 7)
    waiting = bob.attach("Lock", "orders")
    for thread in range(WAITERS_MAX + 1):
        waiting.parked("acquire", True, thread)
    (told,) = bench.machine.describe("locks")
    assert [waiter["thread"] for waiter in told["waiters"]] == [*range(WAITERS_MAX)]
    assert told["waiting"] == bench.machine.describe("status")["waiting"] == WAITERS_MAX + 1


def test_labels_of_old_that_are_too_long_are_shown_in_part(bench: Bench) -> None:
    """They stand at each holder and waiter: one that fills a frame, shown a thousand times, would take all memory."""
    client = bench.open(label="x" * 1_000_000, namespace="y" * 1_000_000)
    for number in range(20):
        client.attach("Lock", f"l{number}").acquire(True, 1)
    for question in ("locks", "sessions"):
        assert len(encode(Answer(1, bench.machine.describe(question)))) < 100_000


def test_what_locks_are_asked_for_is_written_out_once(bench: Bench, ann: Client) -> None:
    """It may be as long as a frame, and there may be a hundred thousand objects."""
    written: list[int] = []

    class Part:
        def __str__(self) -> str:
            written.append(1)
            return "l1"

    for number in range(20):
        ann.attach("Lock", f"l{number}").acquire(True, 1)
    assert len(bench.machine.describe("locks", (Part(),))) == 11
    assert len(written) == 1
