# SPDX-License-Identifier: Apache-2.0
"""A group within the process, for tests: the replicated state itself, driven directly, without sockets or disk.

    with local.group() as group:                # from here on this process's primitives live there
        lock = dthreading.Lock(name="orders")
        other = group.client("another process") # a second session, asked with `call`, as if by another process
        group.lose(group.own)                   # what an expired lease does

What is exercised is all above the wire: the proxies and the objects. Time is real, and counts for timeouts only: a
lease ends when `lose` says so.
"""

from __future__ import annotations

import _thread
import contextlib
import gc
import itertools
import queue
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from dthreading import config, holds, runtime, taking
from dthreading.errors import GroupUnreachable, LockLost, OutcomeUnknown, from_wire
from dthreading.session import Answer, Manner, OnLost, Target
from dthreading.wire import messages as wire
from dthreading.wire.codec import decode, encode, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LocalClient", "LocalGroup", "group"]

CLUSTER = "local"


class _Call:
    """One call on its way: `wake` is released once `reply` is there."""

    def __init__(self, session: _Session, lane: int, number: int) -> None:
        self.session = session
        self.lane = lane
        self.number = number
        self.wake = _thread.allocate_lock()
        self.wake.acquire()
        self.reply: wire.Reply | None = None
        self.lost = False
        self.unwaited = False
        """Nobody waits for the reply: see `LocalClient._say`."""

    def lose(self) -> None:
        """Its session has ended."""
        self.lost = True
        with contextlib.suppress(RuntimeError):
            self.wake.release()


class _Session:
    """What a client knows of one session. No lock guards it: finalizers make calls in the middle of calls."""

    def __init__(self, id: int) -> None:
        self.id = id
        self.over = False
        self.handles: dict[Target, int] = {}
        self.handle_numbers = itertools.count(1)
        self.calls: dict[tuple[int, int], _Call] = {}
        self.free_lanes: list[int] = []
        self.lane_numbers = itertools.count()
        self.numbers: dict[int, int] = {}

    def begin(self) -> _Call:
        """A call on a lane of its own. One that comes with the session's end is lost."""
        try:
            lane = self.free_lanes.pop()
        except IndexError:
            lane = next(self.lane_numbers)
        number = self.numbers[lane] = self.numbers.get(lane, 0) + 1
        call = self.calls[lane, number] = _Call(self, lane, number)
        if self.over:
            call.lose()
        return call

    def finish(self, call: _Call) -> None:
        """It is answered, or withdrawn."""
        if self.calls.pop((call.lane, call.number), None) is not None:
            self.free_lanes.append(call.lane)

    def end(self) -> None:
        """Whatever waits is lost."""
        self.over = True
        for call in list(self.calls.values()):
            call.lose()


