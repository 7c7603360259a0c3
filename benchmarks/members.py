# SPDX-License-Identifier: Apache-2.0
"""How long busy clients stand still while a group goes from one replica to three to five, is replaced, and shrinks."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import Options, Section, Table
from tests.server.cluster import Cluster, Node
from tests.system.busy import Busy

CLIENTS = 8
STALL_S_MAX = 2.0
"""What is demanded of a machine that has a core for it."""


def run(options: Options) -> Section:
    section = Section("The members change under busy clients")
    section.notes.append(
        f"{CLIENTS} client processes work on a lock around something that two must not enter, on two permits, on a"
        " queue and on a barrier of all; meanwhile a durable group on the same machine goes from one replica to three,"
        " to five, each is replaced, and two are removed. A stall is the longest time that a round of any client took"
        " (a lock, or permits with a put and a get, or a meeting of all; the barrier waits for the slowest). No call"
        " fails, and what the clients were told is judged afterwards."
    )
    rows: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as folder, Cluster(1) as cluster:
        busy = Busy(cluster, Path(folder), CLIENTS, pace_s=0.05 if options.quick else 0.02)
        try:
            steps = _Steps(cluster, busy, rows)
            steps.take("undisturbed", lambda: time.sleep(options.pick(5, 1)))
            steps.take("1 -> 3", lambda: steps.grow(2))
            steps.take("3 -> 5", lambda: steps.grow(2))
            for number, node in enumerate(list(cluster.nodes), 1):
                steps.take(f"replica {number} is replaced", lambda node=node: steps.replace(node))
            for _ in range(2):
                steps.take("a leader is removed", steps.shrink)
            steps.take("undisturbed", lambda: time.sleep(options.pick(5, 1)))
            longest = busy.end()
        finally:
            busy.close()
    section.add("longest stall of any client", longest, "s", STALL_S_MAX)
    section.add("calls judged, none failed", busy.calls, "", None, busy.undecided or "an order explains all")
    heads = ["", "the step took, s", "longest stall, s", "rounds a second meanwhile"]
    section.tables.append(Table(heads, rows))
    return section


class _Steps:
    """What is done to the group, and what the clients notice of it."""

    def __init__(self, cluster: Cluster, busy: Busy, rows: list[list[Any]]) -> None:
        self._cluster = cluster
        self._busy = busy
        self._rows = rows

    def take(self, what: str, step: Callable[[], object]) -> None:
        """One step; a row says what came of it."""
        self._busy.longest()
        before = sum(map(sum, self._busy.counts()))
        began = time.monotonic()
        step()
        self._busy.go_on(1)  # so that a stall which lasts at the step's end is seen to its own end
        took = time.monotonic() - began
        done = sum(map(sum, self._busy.counts())) - before
        self._rows.append([what, took, self._busy.longest(), done / took])

    def grow(self, count: int) -> None:
        self._members("add", *(node.address for node in [self._newcomer() for _ in range(count)]))

    def replace(self, node: Node) -> None:
        new = self._newcomer()
        self._members("replace", node.address, new.address)
        assert node.wait() == 6
        self._forget(node)

    def shrink(self) -> None:
        leader = self._cluster.leader()
        self._members("remove", leader.address)
        assert leader.wait() == 6
        self._forget(leader)

    def _newcomer(self) -> Node:
        node = self._cluster.newcomer()
        node.start(wait=False)
        self._cluster.until(lambda: node.ask("status"))
        return node

    def _forget(self, node: Node) -> None:
        self._cluster.nodes.remove(node)
        node.release()

    def _members(self, *arguments: str) -> None:
        result = self._cluster.members(*arguments)
        assert result.returncode == 0, result.stderr
