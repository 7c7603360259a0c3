# SPDX-License-Identifier: Apache-2.0
"""The small tables of a replica beside plain ones, whatever is done to them: clients, streams, a snapshot's parts.

Each keeps something twice to be quick (who is where and where who is, what is due next), and what is forgotten on one
side shows only when a connection ends, a process begins anew, or a peer has another snapshot by now.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from replicas.replica.forwarding import Forwarding, Streams
from replicas.replica.hosting import Hosting
from replicas.replica.messages import Forward, SnapshotPart, SnapshotRequest
from replicas.replica.output import KeepSnapshotPart
from replicas.replica.snapshots import PART_RETRY_MS, Fetching
from tests.histories import histories

quickly = settings(derandomize=True, database=None, max_examples=150, deadline=None)

WORDS = ("opening", "judged", "bind", "gone", "ended", "add", "applied")
SMALL = st.integers(0, 3)


class Clients:
    """A hosting, and what a plain list of what has happened says of it."""

    def __init__(self) -> None:
        self.hosting = Hosting()
        self.connections = list(range(1, 5))
        """Those that are there; one that has ended is never heard of again."""
        self.where: dict[int, int] = {}
        self.opening: dict[bytes, int] = {}
        self.pending: dict[bytes, int] = {}
        self.next = 5

    def do(self, word: str, which: int, what: int) -> None:
        connection, nonce, session = self.connections[which], b"nonce %d" % what, 100 + what
        hosting = self.hosting
        match word:
            case "opening":
                hosting.opening(connection, nonce)
                # A connection is for one session: what it has said last is what it waits for.
                self.opening = {known: at for known, at in self.opening.items() if at != connection}
                self.opening[nonce] = connection
            case "judged":
                expected = self.opening.pop(nonce, None)
                assert hosting.judged(nonce) == expected, "it is said to whoever asked, if that is still there"
            case "bind":
                former = self.where.get(session)
                assert hosting.bind(connection, session) == (former if former != connection else None)
                self._is_at(session, connection)
            case "gone":
                hosting.gone(connection)
                self.connections[which], self.next = self.next, self.next + 1
                self.where = {known: at for known, at in self.where.items() if at != connection}
                self.opening = {known: at for known, at in self.opening.items() if at != connection}
            case "ended":
                hosting.ended(session)
                self.where.pop(session, None)
            case "add":
                assert hosting.add(nonce, connection) == (nonce not in self.pending)
                self.pending[nonce] = connection
            case _:
                sent = self.pending.pop(nonce, None)
                assert hosting.applied(nonce) == (sent if sent in self.connections else None)

    def _is_at(self, session: int, connection: int) -> None:
        self.where = {known: at for known, at in self.where.items() if at != connection and known != session}
        self.where[session] = connection

    def check(self) -> None:
        """Both say the same, and nothing is kept of a connection that has ended."""
        hosting = self.hosting
        assert {session: hosting.connection(session) for session in hosting.sessions} == self.where
        assert hosting._connection_of_nonce == self.opening
        assert set(hosting.connections) <= set(self.connections), "it has come back from the dead"
        assert list(hosting.pending) == list(self.pending), "in the order they came"
        for connection in hosting.connections:
            assert hosting.link(connection).pending == list(self.pending.values()).count(connection)


@quickly
@given(histories(st.tuples(st.sampled_from(WORDS), SMALL, SMALL), 40))
def test_who_is_connected_where(steps: list[tuple[str, int, int]]) -> None:
    """Whatever comes, goes, comes back elsewhere and is said twice."""
    clients = Clients()
    for word, which, what in steps:
        clients.do(word, which, what)
        clients.check()


@quickly
@given(histories(st.tuples(st.sampled_from(["say", "say", "begin", "restart", "lose", "apply"]), SMALL), 40))
def test_a_leader_takes_no_word_before_those_that_were_said_before_it(steps: list[tuple[str, int]]) -> None:
    """Of each life of a follower, whatever gets lost on the way, and however the lives before it ended."""
    streams, now_ms, said = Streams(), 1_000, 0
    hosting = Hosting()
    forwarding = Forwarding(hosting, now_ms)
    forwarding.begin(now_ms)
    born = taken = applied = lost = 0
    for what, number in steps:
        now_ms += 5
        match what:
            case "say":
                said += 1
                hosting.add(b"%d" % said, 1)
                forwarding.add(b"%d" % said)
            case "begin":
                forwarding.begin(now_ms)
            case "restart":
                hosting = Hosting()
                forwarding = Forwarding(hosting, now_ms)
                forwarding.begin(now_ms)
                born = taken = applied = said
            case "lose":
                lost = number
            case _ if taken > applied:
                applied += 1
                forwarding.applied(b"%d" % applied, now_ms)
        for forward in forwarding.take():
            if lost:
                lost -= 1
            elif streams.takes(1, forward):
                words = [int(body) for body in forward.bodies]
                first = words[0] if words else taken + 1
                assert born < first <= taken + 1, f"{words} is taken after {taken} of the life since {born}"
                assert words == list(range(first, first + len(words)))
                taken = max([taken, *words])


def part(slot: int, offset: int) -> SnapshotPart:
    """Three bytes of a snapshot of nine."""
    known: dict[str, Any] = {"slot": slot, "offset": offset, "data": b"%03d" % slot, "total": 9, "last": offset == 6}
    return SnapshotPart(**{name: known.get(name, b"") for name in SnapshotPart._fields})


@quickly
@given(histories(st.tuples(st.sampled_from(["want", "answer", "answer", "stray", "newer", "late"]), SMALL), 40))
def test_what_is_kept_of_a_snapshot_is_of_one_and_without_a_gap(steps: list[tuple[str, int]]) -> None:
    """Parts may come late, twice, and of another snapshot than was asked for."""
    fetching, now_ms, newest = Fetching(), 0, 10
    asked: list[SnapshotRequest] = []
    kept: tuple[int, int] | None = None
    for what, number in steps:
        now_ms += 10
        incoming: SnapshotPart | None = None
        match what:
            case "want" | "late":
                now_ms += PART_RETRY_MS if what == "late" else 0
                asked += [request for _, request in fetching.want(2, now_ms)]  # type: ignore[misc]
            case "newer":
                newest += 1
            case "stray":
                incoming = part(10 + number, 3 * (number % 3))
            case _ if asked:
                wanted = asked.pop()
                is_there = wanted.slot in {0, newest}
                incoming = part(newest, wanted.offset if is_there or number else 0)
        if incoming is None:
            continue
        work, requests = fetching.came(2, incoming, 5, now_ms)
        asked += [request for _, request in requests]  # type: ignore[misc]
        for one in work:
            assert isinstance(one, KeepSnapshotPart)
            if one.part.offset:
                assert kept == (one.part.slot, one.part.offset), f"{one.part} is added to {kept}"
            kept = (one.part.slot, one.part.offset + len(one.part.data))


def test_a_new_reign_takes_nothing_in_the_middle_of_a_stream() -> None:
    """What came before it may have been forgotten with the reign before."""
    streams = Streams()
    assert streams.takes(2, Forward(7, 0, (b"a",)))
    streams.clear()
    assert not streams.takes(2, Forward(7, 1, (b"b",)))
    assert streams.takes(2, Forward(8, 0, (b"a", b"b")))
