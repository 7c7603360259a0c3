# SPDX-License-Identifier: Apache-2.0
"""The import hook: in the modules of chosen packages, what `import threading` and `import queue` bind is ours.

The source of such a module is parsed as usual, and only its import statements are rewritten before it is compiled:

    import threading             ->  import dthreading as threading
    import queue as q            ->  import dthreading.queue as q
    from threading import Lock   ->  from dthreading import Lock

Nothing in `sys.modules` changes, so everybody else, the standard library and the tests above all, keeps the real ones.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

__all__ = ["SwappingFinder", "install", "swapped"]

SWAPS = {"threading": "dthreading", "queue": "dthreading.queue"}


class Swap(ast.NodeTransformer):
    """Rewrites the imports of one module; `count` says how many."""

    def __init__(self) -> None:
        self.count = 0

    def visit_Import(self, node: ast.Import) -> ast.Import:
        for alias in node.names:
            if alias.name in SWAPS:
                alias.asname = alias.asname or alias.name
                alias.name = SWAPS[alias.name]
                self.count += 1
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        if node.level == 0 and node.module in SWAPS:
            node.module = SWAPS[node.module]
            self.count += 1
        return node


class SwappingLoader(importlib.machinery.SourceFileLoader):
    """Loads a module from its source, always: a cached compilation would be of the unswapped one."""

    def get_code(self, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> CodeType:
        swap = Swap()
        tree = swap.visit(ast.parse(data, str(path)))
        if swap.count:
            swapped.append(f"{self.name}: {swap.count}")
        code: CodeType = compile(
            ast.fix_missing_locations(tree), str(path), "exec", dont_inherit=True, optimize=_optimize
        )
        return code


swapped: list[str] = []
"""Each module in which something was swapped, with the number of imports: an empty list means nothing was tested."""


class SwappingFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of `packages` as usual, and has them loaded by `SwappingLoader`."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = tuple(packages)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not any(fullname == package or fullname.startswith(f"{package}.") for package in self.packages):
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is None:
                continue
            if isinstance(spec.loader, importlib.machinery.SourceFileLoader):
                spec.loader = SwappingLoader(spec.loader.name, spec.loader.path)
            return spec
        return None


def install(packages: Sequence[str]) -> None:
    """From now on, modules of these packages are swapped when they are imported for the first time."""
    early = [
        name for name in sys.modules if any(name == package or name.startswith(f"{package}.") for package in packages)
    ]
    if early:
        raise RuntimeError(f"imported before it could be swapped: {', '.join(sorted(early))}")
    sys.meta_path.insert(0, SwappingFinder(packages))
