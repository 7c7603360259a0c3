# SPDX-License-Identifier: Apache-2.0
"""What the machine itself takes for what no replicated call can do without: a round trip, a relayed one, and a sync."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

from benchmarks import placing
from benchmarks.harness import percentile
from benchmarks.placing import Placement
from tests.server.cluster import ROOT

MESSAGE_BYTES = 64
WRITE_BYTES = 4096


class Relay:
    """Blocking ping-pong over loopback TCP through other processes: one is a round trip, as between a client and the
    leader; two are the chain from a client through the leader to a follower and back. All in plain Python.
    """

    def __init__(self, hops: int) -> None:
        self._processes: list[subprocess.Popen[str]] = []
        port = 0
        for _ in range(hops):
            command = [sys.executable, "-m", "benchmarks.floors", str(port)]
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            self._processes.insert(0, process)
            assert process.stdout is not None
            port = int(process.stdout.readline())
        self._connection = socket.create_connection(("127.0.0.1", port))
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        for process in self._processes:
            process.kill()
            process.communicate()

    def times(self, count: int, placement: Placement) -> list[float]:
        """So many, with the process that is spoken to in the leader's place."""
        leader, *others = (process.pid for process in self._processes)
        placing.place(placement, leader, others)
        connection, message = self._connection, b"x" * MESSAGE_BYTES
        times = []
        with placing.here(placement):
            for _ in range(count):
                began = time.perf_counter()
                connection.sendall(message)
                connection.recv(65536)
                times.append(time.perf_counter() - began)
        return times


def sync_s(count: int) -> list[float]:
    """A small write into a file that has its size and blocks already, and fdatasync, each time."""
    with tempfile.TemporaryDirectory(prefix="dthreading-bench-") as name:
        path = Path(name) / "file"
        path.write_bytes(bytes(WRITE_BYTES * count))
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.fsync(descriptor)
            times = []
            for number in range(count):
                began = time.perf_counter()
                os.pwrite(descriptor, b"x" * WRITE_BYTES, number * WRITE_BYTES)
                os.fdatasync(descriptor)
                times.append(time.perf_counter() - began)
        finally:
            os.close(descriptor)
    return times


class Floors:
    """The three floors, taken a slice at a time in turns with what is compared with them; medians, in seconds."""

    def __init__(self, round_trip: Relay, chain: Relay) -> None:
        self._relays = {"round trip": round_trip, "chain": chain}
        self._found: dict[tuple[str, Placement], list[float]] = {}

    def take(self, placement: Placement, count: int) -> None:
        """One more slice of each."""
        for name, relay in self._relays.items():
            self._found.setdefault((name, placement), []).extend(relay.times(count, placement))
        with placing.here(placement):
            self._found.setdefault(("sync", placement), []).extend(sync_s(max(5, count // 10)))

    def median_s(self, name: str, placement: Placement) -> float:
        return percentile(self._found[name, placement], 0.5)

    def p99_s(self, name: str, placement: Placement) -> float:
        return percentile(self._found[name, placement], 0.99)


def _relay(port: int) -> None:
    """Passes on to that port and back; with port 0 it is the end of the chain and answers itself."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        connection, _ = listening.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not port:
        while message := connection.recv(65536):
            connection.sendall(message)
        return
    with socket.create_connection(("127.0.0.1", port)) as further:
        further.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while message := connection.recv(65536):
            further.sendall(message)
            connection.sendall(further.recv(65536))


if __name__ == "__main__":
    _relay(int(sys.argv[1]))
