# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks one after the other and prints what they found, as Markdown and as JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import demands, svg, versus
from benchmarks.harness import Options, Section

NAMES = (
    "pair",
    "rates",
    "raw",
    "calls",
    "scale",
    "footprint",
    "bounded",
    "idle",
    "failover",
    "parts",
    "members",
    "newcomer",
    "opcodes",
    "traffic",
    "at_rest",
    "sessions",
    "hogs",
    "drift",
)


def main() -> int:
    """Run what was asked for; 1 when a demand was missed."""
    options, chosen = _parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that groups and worktrees are gone on the way out
    about = machine()
    if chosen.base:
        return versus.run(chosen.base, chosen.names, options)
    sections: dict[str, Section] = {}
    for name in chosen.names or NAMES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        began = time.monotonic()
        section = importlib.import_module(f"benchmarks.{name}").run(options)
        section.seconds = round(time.monotonic() - began, 1)
        sections[name] = section
        print(section.markdown(), end="\n\n", flush=True)
    about["load after"] = round(os.getloadavg()[0], 2)
    print(f"On {', '.join(f'{name} {value}' for name, value in about.items())}.")
    if chosen.json:
        found = {"machine": about, **{name: section.as_json() for name, section in sections.items()}}
        chosen.json.write_text(json.dumps(found, indent=1))
        print(f"As JSON: {chosen.json}")
    if chosen.svg:
        drawn = svg.write([plot for section in sections.values() for plot in section.plots], chosen.svg)
        print(f"Plots: {', '.join(map(str, drawn)) or 'none of these benchmarks has one'}")
    figures = [figure for section in sections.values() for figure in section.figures]
    goals = [figure for figure in figures if figure.goal]
    if chosen.peers or not chosen.names:
        goals += demands.against_peers(json.loads(chosen.peers.read_text()) if chosen.peers else {"systems": {}})
    if goals:
        print(demands.table(goals).markdown())
    missed = [f.what for f in figures if f.kept is False and not f.goal]
    missed += [f.what for f in goals if f.kept is False and chosen.strict]
    if missed:
        print(f"Missed: {'; '.join(missed)}")
    return 1 if missed else 0


def _parse() -> tuple[Options, argparse.Namespace]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all of them if left out")
    parser.add_argument("--quick", action="store_true", help="shorter and rougher")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--svg", type=Path, metavar="DIR", help="draw plots into this folder")
    parser.add_argument("--strict", action="store_true", help="status 1 also when a demand of speed is missed")
    parser.add_argument(
        "--peers", type=Path, metavar="FILE", help="what benchmarks/peers/run.py wrote, for the demands"
    )
    parser.add_argument(
        "--base",
        metavar="REV",
        help=f"instead: this working tree against that revision, in turns; NAMEs are of {', '.join(versus.CELLS)}",
    )
    parser.add_argument("--commands", type=int, metavar="N", help="for `bounded` (200 000; quick: 40 000)")
    parser.add_argument("--seconds", type=float, metavar="N", help="of each measurement in `pair`, `rates` and --base")
    parser.add_argument("--minutes", type=float, metavar="N", help="how long `drift` and `hogs` watch")
    chosen = parser.parse_args()
    if not sys.platform.startswith("linux"):
        parser.error("these benchmarks read /proc and pin processes to CPUs, so they run on Linux only")
    unknown = set(chosen.names) - set(versus.CELLS if chosen.base else NAMES)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    commands = chosen.commands or (40_000 if chosen.quick else 200_000)
    return Options(quick=chosen.quick, commands=commands, minutes=chosen.minutes, seconds=chosen.seconds), chosen


def machine() -> dict[str, Any]:
    """Where the figures were taken."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "load before": round(os.getloadavg()[0], 2),
    }


if __name__ == "__main__":
    sys.exit(main())
