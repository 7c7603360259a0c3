# SPDX-License-Identifier: Apache-2.0
"""A multiprocessing manager over TCP: python manager.py PORT"""

import queue
import sys
import threading
from collections import defaultdict
from multiprocessing.managers import AcquirerProxy, BarrierProxy, BaseManager, DictProxy


class Counter:
    def __init__(self):
        self.value = 0
        self.guard = threading.Lock()

    def incr(self):
        with self.guard:
            self.value += 1
            return self.value


class Shared(BaseManager):
    pass


class Table:
    def __init__(self):
        self.guard = threading.Lock()
        self.made = {}

    def get(self, name, make):
        with self.guard:
            if name not in self.made:
                self.made[name] = make()
            return self.made[name]


tables = defaultdict(Table)
store = {}


def register():
    Shared.register("get_lock", lambda name: tables["lock"].get(name, threading.Lock), AcquirerProxy)
    Shared.register(
        "get_semaphore", lambda name, n: tables["sem"].get(name, lambda: threading.Semaphore(n)), AcquirerProxy
    )
    Shared.register("get_barrier", lambda name, n: tables["bar"].get(name, lambda: threading.Barrier(n)), BarrierProxy)
    Shared.register("get_queue", lambda name: tables["queue"].get(name, queue.Queue))
    Shared.register("get_counter", lambda name: tables["counter"].get(name, Counter), exposed=("incr",))
    Shared.register("get_store", lambda: store, DictProxy)


if __name__ == "__main__":
    register()
    Shared(("127.0.0.1", int(sys.argv[1])), authkey=b"bench").get_server().serve_forever()
