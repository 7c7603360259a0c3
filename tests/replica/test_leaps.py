# SPDX-License-Identifier: Apache-2.0
"""What a replica owes its clients when its state leaps to that of a snapshot, and others when a reign begins anew."""

from __future__ import annotations

import pytest

from dthreading.wire import messages as wire
from replicas.machine.core import Machine
from replicas.paxos.core import Paxos
from replicas.paxos.log import link
from replicas.paxos.messages import Accept, Chosen, Refuse
from replicas.paxos.types import Ballot, Configuration, Durable, Entry, EntryKind, Member, Timing
from replicas.replica.acquaintance import LATER, REMOVED
from replicas.replica.admission import Admission
from replicas.replica.changing import PARTNER_MS, SILENT_MS
from replicas.replica.core import Replica
from replicas.replica.messages import Forward, Vouch
from tests.replica.harness import TTL_MS, Group


def follower_of(group: Group) -> tuple[int, int]:
    """The leader and another replica."""
    leader = group.leader()
    return leader, next(number for number in group.replicas if number != leader)


def leap(group: Group, to: int, state: tuple[int, bytes, int]) -> None:
    """That replica has stored and loaded a snapshot of this state."""
    replica = group.replicas[to]
    slot, dump, chain = state
    machine = Machine.restore([dump])
    assert machine.applied == slot
    replica.snapshot_installed(slot, replica.paxos.configuration, chain, replica.paxos.promised, machine)
    group.take(to)


def state_of(group: Group, number: int) -> tuple[int, bytes, int]:
    replica = group.replicas[number]
    return replica.machine.applied, replica.machine.dump(), replica.paxos.chain_at(replica.machine.applied)


