# SPDX-License-Identifier: Apache-2.0
"""Draws bars and lines as SVG, readable on a light and on a dark page. Every value stands beside what shows it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from pathlib import Path

from benchmarks.harness import Plot

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 76, 54
COLOURS = (("#2563c9", "#7db2ff"), ("#c2620b", "#ffb266"), ("#1d8348", "#7ddc9f"), ("#8e3ea8", "#dca0f0"))
"""Of each series, on white and on black."""

STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-size:15px;font-weight:600}.value{font-size:10px}"
    ".grid{stroke:#8884;stroke-width:1}.axis{stroke:#888;stroke-width:1}"
)


def write(plots: Iterable[Plot], folder: Path) -> list[Path]:
    """A file for each."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for plot in plots:
        path = folder / f"{plot.name}.svg"
        path.write_text(draw(plot), encoding="utf-8")
        written.append(path)
    return written


def draw(plot: Plot) -> str:
    """The whole document."""
    highest = max(value for values in plot.series.values() for value in values)
    step = _step(highest)
    top = step * math.ceil(highest / step)
    parts = [_text(LEFT, 24, plot.title, "title")]
    for number in range(round(top / step) + 1):
        y = _y(number * step, top)
        parts.append(
            f'<line class="{"grid" if number else "axis"}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        )
        parts.append(_text(LEFT - 6, y + 4, f"{number * step:,.10g}".replace(",", " "), anchor="end"))
    parts.append(_text(LEFT - 6, TOP - 14, plot.unit, anchor="end"))
    parts += _legend(plot)
    width = (WIDTH - LEFT - RIGHT) / len(plot.across)
    parts += [
        _text(LEFT + (number + 0.5) * width, HEIGHT - BOTTOM + 18, label, anchor="middle")
        for number, label in enumerate(plot.across)
    ]
    if plot.lines:
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "clients", anchor="middle"))
    for number, values in enumerate(plot.series.values()):
        parts += (_line if plot.lines else _bars)(number, values, top, width, len(plot.series))
    light = "".join(f".s{n}{{fill:{c};stroke:{c}}}" for n, (c, _) in enumerate(COLOURS))
    dark = "".join(f".s{n}{{fill:{c};stroke:{c}}}" for n, (_, c) in enumerate(COLOURS))
    style = f"{STYLE}{light}@media(prefers-color-scheme:dark){{text{{fill:#e6edf3}}{dark}}}.line{{fill:none}}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>{escape(plot.title)}</title><style>{style}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _bars(series: int, values: list[float], top: float, width: float, of: int) -> list[str]:
    each = width * 0.76 / of
    parts = []
    for number, value in enumerate(values):
        x = LEFT + (number + 0.12) * width + series * each
        y = _y(value, top)
        parts.append(
            f'<rect class="s{series % len(COLOURS)}" x="{x:.1f}" y="{y}" width="{each - 2:.1f}"'
            f' height="{HEIGHT - BOTTOM - y:.1f}"/>'
        )
        parts.append(_text(x + each / 2, y - 4, _short(value), "value", "middle"))
    return parts


def _line(series: int, values: list[float], top: float, width: float, _: int) -> list[str]:
    points = [(LEFT + (number + 0.5) * width, _y(value, top)) for number, value in enumerate(values)]
    colour = f"s{series % len(COLOURS)}"
    path = " ".join(f"{x:.1f},{y}" for x, y in points)
    parts = [f'<polyline class="{colour} line" stroke-width="2" points="{path}"/>']
    for (x, y), value in zip(points, values, strict=True):
        parts.append(f'<circle class="{colour}" cx="{x:.1f}" cy="{y}" r="3"/>')
        parts.append(_text(x, y - 8, _short(value), "value", "middle"))
    return parts


def _legend(plot: Plot) -> list[str]:
    parts, x = [], float(LEFT)
    for number, name in enumerate(plot.series):
        parts.append(f'<rect class="s{number % len(COLOURS)}" x="{x:.0f}" y="38" width="12" height="12"/>')
        parts.append(_text(x + 18, 48, name))
        x += 42 + 7 * len(name)
    return parts


def _y(value: float, top: float) -> float:
    return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / top, 1)


def _step(highest: float) -> float:
    """A round number that makes about five lines."""
    assert highest > 0
    power = 10.0 ** math.floor(math.log10(highest / 4))
    return next(times * power for times in (1, 2, 2.5, 5, 10) if highest / (times * power) <= 5)


def _short(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ") if value >= 100 else f"{value:.3g}"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    classes = f' class="{kind}"' if kind else ""
    return f'<text{classes} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
