# SPDX-License-Identifier: Apache-2.0
"""The workloads.  Each yields cells: (cell name, dict of figures)."""

from __future__ import annotations

import os
import signal
import time
from array import array
from collections.abc import Callable, Iterator
from typing import Any

from .worker import Pool, percentiles

WARM = 0.5
Cell = tuple[str, dict[str, Any]]


def shape(clients: int) -> tuple[int, int]:
    """(processes, threads in each) for a number of clients."""
    processes = {1: 1, 2: 2, 4: 4, 8: 4, 16: 4, 32: 8, 64: 8}[clients]
    return processes, clients // processes


def spread(clients: int, role: str, params: Callable[[int], dict]) -> list[list[tuple[str, dict]]]:
    processes, threads = shape(clients)
    return [
        [(role, {**params(p * threads + t), "index": p * threads + t}) for t in range(threads)]
        for p in range(processes)
    ]


def rate(results: list[dict], cpu: dict[str, float], seconds: float) -> dict[str, Any]:
    ops = sum(r["ops"] for r in results)
    out: dict[str, Any] = {"ops": ops, "ops_per_s": ops / seconds}
    lat = array("f")
    for r in results:
        lat.extend(r.get("lat", ()))
    out.update(percentiles(lat))
    out.update(cpu)
    if ops:
        out["server_cpu_s_per_1000"] = cpu["server_cpu_s"] / ops * 1000
        out["client_cpu_s_per_1000"] = cpu["client_cpu_s"] / ops * 1000
    return out


