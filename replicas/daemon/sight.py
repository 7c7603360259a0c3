# SPDX-License-Identifier: Apache-2.0
"""What `dthreading status` shows of a replica: its own state, and what only its shell knows."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from replicas.daemon.options import Options
    from replicas.replica.core import Replica
    from replicas.storage import MemoryStorage, Storage

__all__ = ["status"]


def status(
    options: Options, storage: Storage | MemoryStorage, core: Replica | None, linked: tuple[int, ...]
) -> dict[str, Any]:
    """See above. `core` is None while the replica is in no group yet."""
    assert storage.identity is not None
    about: dict[str, Any] = {
        "address": str(options.listen),
        "servers": list(map(str, options.cluster)) if core is None else list(core.servers),
        "incarnation": storage.identity.incarnation,
        "durable": not options.memory,
        "directory": "" if options.memory else os.fsencode(options.data_dir).decode("utf-8", "backslashreplace"),
        "disk_bytes": 0 if options.memory else _disk_bytes(options.data_dir),
        "log_bytes": storage.log_bytes,
        "snapshot_bytes": storage.snapshot.size if storage.snapshot is not None else 0,
        "linked": list(linked),
    }
    if core is None:
        role = "joining" if options.join else "forming"
        return {**about, "replica": options.replica, "role": role, "leader": None, "cluster": ""}
    return {**core.status(), **about, "cluster": core.paxos.configuration.cluster}


def _disk_bytes(directory: Path) -> int:
    """What the directory's few files take, segments made ahead included; as far as it can be looked at now."""
    total = 0
    with contextlib.suppress(OSError):  # it was moved away, or there is no descriptor left to read it with
        for path in directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_blocks * 512
    return total
