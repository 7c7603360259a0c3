# SPDX-License-Identifier: Apache-2.0
"""A disk in memory that writes down each operation asked of it: the run whose every crash is tried afterwards.

It promises nothing and loses nothing by itself; what a power cut may leave of the operations is told in afloat.py. One
durable write counts as two operations, a write and a sync of that range, so that a crash may fall between them.
`during` lets a story do something on another thread's behalf in the middle of an operation, without a thread.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from replicas.storage.files import StorageLocked

__all__ = ["CHANGES", "Files", "Inode", "Killed", "Op", "RecordedFile", "RecordingDisk"]

Files = dict[str, bytes]
"""A whole directory, as a machine finds it when it starts. Contents are shared between states, so they never change."""

CHANGES: Final = frozenset({"create", "truncate", "write", "rename", "remove"})
"""What a crash can undo until a sync covers it. The other kinds are the syncs."""


class Killed(BaseException):
    """kill -9: nobody in the process can catch this and go on."""


class Op(NamedTuple):
    """One operation. `failed` marks an answer of EIO or ENOSPC: the caller was told, what the disk did is unknown."""

    kind: str
    inode: int
    name: str
    offset: int = 0
    data: bytes = b""
    new: str = ""
    failed: bool = False

    def __str__(self) -> str:
        end = "  FAILED" if self.failed else ""
        match self.kind:
            case "write":
                return f"write        {self.name} [{self.offset}:{self.offset + len(self.data)}]{end}"
            case "sync range":
                return f"sync range   {self.name} from {self.offset}{end}"
            case "rename":
                return f"rename       {self.name} -> {self.new}{end}"
            case "sync names":
                return f"sync names{end}"
            case kind:
                return f"{kind:12} {self.name}{end}"


@dataclass(slots=True, eq=False)
class Inode:
    """One file as the system shows it. `number` is its name for ever, since names come and go."""

    number: int
    name: str
    data: bytes | bytearray = b""

    def put(self, offset: int, data: bytes) -> None:
        if type(self.data) is not bytearray:
            self.data = bytearray(self.data)
        if offset > len(self.data):
            self.data.extend(bytes(offset - len(self.data)))
        self.data[offset : offset + len(data)] = data


class RecordedFile:
    """Implements `replicas.storage.File`."""

    __slots__ = ("_disk", "_inode", "_life")

    def __init__(self, disk: RecordingDisk, inode: Inode) -> None:
        self._disk = disk
        self._inode = inode
        self._life = disk.life

    def size(self) -> int:
        return len(self._inode.data)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._inode.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        data = bytes(data)
        self._record("write", offset, data)
        self._inode.put(offset, data)

    def write_durable(self, offset: int, data: bytes) -> None:
        assert offset + len(data) <= len(self._inode.data), "a durable write must not make a file grow"
        self.write(offset, data)
        self._disk.pause()
        self._record("sync range", offset, bytes(data))

    def sync(self) -> None:
        self._record("sync")

    def forget_cached(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _record(self, kind: str, offset: int = 0, data: bytes = b"") -> None:
        assert self._life == self._disk.life, "a file that was opened before the end of its process is used after it"
        self._disk.record(Op(kind, self._inode.number, self._inode.name, offset, data))


@dataclass(slots=True, eq=False)
class RecordingDisk:
    """Implements `replicas.storage.Disk`. `base` is what stood there, durably, before the first operation."""

    base: Mapping[str, bytes] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    fail_at: int | None = None
    """The operation with this index is answered by `fail_with`, once."""
    fail_with: int = errno.EIO
    kill_at: int | None = None
    """Before the operation with this index the process ends."""
    kill_before: str | None = None
    """Before the next operation of this kind the process ends."""
    during: Callable[[], None] | None = None
    """Called, once, between the next durable write and its sync."""
    life: int = 0
    inodes: dict[str, Inode] = field(default_factory=dict)
    _made: int = 0
    _locked: bool = False

    def __post_init__(self) -> None:
        for name in sorted(self.base):
            self.inodes[name] = self._inode(name, self.base[name])

    # --- replicas.storage.Disk ------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return "the recorded disk"

    def lock(self) -> None:
        if self._locked:
            raise StorageLocked(f"{self.name} is in use by another process (pid 1).")
        self._locked = True

    def names(self) -> list[str]:
        return sorted(self.inodes)

    def open(self, name: str) -> RecordedFile:
        return RecordedFile(self, self._find(name))

    def create(self, name: str) -> RecordedFile:
        inode = self.inodes.get(name)
        if inode is None:
            inode = self._inode(name)
            self.record(Op("create", inode.number, name))
            self.inodes[name] = inode
        else:
            self.record(Op("truncate", inode.number, name))
            inode.data = b""
        return RecordedFile(self, inode)

    def rename(self, old: str, new: str) -> None:
        inode = self._find(old)
        self.record(Op("rename", inode.number, old, new=new))
        del self.inodes[old]
        self.inodes[new] = inode
        inode.name = new

    def remove(self, name: str) -> None:
        self.record(Op("remove", self._find(name).number, name))
        del self.inodes[name]

    def sync(self) -> None:
        self.record(Op("sync names", 0, ""))

    def close(self) -> None:
        self._locked = False

    # --- for whoever plays fate -------------------------------------------------------------------------------------

    def kill(self) -> None:
        """kill -9: the process is gone, what it asked of the system is not."""
        self.life += 1
        self._locked = False
        self.during = self.kill_at = self.kill_before = None

    def files(self) -> Files:
        """What the system shows now."""
        return {name: bytes(inode.data) for name, inode in self.inodes.items()}

    def record(self, op: Op) -> None:
        if op.kind == self.kill_before or (self.kill_at is not None and len(self.ops) >= self.kill_at):
            raise Killed
        if self.fail_at is not None and len(self.ops) >= self.fail_at:
            self.fail_at = None  # once: whoever asks again is told that all is well
            self.ops.append(op._replace(failed=True))
            raise OSError(self.fail_with, "The disk was told to fail")
        self.ops.append(op)

    def pause(self) -> None:
        if self.during is not None:
            during, self.during = self.during, None
            during()

    def _inode(self, name: str, data: bytes = b"") -> Inode:
        self._made += 1
        return Inode(self._made, name, data)

    def _find(self, name: str) -> Inode:
        if name not in self.inodes:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
        return self.inodes[name]
