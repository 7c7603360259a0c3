# SPDX-License-Identifier: Apache-2.0
"""Many sessions and many calls at once in this one process, without a thread for any of them.

The client's own sans-IO session and its connection are driven from one epoll loop, so ten thousand waiters cost ten
thousand calls on their lanes and nothing else.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import Any, Self

from dthreading.link import Link
from dthreading.resolve import numeric
from dthreading.session import ACQUIRE, GET, PUT, RELEASE, ClientSession, Manner, PendingCall, State, Target
from dthreading.wire.messages import Lifetime, Status
from tests.server.cluster import Cluster

TTL_MS = 3_600_000
"""The longest lease, so that keepalives are no part of what is measured unless a shorter one is chosen."""

TICK_S = 0.1
"""How often to look whose keepalive is due."""

WAVE = 100
"""Connections begun at one time: as many as a listening socket keeps in its queue."""

WAIT_S = 60.0


class Call(PendingCall):
    """A call, and what to do with its answer."""

    __slots__ = ("then",)

    def __init__(
        self, target: Target, operation: str, arguments: tuple[Any, ...], manner: Manner, then: Callable[[Any], None]
    ) -> None:
        super().__init__(target, operation, arguments, manner)
        self.then = then


class Member:
    """One session on a connection of its own."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        endpoint = numeric(crowd.address)
        assert endpoint is not None
        self.crowd = crowd
        self.link = Link(endpoint, crowd.secret)
        self.session = ClientSession(namespace="bench", label=f"crowd {number}", ttl_ms=crowd.ttl_ms, news=crowd.news)
        self.greeted = False

    def call(
        self, target: Target, operation: str, arguments: tuple[Any, ...], manner: Manner, then: Callable[[Any], None]
    ) -> None:
        call = Call(target, operation, arguments, manner, then)
        if not self.session.begin(call):
            self.session.submit(call)
        self.crowd.touched[self.link.fileno()] = self


class Crowd:
    """Members, and the loop that serves them. All of them speak with the leader of the group."""

    def __init__(self, cluster: Cluster, ttl_ms: int = TTL_MS) -> None:
        self.address = cluster.leader().address
        self.secret = cluster.secret
        self.ttl_ms = ttl_ms
        self.news: list[PendingCall] = []
        self.members: list[Member] = []
        self.touched: dict[int, Member] = {}
        self._epoll = select.epoll()
        self._by_descriptor: dict[int, Member] = {}
        self._tick_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            self._let_go(member)
        self._epoll.close()

    def _let_go(self, member: Member) -> None:
        if not member.session.over:
            member.session.close()
        member.link.flush()
        member.link.close()

    def open(self, count: int) -> list[Member]:
        """So many more sessions."""
        fresh: list[Member] = []
        while len(fresh) < count:
            wave = [Member(self, len(self.members) + i) for i in range(min(WAVE, count - len(fresh)))]
            for member in wave:
                self._by_descriptor[member.link.fileno()] = member
                self._epoll.register(member.link, select.EPOLLOUT)
            self.members += wave
            fresh += wave
            self._ready(wave)
        return fresh

    def _ready(self, wave: list[Member]) -> None:
        self.until(lambda: all(member.session.ready for member in wave))

    def close(self, members: list[Member]) -> None:
        """End these sessions."""
        self._forget(members)
        for member in members:
            self._let_go(member)

    def abandon(self, members: list[Member]) -> None:
        """Their connections end without a word, as when a machine loses its power: their leases run on."""
        self._forget(members)
        for member in members:
            member.link.close()

    def _forget(self, members: list[Member]) -> None:
        for member in members:
            self._by_descriptor.pop(member.link.fileno())
            self._epoll.unregister(member.link)
            self.members.remove(member)

    def until(self, done: Callable[[], object], most_s: float = WAIT_S) -> None:
        """Serve everybody until it is so."""
        deadline = time.monotonic() + most_s
        self._flush()
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not done after {most_s} s")
            self._turn()

    def _turn(self) -> None:
        now = time.monotonic()
        if now >= self._tick_at:
            self._tick_at = now + TICK_S
            for member in self.members:
                if now >= member.session.next_at(now):
                    member.session.tick(now)
                    self.touched[member.link.fileno()] = member
            self._flush()
        for descriptor, events in self._epoll.poll(0.05):
            member = self._by_descriptor[descriptor]
            if events & select.EPOLLOUT and member.link.wants_to_write:
                member.link.writable()
                self._watch(member)
            if events & ~select.EPOLLOUT:
                self._read(member)
        while self.news:
            news = self.news.copy()
            self.news.clear()
            for call in news:
                self._pass_on(call)
        self._flush()

    def _read(self, member: Member) -> None:
        link, session = member.link, member.session
        now = time.monotonic()
        messages = link.read()
        if link.broken is not None:
            raise ConnectionError(link.broken)
        if link.welcome is not None and not member.greeted:
            member.greeted = True
            session.connected(link.outbox, os.urandom(16), now)
        for message in messages:
            session.step(message, now)
        if link.outbox:
            self.touched[link.fileno()] = member

    def _pass_on(self, call: PendingCall) -> None:
        assert isinstance(call, Call)
        assert call.settled
        assert call.session is not None
        if call.session.state is State.CLOSED:
            return
        if call.error is not None or call.lost or call.status != Status.OK:
            raise AssertionError(f"{call.operation} of {call.target}: {call.error or call.value or 'lost'}")
        value = call.value
        call.session.finish(call)
        call.then(value)

    def _flush(self) -> None:
        touched = list(self.touched.values())
        self.touched.clear()
        for member in touched:
            member.link.flush()
            if member.link.wants_to_write:
                self._watch(member)

    def _watch(self, member: Member) -> None:
        wanted = select.EPOLLIN | (select.EPOLLOUT if member.link.wants_to_write else 0)
        self._epoll.modify(member.link, wanted)


