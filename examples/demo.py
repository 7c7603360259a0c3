# SPDX-License-Identifier: Apache-2.0
"""`make demo`: one ordinary program, run three ways, with one result.

1. index_words.py as it is, with the standard library's `threading` and `queue`: threads in one process.
2. Its two imports swapped, as one producer and four workers on three durable replicas. While it runs, the leading
   replica is killed with SIGKILL and started again, and so is a worker that holds the lock, with another in its place.
3. Its two imports swapped and nothing configured: the same processes on the embedded local group.

Everything happens in a temporary folder, and every process that is started here is ended here.
"""

import argparse
import difflib
import hashlib
import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from stage import Child, Failed, Stage, say, stage

PROGRAM = Path(__file__).with_name("index_words.py")
SWAPS = {
    "import queue\n": "import dthreading.queue as queue\n",
    "import threading\n": "import dthreading as threading\n",
}
LOCK = "index_words.database_lock"  # the name that `database_lock = threading.Lock()` gets by itself
WORKERS = 4
LEASE_S = 3
"""How long the group waits for a silent client before it passes on what that one held. The default is longer."""

PART_S = 240.0
"""No part of the demo may take longer than this."""


class Result(NamedTuple):
    """What a run left in its database."""

    files: int
    words: int
    digest: str

    def __str__(self) -> str:
        return f"{self.words} words in {self.files} files, sha256 {self.digest[:16]}..."


def read_result(folder: Path) -> Result:
    """All rows of both tables, in order, as one digest."""
    digest = hashlib.sha256()
    with closing(sqlite3.connect(folder / "index_words.sqlite")) as database:
        for query in ("SELECT * FROM counts ORDER BY file, initial", "SELECT * FROM words ORDER BY word"):
            for row in database.execute(query):
                digest.update(repr(row).encode())
        (files,) = database.execute("SELECT COUNT(DISTINCT file) FROM counts").fetchone()
        (words,) = database.execute("SELECT COUNT(*) FROM words").fetchone()
    return Result(files, words, digest.hexdigest())


def swap_imports(folder: Path) -> Path:
    """Write the program's copy with exactly two lines changed, and show which."""
    text = PROGRAM.read_text(encoding="utf-8")
    swapped = text
    for before, after in SWAPS.items():
        assert text.count(before) == 1, f"{PROGRAM} must have the line {before!r} once"
        swapped = swapped.replace(before, after)
    for line in difflib.unified_diff(text.splitlines(), swapped.splitlines(), "index_words.py", "swapped", "", "", n=0):
        if not line.startswith("@@"):
            say(f"    {line.rstrip()}")
    copy = folder / PROGRAM.name
    copy.write_text(swapped, encoding="utf-8")
    return copy


def run_plainly() -> Result:
    """The program as it is: one process, the standard library's modules."""
    say("1. The program as it is, with the standard library's threading and queue, in one process.")
    with stage() as plain:
        plain.start("plain", str(PROGRAM)).finish(time.monotonic() + PART_S)
        return read_result(plain.folder)


def start_processes(on: Stage, program: Path) -> tuple[Child, list[Child]]:
    """One producer and its workers."""
    workers = [on.start(f"worker {number}", str(program), "work") for number in range(1, WORKERS + 1)]
    return on.start("producer", str(program), "produce"), workers


def handed_out(share: float) -> Callable[[str], bool]:
    """Recognises the producer's word that this share of the files has been handed out."""

    def recognises(line: str) -> bool:
        found = re.match(r"count: (\d+) of (\d+) handed out", line)
        return found is not None and int(found[1]) >= share * int(found[2])

    return recognises


