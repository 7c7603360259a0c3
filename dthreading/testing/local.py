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
import threading
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from dthreading import config, holds, runtime
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

    def __init__(self) -> None:
        self.wake = _thread.allocate_lock()
        self.wake.acquire()
        self.reply: wire.Reply | None = None
        self.lost = False


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
        self._commands: deque[tuple[int, bytes, Callable[[], None] | None]] = deque()
        self._work = threading.Semaphore(0)
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

    def submit(self, command: bytes, *, kind: int | None = None, wait: bool = False) -> None:
        """The next entry of the log. With `wait`, returns when it was applied."""
        applied = _thread.allocate_lock()
        applied.acquire()
        self._commands.append(
            (self._kinds.COMMAND if kind is None else kind, command, applied.release if wait else None)
        )
        self._work.release()
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
        self._work.release()
        self._thread.join()
        for client in list(self._clients.values()):
            client.ended()

    def _run(self) -> None:
        while True:
            self._work.acquire()
            if self._stopping:
                return
            kind, command, applied = self._commands.popleft()
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
        self._nonces = 0
        self._begin_again()

    def _begin_again(self) -> None:
        self.session = 0
        self._handles: dict[Target, int] = {}
        self._next_handle = 0
        self._calls: dict[tuple[int, int], _Call] = {}
        self._free_lanes: list[int] = []
        self._numbers: list[int] = []

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
        while True:
            call, session, lane, number = self._begin(target, operation, arguments, others)
            try:
                if not call.wake.acquire(True, -1 if timeout is None or not manner.parks else timeout):
                    self._withdraw(session, lane, number, undo=False)
                    call.wake.acquire()
            except BaseException:
                self._interrupted(call, (session, lane, number), manner, kept)
                raise
            answer = self._end(call, session, lane, manner)
            if answer is not None:
                target.known = True
                return answer

    def holds_are_valid(self, session: int) -> bool:
        """As `runtime.Client.holds_are_valid`."""
        return session == self.session != 0

    def detach(self, target: Target) -> None:
        """As `runtime.Client.detach`."""
        handle = self._handles.pop(target, None)
        if handle is not None:
            self._group.submit(encode(wire.Detach(self.session, handle)))

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
            call = self._calls.get((message.lane, message.number))
            if call is not None and call.reply is None and message.status != wire.Status.PARKED:
                call.reply = message  # the first one: an answer is repeated to whoever withdraws too late
                call.wake.release()

    def ended(self) -> None:
        """The session is no more."""
        calls = list(self._calls.values())
        self._begin_again()
        for call in calls:
            call.lost = True
            with contextlib.suppress(RuntimeError):
                call.wake.release()

    # --- the parts of a call ---

    def _begin(
        self, target: Target, operation: str, arguments: tuple[Any, ...], others: tuple[Target, ...]
    ) -> tuple[_Call, int, int, int]:
        with self._opening:
            if not self.session:
                self._nonces += 1
                self.session = self._group.open(self, f"{id(self)} {self._nonces}".encode(), self._label)
            for one in (target, *others):
                if one not in self._handles:
                    self._attach(one)
            lane = self._free_lanes.pop() if self._free_lanes else self._new_lane()
            self._numbers[lane] += 1
            session, number = self.session, self._numbers[lane]
            handle = self._handles[target]
            values = tuple([self._handles[value] if type(value) is Target else value for value in arguments])
            call = self._calls[lane, number] = _Call()
        self._group.submit(encode(wire.Call(session, lane, number, handle, operation, unpack(pack(values)), True)))
        return call, session, lane, number

    def _attach(self, target: Target) -> None:
        self._next_handle += 1
        self._handles[target] = self._next_handle
        create = target.create and not (target.lifetime == wire.Lifetime.PRIVATE and target.known)
        attach = wire.Attach(
            self.session, self._next_handle, target.namespace, target.name, target.kind, target.arguments,
            target.lifetime, create,
        )  # fmt: skip
        self._group.submit(encode(attach))

    def _new_lane(self) -> int:
        self._numbers.append(0)
        return len(self._numbers) - 1

    def _withdraw(self, session: int, lane: int, number: int, *, undo: bool) -> None:
        self._group.submit(encode(wire.Withdraw(session, lane, number, undo)))

    def _interrupted(
        self, call: _Call, named: tuple[int, int, int], manner: Manner, kept: Callable[[Answer], object] | None
    ) -> None:
        session, lane, _ = named
        self._withdraw(*named, undo=not manner.interrupt_keeps)
        if not manner.interrupt_keeps:
            self._free(named[1], named[2])
            return
        call.wake.acquire()
        with contextlib.suppress(Exception):
            answer = self._end(call, session, lane, manner)
            if answer is not None and kept is not None:
                kept(answer)

    def _free(self, lane: int, number: int) -> None:
        if self._calls.pop((lane, number), None) is not None:
            self._free_lanes.append(lane)

    def _end(self, call: _Call, session: int, lane: int, manner: Manner) -> Answer | None:
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
        self._free(lane, reply.number)
        if reply.status == wire.Status.ERROR:
            raise from_wire(*reply.value)
        return Answer(reply.value, session)


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
        if former is None:
            config.unbind()
        else:
            process.clients[process.key] = former
        local.stop()
