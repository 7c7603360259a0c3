# SPDX-License-Identifier: Apache-2.0
"""A simulated replica and a simulated client that tell the watch what they see. They add nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replicas.paxos.messages import Accept, Accepted, Prepare, Promise
from replicas.replica.core import Replica
from tests.sim.client import SimulatedClient
from tests.sim.group import GroupProgram

if TYPE_CHECKING:
    from dthreading.session.calls import PendingCall
    from replicas.machine.core import Machine
    from tests.sim.checkers.watch import Watch


class WatchedProgram(GroupProgram):
    """A replica, each of whose machines tells of every entry that it applies."""

    def __init__(self, watch: Watch, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._watch = watch

    def boot(self, now_ms: int) -> Any:
        core = super().boot(now_ms)
        if isinstance(core, Replica):
            self._watch.started(self.replica, core.paxos.promised)
            self._watch.machine(self.replica, core.machine)
            install = core.snapshot_installed

            def installed(slot: int, configuration: Any, chain: int, promised: Any, machine: Machine) -> None:
                self._watch.machine(self.replica, machine)
                install(slot, configuration, chain, promised, machine)

            core.snapshot_installed = installed  # type: ignore[method-assign]
        return core

    def sent(self, message: Any) -> None:
        super().sent(message)
        if isinstance(message, Promise | Accepted | Prepare | Accept):
            self._watch.promised(self.replica, message.ballot)


class WatchedClient(SimulatedClient):
    """A client, each of whose calls is told of when it begins and when it ends."""

    def __init__(self, watch: Watch, *arguments: Any, **named: Any) -> None:
        self._watch = watch
        self._since: dict[int, int] = {}
        self._numbers: dict[Any, int] = {}
        """Its threads, as the black box calls them."""
        super().__init__(*arguments, **named)
        watch.clients.append(self)

    def _begin(self, running: Any) -> None:
        self._since[id(running)] = self._watch.told.asks(self, running.ask)
        super()._begin(running)
        thread = str(self._numbers.setdefault(running, len(self._numbers)))
        self._watch.black_box.asks(self, thread, running.ask, running.call)

    def _settled(self, running: Any, call: PendingCall) -> None:
        self._watch.told.hears(self, running.ask, call, self._since[id(running)])
        self._watch.black_box.hears(running.ask, call)
        super()._settled(running, call)

    def _give_up(self, running: Any, call: PendingCall) -> Any:
        self._watch.told.abandons(self, running.ask, call)
        self._watch.black_box.abandons(running.ask, call)
        return super()._give_up(running, call)