class Workloads:
    def __init__(self, pool: Pool, seconds: float):
        self.pool, self.seconds, self.serial = pool, seconds, 0

    def name(self, kind: str) -> str:
        self.serial += 1
        return f"{kind}-{os.getpid()}-{self.serial}"

    def measure(
        self, clients: int, role: str, params: Callable[[int], dict], grace: float = 40.0
    ) -> tuple[list[dict], dict[str, Any]]:
        tasks = spread(clients, role, params)
        results, cpu = self.pool.run(tasks, WARM, self.seconds, grace)
        figures = rate(results, cpu, self.seconds)
        processes, threads = shape(clients)
        figures["shape"] = f"{processes} processes x {threads} threads"
        return results, figures

    # Each method yields thunks so that run.py can time and report each cell by itself.
    def W1(self) -> Iterator[tuple[str, Callable[[], dict]]]:
        name = self.name("w1")
        yield "W1", lambda: self.measure(1, "LockLoop", lambda i: {"name": name})[1]

    def W2(self) -> Iterator[tuple[str, Callable[[], dict]]]:
        for n in (1, 4, 16, 64):
            name = self.name("w2")
            yield f"W2 {n}", lambda: self.measure(n, "LockLoop", lambda i: {"name": f"{name}-{i}"})[1]

    def contended(self, n: int) -> dict:
        name = self.name("w3")
        results, figures = self.measure(n, "SharedLockLoop", lambda i: {"name": name})
        counts = [r["ops"] for r in results]
        figures["handoffs_per_s"] = sum(r["handoffs"] for r in results) / self.seconds
        figures["max_count"], figures["min_count"] = max(counts), min(counts)
        figures["overlaps"] = sum(r["overlaps"] for r in results)
        return figures

    def W3(self) -> Iterator[tuple[str, Callable[[], dict]]]:
        for n in (2, 8, 32):
            yield f"W3 {n}", lambda: self.contended(n)

    def queue(self, producers: int, consumers: int, pace: float | None) -> dict:
        name = self.name("w4")
        base = {"name": name, "producers": producers, "consumers": consumers, "pace": pace}
        tasks = [[("Producer", {**base, "index": i})] for i in range(producers)]
        tasks += [[("Consumer", {**base, "index": i})] for i in range(consumers)]
        results, cpu = self.pool.run(tasks, WARM, self.seconds)
        figures = rate(results, cpu, self.seconds)
        figures["shape"] = f"{producers + consumers} processes x 1 thread"
        return figures

    def W4(self) -> Iterator[tuple[str, Callable[[], dict]]]:
        yield "W4 1x1", lambda: self.queue(1, 1, None)
        yield "W4 4x4", lambda: self.queue(4, 4, None)
        yield "W4 latency", lambda: self.queue(1, 1, 0.005)

    def W5(self) -> Iterator[tuple[str, Callable[[], dict]]]:
        for n in (1, 16):
            name = self.name("w5")
            yield f"W5 counter {n}", lambda: self.measure(n, "CounterLoop", lambda i: {"name": name})[1]
        for n in (1, 16):
            name = self.name("w5")
            yield f"W5 put {n}", lambda: self.measure(n, "PutLoop", lambda i: {"name": f"{name}-{i}"})[1]

    def W6(self) -> Iterator[tuple[str, Callable[[], dict]]]:
        name = self.name("w6")
        yield "W6", lambda: self.measure(32, "SemaphoreLoop", lambda i: {"name": name, "value": 8})[1]

    def barrier(self) -> dict:
        name = self.name("w7")
        _, figures = self.measure(8, "BarrierLoop", lambda i: {"name": name, "parties": 8})
        for key in ("ops", "ops_per_s"):
            figures[key] /= 8
        for key in ("server_cpu_s_per_1000", "client_cpu_s_per_1000"):
            if key in figures:
                figures[key] *= 8
        return figures

    def W7(self) -> Iterator[tuple[str, Callable[[], dict]]]:
        yield "W7", self.barrier

    def crash(self, cap: float) -> dict:
        """A process holding a lock dies; how long until a waiter gets it."""
        name = self.name("w9h")
        holder = self.pool.new_worker()
        waiter = self.pool.new_worker()
        try:
            holder.conn.send([("HoldForever", {"name": name})])
            failed = holder.expect("ready", 30)
            if failed:
                raise RuntimeError(failed[0][1])
            waiter.conn.send([("TakeOver", {"name": name})])
            failed = waiter.expect("ready", 30)
            if failed:
                raise RuntimeError(failed[0][1])
            waiter.conn.send((0.0, 0.0))
            time.sleep(2.0)
            killed = time.monotonic()
            os.kill(holder.proc.pid, signal.SIGKILL)
            try:
                results = waiter.expect("done", cap)
            except TimeoutError:
                return {"takeover_s": None, "cap_s": cap}
            kind, value = results[0]
            if kind == "error":
                return {
                    "takeover_s": None,
                    "error": value.strip().splitlines()[-1],
                    "after_s": time.monotonic() - killed,
                }
            return {"takeover_s": value["at"] - killed}
        finally:
            for w in (holder, waiter):
                w.proc.kill()
                w.proc.join()

    def failover(self, seconds: float) -> dict:
        name = self.name("w9f")
        self.pool.ensure(1)
        w = self.pool.workers[0]
        w.conn.send([("FailoverLoop", {"name": name})])
        failed = w.expect("ready", 60)
        if failed:
            raise RuntimeError(failed[0][1])
        t0 = time.monotonic() + 0.2
        w.conn.send((t0, t0 + seconds))
        time.sleep(2.0)
        victim = self.pool.system.kill_leader()
        try:
            kind, value = w.expect("done", seconds + 30)[0]
        except BaseException:
            self.pool.drop()
            return {"gap_s": None, "victim": victim, "note": f"the client never came back in {seconds + 30:.0f} s"}
        if kind == "error":
            raise RuntimeError(value)
        return {**value, "victim": victim}

    def W9(self) -> Iterator[tuple[str, Callable[[], dict]]]:
        ttl = self.pool.system.crash_ttl
        if self.pool.system.failover:
            yield "W9 leader", lambda: self.failover(15.0)
        yield "W9 holder", lambda: self.crash(ttl * 1.5 + 10 if ttl else 15.0)


NEEDS = {
    "W1": "lock",
    "W2": "lock",
    "W3": "lock",
    "W4": "queue",
    "W5 counter": "counter",
    "W5 put": "put",
    "W6": "semaphore",
    "W7": "barrier",
    "W9": "lock",
}
UNLOCKED = {"W9 holder"}  # waits for a timer: no need to keep other measurements out


def needs(cell: str) -> str:
    return next(f for prefix, f in NEEDS.items() if cell.startswith(prefix))
