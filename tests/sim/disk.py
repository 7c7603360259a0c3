# SPDX-License-Identifier: Apache-2.0
"""A disk that lives in memory and keeps no more than POSIX promises: the simulator's, and that of the storage tests.

What was not synced is at the mercy of `crash`: each sector written since its file's last sync may come out as any of
the versions it has had, each change of a name since the directory's last sync may or may not have happened, and a file
that grew may be short again. All luck comes from the generator that is handed in, so a seed repeats everything.

Faults to order: `cut_power_after` (the power goes during that operation, which may have happened in part), `fail_after`
(that write or sync raises EIO, and the system then believes, as Linux does, that the disk has what it has not),
`capacity` (ENOSPC beyond it), and `flip` for a bit that rots at rest.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from replicas.storage.files import SECTOR, StorageLocked

__all__ = ["PowerCut", "SimulatedDisk", "SimulatedFile"]

NEWEST_SURVIVES: Final = (0.0, 0.1, 0.5, 0.9, 1.0)
"""How likely a sector's newest version is what a power cut leaves of it: one of these for a file and a crash."""


class PowerCut(BaseException):
    """The machine is off: nobody on it can catch this and go on. `SimulatedDisk.crash` says what is left."""


@dataclass(slots=True, eq=False)
class Inode:
    """One file's contents: as the system shows them, and what the disk may come up with after a power cut.

    For each sector that is not durable, every version it has had since it was: in `unsynced` those that the next sync
    writes, in `poisoned` those of a sync that failed, which no later one will write.
    """

    data: bytearray = field(default_factory=bytearray)
    unsynced: dict[int, list[bytes]] = field(default_factory=dict)
    poisoned: dict[int, list[bytes]] = field(default_factory=dict)
    durable_size: int = 0

    def write(self, offset: int, data: bytes) -> None:
        sectors = range(offset // SECTOR, -(-(offset + len(data)) // SECTOR))
        for sector in sectors:
            before = self.poisoned.pop(sector, None) or [self._sector(sector)]
            self.unsynced.setdefault(sector, before)
        self.put(offset, data)
        for sector in sectors:
            self.unsynced[sector].append(self._sector(sector))

    def put(self, offset: int, data: bytes) -> None:
        self.data.extend(bytes(max(0, offset - len(self.data))))
        self.data[offset : offset + len(data)] = data

    def sync(self) -> None:
        self.unsynced.clear()
        self.durable_size = len(self.data)

    def sync_range(self, offset: int, length: int) -> None:
        for sector in range(offset // SECTOR, -(-(offset + length) // SECTOR)):
            self.unsynced.pop(sector, None)
            self.poisoned.pop(sector, None)

    def fail_sync(self) -> None:
        self.poisoned.update(self.unsynced)
        self.unsynced.clear()

    def show_the_truth(self, luck: random.Random) -> None:
        """Where a sync had failed, the system gives up its belief, and reads what the disk has."""
        for sector in sorted(self.poisoned):
            room = max(0, len(self.data) - sector * SECTOR)
            self.data[sector * SECTOR : (sector + 1) * SECTOR] = luck.choice(self.poisoned[sector])[:room]
        self.poisoned.clear()

    def settle(self, luck: random.Random) -> None:
        """What is left after a power cut."""
        size = luck.choice(
            (self.durable_size, len(self.data), luck.randint(*sorted((self.durable_size, len(self.data)))))
        )
        open_to_luck = self.poisoned | self.unsynced
        in_order = luck.random() < 0.3
        reached = luck.randint(0, len(open_to_luck))
        likely = luck.choice(NEWEST_SURVIVES)
        for count, sector in enumerate(sorted(open_to_luck)):
            versions = open_to_luck[sector]
            newest = count < reached if in_order else luck.random() < likely
            version = versions[-1] if newest else luck.choice(versions[:-1])
            room = max(0, len(self.data) - sector * SECTOR)
            self.data[sector * SECTOR : (sector + 1) * SECTOR] = version[:room]
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))
        self.poisoned.clear()
        self.sync()

    def copy(self) -> Inode:
        unsynced = {sector: list(versions) for sector, versions in self.unsynced.items()}
        poisoned = {sector: list(versions) for sector, versions in self.poisoned.items()}
        return Inode(bytearray(self.data), unsynced, poisoned, self.durable_size)

    def _sector(self, sector: int) -> bytes:
        return bytes(self.data[sector * SECTOR : (sector + 1) * SECTOR]).ljust(SECTOR, b"\0")


