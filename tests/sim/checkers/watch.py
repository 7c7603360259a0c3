# SPDX-License-Identifier: Apache-2.0
"""Sees every entry that any replica applies, in every one of its lives, and judges it at once.

One value a slot, the same for ever; the first replica to apply a slot is the witness, whose answers are those of the
reference (see reference.py); all others give the same answers and come into the same state. And before a session's
holdings pass on, its client must know that they do.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from dthreading.errors import ProtocolError
from dthreading.wire.messages import Call
from replicas.machine import commands
from replicas.machine.core import Effects, Machine
from replicas.paxos.values import Entry, EntryKind
from replicas.replica.core import Replica
from tests.machine.chaos import check as sound
from tests.sim.checkers.blackbox import BlackBox
from tests.sim.checkers.judging import judged, same_lines, shows
from tests.sim.checkers.kept import Kept
from tests.sim.checkers.probe import Probe
from tests.sim.checkers.promptness import Promptness
from tests.sim.checkers.reference import Reference
from tests.sim.checkers.streams import Streams
from tests.sim.checkers.told import Told
from tests.sim.kernel import Kernel

if TYPE_CHECKING:
    from tests.sim.checkers.watched import WatchedClient
    from tests.sim.host import Host
    from tests.sim.network import Network

WHOLE_EVERY = 256
"""Every so many slots the whole state is compared, byte by byte: it costs as much as many entries. In between it is
the answers, some counters and the object that was called."""


SOUND_EVERY = 32
"""And so many until all fields of the state that say the same thing twice are compared."""


SNAPSHOTS_KEPT = 3
"""Of so many slots one is kept as it was when its snapshot was begun."""


class Mark(NamedTuple):
    """What a slot held, and what it made of the witness."""

    kind: int
    value: bytes
    digest: bytes
    key: tuple[str, str] | None
    state: int


class Watch:
    """The log side of all checks."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.reference = Reference()
        self.told = Told(kernel, self.reference)
        self.probe = Probe(kernel, self.reference)
        self.streams = Streams(self.applied_by, self.told.stands)
        self.promptness = Promptness(self)
        self.black_box = BlackBox(kernel)
        self.log: list[Mark] = []
        self.snapshots: dict[int, bytes] = {}
        """By slot, the whole state that a replica began to write there."""
        self.clients: list[WatchedClient] = []
        self.hosts: dict[int, Host] = {}
        """Set by the world, once there is one."""
        self.network: Network | None = None
        self.reign_us = 0
        """When a leader began to serve last."""
        self.kept: dict[int, Kept] = defaultdict(Kept)
        """By replica, what its disk must hold."""

    @property
    def top(self) -> int:
        """The highest slot that anybody has applied."""
        return len(self.log)

    def applied_by(self, replica: int) -> int:
        host = self.hosts.get(replica)
        return host.core.machine.applied if host is not None and isinstance(host.core, Replica) else 0

    def machine(self, replica: int, machine: Machine) -> None:
        """The machine that this replica runs from now on: the shipping one, which is watched."""
        apply = machine.apply

        def watched(entry: Entry, call: Call | None = None) -> Effects:
            assert call is None or commands.codec.decode(entry.value) == call, "the bytes say something else"
            effects = apply(entry, call)
            self.applied(replica, machine, entry, effects)
            return effects

        machine.apply = watched  # type: ignore[method-assign]
        assert machine.applied <= self.top, f"replica {replica} begins above all that was ever applied"
        sound(machine)
        if machine.applied:
            mark = self.log[machine.applied - 1]
            assert machine.digest == mark.digest, (
                f"replica {replica}: a snapshot of {machine.applied} has other answers"
            )
            assert mark.state == self._state(machine, mark.key), f"replica {replica} begins in another state"
            whole = self.snapshots.get(machine.applied)
            assert whole is None or whole == machine.dump(), f"replica {replica} begins in a state that never was"

    def begins_snapshot(self, machine: Machine) -> None:
        """The state as it is now shall be what is found in the snapshot of this slot, whatever happens meanwhile."""
        if machine.applied % SNAPSHOTS_KEPT == 0:
            self.snapshots.setdefault(machine.applied, machine.dump())

    # --- an entry

    def applied(self, replica: int, machine: Machine, entry: Entry, effects: Effects) -> None:
        """`replica` has applied it."""
        assert not effects.faults, effects.faults
        slot = entry.slot
        if slot <= len(self.log):
            mark = self.log[slot - 1]
            assert (mark.kind, mark.value) == (entry.kind, entry.value), f"replica {replica}: another value at {slot}"
            assert mark.digest == machine.digest, f"replica {replica} answers otherwise at slot {slot}"
            assert mark.state == self._state(machine, mark.key), f"replica {replica} is in another state at {slot}"
            return
        assert slot == len(self.log) + 1, "somebody has applied each slot before the next"
        command: Any = None
        if entry.kind == EntryKind.COMMAND:
            try:
                command = commands.codec.decode(entry.value)
            except ProtocolError:
                command = None
        self._witness(entry, command, effects)
        shows(self.reference, machine)
        if slot % SOUND_EVERY == 0:
            sound(machine)
        self.probe.perhaps(machine)
        key = next(iter(self.reference.touched), None) if len(self.reference.touched) == 1 else None
        self.log.append(Mark(entry.kind, entry.value, machine.digest, key, self._state(machine, key)))

    def _state(self, machine: Machine, key: tuple[str, str] | None) -> int:
        registry = machine.registry
        state: list[Any] = [machine.fence, registry.made, len(registry.objects), len(machine.sessions)]
        touched = registry.objects.get(key) if key is not None else None
        if touched is not None:
            state += [touched.dump(), [len(queue) for queue in touched.queues], touched.attached]
        if machine.applied % WHOLE_EVERY == 0:
            state.append(machine.dump())
        return zlib.crc32(repr(state).encode())

    def _witness(self, entry: Entry, command: Any, effects: Effects) -> None:
        reference = self.reference
        if entry.kind == EntryKind.COMMAND:
            self.streams.applied(entry.value)
        elif entry.kind == EntryKind.LEADS:
            self.reign_us = self.kernel.now_us
        given = judged(reference, entry, command, effects)
        self.told.decided(entry.slot, given)
        self._judge_leases()
        self.kernel.seen.update(reference.seen)

    # --- leases

    def _judge_leases(self) -> None:
        """What clients believe to hold is theirs; whoever's session has ended knows that it has."""
        reference = self.reference
        for ended in reference.ended:
            self.black_box.ended(ended)
        if reference.expired:
            for client in self.clients:
                session = client.session
                if client.alive and session.id in reference.ended:
                    assert not session.holds(client.now()), (
                        f"session {session.id} of {client.name} has expired, and its client believes in it"
                    )
        for key in reference.touched:
            self.told.beliefs_hold(key)

    # --- in the end

    def finish(self, machines: list[Machine]) -> None:
        """Everybody is in peace: what the witness says of each object is so on the replicas, and nobody waits for what
        is free.
        """
        for machine in machines:
            if machine.applied == self.top:
                nobody_waits_for_what_is_free(machine)
                same_lines(self.reference, machine)
        self.told.finish()
        self.black_box.finish()


def nobody_waits_for_what_is_free(machine: Machine) -> None:
    """Judged from what the replicas show to people, without any model."""
    for replicated in machine.registry.objects.values():
        sight, kind = replicated.sight(), replicated.kind
        waiting = [len(queue) for queue in replicated.queues]
        match kind:
            case "Lock" | "RLock":
                free = not list(replicated.holders())
            case "Semaphore" | "BoundedSemaphore":
                free = sight["value"] > 0
            case "Event":
                free = sight["set"]
            case "Barrier":
                free = sight["phase"] == "broken" or waiting[0] >= sight["parties"] > 0
            case "Condition":
                free = False
            case _:
                getters, putters = waiting[0], waiting[1]
                free = bool(getters and sight["size"]) or bool(putters and sight["size"] < sight["maxsize"])
                free = free or bool(waiting[2:] and waiting[2] and not sight["unfinished"])
        assert not (free and any(waiting)), f"{kind} {replicated.name!r}: {waiting} wait for what is free, {sight}"
