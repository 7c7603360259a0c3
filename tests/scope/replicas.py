# SPDX-License-Identifier: Apache-2.0
"""One replica of the Paxos model: the shipping core, its disk, and a network that may do anything to a message.

The inbox is the set of all messages ever sent to the replica: each may come never, late, twice, in any order. Time is
left out: the core always finds itself at the same moment, no leader is ever live to it, and its timers fire whenever
the model lets them. What the disk has is kept here, apart from the core's own idea of it, and judged against what the
core says to others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from replicas.paxos import messages
from replicas.paxos.core import Paxos
from replicas.paxos.messages import Accept, Prepare, PreVote, PreVoteGranted, Promise, Refuse
from replicas.paxos.types import NO_BALLOT, Accepted, Ballot, ChosenTo, Durable, Entry, EntryKind, Promised, Timing
from replicas.paxos.values import Configuration, Member, decode_ballot
from tests.scope.exploring import Beyond, Output, Process

NOW: Final = 1_000_000
TIMING: Final = Timing(heartbeat_ms=100, election_ms=1000, disk_ms=1 << 40)


def luck() -> float:
    """Time is left out, so there is none."""
    return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """How far the search goes."""

    ballots: int
    """Prepared by all replicas together."""
    slots: int
    """Commands are proposed up to this slot. LEADS entries stand where the code puts them."""
    crashes: int = 0
    """Of all replicas together; each at most `crashes_each`, and back at once."""
    crashes_each: int = 1
    slow_disk: bool = False
    """A sync is a step of its own, so a crash loses what was not synced; else it is part of the step that writes."""
    beats: int = 0
    """Heartbeats of each leadership. Without any, its entries and its floor are told all the same."""
    refusals: bool = False
    """Whether the answer that a ballot is too low ever arrives."""
    catching_up: bool = True
    """Whether Fetch and Chosen ever arrive."""
    pre_votes: bool = False
    """Whether a candidate asks before it prepares; else every pre-vote is granted at once."""
    hand_overs: bool = False
    replicas: int = 3
    standing: tuple[int, ...] = ()
    """The replicas that may stand for election; empty: all."""


class Event(NamedTuple):
    """What happens to a replica."""

    kind: str
    source: int = 0
    message: Any = None
    kept: int = 0

    def __str__(self) -> str:
        match self.kind:
            case "message":
                return f"hears from {self.source}: {short(self.message)}"
            case "crash":
                return f"crashes, {self.kept} of its unsynced records survive, and starts again"
            case _:
                return WORDS[self.kind]


WORDS: Final = {
    "stand": "has heard no leader for long and stands for election",
    "propose": "proposes a command",
    "sync": "finishes its oldest sync",
    "beat": "sends a heartbeat",
    "hand over": "is told to hand over",
}


class Mail(NamedTuple):
    """A message in an inbox."""

    source: int
    message: Any

    def __str__(self) -> str:
        return short(self.message)


def short(message: Any) -> str:
    """A message without what can be guessed."""
    fields = []
    for name, value in message._asdict().items():
        if isinstance(value, Ballot):
            fields.append(f"{name}={dotted(value)}")
        elif name == "entries":
            fields.append(f"entries={[f'{e.slot}: {what(e.kind, e.value)} at {dotted(e.ballot)}' for e in value]}")
        elif name == "values":
            fields.append(f"values={[what(kind, v) for kind, v in zip(message.kinds, value, strict=True)]}")
        elif name not in {"kinds", "chain", "unknown", "next_slot", "transfer"}:
            fields.append(f"{name}={value}")
    return f"{type(message).__name__}({', '.join(fields)})"


def dotted(ballot: tuple[int, int]) -> str:
    """A ballot for people."""
    return f"{ballot[0]}.{ballot[1]}"


def what(kind: int, value: bytes) -> str:
    """An entry's value for people."""
    if kind == EntryKind.LEADS:
        return f"LEADS {dotted(decode_ballot(value))}"
    return value.decode() if kind == EntryKind.COMMAND else EntryKind(kind).name


class Facts(NamedTuple):
    """What a replica has done for ever, as its disk and its words show."""

    votes: frozenset[tuple[int, Ballot, int, bytes]]
    """Every (slot, ballot, kind, value) that was ever on its disk."""
    given: tuple[tuple[int, bytes], ...]
    """What it handed out as chosen, from slot 1 on, in any of its lives."""
    proposed: frozenset[tuple[int, Ballot, int, bytes]]
    """What its Accepts carried."""


