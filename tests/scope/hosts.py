# SPDX-License-Identifier: Apache-2.0
"""The group of the lock model: two shipping replicas (glue and machine) over a log in which each entry is chosen in one
step, by whatever leader the model names.

The log stands in for consensus and keeps its promises only: one order, the same for all, each replica as late as it
likes; what a deposed leader had proposed may still be chosen, behind the new leader's LEADS, or may be lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

from dthreading.wire import codec
from replicas.machine import commands
from replicas.machine.core import Machine
from replicas.paxos.types import Ballot, Configuration, Entry, EntryKind, Member, Role
from replicas.paxos.types import Output as PaxosOutput
from replicas.paxos.values import encode_ballot
from replicas.replica.core import Replica
from replicas.replica.leases import Leases
from replicas.replica.messages import Forward
from tests.scope.clients import LOG_PLACE, REPLICA_PLACES, ClientProcess, Lapsed, LockScope, Said
from tests.scope.oracle import Oracle, View
from tests.scope.places import Output, Process

CONFIGURATION = Configuration("scope", 1, (Member(1, "one", b""), Member(2, "two", b"")), b"")
FIRST = Ballot(1, 1)
SLOT = 1000
"""Where every entry is applied: the number of a slot means nothing once the sessions are open."""


class Proposed(NamedTuple):
    """Replica -> log."""

    ballot: Ballot
    value: bytes

    def __str__(self) -> str:
        return f"{commands.codec.decode(self.value)!r} at {self.ballot.round}.{self.ballot.replica}"


class Reigns(NamedTuple):
    """Log -> replica: this ballot's replica leads."""

    ballot: Ballot

    def __str__(self) -> str:
        return f"{self.ballot.round}.{self.ballot.replica} reigns"


class Chosen(NamedTuple):
    """Log -> replica: the next entry, and what the lock must be after it."""

    kind: int
    value: bytes
    view: View

    def __str__(self) -> str:
        what = "LEADS" if self.kind == EntryKind.LEADS else repr(commands.codec.decode(self.value))
        return f"chosen {what}"


class Passed(NamedTuple):
    """Replica -> replica, in the belief that this ballot rules. It is read when that is known there, too."""

    source: int
    ballot: Ballot
    forward: Forward

    def __str__(self) -> str:
        return f"passed on {[commands.codec.decode(body) for body in self.forward.bodies]}"


class Deposed(NamedTuple):
    """Not a message: from now on the LEADS of a later ballot is in the log."""

    ballot: Ballot

    def __str__(self) -> str:
        return "(whatever was decided below this ballot is late now)"


class StandIn:
    """Has the face of `Paxos` that the glue looks at; the model moves it."""

    def __init__(self, replica: int) -> None:
        self.replica = replica
        self.configuration = CONFIGURATION
        self.ballot = FIRST
        self.proposals: list[bytes] = []
        self.entries: list[Entry] = []
        self.wake_ms = 0

    @property
    def leader(self) -> int:
        return self.ballot.replica

    @property
    def role(self) -> Role:
        return Role.LEADER if self.leader == self.replica else Role.FOLLOWER

    @property
    def leads(self) -> bool:
        return self.leader == self.replica

    @property
    def follows(self) -> bool:
        return not self.leads

    @property
    def promised(self) -> Ballot:
        return self.ballot

    def propose_all(self, values: deque[bytes]) -> int:
        self.proposals += values
        values.clear()
        return SLOT

    def reigned(self, ballot: Ballot) -> None:
        """It is known from the start who reigns."""

    def inform(self, replica: int) -> None:
        """Everybody is told at once."""

    def take(self) -> PaxosOutput:
        entries, self.entries = self.entries, []
        output = PaxosOutput()
        output.chosen = entries
        return output