def lock(name: str) -> Target:
    """A lock of that name, one attachment."""
    return Target("bench", name, "Lock", (), Lifetime.NAMED)


def queue(name: str) -> Target:
    """An unbounded queue of that name, one attachment."""
    return Target("bench", name, "SimpleQueue", (), Lifetime.NAMED)


class Stream:
    """Commands without an end from one lane: acquire and release, or put and get, one after the other."""

    def __init__(self, member: Member, target: Target, item: bytes = b"") -> None:
        self.member = member
        self._target = target
        self._item = item
        self._left = 0
        self.idle = True

    def go(self, commands: int) -> None:
        """So many more commands, an even number."""
        self._left = commands
        self.idle = False
        self._first(None)

    def _first(self, _: Any) -> None:
        if not self._left:
            self.idle = True
        elif self._target.kind == "Lock":
            self._left -= 2
            self.member.call(self._target, "acquire", (True, 1), ACQUIRE, self._second)
        else:
            self._left -= 2
            self.member.call(self._target, "put", (True, self._item), PUT, self._second)

    def _second(self, answer: Any) -> None:
        if self._target.kind == "Lock":
            self.member.call(self._target, "release", (answer,), RELEASE, self._first)
        else:
            self.member.call(self._target, "get", (True,), GET, self._first)


def pump(crowd: Crowd, streams: list[Stream], commands: int) -> None:
    """About so many commands, as many at a time as there are streams."""
    for stream in streams:
        stream.go(2 * max(1, commands // len(streams) // 2))
    crowd.until(lambda: all(stream.idle for stream in streams), most_s=600)


class Ring:
    """Waiters on one lock: whoever is granted it gives it back and stands in line again.

    Args:
        crowd: that of `members`.
        members: who waits, each in as many calls as it takes.
        waiters: how many wait in all, beside the one that holds.
        name: the lock's.

    """

    def __init__(self, crowd: Crowd, members: list[Member], waiters: int, name: str) -> None:
        self._crowd = crowd
        self._targets = [(member, lock(name)) for member in members]
        self._left = 0
        self._held: Callable[[], None] | None = None
        for number in range(waiters + 1):
            self._wait(*self._targets[number % len(members)])
        crowd.until(lambda: self._held is not None)

    def _wait(self, member: Member, target: Target) -> None:
        def granted(fence: Any) -> None:
            def pass_on() -> None:
                member.call(target, "release", (fence,), RELEASE, _nothing)
                self._wait(member, target)

            if self._left:
                self._left -= 1
                pass_on()
            else:
                self._held = pass_on

        member.call(target, "acquire", (True, 1), ACQUIRE, granted)

    def hand_over(self, times: int) -> float:
        """So many hand-offs, one after the other; the seconds they took."""
        held, self._held = self._held, None
        assert held is not None
        self._left = times - 1
        began = time.perf_counter()
        held()
        self._crowd.until(lambda: self._held is not None)
        return time.perf_counter() - began


def _nothing(_: Any) -> None:
    pass
