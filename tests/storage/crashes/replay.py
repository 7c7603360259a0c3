# SPDX-License-Identifier: Apache-2.0
"""A state made again from its name, and told so that somebody can follow it with a pencil."""

from __future__ import annotations

import random
from types import ModuleType

from tests.storage.crashes import states
from tests.storage.crashes.afloat import Afloat
from tests.storage.crashes.oracle import Outcome, brief
from tests.storage.crashes.recorder import Files, Op
from tests.storage.crashes.search import opened
from tests.storage.crashes.states import CrashState
from tests.storage.crashes.story import Story

__all__ = ["replay", "state_of"]


def replay(package: ModuleType, name: str) -> str:
    """What led to the state of this name, what a power cut left, and what storage says of it."""
    if ":" not in name:
        story = Story(package, int(name))
        return f"run {name} itself ended by {story.ended_by!r}"
    first, *rest = name.split("/")
    seed, life_number, prefix, number = first.split(":")
    story = Story(package, int(seed))
    life = story.lives[int(life_number)]
    lines = [f"life {life_number} of run {seed}, found with {_names(life.base)}"]
    afloat = Afloat(life.base)
    lines += _operations(afloat, life.ops[: int(prefix)])
    state = _numbered(afloat, f"{seed}:{life_number}:{prefix}", number, states.THOROUGH)
    lines += ["the power goes; of what was afloat is left:", *states.listing(afloat, state)]
    lines.append("allowed is one of:")
    lines += [f"    {brief(Outcome(view=model.view()))}" for model in life.allowed(int(prefix))]
    path = first
    for step in rest:
        prefix, number = step.split(":")
        disk, outcome, _ = opened(package, state.files)
        lines.append(f"opened, it says: {outcome if isinstance(outcome, str) else brief(outcome)}")
        lines.append(f"but the power goes again, after {prefix} of its operations:")
        afloat = Afloat(state.files)
        lines += _operations(afloat, disk.ops[: int(prefix)])
        path = f"{path}/{prefix}"
        state = _numbered(afloat, path, number, states.FEW)
        lines += ["of what was afloat is left:", *states.listing(afloat, state)]
        path = f"{path}:{number}"
    _, outcome, _ = opened(package, state.files)
    lines.append(f"found: {_names(state.files)}")
    lines.append(f"opened, it says: {outcome if isinstance(outcome, str) else brief(outcome)}")
    return "\n".join(lines)


def state_of(package: ModuleType, name: str) -> Files:
    """The files of a state of the run itself."""
    seed, life_number, prefix, number = name.split(":")
    afloat = Story(package, int(seed)).lives[int(life_number)].afloat(int(prefix))
    return _numbered(afloat, f"{seed}:{life_number}:{prefix}", number, states.THOROUGH).files


def _numbered(afloat: Afloat, name: str, number: str, limits: states.Limits) -> CrashState:
    if number.startswith("t"):
        for found, state in states.torn(afloat, random.Random(name), 1.0, 1.0):
            if found == int(number[1:]):
                return state
    else:
        for found, state in enumerate(states.lawful(afloat, random.Random(name), limits)):
            if found == int(number):
                return state
    raise LookupError(f"there is no state {name}:{number}")


def _operations(afloat: Afloat, ops: list[Op]) -> list[str]:
    for index, op in enumerate(ops):
        afloat.apply(index, op)
    return [f"{index:5}  {op}" for index, op in enumerate(ops)]


def _names(files: Files) -> str:
    return ", ".join(f"{name} ({len(data)})" for name, data in sorted(files.items())) or "nothing"
