# SPDX-License-Identifier: Apache-2.0
"""The interface that one benchmarked system implements.

A System lives in the parent process (run.py): it starts and stops servers.
A Client lives in a worker process, is shared by that worker's threads, and
makes the objects that the workloads drive.  Every object is called by one
thread only, and each thread makes its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"


class Unsupported(Exception):
    """Raised by a Client factory for a primitive that the peer does not offer."""


class Client:
    """Client side of a system.  Override what the system offers."""

    def lock(self, name: str) -> Any:
        """Object with acquire() (blocking) and release()."""
        raise Unsupported("lock")

    def semaphore(self, name: str, value: int) -> Any:
        """Object with acquire() (blocking) and release()."""
        raise Unsupported("semaphore")

    def queue(self, name: str) -> Any:
        """Object with put(bytes) and get() -> bytes (blocking)."""
        raise Unsupported("queue")

    def barrier(self, name: str, parties: int) -> Any:
        """Object with wait(); reusable for any number of cycles."""
        raise Unsupported("barrier")

    def counter(self, name: str) -> Any:
        """Object with incr(), an atomic increment."""
        raise Unsupported("counter")

    def put(self, key: str, value: bytes) -> None:
        """One raw replicated write, the cheapest the peer has."""
        raise Unsupported("put")

    def recover(self) -> Client:
        """Called after an error in the failover workload; may return a new Client."""
        return self

    def close(self) -> None:
        pass


class System:
    """Server side of a system.  Subclasses set the class attributes below."""

    features: frozenset[str] = frozenset()  # lock queue semaphore barrier counter put
    nodes = 1  # server processes that hold the data
    durability = ""  # what is on disk when an operation returns
    crash_ttl: float | None = None  # default seconds until a dead holder's lock frees
    failover = True  # False: a single server, nothing takes over
    shrink_pool = False  # True: idle client processes cost the servers work
    start_timeout = 60.0
    warm_seconds = 0.0  # load before the first cell, for servers with a JIT
    notes = ""

    def __init__(self, workdir: Path, options: dict[str, str]):
        self.workdir = workdir
        self.options = options
        self.procs: dict[str, subprocess.Popen] = {}

    # -- to implement ----------------------------------------------------
    def start(self) -> None:
        raise NotImplementedError

    def endpoints(self) -> Any:
        """Picklable value that connect() gets in each worker."""
        raise NotImplementedError

    def kill_leader(self) -> str:
        """SIGKILL the node that leads; returns a description."""
        raise NotImplementedError

    def versions(self) -> dict[str, str]:
        return {}

    @staticmethod
    def connect(endpoints: Any, client_id: str) -> Client:
        raise NotImplementedError

    # -- shared ----------------------------------------------------------
    def spawn(self, name: str, argv: list[str], env: dict[str, str] | None = None) -> subprocess.Popen:
        with (self.workdir / f"{name}.log").open("ab") as log:
            proc = subprocess.Popen(
                argv,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.workdir,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self.procs[name] = proc
        return proc

    def kill(self, name: str) -> None:
        proc = self.procs.pop(name)
        proc.send_signal(signal.SIGKILL)
        proc.wait()

    def server_pids(self) -> list[int]:
        return [p.pid for p in self.procs.values() if p.poll() is None]

    def stop(self) -> None:
        for proc in self.procs.values():
            if proc.poll() is None:
                proc.terminate()
        deadline = time.monotonic() + 5
        for proc in self.procs.values():
            try:
                proc.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                proc.kill()
                proc.wait()
        self.procs.clear()


def free_ports(count: int) -> list[int]:
    socks = []
    for _ in range(count):
        s = socket.socket()
        s.bind((HOST, 0))
        socks.append(s)
    ports = [s.getsockname()[1] for s in socks]
    for s in socks:
        s.close()
    return ports


def wait_port(port: int, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((HOST, port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"port {port} not open after {timeout} s") from None
            time.sleep(0.05)


def wait_until(probe: Any, timeout: float, what: str) -> Any:
    """Polls probe() until it returns a true value; exceptions count as false."""
    deadline = time.monotonic() + timeout
    last: Exception | None = None
    while time.monotonic() < deadline:
        try:
            got = probe()
            if got:
                return got
        except Exception as exc:
            last = exc
        time.sleep(0.1)
    raise TimeoutError(f"{what} not ready after {timeout} s: {last!r}")


def program(options: dict[str, str], option: str, name: str) -> str:
    path = options.get(option) or shutil.which(name)
    if not path:
        raise FileNotFoundError(f"{name} not found; give --opt {option}=PATH")
    return path