@dataclass(frozen=True, slots=True)
class NameChange:
    """`name` now means `inode` (None: nothing), and `freed`, where a rename left it, means nothing."""

    name: str
    inode: Inode | None
    freed: str | None = None

    def apply(self, names: dict[str, Inode]) -> None:
        if self.freed is not None:
            if names.get(self.freed) is not self.inode:
                return  # what it would rename was never there
            del names[self.freed]
        if self.inode is None:
            names.pop(self.name, None)
        else:
            names[self.name] = self.inode


class SimulatedFile:
    """Implements `replicas.storage.File`. Dead once its machine has crashed, or its process was killed."""

    def __init__(self, disk: SimulatedDisk, inode: Inode) -> None:
        self._disk = disk
        self._inode = inode
        self._life = disk.life

    def size(self) -> int:
        self._check()
        return len(self._inode.data)

    def read(self, offset: int, length: int) -> bytes:
        self._check()
        return bytes(self._inode.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self._check()
        power_goes = self._disk.begin_operation()
        self._disk.maybe_fail()
        self._disk.make_room(offset + len(data) - len(self._inode.data))
        self._inode.write(offset, data)
        if power_goes:
            raise PowerCut

    def write_durable(self, offset: int, data: bytes) -> None:
        assert offset + len(data) <= len(self._inode.data), "a durable write must not make a file grow"
        if self._disk.is_fateless:  # nobody can look between the write and the sync
            self._check()
            self._disk.operations += 2
            self._inode.put(offset, data)
        else:
            self.write(offset, data)
            self._begin_sync()
        self._inode.sync_range(offset, len(data))
        self._disk.last_durable = self._inode, offset, len(data)

    def sync(self) -> None:
        self._begin_sync()
        self._inode.sync()

    def _begin_sync(self) -> None:
        self._check()
        power_goes = self._disk.begin_operation()
        try:
            self._disk.maybe_fail()
        except OSError:
            self._inode.fail_sync()
            raise
        if power_goes:
            raise PowerCut

    def forget_cached(self) -> None:
        self._check()
        self._inode.show_the_truth(self._disk.luck)

    def close(self) -> None:
        pass

    def _check(self) -> None:
        assert self._life == self._disk.life, "a file that was opened before the end of its process is used after it"


class SimulatedDisk:
    """Implements `replicas.storage.Disk`; the rest is for whoever plays fate."""

    def __init__(self, luck: random.Random, *, capacity: int | None = None) -> None:
        self.luck = luck
        self.capacity = capacity
        """Bytes; None: no end of them."""
        self.cut_power_after: int | None = None
        """Operations that still succeed; None: all. Writes, syncs and changes of names count."""
        self.fail_after: int | None = None
        """Writes and syncs that still succeed; None: all."""
        self.observer: Callable[[], None] | None = None
        """Called before each operation, e.g. to try in a clone what a crash would leave now."""
        self.operations = 0
        self.last_durable: tuple[Inode, int, int] | None = None
        """Where the last durable write has gone: file, offset, length."""
        self.life = 0
        self._locked = False
        self._off = False
        self._names: dict[str, Inode] = {}
        self._durable_names: dict[str, Inode] = {}
        self._changes: list[NameChange] = []

    # --- replicas.storage.Disk ------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return "the simulated disk"

    def lock(self) -> None:
        if self._locked:
            raise StorageLocked(f"{self.name} is in use by another process (pid 1).")
        self._locked = True

    def names(self) -> list[str]:
        return sorted(self._names)

    def open(self, name: str) -> SimulatedFile:
        return SimulatedFile(self, self._find(name))

    def create(self, name: str) -> SimulatedFile:
        inode = Inode()
        self._change(NameChange(name, inode))
        return SimulatedFile(self, inode)

    def rename(self, old: str, new: str) -> None:
        self._change(NameChange(new, self._find(old), freed=old))

    def remove(self, name: str) -> None:
        self._find(name)
        self._change(NameChange(name, None))

    def sync(self) -> None:
        power_goes = self.begin_operation()
        self.maybe_fail()
        if power_goes:
            raise PowerCut
        self._durable_names = dict(self._names)
        self._changes.clear()

    def close(self) -> None:
        self._locked = False

    # --- fate -----------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """kill -9: the process is gone, what it wrote is not. Where the power was to go, it was the process."""
        self.life += 1
        self._locked = self._off = False
        self.cut_power_after = None

    def crash(self) -> None:
        """The power was cut and came back: what was synced is there, and of all else what luck leaves."""
        self.kill()
        self.fail_after = None
        names = dict(self._durable_names)
        likely = self.luck.choice(NEWEST_SURVIVES)
        for change in self._changes:
            if self.luck.random() < likely:
                change.apply(names)
        for name in sorted(names):
            names[name].settle(self.luck)
        self._names, self._durable_names, self._changes = names, dict(names), []

    def clone(self, luck: random.Random) -> SimulatedDisk:
        """The same disk in another world, where fate may take another turn."""
        other = SimulatedDisk(luck, capacity=self.capacity)
        twins: dict[Inode, Inode] = {}

        def twin(inode: Inode) -> Inode:
            if inode not in twins:
                twins[inode] = inode.copy()
            return twins[inode]

        other._names = {name: twin(inode) for name, inode in self._names.items()}
        other._durable_names = {name: twin(inode) for name, inode in self._durable_names.items()}
        for change in self._changes:
            inode = twin(change.inode) if change.inode is not None else None
            other._changes.append(NameChange(change.name, inode, change.freed))
        return other

    def contents(self, name: str) -> bytes:
        """A file's bytes, as the system shows them."""
        return bytes(self._find(name).data)

    def flip(self, name: str, offset: int, mask: int = 0x01) -> None:
        """Rot at rest: the disk gives back something else than it was given."""
        self._find(name).data[offset] ^= mask

    def used_bytes(self) -> int:
        """What all files take."""
        return sum(len(inode.data) for inode in self._names.values())

    # --- for its files ----------------------------------------------------------------------------------------------

    @property
    def is_off(self) -> bool:
        """Whether the power went in the middle of something, and is not back yet."""
        return self._off

    @property
    def is_fateless(self) -> bool:
        """Whether nothing can happen between two operations."""
        no_orders = self.cut_power_after is None and self.fail_after is None and self.observer is None
        return no_orders and not self._off

    def begin_operation(self) -> bool:
        """Counts it. True when the power goes while it is under way."""
        if self._off:
            raise PowerCut
        if self.observer is not None:
            self.observer()
        self.operations += 1
        if self.cut_power_after is None:
            return False
        self.cut_power_after -= 1
        self._off = self.cut_power_after < 0
        return self._off

    def maybe_fail(self) -> None:
        if self.fail_after is not None:
            self.fail_after -= 1
            if self.fail_after < 0:
                self.fail_after = None  # once: whoever asks again is told that all is well
                raise OSError(errno.EIO, "Input/output error")

    def make_room(self, growth: int) -> None:
        if self.capacity is not None and growth > 0 and self.used_bytes() + growth > self.capacity:
            raise OSError(errno.ENOSPC, "No space left on device")

    def _find(self, name: str) -> Inode:
        if name not in self._names:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
        return self._names[name]

    def _change(self, change: NameChange) -> None:
        power_goes = self.begin_operation()
        self._changes.append(change)
        change.apply(self._names)
        if power_goes:
            raise PowerCut
