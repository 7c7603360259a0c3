# SPDX-License-Identifier: Apache-2.0
"""The recorded run: a life of one storage, drawn from a seed, with everything in it that storage can be asked for.

Besides the operations it keeps, for each moment, what may be found after a crash there: what was acknowledged, with any
of the steps that are under way, each as a whole. A story has several lives: after a power cut the next one begins on
what that one left, after kill -9 on everything that was asked of the system. What another thread would do in the
middle of a sync is done there, so that batches, slices of a snapshot and of the next segment are afloat together.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Final

from replicas.paxos.types import Accepted, Ballot, ChosenTo, Entry, Promised, Record
from tests.storage.crashes import states
from tests.storage.crashes.afloat import Afloat
from tests.storage.crashes.oracle import Outcome, brief, chain_at
from tests.storage.crashes.package import SEGMENT_BYTES
from tests.storage.crashes.recorder import Files, Killed, Op, RecordingDisk
from tests.storage.support import CONFIGURATION, INCARNATION, Identity, Model

__all__ = ["Life", "Story", "Transition"]

Transition = Callable[[Model], Model]

SIZES: Final = (0, 10, 10, 60, 100, 250, 700, 1100, 2600, 5000)
"""Of values and contents: within a sector, over several, and larger than a segment."""


@dataclass
class Life:
    """One recording: from `base`, these operations. `marks` say from which of them on what may be found."""

    base: Files
    ops: list[Op]
    marks: list[tuple[int, tuple[Model, ...]]] = field(default_factory=list)

    def allowed(self, prefix: int) -> tuple[Model, ...]:
        """What may be found after a crash when `prefix` operations had been asked for.

        Where several things hold at that moment, the strictest: nothing was asked of the disk in between.
        """
        here = [models for at, models in self.marks if at == prefix]
        if not here:
            here = [next(models for at, models in reversed(self.marks) if at < prefix)]
        return min(here, key=len)

    def afloat(self, prefix: int) -> Afloat:
        afloat = Afloat(self.base)
        for index, op in enumerate(self.ops[:prefix]):
            afloat.apply(index, op)
        return afloat


class Story:
    """`package` is the storage package, or a copy of it. `lives` is what came of it.

    With `fail_at` the disk fails at that operation of the first life, and the story ends there.
    """

    def __init__(
        self,
        package: ModuleType,
        seed: int,
        steps: int = 24,
        *,
        only_one_life: bool = False,
        fail_at: int | None = None,
        fail_with: int = errno.EIO,
    ) -> None:
        self.package = package
        self.luck = random.Random(seed)
        self.lives: list[Life] = []
        self.model = Model()
        self._under_way: list[Transition] = []
        self._cutting: tuple[Any, bytes, Transition, int] | None = None
        self._finishing = False
        self._only_one_life = only_one_life
        self.was_opening = False
        self.ended_by: Exception | None = None
        self._begin_life({})
        self.disk.fail_at, self.disk.fail_with = fail_at, fail_with
        try:
            self.open()
            for _ in range(steps):
                self._next()
        except Exception as error:
            self.ended_by = error

    # --- what may be found ----------------------------------------------------------------------------------------

    @contextmanager
    def step(self, transition: Transition) -> Iterator[None]:
        """What is done inside becomes true as a whole, and is acknowledged at the end."""
        self._begin(transition)
        yield
        self._end(transition)

    def _begin(self, transition: Transition) -> None:
        self._under_way.append(transition)
        self._mark()

    def _end(self, transition: Transition) -> None:
        self._under_way.remove(transition)
        self.model = transition(self.model)
        self._mark()

    def _mark(self) -> None:
        found: list[Model] = [self.model]
        for transition in self._under_way:
            found += [after for model in found if (after := transition(model)) not in found]
        self.lives[-1].marks.append((len(self.disk.ops), tuple(found)))

    def _begin_life(self, base: Files) -> None:
        self.disk = RecordingDisk(base)
        self.lives.append(Life(base, self.disk.ops))

    def open(self) -> None:
        """Opens the directory; whichever of the allowed was found is acknowledged from then on."""
        if not self.lives[-1].marks:
            self._mark()
        self.was_opening = True
        while True:
            try:
                self.storage = self.package.Storage.open(self.disk, segment_bytes=SEGMENT_BYTES)
                break
            except Killed:
                self.disk.kill()
        self.was_opening = False
        self._under_way, self._cutting, self._finishing = [], None, False
        found = Outcome.of(self.storage)
        models = self.lives[-1].marks[-1][1]
        matching = [model for model in models if model.view() == found.view]
        assert matching, (
            f"opened again it says {brief(found)}\nand not {[brief(Outcome(view=m.view())) for m in models]}"
        )
        self.model = matching[0]
        self._mark()
        if self.model.identity is None:
            with self.step(lambda model: replace(model, identity=Identity(INCARNATION, None))):
                self.storage.format(INCARNATION)

    # --- what happens ---------------------------------------------------------------------------------------------

    def _next(self) -> None:
        kinds = (self.batch, self.snapshot, self.receive, self.form, self.prepare, self.kill, self.crash)
        (kind,) = self.luck.choices(kinds, (40, 14, 7, 3, 8, 8, 5))
        try:
            kind()
        except Killed:
            self._open_again()

    def batch(self) -> None:
        """Records of every kind, in one sync; at times with another thread's work, or the end, in the middle of it."""
        model, records = self.model, []
        for _ in range(self.luck.choice((1, 1, 2, 3, 6))):
            records.append(self._record(model))
            model = model.told(records[-1:])
        if self.luck.random() < 0.35:
            self.disk.during = self._on_another_thread
        with self.step(lambda model: model.told(records)):
            self.storage.append(records)
            self.storage.sync()
        self.disk.during = None

    def _on_another_thread(self) -> None:
        self.prepare() if self.luck.random() < 0.4 else self.snapshot()

    def _record(self, model: Model) -> Record:
        luck, promised = self.luck, model.promised
        if luck.random() < 0.15:
            return Promised(Ballot(promised.round + luck.randint(0, 2), max(promised.replica, luck.randint(1, 3))))
        if luck.random() < 0.15:
            return ChosenTo(luck.randint(min(model.last, max(model.floor, model.chosen)), model.last))
        slot = model.last + 1
        if model.entries and luck.random() < 0.2:
            slot = luck.randint(min(model.entries), model.last)
        return Accepted(Entry(slot, promised, luck.randint(0, 3), self._bytes()))

    def _bytes(self) -> bytes:
        size = self.luck.choice(SIZES)
        # With long zeros, as values have them: a sector of nothing but zeros must not be taken for an unreached one.
        return self.luck.randbytes(size) if self.luck.random() < 0.8 else bytes(size)

    def prepare(self) -> None:
        for _ in range(self.luck.randint(1, 3)):
            self.storage.prepare()

    def snapshot(self) -> None:
        """A part of making our own: it is begun, written, finished slice by slice, and batches come in between."""
        if self._cutting is None:
            if self.model.last > self.model.floor:
                self._cutting = self._cut(self.luck.randint(self.model.floor + 1, self.model.last), self._bytes())
            return
        writer, rest, becomes, slot = self._cutting
        if rest:
            for at in range(0, len(rest), 400):
                writer.write(rest[at : at + 400])
            self._cutting = writer, b"", becomes, slot
            return
        if not self._finishing:
            self._finishing = True
            self._begin(becomes)
        for _ in range(self.luck.randint(1, 6)):
            if not writer.advance():
                self._cutting, self._finishing = None, False
                self._end(becomes)
                return

    def _cut(self, slot: int, contents: bytes) -> tuple[Any, bytes, Transition, int]:
        header = self._header(slot, self.model.promised)
        writer = self.storage.begin_snapshot(header)
        writer.write(contents[:300])

        def becomes(model: Model) -> Model:
            if model.floor >= slot:
                return model  # a newer one came from a peer meanwhile
            return model.snapshotted(slot, contents, header.promised)

        return writer, contents[300:], becomes, slot

    def receive(self) -> None:
        """From a peer, which may be ahead of all that is accepted here, and have promised more; or be cut off."""
        model, contents = self.model, self._bytes()
        slot = model.floor + self.luck.choice((1, 5, 50))
        if self._cutting is not None:
            # As consensus does: what it learns is beyond what it has applied, so beyond any snapshot of its own.
            slot += self._cutting[3]
        promised = Ballot(model.promised.round + self.luck.choice((-1, 0, 3)), self.luck.randint(1, 3))
        promised = promised if promised.round >= 0 else model.promised
        header = self._header(slot, promised)._replace(size=len(contents), checksum=self._checksum(contents))
        match self.luck.randrange(4):
            case 0:  # cut off, and left behind or given up
                writer = self.storage.receive_snapshot(header)
                writer.write(contents[: len(contents) // 2])
                if self.luck.random() < 0.5:
                    writer.abort()
            case 1 if contents:  # damaged on its way
                writer = self.storage.receive_snapshot(header)
                writer.write(bytes(len(contents) - 1) + b"\1")
                self._is_refused(writer)
        with self.step(lambda model: model.snapshotted(slot, contents, promised)):
            writer = self.storage.receive_snapshot(header)
            for at in range(0, len(contents), 400):
                writer.write(contents[at : at + 400])
            writer.finish()

    def _is_refused(self, writer: Any) -> None:
        try:
            writer.finish()
        except self.package.SnapshotDamaged:
            return
        raise AssertionError("a damaged snapshot was taken")

    def _checksum(self, contents: bytes) -> bytes:
        other = self.package.MemoryStorage().begin_snapshot(self._header(1, Ballot(0, 0)))
        other.write(contents)
        checksum: bytes = other.finish().checksum
        return checksum

    def _header(self, slot: int, promised: Ballot) -> Any:
        return self.package.SnapshotHeader(slot, CONFIGURATION, chain_at(slot), b"digest", promised)

    def form(self) -> None:
        identity = Identity(INCARNATION, self._bytes())
        with self.step(lambda model: replace(model, identity=identity)):
            self.storage.form(identity.formation)

    def kill(self) -> None:
        """The process ends, now or at one of the next operations; another opens the same directory on the same
        machine.
        """
        match self.luck.randrange(4):
            case 0:
                self._open_again()
            case 1:
                self.disk.kill_at = len(self.disk.ops) + self.luck.randrange(8)
            case _:
                self.disk.kill_before = self.luck.choice(("sync", "sync range", "sync names", "sync names"))

    def _open_again(self) -> None:
        self.disk.kill()
        if self.luck.random() < 0.2:
            self.disk.kill_at = len(self.disk.ops) + self.luck.randrange(4)
        self.open()

    def crash(self) -> None:
        """The machine ends, at one of the last moments; another life begins on what was left."""
        if self._only_one_life:
            return
        life = self.lives[-1]
        prefix = self.luck.randint(max(0, len(life.ops) - 12), len(life.ops))
        life_allowed = life.allowed(prefix)
        afloat = life.afloat(prefix)
        found = self.luck.choice(list(states.lawful(afloat, self.luck)))
        self._begin_life(found.files)
        self.lives[-1].marks.append((0, life_allowed))
        self.open()
