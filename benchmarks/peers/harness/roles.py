# SPDX-License-Identifier: Apache-2.0
"""What one client thread does in each workload."""

from __future__ import annotations

import struct
import time
from array import array
from typing import Any

now = time.monotonic
# Slots of the shared page.
HOLDER = 0
STOP_CYCLE = 1
ACK = 2
MARK = 3
PRODUCED = 16  # + producer index
CONSUMED = 96  # + consumer index
MAX_OUTSTANDING = 100  # a bounded queue, as queue.Queue(maxsize=100) would be


class Role:
    def __init__(self, client: Any, shared: Any, params: dict[str, Any]):
        self.client, self.shared, self.params = client, shared, params
        self.index: int = params.get("index", 0)

    def setup(self) -> None:
        pass


class LockLoop(Role):
    """W1, W2: acquire + release on a lock of one's own."""

    def setup(self) -> None:
        self.obj = self.client.lock(self.params["name"])
        self.obj.acquire()
        self.obj.release()

    def run(self, t0: float, t1: float) -> dict[str, Any]:
        acquire, release = self.obj.acquire, self.obj.release
        lat = array("f")
        while now() < t0:
            acquire()
            release()
        a = now()
        while True:
            acquire()
            release()
            b = now()
            if b > t1:
                return {"ops": len(lat), "lat": lat}
            lat.append(b - a)
            a = b


class SharedLockLoop(Role):
    """W3: everyone on one lock; counts true hand-offs and overlaps of holders."""

    def setup(self) -> None:
        self.obj = self.client.lock(self.params["name"])

    def run(self, t0: float, t1: float) -> dict[str, Any]:
        acquire, release = self.obj.acquire, self.obj.release
        get, put = self.shared.get, self.shared.set
        me = self.index + 1
        ops = handoffs = overlaps = 0
        while True:
            acquire()
            last = get(HOLDER)
            if last < 0:
                overlaps += 1
            put(HOLDER, -me)
            t = now()
            if get(HOLDER) != -me:
                overlaps += 1
            put(HOLDER, me)
            release()
            if t > t1:
                return {"ops": ops, "handoffs": handoffs, "overlaps": overlaps}
            if t >= t0:
                ops += 1
                handoffs += last != me


class SemaphoreLoop(Role):
    def setup(self) -> None:
        self.obj = self.client.semaphore(self.params["name"], self.params["value"])

    def run(self, t0: float, t1: float) -> dict[str, Any]:
        ops = 0
        while True:
            self.obj.acquire()
            self.obj.release()
            t = now()
            if t > t1:
                return {"ops": ops}
            ops += t >= t0


class BarrierLoop(Role):
    """Party 0 names the last cycle before it enters it, so all stop together."""

    def setup(self) -> None:
        self.obj = self.client.barrier(self.params["name"], self.params["parties"])

    def run(self, t0: float, t1: float) -> dict[str, Any]:
        cycle = ops = 0
        while True:
            cycle += 1
            if self.index == 0 and now() > t1:
                self.shared.set(STOP_CYCLE, cycle)
            self.obj.wait()
            t = now()
            ops += t0 <= t <= t1
            if self.shared.get(STOP_CYCLE) == cycle:
                return {"ops": ops}


class CounterLoop(Role):
    def setup(self) -> None:
        self.obj = self.client.counter(self.params["name"])
        self.obj.incr()

    def step(self) -> None:
        self.obj.incr()

    def run(self, t0: float, t1: float) -> dict[str, Any]:
        step = self.step
        lat = array("f")
        while now() < t0:
            step()
        a = now()
        while True:
            step()
            b = now()
            if b > t1:
                return {"ops": len(lat), "lat": lat}
            lat.append(b - a)
            a = b


class PutLoop(CounterLoop):
    VALUE = b"x" * 100

    def setup(self) -> None:
        self.key = self.params["name"]
        self.client.put(self.key, self.VALUE)

    def step(self) -> None:
        self.client.put(self.key, self.VALUE)


class Producer(Role):
    """params: producers, consumers, pace (None: as fast as MAX_OUTSTANDING allows)."""

    def setup(self) -> None:
        self.obj = self.client.queue(self.params["name"])

    def run(self, t0: float, t1: float) -> dict[str, Any]:
        pace, consumers = self.params["pace"], self.params["consumers"]
        producers = self.params["producers"]
        get, mine = self.shared.get, PRODUCED + self.index
        produced = 0
        fill = b"x" * 92
        while now() < t1:
            if pace:
                deadline = now() + 5
                while get(ACK) < produced and now() < deadline:
                    time.sleep(0.0005)
                time.sleep(pace)
            else:
                while (
                    sum(get(PRODUCED + i) for i in range(producers)) - sum(get(CONSUMED + i) for i in range(consumers))
                    > MAX_OUTSTANDING
                    and now() < t1
                ):
                    time.sleep(0.0005)
            self.obj.put(struct.pack("<d", now()) + fill)
            produced += 1
            self.shared.set(mine, produced)
        for _ in range(consumers // producers):
            self.obj.put(b"stop")
        return {"ops": 0, "produced": produced}


class Consumer(Role):
    def setup(self) -> None:
        self.obj = self.client.queue(self.params["name"])

    def run(self, t0: float, t1: float) -> dict[str, Any]:
        get, mine = self.obj.get, CONSUMED + self.index
        lat = array("f")
        count = 0
        while True:
            item = get()
            t = now()
            if item == b"stop":
                break
            count += 1
            self.shared.set(mine, count)
            if self.params["pace"]:
                self.shared.set(ACK, count)
            if t0 <= t <= t1:
                lat.append(t - struct.unpack_from("<d", item)[0])
        return {"ops": len(lat), "lat": lat}


class FailoverLoop(Role):
    """W9: lock pairs across a leader's death; the longest time without a success."""

    def setup(self) -> None:
        self.make()
        self.obj.acquire()
        self.obj.release()

    def make(self) -> None:
        self.serial = getattr(self, "serial", 0) + 1
        # A fresh name after an error: a lock left held by the failed attempt is not the question.
        self.obj = self.client.lock(f"{self.params['name']}-{self.serial}")

    def run(self, t0: float, t1: float) -> dict[str, Any]:
        ops = errors = 0
        kinds: set[str] = set()
        last = now()
        gap = gap_at = 0.0
        broken = False
        while last < t1 and now() < t1:
            try:
                if broken:
                    self.client = self.client.recover()
                    self.make()
                    broken = False
                self.obj.acquire()
                self.obj.release()
            except Exception as exc:
                errors += 1
                kinds.add(type(exc).__name__)
                broken = True
                time.sleep(0.02)
                continue
            t = now()
            ops += 1
            if t - last > gap:
                gap, gap_at = t - last, last
            last = t
        if t1 - last > gap:
            gap, gap_at = t1 - last, last
        return {
            "ops": ops,
            "errors": errors,
            "error_kinds": sorted(kinds),
            "gap_s": gap,
            "gap_from_t0_s": gap_at - t0,
            "recovered": t1 - last < 1.0,
        }


class HoldForever(Role):
    def setup(self) -> None:
        self.obj = self.client.lock(self.params["name"])
        self.obj.acquire()

    def run(self, t0: float, t1: float) -> dict[str, Any]:
        time.sleep(1e6)
        return {}


class TakeOver(Role):
    def setup(self) -> None:
        self.obj = self.client.lock(self.params["name"])

    def run(self, t0: float, t1: float) -> dict[str, Any]:
        self.obj.acquire()
        return {"at": now()}
