# SPDX-License-Identifier: Apache-2.0
"""What is done with a data directory while no replica runs in it: examining it, or making a new group of its contents.

`check` reads all that a start would read, and says what it found. `recover_unsafe` is for the day when a majority of
the members is lost for good: it leaves the directory as it is, and writes another, for a new group of one.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from dthreading.errors import ProtocolError
from replicas.daemon.address import Address
from replicas.daemon.exits import ExitCode
from replicas.daemon.snapshotting import restored
from replicas.machine.core import Machine
from replicas.paxos.types import NO_BALLOT, Configuration, Durable, Entry, EntryKind, Member
from replicas.paxos.values import decode_configuration, encode_configuration
from replicas.replica.acquaintance import descendant
from replicas.replica.admission import Admission
from replicas.replica.marks import Mark
from replicas.storage import SnapshotHeader, Storage, StorageFailed, StorageLocked, StorageRefused
from replicas.storage.disk import LOCK_NAME, Directory
from replicas.storage.identity import IDENTITY_NAME

__all__ = ["Unusable", "answers", "check", "recover_unsafe"]

FENCE_LEAP: Final = 1_000_000_000_000
"""How far recovery moves the fences on: more than the lost members can have given out in a hundred years."""

ANSWER_S: Final = 1.0
"""How long a member may take to be there, before a new group is made without it."""

PART_BYTES: Final = 1024 * 1024
"""So much of the new snapshot is made at once."""


class Unusable(Exception):
    """Nothing can be done with this directory; the text is one sentence, `code` the exit code."""

    def __init__(self, code: ExitCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class _Contents(NamedTuple):
    """A directory as it was read."""

    replica: int
    genesis: Configuration
    incarnation: bytes
    durable: Durable
    snapshot: SnapshotHeader | None
    machine: Machine
    configuration: Configuration
    mark: Mark | None


def check(path: Path, say: Callable[[str], object]) -> None:
    """Examines a directory and says what is in it.

    Raises:
        Unusable: it is damaged, in use, or no replica's; the text says which.

    """
    storage = _open(path)
    try:
        found = _read(path, storage, everything=False)
    finally:
        storage.close()
    durable, machine = found.durable, found.machine
    members = ", ".join(f"{member.id} at {member.address}" for member in found.configuration.members)
    say(f"{path} is that of replica {found.replica} of the group {found.genesis.cluster}")
    say(f"members, as far as it knows: {members} (epoch {found.configuration.epoch})")
    if found.snapshot is None:
        say("snapshot: none")
    else:
        say(f"snapshot: of slot {found.snapshot.slot}, {found.snapshot.size} bytes, read and right")
    last = durable.entries[-1].slot if durable.entries else durable.snapshot_slot
    say(
        f"log: slots {durable.snapshot_slot + 1} to {last}, of which those up to {durable.chosen} are known to be"
        " chosen"
    )
    if durable.doubtful:
        slots = ", ".join(map(str, sorted(durable.doubtful)))
        say(f"written, but not readable any more, and to be learned again from the others: slots {slots}")
    say(
        f"state at slot {machine.applied}: {len(machine.sessions)} sessions, {len(machine.registry.objects)} objects,"
        f" last fence {machine.fence}, digest {machine.digest.hex()}"
    )
    broken = [f"{known.kind} {known.name}" for known in machine.registry.objects.values() if known.fault is not None]
    if broken:
        say(f"quarantined objects: {', '.join(broken)}")
    if found.mark is not None:
        raise Unusable(ExitCode.DIVERGED, f"{path} must not be used any more: {found.mark.sentence}")
    say("no damage was found")


def recover_unsafe(
    path: Path,
    new: Path,
    address: str,
    *,
    sure: Callable[[str], bool],
    say: Callable[[str], object],
    answers: Callable[[str], bool],
) -> None:
    """Writes what this directory holds into a new one, as a new group whose only member it is.

    Args:
        path: the survivor's directory; it is only read.
        new: where the new one is made; must be empty or not there.
        address: where the new replica will listen.
        sure: asked with a question whether to go on.
        say: tells what may be lost, and what to do next.
        answers: whether anybody listens at an address.

    Raises:
        Unusable: as `check`; or it was not confirmed.

    """
    _check_new(new)
    storage = _open(path)
    try:
        found = _read(path, storage, everything=True)
    finally:
        storage.close()
    machine, durable = found.machine, found.durable
    cluster = found.genesis.cluster
    others = [
        f"{member.id} at {member.address}" for member in found.configuration.members if member.id != found.replica
    ]
    _check_lost(found, answers)
    say(f"{path} is that of replica {found.replica} of the group {cluster}")
    say(f"its other members: {', '.join(others) or 'none'}")
    if found.mark is not None:
        say(f"DO NOT TRUST IT if there is any other survivor: {found.mark.sentence}")
    say(f"kept: everything up to slot {durable.chosen}, which is known to be decided")
    if machine.applied > durable.chosen:
        say(
            f"kept as well: slots {durable.chosen + 1} to {machine.applied}, which were accepted here and perhaps never"
            " decided: a call that its caller never saw answered may have happened"
        )
    say(
        f"lost: whatever the other members decided after slot {machine.applied}. Locks that were granted then may be"
        " granted again, and items that were taken then may be taken again; nobody can say how many"
    )
    say(f"fences go on above {machine.fence + FENCE_LEAP}, so what checks them is safe from former holders")
    if not sure(f"If any {len(found.configuration.members) // 2 + 1} members can still be started, do that instead"):
        raise Unusable(ExitCode.REFUSED, "nothing was done")
    _write(found, new, address)
    say(f"{new} holds a new group of one, and {path} is as it was. Start it:")
    say(f"  dthreading-server --listen {address} --data-dir {new}")
    say("Then let newcomers on empty data directories join it, and start the programs that use it again: members and")
    say("clients of the old group are refused.")


def answers(address: str) -> bool:
    """Whether anybody listens there."""
    there = Address.parse(address)
    family = socket.AF_UNIX if there.path else socket.AF_INET6 if ":" in there.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_S)
        return connection.connect_ex(there.path or (there.host, there.port)) == 0


def _check_lost(found: _Contents, answers: Callable[[str], bool]) -> None:
    """Refuses while a majority can be had: two groups would go on, each with clients and holders of its own."""
    members = found.configuration.members
    there = [member for member in members if member.id != found.replica and answers(member.address)]
    own = [member for member in members if member.id == found.replica and found.mark is None]
    if there and len(there) + len(own) > len(members) // 2:
        who = " and ".join(f"replica {member.id} at {member.address}" for member in there)
        start = (
            ", so start this one as before and nothing is lost" if own else ", so the group goes on without this one"
        )
        raise Unusable(
            ExitCode.REFUSED,
            f"nothing was done: {who} can be reached{' and with this one' if own else ''} they are a majority of the"
            f" {len(members)} members{start}; if it is something else that answers there, stop that first",
        )


def _check_new(new: Path) -> None:
    """Refuses before anybody has decided to give a group up for it, and once more before it is written."""
    try:
        full = bool(os.listdir(new))  # noqa: PTH208 - whether there are any is the question
    except (FileNotFoundError, NotADirectoryError) as error:
        full = isinstance(error, NotADirectoryError)
    if full:
        raise Unusable(ExitCode.REFUSED, f"{new} is not empty: name a directory that is, for the new group")


def _open(path: Path) -> Storage:
    try:
        names = os.listdir(path)  # noqa: PTH208 - names are wanted, not paths
    except (FileNotFoundError, NotADirectoryError):
        raise Unusable(ExitCode.REFUSED, f"{path} is not a directory") from None
    if IDENTITY_NAME not in names and LOCK_NAME not in names:
        # To open it would be to lock it, and so to leave a lock in a directory that was only to be looked at.
        raise Unusable(ExitCode.REFUSED, f"{path} is no replica's data directory: it has no identity file")
    try:
        return Storage.open(Directory(path))
    except StorageLocked as error:
        raise Unusable(ExitCode.TAKEN, f"{error} Stop that replica first.") from None
    except StorageRefused as error:
        raise Unusable(ExitCode.REFUSED, str(error)) from None
    except StorageFailed as error:
        raise Unusable(ExitCode.DISK_FAILED, str(error)) from None


def _read(path: Path, storage: Storage, *, everything: bool) -> _Contents:
    identity, durable = storage.identity, storage.recovered.durable
    if storage.recovered.rot is not None:
        raise Unusable(ExitCode.DATA_GONE, storage.recovered.rot)
    if identity is None or identity.formation is None:
        raise Unusable(ExitCode.REFUSED, f"{path} is empty, or its replica was never in a group")
    mark = Mark.decode(identity.formation)
    formation = identity.formation if mark is None else mark.formation
    admission = Admission.decode(formation)
    if admission is None:
        genesis = decode_configuration(formation[1:])
        replica = next(member.id for member in genesis.members if member.incarnation == identity.incarnation)
        admission = Admission(replica, genesis, ())
    try:
        machine = restored(storage) if storage.snapshot is not None else Machine(admission.genesis)
    except ProtocolError as error:
        raise Unusable(ExitCode.DATA_GONE, f"the snapshot in {path} cannot be loaded: {error}") from None
    if storage.snapshot is not None and machine.digest != storage.snapshot.digest:
        raise Unusable(ExitCode.DATA_GONE, f"the snapshot in {path} holds another state than its header says")
    configuration = durable.configuration or admission.genesis
    doubtful = min(durable.doubtful, default=None)
    for entry in durable.entries:
        if (entry.slot > durable.chosen and not everything) or entry.slot == doubtful:
            break
        machine.apply(entry)
        if entry.kind == EntryKind.CONFIGURATION:
            changed = decode_configuration(entry.value)
            configuration = changed if changed.epoch == configuration.epoch + 1 else configuration
    known = (admission.replica, admission.genesis, identity.incarnation)
    return _Contents(*known, durable, storage.snapshot, machine, configuration, mark)


def _write(found: _Contents, new: Path, address: str) -> None:
    """The new directory. Nothing of it is used before its identity says what it is, which is written last."""
    _check_new(new)
    machine = found.machine
    incarnation = os.urandom(16)
    replica = machine.roster.top + 1
    configuration = Configuration(
        descendant(found.configuration.cluster, secrets.token_hex(8)),
        found.configuration.epoch + 1,
        (Member(replica, address, incarnation),),
        machine.settings_above(machine.fence + FENCE_LEAP),
    )
    value = encode_configuration(configuration)
    machine.apply(Entry(machine.applied + 1, NO_BALLOT, int(EntryKind.CONFIGURATION), value))
    for newcomer in list(machine.roster.newcomers):
        machine.roster.dismiss(newcomer)
    header = SnapshotHeader(machine.applied, configuration, 0, machine.digest, found.durable.promised)
    try:
        storage = Storage.open(Directory(new))
        try:
            storage.format(incarnation)
            writer = storage.begin_snapshot(header)
            contents = machine.snapshot()
            while part := contents.step(PART_BYTES):
                writer.write(part)
            writer.finish()
            storage.form(Admission(replica, configuration, ()).encode())
        finally:
            storage.close()
    except StorageRefused as error:
        raise Unusable(ExitCode.REFUSED, str(error)) from None
    except StorageFailed as error:
        raise Unusable(ExitCode.DISK_FAILED, str(error)) from None
