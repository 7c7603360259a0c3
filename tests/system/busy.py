# SPDX-License-Identifier: Apache-2.0
"""Busy clients for tests and benchmarks of a group that changes under them: what each was told is recorded and judged.

Each client is a process with two threads: one works on a lock around something that two must not enter, on permits and
on a queue that all share; the other meets all other clients at a barrier, again and again.
"""

from __future__ import annotations

import time
from pathlib import Path

from dthreading.testing.history import History, Undecided
from tests.server.cluster import Cluster
from tests.system.programs import Program, Programs

BUSY = """
    import threading as local
    from dthreading.testing.history import History

    who, parties, pace = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    history = History(f"client {who}")
    guard = threading.Lock(name="lock")
    lock = history.watch(guard)
    permits = history.watch(threading.Semaphore(2, name="permits"))
    items = history.watch(queue.Queue(name="items"))
    meeting = threading.Barrier(parties, name="meeting")
    met = history.watch(meeting)
    ending = local.Event()
    longest, counts = [0.0, 0.0], [0, 0]

    def timed(which, call, *arguments):
        before = time.monotonic()
        call(*arguments)
        longest[which] = max(longest[which], time.monotonic() - before)
        counts[which] += 1

    def guarded():
        with lock:
            os.close(os.open("inside", os.O_CREAT | os.O_EXCL))  # fails when somebody else is inside
            with open("fences", "a") as fences:
                fences.write(f"{guard.fence}\\n")
            os.unlink("inside")

    def passed():
        with permits:
            items.put(f"{who}.{counts[0]}")
        items.get()

    def work():
        while not ending.wait(pace):  # a pace at which the machine has room for replicas, too
            timed(0, guarded)
            timed(0, passed)

    def meet():
        while not ending.wait(pace):
            try:
                timed(1, met.wait)
            except threading.BrokenBarrierError:
                assert ending.is_set(), "nobody has broken it yet"

    failures = []

    def turn(what):
        try:
            what()
        except BaseException as error:
            failures.append(error)
            say("failed", type(error).__name__, error)
            raise

    threads = [local.Thread(target=turn, args=(what,)) for what in (work, meet)]
    say("busy")
    assert told() == "go"
    for thread in threads:
        thread.start()
    ever = 0.0
    while (word := told()) in ("how", "longest"):
        if word == "how":
            say(*counts)
        else:
            say(max(longest))
            ever, longest[:] = max(ever, *longest), [0.0, 0.0]
    assert word == "end"
    ending.set()
    threads[0].join()
    say("ending")
    assert told() == "part"
    met.abort()  # recorded as well: who still waits is told so by it
    threads[1].join()
    with open(f"history-{who}.json", "w") as kept:
        kept.write(history.to_json())
    assert not failures, failures
    assert min(counts) > 0
    say(max(ever, *longest), *counts)
"""


class Busy:
    """Clients at work, who know the members of the beginning only.

    Args:
        folder: where they run, and leave their histories.
        count: how many processes.
        pace_s: how long each thread rests between two rounds.

    """

    def __init__(self, cluster: Cluster, folder: Path, count: int = 8, pace_s: float = 0.05) -> None:
        self.cluster = cluster
        self.folder = folder
        self.programs = Programs(cluster.client_environment(DTHREADING_LEASE="20"), folder)
        self.calls = 0
        """How many were judged."""
        self.undecided = ""
        """Of which objects the search for an order was given up, if of any."""
        self.clients: list[Program] = [
            self.programs(BUSY, str(number), str(count), str(pace_s), script="busy") for number in range(count)
        ]
        for client in self.clients:
            client.hears("busy")
        for client in self.clients:
            client.tell("go")

    def counts(self) -> list[list[int]]:
        """Of each client how many rounds of work it has done, and how often it has met the others."""
        for client in self.clients:
            client.tell("how")
        return [list(map(int, client.hears().split())) for client in self.clients]

    def longest(self) -> float:
        """The longest time that any round has taken since this was asked last."""
        for client in self.clients:
            client.tell("longest")
        return max(float(client.hears()) for client in self.clients)

    def go_on(self, rounds: int = 3) -> None:
        """All of them get on, by so many rounds of each kind."""
        goals = [count + rounds for each in self.counts() for count in each]
        while any(now < goal for now, goal in zip((now for each in self.counts() for now in each), goals, strict=True)):
            time.sleep(0.01)  # the question is asked again, and its answer is what ends the loop

    def end(self) -> float:
        """They end well; the longest time that any round of theirs has taken. The lock's fences only grow, and there is
        an order of all calls, object by object, that explains every answer.
        """
        for client in self.clients:
            client.tell("end")
        for client in self.clients:
            client.hears("ending")
        for client in self.clients:
            client.tell("part")
        said = [client.hears().split() for client in self.clients]
        for client in self.clients:
            client.ends(complains=None)
        fences = [int(line) for line in (self.folder / "fences").read_text().split()]
        assert fences == sorted(set(fences)), "a lock was granted twice, or out of order"
        self.judge()
        return max(float(words[0]) for words in said)

    def judge(self) -> None:
        """Whether what all of them were told could have been."""
        texts = [path.read_text() for path in sorted(self.folder.glob("history-*.json"))]
        assert len(texts) == len(self.clients)
        history = History.merged(map(History.from_json, texts))
        self.calls = len(history)
        try:
            history.check()
        except Undecided as error:
            self.undecided = str(error)

    def close(self) -> None:
        """Nothing of them is left."""
        self.programs.close()
