# SPDX-License-Identifier: Apache-2.0
"""Replicas compare their states: the one that is wrong is found and named, wherever it is, and no other one ever is."""

from __future__ import annotations

import pytest

from dthreading.wire import messages as wire
from replicas.machine.audit import FORM, HEAD
from replicas.objects.base import Replicated
from replicas.replica import auditing
from replicas.replica.auditing import AUDIT_ENTRIES, AUDIT_MS, KEPT, PATIENCE_MS, compare
from replicas.replica.marks import Mark
from replicas.replica.messages import Account, codec
from tests.replica.harness import Group


class Grown(Group):
    """One that has something in it: a lock called "x" that is held, and another one that is called often."""

    def __init__(self, size: int = 3) -> None:
        super().__init__(size)
        self.chief = self.leader()
        self.session = self.open(self.chief, 7)
        self.clients = {7: (self.chief, self.session)}
        self.attach(self.chief, 7, self.session)
        self.number = 0
        self.call(1, "acquire", True, 1)
        self.attach_to(2, "often")
        self.pass_ms(300)

    def attach_to(self, handle: int, name: str) -> None:
        self.say(self.chief, 7, wire.Attach(self.session, handle, "test", name, "Lock", (), 0, True))

    def call(self, handle: int, operation: str, *arguments: object) -> None:
        """A call whose answer is there at once."""
        self.number += 1
        before = len(self.replies(7))
        self.say(self.chief, 7, wire.Call(self.session, 1, self.number, handle, operation, arguments, False))
        assert len(self.replies(7)) == before + 1

    def use(self, times: int = 1) -> None:
        """The other lock is called: something is applied, and nothing of what may be spoilt is touched."""
        for _ in range(times):
            self.call(2, "acquire", True, 1)
            self.call(2, "release", None)

    def later(self, span_ms: int = AUDIT_MS + 500) -> None:
        """There is an audit, and time to look at it."""
        self.use()
        self.rest(span_ms)

    def rest(self, span_ms: int) -> None:
        """Time passes, and the clients are heard of."""
        for _ in range(0, span_ms, 500):
            for connection, (replica, session) in self.clients.items():
                if connection not in self.hung_up:
                    self.say(replica, connection, wire.Keepalive(session, 1))
            self.pass_ms(500)

    def object(self, replica: int, name: str = "x") -> Replicated:
        return self.replicas[replica].machine.registry.objects["test", name]

    def verdicts(self) -> dict[int, str]:
        """By replica, what was found against it by itself."""
        return {
            number: output.verdict for number, outputs in self.outputs.items() for output in outputs if output.verdict
        }

    def notices(self, replica: int) -> list[str]:
        return [notice for output in self.outputs[replica] for notice in output.notices]


PIECE = 24


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """An audit looks at so little that a few objects take several."""
    monkeypatch.setattr(auditing, "PIECE", PIECE)
    monkeypatch.setattr(auditing, "HUNT_PIECE", 2 * PIECE)


def sent(group: Group) -> int:
    """How many accounts were told so far, by all."""
    return sum(
        isinstance(message, Account)
        for outputs in group.outputs.values()
        for output in outputs
        for _, message in output.send_now
    )


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("leads", [True, False])
def test_the_one_whose_memory_has_gone_bad_is_found_and_the_object_is_named(size: int, leads: bool) -> None:
    """Although nobody has touched the object since, so that nothing it said was wrong yet."""
    group = Grown(size)
    victim = group.chief if leads else group.chief % size + 1
    group.later()
    assert not group.verdicts()
    group.object(victim).fence ^= 1 << 20  # type: ignore[attr-defined]
    group.later()
    verdicts = group.verdicts()
    assert set(verdicts) == {victim}
    assert group.leader() != victim, "it has handed over before"
    assert any(isinstance(message, wire.MoveOn) for message in group.said[7]) == leads
    assert (
        f"this replica, {victim}, differs from that of the majority in Lock 'x' of namespace 'test'" in verdicts[victim]
    )
    assert f"members replace {victim} ADDRESS" in verdicts[victim]
    for number in group.replicas:
        said = [notice for notice in group.notices(number) if f"replica {victim} differs" in notice]
        assert len(said) == (number != victim), "once, however often it is seen"
        assert all("in Lock 'x' of namespace 'test', as it was in slot" in notice for notice in said)


def test_an_object_that_is_in_use_is_found_before_it_does_more_harm() -> None:
    """Its wrong answers differ as well, and it is still the object that is named first."""
    group = Grown()
    victim = group.chief % 3 + 1
    group.object(victim, "often").fence += 5  # type: ignore[attr-defined]
    group.use(3)
    group.later()
    assert "in Lock 'often' of namespace 'test'" in group.verdicts()[victim]


