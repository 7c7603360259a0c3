# SPDX-License-Identifier: Apache-2.0
"""The benchmarks that count (bytecodes, bytes, ballots) count right: against programs whose numbers are known, and once
each at a tiny size against a real group.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from benchmarks import drift, hogs, opcodes, sockets, traffic
from benchmarks.counted import Counts
from benchmarks.crowd import Crowd, Stream, lock, pump
from benchmarks.harness import Options, Section, group
from tests.server.cluster import ROOT

PROGRAM = """
import benchmarks.counted as counted, threading
def twice(n):
    return n + n
def loop(n):
    for i in range(n):
        twice(i)
source = compile("def far(n):\\n  for i in range(n): near(i)\\ndef near(n): return n + n", "far.py", "exec")
space = {}
exec(source, space)
counted.watch()
far = space["far"]
def work(n):
    far(n)
work(10)
first = counted.counts_so_far()
threads = [threading.Thread(target=far, args=(100,)) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
with counted._unwatched():
    far(1000)
print(counted.counts_so_far().since(first).to_json())
"""


def run(program: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


def test_each_bytecode_of_each_thread_is_counted_once() -> None:
    """What was run before, and what was run unwatched, is not among them."""
    counts = Counts.from_json(run(PROGRAM))
    assert counts.calls["far.py:near"] == 300
    assert counts.calls["far.py:far"] == 3
    near, rest = divmod(counts.steps["far.py:near"], 300)
    assert rest == 0
    assert 3 <= near <= 5  # RESUME (not for sys.monitoring), LOAD_FAST twice or a double one, BINARY_OP, RETURN_VALUE
    assert counts.steps["far.py:far"] > 300 * 4
    assert counts.files()["far.py"] == counts.steps["far.py:near"] + counts.steps["far.py:far"]
    assert not any("counted.py" in name for name in counts.steps)


def test_counts_are_the_difference() -> None:
    before = Counts(Counter({"a:f": 3}), Counter({"a:f": 1}))
    after = Counts(Counter({"a:f": 5, "a:g": 2, "b:f": 1}), Counter({"a:f": 2}))
    assert after.since(before).files() == {"a": 4, "b": 1}
    assert Counts.from_json(after.to_json()) == after


@pytest.mark.parametrize("threads", [0, 2])
def test_the_bytecodes_of_a_command(threads: int) -> None:
    """All three processes are counted while they serve, and a command is that of the product: no more, no less."""
    found = opcodes.measure(memory=True, threads=threads, pairs=4, windows=1)
    assert set(found) == {"leader", "follower", "client"}
    for one in found.values():
        assert one.commands == 8 * (threads or 1)
        assert one.counts.steps.total() > one.counts.calls.total() > 0
    begin = "dthreading/session/core.py:ClientSession.begin"
    assert found["client"].counts.calls[begin] == found["client"].commands
    acquire = found["leader"].counts.calls["replicas/objects/lock.py:Lock.acquire"]
    assert acquire == found["leader"].commands // 2


def test_the_bytes_of_a_connection() -> None:
    """As many as were sent, in each direction; a process that has no part in it gets none."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        program = f"""if True:
            import socket
            connection = socket.create_connection(("127.0.0.1", {port}))
            connection.sendall(b"x" * 100)
            connection.recv(9)
            connection.recv(9)"""
        with subprocess.Popen([sys.executable, "-c", program]) as other:
            connection, _ = listening.accept()
            with connection:
                left = 100
                while left:
                    left -= len(connection.recv(left))
                pids = {"here": os.getpid(), "there": other.pid, "elsewhere": os.getppid()}
                assert sockets.carried(pids)["there", "here"].size == 100
                assert sockets.carried(pids)["here", "there"].size == 0
                connection.sendall(b"12345")
                assert sockets.carried(pids)["here", "there"] == sockets.Carried(5, 1)
                assert set(sockets.carried(pids)) == {("here", "there"), ("there", "here")}


def test_the_bytes_of_a_command() -> None:
    with group(memory=False) as cluster, Crowd(cluster) as crowd:
        streams = [Stream(crowd.open(1)[0], lock("one"))]
        pump(crowd, streams, 10)
        found = traffic.measure(cluster, lambda: pump(crowd, streams, 100))
    size, segments = found.wire["client", "leader"].size / 100, found.wire["client", "leader"].segments
    assert 10 < size < 100
    assert segments >= 100
    for follower in ("follower 1", "follower 2"):
        assert found.wire["leader", follower].size / 100 > size, "a command goes to each follower, whole"
    for log, _, asked in found.disk.values():
        # How many are in a sector depends on how late each replica is; that all are there does not.
        assert asked >= log >= 100 * 10
        assert log % 512 == 0


def test_elections_beside_hogs_are_counted() -> None:
    with group(memory=True) as cluster, hogs.Hogs(1) as busy:
        before = hogs.highest_ballot(cluster)
        with busy.running():
            cluster.leader().kill()
            cluster.leader()
        assert hogs.highest_ballot(cluster) > before
        assert all(process.poll() is None for process in busy.processes)
    assert all(process.poll() is not None for process in busy.processes)


def test_sessions_stay_when_they_are_abandoned_and_not_when_they_are_closed() -> None:
    """Nothing would be measured beside sessions that were closed."""
    with group(memory=True) as cluster, Crowd(cluster) as crowd:
        crowd.abandon(crowd.open(3))
        assert crowd.members == []
        closed = crowd.open(1)
        assert cluster.leader().ask("status")["sessions"] == 4
        crowd.close(closed)
        cluster.until(lambda: cluster.leader().ask("status")["sessions"] == 3)
        assert len(crowd.open(1)) == 1
        assert cluster.leader().ask("status")["sessions"] == 4


def sample(minute: float, **changed: Any) -> drift.Sample:
    cpu = {"leader": 100.0, "client": 50.0}
    usual: dict[str, Any] = {"p50_us": 1000.0, "p99_us": 2000.0, "pairs": 100, "on_core_us": 300.0}
    memory = {"leader": 30_000_000, "client": 20_000_000}
    return drift.Sample(minute, **{**usual, "cpu_us": cpu, "resident": memory, **changed})


def judged(samples: list[drift.Sample]) -> set[str]:
    """What is said to be missed."""
    section = Section("drift")
    drift.judge(section, samples, Options(quick=False, commands=1), held_to_time=True)
    return {figure.what for figure in section.figures if figure.kept is False}


def test_drift_is_told_from_a_steady_run() -> None:
    """And from a machine that became busier, where waiting for a core has grown as much as the latency."""
    assert judged([sample(minute) for minute in range(30)]) == set()
    slower = [sample(minute, p50_us=1000.0 + 20 * minute) for minute in range(30)]
    assert judged(slower) == {"growth of p50 beyond that"}
    neighbours = [sample(m, p50_us=1000.0 + 20 * m, on_core_us=300.0 + 6 * m) for m in range(30)]
    assert judged(neighbours) == set()
    leak = [sample(m, resident={"leader": 30_000_000 + m * 1_000_000, "client": 20_000_000}) for m in range(30)]
    assert judged(leak) == {"growth of memory, leader"}
    assert drift.slope_of([0.0, 1.0, 2.0], [5.0, 7.0, 9.0]) == pytest.approx(2.0)
