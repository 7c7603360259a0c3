# SPDX-License-Identifier: Apache-2.0
"""How many bytes a command is: on the wire from process to process, in the log, and on the disk."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks import sockets
from benchmarks.crowd import Crowd, Stream, lock, pump, queue
from benchmarks.harness import Cluster, Options, Section, Table, followers, group, pid_of
from replicas.storage.segments import SEGMENT_BYTES
from tests.server.cluster import Node

MANY: Final = 64
ITEM_BYTES: Final = 1000

LONE: Final = {"wire": 190, "log": 530, "written": 4300}
"""Bytes of a command that is alone, at most: of all connections what was reached, and a tenth; a batch is at least a
sector, and a sync at least a page; a few commands in a hundred bring a heartbeat or an audit with them.
"""
TOGETHER: Final = {"wire": 95, "log": 90, "written": 400}
"""The same of a command among many: a batch's head and its unused part are shared by those that are in it."""


def run(options: Options) -> Section:
    section = Section("Bytes of a command")
    section.notes.append(
        f"A durable group of three; one client that makes lock pairs one call after the other, {MANY} clients at once,"
        f" and {MANY} clients that put and get items of {ITEM_BYTES} bytes. *wire*: payload of TCP, by the kernel's"
        " count of each connection, heartbeats included; segments are those that carry any. *log*: what the log has"
        " grown by. *written*: what the process had the kernel write to the disk, in pages of 4 KB (`write_bytes` of"
        " /proc/PID/io). Before that each byte of the log was written once as a zero, when its segment was made ahead;"
        " it is not in these figures. Amplification is *written* to the bytes of the command as the client sent it."
    )
    commands = options.pick(3000, 600)
    wire_rows: list[list[object]] = []
    disk_rows: list[list[object]] = []
    with group(memory=False) as cluster, Crowd(cluster) as crowd:
        members = crowd.open(MANY)
        works = {
            "lock, 1 client": ([Stream(members[0], lock("orders 0"))], commands),
            f"lock, {MANY} clients": (
                [Stream(member, lock(f"orders {i}")) for i, member in enumerate(members)],
                4 * commands,
            ),
            f"queue, {MANY} clients": (
                [Stream(member, queue(f"items {i}"), bytes(ITEM_BYTES)) for i, member in enumerate(members)],
                2 * commands,
            ),
        }
        for streams, _ in works.values():
            pump(crowd, streams, 4 * len(streams))
        for what, (streams, count) in works.items():
            found = measure(cluster, lambda: pump(crowd, streams, count))  # noqa: B023 - it is called at once
            each = {flow: (carried.size / count, carried.segments / count) for flow, carried in found.wire.items()}
            total = sum(size for size, _ in each.values())
            wire_rows.append([what, *(f"{each[flow][0]:.1f} ({each[flow][1]:.2f})" for flow in FLOWS), total])
            command = each["client", "leader"][0]
            for name in ("leader", "follower 1"):
                log, written, asked = (size / count for size in found.disk[name])
                disk_rows.append([what, name, command, log, asked, written, written / command])
            if what.startswith("lock"):
                bounds = LONE if len(streams) == 1 else TOGETHER
                log, written, _ = (size / count for size in found.disk["leader"])
                for name, size in (("wire", total), ("log", log), ("written", written)):
                    section.add(f"{what}: {name}", size, "bytes a command", bounds[name])
    heads = ["", *(f"{sender} to {receiver}" for sender, receiver in FLOWS), "all"]
    section.tables.append(Table(heads, wire_rows, "On the wire: bytes (segments) a command"))
    heads = ["", "replica", "the command", "log", "by write calls", "written", "amplification"]
    section.tables.append(Table(heads, disk_rows, "On disk: bytes a command"))
    return section


FLOWS: Final = (
    ("client", "leader"),
    ("leader", "client"),
    ("leader", "follower 1"),
    ("follower 1", "leader"),
    ("leader", "follower 2"),
    ("follower 2", "leader"),
)


class Found:
    """What some work made a cluster send and write. The work must be small enough that the log's first segment is not
    half full afterwards: then the next one is made, and its zeros would be among the bytes written.
    """

    def __init__(self) -> None:
        self.wire: dict[tuple[str, str], sockets.Carried] = {}
        self.disk: dict[str, tuple[int, int, int]] = {}
        """By replica: bytes of the log, bytes written to the disk, bytes handed to write calls."""


def measure(cluster: Cluster, work: Callable[[], None]) -> Found:
    leader = cluster.leader()
    nodes = {"leader": leader} | {f"follower {i}": node for i, node in enumerate(followers(cluster, leader), 1)}
    pids = {"client": os.getpid()} | {name: pid_of(node) for name, node in nodes.items()}
    found = Found()
    _settle(cluster)
    disk_before = {name: _disk(node) for name, node in nodes.items()}
    wire_before = sockets.carried(pids)
    work()
    _settle(cluster)
    wire = sockets.carried(pids)
    for flow in FLOWS:
        after, before = wire[flow], wire_before[flow]
        found.wire[flow] = sockets.Carried(after.size - before.size, after.segments - before.segments)
    for name, node in nodes.items():
        log, written, asked = (after - before for after, before in zip(_disk(node), disk_before[name], strict=True))
        found.disk[name] = (log, written, asked)
        assert node.ask("status")["log_bytes"] < SEGMENT_BYTES // 2, "zeros were written, too"
    return found


def _settle(cluster: Cluster) -> None:
    """Until no follower is behind: what it has yet to write would be missing, or counted on one side only."""
    cluster.until(lambda: len({node.ask("status")["applied"] for node in cluster.nodes}) == 1)


def _disk(node: Node) -> tuple[int, int, int]:
    text = Path(f"/proc/{pid_of(node)}/io").read_text()
    numbers = {name: int(number) for name, number in re.findall(r"(\w+): (\d+)", text)}
    return node.ask("status")["log_bytes"], numbers["write_bytes"], numbers["wchar"]
