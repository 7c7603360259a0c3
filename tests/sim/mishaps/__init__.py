# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in a world with a whole group: each kind is one function of the world and of its own luck. A map.

`MISHAPS` says how often each is drawn beside the others. What a mishap breaks is mended by a later one, by itself, or
when peace comes; in a world that heals only its core (lasting.py), what befalls the others may stay for ever.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.sim.mishaps import ambushes, disks, links, members, processes, replicas

if TYPE_CHECKING:
    from tests.sim.mishaps.common import Strike
    from tests.sim.world import World

__all__ = ["MISHAPS", "UNDEFENDED", "UPSETS", "strike"]

_DRAWN: dict[str, tuple[float, Strike]] = {
    **replicas.STRIKES,
    **disks.STRIKES,
    **links.STRIKES,
    **processes.STRIKES,
    **ambushes.STRIKES,
}

MISHAPS = {kind: weight for kind, (weight, _) in _DRAWN.items()}

UNDEFENDED: dict[str, Strike] = {**disks.UNDEFENDED, **replicas.UNDEFENDED}
"""What the design does not promise to survive, so no world draws it: they are there to be tried by name."""

UPSETS = {kind: weight for kind, (weight, _) in members.STRIKES.items()}
"""The same where members change, beside all others."""

_STRIKES: dict[str, Strike] = {kind: action for kind, (_, action) in (_DRAWN | members.STRIKES).items()} | UNDEFENDED


def strike(world: World, kind: str, luck: random.Random) -> None:
    """Let it happen."""
    world.kernel.note(f"mishap {kind}")
    world.kernel.seen[f"mishap: {kind}"] += 1
    if world.fair_game:
        _STRIKES[kind](world, luck)
