# SPDX-License-Identifier: Apache-2.0
"""Plants a bug in this process: the modules that it changes are compiled from changed source as they are imported.

Nothing is written, so any number of bugs run side by side on one tree, while somebody edits it.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import CodeType, ModuleType
from typing import Final

from tests.mutants.catalogue import ROOT, Bug, module_of

PLANTED: Final = " with the bug "
"""In the file names of changed modules, for tracebacks; before it stands the file that was changed."""


class Planter(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and loads the changed modules of one bug, before anybody else is asked for them."""

    def __init__(self, bug: Bug) -> None:
        self._code: dict[str, CodeType] = {}
        self._files: dict[str, str] = {}
        self.unplanted: set[str] = set()
        """Modules that the bug changes and nobody has imported yet."""
        for file, source in bug.sources().items():
            module = module_of(file)
            assert module not in sys.modules, f"{module} is imported already, without its bug"
            self._files[module] = str(ROOT / file)
            self._code[module] = compile(source, f"{ROOT / file}{PLANTED}{bug.name}", "exec")
            self.unplanted.add(module)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._code:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=self._files[fullname])

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = self._files[module.__name__]
        exec(self._code[module.__name__], module.__dict__)
        self.unplanted.discard(module.__name__)


def plant(bug: Bug) -> Planter:
    """From now on the product has this bug, in this process."""
    planter = Planter(bug)
    sys.meta_path.insert(0, planter)
    return planter
