# SPDX-License-Identifier: Apache-2.0
"""The simulated network: one-way links that delay, lose, double and reorder messages, and can be cut.

Two manners. A stream keeps its order and loses only what is under way when the connection breaks, as TCP does; after
that the next message opens a new connection. What the old one still carries may come until the new one is heard of,
and never after. A datagram link loses, doubles and reorders whatever it likes: more than our transport ever does, and
what the protocol has to stand anyway.

A client's connections are streams of their own, each with a number, beside one another on one link.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.sim.kernel import Kernel
from tests.sim.story import kind_of, words


@dataclass(slots=True, kw_only=True)
class Weather:
    """How the network behaves at present."""

    streams: bool = True
    delay_us: tuple[int, int] = (100, 1_000)
    straggle: float = 0.0
    """How often a message takes up to a hundred times as long (and, on a stream, all that follow it)."""
    lose: float = 0.0
    """How often a message is lost, and on a stream the connection with it."""
    double: float = 0.0


@dataclass(slots=True)
class Link:
    """One direction between two nodes."""

    connection: int = 0
    cut: bool = False
    lost_below: int = 0
    """What older connections carried is lost."""
    heard: int = 0
    """The youngest connection that anything came on."""
    weather: Weather | None = None
    """Of this link alone."""
    troubled_us: int = -1
    """When it was last cut, mended, broken, or given a weather of its own."""
    last_us: dict[int, int] = field(default_factory=dict)
    """When the last message of each stream arrives."""


class Ambush(NamedTuple):
    """Something lies in wait for the next message of a kind between some nodes."""

    kind: str
    nodes: frozenset[int]
    """Either end is one of these."""
    loses: bool
    """The message is lost, and its connection with it; else it arrives first."""
    until_us: int
    strike: Callable[[int, int], None]
    """Called with source and target."""


STREAMS_MAX = 16
"""So many streams of one link are kept in order; older ones have long ended."""


class Network:
    """Carries messages between numbered nodes."""

    def __init__(self, kernel: Kernel, weather: Weather, luck: random.Random | None = None) -> None:
        self.weather = weather
        self._kernel = kernel
        self._luck = luck if luck is not None else kernel.random
        self._receivers: dict[int, Callable[[int, Any], None]] = {}
        self._links: dict[tuple[int, int], Link] = {}
        self._ambushes: list[Ambush] = []

    def attach(self, node: int, receive: Callable[[int, Any], None]) -> None:
        """`receive(source, message)` is called for each message that reaches `node`."""
        for other in self._receivers:
            self._links[other, node] = Link()
            self._links[node, other] = Link()
        self._receivers[node] = receive

    def send(self, source: int, target: int, message: Any, stream: int = 0) -> None:
        """Put a message on its way. `stream`: a client's connection, or 0."""
        link = self._links.get((source, target))
        if link is None:
            return
        kernel, luck = self._kernel, self._luck
        weather = link.weather or self.weather
        if link.cut or luck.random() < weather.lose:
            if weather.streams:
                self._break(link, lingering=False)
            return
        for _ in range(2 if luck.random() < weather.double and not weather.streams else 1):
            delay_us = evenly(luck, *weather.delay_us)
            if luck.random() < weather.straggle:
                delay_us *= luck.randint(2, 100)
            if weather.streams:
                arrival_us = link.last_us.get(stream, 0)
                if kernel.now_us + delay_us > arrival_us:
                    arrival_us = kernel.now_us + delay_us
                    link.last_us[stream] = arrival_us
                    if len(link.last_us) > STREAMS_MAX:
                        del link.last_us[next(iter(link.last_us))]
                delay_us = arrival_us - kernel.now_us
            connection = link.connection if weather.streams else -1
            kernel.at(delay_us, self._arrive, source, target, link, connection, stream, message)

    def _arrive(self, source: int, target: int, link: Link, connection: int, stream: int, message: Any) -> None:
        if link.cut:
            return
        kernel, kind = self._kernel, type(message).__name__
        if connection != link.connection and connection >= 0:
            if connection < link.lost_below:
                return
            if not stream and connection < link.heard:
                kernel.seen["network: bytes of an old connection came after the new one's"] += 1
                return
            kernel.seen["network: bytes of an old connection came late"] += 1
        if self._ambushes and (ambush := self._sprung(source, target, message, stream)) is not None:
            kernel.note(f"ambush {ambush.kind} {source}>{target} {ambush.loses}")
            kernel.at(0, ambush.strike, source, target)
            if ambush.loses:
                self._break(link, lingering=False)
                return
        link.heard = max(link.heard, connection)
        kernel.note(f"{source}>{target} {kind} {message[0]}")
        kernel.seen[kind] += 1
        if stream:
            kernel.seen[kind_of(message)] += 1
        if kernel.tells:
            kernel.tell(f"{source}>{target} {words(message)}")
        self._receivers[target](source, message)

    def _sprung(self, source: int, target: int, message: Any, stream: int) -> Ambush | None:
        """The ambush that this message runs into, which is then over."""
        kind = kind_of(message) if stream else type(message).__name__
        for ambush in self._ambushes:
            if ambush.kind == kind and (source in ambush.nodes or target in ambush.nodes):
                self._ambushes.remove(ambush)
                if self._kernel.now_us > ambush.until_us:
                    return None
                self._kernel.seen[f"ambush: {kind}"] += 1
                return ambush
        return None

    # --- what goes wrong

    def lie_in_wait(self, ambush: Ambush) -> None:
        """For the next message of that kind, or until it is time to give up."""
        self._ambushes.append(ambush)

    def cut(self, source: int, target: int) -> None:
        """Nothing passes from `source` to `target` any more, and what is under way is lost."""
        link = self._links[source, target]
        link.cut = True
        self._break(link, lingering=False)

    def cut_each(self, pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Cut these, in the direction given; those that were not cut before."""
        fresh = [pair for pair in pairs if not self._links[pair].cut]
        for pair in fresh:
            self.cut(*pair)
        return fresh

    def cut_off(self, nodes: list[int]) -> None:
        """A partition: between these nodes and all others."""
        for source, target in self._links:
            if (source in nodes) != (target in nodes):
                self.cut(source, target)

    def mend(self, links: Iterable[tuple[int, int]] | None = None) -> None:
        """These links, or all, pass messages again, as the network does in general."""
        for pair in self._links if links is None else links:
            link = self._links[pair]
            if link.cut or link.weather is not None:
                link.troubled_us = self._kernel.now_us
            link.cut = False
            link.weather = None

    def give_weather(self, links: Iterable[tuple[int, int]], weather: Weather | None) -> None:
        """These links behave in their own way until they are mended."""
        for pair in links:
            link = self._links[pair]
            link.weather = weather
            link.troubled_us = self._kernel.now_us

    def reset(self, node: int, *, lingering: bool = False) -> None:
        """All connections of this node break; the next message opens new ones.

        Args:
            node: whose.
            lingering: what is under way may still come, until the new connection is heard of.

        """
        for (source, target), link in self._links.items():
            if node in (source, target):
                self._break(link, lingering=lingering)

    def arrived_by(self, end_us: int) -> None:
        """What is under way arrives by then: no stream keeps its later bytes waiting for longer, either."""
        self._kernel.hasten(end_us, lambda action: action == self._arrive)
        for link in self._links.values():
            link.last_us = {stream: min(arrival_us, end_us) for stream, arrival_us in link.last_us.items()}

    def troubled_us(self, one: int, other: int) -> int:
        """When anything was last wrong with the links between these two: now, or at a moment before; -1: never."""
        links = self._links[one, other], self._links[other, one]
        if any(link.cut or link.weather is not None for link in links):
            return self._kernel.now_us
        return max(link.troubled_us for link in links)

    @property
    def links(self) -> list[tuple[int, int]]:
        """All there are, as (source, target)."""
        return list(self._links)

    def _break(self, link: Link, *, lingering: bool) -> None:
        link.connection += 1
        link.troubled_us = self._kernel.now_us
        if not lingering:
            link.lost_below = link.connection
        link.last_us.pop(0, None)  # a new connection waits for nothing of the old one


def evenly(luck: random.Random, low: int, high: int) -> int:
    """`luck.randint(low, high)`, drawing the very same, in a third of the time."""
    span = high - low + 1
    bits = span.bit_length()
    drawn = luck.getrandbits(bits)
    while drawn >= span:
        drawn = luck.getrandbits(bits)
    return low + drawn
