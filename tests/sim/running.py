# SPDX-License-Identifier: Apache-2.0
"""Runs the world of a seed, and says of a failure how to see it again: the one entry for tests, searches and gates."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from tests.sim import mishaps, wishes, workloads
from tests.sim.moving_world import MovingWorld
from tests.sim.plan import TROUBLE_US, Menu, Plan, drawn
from tests.sim.world import World

_WISHES = {kind: weight for kind, (weight, _) in wishes.WISHES.items()}
MENU = Menu(mishaps.MISHAPS, workloads.OBJECTS, _WISHES, mishaps.UPSETS)


class Options(NamedTuple):
    """What a world is drawn with besides its seed. None: it is drawn, too."""

    replicas: int | None = None
    clients: int | None = None
    trouble_s: float = TROUBLE_US / 1e6
    core_only: bool | None = None
    without: tuple[str, ...] = ()

    def plan(self, seed: int) -> Plan:
        """The world of a seed."""
        return drawn(
            seed,
            MENU,
            replicas=self.replicas,
            clients=self.clients,
            trouble_us=int(self.trouble_s * 1e6),
            core_only=self.core_only,
        ).without(self.without)

    def command(self, seed: int) -> str:
        """What to type to see this world again."""
        words = [f"python -m tests.sim.replay group {seed}"]
        words += [f"--replicas {self.replicas}"] if self.replicas is not None else []
        words += [f"--clients {self.clients}"] if self.clients is not None else []
        words += [f"--seconds {self.trouble_s:g}"] if self.trouble_s != TROUBLE_US / 1e6 else []
        words += [["--whole", "--core-only"][self.core_only]] if self.core_only is not None else []
        words += [f"--without {','.join(self.without)}"] if self.without else []
        return " ".join(words)


DRAWN = Options()


def world_of(plan: Plan, story: Callable[[str], None] | None = None) -> World:
    """The world of that plan, of the kind that it needs."""
    return MovingWorld(plan, story) if plan.wishes else World(plan, story)


def run_group(seed: int, options: Options = DRAWN, story: Callable[[str], None] | None = None) -> World:
    """Run a world to its end; whatever is raised tells how to see it again."""
    world = world_of(options.plan(seed), story)
    try:
        world.run()
    except Exception as error:
        error.add_note(f"\n{world.describe()}\n\nsee it again with: {options.command(seed)}")
        raise
    return world


def fails(seed: int, options: Options) -> tuple[str, ...] | None:
    """Where a world fails: the kind of the error and the place that raised it. None: it does not."""
    try:
        world_of(options.plan(seed)).run()
    except Exception as error:
        trace = error.__traceback__
        assert trace is not None
        while trace.tb_next is not None:
            trace = trace.tb_next
        return type(error).__name__, trace.tb_frame.f_code.co_filename, str(trace.tb_lineno)
    return None


def shrunk(seed: int, options: Options, told: Callable[[Collection[str]], None] = lambda _: None) -> Options:
    """Leave out mishaps and clients while the same failure stays (Zeller's ddmin, over the names of a plan's parts)."""
    failure = fails(seed, options)
    assert failure is not None, "this world does not fail"
    kept = options.plan(seed).parts
    left_out = set(options.without)
    chunk = max(1, len(kept) // 2)
    while kept:
        smaller = False
        for start in range(0, len(kept), chunk):
            try_without = left_out | set(kept[start : start + chunk])
            if fails(seed, options._replace(without=tuple(sorted(try_without)))) == failure:
                left_out = try_without
                kept = [name for name in kept if name not in left_out]
                told(kept)
                smaller = True
                break
        if not smaller:
            if chunk == 1:
                break
            chunk = max(1, chunk // 2)
    return options._replace(without=tuple(sorted(left_out, key=lambda name: (name[0], int(name[1:])))))