@pytest.mark.usefixtures("small_pieces")
def test_among_many_objects_it_is_found_when_the_round_comes_by() -> None:
    """A piece of them an audit, for each AUDIT_ENTRIES entries or AUDIT_MS."""
    group = Grown()
    for number in range(2 * PIECE):
        group.attach_to(10 + number, f"l{number}")
    group.pass_ms(300)
    victim = group.chief % 3 + 1
    doomed = group.object(victim, f"l{2 * PIECE - 1}")
    doomed.lifetime = 2
    for _ in range(2):
        group.later()
        assert not group.verdicts()
    group.later()
    assert f"Lock 'l{2 * PIECE - 1}'" in group.verdicts()[victim]


def test_a_busy_leader_compares_by_the_count_of_entries() -> None:
    group = Grown()
    before = sent(group)
    core = group.replicas[group.chief]
    for number in range(AUDIT_ENTRIES + 1):
        core._submit(b"%d" % number, None)
    group.settle()
    group.pass_ms(200)
    assert sent(group) - before == 3 * 2, "each to both others"


def test_nothing_is_compared_while_nothing_happens() -> None:
    """An idle group writes nothing to its disks; and a group of one has nobody to compare with."""
    group = Grown()
    group.later()
    before, applied = sent(group), group.replicas[group.chief].machine.applied
    group.rest(2 * AUDIT_MS)
    assert group.replicas[group.chief].machine.applied == applied
    assert sent(group) == before
    alone = Grown(1)
    alone.later()
    assert sent(alone) == 0


def test_one_against_one_nobody_can_decide() -> None:
    """Both go on, and both say so, once: to stop either would end the group, and may end the one that is right."""
    group = Grown(2)
    group.object(1).fence += 1  # type: ignore[attr-defined]
    for _ in range(3):
        group.later()
    assert not group.verdicts()
    for number in (1, 2):
        (said,) = [notice for notice in group.notices(number) if "differ in" in notice]
        assert "the states of replicas 1 and 2 differ in Lock 'x' of namespace 'test'" in said
        assert "no majority of the 2 members says which one is right" in said


def test_with_one_of_three_down_the_two_cannot_decide_until_it_is_back() -> None:
    group = Grown()
    down, wrong = (number for number in group.replicas if number != group.chief)
    group.isolate(down)
    group.object(wrong).fence += 1  # type: ignore[attr-defined]
    group.later(AUDIT_MS + PATIENCE_MS + 1000)
    assert not group.verdicts()
    assert [n for n in group.notices(group.chief) if "no majority of the 3 members" in n]
    group.cut.clear()
    group.later()
    group.later()
    assert set(group.verdicts()) == {wrong}


def test_three_that_all_differ_are_said_to() -> None:
    group = Grown()
    for number in group.replicas:
        group.object(number).fence += number  # type: ignore[attr-defined]
    group.later()
    assert not group.verdicts()
    assert "the states of replicas 1 and 2 and 3 differ in Lock 'x'" in str(group.notices(1))


def test_two_may_be_wrong_in_different_objects_at_once() -> None:
    """Part by part there is a majority against each of them."""
    group = Grown(5)
    first, second, *_ = (number for number in group.replicas if number != group.chief)
    group.object(first).fence += 1  # type: ignore[attr-defined]
    group.object(second, "often").attached += 1
    group.later()
    verdicts = group.verdicts()
    assert set(verdicts) == {first, second}
    assert "Lock 'x'" in verdicts[first]
    assert "Lock 'often'" in verdicts[second]


def test_a_newcomer_is_compared_although_it_has_no_vote() -> None:
    group = Grown(3)
    four = group.join("r4")
    group.pass_ms(200)
    group.later()
    assert not group.verdicts()
    group.object(four).fence += 1  # type: ignore[attr-defined]
    group.later()
    assert set(group.verdicts()) == {four}


def test_one_that_writes_its_digests_differently_is_not_compared() -> None:
    """While a group is upgraded replica by replica, old and new must not take each other for wrong."""
    group = Grown()
    other = group.chief % 3 + 1
    group.object(other).fence += 1  # type: ignore[attr-defined]
    group.cut |= {(other, number) for number in group.replicas}
    group.use()
    group.pass_ms(AUDIT_MS + 500)
    slot = max(group.replicas[group.chief]._auditing._slots)
    group.cut.clear()
    for number in group.replicas:
        if number != other:
            group.replicas[number].peer_said(other, Account(slot, FORM + 1, b""))
    group.pass_ms(PATIENCE_MS + 500)
    assert not group.verdicts()
    assert not group.notices(group.chief)


def test_a_replica_that_was_away_neither_errs_nor_is_wronged() -> None:
    """What it missed it applies, audits included; of slots that nobody remembers there is nothing to say."""
    group = Grown()
    away = group.chief % 3 + 1
    group.isolate(away)
    for _ in range(KEPT + 3):
        group.later()
    group.cut.clear()
    group.later()
    group.later()
    assert group.replicas[away].machine.digest == group.replicas[group.chief].machine.digest
    assert not group.verdicts()
    assert len(group.replicas[away]._auditing._slots) <= KEPT


