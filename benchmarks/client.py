# SPDX-License-Identifier: Apache-2.0
"""A client process of several threads, each with one role, which all begin and end by the clock of the machine.

It is run as a script and imports nothing of the benchmarks: so it works with the `dthreading` of whatever revision is
on the path. Words are JSON arrays on standard input, one a line: ["prepare", [[role, {parameters}], ...]] makes the
objects; ["run", warm_until, until] answers with what each thread did between the two.
"""

from __future__ import annotations

import itertools
import json
import mmap
import struct
import sys
import threading
import time
from typing import Any

import dthreading
import dthreading.queue

now = time.monotonic
NOBODY = 0
FEW = 2
"""Whose times are asked for goes on until there are more than that, however short the window."""


class Page:
    """One number that all client processes of this machine see: who was last inside, whose turn it is."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:  # noqa: PTH123 - a script that starts often
            self._map = mmap.mmap(file.fileno(), 8)

    def get(self) -> int:
        return int(struct.unpack("<q", self._map[:8])[0])

    def put(self, number: int) -> None:
        self._map[:8] = struct.pack("<q", number)


class Pairs:
    """Acquire and release, of a lock of one's own or of a semaphore of all; with `warm` the times of each pair."""

    def __init__(self, name: str, permits: int = 0, times: bool = False, **_: Any) -> None:
        self._object = dthreading.Semaphore(permits, name=name) if permits else dthreading.Lock(name=name)
        self._times = times
        with self._object:
            pass

    def run(self, warm_until: float, until: float) -> dict[str, Any]:
        acquire, release = self._object.acquire, self._object.release
        marks = []
        while True:
            acquire()
            release()
            at = now()
            if at >= warm_until:
                marks.append(at)
            if at > until and (len(marks) > FEW or not self._times):
                break
        took = [b - a for a, b in itertools.pairwise(marks)] if self._times else []
        return {"done": len(marks) - (not self._times), "times": took}


class Shared:
    """All on one lock. Counts true hand-offs, and dies when somebody else is inside."""

    def __init__(self, name: str, page: str, index: int, **_: Any) -> None:
        self._lock = dthreading.Lock(name=name)
        self._page = Page(page)
        self._me = index + 1

    def run(self, warm_until: float, until: float) -> dict[str, Any]:
        acquire, release, page, me = self._lock.acquire, self._lock.release, self._page, self._me
        done = hand_offs = 0
        while True:
            acquire()
            last = page.get()
            page.put(-me)
            at = now()
            if last < NOBODY or page.get() != -me:
                raise AssertionError("two are inside")
            page.put(me)
            release()
            if at > until:
                return {"done": done, "hand_offs": hand_offs}
            if at >= warm_until:
                done += 1
                hand_offs += last != me


class PingPong:
    """Two on one condition: whose turn it is passes it to the other one."""

    OVER = 2

    def __init__(self, name: str, page: str, index: int, **_: Any) -> None:
        self._condition = dthreading.Condition(name=name)
        self._page = Page(page)
        self._me = index

    def run(self, warm_until: float, until: float) -> dict[str, Any]:
        page, condition, me = self._page, self._condition, self._me
        done = 0
        while True:
            with condition:
                while page.get() == 1 - me:
                    condition.wait()
                at = now()
                over = page.get() == self.OVER or at > until
                page.put(self.OVER if over else 1 - me)
                condition.notify()
            if over:
                return {"done": done}
            done += at >= warm_until


class Meeting:
    """A barrier of all. The first one says which cycle is the last before it comes to it, so all end together."""

    def __init__(self, name: str, page: str, index: int, parties: int, **_: Any) -> None:
        self._barrier = dthreading.Barrier(parties, name=name)
        self._page = Page(page)
        self._me = index

    def run(self, warm_until: float, until: float) -> dict[str, Any]:
        done = cycle = 0
        while True:
            cycle += 1
            if self._me == 0 and now() > until:
                self._page.put(cycle)
            self._barrier.wait()
            done += warm_until <= now() <= until
            if self._page.get() == cycle:
                return {"done": done}


ITEM = b"x" * 100
LAST = b""


class Producer:
    """Puts as fast as a queue of a hundred places takes it, then as many last items as it has consumers."""

    def __init__(self, name: str, lasts: int = 1, **_: Any) -> None:
        self._queue = dthreading.queue.Queue(100, name=name)
        self._lasts = lasts

    def run(self, _: float, until: float) -> dict[str, Any]:
        while now() < until:
            self._queue.put(ITEM)
        for _ in range(self._lasts):
            self._queue.put(LAST)
        return {"done": 0}


class Consumer:
    """Gets until it gets a last item."""

    def __init__(self, name: str, **_: Any) -> None:
        self._queue = dthreading.queue.Queue(100, name=name)

    def run(self, warm_until: float, until: float) -> dict[str, Any]:
        done = 0
        while self._queue.get() != LAST:
            done += warm_until <= now() <= until
        return {"done": done}


ROLES: dict[str, Any] = {each.__name__: each for each in (Pairs, Shared, PingPong, Meeting, Producer, Consumer)}


class Threads:
    """The threads of the process: made ready by one word, let go by the next."""

    def __init__(self) -> None:
        self._roles: list[Any] = []

    def prepare(self, wanted: list[tuple[str, dict[str, Any]]]) -> int:
        self._roles = [ROLES[role](**parameters) for role, parameters in wanted]
        return len(self._roles)

    def run(self, warm_until: float, until: float) -> list[Any]:
        found: list[Any] = [None] * len(self._roles)

        def play(number: int) -> None:
            try:
                found[number] = self._roles[number].run(warm_until, until)
            except Exception as error:  # noqa: BLE001 - it is told to the benchmark, which ends with it
                found[number] = {"error": repr(error)}

        threads = [threading.Thread(target=play, args=(number,)) for number in range(len(found))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found


def main() -> None:
    """Obey until there is nobody left who says anything."""
    threads = Threads()
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        print(json.dumps(getattr(threads, what)(*arguments)), flush=True)


if __name__ == "__main__":
    main()
