# SPDX-License-Identifier: Apache-2.0
"""The real directory, on whatever file system the tests run on, and the simulated one's own promises."""

from __future__ import annotations

import errno
import gc
import os
import random
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from replicas.storage import Storage, StorageFailed, StorageLocked, StorageRefused
from replicas.storage import disk as real
from replicas.storage.disk import Directory
from replicas.storage.files import SECTOR
from tests.sim.disk import PowerCut, SimulatedDisk
from tests.storage.support import INCARNATION, Run, accepted, entry, header, take_snapshot, view_of

SEGMENT_BYTES = 64 * SECTOR


def open_directory(path: Path) -> Storage:
    return Storage.open(Directory(path), segment_bytes=SEGMENT_BYTES)


def test_the_same_storage_on_a_real_directory(tmp_path: Path) -> None:
    """Made with its parents, for its user only; locked; everything comes back."""
    path = tmp_path / "a" / "b"
    storage = open_directory(path)
    storage.format(INCARNATION)
    storage.form(b"formation")
    for slot in range(1, 200):
        storage.append([accepted(slot, b"v" * 300)])
        storage.sync()
        storage.prepare()
    take_snapshot(storage, 150, b"contents" * 1000)
    storage.close()
    storage = open_directory(path)
    view = view_of(storage)
    assert view.snapshot == (150, b"contents" * 1000)
    assert view.entries == tuple(entry(slot, b"v" * 300) for slot in range(151, 200))
    storage.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o600}


def test_a_snapshot_costs_no_descriptor_for_good(tmp_path: Path) -> None:
    """The former one's file, kept open, would keep its space on the disk as well; and one day no file can be opened."""
    storage = open_directory(tmp_path)
    storage.format(INCARNATION)
    gc.collect()  # what earlier tests have left open
    used = []
    for slot in range(1, 5):
        storage.append([accepted(slot)])
        storage.sync()
        take_snapshot(storage, slot)
        used.append(len([*Path("/dev/fd").iterdir()]))
    storage.close()
    assert used[-1] <= used[0]


OPEN_MAX = 5
"""The directory, its lock, the log's last file and the next one, and the snapshot."""


def test_a_random_life_on_a_real_directory(tmp_path: Path) -> None:
    """The same workload that the crash tests run, with restarts, and with snapshots that are given up. Nothing that was
    replaced, full or given up stays open: it would keep its space on the disk as well.
    """

    class OnDirectory(Run):
        def reopen(self) -> None:
            self.storage.close()
            self.storage = open_directory(tmp_path)

    luck = random.Random(3)
    run = OnDirectory(SimulatedDisk(luck), luck)
    gc.collect()  # what earlier tests have left open
    before = len([*Path("/dev/fd").iterdir()])
    run.storage = open_directory(tmp_path)
    for _ in range(10):
        run.go(20)
        for writer in (run.storage.begin_snapshot(header(10**6)), run.storage.receive_snapshot(header(10**6))):
            writer.abort()
        assert len([*Path("/dev/fd").iterdir()]) <= before + OPEN_MAX
        run.reopen()
        assert view_of(run.storage) == run.before.view()
    run.storage.close()
    assert len([*Path("/dev/fd").iterdir()]) <= before


