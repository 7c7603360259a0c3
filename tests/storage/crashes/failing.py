# SPDX-License-Identifier: Apache-2.0
"""A disk that fails: EIO or ENOSPC at each operation of a story, and what storage does from then on.

It must fail as `StorageFailed`, acknowledge nothing more, and ask nothing more of the disk; what it had acknowledged is
found after any crash, and so is, as a whole or not at all, what was under way.
"""

from __future__ import annotations

import errno
from types import ModuleType
from typing import Final

from replicas.paxos.types import Ballot, Promised
from tests.storage.crashes import states
from tests.storage.crashes.oracle import Allowed, brief
from tests.storage.crashes.search import opened
from tests.storage.crashes.story import Story

__all__ = ["every_failure"]

CHANGING: Final = ("write", "create", "truncate", "rename")
"""What can ask for room, so that ENOSPC may be the answer."""


def every_failure(package: ModuleType, seed: int, steps: int = 24) -> tuple[list[str], int]:
    """What went wrong, and in how many states. Each operation of the story's first life fails once, in each way."""
    problems: list[str] = []
    tried = 0
    whole = Story(package, seed, steps, only_one_life=True)
    for index, op in enumerate(whole.lives[0].ops):
        for error in (errno.EIO, errno.ENOSPC) if op.kind in CHANGING else (errno.EIO,):
            story = Story(package, seed, steps, only_one_life=True, fail_at=index, fail_with=error)
            objection, states_tried = _after(package, story)
            tried += states_tried
            if objection is not None:
                problems.append(
                    f"seed {seed}, operation {index} ({op}) failed with {errno.errorcode[error]}\n  {objection}"
                )
                return problems, tried
    return problems, tried


def _after(package: ModuleType, story: Story) -> tuple[str | None, int]:
    if not isinstance(story.ended_by, package.StorageFailed):
        return f"it ended by {story.ended_by!r} instead of StorageFailed", 1
    objection = None if story.was_opening else _goes_on(package, story)
    if objection is not None:
        return objection, 1
    life = story.lives[-1]
    prefix = len(life.ops)
    afloat, allowed = life.afloat(prefix), Allowed(life.allowed(prefix))
    tried = 0
    for state in states.lawful(afloat, story.luck, states.FEW):
        tried += 1
        _, outcome, _ = opened(package, state.files)
        if isinstance(outcome, str):
            return outcome, tried
        objection = allowed.objection(outcome)
        if objection is not None:
            return f"{brief(outcome)}\n  {objection}", tried
    return None, tried


def _goes_on(package: ModuleType, story: Story) -> str | None:
    """Why it must not be trusted: it did something after the disk had failed."""
    storage, ops = story.storage, len(story.disk.ops)
    header = package.SnapshotHeader(10_000, None, 0, b"", Ballot(0, 0))
    attempts = {
        "append": lambda: storage.append([Promised(Ballot(10_000, 1))]),
        "sync": storage.sync,
        "prepare": storage.prepare,
        "form": lambda: storage.form(b"formation"),
        "begin_snapshot": lambda: storage.begin_snapshot(header),
        "receive_snapshot": lambda: storage.receive_snapshot(header),
    }
    for name, attempt in attempts.items():
        try:
            attempt()
        except (package.StorageFailed, AssertionError) as error:
            if isinstance(error, AssertionError) and storage.identity is not None:
                return f"{name} after a failure ended by {error!r}"
            continue
        return f"{name} was answered after the disk had failed"
    return "it asked the disk for more after it had failed" if len(story.disk.ops) > ops else None
