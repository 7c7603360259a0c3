# SPDX-License-Identifier: Apache-2.0
"""Who a directory is, and which directories are refused, in which words."""

from __future__ import annotations

import contextlib
import random
import struct

import pytest

from replicas.storage import Identity, StorageFailed, StorageLocked, StorageRefused
from tests.sim.disk import PowerCut, SimulatedDisk
from tests.storage.support import INCARNATION, accepted, formatted, open_storage, reopen


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk(random.Random(0))


def put(disk: SimulatedDisk, name: str, data: bytes) -> None:
    file = disk.create(name)
    file.write(0, data)
    file.sync()
    disk.sync()


def test_an_empty_directory_is_nobody(disk: SimulatedDisk) -> None:
    """Nothing is written and nothing drawn until somebody says which incarnation it is."""
    storage = open_storage(disk)
    assert storage.recovered.identity is None
    assert storage.recovered.rot is None
    assert disk.names() == []
    with pytest.raises(StorageFailed, match="not formatted"):
        storage.append([accepted(1)])


def test_formatted_then_formed(disk: SimulatedDisk) -> None:
    """The formation is opaque bytes; each version replaces the one before."""
    storage = formatted(disk)
    assert storage.identity == Identity(INCARNATION, None)
    assert reopen(disk).identity == Identity(INCARNATION, None)
    storage = reopen(disk)
    storage.form(b"first")
    storage.form(b"second")
    assert storage.identity == storage.recovered.identity == Identity(INCARNATION, b"second")
    assert reopen(disk).recovered.identity == Identity(INCARNATION, b"second")


def test_old_or_new_at_every_moment() -> None:
    """A power cut while the identity is replaced leaves one of the two, whole."""
    found = set()
    for moment in range(6):
        for seed in range(40):
            disk = SimulatedDisk(random.Random(seed))
            storage = formatted(disk)
            storage.form(b"old" * 1000)
            disk.cut_power_after = moment
            with contextlib.suppress(PowerCut):
                storage.form(b"new" * 1000)
            disk.crash()
            identity = open_storage(disk).identity
            assert identity is not None
            assert identity.formation in (b"old" * 1000, b"new" * 1000)
            found.add(identity.formation)
    assert len(found) == 2


def test_one_process_at_a_time(disk: SimulatedDisk) -> None:
    storage = formatted(disk)
    for _ in range(2):
        with pytest.raises(StorageLocked, match="is in use by another process"):
            open_storage(disk)
    storage.close()
    open_storage(disk)


def test_a_refused_directory_is_not_left_locked(disk: SimulatedDisk) -> None:
    put(disk, "letter.txt", b"Dear Sir")
    for _ in range(2):
        with pytest.raises(
            StorageRefused, match=r"is not a dthreading directory and is not empty \(it holds letter.txt\)"
        ):
            open_storage(disk)


def test_files_of_others_in_our_directory_do_no_harm(disk: SimulatedDisk) -> None:
    """Once it is ours, a stray file is not a reason to refuse service; nor are the system's own, or hidden ones,
    before.
    """
    put(disk, "lost+found", b"")
    put(disk, ".hidden", b"")
    storage = formatted(disk)
    put(disk, "letter.txt", b"Dear Sir")
    storage.append([accepted(1)])
    storage.sync()
    assert len(reopen(disk).recovered.durable.entries) == 1
    assert disk.contents("letter.txt") == b"Dear Sir"


def test_another_format_is_named(disk: SimulatedDisk) -> None:
    formatted(disk)
    disk.open("identity").write(8, struct.pack(">I", 2))
    disk.kill()
    with pytest.raises(StorageRefused, match="has format version 2; this server knows version 1 only"):
        open_storage(disk)


@pytest.mark.parametrize("damage", [b"", b"dthr", b"something else that is long enough"])
def test_a_damaged_identity_is_refused(disk: SimulatedDisk, damage: bytes) -> None:
    formatted(disk)
    put(disk, "identity", damage)
    disk.kill()
    with pytest.raises(StorageRefused, match=r"identity file .* is damaged"):
        open_storage(disk)


def test_a_lost_identity_is_not_a_new_replica(disk: SimulatedDisk) -> None:
    """Formatting again would forget what was promised."""
    storage = formatted(disk)
    storage.append([accepted(1)])
    storage.sync()
    disk.remove("identity")
    with pytest.raises(StorageRefused, match="log, but its identity file is missing"):
        reopen(disk)
    put(disk, "snapshot", b"")
    with pytest.raises(StorageRefused, match="snapshot and log, but its identity file is missing"):
        reopen(disk)
