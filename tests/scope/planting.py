# SPDX-License-Identifier: Apache-2.0
"""Bugs on purpose: one clause of the shipping code replaced in memory, to see that a search finds what it breaks."""

from __future__ import annotations
import __future__

import contextlib
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Bug:
    """What is planted where, and what a search for it must look like."""

    name: str
    where: str
    """`module:Class.method`."""
    old: str
    new: str
    scope: Any
    """In which it must be found."""

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        """The code has this bug."""
        module_name, path = self.where.split(":")
        class_name, method = path.split(".")
        module = importlib.import_module(module_name)
        owner = getattr(module, class_name)
        before = inspect.getattr_static(owner, method)
        source = textwrap.dedent(inspect.getsource(before.fget if isinstance(before, property) else before))
        assert source.count(self.old) == 1, f"{self.name}: {self.where} does not read as it did"
        names: dict[str, Any] = {}
        flags = __future__.annotations.compiler_flag
        exec(compile(source.replace(self.old, self.new), f"<{self.name}>", "exec", flags), vars(module), names)
        setattr(owner, method, names[method])
        try:
            yield
        finally:
            setattr(owner, method, before)
