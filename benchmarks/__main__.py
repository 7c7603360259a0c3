# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks one after the other and prints what they found, as Markdown and as JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Options, Section

NAMES = (
    *("scale", "footprint", "bounded", "idle", "failover", "calls", "parts", "members", "newcomer"),
    *("opcodes", "traffic", "drift"),
)


def main() -> int:
    """Run what was asked for; 1 when a demand was missed."""
    options, chosen = _parse()
    about = machine()
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
    missed = [f.what for section in sections.values() for f in section.figures if f.kept is False]
    if missed:
        print(f"Missed: {'; '.join(missed)}")
    return 1 if missed else 0


def _parse() -> tuple[Options, argparse.Namespace]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; all of them if left out")
    parser.add_argument("--quick", action="store_true", help="shorter and rougher")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--commands", type=int, metavar="N", help="for `bounded` (200 000; quick: 40 000)")
    parser.add_argument("--minutes", type=float, metavar="N", help="how long `drift` and `hogs` watch")
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(NAMES)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    commands = chosen.commands or (40_000 if chosen.quick else 200_000)
    return Options(quick=chosen.quick, commands=commands, minutes=chosen.minutes), chosen


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
