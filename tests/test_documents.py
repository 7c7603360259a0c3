# SPDX-License-Identifier: Apache-2.0
"""The documents say what the code does: their Python runs, their tables are the code's, their links lead somewhere."""

from __future__ import annotations

import argparse
import ast
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dthreading.errors
from dthreading.config import SETTINGS
from dthreading.wire import limits
from replicas.daemon import options

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "ARCHITECTURE.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(
    r"(?:<!-- run as (?P<file>\S+), twice at once -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
RUN_S = 60


def label(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[re.Match[str]]:
    return [found for found in BLOCK.finditer(page.read_text(encoding="utf-8")) if found["language"] == language]


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its two head lines."""
    _, _, rest = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(f"## {heading}\n")
    assert rest, f"{page} has no heading {heading!r}"
    lines = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


# --- Python in the pages -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A replica of our own on a Unix socket, and the environment of programs that are to use it."""
    folder = tmp_path_factory.mktemp("group")
    address = f"unix:{folder}/s"
    outside = {name: value for name, value in os.environ.items() if not name.startswith("DTHREADING_")}
    environment = {**outside, "PYTHONPATH": str(ROOT), "DTHREADING_SECRET_FILE": str(folder / "secret")}
    server = subprocess.Popen(
        [sys.executable, "-m", "replicas.cli", "--listen", address, "--data-dir", str(folder / "data")],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline(), "the replica did not come up"
        yield {**environment, "DTHREADING_SERVERS": address}
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=RUN_S)


PYTHON_PAGES = [page for page in PAGES if label(page) != "ARCHITECTURE.md" and blocks(page, "python")]


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=label)
def test_python_in_a_page_runs(page: Path, servers: dict[str, str], tmp_path: Path) -> None:
    """A reader who copies a page's blocks, from the top, into a file and runs it meets no error."""
    lines: list[str] = []
    text = page.read_text(encoding="utf-8")
    for block in blocks(page, "python"):
        if block["file"] is None:
            start = text.count("\n", 0, block.start("text"))  # so that a traceback names the page's own line
            lines += [""] * (start - len(lines)) + block["text"].splitlines()
    script = tmp_path / f"{page.stem}_page.py"
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    environment = {**servers, "DTHREADING_NAMESPACE": label(page)}
    subprocess.run([sys.executable, "-W", "error", script], cwd=tmp_path, env=environment, check=True, timeout=RUN_S)


NAMED_BLOCKS = [(page, block) for page in PAGES for block in blocks(page, "python") if block["file"]]


@pytest.mark.parametrize(("page", "block"), NAMED_BLOCKS, ids=lambda value: "")
def test_a_file_in_a_page_runs_twice_at_once(
    page: Path, block: re.Match[str], servers: dict[str, str], tmp_path: Path
) -> None:
    """The first use in the README: two processes count to a hundred together."""
    (tmp_path / block["file"]).write_text(block["text"], encoding="utf-8")
    environment = {**servers, "DTHREADING_NAMESPACE": f"{label(page)} {block['file']}"}
    command = [sys.executable, block["file"]]
    both = [subprocess.Popen(command, cwd=tmp_path, env=environment) for _ in range(2)]
    assert [process.wait(RUN_S) for process in both] == [0, 0]
    assert (tmp_path / "number.txt").read_text() == "100"


