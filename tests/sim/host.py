# SPDX-License-Identifier: Apache-2.0
"""One simulated machine: runs any sans-IO core (step, tick, take, synced) the way the daemon's loop does.

What the core is, how its records are kept and what its other wishes mean is the program's business: the same host runs
bare consensus on a disk of records, and later a whole replica on simulated sectors.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from replicas.storage.files import StorageFailed
from tests.sim.disk import PowerCut
from tests.sim.kernel import Kernel
from tests.sim.network import Network, evenly


class Program(Protocol):
    """What a host runs. It outlives crashes: its disk is in it."""

    def boot(self, now_ms: int) -> Any:
        """A new core from what the disk holds."""

    def write(self, records: list[Any]) -> None:
        """Hand records to the disk; a crash may still lose them."""

    def sync(self, batches: int) -> None:
        """The oldest `batches` writes are safe from now on."""

    def crash(self) -> None:
        """The power is gone."""

    def end(self) -> None:
        """The process is gone; what it wrote is still the system's to write."""

    def heal(self) -> None:
        """Nothing more goes wrong with its disk."""

    def arrived(self, source: int, message: Any) -> bool:
        """A message arrived; False if it is one for the core's step()."""

    def sent(self, message: Any) -> None:
        """A message has left: what it says can never be taken back."""

    def handle(self, output: Any) -> None:
        """Whatever an output asks for besides persisting and sending."""


SYNC_US = (50, 2_000)
LAG_US = (5, 50)
"""Of a healthy machine."""


class Gone(Exception):
    """This replica can take no part any more, and its daemon ends with that sentence each time it is started."""


class Killed(Exception):
    """kill -9 came just then."""


class Armed(NamedTuple):
    """The power, or the process alone, goes the `count`th time that the loop comes to `point`, counted from 0."""

    point: str
    count: int
    goes: type[PowerCut | Killed] = PowerCut


POINTS = ("stepped", "taken", "sending", "sent", "written", "synced", "sending after the sync")
"""Where the core hands work to its shell, and the power may go just then, in the order of a turn: after step and tick,
after take, before any message of `send_now`, after all of them, before the disk is asked to write, after its sync,
before any message of `send_after_sync`. Within a write, a snapshot or a recovery the disk itself cuts it off."""


