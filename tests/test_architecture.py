# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, read from the source with `ast`: fails as soon as one arrow of the architecture turns back."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("dthreading", "replicas")

# Modules whose behaviour depends on nothing but what they are handed: a directory (ends with "/") or a file.
PURE = (
    "replicas/paxos/",
    "replicas/objects/",
    "replicas/machine/",
    "replicas/replica/",
    "dthreading/session/",
)

# What a pure module may not import: the clock, randomness, sockets, threads, and whatever brings them along.
IMPURE_MODULES = frozenset({
    "_random", "_socket", "_thread", "asyncio", "concurrent", "datetime", "dns", "fcntl", "mmap", "multiprocessing",
    "os", "pathlib", "queue", "random", "sched", "secrets", "select", "selectors", "shutil", "signal", "socket",
    "socketserver", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "uuid", "uvloop",
})  # fmt: skip

# Names that a pure module may not use: they differ from process to process, or reach outside.
IMPURE_CALLS = frozenset({"hash", "id", "open", "input", "print", "eval", "exec", "__import__"})

# Pure modules may load these though they import something impure, because they take only its classes.
HARMLESS = {"dthreading.errors": frozenset({"queue", "threading"})}

# The arrows. A module of the first column may import, within our two packages, only what the second one names.
# The most specific line counts. A name stands for the module and all below it, with "=" for the module alone.
ARROWS: dict[str, tuple[str, ...]] = {
    "replicas.paxos": ("replicas.paxos",),
    "replicas.objects": ("replicas.objects", "dthreading.wire", "dthreading.errors"),
    "replicas.machine": (
        "replicas.machine", "replicas.objects", "replicas.paxos.values", "dthreading.wire", "dthreading.errors",
    ),
    "replicas.replica": (
        "replicas.replica", "replicas.machine", "replicas.objects", "replicas.paxos", "dthreading.wire",
        "dthreading.errors",
    ),
    "replicas.storage": ("replicas.storage", "replicas.paxos", "dthreading.wire", "dthreading.errors"),
    "replicas.daemon": (
        "=replicas", "replicas.daemon", "replicas.replica", "replicas.machine", "replicas.paxos", "replicas.storage",
        "dthreading.wire", "dthreading.errors",
    ),
    "replicas": ("replicas", "dthreading.wire", "dthreading.errors"),
    "replicas.cli": ("replicas", "=dthreading"),  # compares the versions of the two packages, and needs no more of it
    "dthreading.errors": (),
    "dthreading.wire": ("dthreading.wire", "dthreading.errors"),
    "dthreading.session": ("dthreading.session", "dthreading.wire", "dthreading.errors"),
    "dthreading": ("dthreading",),
}  # fmt: skip

# What must not import what, where the table above is too wide.
FORBIDDEN: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("dthreading.runtime", ("dthreading.locks", "dthreading.queue", "dthreading.cli", "dthreading.testing")),
    ("dthreading.naming", ("dthreading.runtime", "dthreading.locks", "dthreading.queue")),
    ("dthreading.locks", ("dthreading.queue", "dthreading.cli", "dthreading.testing")),
    ("dthreading.queue", ("dthreading.cli", "dthreading.testing")),
)

