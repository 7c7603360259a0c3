# SPDX-License-Identifier: Apache-2.0
"""Start here for a new system: copy to adapters/NAME.py (run.py skips this file).

Imports of the system's own package belong inside the client class, so that
run.py works where the package is not installed.
"""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Any

from harness.adapter import HOST, Client, System, free_ports, wait_port


class MyClient(Client):
    """One in each worker process, shared by its threads; each thread makes its own objects."""

    def __init__(self, endpoints: Any):
        self.endpoints = endpoints  # connect here

    def lock(self, name: str) -> Any:
        raise NotImplementedError  # -> acquire(), release()

    # likewise semaphore(name, value), queue(name), barrier(name, parties), counter(name), put(key, value)

    def recover(self) -> Client:
        return self  # after an error in the failover workload


class MySystem(System):
    features = frozenset({"lock"})  # of lock semaphore queue barrier counter put
    nodes = 3
    durability = "what is on disk when an operation returns"
    crash_ttl = None  # default seconds until a dead holder's lock is freed
    failover = True

    def start(self) -> None:
        self.ports = free_ports(3)
        for i, port in enumerate(self.ports):
            self.spawn(f"n{i}", [sys.executable, "-m", "my_server", str(port)])
        for port in self.ports:
            wait_port(port, self.start_timeout)

    def endpoints(self) -> Any:
        return [f"{HOST}:{p}" for p in self.ports]

    def kill_leader(self) -> str:
        self.kill("n0")  # find out who leads first
        return "leader n0"

    def versions(self) -> dict[str, str]:
        return {"my-package": importlib.metadata.version("my-package")}

    @staticmethod
    def connect(endpoints: Any, client_id: str) -> Client:
        return MyClient(endpoints)


SYSTEMS = {"my-system": MySystem}
