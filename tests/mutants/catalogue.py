# SPDX-License-Identifier: Apache-2.0
"""The deliberate bugs, as they stand in bugs/*.toml: what each is, and what the product's source becomes with it.

A bug is data, because a bug that is code would be run by somebody. Each file of bugs/ is an area; each `[[bug]]` says

    name               what it is called; for ever, since recorded.json knows it by that
    wrong              what goes wrong, in a sentence
    origin             where such a bug was seen: the ancestor, a paper, a post-mortem, or this project
    before_first_run   whether it was written before any bug was run against the simulator
    unit               where there is one: a test, as pytest is told of it, that fails with this bug
    [[bug.edit]]       file, old, new: the text `old` stands exactly once in the file and becomes `new`

A bug whose text is not found any more must be written anew for the code as it is by now, or is gone with that code.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
BUGS: Final = Path(__file__).resolve().parent / "bugs"

SIMULATIONS: Final = {
    "paxos": ("consensus", "group"),
    "storage": ("storage", "group"),
    "strangers_paxos": ("consensus", "group"),
    "strangers_members": ("members",),
}
"""Which simulations look for the bugs of an area, the cheap one first. Where nothing is said it is whole groups alone,
but for bugs of consensus."""


class DoesNotApplyError(Exception):
    """The product's text has changed under a bug, which must be written anew."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of one file."""

    file: str
    old: str
    new: str

    def applied_to(self, source: str) -> str:
        """The source with this edit; it must fit in exactly one place, or another bug than the one meant is planted."""
        count = source.count(self.old)
        if count != 1:
            raise DoesNotApplyError(f"{self.file} holds this text {count} times, not once:\n{self.old}")
        return source.replace(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Bug:
    """One deliberate bug."""

    name: str
    area: str
    wrong: str
    origin: str
    before_first_run: bool
    edits: tuple[Edit, ...]
    unit: str = ""
    """A test that catches it, whether a world does or not; "" where none is known. See units.py."""

    @property
    def simulations(self) -> tuple[str, ...]:
        """Where it is looked for, in that order."""
        of_consensus = all(edit.file.startswith("replicas/paxos/") for edit in self.edits)
        whole = ("members",) if self.area == "members" else ("group",)
        return SIMULATIONS.get(self.area, ("consensus", *whole) if of_consensus else whole)

    def sources(self) -> dict[str, str]:
        """The files that differ from the product's, by path, with the bug in them."""
        sources: dict[str, str] = {}
        for edit in self.edits:
            source = sources.get(edit.file)
            if source is None:
                source = (ROOT / edit.file).read_text(encoding="utf-8")
            try:
                sources[edit.file] = edit.applied_to(source)
            except DoesNotApplyError as error:
                raise DoesNotApplyError(f"the bug {self.name!r} does not apply any more: {error}") from error
        return sources


def load() -> dict[str, Bug]:
    """All bugs by name, area by area."""
    bugs: dict[str, Bug] = {}
    for path in sorted(BUGS.glob("*.toml")):
        for record in tomllib.loads(path.read_text(encoding="utf-8"))["bug"]:
            edits = tuple(Edit(**edit) for edit in record.pop("edit"))
            bug = Bug(area=path.stem, edits=edits, **record)
            assert bug.name not in bugs, f"two bugs are called {bug.name!r}"
            bugs[bug.name] = bug
    return bugs


def module_of(file: str) -> str:
    """The module that a file of the product is."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