# Where `dthreading` may reach for `replicas`, and then inside functions only.
MAY_START_REPLICAS = ("dthreading.testing", "dthreading.embedded")


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, absolute, and whether the import stands inside a function."""

    target: str
    line: int
    in_function: bool


def module_name(path: Path) -> str:
    """`replicas/paxos/log.py` is `replicas.paxos.log`; a package is its own name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> dict[str, Path]:
    return {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


SOURCES = sources()
TREES = {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in SOURCES.items()}


def is_type_checking(node: ast.AST) -> bool:
    """`if TYPE_CHECKING:`, whose body never runs."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports_of(name: str) -> Iterator[Import]:
    """What `name` imports when it runs. Imports for types alone do not count, arrows are about running code."""
    package = name if SOURCES[name].name == "__init__.py" else name.rpartition(".")[0]
    pending: list[tuple[ast.AST, bool]] = [(TREES[name], False)]
    while pending:
        node, in_function = pending.pop()
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(alias.name, node.lineno, in_function)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = module or ""
                if level:
                    above = package.split(".")[: len(package.split(".")) - level + 1]
                    base = ".".join([*above, *([module] if module else [])])
                for target in {full if (full := f"{base}.{alias.name}") in SOURCES else base: None for alias in names}:
                    yield Import(target, node.lineno, in_function)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                in_function = True
        if is_type_checking(node):
            assert isinstance(node, ast.If)
            pending.extend((child, in_function) for child in node.orelse)
        else:
            pending.extend((child, in_function) for child in ast.iter_child_nodes(node))


def below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def allows(allowed: str, name: str) -> bool:
    return name == allowed[1:] if allowed.startswith("=") else below(name, allowed)


def ours(name: str) -> bool:
    return name.partition(".")[0] in PACKAGES


def is_pure(name: str) -> bool:
    path = SOURCES[name].relative_to(ROOT).as_posix()
    return any(path.startswith(pure) if pure.endswith("/") else path == pure for pure in PURE)


@pytest.mark.parametrize("name", SOURCES)
def test_imports_follow_the_arrows(name: str) -> None:
    """A module imports only what lies further in than itself, so each can be read and tested without those outside."""
    rule = max((prefix for prefix in ARROWS if below(name, prefix)), key=len)
    wrong = []
    for found in imports_of(name):
        if not ours(found.target):
            continue
        excused = (
            below(found.target, "replicas")
            and found.in_function
            and any(below(name, starter) for starter in MAY_START_REPLICAS)
        )
        if not excused and not any(allows(allowed, found.target) for allowed in ARROWS[rule]):
            wrong.append(f"{SOURCES[name]}:{found.line} imports {found.target}")
    for module, targets in FORBIDDEN:
        if below(name, module):
            wrong += [
                f"{SOURCES[name]}:{found.line} imports {found.target}"
                for found in imports_of(name)
                if any(below(found.target, target) for target in targets)
            ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", [name for name in SOURCES if is_pure(name)])
def test_pure_parts_import_nothing_that_differs_from_run_to_run(name: str) -> None:
    """The replicated state and the sans-IO cores read no clock, chance, socket or thread, not even at second hand."""
    wrong = []
    seen = {name}
    pending = [(name, name)]
    while pending:
        current, way = pending.pop()
        for found in imports_of(current):
            top = found.target.partition(".")[0]
            if top in IMPURE_MODULES - HARMLESS.get(current, frozenset()):
                wrong.append(f"{way} imports {found.target} ({SOURCES[current]}:{found.line})")
            if found.target in SOURCES and found.target not in seen:
                seen.add(found.target)
                pending.append((found.target, f"{way} -> {found.target}"))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", [name for name in SOURCES if is_pure(name)])
def test_pure_parts_ask_nothing_that_differs_from_run_to_run(name: str) -> None:
    """`hash()` is salted for each process, `id()` is an address, a set has no order: none of them may decide."""
    wrong = []
    for node in ast.walk(TREES[name]):
        match node:
            case ast.Call(func=ast.Name(id=called)) if called in IMPURE_CALLS:
                wrong.append(f"{SOURCES[name]}:{node.lineno} calls {called}()")
            case ast.For(iter=iterated) | ast.comprehension(iter=iterated) if is_set(iterated):
                wrong.append(f"{SOURCES[name]}:{iterated.lineno} iterates over a set")
    assert not wrong, "\n".join(wrong)


def is_set(node: ast.expr) -> bool:
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
    return False


def test_the_pure_parts_are_there() -> None:
    """A rule about a file that was renamed would hold for ever and say nothing."""
    missing = [pure for pure in PURE if not (ROOT / pure).exists()]
    assert not missing
    named = {name.lstrip("=") for rule in ARROWS.items() for name in (rule[0], *rule[1])}
    named |= {name for rule in FORBIDDEN for name in (rule[0], *rule[1])}
    assert not sorted(named - set(SOURCES))


IMPORT_QUIETLY = """
import sys, threading
opened = []
sys.addaudithook(lambda event, arguments: opened.append(event) if event.startswith("socket.") else None)
before = set(sys.modules)
import dthreading, dthreading.queue
assert threading.active_count() == 1, threading.enumerate()
assert not opened, opened
assert not any(name.partition(".")[0] == "replicas" for name in sys.modules), "replicas"
assert sys.modules["threading"] is threading
late = {"argparse", "asyncio", "dns", "multiprocessing", "sqlite3", "ssl"} & (set(sys.modules) - before)
assert not late, late
"""


def test_importing_does_nothing() -> None:
    """`import dthreading` opens no socket, starts no thread, needs no replicas, and leaves `threading` as it was."""
    subprocess.run([sys.executable, "-c", IMPORT_QUIETLY], check=True, cwd=ROOT, timeout=60)
