# SPDX-License-Identifier: Apache-2.0
"""The real proxies on the real replicated state and real client sessions, with threads that take turns (`baton`).

In place of `client.py`'s socket and service thread stands `SteppedClient`: what a session says is applied at once, and
whoever waits for an answer gives the baton away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import dthreading.locks
from dthreading import config, holds, runtime, taking
from dthreading.errors import GroupUnreachable, from_wire
from dthreading.session import Answer, ClientSession, Manner, PendingCall, Target
from dthreading.wire import messages as wire
from dthreading.wire.codec import decode, encode
from dthreading.wire.messages import Status
from replicas.machine.core import Machine
from replicas.paxos.values import Ballot, Entry, EntryKind, encode_ballot
from tests.stateful.baton import Baton, Worker, current

NEVER = 0.0
"""The sessions' time: leases do not run out here."""


class SteppedGroup:
    """The replicated state; what is said to it is applied at once, and its answers are heard at once."""

    def __init__(self, baton: Baton) -> None:
        self.baton = baton
        self.machine = Machine()
        self.clients: list[SteppedClient] = []
        self._by_session: dict[int, SteppedClient] = {}
        self.on_the_way: deque[tuple[SteppedClient, bytes]] | None = None
        """Withdrawals that have been said and are not heard yet; None: they are heard at once."""
        self._apply(EntryKind.LEADS, encode_ballot(Ballot(1, 1)))

    def client(self, label: str) -> SteppedClient:
        client = SteppedClient(self, label)
        self.clients.append(client)
        return client

    def said(self, client: SteppedClient, frame: bytes) -> None:
        """The frame's bytes are the command, as for a replica."""
        body = frame[4:]
        message = decode(body)
        if self.on_the_way is not None and isinstance(message, wire.Withdraw):
            self.on_the_way.append((client, frame))
        elif isinstance(message, wire.Keepalive):
            client.hear(wire.Alive(message.session, message.beat))
        else:
            self._apply(EntryKind.COMMAND, body)

    def _apply(self, kind: int, value: bytes) -> None:
        effects = self.machine.apply(Entry(self.machine.applied + 1, Ballot(1, 1), kind, value))
        assert not effects.faults, effects.faults
        for session, nonce in effects.opened:
            self._by_session[session] = next(client for client in self.clients if client.nonce == nonce)
        for session, message in effects.replies:
            self._by_session[session].hear(decode(encode(message)))

    def arrive(self) -> None:
        """What was on the way is heard."""
        frames, self.on_the_way = self.on_the_way or (), None
        for client, frame in frames:
            self.said(client, frame)
            client.exchange()

    def begin_again(self) -> None:
        """The replica restarts from its snapshot: nobody may notice."""
        self.machine = Machine.restore([self.machine.dump()])


class SteppedClient:
    """`runtime.Client`, as far as proxies know it: one process, with a session of its own."""

    def __init__(self, group: SteppedGroup, label: str) -> None:
        self.settings = config.current()
        self.cluster = "stepped"
        self.closed = False
        self.over = False
        self.nonce = label.encode()
        self._group = group
        self._news: list[PendingCall] = []
        self._outbox: deque[bytes] = deque()
        self._session = ClientSession(namespace=self.settings.namespace, label=label, ttl_ms=10_000, news=self._news)
        self._session.connected(self._outbox, self.nonce, NEVER)

    @property
    def session(self) -> int:
        return self._session.id

    def hear(self, message: wire.Message) -> None:
        self._session.step(message, NEVER)

    def call(
        self,
        target: Target,
        operation: str,
        arguments: tuple[Any, ...],
        manner: Manner,
        timeout: float | None = None,
        *,
        others: tuple[Target, ...] = (),
        kept: Callable[[Answer], object] | None = None,
    ) -> Answer:
        if self.over:
            raise GroupUnreachable("the run is over")  # whoever was in the middle of a call leaves at once
        call = PendingCall(target, operation, arguments, manner, others, tell=timeout is not None)
        call.wake = current()
        if not self._session.begin(call):
            self._session.submit(call)
        self.exchange()
        try:
            self._settle(call, timeout if manner.parks else None)
        except KeyboardInterrupt:  # as in `Client._call`
            if manner.interrupt_keeps:
                self._keep(call, kept)
            else:
                call.abandoned = True
                self._session.reclaim(call)
                self._session.abandon(call)
                self.exchange()
            raise
        assert not call.lost
        assert call.error is None
        failed, value = call.status == Status.ERROR, call.value
        self._session.finish(call)
        if failed:
            raise from_wire(*value)
        return Answer(value, self._session.id)

    def _settle(self, call: PendingCall, seconds: float | None) -> None:
        while not call.settled:
            assert call.manner.parks, f"{call.operation} must not wait"
            if not self._group.baton.wait(seconds):
                assert call.parked_at is not None, "who waits was told so"
                self._session.withdraw(call, call.manner.expired)
                self.exchange()
                seconds = None

    def _keep(self, call: PendingCall, kept: Callable[[Answer], object] | None) -> None:
        while not call.settled:
            try:
                self._session.withdraw(call, call.manner.expired)
                self.exchange()
                self._settle(call, None)
            except KeyboardInterrupt:
                continue
        if call.status != Status.ERROR:
            answer = Answer(call.value, self._session.id)
            self._session.finish(call)
            if kept is not None:
                kept(answer)

    def exchange(self) -> None:
        """All that is to be said is said, and whoever has got an answer is woken, in the order of the answers."""
        while self._outbox:
            self._group.said(self, self._outbox.popleft())
        for client in self._group.clients:
            news, client._news[:] = list(client._news), []
            for call in news:
                if call.settled and isinstance(call.wake, Worker):
                    self._group.baton.wake(call.wake)

    def holds_are_valid(self, session: int) -> bool:
        return session == self._session.id != 0

    def detach(self, target: Target) -> None:
        self._session.detach(target)

    def say_goodbye(self) -> None: ...

    def after_fork(self) -> None: ...


class Processes:
    """Which process runs is which client its proxies find."""

    def __init__(self, baton: Baton, processes: int) -> None:
        self.group = SteppedGroup(baton)
        self.clients = [self.group.client(f"process {number}") for number in range(processes)]
        self._clients: Any = runtime._clients

    def enter(self, process: int) -> None:
        """From here on its code runs."""
        self._clients[runtime._CLIENT] = self.clients[process]

    def make(self, process: int, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Its proxies, which share no record of holds with those of another process."""
        self.enter(process)
        made = make()
        holds._known.clear()
        taking._known.clear()
        for proxy in made.values():
            proxy._proxy_settle()
        return made


@contextmanager
def processes(baton: Baton, count: int) -> Iterator[Processes]:
    """So many processes with one group, while the context lasts; their clock is the baton's."""
    former = runtime._clients.pop(runtime._CLIENT, None)
    real_time = dthreading.locks.time
    try:
        dthreading.locks.time = SimpleNamespace(monotonic=baton.time)
        yield (running := Processes(baton, count))
        for client in running.clients:
            client.over = True
        baton.end()
    finally:
        dthreading.locks.time = real_time
        runtime._clients.pop(runtime._CLIENT, None)
        holds.forget_all()
        taking.forget_all()
        holds._known.clear()
        taking._known.clear()
        if former is None:
            config.unbind()
        else:
            runtime._clients[runtime._CLIENT] = former
