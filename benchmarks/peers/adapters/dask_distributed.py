# SPDX-License-Identifier: Apache-2.0
"""dask.distributed: one scheduler, nothing replicated."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Any

from harness.adapter import HOST, Client, System, free_ports, wait_port


class DaskClient(Client):
    def __init__(self, address: str):
        from distributed import Client as Dask

        self.c = Dask(address, set_as_default=True)
        self.variables: dict[str, Any] = {}

    def lock(self, name: str) -> Any:
        from distributed import Lock

        return Lock(name, scheduler_rpc=self.c.scheduler, loop=self.c.loop)

    def semaphore(self, name: str, value: int) -> Any:
        from distributed import Semaphore

        return Semaphore(max_leases=value, name=name, scheduler_rpc=self.c.scheduler, loop=self.c.loop)

    def queue(self, name: str) -> Any:
        from distributed import Queue

        return Queue(name, client=self.c)

    def put(self, key: str, value: bytes) -> None:
        from distributed import Variable

        if key not in self.variables:
            self.variables[key] = Variable(key, client=self.c)
        self.variables[key].set(value)

    def close(self) -> None:
        self.c.close(timeout=2)


class Dask(System):
    features = frozenset({"lock", "semaphore", "queue", "put"})
    nodes = 1
    durability = "none: memory of one process"
    failover = False
    crash_ttl = 30.0
    notes = "Lock is a Semaphore of one lease that times out after 30 s without a refresh"

    def start(self) -> None:
        (self.port,) = free_ports(1)
        self.spawn(
            "scheduler",
            [
                sys.executable,
                "-m",
                "distributed.cli.dask_scheduler",
                "--host",
                HOST,
                "--port",
                str(self.port),
                "--no-dashboard",
                "--dashboard-address",
                ":0",
            ],
        )
        wait_port(self.port, 30)

    def endpoints(self) -> str:
        return f"tcp://{HOST}:{self.port}"

    def kill_leader(self) -> str:
        self.kill("scheduler")
        return "the only server"

    def versions(self) -> dict[str, str]:
        return {"distributed": importlib.metadata.version("distributed")}

    @staticmethod
    def connect(endpoints: str, client_id: str) -> Client:
        return DaskClient(endpoints)


SYSTEMS = {"dask": Dask}