class Host:
    """The live object: a replica, and what the model remembers of it."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.stale = 0


class HostProcess(Process):
    """Replica 1 or 2, at place 2 or 3. Its inbox: a queue for each source; None ends that of a connection."""

    def __init__(self, place: int, scope: LockScope, clients: Sequence[ClientProcess]) -> None:
        self.place = place
        self.name = f"replica {place - REPLICA_PLACES[0] + 1}"
        self.number = place - REPLICA_PLACES[0] + 1
        self.scope = scope
        self.clients = clients

    def start(self) -> Host:
        machine = Machine(CONFIGURATION)
        paxos: Any = StandIn(self.number)
        replica = Replica(paxos=paxos, machine=machine, namespace_term_ms=1, now_ms=0)
        words = [word for client in self.clients for word in client.opening()]
        words += [client.attaching() for client in self.clients]
        values = [(EntryKind.COMMAND, codec.encode(word)) for word in words]
        for slot, (kind, value) in enumerate([*values, (EntryKind.LEADS, encode_ballot(FIRST))], 1):
            paxos.entries.append(Entry(slot, FIRST, int(kind), value))
        replica.take()
        for client in self.clients:
            if self.place == REPLICA_PLACES[0]:
                replica._hosting.bind(client.place * 100 + 1, client.id)
        host = Host(replica)
        self._quiet(host)
        return host

    def react(self, live: Host, event: Any) -> list[Output]:
        replica = live.replica
        paxos: Any = replica.paxos
        view: View | None = None
        match event:
            case Said(connection=connection, message=None):
                replica.client_gone(connection)
            case Said(connection=connection, message=message):
                if connection in replica._hosting.connections or _begins(message):
                    replica.client_said(connection, message, codec.encode(message))
            case Reigns(ballot=ballot):
                paxos.ballot = ballot
                replica._notice_reign()
            case Chosen(kind=kind, value=value):
                paxos.entries.append(Entry(SLOT, FIRST, kind, value))
                view = event.view
            case Passed(source=source, forward=forward):
                replica.peer_said(source, forward)
            case ("expires", session, stale):
                live.stale += stale
                self._expire(replica, session)
        outputs = self._take(replica)
        if view is not None:
            assert sight(replica.machine) == view, f"the lock is {sight(replica.machine)}, and should be {view}"
        self._quiet(live)
        return outputs

    def _expire(self, replica: Replica, session: int) -> None:
        """The leader's table says that this lease is over."""
        tenure = replica._tenure
        assert tenure is not None
        kept, tenure._sessions = tenure._sessions, Leases()
        tenure._sessions.renew(session, 0, 0)
        replica._to_propose.extend(tenure.expired(0, 0))
        tenure._sessions = kept

    def _take(self, replica: Replica) -> list[Output]:
        paxos: Any = replica.paxos
        outputs = []
        taken = replica.take()
        for target, message in taken.send_now:
            outputs.append(Output(REPLICA_PLACES[target - 1], Passed(self.number, paxos.ballot, message)))
        for value in paxos.proposals:
            outputs.append(Output(LOG_PLACE, Proposed(paxos.ballot, value)))
        paxos.proposals.clear()
        for connection, message in taken.to_clients:
            outputs.append(Output(connection // 100, Said(connection, message)))
        for connection, _ in taken.hang_up:
            outputs.append(Output(connection // 100, Said(connection, None)))
        assert not taken.faults, taken.faults
        return outputs

    def _quiet(self, live: Host) -> None:
        """What only counts is forgotten."""
        replica = live.replica
        replica.machine.applied = SLOT - 1
        replica.machine.digest = b""
        replica.machine._effects = None  # type: ignore[assignment]
        replica._cutting._entries = replica._cutting._bytes = 0

    # --- what may happen

    def empty(self) -> Hashable:
        return ()

    def receive(
        self, live: Host, inbox: tuple[Any, ...], messages: Sequence[Any], idle: Callable[[Hashable], bool]
    ) -> Hashable:
        """Queues are kept as one: in the order of arrival, of which only that within a source counts."""
        return tuple(sorted((*inbox, *messages), key=_source)) if messages else inbox

    def choices(self, live: Host, inbox: tuple[Any, ...]) -> Iterator[tuple[Hashable, Hashable]]:
        replica = live.replica
        ended = {item.connection for item in inbox if isinstance(item, Said) and item.message is None}
        seen = set()
        for index, item in enumerate(inbox):
            source = _source(item)
            if source in seen or isinstance(item, Lapsed | Deposed):
                continue
            seen.add(source)
            left = inbox[:index] + inbox[index + 1 :]
            if isinstance(item, Passed) and item.ballot > replica.paxos.ballot:
                continue
            yield item, left
            if isinstance(item, Said) and item.connection in ended and item.message is not None:
                yield Said(item.connection, None), tuple(other for other in inbox if _source(other) != source)
        if replica._tenure is not None:
            deposed = any(isinstance(item, Deposed) and item.ballot > replica.paxos.ballot for item in inbox)
            lapsed = {item.session for item in inbox if isinstance(item, Lapsed)}
            for session in replica.machine.sessions:
                if session not in replica._tenure._doomed and (session in lapsed or deposed):
                    yield ("expires", session, int(session not in lapsed)), inbox

    def spent(self, live: Host) -> tuple[int, ...]:
        return (0, 0, 0, 0, 0, live.stale)

    def facts(self, live: Host) -> bool:
        """Whether something is pending here that apply has not seen."""
        return live.replica._hosting.pending_count > 0

    def restless(self, event: Any) -> bool:
        return not (event[0] == "expires" and event[2])

    def words(self, event: Any) -> str:
        if event[0] == "expires":
            return f"takes the lease of session {event[1]} for over"
        return f"hears {event}"


def _begins(message: Any) -> bool:
    return type(message).__name__ in {"Open", "Resume"}


def _source(item: Any) -> tuple[int, int]:
    """The queue in which an item stands. Facts that are no messages stand apart, each once."""
    match item:
        case Said(connection=connection):
            return (1, connection)
        case Reigns() | Chosen():
            return (2, 0)
        case Passed():
            return (3, 0)
        case Lapsed(session=session):
            return (4, session)
        case _:
            return (5, item.ballot.round)


def sight(machine: Machine) -> View:
    """The lock as the machine has it."""
    lock: Any = machine.registry.objects.get(("n", "x"))
    epochs = tuple((session.id, session.epoch) for session in machine.sessions.values())
    in_force = (machine.ballot_in_force[0], machine.ballot_in_force[1])
    if lock is None:
        return View(0, 0, (), epochs, in_force)
    line = tuple((waiter.session, waiter.lane, waiter.number) for waiter in lock.waiting)
    return View(lock.owner or 0, lock.fence, line, epochs, in_force)


class LogFacts(NamedTuple):
    """What the log has decided."""

    view: View
    holder: tuple[int, int, int] | None
    outcomes: tuple[tuple[tuple[int, int, int], tuple[str, int]], ...]


class Log:
    """The live object: what has been chosen, as the oracle sums it up."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self.ballot = FIRST


class LogProcess(Process):
    """The log, at place 4. Its inbox is what has been proposed and is neither chosen nor lost."""

    name = "the log"

    def __init__(self, scope: LockScope, clients: Sequence[ClientProcess]) -> None:
        self.scope = scope
        self.clients = clients

    def start(self) -> Log:
        return Log(Oracle({client.id: 1 for client in self.clients}, tuple(FIRST)))

    def react(self, live: Log, event: Any) -> list[Output]:
        match event:
            case ("chooses", proposed):
                return self._choose(live, int(EntryKind.COMMAND), proposed.value)
            case ("loses", _):
                return []
            case _:
                other = 3 - live.ballot.replica
                live.ballot = Ballot(live.ballot.round + 1, other)
                outputs = [Output(place, Reigns(live.ballot)) for place in REPLICA_PLACES]
                outputs += [Output(place, Deposed(live.ballot)) for place in REPLICA_PLACES]
                return outputs + self._choose(live, int(EntryKind.LEADS), encode_ballot(live.ballot))

    def _choose(self, live: Log, kind: int, value: bytes) -> list[Output]:
        live.oracle.apply(kind, value)
        return [Output(place, Chosen(kind, value, live.oracle.view())) for place in REPLICA_PLACES]

    def empty(self) -> Hashable:
        return ()

    def receive(
        self, live: Log, inbox: tuple[Any, ...], messages: Sequence[Any], idle: Callable[[Hashable], bool]
    ) -> Hashable:
        return tuple(sorted((*inbox, *messages), key=lambda item: item.ballot)) if messages else inbox

    def choices(self, live: Log, inbox: tuple[Proposed, ...]) -> Iterator[tuple[Hashable, Hashable]]:
        seen = set()
        for index, item in enumerate(inbox):
            if item.ballot not in seen:
                seen.add(item.ballot)
                left = inbox[:index] + inbox[index + 1 :]
                yield ("chooses", item), left
                if item.ballot < live.ballot:
                    yield ("loses", item), left
        yield ("changes its leader",), inbox

    def spent(self, live: Log) -> tuple[int, ...]:
        return (0, 0, 0, 0, live.ballot.round, 0)

    def facts(self, live: Log) -> LogFacts:
        oracle = live.oracle
        return LogFacts(oracle.view(), oracle.holder, tuple(sorted(oracle.outcomes.items())))

    def restless(self, event: Any) -> bool:
        return event[0] != "changes its leader"

    def words(self, event: Any) -> str:
        return f"{event[0]} {event[1]}" if len(event) > 1 else str(event[0])
