# SPDX-License-Identifier: Apache-2.0
"""A simulated client process: the shipping ClientSession, a clock of its own, and threads that are generators.

What client.py and service.py do with locks and a thread is done here by events; numbering, resending, leases and
verdicts are the session's, connections the line's.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from dthreading.config import PATIENCE_S
from dthreading.session.calls import READ, RELEASE, PendingCall
from dthreading.session.core import ClientSession
from dthreading.session.fate import Deadline, Fate, when_late, when_lost
from dthreading.wire.messages import Status
from tests.sim.dialing import Line
from tests.sim.group import ConnectionEnded, ToClient
from tests.sim.kernel import Kernel
from tests.sim.network import Network, evenly
from tests.sim.threads import Ask, Outcome, Running, Sleep, Thread

__all__ = ["Ask", "Outcome", "SimulatedClient", "Sleep", "Thread"]

SWITCH_US = (1, 100)
"""From an answer to the thread that waits for it."""

RATES = (0.995, 1.005)
"""The edges of what clocks may run at: one per cent apart (`Lease`)."""


class SimulatedClient:
    """One process with one session and several threads."""

    def __init__(
        self,
        kernel: Kernel,
        network: Network,
        node: int,
        replicas: list[int],
        *,
        ttl_ms: int,
        name: str,
        rate: float | None = None,
    ) -> None:
        self._luck = luck = kernel.luck(name)
        self.node = node
        self.name = name
        self.alive = True
        self.interrupt_answers = 0
        """So many of the next answers are interrupted on the last steps to their threads."""
        self.lost = 0
        self.calls = 0
        self._kernel = kernel
        self._ttl_ms = ttl_ms
        drawn = luck.choice((*RATES, luck.uniform(*RATES)))
        self._rate = drawn if rate is None else rate
        self._offset = luck.uniform(0, 1000)
        self._life = 0
        self._paused_until_us = 0
        self._threads: list[Running] = []
        self._news: list[PendingCall] = []
        self._owner: dict[int, Running] = {}
        self.session = self._new_session()
        self.line = Line(kernel, network, node, replicas, ttl_ms, luck)
        self._timer_us = -1
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
        self._die(heard=self._luck.random() < 0.5)

    def leave(self, *, closing: bool) -> None:
        """The process ends in good order: with Close, as `Client.close` does, or declaring that the end of its
        connection is the end of its session, as at exit.
        """
        self._kernel.note(f"{'close' if closing else 'exit'} {self.name}")
        session = self.session
        if not session.over and session.ready:
            (session.close if closing else session.close_at_end)()
            self.line.flush()
            self._kernel.seen[f"client: said goodbye by {'Close' if closing else 'CloseAtEnd'}"] += 1
        self._die(heard=True)

    def _die(self, *, heard: bool) -> None:
        self.alive = False
        self._life += 1
        self._threads = []
        if heard:
            self.line.end()

    def pause(self, span_us: int) -> None:
        """It stands still, and its clock goes on."""
        self._paused_until_us = max(self._paused_until_us, self._kernel.now_us + span_us)

    def jump(self, span_us: int) -> None:
        """Its clock jumps forward."""
        self._offset += span_us / 1_000_000
        self._wake()

    def hang_up(self, *, silently: bool = False, avoiding: bool = False) -> None:
        """Its connection breaks.

        Args:
            silently: the replica does not hear of it, and what is under way still comes there.
            avoiding: the next connection is to another replica.

        """
        if not self.line.connection or self._paused:
            return
        if silently:
            self._kernel.seen["client: left a connection half open"] += 1
        if avoiding:
            self.line.avoid(self.now())
        self.line.drop(self.session, self.now(), silently=silently)
        self._wake()

    def interrupt(self, luck: random.Random) -> bool:
        """Ctrl-C in the middle of some thread's call, with all that client.py does then. False: there is none."""
        threads = [running for running in self._threads if running.interruptible]
        if not threads or self._paused:
            return False
        running = luck.choice(threads)
        assert running.ask is not None
        self._kernel.note(f"interrupt {self.name} {running.ask.operation}")
        call, seen = running.call, self._kernel.seen
        if call is None:
            return self._interrupt_late(running)
        if running.ask.manner.interrupt_keeps:
            seen["client: interrupted, and kept to its verdict"] += 1
            running.interrupted = True
            self._session_of(call).withdraw(call, call.manner.expired)
        else:
            seen["client: interrupted, and undone"] += 1
            self._abandon(running, call)
        self._wake()
        return True

    def _interrupt_late(self, running: Running) -> bool:
        """The answer is there: it is given back, unless its lane is somebody else's already."""
        call = running.answered
        if call is None or self._paused or call.manner.interrupt_keeps or call.session is None or not call.finished:
            return False
        call.session.reclaim(call)
        if call.finished:
            return False
        self._kernel.seen["client: interrupted with the answer in its hands"] += 1
        running.turn += 1
        self._abandon(running, call)
        self._wake()
        return True

    def _abandon(self, running: Running, call: PendingCall) -> None:
        """Interrupted: the thread goes on; but an interrupted release is seen to its end."""
        session = self._give_up(running, call)
        ask = running.ask
        assert ask is not None
        if ask.operation == "release" and ask.manner is RELEASE:
            # The lock must not stay held (Ownable._finish_release): did it happen?
            running.released = ask
            running.ask = Ask(ask.target, "holder", (), READ)
            self._begin(running)
        else:
            self._go_on(running, Outcome("interrupted", None, session))

    def _give_up(self, running: Running, call: PendingCall) -> ClientSession:
        """As Service.abandon."""
        call.abandoned = True
        session = self._session_of(call)
        session.reclaim(call)
        session.abandon(call)
        self._owner.pop(id(call), None)
        running.call = running.answered = None
        return session

    def _session_of(self, call: PendingCall) -> ClientSession:
        return call.session if call.session is not None else self.session

    # --- threads

    def spawn(self, thread: Thread) -> None:
        """Starts a thread."""
        running = Running(thread, life=self._life)
        self._threads.append(running)
        self._kernel.at(0, self._resume, running, running.turn, None)

    @property
    def finished(self) -> bool:
        """Whether no thread runs any more."""
        return not self._threads

    @property
    def waits_in(self) -> list[Ask]:
        """The calls that its threads are in."""
        return [running.ask for running in self._threads if running.ask is not None]

    def _go_on(self, running: Running, outcome: Outcome) -> None:
        """The thread is woken with that."""
        self._kernel.at(evenly(self._luck, *SWITCH_US), self._resume, running, running.turn, outcome)

    def _resume(self, running: Running, turn: int, outcome: Outcome | None) -> None:
        if running.life != self._life or running.turn != turn:
            return
        if self._defer(self._resume, running, turn, outcome):
            return
        running.answered = running.ask = None
        running.interrupted = False
        running.turn += 1
        try:
            wish = running.thread.send(outcome) if outcome is not None else next(running.thread)
        except StopIteration:
            self._threads.remove(running)
            return
        if isinstance(wish, Sleep):
            nothing = Outcome("ok", None, None)
            self._kernel.at(int(wish.seconds * 1e6 / self._rate), self._resume, running, running.turn, nothing)
            return
        running.ask = wish
        running.parked, running.deadline = False, None
        if wish.timeout is not None:
            running.deadline = Deadline(wish.timeout, PATIENCE_S, self.now())
            self._set_alarm(running, wish.timeout + PATIENCE_S)
        self._begin(running)
        self._wake()

    def _begin(self, running: Running) -> None:
        ask = running.ask
        assert ask is not None
        self.calls += 1
        if self.session.over:
            self.session = self._new_session()
        call = PendingCall(
            ask.target, ask.operation, ask.arguments, ask.manner, ask.others, tell=ask.timeout is not None
        )
        running.call = call
        self._owner[id(call)] = running
        if not self.session.begin(call):
            self.session.submit(call)

    def _settled(self, running: Running, call: PendingCall) -> None:
        ask = running.ask
        assert ask is not None
        del self._owner[id(call)]
        running.call = None
        session = call.session
        if call.lost:
            self.lost += 1
            deadline = running.deadline
            fate = when_lost(call, late=deadline is not None and self.now() >= deadline.at(call))
            self._fated(running, call, fate)
            if running.released is not None or fate is Fate.LOST:
                outcome = Outcome("lost", None, session)
            elif fate is Fate.AGAIN:
                self._begin(running)
                return
            else:
                assert fate is Fate.VAIN, fate
                self._kernel.seen["client: its time was up when its session was lost"] += 1
                outcome = _expired(ask)
        elif call.error is not None:
            raise call.error
        else:
            assert session is not None or call.withdrawn
            how, value = ("error", call.value[0]) if call.status == Status.ERROR else ("ok", call.value)
            if call.lane is not None:
                session.finish(call)
            outcome = Outcome(how, value, session)
        if running.released is not None:
            self._finish_release(running, outcome)
            return
        if running.interrupted:
            outcome = Outcome("interrupted", outcome.value if outcome.how == "ok" and call.sent else None, session)
        running.answered = call
        self._go_on(running, outcome)
        if self.interrupt_answers and running.interruptible:
            self.interrupt_answers -= 1
            self._kernel.at(0, self._interrupt_late, running)

    def _finish_release(self, running: Running, outcome: Outcome) -> None:
        """The group has said who holds the lock, or has released it after all."""
        release, ask = running.released, running.ask
        assert release is not None
        assert ask is not None
        holder = outcome.value if ask.operation == "holder" and outcome.how == "ok" else None
        if holder is not None and holder[2] == release.arguments[0]:
            self._kernel.seen["client: released again after an interrupt"] += 1
            running.ask = release
            self._begin(running)
        else:
            running.released = None
            self._go_on(running, Outcome("interrupted", None, outcome.session))

    def _fated(self, running: Running, call: PendingCall, fate: Fate) -> None:
        """For those who watch: that is what becomes of a call whose session was lost."""

    def _set_alarm(self, running: Running, seconds: float) -> None:
        self._kernel.at(int(seconds * 1e6 / self._rate), self._time_is_up, running, running.turn)

    def _time_is_up(self, running: Running, turn: int) -> None:
        call, ask, deadline = running.call, running.ask, running.deadline
        if running.life != self._life or running.turn != turn or call is None or ask is None or call.settled:
            return
        assert deadline is not None
        if self._defer(self._time_is_up, running, turn) or self.now() < deadline.at(call) - 0.001 or running.released:
            return
        fate = when_late(call)
        if fate is Fate.LEAVE:
            self._go_without(running, call)
            return
        assert fate is Fate.WITHDRAW, "only what parks has a timeout here"
        self._session_of(call).withdraw(call, ask.manner.expired)
        if ask.manner.patience:
            self._kernel.at(int(PATIENCE_S * 1e6 / self._rate), self._go_without, running, call)
        self._wake()

    def _go_without(self, running: Running, call: PendingCall) -> None:
        """Nobody says anything: the thread goes on, and leaves an undo behind."""
        if running.life != self._life or running.call is not call or call.settled:
            return
        if not self._defer(self._go_without, running, call):
            self._kernel.seen["client: went on without a verdict"] += 1
            self._give_up(running, call)
            self._go_on(running, Outcome("ok", False, None))
            self._wake()

    # --- the service: connection, time, news

    @property
    def _paused(self) -> bool:
        return self._paused_until_us > self._kernel.now_us

    def _defer(self, action: Callable[..., None], *arguments: Any) -> bool:
        if not self._paused:
            return False
        self._kernel.at(self._paused_until_us - self._kernel.now_us, action, *arguments)
        return True

    def _receive(self, source: int, message: ToClient | ConnectionEnded) -> None:
        if not self.alive or self._defer(self._receive, source, message):
            return
        if self.line.heard(message, self.session, self.now()):
            self._tell_news()  # and whoever is woken may ask for something before the service looks around
            self._wake()

    def _wake(self) -> None:
        """One round of the service thread."""
        if not self.alive or self._paused:
            return
        now = self.now()
        self.session.tick(now)
        self.line.tend(self.session, now)
        self._tell_news()
        self.line.tend(self.session, now)
        self.line.flush()
        self._plan(now)

    def _tell_news(self) -> None:
        while self._news:
            news, self._news[:] = list(self._news), []
            for call in news:
                self._tell(call)

    def _tell(self, call: PendingCall) -> None:
        running = self._owner.get(id(call))
        if running is None:
            return
        if call.settled:
            self._settled(running, call)
        elif call.parked_at is not None and not running.parked and running.ask and running.ask.timeout is not None:
            running.parked = True
            assert running.deadline is not None
            self._set_alarm(running, running.deadline.at(call) - self.now())

    def _plan(self, now: float) -> None:
        """The service thread sleeps until then."""
        if self.session.over:
            return
        due = min(self.session.next_at(now), self.line.next_at(self.session))
        if due == float("inf"):
            return
        due_us = self._kernel.now_us + max(1_000, int((due - now) * 1e6 / self._rate) + 500)
        if self._timer_us <= self._kernel.now_us or due_us < self._timer_us:
            self._timer_us = due_us
            self._kernel.at(due_us - self._kernel.now_us, self._on_timer, due_us, self._life)

    def _on_timer(self, due_us: int, life: int) -> None:
        if due_us == self._timer_us and life == self._life and not self._defer(self._on_timer, due_us, life):
            self._timer_us = -1
            self._wake()


def _expired(ask: Ask) -> Outcome:
    """As a call ends whose time is up, and of which nothing is to be heard."""
    return Outcome("error", ask.manner.expired, None) if ask.manner.expired else Outcome("ok", False, None)
