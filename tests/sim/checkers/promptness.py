# SPDX-License-Identifier: Apache-2.0
"""While nothing is wrong between a client, its replica and the leader, its calls go on as fast as others' do.

A call is late when it was said, or its turn came, and after that a grace passed in which all was well on its way, and
somebody else's call that began only then has been through the log already. So a group that decides nothing is late with
nothing, and what is forgotten is found without a new connection, leader or peace that would heal it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.mishaps.common import leads

if TYPE_CHECKING:
    from dthreading.session.calls import PendingCall
    from tests.sim.checkers.watch import Watch
    from tests.sim.checkers.watched import WatchedClient
    from tests.sim.host import Host

__all__ = ["Promptness"]

CallName = tuple[int, int, int]

GRACE_US = 600_000
"""On a way that has been well for long: many round trips of the slowest network that is drawn."""
MENDING_US = 4_000_000
"""After something was wrong on the way: elections, a stream between replicas that begins again, a replica that catches
up."""
LOOK_EVERY_US = 100_000
BEHIND_MAX = 20
"""A replica that has so many entries more to apply is catching up."""


class Promptness:
    """Looks at all calls that are under way, now and then."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._freshest_us = -1
        """When the latest of those calls began that were decided by the log and heard of."""
        self._looked_us = 0
        self._goodbyes: list[tuple[WatchedClient, int, int, int]] = []
        """Clients, their sessions, where they were connected, and when they said it."""
        self._seen_us: dict[CallName, int] = {}
        """When it was first seen that a call was withdrawn or abandoned, and had not come to its end."""
        self._straggled_us = (0, 0)
        """How long messages might straggle when that was seen last, and when that was."""

    def _straggling_us(self) -> int:
        """How late messages may be on the ways of a call; 0 where none straggles. A straggler of worse weather, and
        all behind it on its stream, may still be on its way when the weather is fine again, so that is remembered.
        """
        watch = self._watch
        assert watch.network is not None
        now_us, weather = watch.kernel.now_us, watch.network.weather
        if weather.straggle:
            self._straggled_us = (400 * weather.delay_us[1], now_us)
        late_us, seen_us = self._straggled_us
        return late_us if now_us <= seen_us + late_us else 0

    def decided(self, began_us: int) -> None:
        """Somebody has heard what the log decided on a call that began then."""
        self._freshest_us = max(self._freshest_us, began_us)
        now_us = self._watch.kernel.now_us
        if now_us >= self._looked_us + LOOK_EVERY_US:
            self._looked_us = now_us
            for client in self._watch.clients:
                if client.alive and client.words.ready_us >= 0:
                    self._look(client)
            self._goodbyes = [goodbye for goodbye in self._goodbyes if not self._is_over(*goodbye)]
            self._look_at_the_silent()

    def gave_up(self, client: WatchedClient) -> None:
        """A client finds that the replica it is connected to does not take it up."""
        assert self._watch.network is not None
        began_us = client.words.began_us
        well_us = self._well_since_us(client, client.line.replica, client.words.began_us)
        if well_us is not None and not self._straggling_us() and well_us <= began_us < self._freshest_us:
            assert began_us < well_us + MENDING_US, (
                f"{client.name} was not taken up by replica {client.line.replica}, though all is well since"
                f" {well_us / 1e6:.3f} and others are answered that began at {self._freshest_us / 1e6:.3f}"
            )

    def said_goodbye(self, client: WatchedClient) -> None:
        """It has ended its session properly, and its replica will hear of that."""
        self._goodbyes.append((client, client.session.id, client.line.replica, self._watch.kernel.now_us))

    def _is_over(self, client: WatchedClient, session: int, replica: int, said_us: int) -> bool:
        """Whether that goodbye is done with: the session has ended, or something came between."""
        watch = self._watch
        assert watch.network is not None
        host = watch.hosts[replica]
        if session not in watch.reference.sessions or watch.network.troubled_us(client.node, replica) >= said_us:
            return True
        if host.well_since_us is None or host.well_since_us >= said_us:
            return True
        well_us = self._well_since_us(client, replica, said_us)
        assert well_us is None or (
            self._freshest_us < max(well_us + MENDING_US, said_us + GRACE_US) + self._straggling_us()
        ), f"{client.name} said goodbye at {said_us / 1e6:.3f}, and session {session} lives on"
        return False

    def _look_at_the_silent(self) -> None:
        """Whoever has said nothing for a lease, and a while, has none any more."""
        watch, leader = self._watch, self._leader()
        if leader is None or watch.network is None or self._straggling_us():
            return
        # A replica that stands still may have a keepalive in its hands, and pass it on when it wakes.
        well_us = [host.well_since_us for host in watch.hosts.values() if host.alive]
        if None in well_us:
            return
        steady_us = max(watch.reign_us, *[moment for moment in well_us if moment is not None])
        for session, (heard_us, ttl_us) in list(watch.streams.heard.items()):
            if session not in watch.reference.sessions:
                del watch.streams.heard[session]
                continue
            assert self._freshest_us < max(steady_us, heard_us) + 1.01 * ttl_us + MENDING_US, (
                f"session {session} was heard of at {heard_us / 1e6:.3f}, and has not ended"
            )

    def _look(self, client: WatchedClient) -> None:
        pending = [(running, call) for running in client._threads if (call := running.call) and call.sent]
        if not pending or client.line.connection != client.words.connection or client.session.over:
            return
        well_us = self._well_since_us(client, client.line.replica, client.words.ready_us)
        if well_us is None or self._freshest_us < well_us + MENDING_US:
            return
        session, straggling_us = client.session, self._straggling_us()
        for running, call in pending:
            if call.settled or call.lane is None or call.session is not session:
                continue
            name = (session.id, call.lane.index, call.number)
            due_us = self._due_since_us(client._since[id(running)][1], name, call)
            if due_us is not None:
                self._check(client, running.ask, well_us, due_us + straggling_us)
        for lane in session._lanes.all():
            if lane.undo is not None:
                due_us = self._first_seen_us((session.id, lane.index, lane.undo.number))
                self._check(client, f"the undo of {lane.undo.operation}", well_us, due_us + straggling_us)

    def _check(self, client: WatchedClient, what: object, well_us: int, due_us: int) -> None:
        self._watch.kernel.seen["calls that had to be answered promptly"] += 1
        assert self._freshest_us < max(well_us + MENDING_US, due_us + GRACE_US), (
            f"{client.name} still waits for {what}, due since {due_us / 1e6:.3f}, though all is well since"
            f" {well_us / 1e6:.3f} and others are answered that began at {self._freshest_us / 1e6:.3f}"
        )

    def _due_since_us(self, began_us: int, name: CallName, call: PendingCall) -> int | None:
        """Since when there should be an answer; None: its turn has not come."""
        answered = self._watch.told.answered.get(name)
        if answered is not None:
            return max(began_us, answered[1])
        session = self._watch.reference.sessions.get(name[0])
        lane = session.lanes.get(name[1]) if session is not None else None
        if lane is None or lane.number < name[2] or lane.waiting is None:
            return began_us
        owner = lane.waiting.owner
        stays = owner.kind == "Barrier" or (owner.kind == "Condition" and lane.waiting.line is not owner.lines[0])
        return None if stays or not call.withdrawn else self._first_seen_us(name)

    def _first_seen_us(self, name: CallName) -> int:
        return self._seen_us.setdefault(name, self._watch.kernel.now_us)

    def _well_since_us(self, client: WatchedClient, replica: int, least_us: int) -> int | None:
        """Since when nothing has been wrong with this client's way to the leader."""
        watch = self._watch
        host, leader = watch.hosts.get(replica), self._leader()
        if host is None or leader is None or watch.network is None:
            return None
        if host.well_since_us is None or watch.top - watch.applied_by(replica) > BEHIND_MAX:
            return None
        moments = [least_us, host.well_since_us, leader.well_since_us, watch.reign_us, client._paused_until_us]
        moments.append(watch.network.troubled_us(client.node, replica))
        if host is not leader:
            moments.append(watch.network.troubled_us(replica, leader.number))
        return max(moment for moment in moments if moment is not None) if None not in moments else None

    def _leader(self) -> Host | None:
        leaders = [host for host in self._watch.hosts.values() if leads(host)]
        return leaders[0] if len(leaders) == 1 else None
