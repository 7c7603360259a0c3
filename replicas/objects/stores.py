# SPDX-License-Identifier: Apache-2.0
"""The three orders in which a queue keeps its entries. Nothing here knows of callers.

An entry is (priority, serial, item); the serial grows with every put, so equal priorities are first come, first served,
and an entry that comes back stands where it stood.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, Protocol, TypeAlias

__all__ = ["Entry", "Fifo", "Lifo", "Sorted", "Store"]

Entry: TypeAlias = tuple[Any, int, bytes]

BLOCK_MAX: Final = 1024
"""The longest block of `Sorted`: inserting moves at most this many pointers, and a million entries are 2000 blocks."""


class Store(Protocol):
    """What a queue needs of its order. `append` may raise TypeError, and then has changed nothing."""

    def __len__(self) -> int: ...
    def append(self, entry: Entry) -> None: ...
    def pop(self) -> Entry: ...
    def put_back(self, entries: list[Entry]) -> None: ...
    def dump_rows(self) -> Iterable[Any]: ...
    def load_row(self, row: Any) -> None: ...


class Fifo:
    """First in, first out."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, entry: Entry) -> None:
        self._entries.append(entry)

    def pop(self) -> Entry:
        return self._entries.popleft()

    def put_back(self, entries: list[Entry]) -> None:
        """To the head, the first of them first."""
        self._entries.extendleft(reversed(entries))

    def dump_rows(self) -> Iterable[Any]:
        return list(self._entries)

    def load_row(self, row: Any) -> None:
        self._entries.append(row)


class Lifo:
    """Last in, first out. Its head is its top."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, entry: Entry) -> None:
        self._entries.append(entry)

    def pop(self) -> Entry:
        return self._entries.pop()

    def put_back(self, entries: list[Entry]) -> None:
        """To the top, the first of them topmost."""
        self._entries.extend(reversed(entries))

    def dump_rows(self) -> Iterable[Any]:
        return list(self._entries)

    def load_row(self, row: Any) -> None:
        self._entries.append(row)


class Sorted:
    """The smallest first, by Python's own `<` on priorities.

    Not a heap: a heap may meet two priorities that cannot be compared while it *pops*, and then an innocent getter gets
    the error. Here every comparison is made when an entry comes; popping makes none. Kept in sorted blocks.
    """

    def __init__(self) -> None:
        # Invariants: no block is empty, each is ascending, and so is their concatenation. The block boundaries decide
        # which comparisons an insertion makes, so they are part of the state.
        self._blocks: deque[list[Entry]] = deque()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, entry: Entry) -> None:
        if not self._blocks:
            self._blocks.append([entry])
            self._length += 1
            return
        index = bisect_left(self._blocks, entry, key=_last)
        block = self._blocks[min(index, len(self._blocks) - 1)]
        insort(block, entry)
        self._length += 1
        if len(block) > BLOCK_MAX:
            half = len(block) // 2
            self._blocks.insert(min(index, len(self._blocks) - 1) + 1, block[half:])
            del block[half:]

    def pop(self) -> Entry:
        block = self._blocks[0]
        entry = block.pop(0)
        self._length -= 1
        if not block:
            self._blocks.popleft()
        return entry

    def put_back(self, entries: list[Entry]) -> None:
        """Each to where it stood. What was put meanwhile may not compare with it: such an entry goes to the head."""
        for entry in reversed(entries):
            try:
                self.append(entry)
            except TypeError:
                self._blocks.appendleft([entry])
                self._length += 1

    def dump_rows(self) -> Iterable[Any]:
        """Each entry, and whether it begins a block."""
        blocks = [block[:] for block in self._blocks]
        return ((entry, position == 0) for block in blocks for position, entry in enumerate(block))

    def load_row(self, row: Any) -> None:
        entry, begins = row
        if begins:
            self._blocks.append([])
        self._blocks[-1].append(entry)
        self._length += 1


def _last(block: list[Entry]) -> Entry:
    return block[-1]
