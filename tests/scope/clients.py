# SPDX-License-Identifier: Apache-2.0
"""One client of the lock model: the shipping session, one thread, and a connection that may break.

Time is left out: the lease runs until the model lets it lapse, and nobody sends keepalives. The inbox is what its
replica has said on the present connection, in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from dthreading.session.calls import ACQUIRE, RELEASE, PendingCall, Target
from dthreading.session.core import ClientSession
from dthreading.wire import codec
from dthreading.wire import messages as wire
from dthreading.wire.messages import Lifetime, Status
from tests.scope.places import Output, Process

TTL_MS: Final = 10_000
LAPSED: Final = 1e6
"""A moment after the end of every lease."""

REPLICA_PLACES: Final = (2, 3)
LOG_PLACE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LockScope:
    """How far the search goes: the most of each, by all clients and replicas together."""

    acquires: int = 2
    withdrawals: int = 0
    """Of calls whose time is up (the caller waits for the verdict) or whose caller has gone."""
    breaks: int = 0
    """Connections that a client gives up, for one to the other replica."""
    lapses: int = 0
    """Leases that run out."""
    leaders: int = 1
    """Changes of the leader, and one."""
    stale: int = 0
    """Sessions that a deposed leader wants to expire though they live."""


class Said(NamedTuple):
    """On a connection, in either direction; None: the connection has ended."""

    connection: int
    message: Any

    def __str__(self) -> str:
        return f"[{self.connection}] {'the end' if self.message is None else self.message!r}"


class Lapsed(NamedTuple):
    """Not a message: the session's client holds nothing any more, by its own clock."""

    session: int


class ClientFacts(NamedTuple):
    """What a client believes, and what its caller was told."""

    session: int
    holds: int
    """The fence of what it may believe to hold; 0: nothing."""
    wants: tuple[int, int] | None
    """(lane, number) of the call that its caller waits in."""
    withdrawn: bool
    over: bool
    """Its session is lost, or its lease has lapsed."""
    connected: bool
    told: tuple[tuple[int, int, str, int], ...]


class Client:
    """The live object."""

    def __init__(self, session: ClientSession, target: Target) -> None:
        self.session = session
        self.target = target
        self.now = 0.0
        self.call: PendingCall | None = None
        self.fence = 0
        self.outbox: deque[bytes] = deque()
        self.connection = 0
        self.replica = REPLICA_PLACES[0]
        self.told: list[tuple[int, int, str, int]] = []
        self.acquires = self.withdrawals = self.breaks = self.lapses = 0