class Node:
    """A replica with its disk, and what must be remembered of it to judge it."""

    __slots__ = (
        "ballots", "chosen_to", "commands", "core", "counted", "crashes", "entries", "given", "held", "promised",
        "proposed", "unsynced", "used", "votes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.core: Paxos | None = None
        # the disk
        self.promised = NO_BALLOT
        self.entries: dict[int, Entry] = {}
        self.chosen_to = 0
        self.unsynced: list[tuple[int, list[Any]]] = []
        self.held: list[tuple[int, int, Any]] = []  # (batch that must be synced, target, message)
        # the past
        self.votes: set[tuple[int, Ballot, int, bytes]] = set()
        self.given: list[tuple[int, bytes]] = []
        self.proposed: set[tuple[int, Ballot, int, bytes]] = set()
        self.used = NO_BALLOT  # its highest ballot ever prepared
        self.ballots = 0
        self.crashes = 0
        self.commands = 0
        self.counted = NO_BALLOT  # the ballot counted last in `ballots`


class Replica(Process):
    """Replica `number` of `scope.replicas`. Places count from 0, replicas from 1."""

    def __init__(self, number: int, scope: Scope) -> None:
        self.name = f"replica {number}"
        self.number = number
        self.scope = scope
        members = tuple(Member(i, "", b"") for i in range(1, scope.replicas + 1))
        self.configuration = Configuration("scope", 1, members, b"")
        self.quorum = scope.replicas // 2 + 1  # counted here, not asked of the code
        self.others = [member.id for member in members if member.id != number]

    # --- its life

    def start(self) -> Node:
        node = Node()
        self._boot(node)
        self._settle(node, [])
        return node

    def _boot(self, node: Node) -> None:
        durable = Durable(
            promised=node.promised,
            entries=tuple(node.entries[slot] for slot in sorted(node.entries)),
            chosen=node.chosen_to,
        )
        node.core = Paxos(
            replica=self.number,
            configuration=self.configuration,
            durable=durable,
            timing=TIMING,
            luck=luck,
            now_ms=NOW,
        )

    def react(self, live: Node, event: Event) -> list[Output]:
        outputs: list[Output] = []
        core = live.core
        assert core is not None
        match event.kind:
            case "message":
                core.step(event.source, event.message)
            case "stand":
                self._stand(core)
            case "propose":
                live.commands += 1
                proposed = core.propose(f"command {self.number}.{live.commands}".encode())
                assert proposed is not None
            case "beat":
                core.tick(core._beat_ms)
            case "hand over":
                core.hand_over()
            case "sync":
                self._sync(live, outputs)
            case "crash":
                self._crash(live, event.kept)
            case _:
                raise AssertionError(event)
        self._settle(live, outputs)
        return outputs

    def _stand(self, core: Paxos) -> None:
        """Its timer fires. A leader has heard no quorum before, and a candidate's patience is at an end."""
        if core._leadership is not None:
            for follower in core._leadership.followers.values():
                follower.heard_ms = 0
            core.tick(core._now_ms + 1)
            assert core._leadership is None
        core._deadline_ms = core._election.deadline_ms = core._now_ms + 1
        core.tick(core._now_ms + 1)
        candidacy = core._candidacy
        if candidacy is not None and not self.scope.pre_votes:
            core._output.send_now = [item for item in core._output.send_now if type(item[1]) is not PreVote]
            for other in self.others[: self.quorum - 1]:
                core.step(other, PreVoteGranted(candidacy.ballot, 0))

    def _crash(self, node: Node, kept: int) -> None:
        records = [record for _, batch in node.unsynced for record in batch]
        for record in records[:kept]:
            self._write(node, record)
        node.unsynced, node.held = [], []
        node.crashes += 1
        node.counted = NO_BALLOT
        self._boot(node)

    # --- its disk

    def _write(self, node: Node, record: Any) -> None:
        match record:
            case Promised(ballot=ballot):
                assert ballot > node.promised, "a promise on the disk decreased"
                node.promised = ballot
            case Accepted(entry=entry):
                assert entry.ballot <= node.promised, "an entry is durable under a ballot that is not promised"
                node.entries[entry.slot] = entry
                node.votes.add(tuple(entry))
            case ChosenTo(slot=slot):
                node.chosen_to = max(node.chosen_to, slot)

    def _sync(self, node: Node, outputs: list[Output]) -> None:
        number, records = node.unsynced.pop(0)
        for record in records:
            self._write(node, record)
        due = [(target, message) for batch, target, message in node.held if batch <= number]
        node.held = [item for item in node.held if item[0] > number]
        self._send(node, due, outputs)
        assert node.core is not None
        node.core.synced(number)

    # --- after each step

    def _settle(self, node: Node, outputs: list[Output]) -> None:
        """The shell's part: what the core asks for is done, until it asks for nothing."""
        core = node.core
        assert core is not None
        while True:
            self._hush(core)
            output = core.take()
            if core._log.last > self.scope.slots + self.scope.ballots:
                raise Beyond
            if output.batch:
                node.unsynced.append((output.batch, output.persist))
            self._send(node, output.send_now, outputs)
            batch = node.unsynced[-1][0] if node.unsynced else 0
            assert batch or not output.send_after_sync, "a message waits for a disk that has nothing to do"
            node.held += [(batch, target, message) for target, message in output.send_after_sync]
            self._hand_out(node, output.chosen)
            if not node.unsynced or self.scope.slow_disk:
                break
            self._sync(node, outputs)
        candidacy = core._candidacy
        if candidacy is not None and candidacy.preparing and candidacy.ballot != node.counted:
            node.counted = candidacy.ballot
            node.ballots += 1
        self._judge(node, core)
        self._stop_the_clock(core)
        self._renumber(node, core)

    def _hush(self, core: Paxos) -> None:
        """No heartbeat is due that is not in the scope. Followers are told of what is chosen, as if clients waited."""
        leadership = core._leadership
        if leadership is not None:
            if leadership.heartbeat >= self.scope.beats:
                core._beat_ms = core._now_ms + TIMING.heartbeat_ms
            for other in self.others:
                core.inform(other)

    def _stop_the_clock(self, core: Paxos) -> None:
        """It is the same moment again, and nothing was heard from anybody lately, but for what followers said."""
        core._now_ms = NOW
        core._beat_ms = core._deadline_ms = NOW + TIMING.heartbeat_ms
        election = core._election
        election.leader, election._heard_ms, election._patience_ms = None, 0, TIMING.election_ms
        election.deadline_ms = NOW + TIMING.election_ms
        core._catch_up._asked_ms = NOW - 2 * TIMING.heartbeat_ms  # another question may be asked at once
        if core._leadership is not None:
            for follower in core._leadership.followers.values():
                follower.heard_ms = NOW

    def _renumber(self, node: Node, core: Paxos) -> None:
        """How many batches there have ever been makes no difference: those on their way are the first ones."""
        acceptor = core._acceptor
        gone = acceptor._batch - len(node.unsynced)
        acceptor._batch -= gone
        batches = [batch._replace(number=batch.number - gone, taken_ms=NOW) for batch in acceptor._unsynced]
        acceptor._unsynced = deque(batches)
        node.unsynced = [(number - gone, records) for number, records in node.unsynced]
        node.held = [(number - gone, target, message) for number, target, message in node.held]

    def _hand_out(self, node: Node, entries: list[Entry]) -> None:
        core = node.core
        assert core is not None
        for entry in entries:
            value = (int(entry.kind), entry.value)
            if entry.slot <= len(node.given):
                assert node.given[entry.slot - 1] == value, f"slot {entry.slot} is handed out with two values"
            else:
                assert entry.slot == len(node.given) + 1, "handed out with a gap"
                node.given.append(value)

    def _send(self, node: Node, sent: Sequence[tuple[int, Any]], outputs: list[Output]) -> None:
        for target, message in sent:
            self._judge_word(node, message)
            if self._arrives(message):
                outputs.append(Output(target - 1, Mail(self.number, message)))

    def _arrives(self, message: Any) -> bool:
        match message:
            case Refuse():
                return self.scope.refusals
            case messages.Fetch() | messages.Chosen():
                return self.scope.catching_up
            case PreVote() | PreVoteGranted():
                return self.scope.pre_votes
            case _:
                return True

    # --- what must hold of one replica

    def _judge_word(self, node: Node, message: Any) -> None:
        """No message leaves that depends on something that is not on the disk."""
        match message:
            case Prepare(ballot=ballot):
                assert node.promised >= ballot, "a Prepare left before its promise was durable"
                if ballot != node.used:
                    assert ballot > node.used, "a ballot is used twice, or one below an older one of the same replica"
                    assert ballot.replica == self.number, "a ballot of somebody else"
                    node.used = ballot
            case Promise(ballot=ballot, entries=entries):
                assert node.promised >= ballot, "a Promise left before it was durable"
                for entry in entries:
                    assert tuple(entry) in node.votes, "a Promise tells of an entry that is not durable"
            case Accept(ballot=ballot, first=first, kinds=kinds, values=values):
                assert node.promised >= ballot, "an Accept left before its leader's promise was durable"
                assert ballot == node.used, "an Accept under a ballot that was not prepared"
                for index, (kind, value) in enumerate(zip(kinds, values, strict=True)):
                    node.proposed.add((first + index, ballot, int(kind), value))
            case messages.Accepted(ballot=ballot, upto=upto):
                assert node.promised >= ballot, "an acknowledgement left before the promise was durable"
                for slot in range(1, upto + 1):
                    at = any(vote[0] == slot and vote[1] == ballot for vote in node.votes)
                    assert at or slot <= len(node.given), f"slot {slot} is acknowledged, but not durable at {ballot}"
                    assert slot in node.entries, f"slot {slot} is acknowledged and is not on the disk"
            case _:
                pass

    def _judge(self, node: Node, core: Paxos) -> None:
        assert core.promised >= node.promised, "the core has promised less than its disk"
        assert core._acceptor.promised_durably <= node.promised, "the core takes more for promised than its disk has"
        for slot in range(1, core._acceptor.durable + 1):
            assert slot in node.entries, f"the core takes slot {slot} for durable"
        leadership = core._leadership
        if leadership is not None:
            assert leadership.ballot.replica == self.number, "it leads under a ballot of somebody else"
            assert leadership.ballot == core.promised == node.used, "it leads below its promise"
        if core.ready:
            assert leadership is not None
            slot = leadership.leads_slot
            assert slot <= len(node.given), "ready before its LEADS was handed out"
            kind, value = node.given[slot - 1]
            assert kind == EntryKind.LEADS, "ready without a LEADS of its own"
            assert decode_ballot(value) == leadership.ballot, "ready by another's LEADS"

    # --- what may happen

    def empty(self) -> Hashable:
        return frozenset()

    def receive(
        self,
        live: Node,
        inbox: frozenset[Mail],
        messages: Sequence[Hashable],
        idle: Callable[[Hashable], bool],
    ) -> frozenset[Mail]:
        grown = inbox.union(messages) if messages else inbox
        dead = [
            mail for mail in grown if self._is_dead(live, mail) and idle(Event("message", mail.source, mail.message))
        ]
        return grown.difference(dead) if dead else grown

    def _is_dead(self, node: Node, mail: Mail) -> bool:
        """Whether a message that has no effect now will have none later either. A rule of the model, tested as one."""
        core = node.core
        assert core is not None
        match mail.message:
            case messages.Accepted(ballot=ballot):
                # It was sent to a leadership of ours, and a ballot is led once.
                return core._leadership is None or core._leadership.ballot != ballot
            case Promise(ballot=ballot):
                candidacy = core._candidacy
                if candidacy is None or candidacy.ballot != ballot:
                    return True
                return candidacy.preparing and candidacy._votes[mail.source].done
            case Prepare(ballot=ballot) | Accept(ballot=ballot):
                # It would be refused, and refusals are lost.
                return ballot < node.promised and not self.scope.refusals
            case _:
                return False

    def choices(self, live: Node, inbox: frozenset[Mail]) -> Iterator[tuple[Event, Hashable]]:
        core = live.core
        assert core is not None
        for mail in sorted(inbox, key=repr):
            yield Event("message", mail.source, mail.message), inbox
        scope = self.scope
        if self.number in scope.standing or not scope.standing:
            yield Event("stand"), inbox
        leadership = core._leadership
        if core.ready and leadership is not None and leadership.last < scope.slots and not core._transferring:
            yield Event("propose"), inbox
        if leadership is not None and 0 < leadership.heartbeat < scope.beats:
            yield Event("beat"), inbox
        if scope.hand_overs and leadership is not None and not core._transferring:
            yield Event("hand over"), inbox
        if live.unsynced:
            yield Event("sync"), inbox
        if live.crashes < min(scope.crashes_each, scope.crashes):
            for kept in range(sum(len(batch) for _, batch in live.unsynced) + 1):
                yield Event("crash", kept=kept), inbox

    def spent(self, live: Node) -> tuple[int, ...]:
        return (live.ballots, live.crashes)

    def facts(self, live: Node) -> Facts:
        return Facts(frozenset(live.votes), tuple(live.given), frozenset(live.proposed))

    def restless(self, event: Hashable) -> bool:
        return isinstance(event, Event) and event.kind in {"message", "sync"}
