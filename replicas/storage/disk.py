# SPDX-License-Identifier: Apache-2.0
"""The real disk: one directory, locked, behind the few operations that storage asks for. It knows nothing of what it
stores.

Errors of an open directory leave here as `OSError`; storage turns them into the end of the process. Only what somebody
who starts a server can mend (no such place, not ours to write, in use) is refused here, in one sentence.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Final

from replicas.storage.files import StorageLocked, StorageRefused

__all__ = ["LOCK_NAME", "Directory", "DirectoryFile"]

LOCK_NAME: Final = "lock"
"""Stays behind when the server has ended: it is the lock on it that counts, and the pid inside is for people."""

_sync_data = getattr(os, "fdatasync", os.fsync)
_FULL_SYNC: Final = getattr(fcntl, "F_FULLFSYNC", None)
_RWF_DSYNC: Final = getattr(os, "RWF_DSYNC", 0)
_UNSUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS})


def _sync_file(descriptor: int) -> None:
    if _FULL_SYNC is not None:  # macOS: its fsync leaves the data in the drive's cache
        fcntl.fcntl(descriptor, _FULL_SYNC)
    else:
        _sync_data(descriptor)


class DirectoryFile:
    """One file of a `Directory`."""

    __slots__ = ("_descriptor", "_durable_writes")

    def __init__(self, descriptor: int, *, durable_writes: bool) -> None:
        self._descriptor = descriptor
        self._durable_writes = durable_writes

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def read(self, offset: int, length: int) -> bytes:
        part = os.pread(self._descriptor, length, offset)
        if len(part) == length or not part:
            return part
        parts = [part]
        while part and (missing := length - sum(map(len, parts))):
            part = os.pread(self._descriptor, missing, offset + length - missing)
            parts.append(part)
        return b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._descriptor, rest, offset)
            offset += written
            rest = rest[written:]

    def write_durable(self, offset: int, data: bytes) -> None:
        if not self._durable_writes:
            self.write(offset, data)
            self.sync()
            return
        written = os.pwritev(self._descriptor, [data], offset, _RWF_DSYNC)
        if written < len(
            data
        ):  # A signal cut it short; the rest is durable when this returns, and the first part is already.
            self.write_durable(offset + written, data[written:])

    def sync(self) -> None:
        _sync_file(self._descriptor)

    def forget_cached(self) -> None:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Directory:
    """A directory on this machine, made when it is missing (its parents too), readable by its user only."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path).absolute()
        self._lock = -1
        self._durable_writes = False
        try:
            self._make()
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StorageRefused(f"{self._path} cannot be used as a data directory: {error.strerror}.") from error

    def _make(self) -> None:
        missing = [self._path, *self._path.parents]
        missing = [path for path in missing if not path.exists()]
        for path in reversed(missing):
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
            with contextlib.suppress(PermissionError):  # a parent that may be written but not read cannot be synced
                _sync_directory(path.parent)

    @property
    def name(self) -> str:
        return str(self._path)

    def lock(self) -> None:
        assert self._lock < 0
        try:
            self._lock = os.open(LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self._descriptor)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._lock, 0)
            self._durable_writes = _writes_durably(self._lock, f"{os.getpid()}\n".encode())
        except BlockingIOError as error:
            holder = os.pread(self._lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            self.close()
            raise StorageLocked(f"{self.name} is in use by another process (pid {holder}).") from error
        except OSError as error:
            self.close()
            raise StorageRefused(f"{self.name} is not writable: {error.strerror}.") from error

    def names(self) -> list[str]:
        return sorted(os.listdir(self._path))  # noqa: PTH208 - names are wanted, not paths

    def open(self, name: str) -> DirectoryFile:
        return self._file(name, os.O_RDWR)

    def create(self, name: str) -> DirectoryFile:
        return self._file(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def _file(self, name: str, flags: int) -> DirectoryFile:
        descriptor = os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=self._descriptor)
        return DirectoryFile(descriptor, durable_writes=self._durable_writes)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove(self, name: str) -> None:
        os.unlink(name, dir_fd=self._descriptor)

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        for descriptor in (self._descriptor, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._lock = -1


def _writes_durably(descriptor: int, data: bytes) -> bool:
    """Writes the lock file's text, and learns by it whether this file system takes write and sync as one call."""
    if _RWF_DSYNC and _FULL_SYNC is None:
        try:
            os.pwritev(descriptor, [data], 0, _RWF_DSYNC)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        else:
            return True
    os.pwrite(descriptor, data, 0)
    return False


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
