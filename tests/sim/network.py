# SPDX-License-Identifier: Apache-2.0
"""The simulated network: one-way links that delay, lose, double and reorder messages, and can be cut.

Two manners. A stream keeps its order and loses only what is under way when the connection breaks, as TCP does; after
that the next message opens a new connection. A datagram link loses, doubles and reorders whatever it likes: more than
our transport ever does, and what the protocol has to stand anyway.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.sim.kernel import Kernel
from tests.sim.story import words


@dataclass(slots=True, kw_only=True)
class Weather:
    """How the network behaves at present."""

    streams: bool = True
    delay_us: tuple[int, int] = (100, 1_000)
    straggle: float = 0.0
    """How often a message takes up to a hundred times as long (and, on a stream, all that follow it)."""
    lose: float = 0.0
    double: float = 0.0


@dataclass(slots=True)
class Link:
    connection: int = 0
    last_us: int = 0
    cut: bool = False


class Network:
    """Carries messages between numbered nodes."""

    def __init__(self, kernel: Kernel, weather: Weather, luck: random.Random | None = None) -> None:
        self.weather = weather
        self._kernel = kernel
        self._luck = luck if luck is not None else kernel.random
        self._receivers: dict[int, Callable[[int, Any], None]] = {}
        self._links: dict[tuple[int, int], Link] = {}

    def attach(self, node: int, receive: Callable[[int, Any], None]) -> None:
        """`receive(source, message)` is called for each message that reaches `node`."""
        for other in self._receivers:
            self._links[other, node] = Link()
            self._links[node, other] = Link()
        self._receivers[node] = receive

    def send(self, source: int, target: int, message: Any) -> None:
        """Put a message on its way."""
        if target not in self._receivers:
            return
        link = self._links[source, target]
        kernel, weather, luck = self._kernel, self.weather, self._luck
        if link.cut or luck.random() < weather.lose:
            if weather.streams:
                link.connection += 1
            return
        for _ in range(2 if luck.random() < weather.double and not weather.streams else 1):
            delay_us = luck.randint(*weather.delay_us)
            if luck.random() < weather.straggle:
                delay_us *= luck.randint(2, 100)
            arrival_us = kernel.now_us + delay_us
            if weather.streams:
                arrival_us = link.last_us = max(arrival_us, link.last_us)
            kernel.at(arrival_us - kernel.now_us, self._arrive, source, target, link.connection, message)

    def _arrive(self, source: int, target: int, connection: int, message: Any) -> None:
        link = self._links[source, target]
        if link.cut or (self.weather.streams and connection != link.connection):
            return
        kernel, kind = self._kernel, type(message).__name__
        kernel.note(f"{source}>{target} {kind} {message[0]}")
        kernel.seen[kind] += 1
        if kernel.tells:
            kernel.tell(f"{source}>{target} {words(message)}")
        self._receivers[target](source, message)

    def cut(self, source: int, target: int) -> None:
        """Nothing passes from `source` to `target` any more, and what is under way is lost."""
        link = self._links[source, target]
        link.cut = True
        link.connection += 1

    def cut_off(self, nodes: list[int]) -> None:
        """A partition: between these nodes and all others."""
        for source, target in self._links:
            if (source in nodes) != (target in nodes):
                self.cut(source, target)

    def mend(self) -> None:
        """Every link passes messages again."""
        for link in self._links.values():
            link.cut = False

    def reset(self, node: int) -> None:
        """All connections of this node break; the next message opens new ones."""
        for (source, target), link in self._links.items():
            if node in (source, target):
                link.connection += 1
