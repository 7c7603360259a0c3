# SPDX-License-Identifier: Apache-2.0
"""multiprocessing.managers over TCP: one server process, nothing replicated."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

from harness.adapter import HOST, Client, System, free_ports, wait_port

SERVER = Path(__file__).resolve().parent.parent / "servers" / "manager.py"


class ManagerClient(Client):
    def __init__(self, port: int):
        import multiprocessing as mp
        from multiprocessing.managers import AcquirerProxy, BarrierProxy, BaseManager, DictProxy

        class Shared(BaseManager):
            pass

        for name, proxy in (
            ("get_lock", AcquirerProxy),
            ("get_semaphore", AcquirerProxy),
            ("get_barrier", BarrierProxy),
            ("get_queue", None),
            ("get_counter", None),
            ("get_store", DictProxy),
        ):
            Shared.register(name, proxytype=proxy)
        mp.current_process().authkey = b"bench"
        self.m = Shared((HOST, port), authkey=b"bench")
        self.m.connect()
        self.store = self.m.get_store()

    def lock(self, name: str) -> Any:
        return self.m.get_lock(name)

    def semaphore(self, name: str, value: int) -> Any:
        return self.m.get_semaphore(name, value)

    def barrier(self, name: str, parties: int) -> Any:
        return self.m.get_barrier(name, parties)

    def queue(self, name: str) -> Any:
        return self.m.get_queue(name)

    def counter(self, name: str) -> Any:
        return self.m.get_counter(name)

    def put(self, key: str, value: bytes) -> None:
        self.store[key] = value


class Manager(System):
    features = frozenset({"lock", "semaphore", "queue", "barrier", "counter", "put"})
    nodes = 1
    durability = "none: memory of one process"
    failover = False
    notes = "a thread in the server for each client thread; the counter is a registered class of ours"

    def start(self) -> None:
        (self.port,) = free_ports(1)
        self.spawn("manager", [sys.executable, str(SERVER), str(self.port)])
        wait_port(self.port, 10)

    def endpoints(self) -> int:
        return self.port

    def kill_leader(self) -> str:
        self.kill("manager")
        return "the only server"

    def versions(self) -> dict[str, str]:
        return {"python": platform.python_version()}

    @staticmethod
    def connect(endpoints: int, client_id: str) -> Client:
        return ManagerClient(endpoints)


SYSTEMS = {"syncmanager": Manager}
