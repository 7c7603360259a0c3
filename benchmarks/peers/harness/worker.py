# SPDX-License-Identifier: Apache-2.0
"""Client processes: each holds one Client and runs role threads on request.

Each worker is a fresh interpreter (spawn), so gRPC and the like are safe.
Every role runs in two steps: setup() outside the measured window, then
run(t0, t1) on the monotonic clock, which is one clock for all processes.
"""

from __future__ import annotations

import contextlib
import importlib
import mmap
import multiprocessing as mp
import os
import struct
import threading
import time
import traceback
from array import array
from pathlib import Path
from typing import Any

SLOTS = 256  # 8-byte slots in the shared page
now = time.monotonic


class Shared:
    """A file-backed page of 8-byte slots, one writer per slot."""

    def __init__(self, path: Path):
        with path.open("r+b") as f:
            self.map = mmap.mmap(f.fileno(), SLOTS * 8)

    @staticmethod
    def create(path: Path) -> Shared:
        path.write_bytes(b"\0" * (SLOTS * 8))
        return Shared(path)

    def get(self, slot: int) -> int:
        return struct.unpack_from("<q", self.map, slot * 8)[0]

    def set(self, slot: int, value: int) -> None:
        struct.pack_into("<q", self.map, slot * 8, value)

    def clear(self) -> None:
        self.map[:] = b"\0" * (SLOTS * 8)


def worker_main(conn: Any, module: str, system: str, endpoints: Any, client_id: str, page: str) -> None:
    from . import roles

    try:
        cls = importlib.import_module(module).SYSTEMS[system]
        client = cls.connect(endpoints, client_id)
        shared = Shared(Path(page))
        conn.send(("ok", None))
    except BaseException:
        conn.send(("error", traceback.format_exc()))
        os._exit(1)
    while True:
        try:
            task = conn.recv()
        except EOFError:
            break
        if task is None:
            break
        results: list[Any] = [None] * len(task)
        window: list[float] = []
        go = threading.Event()
        ready = threading.Semaphore(0)

        def body(i: int, role: str, params: dict[str, Any]) -> None:
            try:
                obj = getattr(roles, role)(client, shared, params)
                try:
                    obj.setup()
                finally:
                    ready.release()
                go.wait()
                if window:
                    results[i] = ("ok", obj.run(window[0], window[1]))
            except BaseException:
                results[i] = ("error", traceback.format_exc())

        threads = [
            threading.Thread(target=body, args=(i, role, params), daemon=True) for i, (role, params) in enumerate(task)
        ]
        for t in threads:
            t.start()
        for _ in threads:
            ready.acquire()
        time.sleep(0.01)
        failed = [r for r in results if r]
        conn.send(("ready", failed))
        got = conn.recv()
        if got is not None:
            window.extend(got)
        go.set()
        if got is not None:
            for t in threads:
                t.join()
            conn.send(("done", results))
    with contextlib.suppress(BaseException):
        client.close()
    os._exit(0)


class Worker:
    def __init__(self, ctx: Any, module: str, system: str, endpoints: Any, client_id: str, page: Path):
        self.conn, child = ctx.Pipe()
        self.proc = ctx.Process(
            target=worker_main, daemon=True, args=(child, module, system, endpoints, client_id, str(page))
        )
        self.proc.start()
        child.close()

    def expect(self, kind: str, timeout: float) -> Any:
        if not self.conn.poll(max(0.0, timeout)):
            raise TimeoutError(f"worker {self.proc.pid} sent no {kind!r} in {timeout:.0f} s")
        try:
            got, value = self.conn.recv()
        except EOFError:
            raise RuntimeError(f"worker {self.proc.pid} died") from None
        if got != kind:
            raise RuntimeError(f"worker {self.proc.pid}: {value}")
        return value

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.conn.send(None)
        self.proc.join(3)
        if self.proc.is_alive():
            self.proc.kill()
            self.proc.join()


class Pool:
    """Worker processes of one running system."""

    def __init__(self, module: str, name: str, system: Any, workdir: Path):
        self.ctx = mp.get_context("spawn")
        self.module, self.name, self.system = module, name, system
        self.page = workdir / "shared.page"
        self.shared = Shared.create(self.page)
        self.workers: list[Worker] = []
        self.serial = 0

    def new_worker(self, wait: bool = True) -> Worker:
        self.serial += 1
        w = Worker(self.ctx, self.module, self.name, self.system.endpoints(), f"c{self.serial}", self.page)
        if wait:
            w.expect("ok", 60)
        return w

    def ensure(self, count: int) -> None:
        fresh = []
        while len(self.workers) < count:
            w = self.new_worker(wait=False)
            self.workers.append(w)
            fresh.append(w)
        for w in fresh:
            w.expect("ok", 90)
        if self.system.shrink_pool:
            while len(self.workers) > count:
                self.workers.pop().stop()

    def drop(self) -> None:
        """Throws every worker away (used after an error or a hang)."""
        for w in self.workers:
            w.proc.kill()
            w.proc.join()
        self.workers.clear()

    def stop(self) -> None:
        for w in self.workers:
            w.stop()
        self.workers.clear()

    def run(
        self, tasks: list[list[tuple[str, dict]]], warm: float, seconds: float, grace: float = 40.0
    ) -> tuple[list[Any], dict[str, float]]:
        """Runs tasks[i] (a list of roles) on worker i; returns results in order and CPU use."""
        self.ensure(len(tasks))
        self.shared.clear()
        used = self.workers[: len(tasks)]
        try:
            for w, task in zip(used, tasks, strict=False):
                w.conn.send(task)
            for w in used:
                failed = w.expect("ready", 60)
                if failed:
                    raise RuntimeError(failed[0][1])  # noqa: TRY301 - every failure ends in the same way
            t0 = now() + warm
            t1 = t0 + seconds
            for w in used:
                w.conn.send((t0, t1))
            spids, cpids = self.system.server_pids(), [w.proc.pid for w in used]
            time.sleep(max(0.0, t0 - now()))
            s0, c0, m0 = cpu_seconds(spids), cpu_seconds(cpids), machine_cpu()
            time.sleep(max(0.0, t1 - now()))
            s1, c1, m1 = cpu_seconds(spids), cpu_seconds(cpids), machine_cpu()
            out: list[Any] = []
            deadline = now() + grace
            for w in used:
                out.extend(w.expect("done", deadline - now()))
            for kind, value in out:
                if kind == "error":
                    raise RuntimeError(value)  # noqa: TRY301
            own = s1 - s0 + c1 - c0
            return [v for _, v in out], {
                "server_cpu_s": s1 - s0,
                "client_cpu_s": c1 - c0,
                "foreign_cpus": max(0.0, m1 - m0 - own) / seconds,
            }
        except BaseException:
            self.drop()
            raise


TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def machine_cpu() -> float:
    """Busy CPU seconds of the whole machine, to see what else ran during a measurement."""
    f = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (f[0] + f[1] + f[2] + f[5] + f[6] + f[7]) / TICK


def percentiles(samples: array) -> dict[str, float]:
    s = sorted(samples)
    if not s:
        return {}
    return {"p50_us": s[len(s) // 2] * 1e6, "p99_us": s[min(len(s) - 1, int(len(s) * 0.99))] * 1e6}
