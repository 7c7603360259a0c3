# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/operations.md, typed as a reader would, on addresses and in folders of our own."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
PORT = re.compile(r"127\.0\.0\.1:(\d+)")
PROGRAMS = {"dthreading": "dthreading.cli", "dthreading-server": "replicas.cli"}
RUN_S = 60


def typed(heading: str) -> list[tuple[str, list[str]]]:
    """The commands of a section, each with the output that the page shows below it."""
    _, found, rest = PAGE.partition(f"# {heading}\n")
    assert found, f"operations.md has no heading {heading!r}"
    text = re.split(r"^##+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    commands: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                commands.append((line.removeprefix("$ "), []))
            else:
                commands[-1][1].append(line)
    return commands


class Terminal:
    """A folder in the place of /var/lib/dthreading, free ports in the place of the page's, and what was started."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self._stack = stack
        self._ports: dict[str, socket.socket] = {}
        outside = {name: value for name, value in os.environ.items() if not name.startswith("DTHREADING_")}
        self.environment = {**outside, "PYTHONPATH": str(ROOT), "DTHREADING_SECRET_FILE": str(folder / "secret")}

    def here(self, text: str) -> str:
        """The page's text with our addresses and folders in it."""
        return PORT.sub(self._ours, text).replace("/var/lib/dthreading", str(self.folder))

    def _ours(self, address: re.Match[str]) -> str:
        if address[1] not in self._ports:
            self._ports[address[1]] = self._stack.enter_context(reserved())
        return f"127.0.0.1:{self._ports[address[1]].getsockname()[1]}"

    def type(self, command: str, told: str = "") -> str:
        """What a command wrote to standard output; nothing yet if it runs on in the background."""
        program, *arguments = shlex.split(self.here(command).removesuffix("&"))
        if program == "export":
            name, _, value = arguments[0].partition("=")
            self.environment[name] = value
            return ""
        words = [sys.executable, "-m", PROGRAMS[program], *arguments]
        if command.endswith("&"):
            log = self._stack.enter_context((self.folder / "log").open("a"))
            process = subprocess.Popen(words, env=self.environment, stdout=log, stderr=log)
            self._stack.callback(process.wait, RUN_S)
            self._stack.callback(process.kill)
            self.processes.append(process)
            return ""
        done = subprocess.run(
            words, env=self.environment, input=told, capture_output=True, text=True, timeout=RUN_S, check=False
        )
        log_text = (self.folder / "log").read_text()
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}\n{log_text}"
        return done.stdout

    def until_members(self, *ids: str) -> None:
        """Asks until the members are these, and all of them up."""
        deadline = time.monotonic() + RUN_S
        while True:
            _, *rows = (row.split() for row in self.type("dthreading members list").splitlines())
            if [row[0] for row in rows] == [*ids] and all(row[3:] == ["up"] for row in rows):
                return
            assert time.monotonic() < deadline, rows

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait(RUN_S)


@contextlib.contextmanager
def reserved() -> Iterator[socket.socket]:
    """A free port that nobody else is given. Bound and not listening, so that it is still to be had by who may share
    it.
    """
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with contextlib.ExitStack() as stack:
        yield Terminal(tmp_path, stack)


@pytest.fixture
def three(terminal: Terminal) -> Terminal:
    """The page's group of three: its first command, given for each of them."""
    ((first, _),) = typed("Running replicas")
    for number in (1, 2, 3):
        mine = first.replace("--listen 127.0.0.1:7450", f"--listen 127.0.0.1:{7449 + number}")
        terminal.type(mine.replace("/dthreading/1", f"/dthreading/{number}") + " &")
    terminal.type("export DTHREADING_SERVERS=127.0.0.1:7450,127.0.0.1:7451,127.0.0.1:7452")
    (terminal.folder / "log").touch()
    terminal.type("dthreading members transfer-leader 3")
    return terminal


def test_members_come_and_go_as_the_page_says(terminal: Terminal) -> None:
    """Whoever types the commands of the page, one after the other, has five replicas that are others in the end."""
    for command, shown in typed("From one replica to three to five, each replaced"):
        said = terminal.type(command)
        if shown:
            assert said.split() == terminal.here("\n".join(shown)).split()


def test_a_lost_disk_and_then_a_lost_majority(three: Terminal) -> None:
    """The replica with a lost disk is replaced; then only the first one is left, and becomes a group of its own."""
    replaced, examined, recovered = (command for command, _ in typed("When a disk is lost"))
    three.kill(three.processes[1])
    shutil.rmtree(three.folder / "2")
    three.type(replaced)
    three.until_members("1", "3", "4")
    for process in three.processes:
        three.kill(process)
    assert "no damage was found" in three.type(examined)
    start = "dthreading-server --listen 127.0.0.1:7450 --data-dir /var/lib/dthreading/new"
    assert f"Start it:\n  {three.here(start)}\n" in three.type(recovered, told="lose\n")
    three.type(f"{start} &")
    three.type("export DTHREADING_SERVERS=127.0.0.1:7450")
    three.until_members("5")


def test_a_replica_whose_memory_is_bad_is_replaced(three: Terminal) -> None:
    """It has ended by then; here it is killed."""
    three.kill(three.processes[1])
    for command, _ in typed("When a memory goes bad"):
        said = three.type(command)
    assert said == three.here("127.0.0.1:7455 is a member: replica 4\n")


def test_what_is_asked_when_looking_inside(three: Terminal) -> None:
    status, locks = (command.partition("#")[0].strip() for command, _ in typed("Looking inside"))
    assert three.type(status).split().count("leader") == 1
    assert three.type(locks) == "no objects: all are in their initial state, and nobody uses one\n"
