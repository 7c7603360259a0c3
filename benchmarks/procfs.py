# SPDX-License-Identifier: Apache-2.0
"""What the kernel knows of a process: CPU time, memory, context switches, system calls. Linux only."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU time of all threads that live, from the scheduler's own count in nanoseconds; in ticks where that is not
    kept.
    """
    if not Path(f"/proc/{pid}/schedstat").exists():
        return stat_cpu_s(pid)
    spent_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread may end while it is looked at
            spent_ns += int((task / "schedstat").read_text().split()[0])
    return spent_ns / 1e9


def stat_cpu_s(pid: int) -> float:
    """User and system time from /proc/PID/stat, in ticks of a hundredth of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def kernel_s(pid: int) -> float:
    """The system's part of `stat_cpu_s`."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[12]) / TICKS_PER_S


def rss_bytes(pid: int) -> int:
    """Resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def wake_ups(pid: int) -> int:
    """How often its threads went to sleep of their own will, so how often they were woken."""
    tasks = [task / "status" for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(
        int(re.findall(r"^voluntary_ctxt_switches:\s*(\d+)", task.read_text(), re.MULTILINE)[0]) for task in tasks
    )


@dataclass(slots=True)
class Calls:
    """System calls of one process while it was watched: how many of each."""

    counts: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


@contextlib.contextmanager
def watched(*pids: int) -> Iterator[dict[int, Calls]]:
    """Counts the system calls of these processes with strace, which slows them down; empty where there is none."""
    found: dict[int, Calls] = {}
    strace = shutil.which("strace")
    if strace is None:
        yield found
        return
    with tempfile.TemporaryDirectory(prefix="dthreading-bench-") as name:
        files = {pid: Path(name) / str(pid) for pid in pids}
        tracers = [_attach(strace, pid, file) for pid, file in files.items()]
        try:
            yield found
        finally:
            for tracer in tracers:
                tracer.send_signal(signal.SIGINT)
                tracer.wait(10)
                assert tracer.stderr is not None
                tracer.stderr.close()
        found.update({pid: Calls(_counts(file.read_text())) for pid, file in files.items() if file.exists()})


def _attach(strace: str, pid: int, file: Path) -> subprocess.Popen[str]:
    command = [strace, "-f", "-c", "-U", "name,calls", "-o", str(file), "-p", str(pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    tracer.stderr.readline()  # "strace: Process PID attached"
    return tracer


def _counts(table: str) -> dict[str, int]:
    rows = [line.split() for line in table.splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit() and row[0] != "total"}