class Host:
    """Time, luck and failures of one node."""

    def __init__(
        self, kernel: Kernel, network: Network, number: int, program: Program, luck: random.Random | None = None
    ) -> None:
        self._luck = luck = luck if luck is not None else kernel.random
        self.number = number
        self.program = program
        self.core: Any = None
        self.sync_us = SYNC_US
        self.lag_us = LAG_US
        """How long what came waits until the loop looks."""
        self.armed: Armed | None = None
        self.down_us = 500_000
        """How long it stays down when it died by itself."""
        self.down_since_us = 0
        """When its process ended last."""
        self.gone = ""
        """Why its daemon refuses to start, once it does."""
        self.died: Callable[[], None] = lambda: None
        """Called when it went down by itself, so that somebody may start it again."""
        self.troubled_us = -1
        """Until when anything was wrong with it last, as far as that is not seen in its present state."""
        self.inline = luck.random() < 0.5  # whether the loop stands still during a sync
        self._kernel = kernel
        self._network = network
        self.rate = luck.uniform(0.99, 1.01)
        """Of its clock, against true time."""
        self._offset_ms = luck.randint(0, 1_000_000)
        self._life = 0
        self._started_us = 0
        self._inbox: list[Callable[[], None]] = []
        self._turn_due = False
        self._timer_us = -1
        self._paused_until_us = 0
        self._stands_until_us = 0  # until when its clock does
        self._last_batch = 0
        self._unsynced: list[tuple[int, list[Any]]] = []  # (batch or 0, what leaves after it)
        self._syncing: list[tuple[int, list[Any]]] = []
        network.attach(number, self._receive)

    @property
    def alive(self) -> bool:
        """Whether the process runs (it may be paused)."""
        return self.core is not None

    def now_ms(self) -> int:
        """This machine's own clock: it started anywhere and runs up to one per cent fast or slow."""
        return self._offset_ms + int(self._kernel.now_us * self.rate / 1000)

    # --- failures

    def start(self) -> None:
        """Start the process from its disk; it may come to its end while it recovers."""
        assert self.core is None
        self._started_us = self._kernel.now_us
        self._kernel.note(f"start {self.number}")
        self._life += 1
        self._inbox, self._unsynced, self._syncing = [], [], []
        self._turn_due = False
        self._timer_us = -1
        self._last_batch = 0
        self._paused_until_us = self._stands_until_us = 0
        try:
            self.core = self.program.boot(self.now_ms())
        except (PowerCut, Killed, StorageFailed, Gone) as error:
            self._end(error)
        else:
            self.turn_soon()

    def crash(self) -> None:
        """kill -9 and loss of power in one."""
        if self.core is not None:
            self._kernel.note(f"crash {self.number}")
            self._down()
            self.program.crash()

    def kill(self) -> None:
        """kill -9 alone."""
        if self.core is not None:
            self._kernel.note(f"kill {self.number}")
            self._down()
            self.program.end()

    def _down(self) -> None:
        self.down_since_us = self._kernel.now_us
        self.core = self.armed = None
        self._life += 1
        self._network.reset(self.number)

    def _end(self, error: BaseException) -> None:
        """The process ends, in one of the daemon's ways or of the world's."""
        self._kernel.note(f"end {self.number} {type(error).__name__} {error}")
        self._down()
        if isinstance(error, PowerCut):
            self.program.crash()
        else:
            self.program.end()
        if isinstance(error, Gone):
            self.gone = str(error)
            self._kernel.seen["disk: a replica is gone for good"] += 1
            return
        if isinstance(error, StorageFailed):
            self._kernel.seen["disk: a process ended with DISK_FAILED"] += 1
        self.died()

    def _reach(self, point: str) -> None:
        armed = self.armed
        if armed is None or armed.point != point:
            return
        self.armed = armed._replace(count=armed.count - 1)
        if armed.count <= 0:
            self.armed = None
            self._kernel.seen[f"{'crash' if armed.goes is PowerCut else 'kill'}: {point}"] += 1
            raise armed.goes

    def heal(self) -> None:
        """From here on the machine is as good as new."""
        if self.sync_us != SYNC_US or self.lag_us != LAG_US:
            self.troubled_us = max(self.troubled_us, self._kernel.now_us)
        self.sync_us, self.lag_us, self.armed = SYNC_US, LAG_US, None
        self.program.heal()

    def suspend(self, span_us: int) -> None:
        """The machine stands still, and its clock with it, once for spans that overlap. (A negative span is a jump.)"""
        now_us = self._kernel.now_us
        self.pause(span_us)
        if span_us > 0:
            span_us = max(0, now_us + span_us - max(now_us, self._stands_until_us))
            self._stands_until_us = max(self._stands_until_us, now_us) + span_us
        self._offset_ms -= int(span_us * self.rate / 1000)

    def pause(self, span_us: int) -> None:
        """The process stands still; its clock does not."""
        self._kernel.note(f"pause {self.number} {span_us}")
        self._paused_until_us = max(self._paused_until_us, self._kernel.now_us + span_us)
        self.troubled_us = max(self.troubled_us, self._paused_until_us)

    def moves_by(self, end_us: int) -> None:
        """A pause, and a sync that has begun, are over by then."""
        self._paused_until_us = min(self._paused_until_us, end_us)
        too_long_us = max(0, self._stands_until_us - end_us)
        self._stands_until_us -= too_long_us
        self._offset_ms += int(too_long_us * self.rate / 1000)
        self._kernel.hasten(end_us, lambda action: action in (self._turn, self._end_sync))

    @property
    def well_since_us(self) -> int | None:
        """Since when nothing has been wrong with this machine, its process and its disk; None: something is."""
        healthy = self.core is not None and self.sync_us == SYNC_US and self.lag_us == LAG_US
        return max(self.troubled_us, self._started_us) if healthy else None

    # --- the loop

    def do(self, action: Callable[[Any], None]) -> None:
        """Call `action(core)` in the next turn, as if a client had asked for it."""
        if self.core is not None:
            self._inbox.append(lambda: action(self.core))
            self.turn_soon()

    def _receive(self, source: int, message: Any) -> None:
        if self.core is not None:
            self._inbox.append(lambda: self._step(source, message))
            self.turn_soon()

    def _step(self, source: int, message: Any) -> None:
        if not self.program.arrived(source, message):
            self.core.step(source, message)

    def turn_soon(self) -> None:
        """The loop runs within the next moments; what arrives until then is in the same turn."""
        if not self._turn_due:
            self._turn_due = True
            self._kernel.at(evenly(self._luck, *self.lag_us), self._turn, self._life)

    def _turn(self, life: int) -> None:
        if life != self._life:
            return
        wait_us = self._paused_until_us - self._kernel.now_us
        if wait_us > 0:
            self._kernel.at(wait_us, self._turn, life)
            return
        self._turn_due = False
        try:
            self.core.tick(self.now_ms())
            inbox, self._inbox = self._inbox, []
            for action in inbox:
                action()
            self._take()
            self._set_timer()
        except (PowerCut, Killed, StorageFailed, Gone) as error:
            self._end(error)

    def _take(self) -> None:
        if self.armed is not None:
            self._reach("stepped")
        due = self.core.due
        output = self.core.take()
        assert due or output.is_empty, "the core says what it does not own to"
        if self.armed is not None:
            self._reach("taken")
        assert (output.batch > 0) == bool(output.persist), "a batch number exactly when there is something to persist"
        self.program.handle(output)
        self._send(output.send_now, "sending")
        if self.armed is not None:
            self._reach("sent")
        if output.batch:
            assert output.batch == self._last_batch + 1
            self._last_batch = output.batch
            self.program.write(output.persist)
            self._unsynced.append((output.batch, output.send_after_sync))
        elif self._unsynced or self._syncing:
            self._unsynced.append((0, output.send_after_sync))
        else:
            self._send(output.send_after_sync, "sending after the sync")
        if self._unsynced and not self._syncing:
            self._begin_sync()

    def _begin_sync(self) -> None:
        self._syncing, self._unsynced = self._unsynced, []
        delay_us = evenly(self._luck, *self.sync_us)
        if delay_us > SYNC_US[1]:
            self.troubled_us = max(self.troubled_us, self._kernel.now_us + delay_us)
        if self.inline:
            self._paused_until_us = max(self._paused_until_us, self._kernel.now_us + delay_us)
        self._kernel.at(delay_us, self._end_sync, self._life)

    def _end_sync(self, life: int) -> None:
        if life != self._life:
            return
        wait_us = self._paused_until_us - self._kernel.now_us
        if wait_us > 0:
            self._kernel.at(wait_us, self._end_sync, life)
            return
        try:
            self._finish_sync()
        except (PowerCut, Killed, StorageFailed, Gone) as error:
            self._end(error)

    def _finish_sync(self) -> None:
        if self.armed is not None:
            self._reach("written")
        done, self._syncing = self._syncing, []
        batches = [batch for batch, _ in done if batch]
        self.program.sync(len(batches))
        if self.armed is not None:
            self._reach("synced")
        for _, messages in done:
            self._send(messages, "sending after the sync")
        if batches:
            self.core.tick(self.now_ms())
            self.core.synced(batches[-1])
            self.turn_soon()
        if self._unsynced:
            self._begin_sync()

    def _send(self, messages: list[tuple[int, Any]], point: str) -> None:
        for target, message in messages:
            if self.armed is not None:
                self._reach(point)
            self.program.sent(message)
            self._network.send(self.number, target, message, getattr(message, "connection", 0))

    def _set_timer(self) -> None:
        if self._inbox:
            self.turn_soon()
        delay_us = max(1_000, int((self.core.wake_ms - self.now_ms()) * 1000 / self.rate) + 1_000)
        due_us = self._kernel.now_us + delay_us
        if self._timer_us < self._kernel.now_us or due_us < self._timer_us:
            self._timer_us = due_us
            self._kernel.at(delay_us, self._on_timer, self._life, due_us)

    def _on_timer(self, life: int, due_us: int) -> None:
        if life == self._life and due_us == self._timer_us:
            self._timer_us = -1
            self.turn_soon()
