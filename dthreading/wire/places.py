# SPDX-License-Identifier: Apache-2.0
"""The name under which every process knows a module: names of primitives, and sentinels in queues, rest on it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["find_module", "module_name", "readable"]


def readable(text: str) -> str:
    """`text` as it may travel: a file's name may hold bytes that are no UTF-8, which stand in it as lone surrogates."""
    return text.encode(errors="backslashreplace").decode()


def module_name(namespace: dict[str, Any]) -> str | None:
    """The name by which every process knows the module with these globals, or None where there is none.

    `__main__`, and `__mp_main__` (the same text in a child made by spawn), is the module or script that was started.
    """
    name = namespace.get("__name__")
    if not isinstance(name, str):
        return None
    if name not in {"__main__", "__mp_main__"}:
        return name
    spec_name = getattr(namespace.get("__spec__"), "name", None)
    if isinstance(spec_name, str) and spec_name not in {"__main__", "__mp_main__"}:
        return spec_name
    return _script_stem(namespace.get("__file__")) or "__main__"


def find_module(name: str) -> ModuleType | None:
    """The loaded module that `module_name` calls `name`."""
    for candidate in (sys.modules.get("__main__"), sys.modules.get("__mp_main__"), sys.modules.get(name)):
        if candidate is not None and module_name(vars(candidate)) == name:
            return candidate
    return None


def _script_stem(path: object) -> str | None:
    if not isinstance(path, str) or path.startswith("<"):
        return None  # "<stdin>": a program that is typed or piped in
    folder, file = os.path.split(path)
    stem = os.path.splitext(file)[0]  # noqa: PTH122 - pathlib costs more to import than all of this module
    if stem == "__main__":
        # `python folder` and `python program.pyz` run a `__main__.py`: the folder or archive is what has a name.
        stem = os.path.splitext(os.path.basename(folder))[0]  # noqa: PTH119, PTH122
    return readable(stem) or None
