# SPDX-License-Identifier: Apache-2.0
"""ZooKeeper ensemble of 3 with kazoo's recipes."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import subprocess
import time
from typing import Any

from harness.adapter import HOST, Client, System, free_ports, program, wait_until


class KazooQueue:
    def __init__(self, inner: Any):
        self.inner = inner
        self.put = inner.put

    def get(self) -> bytes:
        value = self.inner.get()
        self.inner.consume()
        return value


class KazooBarrier:
    """Only the enter half of DoubleBarrier, each cycle on a path of its own.

    enter + leave hangs after a few cycles where two parties share a KazooClient,
    as threads of one process do: a party that looks late finds neither the
    "ready" node nor enough members, because the others leave already.
    """

    def __init__(self, zk: Any, path: str, parties: int):
        self.zk, self.path, self.parties, self.cycle = zk, path, parties, 0

    def wait(self) -> None:
        self.cycle += 1
        self.zk.DoubleBarrier(f"{self.path}/{self.cycle}", self.parties, str(id(self))).enter()


class KazooCounter:
    def __init__(self, inner: Any):
        self.inner = inner

    def incr(self) -> None:
        self.inner += 1


class ZkClient(Client):
    def __init__(self, hosts: str):
        from kazoo.client import KazooClient

        self.zk = KazooClient(hosts=hosts, randomize_hosts=False)  # the leader is named first
        self.zk.start(timeout=30)
        self.made: set[str] = set()

    def lock(self, name: str) -> Any:
        return self.zk.Lock(f"/lock/{name}")

    def semaphore(self, name: str, value: int) -> Any:
        return self.zk.Semaphore(f"/sem/{name}", max_leases=value)

    def queue(self, name: str) -> Any:
        return KazooQueue(self.zk.LockingQueue(f"/queue/{name}"))

    def barrier(self, name: str, parties: int) -> Any:
        return KazooBarrier(self.zk, f"/barrier/{name}", parties)

    def counter(self, name: str) -> Any:
        return KazooCounter(self.zk.Counter(f"/counter/{name}"))

    def put(self, key: str, value: bytes) -> None:
        path = f"/kv/{key}"
        if key not in self.made:
            self.zk.ensure_path(path)
            self.made.add(key)
        self.zk.set(path, value)

    def close(self) -> None:
        self.zk.stop()
        self.zk.close()


class ZooKeeper(System):
    features = frozenset({"lock", "semaphore", "queue", "barrier", "counter", "put"})
    nodes = 3
    durability = "transaction log fsync on a majority before a reply (forceSync=yes)"
    crash_ttl = 10.0  # kazoo's default session timeout
    notes = "clients connect to the leader; queue is LockingQueue, barrier is DoubleBarrier.enter on fresh paths"
    force_sync = "yes"
    warm_seconds = 4.0

    def classpath(self) -> str:
        given = self.options.get("zookeeper.classpath") or os.environ.get("ZOOKEEPER_CLASSPATH")
        if given:
            return given
        listing = subprocess.run(
            ["dpkg", "-L", "libzookeeper-java"], capture_output=True, text=True, check=False
        ).stdout
        for line in listing.splitlines():
            if line.endswith("/zookeeper.jar"):
                return line
        raise FileNotFoundError("zookeeper.jar not found; give --opt zookeeper.classpath=...")

    def start(self) -> None:
        java = program(self.options, "zookeeper.java", "java")
        classpath = self.classpath()
        ports = free_ports(9)
        self.client_ports = {f"n{i}": ports[i] for i in (0, 1, 2)}
        servers = "".join(f"server.{i + 1}={HOST}:{ports[3 + i]}:{ports[6 + i]}\n" for i in (0, 1, 2))
        for i, (n, port) in enumerate(self.client_ports.items()):
            data = self.workdir / n
            data.mkdir()
            (data / "myid").write_text(f"{i + 1}\n")
            (data / "zoo.cfg").write_text(
                f"tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={data}\nclientPort={port}\n"
                f"clientPortAddress={HOST}\nadmin.enableServer=false\nmaxClientCnxns=0\n"
                f"4lw.commands.whitelist=srvr\n{servers}"
            )
            self.spawn(
                n,
                [
                    java,
                    "-Xms128m",
                    "-Xmx512m",
                    f"-Dzookeeper.forceSync={self.force_sync}",
                    "-cp",
                    classpath,
                    "org.apache.zookeeper.server.quorum.QuorumPeerMain",
                    str(data / "zoo.cfg"),
                ],
            )
        wait_until(
            lambda: len([n for n in self.client_ports if "Mode:" in self.srvr(n)]) == 3,
            self.start_timeout,
            "ZooKeeper ensemble",
        )
        time.sleep(1.0)

    def srvr(self, node: str) -> str:
        with socket.create_connection((HOST, self.client_ports[node]), 1) as s:
            s.settimeout(1)
            s.sendall(b"srvr")
            out = b""
            while True:
                data = s.recv(65536)
                if not data:
                    return out.decode()
                out += data

    def leader(self) -> str | None:
        for n in self.client_ports:
            try:
                if "Mode: leader" in self.srvr(n):
                    return n
            except OSError:
                continue
        return None

    def endpoints(self) -> str:
        first = self.leader()
        names = sorted(self.client_ports, key=lambda n: n != first)
        return ",".join(f"{HOST}:{self.client_ports[n]}" for n in names)

    def kill_leader(self) -> str:
        n = self.leader()
        assert n
        self.kill(n)
        return f"leader {n}"

    def versions(self) -> dict[str, str]:
        line = self.srvr("n0").splitlines()[0]
        return {"zookeeper": line.split()[2].split("-")[0].rstrip(","), "kazoo": importlib.metadata.version("kazoo")}

    @staticmethod
    def connect(endpoints: str, client_id: str) -> Client:
        return ZkClient(endpoints)


class ZooKeeperNoSync(ZooKeeper):
    durability = "transaction log without fsync (forceSync=no)"
    force_sync = "no"


SYSTEMS = {"zookeeper": ZooKeeper, "zookeeper-nosync": ZooKeeperNoSync}
