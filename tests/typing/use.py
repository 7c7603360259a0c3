# SPDX-License-Identifier: Apache-2.0
"""A program as users write it, with their annotations. Checked by mypy --strict (see test_typing.py), never run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import assert_type

import dthreading as threading
from dthreading import queue

lock: threading.Lock = threading.Lock(name="orders")
maybe: threading.Lock | None = None
reentrant: threading.RLock = threading.RLock()
condition: threading.Condition = threading.Condition(lock)
semaphore: threading.Semaphore = threading.BoundedSemaphore(3)
event: threading.Event = threading.Event()
barrier: threading.Barrier = threading.Barrier(2, action=event.set, timeout=1.5, name="meet")
numbers: queue.Queue[int] = queue.Queue(maxsize=3, redeliver=True)
words: queue.PriorityQueue[str] = queue.PriorityQueue(key=len)
pairs: queue.LifoQueue[tuple[int, str]] = queue.LifoQueue()
simple = queue.SimpleQueue[bytes]()


@dataclass
class Worker:
    """Annotations of fields and of parameters."""

    guard: threading.Lock | threading.RLock
    tasks: queue.Queue[str]
    thread: threading.Thread | None = None

    def start(self) -> None:
        self.thread = threading.Thread(target=self.run, args=(threading.current_thread(),), daemon=True)
        self.thread.start()

    def run(self, parent: threading.Thread) -> None:
        with self.guard:
            assert_type(self.tasks.get(timeout=1.0), str)
        assert_type(parent.name, str)


def use() -> None:
    """What comes out has the types that a user counts on."""
    assert_type(lock.acquire(timeout=0.5), bool)
    assert_type(lock.fence, int | None)
    assert_type(lock.name, str)
    with condition as entered:
        assert_type(entered, bool)
        assert_type(condition.wait(1), bool)
        assert_type(condition.wait_for(lambda: 7, timeout=2), int)
    assert_type(semaphore.acquire(blocking=False), bool)
    assert_type(event.is_set(), bool)
    assert_type(barrier.wait(), int)
    numbers.put(1, block=False)
    assert_type(numbers.get(), int)
    assert_type(pairs.get_nowait(), tuple[int, str])
    assert_type(simple.get(), bytes)
    assert_type(numbers.maxsize, int)
    numbers.maxsize = 4
    Worker(reentrant, queue.Queue()).start()


def fail() -> None:
    """Errors are caught by the classes that users know."""
    try:
        numbers.get_nowait()
    except (queue.Empty, queue.ShutDown):
        pass
    except threading.LockLost as error:
        assert_type(error, threading.LockLost)
    except threading.BrokenBarrierError:
        threading.excepthook(threading.ExceptHookArgs((ValueError, None, None, None)))


if sys.version_info >= (3, 12):
    threading.settrace_all_threads(lambda *_: None)
    threading.setprofile_all_threads(None)

threading.configure(servers="one:7000,two:7000", namespace="shop", lease=5)
threading.delete("orders")

# What must not pass: each line is an error, and mypy says so when one of these comments becomes unused.
threading.Lock(1)  # type: ignore[call-arg, arg-type]
threading.Lock("orders")  # type: ignore[call-arg]
numbers.put("one")  # type: ignore[arg-type]
condition_over_number = threading.Condition(3)  # type: ignore[arg-type]
lock.fence = 3  # type: ignore[misc]
