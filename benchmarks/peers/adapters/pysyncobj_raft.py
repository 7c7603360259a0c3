# SPDX-License-Identifier: Apache-2.0
"""PySyncObj, 3 members in processes of their own; clients are its nameless (observer) nodes.

An observer is a full copy of the state: it applies every entry, and forwards
its own commands to the leader.  ReplLockManager has no blocking acquire, so
waiters poll tryAcquire; its owner is a process-wide id, so each thread here
passes an id of its own, or threads of one process would all hold the lock.

pysyncobj          appendEntriesUseBatch=False, the setting for short answers
pysyncobj-journal  the same with a journal file
pysyncobj-batch    the default: a leader sends entries every 0.1 s
"""

from __future__ import annotations

import importlib.metadata
import sys
import threading
import time
from pathlib import Path
from typing import Any

from harness.adapter import HOST, Client, System, free_ports, wait_until

SERVER = Path(__file__).resolve().parent.parent / "servers" / "pysyncobj_node.py"
POLL = 0.002
TIMEOUT = 2.0


class Observer(Client):
    def __init__(self, endpoints: tuple[list[str], bool], client_id: str):
        members, batch = endpoints
        from pysyncobj import SyncObj, SyncObjConf

        sys.path.insert(0, str(SERVER.parent))
        from pysyncobj_node import consumers

        self.client_id, self.serial, self.guard = client_id, 0, threading.Lock()
        self.manager, self.count, self.table, self.queues = consumers(client_id)
        self.obj = SyncObj(
            None,
            members,
            consumers=[self.manager, self.count, self.table, *self.queues],
            conf=SyncObjConf(appendEntriesUseBatch=batch),
        )
        wait_until(self.obj.isReady, 30, "PySyncObj observer")

    def lock(self, name: str) -> Any:
        with self.guard:
            self.serial += 1
            return ObserverLock(self.manager._consumer(), name, f"{self.client_id}/{self.serial}")

    def queue(self, name: str) -> Any:
        return ObserverQueue(self.queues[int(name.rsplit("-", 1)[1]) % len(self.queues)])

    def counter(self, name: str) -> Any:
        return ObserverCounter(self.count)

    def put(self, key: str, value: bytes) -> None:
        self.table.set(key, value, sync=True, timeout=TIMEOUT)

    def close(self) -> None:
        self.manager.destroy()
        self.obj.destroy()


class ObserverLock:
    def __init__(self, impl: Any, name: str, owner: str):
        self.impl, self.name, self.owner = impl, name, owner

    def acquire(self) -> None:
        while not self.impl.acquire(self.name, self.owner, time.time(), sync=True, timeout=TIMEOUT):
            time.sleep(POLL)

    def release(self) -> None:
        self.impl.release(self.name, self.owner, sync=True, timeout=TIMEOUT)


class ObserverQueue:
    def __init__(self, inner: Any):
        self.inner = inner

    def put(self, item: bytes) -> None:
        self.inner.put(item, sync=True, timeout=TIMEOUT)

    def get(self) -> bytes:
        while True:
            item = self.inner.get(sync=True, timeout=TIMEOUT)
            if item is not None:
                return item
            time.sleep(POLL)


class ObserverCounter:
    def __init__(self, inner: Any):
        self.incr = lambda: inner.inc(sync=True, timeout=TIMEOUT)


class PySyncObj(System):
    features = frozenset({"lock", "queue", "counter", "put"})
    nodes = 3
    durability = "none: memory of three processes"
    crash_ttl = 75.0
    shrink_pool = True
    journal = False
    batch = False
    notes = "clients are observer nodes; waiters poll every 2 ms (the library only has tryAcquire)"

    def start(self) -> None:
        ports = free_ports(3)
        self.members = {f"n{i}": f"{HOST}:{p}" for i, p in enumerate(ports)}
        for n, address in self.members.items():
            others = ",".join(a for a in self.members.values() if a != address)
            self.spawn(
                n,
                [
                    sys.executable,
                    str(SERVER),
                    address,
                    others,
                    str(self.workdir / f"{n}.journal") if self.journal else "-",
                    str(self.workdir / f"{n}.leader"),
                    str(int(self.batch)),
                ],
            )
        wait_until(self.leader, self.start_timeout, "PySyncObj leader")
        time.sleep(1.0)

    def leader(self) -> str | None:
        for n in self.procs:
            path = self.workdir / f"{n}.leader"
            if path.exists():
                address = path.read_text()
                for name, a in self.members.items():
                    if a == address and name in self.procs:
                        return name
        return None

    def endpoints(self) -> tuple[list[str], bool]:
        return list(self.members.values()), self.batch

    def kill_leader(self) -> str:
        n = self.leader()
        assert n
        self.kill(n)
        return f"leader {n}"

    def versions(self) -> dict[str, str]:
        return {"pysyncobj": importlib.metadata.version("pysyncobj")}

    @staticmethod
    def connect(endpoints: tuple[list[str], bool], client_id: str) -> Client:
        return Observer(endpoints, client_id)


class PySyncObjJournal(PySyncObj):
    journal = True
    durability = "memory-mapped journal, entries never flushed to disk by the library (no fsync option)"


class PySyncObjBatch(PySyncObj):
    batch = True


SYSTEMS = {"pysyncobj": PySyncObj, "pysyncobj-journal": PySyncObjJournal, "pysyncobj-batch": PySyncObjBatch}