def test_workers_that_test_side_by_side_do_not_meet(servers: dict[str, str], tmp_path: Path) -> None:
    """The page's `conftest.py` keeps pytest-xdist's workers apart: each finds only the item that it has put itself."""
    (conftest,) = [
        block["text"] for block in blocks(ROOT / "docs" / "testing.md", "python") if "def pytest_" in block["text"]
    ]
    (tmp_path / "conftest.py").write_text(conftest, encoding="utf-8")
    test = "import dthreading.queue\n\ndef test_it():\n    queue = dthreading.queue.Queue(name='items')\n"
    (tmp_path / "test_it.py").write_text(f"{test}    queue.put(1)\n    assert queue.qsize() == 1\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tx", "2*popen", "--dist", "each"]
    done = subprocess.run(
        command, cwd=tmp_path, env=servers, capture_output=True, text=True, timeout=RUN_S, check=False
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


# --- tables --------------------------------------------------------------------------------------------------------


def table(lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def settings_rows() -> list[list[str]]:
    return [[code(row.name), code(row.variable), row.kind, row.default, row.reason] for row in SETTINGS]


DEFAULTS_ELSEWHERE = {
    "listen": code(options.DEFAULT_LISTEN),
    "cluster": "this replica alone",
    "data_dir": code("~/.local/state/dthreading/server"),
    "secret_file": code("~/.config/dthreading/secret"),
}
"""Defaults that the option's own help does not say, or says at length."""


def option_rows() -> list[list[str]]:
    found = []
    for action in options._parser()._actions:
        if action.dest == "help" or action.help == argparse.SUPPRESS:
            continue
        takes = "{" + ",".join(action.choices) + "}" if action.choices else action.metavar
        name = f"{action.option_strings[0]} {takes}" if takes and action.nargs != 0 else action.option_strings[0]
        key = code(action.dest.replace("_", "-")) if action.dest in options._FILE_KEYS else ""
        said, _, default = (action.help or "").partition(" (default ")
        default = DEFAULTS_ELSEWHERE.get(action.dest, default.removesuffix(")"))
        if action.dest == "version":
            said = "say which version this is, and end"
        found.append([code(name), key, default, said])
    return found


def test_the_servers_help_tells_its_defaults() -> None:
    """What `--help` says of a default is what the server does without the option."""
    chosen = options.parse([], {})
    told = {
        action.dest: number[1]
        for action in options._parser()._actions
        if (number := re.search(r"\(default (\d+)\)", action.help or ""))
    }
    assert told
    for name, number in told.items():
        value = getattr(chosen, name, None)
        value = getattr(chosen, f"{name}_s", None) if value is None else value
        assert f"{value:g}" == number or str(value) == number, name


def named_numbers(path: Path) -> list[list[str]]:
    """The constants of a module, with the sentence below each: that is how limits are written here."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    found = []
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id.isupper():
            assert isinstance(after, ast.Expr), f"{node.target.id} has no reason below it"
            assert isinstance(after.value, ast.Constant)
            value = f"{getattr(limits, node.target.id):,}".replace(",", " ")
            found.append([code(node.target.id), value, " ".join(after.value.value.split())])
    return found


TABLES = {
    "Settings of the client": settings_rows,
    "Options of `dthreading-server`": option_rows,
    "Limits": lambda: named_numbers(ROOT / "dthreading" / "wire" / "limits.py"),
}


@pytest.mark.parametrize("heading", TABLES)
def test_reference_tables_are_the_codes(heading: str) -> None:
    """Every setting, option and limit stands in the reference with its default, and nothing that does not exist."""
    expected = TABLES[heading]()
    assert rows("reference.md", heading) == expected, "see `python -m tests.test_documents`"


def rewrite_reference() -> None:
    """Put the code's tables into the page: `python -m tests.test_documents`. Read what changed before you keep it."""
    path = ROOT / "docs" / "reference.md"
    text = path.read_text(encoding="utf-8")
    for heading, expected in TABLES.items():
        text = text.replace(table(rows("reference.md", heading)), table(expected()))
    path.write_text(text, encoding="utf-8")


def test_each_environment_variable_is_in_the_reference() -> None:
    """Whatever the code reads from the environment is a setting that the reference has."""
    read = set()
    for package in ("dthreading", "replicas"):
        for path in (ROOT / package).rglob("*.py"):
            read |= set(re.findall(r"[\"']((?:DTHREADING|XDG)_[A-Z_]+)[\"']", path.read_text(encoding="utf-8")))
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert not sorted(name for name in read if f"`{name}`" not in page)


def test_exit_codes_are_the_servers() -> None:
    """What a supervisor is told about an exit code is what the server means by it."""
    from replicas.daemon.exits import EXIT_CODES_HELP

    said = {number: meaning for number, meaning, _ in rows("operations.md", "Stopping and starting")}
    meant = dict(re.findall(r"^  (\d)  (.*)$", EXIT_CODES_HELP, re.MULTILINE))
    assert said == meant


# --- errors --------------------------------------------------------------------------------------------------------


def test_the_error_tree_is_the_codes() -> None:
    """The page draws the same tree as the module, and has a section for each error: its text, when, and what to do."""
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    drawn = [line.strip() for line in (dthreading.errors.__doc__ or "").splitlines() if "──" in line]
    assert drawn
    assert [line.strip() for line in page.splitlines() if "──" in line] == drawn
    errors = [
        value
        for name in dthreading.errors.__all__
        if isinstance(value := getattr(dthreading.errors, name), type)
        and issubclass(value, dthreading.errors.DThreadingError)
        and value is not dthreading.errors.DThreadingError
    ]
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert set(sections) == {error.__name__ for error in errors}
    for error in errors:
        section = sections[error.__name__]
        assert " ".join((error.__doc__ or "").split()) in " ".join(section.split())
        assert "\n*When.* " in section
        assert "\n*What to do.* " in section


# --- the pages themselves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_links_lead_somewhere(page: Path) -> None:
    """A link between our pages names a file, and a heading of it, that are there."""
    for target in re.findall(r"\]\(([^)#\s]*)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8")):
        if target and "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_first_screen_says_what_is_shared() -> None:
    """What a newcomer must know stands before anything else: what is shared, what is not, and the two commands."""
    screen = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:28])
    for words in ("**Shared**", "**Not shared**: your variables", "make demo", "make test"):
        assert words in screen
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_each_distributed_class_has_its_section() -> None:
    """What changes when the import is swapped is said class by class."""
    headings = re.findall(r"^## (.*)$", (ROOT / "docs" / "swap.md").read_text(encoding="utf-8"), re.MULTILINE)
    said = {name for heading in headings for name in re.findall(r"\w+", heading)}
    mirrored = "Lock RLock Condition Semaphore BoundedSemaphore Event Barrier Queue LifoQueue PriorityQueue SimpleQueue"
    assert set(mirrored.split()) <= said


if __name__ == "__main__":
    rewrite_reference()
