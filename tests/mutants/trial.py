# SPDX-License-Identifier: Apache-2.0
"""One process that runs seeds against one bug: `python -m tests.mutants.trial BUG group:0 group:1 ...`.

For each world it prints a line of JSON: whether it failed, by which check, at what cost. Without a bug (`-`) it shows
that the same worlds pass. A world that takes far more time or memory than any of an unharmed product has failed, too:
it hangs, or runs away.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from tests.mutants.catalogue import ROOT, load
from tests.mutants.planting import PLANTED, plant

NO_BUG: Final = "-"

WORLD_CPU_S: Final = 40
"""Many times what a world of an unharmed product takes. Time of the processor, so a busy machine changes nothing."""

WORLD_WALL_S: Final = 600
"""A world that uses no processor and does not end either: the process is ended, and says where it stood."""

MEMORY_BYTES: Final = 3 << 30
"""Address space. A world takes a tenth of it."""

LOOK_ON: Final = 3
"""After the first world that fails, how many more are tried for a cheaper one, when more than one is asked for."""

CHANGING: Final = 500
"""Of so many worlds of whole groups those in which members change have numbers of their own."""

BROKEN: Final = "the bug itself is broken: "
"""So begins the check of a world that failed because a bug names what the product does not know (any more)."""


class RunawayError(BaseException):
    """Out of time. Not an Exception: nothing in the product may take it for its own."""


def _consensus() -> Callable[[int], Any]:
    # Not by way of replay.py, which imports all that a whole group needs: a third of a short trial's time.
    simulation = importlib.import_module("tests.sim.simulation")
    sizes, world = simulation.SIZES, simulation.ConsensusSimulation
    return lambda seed: world(seed, replicas=sizes[seed % len(sizes)]).run()


def _group() -> Callable[[int], Any]:
    run: Callable[[int], Any] = importlib.import_module("tests.sim.running").run_group
    return run


def _members() -> Callable[[int], Any]:
    """The worlds of whole groups in which members come and go, and no others: every fifth one, or so."""
    running = importlib.import_module("tests.sim.running")
    changing = [seed for seed in range(CHANGING) if running.DRAWN.plan(seed).wishes]
    return lambda number: running.run_group(changing[number])


def _storage() -> Callable[[int], Any]:
    directory = importlib.import_module("tests.sim.directory").Directory
    return lambda seed: directory(seed).run()


SIMULATIONS: Final[dict[str, Callable[[], Callable[[int], Any]]]] = {
    "consensus": _consensus,
    "storage": _storage,
    "group": _group,
    "members": _members,
}


def _out_of_time(_signal: int, _frame: FrameType | None) -> None:
    raise RunawayError


def _said(error: BaseException) -> str:
    """The first line of a failure, and who raised it: a check of the simulator, or an assertion of the product."""
    if isinstance(error, RunawayError | MemoryError):
        return f"it runs away: more than {WORLD_CPU_S} s of processor or {MEMORY_BYTES >> 30} GB for one world"
    while error.__cause__ is not None:
        error = error.__cause__
    where, innermost = "?", ""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        innermost = code.co_filename
        file = innermost.split(PLANTED)[0].removeprefix(f"{ROOT}{os.sep}")
        if file.startswith(("tests/", "replicas/", "dthreading/")):
            where = f"{file}:{code.co_name}"
        trace = trace.tb_next
    line = (str(error) or "assert").splitlines()[0]
    if isinstance(error, NameError | AttributeError) and PLANTED in innermost:
        return f"{BROKEN}{type(error).__name__}: {line[:120]} [{where}]"
    kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
    return f"{kind}{line[:120]} [{where}]"


def _one_world(run: Callable[[int], Any], seed: int) -> tuple[str | None, float]:
    """By which check this world fails (None: it passes), and the seconds of processor that it took."""
    before = time.process_time()
    faulthandler.dump_traceback_later(WORLD_WALL_S, exit=True)
    signal.setitimer(signal.ITIMER_PROF, WORLD_CPU_S)
    check = None
    try:
        run(seed)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        check = _said(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
    return check, time.process_time() - before


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 however the worlds end; whoever asked reads the lines."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.trial", description=__doc__)
    parser.add_argument("bug", help="its name, or - for none")
    parser.add_argument("worlds", nargs="+", metavar="group:7", help="simulation and seed")
    parser.add_argument("--catches", type=int, default=1, help="how many failing worlds are enough; 0: run all")
    options = parser.parse_args(argv)
    planter = None if options.bug == NO_BUG else plant(load()[options.bug])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.RLIM_INFINITY))
    signal.signal(signal.SIGPROF, _out_of_time)
    worlds = [world.partition(":") for world in options.worlds]
    runs = {name: SIMULATIONS[name]() for name in dict.fromkeys(world[0] for world in worlds)}
    assert planter is None or not planter.unplanted, f"nobody has imported {planter.unplanted}: this is no trial"
    caught = since = 0
    for name, _, seed in worlds:
        check, cpu_s = _one_world(runs[name], int(seed))
        print(json.dumps({"simulation": name, "seed": int(seed), "check": check, "cpu_s": round(cpu_s, 2)}), flush=True)
        caught += check is not None
        since += caught > 0
        if options.catches and (caught >= options.catches or since > LOOK_ON):
            break
    return 0


if __name__ == "__main__":
    sys.exit(main())
