# SPDX-License-Identifier: Apache-2.0
"""A replica's place in its group, as the daemon's joining.py finds it: the shipping Formation, and nothing else.

Simulated groups are formed before their world begins. What is left to find out is whether a directory is still the one
that the group was formed with: a replica whose data is gone says so to everybody, hears that the group exists, and ends
with that sentence, for good.
"""

from __future__ import annotations

from typing import Any

from replicas.paxos.types import Configuration
from replicas.paxos.values import encode_configuration
from replicas.replica.formation import Census, Formation, Phase
from replicas.replica.output import ReplicaOutput
from replicas.storage import Storage
from tests.sim.host import Gone

__all__ = ["Forming", "formation_of", "formed_record"]


def formed_record(configuration: Configuration) -> bytes:
    """What the identity of a formed group's replica holds."""
    return bytes([Phase.FORMED]) + encode_configuration(configuration)


def formation_of(storage: Storage, configuration: Configuration, replica: int, now_ms: int) -> Formation:
    """This replica's part, from what its directory says."""
    assert storage.identity is not None
    return Formation(
        addresses=tuple(member.address for member in configuration.members),
        replica=replica,
        incarnation=storage.identity.incarnation,
        formation=storage.identity.formation,
        cluster="another group",
        settings=b"",
        now_ms=now_ms,
    )


class Forming:
    """What a host runs instead of a replica while its directory belongs to no group."""

    def __init__(self, formation: Formation, now_ms: int) -> None:
        self._formation = formation
        self._now_ms = now_ms

    due = True
    """Whether to ask for its output: always."""

    @property
    def wake_ms(self) -> int:
        wake_ms = self._formation.wake_ms
        return wake_ms if wake_ms is not None else self._now_ms + 1_000

    def tick(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._formation.tick(now_ms)

    def peer_said(self, source: int, message: Any) -> None:
        """Whatever is no census is for a replica, which this is not (yet)."""
        if isinstance(message, Census):
            self._formation.step(source, message)

    def take(self) -> ReplicaOutput:
        """Raises Gone as soon as the group says that it exists."""
        output = self._formation.take()
        if output.refused is not None:
            raise Gone(output.refused)
        assert output.formed is None, "a group of which one is empty cannot form"
        assert output.persist is None
        said = ReplicaOutput()
        said.send_now += output.send
        return said

    def status(self) -> dict[str, str]:
        """For a failure's message."""
        return {"role": "forming"}