class Group:
    """Three durable replicas on loopback."""

    def __init__(self, on: Stage) -> None:
        self._on = on
        self._addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
        on.environment["DTHREADING_SERVERS"] = ",".join(self._addresses)
        self.replicas = {address: self._start(address) for address in self._addresses}

    def _start(self, address: str) -> Child:
        folder = self._on.folder / f"replica-{self._addresses.index(address) + 1}"
        options = ["--listen", address, "--cluster", ",".join(self._addresses), "--data-dir", str(folder)]
        log = folder.with_suffix(".log")
        return self._on.start(f"replica {address}", "-m", "replicas.cli", *options, log=log)

    def wait_until_ready(self, deadline: float) -> None:
        for replica in self.replicas.values():
            replica.wait_for(bool, deadline)

    def check(self) -> None:
        """All three must be running: none of them may have ended by itself."""
        for replica in self.replicas.values():
            if replica.process.poll() is not None:
                raise Failed(f"{replica.name} has ended by itself: {replica.last_words()}")

    def ask(self, *question: str) -> Any:
        """What `dthreading QUESTION --json` answers; None while nobody can say."""
        command = [sys.executable, "-m", "dthreading.cli", *question, "--json"]
        done = subprocess.run(  # noqa: S603 - the command is our own
            command, env=self._on.environment, capture_output=True, text=True, timeout=30, check=False
        )
        return json.loads(done.stdout) if done.stdout else None

    def leader(self, deadline: float) -> str:
        """The address of the replica that leads now."""
        while time.monotonic() < deadline:
            for replica in (self.ask("status") or {}).get("replicas", ()):
                if replica.get("role") == "leader":
                    return str(replica["asked"])
            time.sleep(0.1)
        raise Failed("no replica leads")

    def holder(self) -> str:
        """Who holds the program's lock: the label of a session, which names its process; "" for nobody."""
        for known in (self.ask("locks", LOCK) or {}).get("objects", ()):
            if known["name"] == LOCK and known["holders"]:
                return str(known["holders"][0]["label"])
        return ""

    def kill_the_leader(self, deadline: float) -> None:
        address = self.leader(deadline)
        dead = self.replicas[address]
        dead.send(signal.SIGKILL)
        dead.process.wait()
        say(f"   Killed the leading replica, {address} (process {dead.pid}), with SIGKILL.")
        after = self.leader(deadline)
        while after == address:
            time.sleep(0.1)
            after = self.leader(deadline)
        say(f"   {after} leads now. Starting {address} again, on what it has on disk.")
        self.replicas[address] = self._start(address)
        self.replicas[address].wait_for(bool, deadline)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports


def kill_the_holder(group: Group, workers: list[Child], deadline: float) -> Child:
    """Kill a worker while it holds the lock.

    All workers are stopped for a moment first, so that the one that the group names still holds it when it dies.
    """
    while time.monotonic() < deadline:
        for worker in workers:
            worker.send(signal.SIGSTOP)
        time.sleep(0.05)  # what they had sent before arrives
        label = group.holder()
        held_by = [worker for worker in workers if re.search(rf"\b{worker.pid}\b", label)]
        if held_by:
            held_by[0].send(signal.SIGKILL)
        for worker in workers:
            worker.send(signal.SIGCONT)
        if held_by:
            held_by[0].process.wait()
            return held_by[0]
        time.sleep(0.05)
    raise Failed("no worker was found holding the lock")


def run_on_three_replicas(*, kill: bool) -> Result:
    """The swapped program on a group, with what may happen to it."""
    say("2. Two imports swapped, as five processes on three durable replicas.")
    deadline = time.monotonic() + PART_S
    with stage() as on:
        program = swap_imports(on.folder)
        on.environment["DTHREADING_LEASE"] = str(LEASE_S)
        on.environment["DTHREADING_REDELIVER"] = "1"  # what a dead worker had taken is handed out again
        group = Group(on)
        group.wait_until_ready(deadline)
        say(f"   Three replicas are ready; {group.leader(deadline)} leads.")
        producer, workers = start_processes(on, program)
        if kill:
            producer.wait_for(handed_out(0.2), deadline)
            group.kill_the_leader(deadline)
            producer.wait_for(handed_out(0.5), deadline)
            dead = kill_the_holder(group, workers, deadline)
            workers.remove(dead)
            say(f"   Killed {dead.name} (process {dead.pid}) with SIGKILL while it held the lock.")
            workers.append(on.start("worker 5", str(program), "work"))
            say("   Started worker 5 in its place. The lock passes on when the lease of the dead one ends.")
        for process in (producer, *workers):
            process.finish(deadline)
        group.check()
        return read_result(on.folder)


def run_with_nothing_configured() -> Result:
    """The swapped program on the embedded local group, which its first process starts."""
    say("3. Two imports swapped, the same five processes, and nothing configured: the embedded local group.")
    deadline = time.monotonic() + PART_S
    with stage(configured=False) as on:
        producer, workers = start_processes(on, swap_imports(on.folder))
        for process in (producer, *workers):
            process.finish(deadline)
        return read_result(on.folder)


def main() -> None:
    """Run the parts that were asked for, and compare their results with that of the plain run."""
    parser = argparse.ArgumentParser(description="One ordinary program, run three ways, with one result.")
    parser.add_argument(
        "--part", choices=["group", "calm-group", "local"], action="append", help="default: group, local"
    )
    parts = parser.parse_args().part or ["group", "local"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    plain = run_plainly()
    say(f"   {plain}")
    for part in parts:
        result = run_with_nothing_configured() if part == "local" else run_on_three_replicas(kill=part == "group")
        say(f"   {result}")
        if result != plain:
            raise Failed("the results differ")
        say("   The same as the plain run's.")
    say("Equal results.")
    if "group" in parts:
        say(
            "Survived: SIGKILL of the leading replica, and SIGKILL of a worker that held the lock and had taken a file."
        )


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        say(f"FAILED: {failure}")
        sys.exit(1)
