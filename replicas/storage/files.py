# SPDX-License-Identifier: Apache-2.0
"""What storage asks of a disk, and the errors it answers with. The only file operations that the package uses.

A disk is one flat directory of named files. Two things implement it: `disk.Directory`, the real one, and the
simulator's, which loses, tears and reorders whatever was not synced. The contract is what POSIX promises and no more: a
write survives a power cut only after its file's `sync`; a name (made, replaced or removed) only after the disk's
`sync`; what was not synced may survive in part, in units of one sector, in any order.
"""

from __future__ import annotations

from typing import Final, Protocol

SECTOR: Final = 512
"""The unit that a disk writes wholly or not at all. Devices with larger sectors keep this promise too."""


class StorageError(Exception):
    """The root of what storage raises."""


class StorageRefused(StorageError):
    """The directory cannot be opened; the message is one sentence for whoever started the server."""


class StorageLocked(StorageRefused):
    """Another process has this directory open."""


class StorageFailed(StorageError):
    """A write or a sync failed, or was asked for after one had. Nothing is known about the disk now: the process
    must end.
    """


class SnapshotDamaged(StorageError):
    """A snapshot received from a peer is not the one its header describes. Nothing was changed; fetch it again."""


class File(Protocol):
    """One open file. Not safe for two threads at a time, except that reads may overlap anything."""

    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes: fewer only where the file ends."""

    def write(self, offset: int, data: bytes) -> None:
        """All of `data`; durable only after `sync`. Beyond the end the file grows."""

    def write_durable(self, offset: int, data: bytes) -> None:
        """Returns when `data` is durable, as cheaply as the disk knows how. Inside the file's size only; nothing is
        promised of what was written before.
        """

    def sync(self) -> None:
        """Returns when all that was written is durable, the file's size included."""

    def forget_cached(self) -> None:
        """Lets later reads come from the device, as far as the system can be asked for it.

        What was written and not synced yet stays readable. A read-back should not ask a cache, and after a sync that
        failed the cache shows what the device never got.
        """

    def close(self) -> None: ...


class Disk(Protocol):
    """One flat directory of files."""

    @property
    def name(self) -> str:
        """What people call it: its path."""

    def lock(self) -> None:
        """Keeps other processes out until `close`. Raises `StorageLocked`, or `StorageRefused`, and is closed then."""

    def names(self) -> list[str]:
        """The files' names, in order."""

    def open(self, name: str) -> File: ...

    def create(self, name: str) -> File:
        """A new, empty file; what stood under that name is emptied."""

    def rename(self, old: str, new: str) -> None:
        """At once, replacing what stood under the new name."""

    def remove(self, name: str) -> None: ...

    def sync(self) -> None:
        """Returns when the names are durable."""

    def close(self) -> None:
        """Lets go of the lock."""


class Fuse:
    """Lets everything through until the first failure, and then nothing: a sync that failed once must not be asked
    again.

    (A second sync of the same file may well succeed, because the system has forgotten what it could not write.)
    """

    def __init__(self) -> None:
        self._reason: str | None = None

    def blow(self, reason: str) -> StorageFailed:
        """For the caller to raise."""
        self._reason = self._reason or reason
        return StorageFailed(reason)

    def check(self) -> None:
        if self._reason is not None:
            raise StorageFailed(self._reason)

    def guarding(self, what: str) -> Guard:
        """For a `with`, any number of times: lets nothing begin when blown, and blows at the first OSError inside."""
        return Guard(self, what)


class Guard:
    """See `Fuse.guarding`. Not made of a generator: that takes as long as all else around a write."""

    __slots__ = ("_fuse", "_what")

    def __init__(self, fuse: Fuse, what: str) -> None:
        self._fuse = fuse
        self._what = what

    def __enter__(self) -> None:
        self._fuse.check()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            raise self._fuse.blow(f"{self._what} failed: {error}") from error
