# SPDX-License-Identifier: Apache-2.0
"""What one idle lock, one session and one waiter take of a replica's memory; and that what is idle is dropped.

A replica keeps the entries since its last snapshot as well. So a group is driven past a snapshot first: what that frees
is not given back to the system, and has room for all the entries that follow. What grows then is the state.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import procfs
from benchmarks.crowd import Crowd, Member, Stream, lock, pump
from benchmarks.harness import Cluster, Options, Section, Table, followers, group, pid_of
from dthreading.session import ACQUIRE, READ

PAST_SNAPSHOT = 52_000
"""Commands after which every replica has made a snapshot: they make one each 50 000 entries, and less is added here."""

STREAMS = 64


def run(options: Options) -> Section:
    section = Section("Memory of idle locks, sessions and waiters")
    section.notes.append(
        "Growth of a replica's resident memory, leader and follower, divided by the number of what was added. The log's"
        " entries are kept out of it by driving the group past a snapshot before."
    )
    locks, sessions, waiters = options.pick(20_000, 10_000), options.pick(2000, 1000), options.pick(20_000, 10_000)
    rows = []
    with group(memory=True) as cluster, Crowd(cluster) as crowd:
        streams = [Stream(member, lock(f"busy {i}")) for i, member in enumerate(crowd.open(STREAMS))]
        pump(crowd, streams, options.pick(2, 1) * PAST_SNAPSHOT)

        def grown(what: str, count: int, add: Callable[[], None]) -> None:
            before = _memory(cluster)
            add()
            pump(crowd, streams, 2 * STREAMS)
            each = [(now - then) / count for now, then in zip(_memory(cluster), before, strict=True)]
            rows.append([what, count, *each])
            section.add(f"one {what}", max(each), "bytes", note=f"of {count} at one time")

        attached = crowd.open(1)
        grown("lock, attached and free", locks, lambda: _attach(crowd, attached[0], locks))
        added: list[Member] = []
        grown("session with its connection", sessions, lambda: added.extend(crowd.open(sessions)))
        grown("waiter", waiters, lambda: _wait(crowd, added[:20], waiters))
        crowd.close([member for member in crowd.members if member is not streams[0].member])
        pump(crowd, streams[:1], 2)
        left = cluster.leader().ask("status")
        section.add("objects left after all that", left["objects"] - 1, "", 0, "besides the one that is still in use")
        section.add("sessions left", left["sessions"] - 1, "", 0, "besides the one that asks")
    section.tables.append(Table(["what", "how many", "leader, bytes each", "follower, bytes each"], rows))
    return section


def _memory(cluster: Cluster) -> tuple[int, int]:
    leader = cluster.leader()
    return procfs.rss_bytes(pid_of(leader)), procfs.rss_bytes(pid_of(followers(cluster, leader)[0]))


def _attach(crowd: Crowd, member: Member, count: int) -> None:
    answered: list[object] = []
    for number in range(count):
        member.call(lock(f"idle {number}"), "locked", (), READ, answered.append)
    crowd.until(lambda: len(answered) == count)


def _wait(crowd: Crowd, members: list[Member], count: int) -> None:
    targets = [lock("wanted") for _ in members]
    held: list[object] = []
    for number in range(count + 1):
        index = number % len(members)
        members[index].call(targets[index], "acquire", (True, 1), ACQUIRE, held.append)
    crowd.until(lambda: held)
