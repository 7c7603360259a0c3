# SPDX-License-Identifier: Apache-2.0
"""The machine's floor: loopback round trips and disk flushes, in plain Python."""

from __future__ import annotations

import multiprocessing as mp
import os
import socket
import statistics
import time
from array import array
from pathlib import Path
from typing import Any

from .worker import cpu_seconds, percentiles

SIZE = 50


def serve(conn: Any, clients: int) -> None:
    import selectors

    listener = socket.create_server(("127.0.0.1", 0))
    conn.send(listener.getsockname()[1])
    if clients == 1:
        s, _ = listener.accept()
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            data = s.recv(4096)
            if not data:
                return
            s.sendall(data)
    sel = selectors.DefaultSelector()
    for _ in range(clients):
        s, _ = listener.accept()
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sel.register(s, selectors.EVENT_READ)
    while sel.get_map():
        for key, _ in sel.select():
            data = key.fileobj.recv(4096)
            if not data:
                sel.unregister(key.fileobj)
                continue
            key.fileobj.send(data)


def pinger(port: int, start: float, seconds: float, conn: Any) -> None:
    s = socket.create_connection(("127.0.0.1", port))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    message = b"x" * SIZE
    lat = array("f")
    time.sleep(max(0.0, start - time.monotonic()))
    a = time.perf_counter()
    end = a + seconds
    while a < end:
        s.sendall(message)
        s.recv(4096)
        b = time.perf_counter()
        lat.append(b - a)
        a = b
    conn.send(lat)


def spin(seconds: float) -> None:
    os.nice(19)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def awake(clients: int, seconds: float) -> dict[str, float]:
    """The same while spinners of lowest priority keep every CPU out of its idle state."""
    ctx = mp.get_context("spawn")
    spinners = [ctx.Process(target=spin, args=(seconds + 3,), daemon=True) for _ in range(os.cpu_count() or 1)]
    for p in spinners:
        p.start()
    try:
        time.sleep(0.5)
        return ping_pong(clients, seconds)
    finally:
        for p in spinners:
            p.kill()
            p.join()


def same_cpu(seconds: float) -> dict[str, float]:
    """Client and server on one CPU: no wake-up of an idle one in the round trip."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        return ping_pong(1, seconds)
    finally:
        os.sched_setaffinity(0, before)


def ping_pong(clients: int, seconds: float) -> dict[str, float]:
    ctx = mp.get_context("spawn")
    here, there = ctx.Pipe()
    server = ctx.Process(target=serve, args=(there, clients), daemon=True)
    server.start()
    port = here.recv()
    pipes, procs = [], []
    start = time.monotonic() + 0.3 + 0.1 * clients  # all at once, once every client has started
    for _ in range(clients):
        a, b = ctx.Pipe()
        p = ctx.Process(target=pinger, args=(port, start, seconds, b), daemon=True)
        p.start()
        pipes.append(a)
        procs.append(p)
    time.sleep(max(0.0, start - time.monotonic()))
    pids = [p.pid for p in procs]
    s0, c0 = cpu_seconds([server.pid]), cpu_seconds(pids)
    lat = array("f")
    time.sleep(max(0.0, start + seconds - time.monotonic()))
    s1, c1 = cpu_seconds([server.pid]), cpu_seconds(pids)
    for p in pipes:
        lat.extend(p.recv())
    for p in procs:
        p.join()
    server.kill()
    server.join()
    return {
        "round_trips_per_s": len(lat) / seconds,
        **percentiles(lat),
        "server_cpu_s": s1 - s0,
        "client_cpu_s": c1 - c0,
    }


def fdatasync(directory: Path, count: int = 300, size: int = 4096) -> dict[str, float]:
    path = directory / f"floor-{os.getpid()}"
    block = b"x" * size
    samples = array("f")
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for _ in range(count):
            a = time.perf_counter()
            os.write(fd, block)
            os.fdatasync(fd)
            samples.append(time.perf_counter() - a)
    finally:
        os.close(fd)
        path.unlink()
    return {**percentiles(samples), "mean_us": statistics.fmean(samples) * 1e6}


def overwrite(directory: Path, count: int = 300, size: int = 4096) -> dict[str, float]:
    """The same on a file written in full beforehand: no change of size to journal."""
    path = directory / f"floor-{os.getpid()}"
    block = b"x" * size
    samples = array("f")
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(fd, block * count)
        os.fsync(fd)
        for i in range(count):
            a = time.perf_counter()
            os.pwrite(fd, block, i * size)
            os.fdatasync(fd)
            samples.append(time.perf_counter() - a)
    finally:
        os.close(fd)
        path.unlink()
    return {**percentiles(samples), "mean_us": statistics.fmean(samples) * 1e6}


def floor(directories: list[Path], seconds: float) -> dict[str, Any]:
    out: dict[str, Any] = {
        "ping-pong 1 client": ping_pong(1, seconds),
        "ping-pong 1 client, CPUs kept awake": awake(1, seconds),
        "ping-pong 1 client, same CPU": same_cpu(seconds),
        "ping-pong 8 clients": ping_pong(8, seconds),
    }
    for i, d in enumerate(directories):
        out[f"fdatasync append disk{i}"] = fdatasync(d)
        out[f"fdatasync overwrite disk{i}"] = overwrite(d)
    return out