def test_an_account_that_comes_before_the_own_one_is_kept_however_many_there_were() -> None:
    """A follower that applies late hears of a slot before it has looked at it itself; later nobody says it again."""
    group = Grown()
    late = group.chief % 3 + 1
    for _ in range(KEPT + 1):
        group.later()
    auditing = group.replicas[late]._auditing
    assert len(auditing._slots) == KEPT
    slot = group.replicas[late].machine.applied + 1
    group.replicas[late].peer_said(group.chief, Account(slot, FORM, b""))
    assert auditing._slots[slot].accounts == {group.chief: b""}
    assert len(auditing._slots) == KEPT


def test_a_comparison_is_made_part_by_part_and_by_members_only() -> None:
    same, other, third = {HEAD: b"h", 1: b"a", 2: b"b"}, {HEAD: b"h", 1: b"a", 2: b"?"}, {HEAD: b"h", 1: b"a"}
    assert compare((1, 2, 3), {1: same, 2: same, 3: same}) == ({}, [])
    assert compare((1, 2, 3), {1: same, 2: same, 3: other}) == ({3: [2]}, [])
    assert compare((1, 2, 3), {1: third, 2: third, 3: other}) == ({3: [2]}, []), "it has what there should not be"
    assert compare((1, 2, 3), {1: same, 3: other}) == ({}, [2]), "two of three may differ: who is right?"
    assert compare((1, 2, 3), {1: same, 2: same, 9: other}) == ({9: [2]}, []), "a newcomer"
    assert compare((1, 2, 3), {1: same, 8: other, 9: other}) == ({}, [2]), "newcomers decide nothing"
    assert compare((1, 2, 3), {1: same, 2: other, 3: third}) == ({}, [2])


def test_what_is_said_is_checked_where_it_comes_in() -> None:
    account = Account(7, FORM, bytes(32))
    assert codec.decode(codec.encode(account)) == account
    with pytest.raises(Exception, match="31 bytes of parts"):
        codec.decode(codec.encode(account._replace(parts=bytes(31))))


def test_a_mark_is_told_from_what_a_directory_says_otherwise() -> None:
    mark = Mark("It is wrong.", b"\x02what it was")
    assert Mark.decode(mark.encode()) == mark
    for other in (None, b"", b"\x00", b"\x02...", b"\x80..."):
        assert Mark.decode(other) is None


# --- an object that has done harm before its turn came ----------------------------------------------------------------


def harmed(leads: bool) -> tuple[Grown, int]:
    """Among so many objects that it takes several audits, one has answered wrongly in one replica; and that replica."""
    group = Grown()
    for number in range(3 * PIECE):
        group.attach_to(10 + number, f"l{number}")
    group.attach_to(5000, "late")
    group.pass_ms(300)
    victim = group.chief if leads else group.chief % 3 + 1
    late = group.object(victim, "late")
    late.owner, late.count = group.session, 1  # type: ignore[attr-defined]
    group.call(5000, "acquire", False, 1)
    group.pass_ms(300)
    return group, victim


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("leads", [True, False])
def test_an_object_that_has_done_harm_is_looked_for(leads: bool) -> None:
    """That replica is known to be wrong long before the round comes by the object: until then it serves nobody."""
    group, victim = harmed(leads)
    group.clients[9] = (victim, group.open(victim, 9))
    group.rest(AUDIT_MS + 500)
    assert not any(isinstance(message, wire.MoveOn) for message in group.said[9][:-1])
    assert isinstance(group.said[9][-1], wire.MoveOn)
    assert 9 in group.hung_up
    group.say(victim, 11, wire.Open(b"late", 10_000, "test", "late"))
    assert [type(message) for message in group.said[11]] == [wire.MoveOn], "nor anybody new"
    if leads:
        assert group.leader() != victim
    group.pass_ms(3000)
    verdicts = group.verdicts()
    assert set(verdicts) == {victim}
    assert "in Lock 'late' of namespace 'test'" in verdicts[victim]
    others = [number for number in group.replicas if number != victim]
    for other in others:
        assert any("in Lock 'late' of namespace" in notice for notice in group.notices(other))


@pytest.mark.usefixtures("small_pieces")
def test_what_is_not_found_is_said_to_be_wrong_all_the_same() -> None:
    """The object has gone meanwhile: only the answers differ, for ever."""
    group, victim = harmed(leads=False)
    late = group.object(victim, "late")
    late.owner, late.count = None, 0  # type: ignore[attr-defined]
    good = group.object(group.chief, "late")
    for name in ("fence", "owner", "count", "thread"):
        setattr(late, name, getattr(good, name))
    group.rest(AUDIT_MS + 500)
    assert group.replicas[victim]._auditing.doubted
    group.pass_ms(5000)
    verdict = group.verdicts()[victim]
    assert "session" in verdict or "the answers that it has given so far" in verdict
