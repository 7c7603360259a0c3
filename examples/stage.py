# SPDX-License-Identifier: Apache-2.0
"""The demo's processes: started in a temporary folder, shown while they run, ended by their ids whatever happens."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

STARTED = time.monotonic()


def say(text: str) -> None:
    """One line of the story, with the seconds since its beginning."""
    print(f"{time.monotonic() - STARTED:6.1f} s  {text}", flush=True)


class Failed(Exception):
    """The story went wrong; the message says where."""


class Child:
    """A process started here: its output is passed on line by line under its name, and kept."""

    def __init__(self, name: str, command: list[str], stage: "Stage", log: Path | None = None) -> None:
        self.name = name
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._over = False
        self._log = log
        with log.open("ab") if log else nullcontext(subprocess.STDOUT) as errors:
            self.process = subprocess.Popen(  # noqa: S603 - the commands are our own
                command,
                cwd=stage.folder,
                env=stage.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                errors="replace",
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self._take(line.rstrip())
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _take(self, line: str) -> None:
        with self._changed:
            self.lines.append(line)
            self._changed.notify_all()
        if self._log is None:
            say(f"    {self.name}: {line}")

    def wait_for(self, what: Callable[[str], bool], deadline: float) -> None:
        """Wait until a line of output answers to `what`."""
        with self._changed:
            while not any(what(line) for line in self.lines):
                left = deadline - time.monotonic()
                if left <= 0 or self._over:
                    raise Failed(f"{self.name} did not say what was waited for; its last words: {self.last_words()}")
                self._changed.wait(left)

    def last_words(self) -> str:
        """The end of its log, or of its output."""
        lines = self.lines if self._log is None else self._log.read_text(errors="replace").splitlines()
        return " / ".join(lines[-5:])

    def finish(self, deadline: float) -> None:
        """Wait for the end, which must be a good one."""
        try:
            code = self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} did not end in time") from None
        self._reader.join(5)
        if code != 0:
            raise Failed(f"{self.name} ended with code {code}")

    def send(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        self.process.send_signal(number)

    def end(self) -> None:
        """Whatever state it is in, leave nothing behind."""
        for number, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            if self.process.poll() is None:
                self.send(signal.SIGCONT)
                self.send(number)
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(patience_s)
        self._reader.join(5)


class Stage:
    """A temporary folder, and the processes that play in it."""

    def __init__(self, folder: Path, *, configured: bool) -> None:
        self.folder = folder
        self._children: list[Child] = []
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("DTHREADING_")}
        if configured:  # a secret of its own, so that nothing of the user's is read or written
            self.environment["DTHREADING_SECRET_FILE"] = str(folder / "secret")

    def start(self, name: str, *arguments: str, log: Path | None = None) -> Child:
        """Run this Python with these arguments. With `log`, its output is not shown and its errors go to that file."""
        child = Child(name, [sys.executable, *arguments], self, log)
        self._children.append(child)
        return child

    def close(self) -> None:
        """End all of them, the newest first: programs before their replicas."""
        for child in reversed(self._children):
            child.end()


@contextmanager
def stage(*, configured: bool = True) -> Iterator[Stage]:
    """Give a folder to play in, and clear it away. Without `configured`, no process finds a setting of dthreading."""
    with tempfile.TemporaryDirectory(prefix="dthreading-demo-") as name:
        found = Stage(Path(name).resolve(), configured=configured)
        try:
            yield found
        finally:
            found.close()
