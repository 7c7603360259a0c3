# SPDX-License-Identifier: Apache-2.0
"""A simulated client process: the shipping ClientSession, a clock of its own, and threads that are generators.

A thread yields `Ask`s and is sent the outcome, as a thread of a real process calls and returns. What runtime.py does
with sockets and locks is done here by events; numbering, resending, leases and verdicts are the session's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dthreading.session.calls import ACQUIRE, Manner, OnLost, PendingCall, Target
from dthreading.session.core import ClientSession
from dthreading.wire import codec, messages
from dthreading.wire.messages import Status
from tests.sim.group import ConnectionEnded, ToClient, ToReplica
from tests.sim.kernel import Kernel
from tests.sim.network import Network


class Ask(NamedTuple):
    """One call of a thread."""

    target: Target
    operation: str
    arguments: tuple[Any, ...]
    manner: Manner = ACQUIRE
    timeout: float | None = None
    others: tuple[Target, ...] = ()


class Sleep(NamedTuple):
    """The thread does something else for so long, by the client's clock."""

    seconds: float


class Outcome(NamedTuple):
    """What a call came to: "ok", "error" (its code is the value) or "lost"."""

    how: str
    value: Any
    session: ClientSession | None


Thread = Generator[Ask | Sleep, Outcome, None]


@dataclass(eq=False)
class _Running:
    thread: Thread
    ask: Ask | None = None
    call: PendingCall | None = None
    life: int = 0
    woken: bool = field(default=False)


