# SPDX-License-Identifier: Apache-2.0
"""A storm in one process: threads that call with and without timeouts, signals whose handlers call or raise, cut
connections, forks. Nobody may wait for ever, no answer be another call's, no lock be left held.

`DTHREADING_STORM_S` says how long it lasts (seconds; 2 by default). The seed is in the line that the program says.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from client_fake import Fake

ROOT = Path(__file__).resolve().parent.parent.parent

SECONDS = float(os.environ.get("DTHREADING_STORM_S", "2"))

PROGRAM = """
import faulthandler, gc, os, random, signal, sys, threading, time, warnings
from dthreading import runtime
from dthreading.errors import *
from dthreading.session import *
from dthreading.wire.messages import Lifetime

warnings.simplefilter("ignore", DeprecationWarning)
seconds, seed, threads = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
faulthandler.dump_traceback_later(seconds + 40, exit=True)
end = time.monotonic() + seconds
luck = random.Random(seed)
counts = {}

class Struck(Exception): pass

def target(name): return Target("test", name, "Lock", (), Lifetime.NAMED)
mine, jobs = target("mine"), target("jobs")

def count(what): counts[what] = counts.get(what, 0) + 1

def one(luck, number, lock):
    client = runtime.client()
    kind = luck.random()
    if kind < 0.6:
        assert client.call(jobs, "echo", (number,), READ).value == (number,), "another call's answer"
        count("echo")
    elif kind < 0.8:
        pair(client, lock, luck.choice((0.001, 0.01, 5, 5)))
    elif kind < 0.9:
        answer = client.call(jobs, "wait", (), WAIT_EVENT, luck.uniform(0, 0.08))
        count("timed out")
    else:
        client.call(jobs, "echo", (b"x" * luck.randrange(60_000), number), READ)
        count("large")

def pair(client, lock, timeout):
    # A strike ends the acquire, or comes between the two calls, or ends the release: there is one at most.
    answer = None
    try:
        answer = client.call(lock, "acquire", (True, 1), ACQUIRE, timeout)
    finally:
        if answer is not None and answer.value is not False:
            try:
                client.call(lock, "release", (answer.value,), RELEASE)
            except Struck:
                try:
                    client.call(lock, "release", (answer.value,), RELEASE)
                except RuntimeError:
                    pass  # it was done
                raise
            count("pair")

def work(number):
    luck = random.Random(seed * 1000 + number)
    lock = target(f"lock {number}")
    while time.monotonic() < end:
        one(luck, luck.random(), lock)
        if luck.random() < 0.05:
            time.sleep(luck.uniform(0, 0.15))

def handle(*_):
    kind = luck.random()
    if kind < 0.3:
        count("raised")
        raise Struck
    if kind < 0.7:
        number = luck.random()
        assert runtime.client().call(jobs, "echo", (number,), READ).value == (number,)
        count("nested")

class Cycle:
    def __init__(self): self.me = self
    def __del__(self, call=runtime.client, read=READ):
        number = luck.random()
        assert call().call(jobs, "echo", (number,), read).value == (number,)
        count("finalized")

workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(threads)]
for worker in workers: worker.start()
signal.signal(signal.SIGALRM, handle)
lock = target("main")
while time.monotonic() < end:
    try:
        signal.setitimer(signal.ITIMER_REAL, luck.uniform(0.0001, 0.01))
        one(luck, luck.random(), lock)
        if luck.random() < 0.01: Cycle()
        signal.setitimer(signal.ITIMER_REAL, 0)
        if luck.random() < 0.01:
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                os._exit(0 if runtime.client().call(jobs, "echo", (7,), READ).value == (7,) else 1)
            assert os.waitpid(child, 0)[1] == 0, "a child failed"
            count("forked")
    except Struck:
        signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
for worker in workers:
    worker.join(30)
    assert not worker.is_alive(), "somebody waits for ever"
client = runtime.client()
for name in ("main", *(f"lock {number}" for number in range(threads))):
    answer = client.call(target(name), "acquire", (True, 1), ACQUIRE, 10)
    assert answer.value, f"a ghost holds {name}"
print("calm", counts, flush=True)
"""


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_a_storm(fake: Fake, secret_file: Path, tmp_path: Path, threads: int) -> None:
    seed = int(os.environ.get("DTHREADING_STORM_SEED", "1"))
    script = tmp_path / "storm.py"
    script.write_text(PROGRAM)
    environment = {
        **os.environ,
        "DTHREADING_SERVERS": fake.address,
        "DTHREADING_SECRET_FILE": str(secret_file),
        "DTHREADING_NAMESPACE": "test",
        "PYTHONPATH": str(ROOT),
    }
    program = subprocess.Popen(
        [sys.executable, str(script), str(SECONDS), str(seed), str(threads)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        cut_at = time.monotonic() + 0.3
        while program.poll() is None:
            time.sleep(0.01)
            if time.monotonic() >= cut_at:
                fake.cut()
                cut_at += 0.3
    finally:
        program.kill()
        output, errors = program.communicate()
    assert output.startswith("calm"), f"seed {seed}\n{output}\n{errors[:4000]}"
    assert "AssertionError" not in errors, f"seed {seed}\n{errors[:4000]}"
