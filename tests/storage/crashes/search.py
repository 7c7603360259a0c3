# SPDX-License-Identifier: Apache-2.0
"""The crash search: story after story, prefix after prefix, each state opened, judged, and its own crashes tried too.

Two states with the same files are the same state; it is opened again only where something else is allowed there. What
opening it writes is a run like any other, so its crashes are tried as well, and theirs, to a depth. A state is named by
how it came about (seed, life, prefix, number; for a crash while opening it, a slash and the same again), and from that
name alone it is made again: `python -m tests.storage.crashes --replay NAME`.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections import Counter
from dataclasses import dataclass, field
from types import ModuleType
from typing import Final, NamedTuple

from replicas.paxos.types import Accepted, Ballot, Entry, Promised
from tests.storage.crashes import states
from tests.storage.crashes.afloat import Afloat
from tests.storage.crashes.oracle import Allowed, Outcome, brief
from tests.storage.crashes.package import SEGMENT_BYTES
from tests.storage.crashes.recorder import CHANGES, Files, Op, RecordingDisk
from tests.storage.crashes.story import Story
from tests.storage.support import INCARNATION

__all__ = ["Failure", "Search", "opened"]

DEPTH_MAX: Final = 3
"""Crashes while recovering from a crash while recovering: deeper ones lead back to states already seen."""

TORN_SHARE: Final = 0.01
"""Of the cuts inside a sector, so many are tried where nobody asks for more: there are two for each byte written."""

MENDING_EVERY: Final = 16
"""Of torn states, and of states found while mending, so many have their own mending crashed. All others have."""

GO_ON_EVERY: Final = 16
"""Of the states whose opening mends nothing, so many are also added to. All others are."""

LATER: Final = Ballot(1000, 1)


class Failure(NamedTuple):
    """A state that storage did not stand, its name, and how many distinct ones had been tried before."""

    name: str
    objection: str
    outcome: str
    states: int

    def __str__(self) -> str:
        return f"state {self.name}: {self.outcome}\n  {self.objection}"


class Enough(Exception):
    """So many states were asked for."""


@dataclass
class Search:
    """`counts` is of distinct states, by how they came about. Stops at the first failure, or when all is tried."""

    package: ModuleType
    states: int
    torn_share: float = TORN_SHARE
    broad: bool = False
    """Whole sectors only, and no crashes while mending: more stories for the same time."""
    counts: Counter[str] = field(default_factory=Counter)
    stories: int = 0
    openings: int = 0
    failure: Failure | None = None
    known: set[bytes] = field(default_factory=set)
    """The digests of all states so far; several searches may share them, so that none counts twice."""
    _mended: set[bytes] = field(default_factory=set)
    _judged: set[tuple[bytes, object]] = field(default_factory=set)

    def run(self, seed: int) -> Failure | None:
        """Stories from this seed on, until there are enough states."""
        with contextlib.suppress(Enough):
            while self.failure is None:
                self.story(seed)
                seed += 1
        return self.failure

    def story(self, seed: int) -> None:
        self._judged.clear()
        self.stories += 1
        story = Story(self.package, seed)
        for number, life in enumerate(story.lives):
            afloat = Afloat(life.base)
            allowed = Allowed(life.allowed(0))
            for prefix in range(len(life.ops) + 1):
                if prefix:
                    afloat.apply(prefix - 1, life.ops[prefix - 1])
                following = Allowed(life.allowed(prefix + 1))
                if _is_worth_it(life.ops, prefix) or following.key != allowed.key:
                    self._moment(afloat, allowed, f"{seed}:{number}:{prefix}", 0)
                allowed = following
                if self.failure is not None:
                    return
        if story.ended_by is not None:
            self._fail(f"{seed}", "the run that was recorded ended in an error", repr(story.ended_by))

    @property
    def distinct(self) -> int:
        return len(self.known)

    def _moment(self, afloat: Afloat, allowed: Allowed, name: str, depth: int) -> None:
        """All crashes that are tried at one moment."""
        kind = "mending, " if depth else ""
        luck = random.Random(name)
        for number, state in enumerate(states.lawful(afloat, luck, states.FEW if depth else None)):
            self._state(state.files, allowed, f"{name}:{number}", kind + "whole sectors", depth)
        if not self.broad and depth < 2 and allowed.lawful and any(atom.op.kind == "write" for atom in afloat.atoms):
            not_lawful = allowed.torn()
            cuts, fills = (self.torn_share, 1.0) if not depth else (self.torn_share / 10, 0.03)
            for number, state in states.torn(afloat, random.Random(name), cuts, fills):
                self._state(state.files, not_lawful, f"{name}:t{number}", kind + "torn sectors", depth)

    def _state(self, files: Files, allowed: Allowed, name: str, kind: str, depth: int) -> None:
        digest = digest_of(files)
        if (digest, allowed.key) in self._judged or self.failure is not None:
            return
        self._judged.add((digest, allowed.key))
        if digest not in self.known:
            if len(self.known) >= self.states:
                raise Enough
            self.known.add(digest)
            self.counts[kind] += 1
        disk, outcome, storage = opened(self.package, files)
        self.openings += 1
        objection = outcome if isinstance(outcome, str) else allowed.objection(outcome)
        if objection is not None or isinstance(outcome, str):
            self._fail(name, str(objection), outcome if isinstance(outcome, str) else brief(outcome))
            return
        if outcome.told is not None:
            if disk.files() != files and storage is not None and _damages(files, disk.files()):
                self._fail(name, "it changed files although it refused or found rot", brief(outcome))
            return
        mends = _is_mending(disk, files)
        deepest = DEPTH_MAX if allowed.lawful else 1  # a torn sector is enough; what comes of it may end in whole ones
        often = 1 if allowed.lawful and not depth else MENDING_EVERY
        if mends and not self.broad and depth < deepest and digest[0] % often == 0 and digest not in self._mended:
            self._mended.add(digest)
            self._mending(list(disk.ops), files, allowed.said(outcome), name, depth)
        if (mends and allowed.lawful) or self.openings % GO_ON_EVERY == 0:
            self._goes_on(disk, storage, outcome, name)

    def _mending(self, ops: list[Op], files: Files, allowed: Allowed, name: str, depth: int) -> None:
        """A crash at each moment of the opening. Whatever it says then, it says again."""
        afloat = Afloat(files)
        for prefix, op in enumerate(ops, 1):
            afloat.apply(prefix - 1, op)
            if _is_worth_it(ops, prefix):
                self._moment(afloat, allowed, f"{name}/{prefix}", depth + 1)

    def _goes_on(self, disk: RecordingDisk, storage: object, outcome: Outcome, name: str) -> None:
        """What was recovered can be added to, and that is durable."""
        try:
            after = go_on(storage, outcome)
        except Exception as error:
            self._fail(name, "it cannot go on", repr(error))
            return
        afloat = Afloat(disk.base)
        for index, op in enumerate(disk.ops):
            afloat.apply(index, op)
        strict = afloat.after((0,) * len(afloat.atoms))
        _, again, _ = opened(self.package, strict)
        if isinstance(again, str) or again._replace(chosen=0) != after._replace(chosen=0):
            said = again if isinstance(again, str) else brief(again)
            self._fail(name, f"it went on to {brief(after)}, and then lost its power", said)

    def _fail(self, name: str, objection: str, outcome: str) -> None:
        if self.failure is None:
            self.failure = Failure(name, objection, outcome, len(self.known))


def opened(package: ModuleType, files: Files) -> tuple[RecordingDisk, Outcome | str, object]:
    """Opens a directory. A string instead of an outcome is an error that storage must never raise."""
    disk = RecordingDisk(files)
    try:
        storage = package.Storage.open(disk, segment_bytes=SEGMENT_BYTES)
    except package.StorageRefused as refusal:
        return disk, Outcome(refused=str(refusal)), None
    except Exception as error:
        return disk, f"opening raised {error!r}", None
    try:
        return disk, Outcome.of(storage), storage
    except AssertionError as error:
        return disk, f"what was recovered contradicts itself {error}", storage


def go_on(storage: object, outcome: Outcome) -> Outcome:
    """Formats what is nobody's, accepts the next slot under a higher promise, and says what must be found then."""
    view = outcome.view
    if view.identity is None:
        storage.format(INCARNATION)  # type: ignore[attr-defined]
        view = view._replace(identity=storage.identity)  # type: ignore[attr-defined]
    floor = view.snapshot[0] if view.snapshot is not None else 0
    last = max(outcome.doubtful, default=floor)
    entry = Entry(max(last, *(told.slot for told in view.entries), floor) + 1, LATER, 1, b"after the crash" * 50)
    storage.append([Promised(LATER), Accepted(entry)])  # type: ignore[attr-defined]
    storage.sync()  # type: ignore[attr-defined]
    entries = view.entries
    if not outcome.doubtful:
        return outcome._replace(view=view._replace(promised=LATER, entries=(*entries, entry)))
    known = {told.slot: told for told in (*entries, entry)}
    blank = [known.get(slot, Entry(slot, Ballot(0, 0), 0, b"")) for slot in range(floor + 1, entry.slot + 1)]
    return outcome._replace(view=view._replace(promised=LATER, entries=tuple(blank)))


