# SPDX-License-Identifier: Apache-2.0
"""What a power cut may leave of operations that no sync covers: the rules of the crash, and nothing of which are tried.

After ALICE ("All File Systems Are Not Created Equal", Pillai and others, 2014): each change of a name and each sector
of each write that is still afloat reaches the disk or does not, independently of all others. A write that makes its
file grow may leave the size without the data. A sync that failed covers nothing, and neither does any later one: the
system has forgotten what it could not write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from replicas.storage.files import SECTOR
from tests.storage.crashes.recorder import CHANGES, Files, Op

__all__ = ["Afloat", "Atom", "Damage"]


class Atom(NamedTuple):
    """One operation that no sync covers yet. What survives of it is a mask of its `pieces`: sectors, or just 1.

    The bit above them, for a write, means the size that it gave its file.
    """

    index: int
    op: Op
    pieces: tuple[tuple[int, int], ...]
    """Where each begins and ends in the file; one that means nothing where the operation is no write."""
    stuck: bool = False
    """Its sync failed, so no later one covers it."""

    @property
    def all(self) -> int:
        return (1 << len(self.pieces)) - 1

    @property
    def size_only(self) -> int:
        return 1 << len(self.pieces)


class Damage(NamedTuple):
    """Other bytes than were written, in one piece of one atom: what a disk leaves that does not keep its sectors
    whole.
    """

    atom: int
    piece: int
    data: bytes
    what: str


class Afloat:
    """What is durable after so many operations, and what is not. `base` is what was durable before the first."""

    def __init__(self, base: Mapping[str, bytes]) -> None:
        # Numbered as the recorder does it.
        self.names = {name: number for number, name in enumerate(sorted(base), 1)}
        self.contents = {number: base[name] for name, number in self.names.items()}
        self.atoms: list[Atom] = []

    def apply(self, index: int, op: Op) -> None:
        """The next operation has been asked for, and answered unless it is the last."""
        if op.kind in CHANGES:
            pieces = _pieces(op.offset, len(op.data)) if op.kind == "write" else ((0, 0),)
            self.atoms.append(Atom(index, op, pieces))
        elif op.failed:
            self.atoms = [atom._replace(stuck=atom.stuck or _covers(op, atom.op)) for atom in self.atoms]
        elif op.kind == "sync range":
            self._sync_range(op)
        else:
            covered = [atom for atom in self.atoms if _covers(op, atom.op) and not atom.stuck]
            rest = [atom for atom in self.atoms if atom not in covered]
            self.names, self.contents = self._fold(covered, [atom.all for atom in covered], None)
            self.atoms = rest

    def after(self, masks: tuple[int, ...], damage: Damage | None = None) -> Files:
        """The directory if exactly this survives of what is afloat."""
        names, contents = self._fold(self.atoms, masks, damage)
        return {name: contents.get(number, b"") for name, number in names.items()}

    def _fold(
        self, atoms: list[Atom], masks: tuple[int, ...] | list[int], damage: Damage | None
    ) -> tuple[dict[str, int], dict[int, bytes]]:
        names, contents = dict(self.names), dict(self.contents)
        changed: dict[int, bytearray] = {}
        for position, (atom, mask) in enumerate(zip(atoms, masks, strict=True)):
            if not mask:
                continue
            op = atom.op
            match op.kind:
                case "create":
                    names[op.name] = op.inode
                case "remove":
                    names.pop(op.name, None)
                case "rename":
                    if names.get(op.name) == op.inode:  # else what it would rename was never there
                        del names[op.name]
                        names[op.new] = op.inode
                case _:
                    data = changed.get(op.inode)
                    if data is None:
                        data = changed[op.inode] = bytearray(contents.get(op.inode, b""))
                    _put(data, atom, mask, damage if damage is not None and damage.atom == position else None)
        for number, data in changed.items():
            contents[number] = bytes(data)
        return names, contents

    def _sync_range(self, op: Op) -> None:
        """That range is durable, whoever wrote it; of older writes only what lies beside it is still afloat."""
        durable = bytearray(self.contents.get(op.inode, b""))
        durable.extend(bytes(max(0, op.offset - len(durable))))
        durable[op.offset : op.offset + len(op.data)] = op.data
        self.contents[op.inode] = bytes(durable)
        rest = []
        for atom in self.atoms:
            if atom.op.kind == "write" and atom.op.inode == op.inode:
                start, end = op.offset, op.offset + len(op.data)
                pieces = tuple(piece for piece in atom.pieces if piece[1] <= start or piece[0] >= end)
                if pieces:
                    rest.append(atom._replace(pieces=pieces))
            else:
                rest.append(atom)
        self.atoms = rest


def _covers(sync: Op, op: Op) -> bool:
    if sync.kind == "sync names":
        return op.kind in ("create", "rename", "remove")
    return op.kind in ("write", "truncate") and op.inode == sync.inode


def _pieces(offset: int, length: int) -> tuple[tuple[int, int], ...]:
    end = offset + length
    first = offset // SECTOR * SECTOR
    return tuple((max(at, offset), min(at + SECTOR, end)) for at in range(first, end, SECTOR))


def _put(data: bytearray, atom: Atom, mask: int, damage: Damage | None) -> None:
    op = atom.op
    if op.kind == "truncate":
        data.clear()
        return
    for number, (start, end) in enumerate(atom.pieces):
        if mask >> number & 1:
            if start > len(data):
                data.extend(bytes(start - len(data)))
            hurt = damage is not None and damage.piece == number
            data[start:end] = (
                damage.data if hurt and damage is not None else op.data[start - op.offset : end - op.offset]
            )
    if mask & atom.size_only:
        data.extend(bytes(max(0, op.offset + len(op.data) - len(data))))
