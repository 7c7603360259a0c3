# SPDX-License-Identifier: Apache-2.0
"""The durable log, snapshots and identity of one replica. A map of the package; nothing is said here.

files.py      what storage asks of a disk (two implementations: replicas/disk.py and the simulator's), and its errors
identity.py   who this directory is: one small file, replaced as a whole
records.py    one record of the log <-> bytes
batches.py    a batch of records <-> stamped sectors, and how a bad one is judged
recovery.py   what a log says when it is read from its beginning: good, torn, doubtful or rotten
mending.py    makes its end fit to be added to
segments.py   the log's files: made ahead and zeroed, used one after the other, dropped below a snapshot
log.py        append and sync
snapshots.py  one snapshot, replaced as a whole, written and received in slices
store.py      Storage: all of it behind one door
memory.py     MemoryStorage: the same door and nothing behind it
"""

from replicas.storage.files import (
    Disk,
    File,
    SnapshotDamaged,
    StorageError,
    StorageFailed,
    StorageLocked,
    StorageRefused,
)
from replicas.storage.identity import Identity
from replicas.storage.memory import MemoryStorage
from replicas.storage.snapshots import SnapshotHeader, SnapshotWriter
from replicas.storage.store import Recovered, Storage

__all__ = [
    "Disk",
    "File",
    "Identity",
    "MemoryStorage",
    "Recovered",
    "SnapshotDamaged",
    "SnapshotHeader",
    "SnapshotWriter",
    "Storage",
    "StorageError",
    "StorageFailed",
    "StorageLocked",
    "StorageRefused",
]
