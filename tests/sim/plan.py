# SPDX-License-Identifier: Apache-2.0
"""A whole world as data: who takes part, what they do, and what goes wrong when. Drawn from a seed, or from less.

Each part has a name (m3 is a mishap, c2 a client) and draws from its own chance, so a plan with parts left out is still
much the same world. That is how a failing one is made small, and how the small one is named on a command line.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import NamedTuple

TROUBLE_US = 50_000_000
"""How long things go wrong: many leases, elections and snapshots."""

CHANGING_SHARE = 0.22
"""Of all worlds. Where members change there are more replicas, so those worlds are shorter."""
CHANGING_TROUBLE_US = 25_000_000

CALLS_A_SECOND = (6, 12, 25)
"""How much all clients of a world ask together, roughly. Each call costs the simulator the same, so a busier world is
not a better one, only a denser; what finds faults is how calls and mishaps meet."""


class Mishap(NamedTuple):
    """Something that goes wrong at a moment. Whom it strikes depends on how things stand then, and on `seed`."""

    name: str
    at_us: int
    kind: str
    seed: int


class Wish(NamedTuple):
    """An operator sets out to change the members at a moment. How, depends on how things stand then, and on `seed`."""

    name: str
    at_us: int
    kind: str
    seed: int


class Part(NamedTuple):
    """A client process's part: the objects it uses, each "kind:name", and how long its threads think, on average."""

    name: str
    uses: tuple[str, ...]
    think_s: float


class Plan(NamedTuple):
    """One world."""

    seed: int
    replicas: int
    trouble_us: int
    core_only: bool
    """In the end only a quorum heals, and other faults stay for ever (see mishaps.py)."""
    delay_us: tuple[int, int]
    straggle: float
    snapshot_every: int
    clients: tuple[Part, ...]
    mishaps: tuple[Mishap, ...]
    moments: tuple[int, ...] = ()
    """When mishaps strike, those that are left out included: threads like to be at work then."""
    wishes: tuple[Wish, ...] = ()
    """Where there are none, the members stay as they are."""

    def without(self, names: Collection[str]) -> Plan:
        """The same world with less in it."""
        return self._replace(
            clients=tuple(part for part in self.clients if part.name not in names),
            mishaps=tuple(mishap for mishap in self.mishaps if mishap.name not in names),
            wishes=tuple(wish for wish in self.wishes if wish.name not in names),
        )

    @property
    def parts(self) -> list[str]:
        """The names of all that can be left out."""
        return [part.name for part in (*self.mishaps, *self.clients, *self.wishes)]


class Menu(NamedTuple):
    """What there is to draw from: mishaps with their weights, and objects ("kind:name") with theirs."""

    mishaps: dict[str, float]
    objects: dict[str, float]
    wishes: dict[str, float] = {}  # noqa: RUF012 - never changed
    """What operators may want, with its weight; and mishaps that strike only where members change."""
    upsets: dict[str, float] = {}  # noqa: RUF012


def drawn(
    seed: int,
    menu: Menu,
    *,
    replicas: int | None = None,
    clients: int | None = None,
    trouble_us: int = TROUBLE_US,
    core_only: bool | None = None,
) -> Plan:
    """The world of a seed. What is given is not drawn, and changes nothing else that is."""
    luck = random.Random(f"{seed}/plan")
    some_replicas = luck.choice((3, 3, 3, 3, 5, 5, 7))
    some_clients = luck.choice((2, 4, 8))
    some_core_only = luck.random() < 0.25
    plan = Plan(
        seed=seed,
        replicas=some_replicas if replicas is None else replicas,
        trouble_us=trouble_us,
        core_only=some_core_only if core_only is None else core_only,
        delay_us=luck.choice(((50, 300), (100, 3_000), (1_000, 20_000))),
        straggle=luck.choice((0.0, 0.01)),
        snapshot_every=luck.choice((12, 50, 300, 1_000_000)),
        clients=(),
        mishaps=(),
    )
    drawn_mishaps = _mishaps(seed, menu, trouble_us)
    plan = plan._replace(
        clients=_clients(seed, menu, some_clients if clients is None else clients),
        mishaps=drawn_mishaps,
        moments=tuple(mishap.at_us for mishap in drawn_mishaps),
    )
    return _with_changes(plan, menu, core_only=core_only)


def _clients(seed: int, menu: Menu, count: int) -> tuple[Part, ...]:
    """Everybody uses most of what the world has, so that they meet."""
    luck = random.Random(f"{seed}/clients")
    stock = [name for name, weight in menu.objects.items() if luck.random() < weight] or [*menu.objects][:1]
    rate = luck.choice(CALLS_A_SECOND)
    parts = []
    for number in range(1, count + 1):
        uses = tuple(name for name in stock if luck.random() < 0.8) or (luck.choice(stock),)
        parts.append((f"c{number}", uses))
    threads = sum(len(uses) for _, uses in parts)
    # A turn of a thread is two or three calls, and some uses have several threads.
    return tuple(Part(name, uses, 3.0 * threads / rate) for name, uses in parts)


def _mishaps(seed: int, menu: Menu, trouble_us: int) -> tuple[Mishap, ...]:
    """Each kind strikes in about half of all worlds, so that they are met alone and together."""
    luck = random.Random(f"{seed}/mishaps")
    weights = {kind: weight * luck.choice((0.0, 1.0, 2.0)) for kind, weight in menu.mishaps.items()}
    every_us = luck.choice((300_000, 1_000_000, 3_000_000))
    mishaps: list[Mishap] = []
    now_us = 0
    if not any(weights.values()):
        return ()
    while (now_us := now_us + luck.randint(1, 2 * every_us)) < trouble_us:
        (kind,) = luck.choices([*weights], [*weights.values()])
        mishaps.append(Mishap(f"m{len(mishaps)}", now_us, kind, luck.getrandbits(32)))
    return tuple(mishaps)


def _with_changes(plan: Plan, menu: Menu, *, core_only: bool | None) -> Plan:
    """In some worlds members come and go. These have chance of their own, so all others are what they would be."""
    luck = random.Random(f"{plan.seed}/members")
    if not menu.wishes or luck.random() >= CHANGING_SHARE or core_only:
        return plan
    trouble_us = min(plan.trouble_us, CHANGING_TROUBLE_US)
    weights = {kind: weight * luck.choice((0.0, 1.0, 2.0)) for kind, weight in menu.wishes.items()}
    weights = weights if any(weights.values()) else menu.wishes
    wishes: list[Wish] = []
    every_us = luck.choice((2_000_000, 5_000_000))
    now_us = luck.randint(200_000, 3_000_000)
    while now_us < trouble_us:
        (kind,) = luck.choices([*weights], [*weights.values()])
        wishes.append(Wish(f"w{len(wishes)}", now_us, kind, luck.getrandbits(32)))
        now_us += luck.randint(1, 2 * every_us)
    upsets: list[Mishap] = []
    now_us = 0
    while menu.upsets and (now_us := now_us + luck.randint(1, 4_000_000)) < trouble_us:
        (kind,) = luck.choices([*menu.upsets], [*menu.upsets.values()])
        upsets.append(Mishap(f"u{len(upsets)}", now_us, kind, luck.getrandbits(32)))
    return plan._replace(
        trouble_us=trouble_us,
        core_only=False,
        replicas=min(plan.replicas, 5),
        mishaps=(*(mishap for mishap in plan.mishaps if mishap.at_us < trouble_us), *upsets),
        wishes=tuple(wishes),
    )
