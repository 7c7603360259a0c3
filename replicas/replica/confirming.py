# SPDX-License-Identifier: Apache-2.0
"""What only a true leader may answer: keepalives and reads, each after a heartbeat round that began when it had come;
and which calls are reads.

The layer between hosted.py and core.py: it knows the leader's tenure, and asks consensus whether it still lasts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING

from dthreading.wire import messages as wire
from replicas.replica.hosted import Hosted
from replicas.replica.leading import Reading, Tenure, Vouching
from replicas.replica.messages import Vouch, Vouched

if TYPE_CHECKING:
    from replicas.machine.core import Machine
    from replicas.paxos.core import Paxos

__all__ = ["Confirming"]


class Confirming(Hosted, ABC):
    """Calls and keepalives of a replica's clients."""

    def __init__(self, paxos: Paxos, machine: Machine, now_ms: int) -> None:
        super().__init__(paxos, machine)
        self._now_ms = now_ms
        self._tenure: Tenure | None = None  # set while this replica leads and its LEADS is applied here
        self._to_propose: deque[bytes] = deque()

    @abstractmethod
    def _submit(self, body: bytes, connection: int | None, call: wire.Call | None = None) -> None:
        """Into the log with it; `call` is what it says, if it is one."""

    @property
    def _leads(self) -> bool:
        return self.paxos.leads

    def _keepalive(self, vouching: Vouching) -> None:
        if self._tenure is not None:
            if self._tenure.vouches_for(vouching.session):
                self.paxos.confirm(vouching)
        elif vouching.source is None and self.paxos.leader is not None and not self._leads:
            self._output.send_now.append((self.paxos.leader, Vouch(vouching.session, vouching.beat)))

    def _called(self, connection: int, call: wire.Call, body: bytes) -> None:
        if call.session != self._hosting.link(connection).session:
            self._hang_up(connection, f"it speaks for session {call.session}, which is not the connection's")
        elif (code := self.machine.check(call)) is not None:
            self._refuse(connection, call, code)
        elif self._tenure is not None and self.machine.is_read(call):
            self._read(Reading(connection, call, body, self.paxos.last_proposed + len(self._to_propose)))
        else:
            self._submit(body, connection, call)

    def _read(self, reading: Reading) -> None:
        if not self.paxos.confirm(reading):
            self._submit(reading.body, reading.connection, reading.call)

    def _confirmed(self, token: object) -> None:
        tenure = self._tenure
        match token:
            case Vouching(source=source, session=session, beat=beat):
                if tenure is None or not tenure.heard(token):
                    return
                if source is None:
                    self._tell(session, wire.Alive(session, beat))
                else:
                    self._output.send_now.append((source, Vouched(session, beat)))
            case Reading() if tenure is not None:
                tenure.confirmed(token)
            case _:
                self._unconfirmed(token)

    def _unconfirmed(self, token: object) -> None:
        """Leadership has gone: a read goes through the log, and a keepalive's client will send the next."""
        if isinstance(token, Reading) and self._hosting.is_here(token.connection):
            self._submit(token.body, token.connection, token.call)

    def _answer_reads(self) -> None:
        if self._tenure is None:
            return
        for reading in self._tenure.answerable():
            if self._hosting.connection(reading.call.session) == reading.connection:
                self._output.to_clients.append((reading.connection, self.machine.read(reading.call)))