class LocalGroup:
    """The replicated state, applied by a thread of its own in the order in which commands come."""

    def __init__(self) -> None:
        from replicas.machine.core import Machine  # noqa: PLC0415 - a client never imports replicas by itself
        from replicas.paxos.values import Ballot, Entry, EntryKind, encode_ballot  # noqa: PLC0415

        self.machine = Machine()
        self.faults: list[Any] = []
        """What went wrong inside an object; a test should find this empty."""
        self._entry = Entry
        self._kinds = EntryKind
        self._ballot = Ballot(1, 1)
        self._clients: dict[int, LocalClient] = {}
        self._opened: dict[bytes, int] = {}
        # Finalizers put into it, too, in the middle of whatever this thread is doing: it is the one that bears that.
        self._commands: queue.SimpleQueue[tuple[int, bytes, Callable[[], None] | None] | None] = queue.SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="dthreading-local", daemon=True)
        self._thread.start()
        self.submit(encode_ballot(self._ballot), kind=EntryKind.LEADS)
        self.own = self.client("this process")

    def client(self, label: str = "") -> LocalClient:
        """A session of its own, as another process has."""
        return LocalClient(self, label)

    def lose(self, client: LocalClient) -> None:
        """The group has not heard of `client` for a whole lease: its session ends, and what it held passes on."""
        from replicas.machine import commands  # noqa: PLC0415

        epoch = self.machine.sessions[client.session].epoch
        self.submit(commands.expire(client.session, epoch, self._ballot), wait=True)

    def is_here(self) -> bool:
        """Whether the calling thread is the one that applies: the collector has run a finalizer there."""
        return _thread.get_ident() == self._thread.ident

    def submit(self, command: bytes, *, kind: int | None = None, wait: bool = False) -> None:
        """The next entry of the log. With `wait`, returns when it was applied."""
        applied = _thread.allocate_lock()
        applied.acquire()
        self._commands.put((self._kinds.COMMAND if kind is None else kind, command, applied.release if wait else None))
        if wait:
            applied.acquire()

    def open(self, client: LocalClient, nonce: bytes, label: str) -> int:
        """A new session."""
        self.submit(encode(wire.Open(nonce, 10_000, client.settings.namespace, label)), wait=True)
        session = self._opened.pop(nonce)
        self._clients[session] = client
        return session

    def stop(self) -> None:
        """Ends the thread. What still waits raises GroupUnreachable."""
        self._stopping = True
        self._commands.put(None)
        self._thread.join()
        for client in list(self._clients.values()):
            client.ended()

    def _run(self) -> None:
        while (work := self._commands.get()) is not None:
            kind, command, applied = work
            effects = self.machine.apply(self._entry(self.machine.applied + 1, self._ballot, kind, command))
            self.faults += effects.faults
            for session, nonce in effects.opened:
                self._opened[nonce] = session
            for session, message in effects.replies:
                if session in self._clients:
                    self._clients[session].hear(decode(encode(message)))
            for session in effects.ended:
                if session in self._clients:
                    self._clients.pop(session).ended()
            if applied is not None:
                applied()


