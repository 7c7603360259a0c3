# SPDX-License-Identifier: Apache-2.0
"""dthreading, 3 replicas, our defaults; clients are what `import dthreading as threading` gives.

dthreading         every commit is synced to disk by a quorum before it is answered
dthreading-memory  replicas that keep nothing on disk
"""

from __future__ import annotations

import importlib.metadata
import json
import secrets
import subprocess
import sys
from typing import Any

from harness.adapter import HOST, Client, System, free_ports, wait_until

NAMESPACE = "peers"


class DthreadingClient(Client):
    """The process's one client: threads and objects share its session."""

    def __init__(self, endpoints: tuple[str, str]):
        import dthreading
        import dthreading.queue

        servers, secret = endpoints
        dthreading.configure(servers=servers, secret=secret, namespace=NAMESPACE)
        self._mirror, self._queues = dthreading, dthreading.queue

    def lock(self, name: str) -> Any:
        return self._mirror.Lock(name=name)

    def semaphore(self, name: str, value: int) -> Any:
        return self._mirror.Semaphore(value, name=name)

    def queue(self, name: str) -> Any:
        return self._queues.Queue(name=name)

    def barrier(self, name: str, parties: int) -> Any:
        return self._mirror.Barrier(parties, name=name)


class Dthreading(System):
    """Three `dthreading-server` processes."""

    features = frozenset({"lock", "semaphore", "queue", "barrier"})
    nodes = 3
    durability = "synced to the disks of a quorum"
    crash_ttl = 10.0
    memory = False
    notes = "a killed holder's lock is freed as soon as its connection breaks and its lease is over"

    def start(self) -> None:
        self.addresses = [f"{HOST}:{port}" for port in free_ports(3)]
        self.secret = self.workdir / "secret"
        self.secret.write_text(secrets.token_hex(32))
        self.secret.chmod(0o600)
        for number, address in enumerate(self.addresses):
            where = ["--memory"] if self.memory else ["--data-dir", str(self.workdir / f"data{number}")]
            options = ["--listen", address, "--cluster", ",".join(self.addresses), "--secret-file", str(self.secret)]
            self.spawn(address, [sys.executable, "-m", "replicas.cli", *options, *where])
        wait_until(self.leader, self.start_timeout, "a leader")

    def leader(self) -> str | None:
        command = [sys.executable, "-m", "dthreading.cli", "status", "--json", "--secret-file", str(self.secret)]
        told = subprocess.run(
            [*command, "--servers", ",".join(self.procs)], capture_output=True, text=True, check=False
        )
        rows = json.loads(told.stdout or '{"replicas": []}')["replicas"]
        return next((row["address"] for row in rows if row.get("role") == "leader"), None)

    def endpoints(self) -> tuple[str, str]:
        return ",".join(self.addresses), str(self.secret)

    def kill_leader(self) -> str:
        leader = self.leader()
        assert leader is not None
        self.kill(leader)
        return f"leader {leader}"

    def versions(self) -> dict[str, str]:
        return {"dthreading": importlib.metadata.version("dthreading")}

    @staticmethod
    def connect(endpoints: tuple[str, str], client_id: str) -> Client:
        return DthreadingClient(endpoints)


class DthreadingMemory(Dthreading):
    """The same without disks."""

    memory = True
    durability = "none: memory of three processes"


SYSTEMS = {"dthreading": Dthreading, "dthreading-memory": DthreadingMemory}
