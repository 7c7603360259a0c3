# SPDX-License-Identifier: Apache-2.0
"""The replicated state: every replica applies every entry of the log, in order, and ends up with the same.

`apply` is the only way in. It reads no clock, no chance and no address: whatever time or a leader decided comes as an
entry, and is judged from the log alone. What must be said to clients comes back as `Effects`; nobody is called.

Three layers, each a file: state.py (the parts, and what objects may ask of them), calls.py (calls and lanes), and here
the log, sessions, attachments and snapshots.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any, Final

from dthreading.errors import ProtocolError
from dthreading.wire import limits, messages
from dthreading.wire.codec import encode
from dthreading.wire.messages import Call, Ended, Rejected, Reply, ToClient, Withdraw
from replicas.machine import commands, sight
from replicas.machine.calls import Calls, find_operation
from replicas.machine.roster import Roster
from replicas.machine.sessions import Session, refused
from replicas.machine.snapshot import SnapshotWriter, load
from replicas.machine.state import Effects
from replicas.objects import OPERATION_NAMES, READ_NAMES
from replicas.objects.base import Caller, Refused, Replicated
from replicas.objects.registry import GONE
from replicas.paxos.values import Configuration, Entry, EntryKind, decode_ballot, decode_configuration

__all__ = ["Effects", "Machine", "Session"]

_COMMAND: Final = int(EntryKind.COMMAND)


class Machine(Calls):
    """The whole replicated state.

    Args:
        configuration: the one that the group was formed with, which is in no entry; its settings hold from slot 1 on.

    """

    def __init__(self, configuration: Configuration | None = None) -> None:
        super().__init__(configuration.settings if configuration is not None else b"")
        self.digest = bytes(4)
        """A chain over all entries and the replies to them: equal on replicas that have applied the same slots."""
        self.ballot_in_force: tuple[int, int] = (0, 0)
        self.configuration_epoch = configuration.epoch if configuration is not None else 0
        self.roster = Roster(configuration)

    # --- one entry --------------------------------------------------------------------------------------------------

    def apply(self, entry: Entry, call: Call | None = None) -> Effects:
        """Every slot, once, in order. `call` is what the entry's value says, where somebody has read it already."""
        assert entry.slot == self.applied + 1, "the log is contiguous"
        self.applied = entry.slot
        self._effects = effects = Effects()
        if entry.kind != _COMMAND:
            self._apply_own(entry)
        elif call is not None:
            self._call(call)
        else:
            self._command(entry.value)
        if self.registry.has_suspects:
            self.registry.sweep()
        self._extend_digest(entry)
        return effects

    def _apply_own(self, entry: Entry) -> None:
        """An entry that consensus has made itself."""
        match entry.kind:
            case EntryKind.LEADS:
                # Never back: a later leader may have to choose again what an earlier one left behind, its LEADS among
                # it, and what that earlier one proposed must not come into force by it.
                self.ballot_in_force = max(self.ballot_in_force, decode_ballot(entry.value))
            case EntryKind.CONFIGURATION:
                self._configure(decode_configuration(entry.value))
            case _:
                assert entry.kind == EntryKind.NOOP, entry.kind

    def _command(self, value: bytes) -> None:
        try:
            command = commands.codec.decode(value)
        except ProtocolError:
            return  # replicas check what they propose; whatever this is, it is nothing on every replica alike
        if type(command) is Call:
            self._call(command)
        else:
            self._other_command(command)

    def _other_command(self, command: commands.Logged) -> None:
        match command:
            case Withdraw():
                self._withdraw(command)
            case messages.Acknowledge():
                self._acknowledge(command)
            case messages.Attach():
                self._attach(command)
            case messages.Detach():
                self._detach(command)
            case messages.Open():
                self._open(command)
            case messages.Resume():
                self._resume(command)
            case messages.Close(session=session):
                self._end(session)
            case commands.Expire(session=session, epoch=epoch):
                known = self.sessions.get(session)
                if known is not None and known.epoch == epoch and self._is_in_force(command):
                    self._end(session)
            case commands.Reset(namespace=namespace, epoch=epoch):
                if self._is_in_force(command):
                    self.registry.reset(namespace, epoch)
            case commands.Delete(namespace=namespace, name=name):
                self._delete(namespace, name)
            case commands.Admit():
                self.roster.admit(command)
            case commands.Dismiss(replica=replica):
                self.roster.dismiss(replica)
            case commands.Audit():
                self._effects.audit = command
            case _:
                raise AssertionError(command)

    def _is_in_force(self, proposed: commands.Expire | commands.Reset) -> bool:
        return (proposed.round, proposed.replica) == self.ballot_in_force

    def _configure(self, configuration: Configuration) -> None:
        if self.configuration_epoch in {0, configuration.epoch - 1}:
            self.configuration_epoch = configuration.epoch
            self.set_limits(configuration.settings)
            self.roster.configure(configuration)

    def _extend_digest(self, entry: Entry) -> None:
        digest = zlib.crc32(entry.value, entry.slot ^ int.from_bytes(self.digest, "big"))
        for _, message in self._effects.replies:
            digest = zlib.crc32(encode(message), digest)
        self.digest = digest.to_bytes(4, "big")

    # --- attachments ------------------------------------------------------------------------------------------------

    def _attach(self, attach: messages.Attach) -> None:
        session = self.sessions.get(attach.session)
        if session is None:
            self._say(attach.session, Ended(attach.session))
            return
        if attach.handle <= session.handle_top:
            return
        self._touch_session(session)
        session.handle_top = attach.handle
        most = self.limits.attachments_per_session_max
        if len(session.handles) >= most:
            return  # its calls are told so
        if attach.namespace not in session.namespaces:
            if len(session.namespaces) >= most:
                reason = f"a session uses at most {most} namespaces (attachments_per_session_max)"
                session.handles[attach.handle] = Refused("limit", reason)
                return
            session.namespaces[attach.namespace] = None
            self.registry.join(attach.namespace, self.applied)
        try:
            session.handles[attach.handle] = self.registry.attach(attach)
        except Refused as refusal:
            session.handles[attach.handle] = refusal.fresh()
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a class that cannot be made is its caller's trouble alone
            self._effects.faults = [error]
            session.handles[attach.handle] = Refused("internal", f"{attach.kind}(): {type(error).__name__}")

    def _detach(self, detach: messages.Detach) -> None:
        session = self.sessions.get(detach.session)
        if session is None:
            self._say(detach.session, Ended(detach.session))
            return
        self._touch_session(session)
        self._release(session.handles.pop(detach.handle, None))
        # Its Attach may come yet, from a connection of old; those of lower handles were said before this.
        session.handle_top = max(session.handle_top, detach.handle)

    def _release(self, meaning: Replicated | Refused | None) -> None:
        if isinstance(meaning, Replicated) and meaning.fault is not GONE:
            self.registry.release(meaning)

    def _delete(self, namespace: str, name: str) -> None:
        doomed = self.registry.objects.get((namespace, name))
        self._effects.deleted = [(namespace, name, doomed is not None)]
        if doomed is not None:
            self.touch(doomed)
            doomed.fault = GONE  # at once: who is handed the notify of one that is evicted must not come to its line
            self._evict(doomed, GONE)
            self.registry.drop(doomed)

    # --- sessions ---------------------------------------------------------------------------------------------------

    def _open(self, opening: messages.Open) -> None:
        session = self.sessions.opened_with(opening.nonce)
        if session is not None:
            self._touch_session(session)
            session.epoch += 1
        elif len(self.sessions) >= self.limits.sessions_max:
            reason = f"the group has {len(self.sessions)} sessions, and allows no more (sessions_max)"
            self._effects.rejected = [(opening.nonce, Rejected("limit", reason))]
            return
        else:
            ttl_ms = min(max(opening.ttl_ms, self.limits.session_ttl_ms_min), self.limits.session_ttl_ms_max)
            session = Session(self.applied, opening.nonce, ttl_ms, opening.namespace, opening.label)
            self.sessions.add(session)
            session.namespaces[opening.namespace] = None
            self.registry.join(opening.namespace, self.applied)
        self._effects.opened = [(session.id, session.nonce)]
        self._say(session.id, messages.Opened(session.nonce, session.id, session.ttl_ms))

    def _resume(self, resume: messages.Resume) -> None:
        session = self.sessions.get(resume.session)
        if session is None:
            self._say(resume.session, Ended(resume.session))
        elif session.nonce != resume.nonce:
            self._effects.refused = [(resume.session, resume.nonce)]
        else:
            self._touch_session(session)
            session.epoch += 1
            self._effects.resumed = [session.id]
            self._say(session.id, messages.Resumed(session.id))

    def _end(self, ended: int) -> None:
        """First all of its waits are withdrawn, everywhere; only then does what it held pass on. Else its second thread
        would be granted what its first one held.
        """
        self._say(ended, Ended(ended))
        session = self.sessions.get(ended)
        if session is None:
            return
        self._touch_session(session)
        stood = [(waiter, waiter.queue) for waiter in session.waits.values()]
        for waiter, queue in stood:
            assert queue is not None
            self._touch_around(waiter)
            waiter.leave()
            self.registry.suspect(waiter.owner)
            self.registry.suspect(queue.owner)
        session.waits.clear()
        for waiter, queue in stood:
            self._guard(waiter.owner, waiter.owner.abandoned, waiter, queue)
        for holding in list(session.stakes.values()):
            if holding.fault is None:
                self.touch(holding)
                self._guard(holding, holding.session_ended, ended)
                self.registry.suspect(holding)
        for meaning in session.handles.values():
            self._release(meaning)
        self.registry.sweep()
        self._effects.idle = [name for name in session.namespaces if self.registry.leave(name)]
        self._effects.ended = [ended]
        self.sessions.drop(session)

    # --- without the log --------------------------------------------------------------------------------------------

    def is_read(self, call: Call) -> bool:
        """Whether `read` can answer this call, as far as is applied here."""
        if call.operation not in READ_NAMES:
            return False
        session = self.sessions.get(call.session)
        target = session.handles.get(call.handle) if session is not None else None
        operation = target.operations.get(call.operation) if isinstance(target, Replicated) else None
        return operation is not None and operation.reads

    def read(self, call: Call) -> ToClient:
        """The answer to a call whose operation changes nothing, from the state as it is."""
        session = self.sessions.get(call.session)
        if session is None:
            return Ended(call.session)
        try:
            target = self.attached(call.session, call.handle)
            operation = find_operation(target, call)
            assert operation.reads
            caller = Caller(target, operation, call.session, call.lane, call.number)
            return Reply(call.lane, call.number, 0, operation.function(target, caller, *call.arguments))
        except Refused as refusal:
            return refused(call.lane, call.number, refusal)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - told to the caller; only an entry of the log may quarantine
            fault = Refused("internal", f"{call.operation}() broke on this replica ({type(error).__name__})")
            return refused(call.lane, call.number, fault)

    def check(self, command: messages.Command) -> str | None:
        """Why a command is not worth proposing (a code of `dthreading.errors`); None where apply has to judge."""
        if type(command) is Call:
            if command.operation not in OPERATION_NAMES:
                return "type"
            return "limit" if len(command.arguments) > limits.ARGUMENTS_MAX else None
        if type(command) is messages.Attach:
            # A Condition's arguments are names as well, and an error that names them has to fit a frame.
            words = (command.namespace, command.name, *command.arguments)
            return "limit" if _longest(*words) > limits.NAME_BYTES_MAX else None
        if type(command) is messages.Open:
            is_long = _longest(command.nonce, command.namespace) > limits.NAME_BYTES_MAX
            return "limit" if is_long or _longest(command.label) > limits.LABEL_BYTES_MAX else None
        return None

    @property
    def idle_namespaces(self) -> dict[str, int]:
        """Namespaces that a leader may reset one lease after their last session, with their epochs."""
        return self.registry.idle

    def answers(self, session: int) -> list[Reply]:
        """All answers that a session's client has not shown to have."""
        return [lane.reply for lane in self.sessions[session].lanes.values() if lane.reply is not None]

    def describe(self, question: str, arguments: tuple[Any, ...] = ()) -> Any:
        """What a person asks; raises KeyError for a question that is not known."""
        return sight.QUESTIONS[question](self, *arguments)

    # --- snapshots --------------------------------------------------------------------------------------------------

    def snapshot(self) -> SnapshotWriter:
        """Begins to write the state as it is now. One at a time."""
        assert self._writer is None, "a snapshot is being written"
        self._writer = SnapshotWriter(self)
        return self._writer

    def snapshot_done(self, writer: SnapshotWriter) -> None:
        """The writer needs to hear of no more changes."""
        if self._writer is writer:
            self._writer = None

    def dump(self) -> bytes:
        """The whole state at once: equal bytes on replicas with equal histories."""
        writer = SnapshotWriter(self)
        chunks = []
        while chunk := writer.step(1 << 20):
            chunks.append(chunk)
        return b"".join(chunks)

    @classmethod
    def restore(cls, chunks: Iterable[bytes]) -> Machine:
        """The state that a snapshot's bytes hold."""
        machine = cls()
        load(machine, chunks)
        return machine


def _longest(*words: Any) -> int:
    """The most bytes of those that are text or bytes."""
    sizes = [len(word.encode() if isinstance(word, str) else word) for word in words if isinstance(word, str | bytes)]
    return max(sizes, default=0)
