# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in a world of bare consensus, when, and how much of it: drawn from the seed, so that some seeds are
calm and some are storms.

The measure of time is the election timeout: trouble lasts for so many of them, and mishaps follow each other at a pace
at which leaders come and go. With 100 ms to an election a world has dozens of reigns, and messages that outlive some.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields

from replicas.paxos.types import Timing
from tests.sim.network import Weather


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """The habits of one simulated world. Probabilities are weights: each mishap is drawn among all."""

    timing: Timing = field(default_factory=Timing)
    trouble_us: int = 5_000_000
    """How long things go wrong."""
    every_us: tuple[int, int]
    """How long it takes from one mishap to the next."""
    doubt: float = 0.0
    """How often a crash also spoils the last batch that was synced."""
    mend: float = 0.0
    crash: float = 0.0
    crash_all: float = 0.0
    partition: float = 0.0
    one_way: float = 0.0
    deafen: float = 0.0
    reset: float = 0.0
    slow_disk: float = 0.0
    hung_disk: float = 0.0
    pause: float = 0.0
    hand_over: float = 0.0
    membership: float = 0.0
    weather: float = 0.0
    """How often the network's manner changes."""
    slow_answers: float = 0.0
    backlog: float = 0.0
    depose: float = 0.0
    doubt_and_elect: float = 0.0
    change_and_split: float = 0.0
    leave_behind: float = 0.0
    stall: float = 0.0
    half_an_election: float = 0.0

    @classmethod
    def drawn(cls, luck: random.Random) -> Faults:
        """Each kind of mishap happens in about half of all worlds, so that they are met alone and together."""

        def some(weight: float) -> float:
            return luck.choice((0.0, weight))

        heartbeat_ms, election_ms = luck.choice(((30, 100), (30, 100), (25, 100), (100, 500)))
        election_us = election_ms * 1_000
        pace_us = int(election_us * luck.choice((0.3, 1.0, 2.5)))
        elections = luck.choice((15, 30, 30, 60, 60, 100, 200)) if election_ms == 100 else luck.choice((10, 20))
        return cls(
            timing=Timing(heartbeat_ms=heartbeat_ms, election_ms=election_ms, disk_ms=3 * election_ms),
            trouble_us=elections * election_us,
            every_us=(pace_us // 10, pace_us * 2),
            doubt=luck.choice((0.0, 0.5)),
            mend=3.0,
            crash=some(3.0),
            crash_all=some(0.3),
            partition=some(2.0),
            one_way=some(1.5),
            deafen=some(1.0),
            reset=some(1.0),
            slow_disk=some(1.0),
            hung_disk=some(0.5),
            pause=some(1.0),
            hand_over=some(1.0),
            membership=luck.choice((0.0, 0.0, 0.0, 1.0, 2.0)),
            weather=some(1.0),
            slow_answers=some(1.0),
            backlog=some(2.0),
            depose=some(2.0),
            doubt_and_elect=some(2.0),
            change_and_split=some(2.0),
            leave_behind=some(1.0),
            stall=some(1.5),
            half_an_election=some(2.0),
        )

    def __str__(self) -> str:
        """Without what does not happen."""
        habits = {one.name: getattr(self, one.name) for one in fields(self)}
        return " ".join(f"{name}={habit}" for name, habit in habits.items() if habit)


def weather_drawn(luck: random.Random, election_us: int) -> Weather:
    """A network's manner: half of the time like TCP in one room, else worse, up to delays of a reign's length."""
    streams = luck.random() < 0.6
    return Weather(
        streams=streams,
        delay_us=luck.choice(((50, 300), (100, 3_000), (100, 3_000), (1_000, 40_000), (1_000, election_us // 2))),
        straggle=luck.choice((0.0, 0.0, 0.01, 0.05)),
        lose=0.0 if streams else luck.choice((0.0, 0.01, 0.1, 0.3)),
        double=0.0 if streams else luck.choice((0.0, 0.1)),
    )