def test_answers_and_ends_that_fell_into_the_gap_are_told() -> None:
    """The entries themselves never pass by here, so nothing else would tell these clients."""
    group = Group()
    leader, behind = follower_of(group)
    holder, waiter, silent = group.open(leader, 5), group.open(behind, 6), group.open(behind, 7)
    group.attach(leader, 5, holder)
    group.attach(behind, 6, waiter)
    group.say(leader, 5, wire.Call(holder, 0, 1, 1, "acquire", (True, 1), False))
    group.say(behind, 6, wire.Call(waiter, 0, 1, 1, "acquire", (True, 1), False))
    group.pass_ms(200)
    assert not group.replies(6)
    group.isolate(behind)
    (held,) = group.replies(5)
    group.say(leader, 5, wire.Call(holder, 0, 2, 1, "release", (held.value,), False))
    other = next(number for number in group.replicas if number not in (leader, behind))
    # The waiting one lives on, by way of its keepalives; of the other nothing is heard for a lease.
    for beat in range(1, 2 * TTL_MS // 1000):
        group.replicas[leader].peer_said(other, Vouch(waiter, beat))
        group.replicas[leader].peer_said(other, Vouch(holder, beat))
        group.pass_ms(1000)
    assert silent not in group.replicas[leader].machine.sessions
    assert waiter in group.replicas[leader].machine.sessions
    assert wire.Ended(silent) not in group.said[7]
    leap(group, behind, state_of(group, leader))
    assert [reply.status for reply in group.replies(6)] == [wire.Status.OK]
    assert wire.Ended(silent) in group.said[7]
    assert silent not in group.replicas[behind]._hosting.sessions


def test_what_waits_to_be_applied_behind_a_snapshot_is_applied_after_it() -> None:
    """Consensus hands an entry out once: what a leap leaves out of those that were postponed, nobody brings again."""
    members = Configuration("test", 1, tuple(Member(i, f"r{i}", bytes([i])) for i in (1, 2, 3)), b"")
    ballot, noop, chain = Ballot(12, 2), int(EntryKind.NOOP), 0
    entries = tuple(Entry(slot, ballot, noop, b"") for slot in range(1, 5))
    for entry in entries:
        chain = link(chain, entry)
    durable = Durable(promised=ballot, entries=entries)
    paxos = Paxos(replica=1, configuration=members, durable=durable, timing=Timing(), luck=lambda: 0.5, now_ms=0)
    core = Replica(paxos=paxos, machine=Machine(members), namespace_term_ms=5_000, now_ms=0)
    core.peer_said(2, Accept(ballot, 1, 5, bytes([noop]), (b"",), 4, chain, 0))
    output = core.take()
    assert output.send_after_sync
    assert core.machine.applied == 0, "the acknowledgement comes first"
    state = Machine(members)
    for entry in entries[:2]:
        state.apply(entry)
    core.snapshot_installed(2, members, 0, ballot, state)
    assert core.catch_up()
    assert core.machine.applied == 4


def test_a_snapshot_that_comes_late_takes_nothing_back() -> None:
    """The state has gone on beyond it while it was on its way."""
    group = Group()
    leader, other = follower_of(group)
    group.open(leader, 5)
    old = state_of(group, leader)
    group.open(leader, 6)
    group.pass_ms(200)
    replica = group.replicas[other]
    machine = replica.machine
    assert machine.applied > old[0]
    leap(group, other, old)
    assert replica.machine is machine


def test_each_leap_shows_who_has_come_meanwhile() -> None:
    """A restored roster counts its changes from the beginning, and is no less news for that."""
    group = Group()
    leader, behind = follower_of(group)
    group.pass_ms(1500)
    group.isolate(behind)
    for number in (4, 5):
        group.ask(leader, "add", f"r{number}", b"%d" % number)
        leap(group, behind, state_of(group, leader))
        links = next(output.links for output in reversed(group.outputs[behind]) if output.links is not None)
        assert links.get(number) == f"r{number}"


def test_a_leap_to_the_very_entry_that_takes_one_out_does_not_show_that_the_change_is_over() -> None:
    """Only an entry beyond it does: the one that is to go may still have what the others lack."""
    group = Group()
    leader, behind = follower_of(group)
    out = next(number for number in group.replicas if number not in (leader, behind))
    group.pass_ms(1500)
    paxos = group.replicas[leader].paxos
    genesis = paxos.configuration
    group.until_done(leader, "remove", str(out))
    group.pass_ms(500)
    slot = next(entry.slot for entry in paxos._log.span(1, paxos.chosen) if entry.kind == EntryKind.CONFIGURATION)
    state = Machine(genesis)
    for entry in paxos._log.span(1, slot):
        state.apply(entry)
    core = Replica(
        paxos=Paxos(
            replica=behind, configuration=genesis, durable=Durable(), timing=Timing(), luck=lambda: 0.5, now_ms=0
        ),
        machine=Machine(genesis),
        namespace_term_ms=5_000,
        now_ms=0,
    )
    core.snapshot_installed(slot, paxos.configuration, paxos.chain_at(slot), paxos.promised, state)
    assert core.status()["snapshot"] == slot
    page = paxos._log.span(slot + 1, paxos.chosen)
    assert page
    for code in (LATER, REMOVED):
        objection = core.acquaintance.objection(out, b"%d" % out, core.machine)
        assert objection is not None
        assert objection.code == code
        kinds, values = bytes([entry.kind for entry in page]), tuple(entry.value for entry in page)
        core.peer_said(leader, Chosen(slot + 1, kinds, values, paxos.chosen, paxos.promised))
        core.synced(core.take().batch)


def test_a_client_that_says_goodbye_to_a_follower_is_gone_at_once() -> None:
    """Its replica says Close for it, by way of the leader."""
    group = Group()
    leader, other = follower_of(group)
    session = group.open(other, 5)
    group.say(other, 5, wire.CloseAtEnd(session))
    group.replicas[other].client_gone(5)
    group.settle()
    assert session not in group.replicas[leader].machine.sessions


def test_a_reign_that_begins_anew_takes_nothing_in_the_middle_of_a_stream() -> None:
    """What it had taken of that stream and not proposed is forgotten: the rest would overtake it."""
    group = Group()
    leader, other = follower_of(group)
    session = group.open(other, 5)
    taken: list[Forward] = []
    streams = group.replicas[leader]._streams
    takes = streams.takes

    def overheard(source: int, forward: Forward) -> bool:
        taken.append(forward)
        return takes(source, forward)

    streams.takes = overheard  # type: ignore[method-assign]
    group.attach(other, 5, session)
    (last,) = taken[-1:]
    group.held = {Forward}
    core = group.replicas[leader]
    before = core.paxos.ballot
    core.peer_said(other, Refuse(Ballot(before.round + 3, other), 0))
    group.pass_ms(100)
    assert core.paxos.ready
    assert core.paxos.ballot > before
    core.peer_said(other, Forward(last.stream, last.number + 1, (b"overtaken",)))
    assert b"overtaken" not in core._to_propose


# --- members


@pytest.mark.parametrize("silent", [False, True])
def test_nobody_becomes_a_member_who_was_near_and_is_silent(silent: bool) -> None:
    """It is as far as it was when it was heard last, and a group of it and one more would stand still."""
    group = Group(1)
    leader = group.leader()
    group.join("r2")
    group.pass_ms(100)
    if silent:
        group.isolate(2)
    group.pass_ms(PARTNER_MS + SILENT_MS)
    assert group.members(leader) == ((1,) if silent else (1, 2))


def test_a_newcomer_is_told_where_the_members_are_now() -> None:
    """Of those that the group was formed with nobody may be left."""
    group = Group(3)
    leader = group.leader()
    for _ in range(500):
        answer = group.ask(leader, "join", "r9", b"r9", "", 0)
        if answer["done"]:
            break
        group.pass_ms(20)
    admission = Admission.decode(answer["admission"])
    assert admission is not None
    assert dict(admission.seeds) == {1: "r1", 2: "r2", 3: "r3"}