class LocalClient:
    """`runtime.Client`, as far as proxies know it, on a `LocalGroup`."""

    def __init__(self, group: LocalGroup, label: str) -> None:
        self.settings = config.current()
        self.cluster = CLUSTER
        self.closed = False
        self._group = group
        self._label = label
        self._opening = threading.Lock()
        """Whoever has it waits for the group."""
        self._nonces = 0
        self._present = _Session(0)

    @property
    def session(self) -> int:
        """The id of the session; 0: there is none."""
        return self._present.id

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
        """As `runtime.Client.call`."""
        if self._group.is_here():
            return self._say(target, operation, arguments, manner)
        while True:
            call = self._send(self._living_session(), target, operation, arguments, others)
            try:
                if not call.wake.acquire(True, -1 if timeout is None or not manner.parks else timeout):
                    self._withdraw(call, undo=False)
                    call.wake.acquire()
            except BaseException:
                self._interrupted(call, manner, kept)
                raise
            answer = self._end(call, manner)
            if answer is not None:
                target.known = True
                return answer

    def holds_are_valid(self, session: int) -> bool:
        """As `runtime.Client.holds_are_valid`."""
        return session == self.session != 0

    def detach(self, target: Target) -> None:
        """As `runtime.Client.detach`."""
        present = self._present
        handle = present.handles.pop(target, None)
        if handle is not None:
            self._group.submit(encode(wire.Detach(present.id, handle)))

    def close(self) -> None:
        """Ends the session."""
        if self.session:
            self._group.submit(encode(wire.Close(self.session)), wait=True)

    def say_goodbye(self) -> None:
        """As `runtime.Client.say_goodbye`; the state ends with the process anyhow."""

    def after_fork(self) -> None:
        """As `runtime.Client.after_fork`: the group stays with the parent."""

    # --- for the group ---

    def hear(self, message: object) -> None:
        """A reply has come."""
        if isinstance(message, wire.Reply):
            call = self._present.calls.get((message.lane, message.number))
            if call is not None and call.reply is None and message.status != wire.Status.PARKED:
                call.reply = message  # the first one: an answer is repeated to whoever withdraws too late
                if call.unwaited:
                    call.session.finish(call)
                else:
                    call.wake.release()

    def ended(self) -> None:
        """The session is no more."""
        former, self._present = self._present, _Session(0)
        former.end()

    # --- the parts of a call ---

    def _living_session(self) -> _Session:
        while not (present := self._present).id:
            with self._opening:
                if not self.session:
                    self._nonces += 1
                    self._present = _Session(self._group.open(self, f"{id(self)} {self._nonces}".encode(), self._label))
        return present

    def _say(self, target: Target, operation: str, arguments: tuple[Any, ...], manner: Manner) -> Answer:
        """In the thread that applies, nobody could wait for a reply: it would come after the wait."""
        present = self._present
        if not manner.silent or not present.id:
            raise GroupUnreachable(
                f"{operation} of {target}: it was asked by a finalizer that the collector ran in the thread of the"
                " local group, where nothing can be waited for"
            )
        self._send(present, target, operation, arguments, (), unwaited=True)
        return Answer(None, present.id)

    def _send(
        self,
        session: _Session,
        target: Target,
        operation: str,
        arguments: tuple[Any, ...],
        others: tuple[Target, ...],
        *,
        unwaited: bool = False,
    ) -> _Call:
        for one in (target, *others):
            if one not in session.handles:
                self._attach(session, one)
        handle = session.handles[target]
        values = tuple([session.handles[value] if type(value) is Target else value for value in arguments])
        call = session.begin()
        call.unwaited = unwaited
        said = wire.Call(session.id, call.lane, call.number, handle, operation, unpack(pack(values)), True)
        self._group.submit(encode(said))
        return call

    def _attach(self, session: _Session, target: Target) -> None:
        handle = next(session.handle_numbers)
        create = target.create and not (target.lifetime == wire.Lifetime.PRIVATE and target.known)
        attach = wire.Attach(
            session.id, handle, target.namespace, target.name, target.kind, target.arguments, target.lifetime, create
        )
        self._group.submit(encode(attach))
        session.handles[target] = handle  # only now: a call of a finalizer in between must not come before it

    def _withdraw(self, call: _Call, *, undo: bool) -> None:
        self._group.submit(encode(wire.Withdraw(call.session.id, call.lane, call.number, undo)))

    def _interrupted(self, call: _Call, manner: Manner, kept: Callable[[Answer], object] | None) -> None:
        self._withdraw(call, undo=not manner.interrupt_keeps)
        if not manner.interrupt_keeps:
            call.session.finish(call)
            return
        call.wake.acquire()
        with contextlib.suppress(Exception):
            answer = self._end(call, manner)
            if answer is not None and kept is not None:
                kept(answer)

    def _end(self, call: _Call, manner: Manner) -> Answer | None:
        """The answer; None where the call is to be made again."""
        if call.lost:
            match manner.on_lost:
                case OnLost.LOCK_LOST:
                    raise LockLost("the session is lost")
                case OnLost.UNKNOWN:
                    raise OutcomeUnknown("the session is lost")
                case OnLost.BROKEN:
                    raise from_wire("broken", "")
            if self._group._stopping:  # noqa: SLF001
                raise GroupUnreachable("the local group was stopped")
            return None
        reply = call.reply
        assert reply is not None
        call.session.finish(call)
        if reply.status == wire.Status.ERROR:
            raise from_wire(*reply.value)
        return Answer(reply.value, call.session.id)


@contextlib.contextmanager
def group() -> Iterator[LocalGroup]:
    """A local group that this process's primitives use while the context lasts."""
    process: Any = SimpleNamespace(clients=runtime._clients, key=runtime._CLIENT)  # noqa: SLF001
    former = process.clients.get(process.key)
    local = LocalGroup()
    process.clients[process.key] = local.own
    try:
        yield local
        gc.collect()  # finalizers that use what lives here must do so while it does
    finally:
        process.clients.pop(process.key, None)
        holds.forget_all()
        taking.forget_all()
        if former is None:
            config.unbind()
        else:
            process.clients[process.key] = former
        local.stop()
