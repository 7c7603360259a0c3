# SPDX-License-Identifier: Apache-2.0
"""Copies of the storage package with small slices, and, where a planted bug is wanted, with some of its text changed.

The copies are what the crash search runs: the very source of `replicas.storage`, except that a slice of zeroing or of a
snapshot is a few sectors instead of a megabyte, so that each is many operations. A text that is to be changed and is
not there any more is an error, so nothing planted can silently become nothing.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

import replicas.storage

__all__ = ["SEGMENT_BYTES", "Edit", "load"]

SEGMENT_BYTES: Final = 8 * 512
"""The smallest that storage takes: a short run goes through many segments."""


class Edit(NamedTuple):
    """In this file, this text instead of that."""

    file: str
    old: str
    new: str


SMALL: Final = (
    Edit("segments.py", "ZEROING_SLICE_BYTES: Final = 256 * 1024", "ZEROING_SLICE_BYTES: Final = 5 * SECTOR"),
    Edit("snapshots.py", "SYNC_SLICE_BYTES: Final = 1024 * 1024", "SYNC_SLICE_BYTES: Final = 700"),
)

_HOME: Final = Path(replicas.storage.__file__).parent


class _Finder:
    """Finds the modules of one copy."""

    def __init__(self, package: str, edits: Iterable[Edit]) -> None:
        self._package = package
        self._texts = {path.stem: path.read_text(encoding="utf-8") for path in _HOME.glob("*.py")}
        for file, old, new in edits:
            stem = file.removesuffix(".py")
            assert self._texts[stem].count(old) == 1, f"{file} holds {self._texts[stem].count(old)} times: {old}"
            self._texts[stem] = self._texts[stem].replace(old, new)

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        package, _, stem = name.partition(".")
        stem = stem or "__init__"
        if package != self._package or stem not in self._texts:
            return None
        return importlib.util.spec_from_loader(name, self, is_package=stem == "__init__")  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        stem = module.__name__.partition(".")[2] or "__init__"
        text = self._texts[stem].replace("replicas.storage", self._package)
        exec(compile(text, f"{self._package}/{stem}.py", "exec"), module.__dict__)


def load(name: str, edits: Iterable[Edit] = ()) -> ModuleType:
    """A copy of the package, under a name of its own."""
    package = f"storage_copy_{name}"
    if package in sys.modules:
        return sys.modules[package]
    finder = _Finder(package, (*SMALL, *edits))
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    try:
        return importlib.import_module(package)
    finally:
        sys.meta_path.remove(finder)  # type: ignore[arg-type]
