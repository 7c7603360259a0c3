# SPDX-License-Identifier: Apache-2.0
"""One replica of the Paxos model: the shipping core, its disk, and a network that may do anything to a message.

The inbox is the set of all messages ever sent to the replica: each may come never, late, twice, in any order. Time is
left out: the core always finds itself at the same moment, no leader is ever live to it, and its timers fire whenever
the model lets them. What the disk has is kept in nodes.py, apart from the core's own idea of it, and judged against
what the core says to others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Final

from replicas.paxos import messages
from replicas.paxos.core import Paxos
from replicas.paxos.messages import Accept, Prepare, PreVote, PreVoteGranted, Promise, Refuse
from replicas.paxos.types import NO_BALLOT, Durable, Role, Timing
from tests.scope.nodes import Facts, Node
from tests.scope.places import Beyond, Output, Process
from tests.scope.words import Event, Mail, Scope, configuration

NOW: Final = 1_000_000
TIMING: Final = Timing(heartbeat_ms=100, election_ms=1000, disk_ms=1 << 40)


def luck() -> float:
    """Time is left out, so there is none."""
    return 0.0


class Replica(Process):
    """Replica `number` of `scope.replicas`. Places count from 0, replicas from 1."""

    forgets_nothing = True

    def __init__(self, number: int, scope: Scope) -> None:
        self.name = f"replica {number}"
        self.number = number
        self.scope = scope
        everybody = tuple(range(1, scope.replicas + 1))
        self.configuration = configuration(1, scope.members or everybody)
        self.others = [other for other in everybody if other != number]

    # --- its life

    def start(self) -> Node:
        node = Node(remembers_elections=bool(self.scope.changes))
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
                changing = core.changing
                proposed = core.propose(f"command {self.number}.{live.commands}".encode())
                if proposed is None and changing:
                    raise Beyond  # it is right to refuse
                assert proposed is not None
            case "change":
                assert core.reconfigure(configuration(2, event.message)) is not None
            case "ask":
                core._polled = core._others().index(event.source) - 1
                core.tick(core._beat_ms)
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
            for other in self.others:
                core.step(other, PreVoteGranted(candidacy.ballot, 0))

    def _crash(self, node: Node, kept: int) -> None:
        records = [record for _, batch in node.unsynced for record in batch]
        for record in records[:kept]:
            node.write(record)
        node.unsynced, node.held = [], []
        node.crashes += 1
        node.counted = NO_BALLOT
        self._boot(node)

    def _sync(self, node: Node, outputs: list[Output]) -> None:
        number, records = node.unsynced.pop(0)
        for record in records:
            node.write(record)
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
            self._count_ballot(node, core)
            output = core.take()
            if core._log.last > self.scope.slots + self.scope.ballots:
                raise Beyond
            if output.batch:
                node.unsynced.append((output.batch, output.persist))
            self._send(node, output.send_now, outputs)
            batch = node.unsynced[-1][0] if node.unsynced else 0
            assert batch or not output.send_after_sync, "a message waits for a disk that has nothing to do"
            node.held += [(batch, target, message) for target, message in output.send_after_sync]
            node.hand_out(output.chosen)
            if not node.unsynced or self.scope.slow_disk:
                break
            self._sync(node, outputs)
        node.judge(self.number)
        self._stop_the_clock(core)
        self._renumber(node, core)

    def _count_ballot(self, node: Node, core: Paxos) -> None:
        candidacy = core._candidacy
        if candidacy is not None and candidacy.preparing and candidacy.ballot != node.counted:
            node.counted = candidacy.ballot
            node.ballots += 1
            if not core._others():
                node.used = candidacy.ballot  # it has nobody to send a Prepare to

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
        core._polled = 0
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

    def _send(self, node: Node, sent: Sequence[tuple[int, Any]], outputs: list[Output]) -> None:
        for target, message in sent:
            node.judge_word(self.number, message)
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
                vote = candidacy._votes.get(mail.source)
                return vote is None or (candidacy.preparing and vote.done)
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
        if core.role is Role.LEARNER:
            for member in core._others() if scope.catching_up else ():
                yield Event("ask", member), inbox
        elif (self.number in scope.standing or not scope.standing) and (core._others() or core._leadership is None):
            yield Event("stand"), inbox  # (a group of one never loses its leader)
        leadership = core._leadership
        free = core.ready and leadership is not None and leadership.last < scope.slots and not core._transferring
        if free:
            yield Event("propose"), inbox
            for members in scope.changes if core.configuration.epoch == 1 and not core.changing else ():
                yield Event("change", message=members), inbox
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
        return live.facts()

    def restless(self, event: Hashable) -> bool:
        return isinstance(event, Event) and event.kind in {"message", "sync"}
