# SPDX-License-Identifier: Apache-2.0
"""The demo's program by itself: it is ordinary, it counts right, and a worker may be lost anywhere at no loss."""

from __future__ import annotations

import ast
import importlib.util
import json
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "index_words.py"
TEXTS = {"one.py": "alpha beta alpha\n", "two.py": "beta = 'Gamma'\n", "deep/three.py": "_private alpha é\n"}
TOTALS = {"alpha": (3, 2), "beta": (2, 2), "gamma": (1, 1), "_private": (1, 1)}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A fresh copy of the module, on a library of three files."""
    library = tmp_path / "library"
    for name, text in {**TEXTS, "site-packages/other.py": "omega\n"}.items():
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("index_words_under_test", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.LIBRARY = library
    module.DATABASE = tmp_path / "index.sqlite"
    monkeypatch.chdir(tmp_path)
    return module


def totals(program: ModuleType) -> dict[str, tuple[int, int]]:
    database = sqlite3.connect(program.DATABASE)
    try:
        return {word: (times, files) for word, times, files in database.execute("SELECT * FROM words")}
    finally:
        database.close()


def test_nothing_of_dthreading_stands_in_it() -> None:
    """It imports the standard library alone, and its two imports stand on lines of their own."""
    text = PROGRAM.read_text(encoding="utf-8")
    assert "dthreading" not in text
    assert text.count("\nimport threading\n") == 1
    assert text.count("\nimport queue\n") == 1
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                assert all(alias.name in sys.stdlib_module_names for alias in names)
            case ast.ImportFrom(module=module, level=level):
                assert level == 0
                assert module is not None
                assert module.partition(".")[0] in sys.stdlib_module_names


def test_it_counts_the_words_of_each_file(program: ModuleType) -> None:
    """Threads in one process: every file once, nothing that was installed beside the library, totals over all."""
    program.main()
    assert totals(program) == TOTALS
    database = sqlite3.connect(program.DATABASE)
    rows = database.execute("SELECT file, words FROM counts").fetchall()
    database.close()
    by_file: dict[str, Counter[str]] = {}
    for file, words in rows:
        by_file.setdefault(file, Counter()).update(json.loads(words))
    assert by_file["one.py"] == {"alpha": 2, "beta": 1}
    assert set(by_file) == set(TEXTS)


def test_a_task_done_twice_changes_nothing(program: ModuleType) -> None:
    """Redelivery hands a task to a second worker when the first died after writing and before saying so."""
    program.prepare_counting()
    for file in [*TEXTS, *TEXTS]:
        program.count_file(file)
    program.begin_merging()
    for initial in [*program.INITIALS, *program.INITIALS]:
        program.merge_initial(initial)
    assert totals(program) == TOTALS


def test_a_broken_meeting_is_called_again(program: ModuleType) -> None:
    """When a party dies at the barrier it breaks for all; they come back, and the next meeting succeeds."""
    meeting = threading.Thread(target=program.meet_the_workers)
    meeting.start()
    program.tasks.get()
    program.between_phases.abort()
    program.tasks.task_done()
    workers = [threading.Thread(target=program.work) for _ in range(program.WORKERS)]
    for worker in workers:
        worker.start()
    meeting.join(30)
    assert program.merging.is_set()
    program.stop.set()
    for thread in (meeting, *workers):
        thread.join(30)
        assert not thread.is_alive()


def test_a_meeting_that_is_redelivered_late_holds_nobody(program: ModuleType) -> None:
    """A worker that died just after the barrier let it go leaves its invitation behind; whoever gets it goes on."""
    program.prepare_counting()
    program.begin_merging()
    program.tasks.put(("meet", ""))
    worker = threading.Thread(target=program.work)
    worker.start()
    program.tasks.join()
    program.stop.set()
    worker.join(30)
    assert not worker.is_alive()


def test_it_says_how_it_is_used() -> None:
    """An unknown role is answered with the usage, and nothing is written."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "dance"], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "usage:" in done.stderr