class ClientProcess(Process):
    """Client `place` (0 or 1). Its session has been opened and has attached the lock as handle 1."""

    def __init__(self, place: int, scope: LockScope) -> None:
        self.place = place
        self.id = place + 1
        self.name = f"client {self.id}"
        self.scope = scope

    def opening(self) -> list[Any]:
        """What stands in the log before the beginning. The session's id is the slot of the first, which is `id`."""
        return [wire.Open(self._nonce, TTL_MS, "n", f"client {self.id}")]

    def attaching(self) -> wire.Attach:
        return wire.Attach(self.id, 1, "n", "x", "Lock", (), int(Lifetime.NAMED), True)

    @property
    def _nonce(self) -> bytes:
        return b"nonce %d" % self.id

    def start(self) -> Client:
        session = ClientSession(namespace="n", label=f"client {self.id}", ttl_ms=TTL_MS)
        target = Target("n", "x", "Lock", (), int(Lifetime.NAMED))
        client = Client(session, target)
        client.connection = self.place * 100 + 1
        session.connected(client.outbox, self._nonce, 0.0)
        session.step(wire.Opened(self._nonce, self.id, TTL_MS), 0.0)
        session._attach(target)
        session._unproved.clear()
        client.outbox.clear()
        self._quiet(client)
        return client

    def react(self, live: Client, event: Any) -> list[Output]:
        outputs: list[Output] = []
        session = live.session
        match event:
            case Said(message=None):
                session.disconnected()
                live.connection += 1
            case Said(message=message):
                if isinstance(message, wire.MoveOn | wire.Leader):
                    return []
                session.step(message, live.now)
            case ("acquire",):
                live.acquires += 1
                self._begin(live, "acquire", (True, 1), ACQUIRE)
            case ("release",):
                fence, live.fence = live.fence, 0
                self._begin(live, "release", (fence,), RELEASE)
            case ("time is up",):
                live.withdrawals += 1
                assert live.call is not None
                session.withdraw(live.call, "")
            case ("interrupted",):
                live.withdrawals += 1
                assert live.call is not None
                session.abandon(live.call)
                live.call = None
            case ("connects to", replica):
                self._connect(live, replica, outputs)
            case ("lapses",):
                live.lapses += 1
                live.now = LAPSED
                outputs += [Output(place, Lapsed(session.id)) for place in REPLICA_PLACES]
            case ("looks at the clock",):
                session.tick(live.now)
        self._settle(live)
        self._quiet(live)
        while live.outbox:
            message = codec.decode(live.outbox.popleft()[4:])
            if not isinstance(message, wire.Keepalive):
                outputs.append(Output(live.replica, Said(live.connection, message)))
        return outputs

    def _begin(self, live: Client, operation: str, arguments: tuple[Any, ...], manner: Any) -> None:
        call = live.call = PendingCall(live.target, operation, arguments, manner)
        assert live.session.begin(call)

    def _connect(self, live: Client, replica: int, outputs: list[Output]) -> None:
        if live.session._outbox is not None:
            live.breaks += 1
            outputs.append(Output(live.replica, Said(live.connection, None)))
            live.session.disconnected()
            live.connection += 1
        live.replica = replica
        live.outbox = deque()
        live.session.connected(live.outbox, b"", live.now)

    def _settle(self, live: Client) -> None:
        """The thread wakes up when its call is settled."""
        call = live.call
        if call is None or not call.settled:
            return
        live.call = None
        assert call.error is None
        lane = call.lane.index if call.lane is not None else -1
        if call.lost:
            live.told.append((lane, call.number, "lost", 0))
            return
        if call.status == Status.ERROR:
            live.told.append((lane, call.number, str(call.value[0]), 0))
        elif call.operation == "release":
            live.told.append((lane, call.number, "released", 0))
        elif call.value is False:
            live.told.append((lane, call.number, "in vain", 0))
        else:
            live.told.append((lane, call.number, "granted", call.value))
            live.fence = call.value
        if call.lane is not None:
            live.session.finish(call)

    def _quiet(self, live: Client) -> None:
        """No time passes, so no keepalive is due, and how many there were makes no difference."""
        lease = live.session._lease
        lease.beat, lease._beats, lease.keepalive_at = 0, {}, float("inf")
        live.session.news.clear()
        for lane in live.session._lanes.all():
            if lane.call is not None and lane.call.finished:
                lane.call = None  # nobody looks at it again

    # --- what may happen

    def empty(self) -> Hashable:
        return ()

    def receive(
        self, live: Client, inbox: tuple[Said, ...], messages: Sequence[Any], idle: Callable[[Hashable], bool]
    ) -> tuple[Said, ...]:
        """What comes on a connection that was given up is lost."""
        connected = live.session._outbox is not None and not live.session.over
        return tuple(said for said in (*inbox, *messages) if said.connection == live.connection and connected)

    def choices(self, live: Client, inbox: tuple[Said, ...]) -> Iterator[tuple[Hashable, Hashable]]:
        if inbox:
            yield inbox[0], inbox[1:]
        session = live.session
        if session.over:
            return
        if live.now == LAPSED:
            yield ("looks at the clock",), inbox
            return
        yield ("lapses",), inbox
        if live.call is None:
            yield (("release",) if live.fence else ("acquire",)), inbox
        elif live.call.operation == "acquire":
            if not live.call.withdrawn:
                yield ("time is up",), inbox
            yield ("interrupted",), inbox
        if session._outbox is None:
            for replica in REPLICA_PLACES:
                yield ("connects to", replica), inbox
        else:
            yield ("connects to", sum(REPLICA_PLACES) - live.replica), ()

    def spent(self, live: Client) -> tuple[int, ...]:
        return (live.acquires, live.withdrawals, live.breaks, live.lapses, 0, 0)

    def facts(self, live: Client) -> ClientFacts:
        call = live.call
        wants = None
        if call is not None and call.lane is not None:
            wants = (call.lane.index, call.number)
        holds = live.fence if live.fence and live.now < LAPSED and not live.session.over else 0
        over = live.session.over or live.now == LAPSED
        withdrawn = call is not None and call.withdrawn
        return ClientFacts(self.id, holds, wants, withdrawn, over, live.session.ready, tuple(live.told))

    def restless(self, event: Any) -> bool:
        return isinstance(event, Said) or event[0] == "looks at the clock"

    def words(self, event: Any) -> str:
        if isinstance(event, Said):
            return f"hears {event}"
        if event[0] == "connects to":
            return f"connects to replica {event[1] - 1}"
        return str(event[0])
