# SPDX-License-Identifier: Apache-2.0
"""Redis, 1 node, append-only file.

redis-everysec   redis-py Lock; list as queue; INCR
redis-always     the same, appendfsync always
redis-sleep1ms   redis-everysec with Lock(sleep=0.001) in place of the default 0.1
redis-pylock     the lock of python-redis-lock
redis-pottery    pottery's Redlock and RedisSimpleQueue on one master
"""

from __future__ import annotations

import importlib.metadata
import subprocess
from typing import Any

from harness.adapter import HOST, Client, System, free_ports, program, wait_port


class RedisClient(Client):
    sleep = 0.1  # redis-py's default

    def __init__(self, port: int):
        import redis

        self.r = redis.Redis(HOST, port)
        self.r.ping()

    def lock(self, name: str) -> Any:
        return self.r.lock(name, sleep=self.sleep)

    def queue(self, name: str) -> Any:
        return ListQueue(self.r, name)

    def counter(self, name: str) -> Any:
        return Incr(self.r, name)

    def put(self, key: str, value: bytes) -> None:
        self.r.set(key, value)

    def close(self) -> None:
        self.r.close()


class ListQueue:
    def __init__(self, r: Any, name: str):
        self.r, self.name = r, name

    def put(self, item: bytes) -> None:
        self.r.lpush(self.name, item)

    def get(self) -> bytes:
        return self.r.brpop([self.name])[1]


class Incr:
    def __init__(self, r: Any, name: str):
        self.incr = lambda: r.incr(name)


class Sleep1msClient(RedisClient):
    sleep = 0.001


class PylockClient(RedisClient):
    def lock(self, name: str) -> Any:
        import redis_lock

        return redis_lock.Lock(self.r, name)


class PotteryClient(RedisClient):
    def lock(self, name: str) -> Any:
        from pottery import Redlock

        return Redlock(key=name, masters={self.r})

    def queue(self, name: str) -> Any:
        from pottery import RedisSimpleQueue

        return TextQueue(RedisSimpleQueue(redis=self.r, key=name))


class TextQueue:
    """pottery stores JSON, so bytes travel as latin-1 text.

    Its blocking get() raises QueueEmptyError when it waited and then saw the
    queue change, so it is called again.
    """

    def __init__(self, inner: Any):
        self.inner = inner

    def put(self, item: bytes) -> None:
        self.inner.put(item.decode("latin-1"))

    def get(self) -> bytes:
        from pottery.exceptions import QueueEmptyError

        while True:
            try:
                return self.inner.get().encode("latin-1")
            except QueueEmptyError:
                continue


class Redis(System):
    features = frozenset({"lock", "queue", "counter", "put"})
    nodes = 1
    fsync = "everysec"
    durability = "append-only file, fsync once a second"
    failover = False
    crash_ttl = None
    notes = "one server; redis-py Lock polls every 0.1 s and has no timeout by default"
    packages = ("redis",)
    client: type[RedisClient] = RedisClient

    def start(self) -> None:
        (self.port,) = free_ports(1)
        self.spawn(
            "redis",
            [
                program(self.options, "redis.bin", "redis-server"),
                "--port",
                str(self.port),
                "--bind",
                HOST,
                "--dir",
                str(self.workdir),
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                self.fsync,
            ],
        )
        wait_port(self.port, 10)

    def endpoints(self) -> int:
        return self.port

    def kill_leader(self) -> str:
        self.kill("redis")
        return "the only server"

    def versions(self) -> dict[str, str]:
        text = subprocess.run(
            [program(self.options, "redis.bin", "redis-server"), "--version"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        return {
            "redis-server": text.split("v=")[1].split()[0],
            **{p: importlib.metadata.version(p) for p in self.packages},
        }

    @classmethod
    def connect(cls, endpoints: int, client_id: str) -> Client:
        return cls.client(endpoints)


class RedisAlways(Redis):
    fsync = "always"
    durability = "append-only file, fsync before a reply"


class RedisSleep1ms(Redis):
    features = frozenset({"lock"})
    client = Sleep1msClient
    notes = "redis-py Lock(sleep=0.001)"


class RedisPylock(Redis):
    features = frozenset({"lock"})
    client = PylockClient
    packages = ("redis", "python-redis-lock")
    notes = "waiters block on BLPOP; no expiry by default"


class RedisPottery(Redis):
    features = frozenset({"lock", "queue"})
    client = PotteryClient
    crash_ttl = 10.0
    packages = ("redis", "pottery")
    notes = "Redlock on one master; waiters poll at random intervals"


SYSTEMS = {
    "redis-everysec": Redis,
    "redis-always": RedisAlways,
    "redis-sleep1ms": RedisSleep1ms,
    "redis-pylock": RedisPylock,
    "redis-pottery": RedisPottery,
}
