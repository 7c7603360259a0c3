# SPDX-License-Identifier: Apache-2.0
"""What a long run came to: how much was tried, what went wrong in it on purpose, and what was never met.

"Sometimes" conditions: a simulation proves nothing about what it never reaches, so everything that should be reached is
counted, and what was not is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from dthreading.wire import messages as wire
from replicas.paxos import messages as paxos
from replicas.replica import messages as peers
from tests.sim.checkers.members import MEMBERS_SOMETIMES
from tests.sim.checkers.sometimes import SOMETIMES
from tests.sim.mishaps import MISHAPS, UPSETS
from tests.sim.wishes import WISHES

_NOT_SIMULATED = frozenset({"Hello", "Challenge", "Proof", "Welcome", "Rejected", "CloseAtEnd", "Query", "Answer"})
"""Of the handshake and of people's questions: the daemon's tests have these."""


def _kinds(module: object) -> Iterable[str]:
    for name, kind in vars(module).items():
        if isinstance(kind, type) and hasattr(kind, "_fields") and kind.__module__ == getattr(module, "__name__", ""):
            yield name


def expected() -> list[str]:
    """All that must be met in a long run."""
    kinds = {*_kinds(wire), *_kinds(paxos), *_kinds(peers)} - _NOT_SIMULATED
    struck = [f"mishap: {kind}" for kind in (*MISHAPS, *UPSETS)]
    return [*sorted(kinds), *struck, *(f"wish: {kind}" for kind in WISHES), *SOMETIMES, *MEMBERS_SOMETIMES]


class Tally(NamedTuple):
    """What one or many worlds came to."""

    worlds: int
    simulated_s: float
    cpu_s: float
    calls: int
    seen: Counter[str]

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(
            self.worlds + other.worlds,
            self.simulated_s + other.simulated_s,
            self.cpu_s + other.cpu_s,
            self.calls + other.calls,
            self.seen + other.seen,
        )

    def lines(self) -> Iterable[str]:
        """For people."""
        yield f"{self.worlds} worlds, {self.simulated_s / 3600:.1f} simulated hours, {self.calls} calls checked"
        if self.simulated_s:
            yield f"{self.cpu_s:.0f} s of CPU, {self.cpu_s / self.simulated_s * 1000:.1f} ms for a simulated second"
        yield "met, and how often:"
        width = max((len(what) for what in [*self.seen, *expected()]), default=0)
        for what in sorted({*self.seen, *expected()}):
            yield f"  {what:{width}}  {self.seen[what] or 'NEVER'}"

    @property
    def never(self) -> list[str]:
        """What should have been met and was not."""
        return [what for what in expected() if not self.seen[what]]


NOTHING = Tally(0, 0.0, 0.0, 0, Counter())
