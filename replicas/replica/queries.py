# SPDX-License-Identifier: Apache-2.0
"""What people ask of one replica, and its answers: from its own state, without a quorum, so they may be a moment old.

One question changes something, `delete`. It goes through the log like any command, and is answered when it is applied.
"""

from __future__ import annotations

from typing import Any, Final

from dthreading.errors import ProtocolError
from dthreading.wire.messages import Answer, Query
from replicas.machine import commands
from replicas.machine.core import Effects, Machine
from replicas.paxos.core import Paxos
from replicas.paxos.types import Role
from replicas.replica.hosting import Hosting

__all__ = ["Deletions", "answer", "status"]

_ROLES: Final = {Role.LEADER: "leader", Role.LEARNER: "newcomer"}


def status(paxos: Paxos, machine: Machine, hosting: Hosting, snapshot_slot: int) -> dict[str, Any]:
    """What `dthreading status` shows of a replica, besides what only its shell knows."""
    return {
        "replica": paxos.replica,
        "role": _ROLES.get(paxos.role, "follower"),
        "epoch": paxos.configuration.epoch,
        "leader": paxos.leader,
        "ballot": list(paxos.ballot),
        "chosen": paxos.chosen,
        "applied": machine.applied,
        "snapshot": snapshot_slot,
        "digest": machine.digest.hex(),
        "connections": len(hosting.connections),
        "pending": hosting.pending_count,
        **machine.describe("status"),
    }


def answer(machine: Machine, query: Query) -> Answer:
    """The answer to a question about the replicated state.

    Raises:
        ProtocolError: there is no such question.

    """
    try:
        return Answer(query.number, machine.describe(query.question, query.arguments))
    except (KeyError, TypeError):
        arguments = len(query.arguments)
        raise ProtocolError(f"no question {query.question!r} with {arguments} arguments is known") from None


class Deletions:
    """Who waits to hear whether there was anything to delete."""

    def __init__(self) -> None:
        # All who ask for the same wait for one command, whichever connection it speaks for by now.
        self._waiting: dict[tuple[str, str], list[tuple[int, int]]] = {}

    def ask(self, connection: int, query: Query) -> bytes:
        """The command that does it, to be put into the log.

        Raises:
            ProtocolError: the arguments are not a namespace and a name.

        """
        match query.arguments:
            case (str() as namespace, str() as name):
                self._waiting.setdefault((namespace, name), []).append((connection, query.number))
                return commands.delete(namespace, name)
            case _:
                raise ProtocolError("delete takes a namespace and a name")

    def applied(self, effects: Effects) -> list[tuple[int, Answer]]:
        """A command was applied: the answers that are due, each with its connection."""
        return [
            (connection, Answer(number, existed))
            for namespace, name, existed in effects.deleted
            for connection, number in self._waiting.pop((namespace, name), [])
        ]

    def gone(self, connection: int) -> None:
        """Nobody waits there any more."""
        for key, waiting in list(self._waiting.items()):
            self._waiting[key] = left = [one for one in waiting if one[0] != connection]
            if not left:
                del self._waiting[key]
