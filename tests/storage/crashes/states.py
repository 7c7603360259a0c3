# SPDX-License-Identifier: Apache-2.0
"""Which crash states are tried at one moment of a run, and in which order. What each leaves is afloat.py's business.

Lawful states keep each sector whole, which is what storage asks of a disk: all subsets of the operations while there
are few, else those that lose or keep up to two, all that lose a suffix, and a drawn sample; then, write by write, every
subset of its sectors (up to eight; else every cut, every hole, and a sample). Torn states break the law: a sector cut
at a byte, or filled with something else. Of them storage need only say that there is damage, never lose in silence.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.storage.crashes.afloat import Afloat, Atom, Damage
from tests.storage.crashes.recorder import Files

__all__ = ["FEW", "THOROUGH", "CrashState", "Limits", "lawful", "listing", "torn"]


class Limits(NamedTuple):
    """Up to so many operations afloat, and sectors of one write, every subset is tried; else so many are drawn."""

    operations: int
    sectors: int
    sample: int


THOROUGH: Final = Limits(8, 8, 48)
FEW: Final = Limits(3, 3, 3)
"""While mending: most of what can happen there can happen to each of very many states."""

FILLS: Final = ("garbage", "ones", "zeros", "garbage in its second half", "garbage in its first half")


class CrashState(NamedTuple):
    """What is found when the machine comes back: `masks` of what was afloat survived. `damage` only where it is
    torn.
    """

    masks: tuple[int, ...]
    damage: Damage | None
    files: Files


def lawful(afloat: Afloat, luck: random.Random, limits: Limits | None = None) -> Iterator[CrashState]:
    """Each set of survivors once. Those of whole operations come first, since most mistakes show there."""
    atoms, limits = afloat.atoms, limits or THOROUGH
    seen: set[tuple[int, ...]] = set()
    parts = _of_operations(atoms, luck, limits), _of_sectors(atoms, luck, limits), _mixed(atoms, luck, limits)
    for masks in itertools.chain(*parts):
        if masks not in seen:
            seen.add(masks)
            yield CrashState(masks, None, afloat.after(masks))


def torn(
    afloat: Afloat, luck: random.Random, cuts_share: float, fills_share: float
) -> Iterator[tuple[int, CrashState]]:
    """Each write that is afloat, torn inside each of its sectors: cut at a byte, or filled with something else.

    Of the cuts and of the fills about these shares. With each comes its number among all, whatever the shares are.
    """
    atoms = afloat.atoms
    first = 0
    thinning = random.Random(luck.random())
    for position, atom in enumerate(atoms):
        if atom.op.kind != "write":
            continue
        for piece, (start, end) in enumerate(atom.pieces):
            written = atom.op.data[start - atom.op.offset : end - atom.op.offset]
            before = afloat.contents.get(atom.op.inode, b"")[start:end].ljust(end - start, b"\0")
            contexts = list(_contexts(atoms, position, piece))
            fills, cuts = len(FILLS), 2 * (end - start - 1)
            tears = [
                *_few(thinning, range(fills), fills_share),
                *_few(thinning, range(fills, fills + cuts), cuts_share),
            ]
            for number in tears:
                data, what = _tear(number, written, before)
                if data in (written, before):
                    continue
                damage = Damage(position, piece, data, what)
                for context, masks in enumerate(contexts):
                    name = first + number * len(contexts) + context
                    yield name, CrashState(masks, damage, afloat.after(masks, damage))
            first += (fills + cuts) * len(contexts)


def listing(afloat: Afloat, state: CrashState) -> list[str]:
    """What was afloat, and what the power cut left of it, one line each."""
    lines = []
    for position, (atom, mask) in enumerate(zip(afloat.atoms, state.masks, strict=True)):
        if mask == 0:
            left = "lost"
        elif mask == atom.all:
            left = "kept"
        elif mask == atom.size_only:
            left = "only the size kept"
        else:
            left = "kept of its sectors: " + ", ".join(str(n) for n in range(len(atom.pieces)) if mask >> n & 1)
        if state.damage is not None and state.damage.atom == position:
            left += f"; sector {state.damage.piece} {state.damage.what}"
        lines.append(f"{atom.index:5}  {atom.op!s:52} {left}")
    return lines


# --- of whole sectors -------------------------------------------------------------------------------------------------


def _of_operations(atoms: list[Atom], luck: random.Random, limits: Limits) -> Iterator[tuple[int, ...]]:
    whole = tuple(atom.all for atom in atoms)
    nothing = (0,) * len(atoms)
    yield whole
    yield nothing
    for cut in range(len(atoms)):
        yield whole[:cut] + nothing[cut:]
    if len(atoms) <= limits.operations:
        for chosen in itertools.product((True, False), repeat=len(atoms)):
            yield tuple(mask if keep else 0 for mask, keep in zip(whole, chosen, strict=True))
        return
    for few in (1, 2) if limits is THOROUGH else (1,):
        for chosen in itertools.combinations(range(len(atoms)), few):
            yield tuple(0 if position in chosen else mask for position, mask in enumerate(whole))
            yield tuple(mask if position in chosen else 0 for position, mask in enumerate(whole))
    for _ in range(limits.sample):
        yield tuple(mask if luck.random() < 0.5 else 0 for mask in whole)


def _of_sectors(atoms: list[Atom], luck: random.Random, limits: Limits) -> Iterator[tuple[int, ...]]:
    """One write in parts; of the other operations all, those before it, those after it, or none."""
    whole = tuple(atom.all for atom in atoms)
    nothing = (0,) * len(atoms)
    for position, atom in enumerate(atoms):
        if atom.op.kind != "write":
            continue
        others = {
            (before, after)
            for before in (whole[:position], nothing[:position])
            for after in (whole[position + 1 :], nothing[position + 1 :])
        }
        for before, after in sorted(others, reverse=True):
            for mask in _masks(atom, luck, limits):
                yield (*before, mask, *after)


def _masks(atom: Atom, luck: random.Random, limits: Limits) -> Iterator[int]:
    count = len(atom.pieces)
    yield atom.size_only
    if count <= limits.sectors:
        yield from range(1, atom.all)
        return
    for cut in range(1, count):
        yield (1 << cut) - 1
        yield atom.all & ~((1 << cut) - 1)
    for hole in range(count):
        yield atom.all & ~(1 << hole)
        yield 1 << hole
    for _ in range(limits.sample):
        yield luck.getrandbits(count)


def _mixed(atoms: list[Atom], luck: random.Random, limits: Limits) -> Iterator[tuple[int, ...]]:
    """Several writes in parts at a time."""
    if sum(atom.op.kind == "write" for atom in atoms) > 1:
        for _ in range(limits.sample):
            yield tuple(luck.choice((0, atom.all, luck.randint(0, atom.all), atom.size_only)) for atom in atoms)


# --- inside sectors ---------------------------------------------------------------------------------------------------


def _few(luck: random.Random, numbers: range, share: float) -> list[int]:
    return sorted(luck.sample(numbers, min(len(numbers), int(len(numbers) * share + luck.random()))))


def _tear(number: int, written: bytes, before: bytes) -> tuple[bytes, str]:
    length = len(written)
    garbage = random.Random(length).randbytes(length)
    if number >= len(FILLS):
        cut, backwards = divmod(number - len(FILLS), 2)
        cut += 1
        if backwards:
            return before[:cut] + written[cut:], f"was written from byte {cut} on"
        return written[:cut] + before[cut:], f"was written up to byte {cut}"
    match FILLS[number]:
        case "garbage":
            data = garbage
        case "ones":
            data = b"\xff" * length
        case "zeros":
            # Over something else these cannot be told from a sector that was never reached: see rot.py.
            data = before if before.strip(b"\0") else bytes(length)
        case "garbage in its second half":
            data = written[: length // 2] + garbage[length // 2 :]
        case _:
            data = garbage[: length // 2] + written[length // 2 :]
    return data, f"holds {FILLS[number]}"


def _contexts(atoms: list[Atom], position: int, piece: int) -> Iterator[tuple[int, ...]]:
    """All else survived; or nothing that came after this sector."""
    whole = tuple(atom.all for atom in atoms)
    yield whole
    earlier = (1 << (piece + 1)) - 1
    if earlier != atoms[position].all:
        yield (*whole[:position], earlier, *whole[position + 1 :])
    if position + 1 < len(atoms):
        yield (*whole[:position], earlier, *(0 for _ in whole[position + 1 :]))
