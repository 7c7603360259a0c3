# SPDX-License-Identifier: Apache-2.0
"""A simulated replica and a simulated client that tell the watch what they see. They add nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dthreading.session.calls import READ
from dthreading.session.fate import Fate
from dthreading.wire.messages import Alive
from replicas.paxos.messages import Accept, Accepted, Prepare, Promise
from replicas.replica.core import Replica
from replicas.replica.output import BeginSnapshot
from tests.sim.checkers.leases import LeaseSeen
from tests.sim.checkers.rounds import Rounds
from tests.sim.checkers.streams import Words
from tests.sim.checkers.tables import Tables
from tests.sim.client import SimulatedClient
from tests.sim.group import GroupProgram, ToReplica
from tests.sim.soundness import consensus_is_sound, nothing_above_is_lost, snapshot_is_sound

if TYPE_CHECKING:
    from dthreading.session.calls import PendingCall
    from replicas.machine.core import Machine
    from tests.sim.checkers.watch import Watch


_SAY_A_BALLOT = frozenset({Promise, Accepted, Prepare, Accept})


class WatchedProgram(GroupProgram):
    """A replica, each of whose machines tells of every entry that it applies."""

    def __init__(self, watch: Watch, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._watch = watch
        self._tables: Tables | None = None
        self._rounds: Rounds | None = None
        self._streams: set[int] = set()
        """Those that all of its lives have begun."""

    def boot(self, now_ms: int) -> Any:
        core = super().boot(now_ms)
        if isinstance(core, Replica):
            self.watch_over(core)
        return core

    def watch_over(self, core: Replica) -> None:
        """It begins from what storage has found."""
        assert self._storage is not None
        self._watch.kept[self.replica].found(self._storage.recovered.durable, spoilt=self.spoilt)
        self._watch.machine(self.replica, core.machine)
        self._tables = Tables(core)
        self._rounds = Rounds(core, self._watch.told.answered.__contains__, self._streams)
        install = core.snapshot_installed

        def installed(slot: int, configuration: Any, chain: int, promised: Any, machine: Machine) -> None:
            self._watch.kept[self.replica].said(promised)
            self._watch.machine(self.replica, machine)
            before = core.machine.applied
            with nothing_above_is_lost(core.paxos, slot):
                install(slot, configuration, chain, promised, machine)
            assert core.machine.applied >= before, f"replica {self.replica} goes back from {before} to {slot}"

        core.snapshot_installed = installed  # type: ignore[method-assign]

    def write(self, records: list[Any]) -> None:
        self._watch.kept[self.replica].wrote(records)
        super().write(records)

    def sync(self, batches: int) -> None:
        now = self._pending[:batches]
        super().sync(batches)
        for records in now:
            self._watch.kept[self.replica].synced(records)

    def _snapshot(self, core: Any, work: Any) -> None:
        if type(work) is BeginSnapshot and work.slot == core.machine.applied:
            self._watch.begins_snapshot(core.machine)
            snapshot_is_sound(core.paxos, work.slot, work.promised)
        super()._snapshot(core, work)
        if self._storage is not None and self._storage.snapshot is not None and not self.spoilt:
            self._watch.kept[self.replica].covers(self._storage.snapshot.slot)

    def handle(self, output: Any) -> None:
        to_clients, send_now, links = output.to_clients, [*output.send_now], output.links
        super().handle(output)
        core = self.core
        if isinstance(core, Replica):
            assert self._tables is not None
            assert self._rounds is not None
            kept = self._watch.kept[self.replica]
            consensus_is_sound(core.paxos, kept.synced_entries, kept.promised)
            self._tables.are_sound(to_clients, self._connections, links)
            self._rounds.says(to_clients, send_now)

    def sent(self, message: Any) -> None:
        super().sent(message)
        if self._rounds is not None:
            self._rounds.sent(message)
        if type(message) in _SAY_A_BALLOT:
            self._watch.kept[self.replica].said(message.ballot)


class WatchedClient(SimulatedClient):
    """A client, each of whose calls is told of when it begins and when it ends."""

    def __init__(self, watch: Watch, *arguments: Any, **named: Any) -> None:
        self._watch = watch
        self._since: dict[int, tuple[int, int]] = {}
        """By running thread: what had been seen when its call began, and when that was."""
        self._numbers: dict[Any, int] = {}
        """Its threads, as the black box calls them."""
        super().__init__(*arguments, **named)
        self.words = Words(self)
        self._overhear()
        watch.clients.append(self)

    def _overhear(self) -> None:
        """Everything that passes on the line, in both directions."""
        watch, words, line, kernel, lease = self._watch, self.words, self.line, self._kernel, LeaseSeen()
        say, obey, dialer, drop = line._say, line._obey, line.dialer, line.dialer.drop

        def says(message: Any, replica: int) -> None:
            if type(message) is ToReplica:
                watch.streams.says(words, message.connection, message.body, kernel.now_us)
                lease.says(message.connection, message.body, self.now())
            say(message, replica)

        def hears(message: Any, session: Any, now: float) -> None:
            if type(message) is Alive and message.session == session.id:
                watch.streams.acknowledged(words, message.beat, watch.told.answered)
            obey(message, session, now)
            lease.heard(message, session)

        def drops(session: Any, now: float, why: str, *, failed: bool = True) -> None:
            if failed and dialer._dialing and now >= dialer._give_up_at and session is self.session:
                watch.promptness.gave_up(self)
            drop(session, now, why, failed=failed)

        line._say, line._obey, dialer.drop = says, hears, drops  # type: ignore[method-assign]

    def leave(self, *, closing: bool) -> None:
        if not self.session.over and self.session.ready and not self._paused:
            self._watch.promptness.said_goodbye(self)
        super().leave(closing=closing)

    def _begin(self, running: Any) -> None:
        self._since[id(running)] = self._watch.told.asks(self, running.ask), self._kernel.now_us
        super()._begin(running)
        self._watch.streams.asks(running.call)
        thread = str(self._numbers.setdefault(running, len(self._numbers)))
        self._watch.black_box.asks(self, thread, running.ask, running.call)

    def _settled(self, running: Any, call: PendingCall) -> None:
        since, began_us = self._since[id(running)]
        if self._watch.told.hears(self, running.ask, call, since):
            self._watch.promptness.decided(began_us)
        elif call.manner is READ and not call.lost:
            self._watch.streams.read_answered(self.words, running.ask, call)
        self._watch.black_box.hears(running.ask, call)
        super()._settled(running, call)

    def _fated(self, running: Any, call: PendingCall, fate: Fate) -> None:
        if fate is not Fate.LOST and running.released is None:
            self._watch.told.takes_for_undone(running.ask, call)

    def _give_up(self, running: Any, call: PendingCall) -> Any:
        self._watch.told.abandons(self, running.ask, call)
        self._watch.black_box.abandons(running.ask, call)
        return super()._give_up(running, call)
