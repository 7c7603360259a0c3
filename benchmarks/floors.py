# SPDX-License-Identifier: Apache-2.0
"""What the machine itself takes for the two things that no replicated call can do without: a round trip and a sync."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.server.cluster import ROOT

MESSAGE_BYTES = 64
WRITE_BYTES = 4096


def round_trip_s(count: int, *, same_core: bool) -> list[float]:
    """Ping-pong over loopback TCP with another process on the same core or on another one, each time.

    On one core it is the sum of the work; on two it is what waking an idle core takes.
    """
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    try:
        return _ping(count, cores[0] if same_core else cores[-1])
    finally:
        os.sched_setaffinity(0, cores)


def _ping(count: int, core: int) -> list[float]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = [sys.executable, "-m", "benchmarks.floors", str(listening.getsockname()[1]), str(core)]
        other = subprocess.Popen(command, cwd=ROOT)
        try:
            connection, _ = listening.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                message = b"x" * MESSAGE_BYTES
                times = []
                for _ in range(count):
                    began = time.perf_counter()
                    connection.sendall(message)
                    connection.recv(65536)
                    times.append(time.perf_counter() - began)
        finally:
            other.kill()
            other.wait()
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


def _pong(port: int, core: int) -> None:
    os.sched_setaffinity(0, {core})
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while message := connection.recv(65536):
            connection.sendall(message)


if __name__ == "__main__":
    _pong(int(sys.argv[1]), int(sys.argv[2]))