class SimulatedClient:
    """One process with one session and several threads."""

    def __init__(
        self, kernel: Kernel, network: Network, node: int, replicas: list[int], *, ttl_ms: int, name: str
    ) -> None:
        self._luck = luck = kernel.luck(name)
        self.node = node
        self.name = name
        self.alive = True
        self.lost = 0
        self.calls = 0
        self._kernel = kernel
        self._network = network
        self._replicas = replicas
        self._ttl_ms = ttl_ms
        self._rate = luck.uniform(0.996, 1.004)
        self._offset = luck.uniform(0, 1000)
        self._life = 0
        self._paused_until_us = 0
        self._threads: list[_Running] = []
        self._news: list[PendingCall] = []
        self._owner: dict[int, _Running] = {}
        self.session = self._new_session()
        self._outbox: deque[bytes] = deque()
        self._connection = 0
        self._replica = 0
        self._said = self._heard = 0
        self._heard_at = 0.0
        self._timer = 0
        network.attach(node, self._receive)

    def now(self) -> float:
        """Seconds of this machine's clock."""
        return self._offset + self._kernel.now_us * self._rate / 1_000_000

    def _new_session(self) -> ClientSession:
        return ClientSession(namespace="simulated", label=self.name, ttl_ms=self._ttl_ms, news=self._news)

    # --- failures

    def kill(self) -> None:
        """The process is gone; the replica may or may not hear of it."""
        self._kernel.note(f"kill {self.name}")
        self.alive = False
        self._life += 1
        self._threads = []
        if self._connection and self._luck.random() < 0.5:
            self._network.send(self.node, self._replica, ConnectionEnded(self._connection))

    def pause(self, span_us: int) -> None:
        """It stands still, and its clock goes on."""
        self._paused_until_us = max(self._paused_until_us, self._kernel.now_us + span_us)

    def hang_up(self) -> None:
        """Its connection breaks."""
        self._end_connection()
        self._wake()

    # --- threads

    def spawn(self, thread: Thread) -> None:
        """Starts a thread."""
        running = _Running(thread, life=self._life)
        self._threads.append(running)
        self._kernel.at(0, self._resume, running, None)

    @property
    def finished(self) -> bool:
        """Whether no thread runs any more."""
        return not self._threads

    def _resume(self, running: _Running, outcome: Outcome | None) -> None:
        if running.life != self._life:
            return
        if self._defer(self._resume, running, outcome):
            return
        try:
            wish = running.thread.send(outcome) if outcome is not None else next(running.thread)
        except StopIteration:
            self._threads.remove(running)
            return
        if isinstance(wish, Sleep):
            nothing = Outcome("ok", None, None)
            self._kernel.at(int(wish.seconds * 1e6 / self._rate), self._resume, running, nothing)
        else:
            running.ask = wish
            self._begin(running)
        self._wake()

    def _begin(self, running: _Running) -> None:
        ask = running.ask
        assert ask is not None
        self.calls += 1
        if self.session.over:
            self._reopen()
        call = PendingCall(
            ask.target, ask.operation, ask.arguments, ask.manner, ask.others, tell=ask.timeout is not None
        )
        running.call = call
        self._owner[id(call)] = running
        if not self.session.begin(call):
            self.session.submit(call)

    def _settled(self, running: _Running, call: PendingCall) -> None:
        ask = running.ask
        assert ask is not None
        del self._owner[id(call)]
        running.call = None
        session = call.session
        if call.lost:
            self.lost += 1
            if ask.manner.on_lost is OnLost.RETRY:
                self._begin(running)
                return
            outcome = Outcome("lost", None, session)
        elif call.error is not None:
            raise call.error
        else:
            assert session is not None or call.withdrawn
            how, value = ("error", call.value[0]) if call.status == Status.ERROR else ("ok", call.value)
            if call.lane is not None:
                session.finish(call)
            outcome = Outcome(how, value, session)
        self._kernel.at(0, self._resume, running, outcome)

    def _timed_out(self, running: _Running, call: PendingCall) -> None:
        if running.life == self._life and running.call is call and not call.settled:
            if self._defer(self._timed_out, running, call):
                return
            self.session.withdraw(call, call.manner.expired)
            self._wake()

    # --- the service: connection, time, news

    def _defer(self, action: Callable[..., None], *arguments: Any) -> bool:
        wait_us = self._paused_until_us - self._kernel.now_us
        if wait_us > 0:
            self._kernel.at(wait_us, action, *arguments)
        return wait_us > 0

    def _receive(self, source: int, message: Any) -> None:
        if not self.alive or self._defer(self._receive, source, message):
            return
        match message:
            case ToClient(connection=connection) if connection != self._connection:
                return
            case ToClient(count=count) if count != self._heard + 1:
                self._end_connection()
            case ToClient(body=body):
                self._heard += 1
                self._heard_at = self.now()
                self._obey(codec.decode(body))
            case ConnectionEnded(connection=connection) if connection == self._connection:
                self._end_connection()
            case _:
                return
        self._wake()

    def _obey(self, message: messages.Message) -> None:
        match message:
            case messages.MoveOn() | messages.Rejected():
                self._end_connection()
            case messages.Leader():
                pass
            case _:
                self.session.step(message, self.now())

    def _end_connection(self) -> None:
        if self._connection:
            self._network.send(self.node, self._replica, ConnectionEnded(self._connection))
            self._connection = 0
            self.session.disconnected()

    def _reopen(self) -> None:
        assert self.session.over
        self._end_connection()
        self.session = self._new_session()

    def _connect(self) -> None:
        self._replica = self._luck.choice(self._replicas)
        self._connection = self._kernel.fresh()
        self._said = self._heard = 0
        self._heard_at = self.now()
        self._outbox = deque()
        self.session.connected(self._outbox, self._luck.randbytes(16), self.now())

    def _wake(self) -> None:
        """One round of the service thread."""
        if not self.alive:
            return
        now = self.now()
        self.session.tick(now)
        if not self.session.over:
            if not self._connection:
                self._connect()
            elif now - self._heard_at > self._ttl_ms / 1500:
                self._end_connection()  # nobody answers there
                self._connect()
        news, self._news[:] = list(self._news), []
        for call in news:
            running = self._owner.get(id(call))
            if running is None:
                continue
            if call.settled:
                self._settled(running, call)
            elif call.parked_at is not None and running.ask is not None and running.ask.timeout is not None:
                delay_us = int(running.ask.timeout * 1e6 / self._rate)
                self._kernel.at(delay_us, self._timed_out, running, call)
        if self._news:
            self._wake()
            return
        while self._connection and self._outbox:
            self._said += 1
            body = self._outbox.popleft()[4:]
            self._network.send(self.node, self._replica, ToReplica(self._connection, self._said, body))
        self._plan()

    def _plan(self) -> None:
        self._timer += 1
        wait = min(self.session.next_at(self.now()) - self.now(), self._ttl_ms / 3000)
        self._kernel.at(max(1000, int(wait * 1e6 / self._rate) + 500), self._on_timer, self._timer, self._life)

    def _on_timer(self, timer: int, life: int) -> None:
        if timer == self._timer and life == self._life and not self._defer(self._on_timer, timer, life):
            self._wake()