def test_locked_against_other_processes(tmp_path: Path) -> None:
    """And free again when that process has ended, however it did."""
    program = (
        "import sys; from replicas.storage.disk import Directory; from replicas.storage import Storage;"
        f"storage = Storage.open(Directory({str(tmp_path)!r})); print('open', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(StorageLocked, match=rf"is in use by another process \(pid {other.pid}\)"):
            open_directory(tmp_path)
    finally:
        other.kill()
        other.communicate()
    open_directory(tmp_path).close()


def test_what_was_acknowledged_survives_kill_minus_nine(tmp_path: Path) -> None:
    """Each number that the process printed, it had synced; it is killed wherever it happens to be."""
    program = (
        "from replicas.storage.disk import Directory; from replicas.storage import Storage;"
        "from tests.storage.support import accepted, take_snapshot;"
        f"storage = Storage.open(Directory({str(tmp_path)!r}), segment_bytes={SEGMENT_BYTES});"
        "storage.identity or storage.format(b'i' * 16);"
        "slot = max([storage.recovered.durable.snapshot_slot] + [e.slot for e in storage.recovered.durable.entries])\n"
        "while True:\n"
        "    slot += 1; storage.append([accepted(slot)]); storage.sync(); print(slot, flush=True); storage.prepare()\n"
        "    slot % 50 or take_snapshot(storage, slot - 10)\n"
    )
    acknowledged = 0
    for lines in (40, 130, 75):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(lines):
            acknowledged = int(process.stdout.readline())
        process.kill()
        rest, _ = process.communicate()
        acknowledged = max([acknowledged, *(int(line) for line in rest.split("\n")[:-1] if line)])
        storage = open_directory(tmp_path)
        last = max([storage.recovered.durable.snapshot_slot, *(told.slot for told in view_of(storage).entries)])
        assert acknowledged <= last <= acknowledged + 1
        storage.close()
    assert acknowledged >= 245


def test_refusals_are_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(StorageRefused, match="cannot be used as a data directory: Not a directory"):
        Directory(file / "below")
    with pytest.raises(StorageRefused, match="cannot be used as a data directory"):
        Directory(file)
    with pytest.raises(StorageRefused, match="is not a dthreading directory and is not empty"):
        open_directory(tmp_path)
    (tmp_path / "lock").unlink()
    (tmp_path / "lock").mkdir()
    with pytest.raises(StorageRefused, match="is not writable"):
        open_directory(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_directory_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageRefused, match="is not writable: Permission denied"):
        open_directory(tmp_path)


def test_without_the_one_call_for_write_and_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On systems or file systems that lack it, two calls do the same."""
    for case, patch in enumerate(
        (("_RWF_DSYNC", 0), ("_RWF_DSYNC", 0x4000_0000))
    ):  # unknown here; refused by the system
        with monkeypatch.context() as context:
            context.setattr(real, *patch)
            storage = open_directory(tmp_path / str(case))
            storage.format(INCARNATION)
            storage.append([accepted(1)])
            storage.sync()
            storage.close()
            storage = open_directory(tmp_path / str(case))
            assert view_of(storage).entries == (entry(1),)
            storage.close()


def test_short_writes_are_carried_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may write less than it was asked to; that is no error and no reason to lose the rest."""
    write, write_vector = os.pwrite, os.pwritev
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, bytes(data)[:700], at))
    monkeypatch.setattr(os, "pwritev", lambda fd, data, at, flags: write_vector(fd, [data[0][:700]], at, flags))
    storage = open_directory(tmp_path)
    storage.format(INCARNATION)
    storage.append([accepted(1, b"v" * 5000)])
    storage.sync()
    storage.close()
    monkeypatch.undo()
    storage = open_directory(tmp_path)
    assert view_of(storage).entries == (entry(1, b"v" * 5000),)
    storage.close()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_an_error_of_the_system_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Whatever it is, and the next call does not reach the system."""
    storage = open_directory(tmp_path)
    storage.format(INCARNATION)
    calls = []

    def fail(*arguments: object) -> int:
        calls.append(arguments)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pwritev", fail)
    monkeypatch.setattr(os, "pwrite", fail)
    storage.append([accepted(1)])
    for _ in range(3):
        with pytest.raises(StorageFailed, match=os.strerror(code)):
            storage.sync()
    assert len(calls) == 1
    storage.close()


# --- the simulated disk
# -------------------------------------------------------------------------------------------------


def written(disk: SimulatedDisk) -> None:
    file = disk.create("file")
    file.write(0, b"old" * 2000)
    file.sync()
    disk.sync()
    file.write(0, b"new" * 2000)


def test_what_was_synced_survives_and_the_rest_is_torn() -> None:
    """Each sector is old or new, all mixtures occur, and nothing else does."""
    outcomes = set()
    for seed in range(300):
        disk = SimulatedDisk(random.Random(seed))
        written(disk)
        disk.crash()
        data = disk.contents("file")
        assert len(data) == 6000
        kinds = []
        for at in range(0, 6000, SECTOR):
            sector = data[at : at + SECTOR]
            versions = {(word * 2000)[at : at + SECTOR]: word for word in (b"old", b"new")}
            kinds.append(versions[sector])
        outcomes.add(tuple(kinds))
    assert len(outcomes) > 100
    assert (b"old",) * 12 in outcomes
    assert (b"new",) * 12 in outcomes


def test_names_survive_only_after_the_directory_was_synced() -> None:
    """A rename happened or it did not; a file that was never in a synced directory may be gone with all it held."""
    outcomes = set()
    for seed in range(60):
        disk = SimulatedDisk(random.Random(seed))
        written(disk)
        disk.open("file").sync()
        other = disk.create("other")
        other.write(0, b"other")
        other.sync()
        disk.rename("other", "file")
        disk.crash()
        outcomes.add(tuple((name, disk.contents(name)[:3]) for name in disk.names()))
    assert outcomes == {
        (("file", b"new"),),
        (("file", b"new"), ("other", b"oth")),
        (("file", b"oth"),),
    }


def test_a_kill_loses_nothing_and_a_dead_process_touches_nothing() -> None:
    disk = SimulatedDisk(random.Random(0))
    written(disk)
    file = disk.open("file")
    disk.kill()
    assert disk.contents("file") == b"new" * 2000
    with pytest.raises(AssertionError):
        file.write(0, b"x")


def test_the_power_goes_once_and_stays_off() -> None:
    disk = SimulatedDisk(random.Random(0))
    file = disk.create("file")
    disk.cut_power_after = 1
    file.write(0, b"a")
    with pytest.raises(PowerCut):
        file.sync()
    with pytest.raises(PowerCut):
        disk.sync()
    disk.crash()
    disk.sync()


def test_one_seed_one_outcome() -> None:
    """All luck is drawn from the generator handed in."""
    contents = []
    for _ in range(2):
        disk = SimulatedDisk(random.Random(77))
        written(disk)
        disk.crash()
        contents.append(disk.contents("file"))
    assert contents[0] == contents[1]
