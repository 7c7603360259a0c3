# SPDX-License-Identifier: Apache-2.0
"""recorded.json: of each bug the world that caught it when it was last searched for, or that none did.

CI runs that world again. When the simulator's worlds change, a recorded seed may stand for another world, in which the
bug does no harm: search again with `python -m tests.mutants --record`, for all bugs or the named ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

RECORDED: Final = Path(__file__).resolve().parent / "recorded.json"


class World(NamedTuple):
    """One world that was run, and how it ended; as trial.py prints it."""

    simulation: str
    seed: int
    check: str | None
    cpu_s: float

    @property
    def name(self) -> str:
        """As trial.py is told of it."""
        return f"{self.simulation}:{self.seed}"


class Recorded(NamedTuple):
    """What is known of one bug."""

    tried: int
    """Worlds run until the first that failed, that one included; or all, when none did."""
    world: World | None
    """The cheapest that failed of those that were looked at. None: the bug escapes."""


def read() -> dict[str, Recorded]:
    """By the names of the bugs."""
    if not RECORDED.exists():
        return {}
    records: dict[str, dict[str, Any]] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return {
        name: Recorded(record["tried"], World(**record["world"]) if record["world"] else None)
        for name, record in records.items()
    }


def write(recorded: dict[str, Recorded]) -> None:
    """One bug a line, in the order of their names, so that a change reads well."""
    lines = []
    for name, record in sorted(recorded.items()):
        world = record.world._asdict() if record.world is not None else None
        lines.append(f"{json.dumps(name)}: {json.dumps({'tried': record.tried, 'world': world}, ensure_ascii=False)}")
    RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
