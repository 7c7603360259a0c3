# SPDX-License-Identifier: Apache-2.0
"""A machine with a log at hand, and clients that speak to it in its own words. For tests; no I/O."""

from __future__ import annotations

import itertools
from typing import Any

from dthreading.errors import from_wire
from dthreading.wire import messages as wire
from dthreading.wire.messages import Lifetime, Reply, Status
from replicas.machine import commands
from replicas.machine.core import Effects, Machine
from replicas.paxos.values import Ballot, Entry, EntryKind, encode_ballot


class Parked:
    """What `Client.call` returns when the call waits."""

    def __repr__(self) -> str:
        return "PARKED"


PARKED = Parked()


class Bench:
    """One machine, its log, and who is to hear what.

    Args:
        machine: where to begin; a new one when left out.

    """

    def __init__(self, machine: Machine | None = None) -> None:
        self.machine = machine or Machine()
        self.log: list[Entry] = []
        self.heard: dict[int, list[Any]] = {}
        self.last = Effects()

    def apply(self, value: bytes, kind: int = EntryKind.COMMAND) -> Effects:
        entry = Entry(self.machine.applied + 1, Ballot(1, 1), kind, value)
        self.log.append(entry)
        self.last = self.machine.apply(entry)
        assert not self.last.faults, self.last.faults
        for session, message in self.last.replies:
            self.heard.setdefault(session, []).append(message)
        return self.last

    def do(self, command: Any) -> Effects:
        return self.apply(commands.codec.encode(command))

    def leads(self, round: int = 1, replica: int = 1) -> None:
        self.apply(encode_ballot(Ballot(round, replica)), EntryKind.LEADS)

    def open(self, label: str = "", namespace: str = "n", ttl_ms: int = 10_000) -> Client:
        nonce = f"nonce {self.machine.applied}".encode()
        effects = self.do(wire.Open(nonce, ttl_ms, namespace, label))
        ((session, _),) = effects.opened
        return Client(self, session, nonce)

    def expire(self, client: Client) -> Effects:
        known = self.machine.sessions[client.id]
        return self.do(commands.Expire(client.id, known.epoch, *self.machine.ballot_in_force))

    def object(self, name: str, namespace: str = "n") -> Any:
        return self.machine.registry.objects.get((namespace, name))


class Client:
    """One session. `call` uses a new lane each time unless it is told one, and returns the answer or PARKED."""

    def __init__(self, bench: Bench, session: int, nonce: bytes) -> None:
        self.bench = bench
        self.id = session
        self.nonce = nonce
        self.lanes = itertools.count(100)
        self.handles = itertools.count(1)
        self.numbers: dict[int, int] = {}
        self.last: tuple[int, int] = (0, 0)

    def attach(
        self, kind: str, name: str, *arguments: Any, lifetime: int = Lifetime.NAMED, create: bool = True,
        namespace: str = "n",
    ) -> Handle:  # fmt: skip
        handle = next(self.handles)
        self.bench.do(wire.Attach(self.id, handle, namespace, name, kind, arguments, int(lifetime), create))
        return Handle(self, handle)

    def call(self, handle: int, operation: str, *arguments: Any, lane: int | None = None, tell: bool = False) -> Any:
        lane = next(self.lanes) if lane is None else lane
        number = self.numbers[lane] = self.numbers.get(lane, 0) + 1
        self.last = (lane, number)
        self.bench.do(wire.Call(self.id, lane, number, handle, operation, arguments, tell))
        return self.outcome((lane, number))

    def again(self, handle: int, operation: str, *arguments: Any, call: tuple[int, int]) -> list[Any]:
        """A copy of a call; what is said to it."""
        before = len(self.heard)
        self.bench.do(wire.Call(self.id, *call, handle, operation, arguments, False))
        return self.heard[before:]

    def withdraw(self, call: tuple[int, int], *, undo: bool = False) -> Any:
        self.bench.do(wire.Withdraw(self.id, *call, undo))
        return self.outcome(call)

    def acknowledge(self, *calls: tuple[int, int]) -> None:
        self.bench.do(wire.Acknowledge(self.id, calls))

    def close(self) -> Effects:
        return self.bench.do(wire.Close(self.id))

    @property
    def heard(self) -> list[Any]:
        return self.bench.heard.setdefault(self.id, [])

    def outcome(self, call: tuple[int, int]) -> Any:
        """The answer that came to a call, raised if it is an error; PARKED when none did."""
        for message in reversed(self.heard):
            if isinstance(message, Reply) and (message.lane, message.number) == call:
                if message.status == Status.ERROR:
                    raise from_wire(*message.value)
                if message.status == Status.OK:
                    return message.value
        return PARKED


class Handle:
    """An attachment: `lock.acquire(True, 1)` is the call; `lock.last` names it."""

    def __init__(self, client: Client, number: int) -> None:
        self.client = client
        self.number = number

    def __getattr__(self, operation: str) -> Any:
        return lambda *arguments, **how: self.client.call(self.number, operation, *arguments, **how)

    def parked(self, operation: str, *arguments: Any) -> Any:
        """A call that must wait; a function that gives its outcome."""
        assert self.client.call(self.number, operation, *arguments) is PARKED
        return Pending(self.client, self.client.last)

    def detach(self) -> None:
        self.client.bench.do(wire.Detach(self.client.id, self.number))


class Pending:
    """A call that was parked."""

    def __init__(self, client: Client, call: tuple[int, int]) -> None:
        self.client = client
        self.call = call

    @property
    def waits(self) -> bool:
        lane = self.client.bench.machine.sessions[self.client.id].lanes[self.call[0]]
        return lane.number == self.call[1] and lane.waiter is not None

    def outcome(self) -> Any:
        return self.client.outcome(self.call)

    def withdraw(self, *, undo: bool = False) -> Any:
        return self.client.withdraw(self.call, undo=undo)
