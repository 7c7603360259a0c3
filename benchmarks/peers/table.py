# SPDX-License-Identifier: Apache-2.0
"""Prints results.json: python table.py results.json [--systems a,b] [--subject dthreading] [--markdown]

With --subject, every other column shows the subject's advantage over it:
above 1 the subject is better (more per second, or less time or CPU).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

# (label, cell, key, True where more is better)
ROWS = [
    ("W1 pair p50 us", "W1", "p50_us", False),
    ("W1 pair p99 us", "W1", "p99_us", False),
    ("W1 pairs/s", "W1", "ops_per_s", True),
    *[(f"W2 {n} clients, own locks, pairs/s", f"W2 {n}", "ops_per_s", True) for n in (1, 4, 16, 64)],
    *[
        row
        for n in (2, 8, 32)
        for row in (
            (f"W3 {n} on one lock, acquisitions/s", f"W3 {n}", "ops_per_s", True),
            (f"W3 {n} true hand-offs/s", f"W3 {n}", "handoffs_per_s", True),
            (f"W3 {n} max/min per client", f"W3 {n}", "fairness", False),
        )
    ],
    ("W3 overlapping holders seen", "", "overlaps", False),
    ("W4 queue 1x1 items/s", "W4 1x1", "ops_per_s", True),
    ("W4 queue 4x4 items/s", "W4 4x4", "ops_per_s", True),
    ("W4 put->get p50 us", "W4 latency", "p50_us", False),
    ("W4 put->get p99 us", "W4 latency", "p99_us", False),
    *[
        (f"W5 {kind} {n} clients, ops/s", f"W5 {kind} {n}", "ops_per_s", True)
        for kind in ("counter", "put")
        for n in (1, 16)
    ],
    ("W6 semaphore(8), 32 clients, pairs/s", "W6", "ops_per_s", True),
    ("W7 barrier of 8, cycles/s", "W7", "ops_per_s", True),
    *[
        (f"W8 {side} CPU s/1000 pairs, {n}", cell, f"{side}_cpu_s_per_1000", False)
        for cell, n in (("W1", "1 client"), ("W2 16", "16 clients"))
        for side in ("server", "client")
    ],
    ("W9 leader killed, longest gap s", "W9 leader", "gap_s", False),
    ("W9 holder killed, taken over after s", "W9 holder", "takeover_s", False),
]


def value(record: dict[str, Any], cell: str, key: str) -> float | str | None:
    cells = record.get("cells", {})
    if key == "overlaps":
        seen = [c["overlaps"] for n, c in cells.items() if n.startswith("W3") and "overlaps" in c]
        return sum(seen) if seen else None
    figures = cells.get(cell)
    if figures is None:
        return None
    if "error" in figures and key not in figures:
        return "error"
    if figures.get("unsupported"):
        return "-"
    if key == "fairness":
        if not figures.get("max_count"):
            return None
        return figures["max_count"] / figures["min_count"] if figures["min_count"] else "starved"
    if key == "takeover_s" and figures.get(key) is None:
        return f">{figures['cap_s']:.0f}" if "cap_s" in figures else "error"
    if key == "gap_s" and (figures.get(key) is None or not figures.get("recovered", True)):
        return "no recovery"
    return figures.get(key)


def text(v: float | str | None) -> str:
    if v is None:
        return ""
    if isinstance(v, str):
        return v
    if v >= 1000:
        return f"{v:,.0f}"
    return f"{v:.3g}" if v < 100 else f"{v:.0f}"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("results")
    p.add_argument("--systems", default="")
    p.add_argument("--subject")
    p.add_argument("--markdown", action="store_true")
    args = p.parse_args()
    results = json.loads(Path(args.results).read_text())
    systems = results["systems"]
    names = [n for n in args.systems.split(",") if n] or list(systems)
    if args.subject:
        names = [args.subject] + [n for n in names if n != args.subject]
    table = [["", *names]]
    for label, cell, key, more in ROWS:
        got = [value(systems[n], cell, key) for n in names]
        if all(v is None for v in got):
            continue
        row = [label]
        for n, v in zip(names, got, strict=False):
            out = text(v)
            base = got[0]
            if (
                args.subject
                and n != args.subject
                and isinstance(v, (int, float))
                and isinstance(base, (int, float))
                and v
                and base
                and key != "overlaps"
            ):
                out += f" ({base / v if more else v / base:.3g}x)"
            row.append(out)
        table.append(row)
    if args.markdown:
        print("| " + " | ".join(table[0]) + " |\n|" + "---|" * len(table[0]))
        for row in table[1:]:
            print("| " + " | ".join(row) + " |")
    else:
        widths = [max(len(r[i]) for r in table) for i in range(len(table[0]))]
        for row in table:
            print(
                "  ".join(
                    c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=False))
                )
            )
    print()
    for n in names:
        info = systems[n].get("info", {})
        versions = ", ".join(f"{k} {v}" for k, v in info.get("versions", {}).items())
        print(f"{n}: {info.get('nodes')} node(s); {info.get('durability')}; {versions}; {info.get('notes', '')}")
        if "failed" in systems[n]:
            print(f"    FAILED: {systems[n]['failed']}")
        for cell, figures in systems[n].get("cells", {}).items():
            if "error" in figures:
                print(f"    {cell}: {figures['error']}")
            if figures.get("foreign_cpus", 0) > 0.5:
                print(f"    {cell}: noisy, other programs used {figures['foreign_cpus']:.1f} CPUs meanwhile")
    for k, v in results.get("floor", {}).items():
        print(f"floor, {k}: " + ", ".join(f"{a} {b:.4g}" for a, b in v.items()))


if __name__ == "__main__":
    main()
