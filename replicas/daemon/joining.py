# SPDX-License-Identifier: Apache-2.0
"""The I/O of forming a group: carries `Formation`'s words to the links, its state to the disk, and time to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from replicas.daemon.journal import log
from replicas.storage import StorageFailed

if TYPE_CHECKING:
    import asyncio

    from replicas.daemon.peers import Peers
    from replicas.paxos.types import Configuration
    from replicas.replica.formation import Census, Formation
    from replicas.storage import MemoryStorage, Storage

__all__ = ["Joining"]

SAY_MISSING_MS = 5000
"""How long a group may be waited for before the log says for whom; said again when the list changes."""


class Host(Protocol):
    """Who is told."""

    def formed(self, configuration: Configuration) -> None: ...
    def refused(self, sentence: str) -> None: ...
    def disk_failed(self, error: StorageFailed) -> None: ...


class Joining:
    """Drives one `Formation` until it is formed, and answers for it afterwards."""

    def __init__(
        self,
        formation: Formation,
        storage: Storage | MemoryStorage,
        peers: Peers,
        loop: asyncio.AbstractEventLoop,
        host: Host,
    ) -> None:
        self.formation = formation
        self._storage = storage
        self._peers = peers
        self._loop = loop
        self._host = host
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._missing: list[int] = []
        self._say_missing_ms = 0

    def start(self, now_ms: int) -> None:
        """Say what we are, and again from time to time until the group is formed."""
        self._say_missing_ms = now_ms + SAY_MISSING_MS
        self._tick()

    def stop(self) -> None:
        """Say nothing more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def said(self, source: int, census: Census) -> None:
        """Another replica says what it is."""
        if not self._stopped:
            self.formation.step(source, census)
            self._go_on()

    def link_up(self) -> None:
        """A link is there: what was said so far did not pass it."""
        if not self._stopped and self.formation.wake_ms is not None:
            self.formation.tick(self.formation.wake_ms)
            self._go_on()

    def _tick(self) -> None:
        self._timer = None
        # The loop's clock is the daemon's: monotonic, in seconds.
        now_ms = int(self._loop.time() * 1000)
        self.formation.tick(now_ms)
        missing = self.formation.missing()
        if missing and missing != self._missing and now_ms >= self._say_missing_ms:
            self._missing = missing
            log.warning("the group is not formed yet: replicas %s are missing", ", ".join(map(str, missing)))
        self._go_on()

    def _go_on(self) -> None:
        output = self.formation.take()
        if output.persist is not None:
            try:
                self._storage.form(output.persist)
            except StorageFailed as error:
                self.stop()
                self._host.disk_failed(error)
                return
        for replica, census in output.send:
            self._peers.send(replica, census)
        if output.notice is not None:
            log.warning("%s", output.notice)
        if output.formed is not None:
            log.info("replica %d of the group %s", self.formation.replica, output.formed.cluster)
            self._host.formed(output.formed)
        if output.refused is not None:
            self.stop()
            self._host.refused(output.refused)
            return
        if self.formation.wake_ms is not None and self._timer is None and not self._stopped:
            self._timer = self._loop.call_at(self.formation.wake_ms / 1000, self._tick)
