# SPDX-License-Identifier: Apache-2.0
"""What goes wrong, when, and how much of it: drawn from the seed, so that some seeds are calm and some are storms."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.sim.network import Weather


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """The habits of one simulated world. Probabilities are weights: each mishap is drawn among all."""

    every_us: tuple[int, int]
    """How long it takes from one mishap to the next."""
    crash: float = 0.0
    crash_all: float = 0.0
    doubt: float = 0.0
    """How often a crash also spoils the last batch that was synced."""
    partition: float = 0.0
    one_way: float = 0.0
    mend: float = 0.0
    reset: float = 0.0
    slow_disk: float = 0.0
    hung_disk: float = 0.0
    pause: float = 0.0
    hand_over: float = 0.0
    membership: float = 0.0
    weather: float = 0.0
    """How often the network's manner changes."""

    @classmethod
    def drawn(cls, luck: random.Random) -> Faults:
        """Each kind of mishap happens in about half of all worlds, so that they are met alone and together."""

        def some(weight: float) -> float:
            return luck.choice((0.0, weight))

        pace = luck.choice((50_000, 200_000, 600_000))
        return cls(
            every_us=(pace // 10, pace * 2),
            crash=some(3.0),
            crash_all=some(0.3),
            doubt=luck.choice((0.0, 0.5)),
            partition=some(2.0),
            one_way=some(1.5),
            mend=3.0,
            reset=some(1.0),
            slow_disk=some(1.0),
            hung_disk=some(0.5),
            pause=some(1.0),
            hand_over=some(1.0),
            membership=luck.choice((0.0, 0.0, 1.0)),
            weather=some(1.0),
        )


def weather_drawn(luck: random.Random) -> Weather:
    """A network's manner: half of the time like TCP in one room, else worse."""
    streams = luck.random() < 0.6
    return Weather(
        streams=streams,
        delay_us=luck.choice(((50, 300), (100, 3_000), (1_000, 40_000))),
        straggle=luck.choice((0.0, 0.0, 0.01, 0.05)),
        lose=0.0 if streams else luck.choice((0.0, 0.01, 0.1, 0.3)),
        double=0.0 if streams else luck.choice((0.0, 0.1)),
    )
