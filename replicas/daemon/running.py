# SPDX-License-Identifier: Apache-2.0
"""From options to a daemon that serves, and from a signal to the end of the process: the order of both.

Up: the directory is locked and read, the port bound, the secret read, the group formed or found, and one line says so.
Down: nothing new is accepted, leadership is handed over, what was accepted reaches the disk, and the lock goes last.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from dthreading.errors import ProtocolError
from replicas.daemon import listening
from replicas.daemon.address import BadOptions
from replicas.daemon.exits import ExitCode
from replicas.daemon.journal import log, notify_supervisor, open_journal, say
from replicas.daemon.loop import Loop
from replicas.daemon.server import Daemon, now_ms
from replicas.daemon.snapshotting import restored
from replicas.machine.core import Machine
from replicas.paxos.core import Paxos
from replicas.paxos.types import EntryKind, Timing
from replicas.replica.admission import Admission
from replicas.replica.core import Replica
from replicas.replica.formation import Formation, formed_of
from replicas.replica.marks import Mark
from replicas.storage import MemoryStorage, Storage, StorageFailed, StorageLocked, StorageRefused
from replicas.storage.disk import Directory

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from replicas.daemon.options import Options
    from replicas.paxos.types import Configuration

__all__ = ["CannotServe", "run"]

LAST_WORDS_S: Final = 0.05
"""How long closed connections may take to carry off what was written, before the loop ends."""

DESERTED_LOOK_S: Final = 0.25
"""How often an embedded group looks whether anybody still needs it; fewer than five wake-ups a second."""


class CannotServe(Exception):
    """The replica cannot start, or cannot go on; `code` is the exit code."""

    def __init__(self, code: ExitCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def run(options: Options) -> ExitCode:
    """Serve until asked to stop.

    Raises:
        CannotServe: with the sentence and the code.
        BadOptions: likewise, when it is the operator's choice that cannot be followed.

    """
    open_journal(replica=options.replica, level=options.log_level, as_json=options.log_json)
    storage = _open_storage(options)
    try:
        with _listening(options) as socket_:
            address = listening.bound_address(socket_)
            if len(options.cluster) == 1:
                options = replace(options, listen=address, cluster=(address,))
            secret = listening.secret(options)
            formation, admission = _beginning(options, storage)
            most = listening.raise_descriptor_limit(options.connections_max)
            service = _Service(options, storage, secret, formation, admission, most)
            with asyncio.Runner(loop_factory=Loop) as runner:
                runner.run(service.serve(socket_))
    except StorageFailed as error:
        raise CannotServe(ExitCode.DISK_FAILED, str(error)) from None
    finally:
        storage.close()
    if service.end is not None:
        raise service.end
    log.info("stopped")
    return ExitCode.STOPPED


@contextlib.contextmanager
def _listening(options: Options) -> Iterator[socket.socket]:
    """The socket. At the end its name goes, if it was made here and still is its name, and only then the socket itself:
    nobody takes it for a stale one meanwhile and has his own removed. Before the directory's lock goes, too: whoever
    locks it next binds a socket of his own.
    """
    with listening.listen(options) as socket_:
        place = listening.place(options.listen.path)
        try:
            yield socket_
        finally:
            if options.listen.path and options.listen_fd is None and listening.place(options.listen.path) == place:
                with contextlib.suppress(OSError):
                    os.unlink(options.listen.path)  # noqa: PTH108 - a socket


def _open_storage(options: Options) -> Storage | MemoryStorage:
    if options.memory:
        storage: Storage | MemoryStorage = MemoryStorage()
    else:
        try:
            storage = Storage.open(Directory(options.data_dir))
        except StorageLocked as error:
            raise CannotServe(ExitCode.TAKEN, str(error)) from None
        except StorageRefused as error:
            raise CannotServe(ExitCode.REFUSED, str(error)) from None
        except StorageFailed as error:
            raise CannotServe(ExitCode.DISK_FAILED, str(error)) from None
    if storage.recovered.rot is not None:
        storage.close()
        raise CannotServe(ExitCode.DATA_GONE, storage.recovered.rot)
    if storage.identity is None:
        _format(storage)
    mark = Mark.decode(storage.identity.formation) if storage.identity is not None else None
    if mark is not None:
        storage.close()
        raise CannotServe(ExitCode.DIVERGED, f"{options.data_dir} must not be used any more: {mark.sentence}")
    return storage


def _format(storage: Storage | MemoryStorage) -> None:
    try:
        storage.format(os.urandom(16))
    except StorageFailed as error:
        storage.close()
        raise CannotServe(ExitCode.DISK_FAILED, str(error)) from None


def _restored(storage: Storage | MemoryStorage) -> Machine | None:
    """The state that the durable snapshot holds, if there is one."""
    if storage.snapshot is None:
        return None
    try:
        return restored(storage)
    except ProtocolError as error:
        raise CannotServe(ExitCode.REFUSED, f"the snapshot in the data directory cannot be loaded: {error}") from None


def _beginning(options: Options, storage: Storage | MemoryStorage) -> tuple[Formation | None, Admission | None]:
    """How this replica comes into its group: by forming it, by an admission that its directory holds, or (neither) by
    asking for one.
    """
    assert storage.identity is not None
    known = storage.identity.formation
    admission = Admission.decode(known) if known is not None else None
    if admission is not None or (options.join and known is None):
        return None, admission
    return _formation(options, storage), None


def _formation(options: Options, storage: Storage | MemoryStorage) -> Formation:
    """The part of this replica in the forming of the group; refuses a directory that belongs to another place than the
    options say.
    """
    assert storage.identity is not None
    addresses = tuple(map(str, options.cluster))
    known = storage.identity.formation
    members = formed_of(known) if known is not None else ()
    changed = bool(members) and _changed(storage)
    formation = Formation(
        addresses=members if options.join or changed else addresses,
        replica=1 if options.join or changed else options.replica,
        incarnation=storage.identity.incarnation,
        formation=known,
        cluster=f"{random.SystemRandom().getrandbits(64):016x}",
        settings=b"",
        now_ms=now_ms(),
    )
    if members and not changed and not options.join and (len(members) > 1 or len(addresses) > 1):
        if members != addresses:
            raise BadOptions(
                f"{options.data_dir} belongs to a group of {', '.join(members)}, but this replica was started as one of"
                f" {', '.join(addresses)}: if its members were changed while it was away, start it with --join and the"
                " address of one of them, and without --cluster; else it is the wrong --data-dir, or list"
            )
        if formation.replica != options.replica:
            raise BadOptions(
                f"{options.data_dir} is that of replica {formation.replica} at {members[formation.replica - 1]}, but"
                f" this one was started at {options.listen}"
            )
    return formation


def _changed(storage: Storage | MemoryStorage) -> bool:
    """Whether the members have been changed since the group was formed, as far as this directory knows. The list that
    an operator once gave says nothing then.
    """
    durable = storage.recovered.durable
    if durable.configuration is not None and durable.configuration.epoch > 1:
        return True
    return any(entry.kind == EntryKind.CONFIGURATION for entry in durable.entries)


class _Service:
    """The daemon in its loop, and the signals that end it."""

    def __init__(
        self,
        options: Options,
        storage: Storage | MemoryStorage,
        secret: bytes | None,
        formation: Formation | None,
        admission: Admission | None,
        connections_max: int,
    ) -> None:
        self.end: CannotServe | None = None
        """Why it ended, unless it was asked to."""
        self._options = options
        self._storage = storage
        self._secret = secret
        self._formation = formation
        self._admission = admission
        self._connections_max = connections_max
        self._machine = _restored(storage)
        self._daemon: Daemon | None = None
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    async def serve(self, listening_socket: socket.socket) -> None:
        """Serve until stopped."""
        options = self._options
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        loop.set_exception_handler(self._crashed)
        self._daemon = daemon = Daemon(
            options,
            self._storage,
            self._secret,
            connections_max=self._connections_max,
            formation=self._formation,
            admission=self._admission,
            make_core=self._core,
            ready=self._say_ready,
            ended=self._ended,
            loop=loop,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        # Whoever started us may take his own signals by `sigwait`, and then blocks them in all that he starts.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
        server = loop.serve(listening_socket, daemon.clients.accept, listening.BACKLOG)
        daemon.start()
        if options.embedded:
            await self._until_deserted(daemon)
        else:
            await self._stop.wait()
        notify_supervisor(os.environ, "STOPPING=1")
        server.close()
        if self.end is None:
            await self._until_handed_over(daemon)
        daemon.close()
        await asyncio.sleep(LAST_WORDS_S)
        # From here on we are ending anyway: a second signal must not turn a clean end into a killed one.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))

    async def _until_handed_over(self, daemon: Daemon) -> None:
        log.info("stopping: handing over")
        handing = asyncio.ensure_future(daemon.hand_over())
        hurrying = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait({handing, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        for task in (handing, hurrying):
            task.cancel()

    async def _until_deserted(self, daemon: Daemon) -> None:
        """An embedded group stays while anybody needs it, and a little longer; not once nobody new can find it: they
        would start another one, and some would hold what others hold.
        """
        idle_s, path = 0.0, self._options.listen.path
        place = listening.place(path)
        while idle_s < self._options.idle_exit_s and not self._stop.is_set():
            if listening.place(path) != place:
                log.warning("%s was taken away: another replica takes over", path)
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), DESERTED_LOOK_S)
            idle_s = idle_s + DESERTED_LOOK_S if daemon.deserted else 0.0

    def _say_ready(self) -> None:
        options, daemon = self._options, self._daemon
        assert daemon is not None
        where = "in memory only" if options.memory else f"durable in {options.data_dir}"
        of = len(options.cluster) if daemon.core is None else len(daemon.core.servers)
        who = f"replica {daemon.replica}{' of' if daemon.replica <= of else ', one of'} {of}"
        line = f"dthreading-server ready: {who} at {options.listen}, {where}"
        say(line, sys.stdout)
        log.info("%s", line)
        notify_supervisor(os.environ, f"READY=1\nSTATUS={line}")

    def _core(self, admission: Admission) -> Replica:
        open_journal(replica=admission.replica, level=self._options.log_level, as_json=self._options.log_json)
        paxos = Paxos(
            replica=admission.replica,
            configuration=admission.genesis,
            durable=self._storage.recovered.durable,
            timing=Timing(heartbeat_ms=self._options.heartbeat_ms, election_ms=self._options.election_ms),
            luck=random.SystemRandom().random,
            now_ms=now_ms(),
        )
        self._place(paxos)
        core = Replica(
            paxos=paxos,
            machine=self._machine or Machine(admission.genesis),
            namespace_term_ms=int(self._options.lease_s * 1000),
            now_ms=now_ms(),
            genesis=admission.genesis,
            seeds=admission.seeds,
        )
        log.info("recovered: applied up to slot %d of %d", core.machine.applied, core.paxos.chosen)
        return core

    def _place(self, paxos: Paxos) -> None:
        """Checks that this replica listens where the others look for it."""
        here, configuration = str(self._options.listen), paxos.configuration
        known = {member.id: member.address for member in configuration.members}.get(paxos.replica, here)
        if len(configuration.members) == 1 and configuration.ids == (paxos.replica,):
            # Alone, it may have been moved: nobody else has to find it where it was.
            paxos.configuration = _moved(configuration, here)
        elif known != here and not self._options.join:  # which asks, and hears what is wrong
            raise BadOptions(
                f"{self._options.data_dir} is that of replica {paxos.replica} at {known}, but this one was started at"
                f" {here}: the others look for it there; to move it, replace it by a new one"
            )

    # --- reasons to end

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _ended(self, code: ExitCode, sentence: str) -> None:
        if self.end is None:
            self.end = CannotServe(code, sentence)
        self._stop.set()

    def _crashed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Something raised in a callback. A connection's own trouble is not ours; anything else ends the process."""
        del loop
        error = context.get("exception")
        if isinstance(error, OSError) or (error is None and "exception" not in context):
            log.info("%s: %s", context.get("message"), error)
            return
        if self._daemon is not None:
            self._daemon.stop_dead()
        log.error("an error of ours ends this replica: %s", context.get("message"), exc_info=error)
        self._ended(ExitCode.FAILED, f"an error of ours ends this replica; its log has the details: {error!r}")


def _moved(configuration: Configuration, address: str) -> Configuration:
    (member,) = configuration.members
    return configuration._replace(members=(member._replace(address=address),))
