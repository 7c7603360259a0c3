# SPDX-License-Identifier: Apache-2.0
"""The code's own shape: lengths that may shrink and never grow, an SPDX line, a docstring, words for strangers."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = ("dthreading", "replicas", "examples", "benchmarks", "tests", "compat")

FILE_LINES_MAX = 400
"""Past this, look for the second idea in the file."""

FUNCTION_LINES_MAX = 70
"""Without its docstring. Past this, look for the second idea in the function."""

TEST_FILE_LINES_MAX = 800
"""Tests are read one at a time, so a file of them may be longer."""

# The ratchet. What stands here was longer when it was looked at, and for a reason; it may become shorter, and then its
# number must be lowered here, and it may not become longer. Nothing is added without saying why in the commit.
LONGER_FILES: dict[str, int] = {}
LONGER_FUNCTIONS: dict[str, int] = {}

# Words that mean something only in the place where this was written. Put together here, so that this file passes too.
INTERNAL = re.compile(
    "|".join(
        (
            "/wo" + "rk/",
            r"\bbrief\.m" + "d",
            r"\b(DESI" + "GN|SEMA" + "NTICS|STY" + "LE|LINE" + "AGE|SPE" + r"ED|ECOSYS" + r"TEM)\b(\.md|:| \d)",
            "issues sh" + "ow",
            r"\b(ChatG" + "PT|Cla" + "ude|Copi" + r"lot)\b",
            r"\bthe iss" + r"ue'?s? (says|text|asks)\b",
        )
    )
)


def tracked() -> list[Path]:
    """What belongs to the project: every file that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if listing.returncode == 0:
        paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:  # an unpacked source distribution
        paths = [path for folder in CODE for path in (ROOT / folder).rglob("*")]
    return sorted(path for path in paths if path.is_file())


FILES = tracked()
PYTHON = [path for path in FILES if path.suffix == ".py"]


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def limit_of(path: Path) -> int:
    is_test = label(path).startswith(("tests/", "compat/"))
    return LONGER_FILES.get(label(path), TEST_FILE_LINES_MAX if is_test else FILE_LINES_MAX)


def test_files_stay_short() -> None:
    """Nothing short may grow past the line, and what is past it may only shrink."""
    lengths = {label(path): len(path.read_text(encoding="utf-8").splitlines()) for path in PYTHON}
    grown = {name: length for name, length in lengths.items() if length > limit_of(ROOT / name)}
    assert not grown, f"too long: {grown}; split the file"
    slack = {name: lengths.get(name, 0) for name, limit in LONGER_FILES.items() if lengths.get(name, 0) < limit}
    assert not slack, f"these became shorter: lower their numbers in LONGER_FILES to {slack}"


def functions(path: Path) -> dict[str, int]:
    """The length of each function in lines, docstring left out, by `file:Class.function`."""
    found: dict[str, int] = {}

    def visit(node: ast.AST, scope: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = scope
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{scope}.{child.name}".lstrip(".")
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                found[f"{label(path)}:{inner}"] = body_lines(child)
            visit(child, inner)

    visit(ast.parse(path.read_text(encoding="utf-8")), "")
    return found


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None
    body = function.body
    if ast.get_docstring(function, clean=False) is not None and len(body) > 1:
        body = body[1:]
    return function.end_lineno - body[0].lineno + 1


def test_functions_stay_short() -> None:
    """A function fits on a screen; one `match` that holds all branching of a step may be near the line."""
    lengths = {name: length for path in PYTHON for name, length in functions(path).items()}
    grown = {
        name: length for name, length in lengths.items() if length > LONGER_FUNCTIONS.get(name, FUNCTION_LINES_MAX)
    }
    assert not grown, f"too long: {grown}"
    slack = {name: lengths.get(name, 0) for name, limit in LONGER_FUNCTIONS.items() if lengths.get(name, 0) < limit}
    assert not slack, f"these became shorter: lower their numbers in LONGER_FUNCTIONS to {slack}"


@pytest.mark.parametrize("path", PYTHON, ids=label)
def test_a_file_opens_with_licence_and_purpose(path: Path) -> None:
    """One SPDX line, then a docstring that says what the file alone owns. No banners."""
    text = path.read_text(encoding="utf-8")
    if not text:
        pytest.fail("an empty file says nothing")
    first = text.splitlines()[1 if text.startswith("#!") else 0]
    assert first == "# SPDX-License-Identifier: Apache-2.0"
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring, "no docstring"
    assert docstring.splitlines()[0].rstrip().endswith((".", ":", ";", ",")) or len(docstring) > 20


@pytest.mark.parametrize("path", PYTHON, ids=label)
def test_no_error_is_swallowed_unnamed(path: Path) -> None:
    """`except:` also takes KeyboardInterrupt and SystemExit; whoever means that writes BaseException and says why."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"line {node.lineno}: bare `except:`"


@pytest.mark.parametrize("path", FILES, ids=label)
def test_a_stranger_understands_each_line(path: Path) -> None:
    """What is named here can be found here: no path, page or habit of the place where a line was written."""
    if path.suffix in {".png", ".sqlite", ".bin"}:
        pytest.skip("not text")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        found = INTERNAL.search(line)
        assert found is None, f"{label(path)}:{number}: {found.group()!r} in {line.strip()!r}"


def test_lines_end_plainly() -> None:
    """No tabs outside make and shell, no blanks at the end of a line, one newline at the end of a file."""
    wrong = []
    for path in FILES:
        if path.suffix not in {".py", ".md", ".toml", ".yml"}:
            continue
        text = path.read_text(encoding="utf-8")
        if text and (not text.endswith("\n") or text.endswith("\n\n")):
            wrong.append(f"{label(path)}: its last line")
        lines = enumerate(text.splitlines(), 1)
        wrong += [f"{label(path)}:{number}" for number, line in lines if line != line.rstrip() or "\t" in line]
    assert not wrong, wrong
