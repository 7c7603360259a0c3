# SPDX-License-Identifier: Apache-2.0
"""The main job, whole: the demo on three replicas under fire and on the embedded group, just as users run it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo.py"
RUN_S = 500


def tell(*parts: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the demo with its temporary folders, and the embedded group's, below `home`."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("DTHREADING_")}
    environment = {
        **outside,
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(home / "folders"),
        "XDG_STATE_HOME": str(home / "state"),
    }
    (home / "folders").mkdir()
    options = [option for part in parts for option in ("--part", part)]
    return subprocess.run(
        [sys.executable, str(DEMO), *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_S,
        check=False,
    )


def processes_in(folder: Path) -> dict[int, str]:
    """The ids and command lines of processes that still have to do with `folder`."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if str(folder) in line:
            found[int(path.parent.name)] = line
    return found


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder for one run. The embedded group started in it would leave a little later; here it is asked to."""
    yield tmp_path
    deadline = time.monotonic() + 30
    while embedded := processes_in(tmp_path / "state"):
        assert time.monotonic() < deadline, embedded
        for process in embedded:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        time.sleep(0.1)


@pytest.mark.timeout(RUN_S + 60)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the server is for Linux")
def test_the_demo_survives_and_leaves_nothing_behind(home: Path) -> None:
    """Leader and lock holder killed, results equal, every process and folder gone."""
    done = tell("group", "local", home=home)
    assert done.returncode == 0, done.stdout[-8000:]
    for words in (
        r"Killed the leading replica, 127\.0\.0\.1:\d+ \(process \d+\), with SIGKILL",
        r"Killed worker \d \(process \d+\) with SIGKILL while it held the lock",
        r"Started worker 5 in its place",
        r"Survived: ",
    ):
        assert re.search(words, done.stdout), done.stdout[-8000:]
    results = re.findall(r"\d+ words in \d+ files, sha256 \w+", done.stdout)
    assert len(results) == 3
    assert len(set(results)) == 1
    changed = re.findall(r"  ([-+](?![-+]).*)$", done.stdout, re.MULTILINE)
    assert changed[:4] == [
        "-import queue",
        "+import dthreading.queue as queue",
        "-import threading",
        "+import dthreading as threading",
    ]
    assert len(changed) == 8
    assert not processes_in(home / "folders")
    assert not list((home / "folders").iterdir())


def test_a_part_that_fails_says_so_and_cleans_up(tmp_path: Path) -> None:
    """A program that breaks ends the demo with code 1 and one line, not with a hang or a traceback of the driver's."""
    examples = tmp_path / "examples"
    examples.mkdir()
    for name in ("demo.py", "stage.py"):
        (examples / name).write_text((DEMO.parent / name).read_text(encoding="utf-8"), encoding="utf-8")
    (examples / "index_words.py").write_text("raise SystemExit('no library here')\n", encoding="utf-8")
    folder = tmp_path / "folders"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, str(examples / "demo.py")],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "FAILED: plain ended with code 1" in done.stdout
    assert "no library here" in done.stdout
    assert "Traceback" not in done.stderr
    assert not list(folder.iterdir())