def digest_of(files: Files) -> bytes:
    """Files' contents are shared between states, and so are their digests."""
    parts = []
    for name in sorted(files):
        data = files[name]
        part = _digests.get(data)
        if part is None:
            if len(_digests) > 5000:
                _digests.clear()
            part = _digests[data] = hashlib.blake2b(data, digest_size=16).digest()
        parts += name.encode(), part
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()


_digests: Final[dict[bytes, bytes]] = {}


def _is_worth_it(ops: list[Op], prefix: int) -> bool:
    """Whether more is afloat now than at the next moment: else all crashes of this moment are also crashes of that."""
    return prefix == len(ops) or ops[prefix].kind not in CHANGES or ops[prefix].failed


def _is_mending(disk: RecordingDisk, files: Files) -> bool:
    """Whether opening did more than to write once more what stood there."""
    return any(
        op.kind in ("create", "truncate", "rename", "remove")
        or (op.kind == "write" and files.get(op.name, b"")[op.offset : op.offset + len(op.data)] != op.data)
        for op in disk.ops
    )


def _damages(before: Files, after: Files) -> bool:
    """Whether anything but what lies aside is another now."""
    asides = ("identity.new", "log.next", "snapshot.new", "snapshot.received")
    return {n: d for n, d in before.items() if n not in asides} != {n: d for n, d in after.items() if n not in asides}
