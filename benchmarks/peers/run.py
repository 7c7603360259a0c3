# SPDX-License-Identifier: Apache-2.0
"""Benchmark of lock services: python run.py --systems etcd,zookeeper --workloads W1,W3 --out results.json"""

from __future__ import annotations

import argparse
import fcntl
import importlib
import json
import os
import pkgutil
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import adapters
from harness.floor import floor
from harness.worker import Pool
from harness.workloads import UNLOCKED, Workloads, needs

ALL = ["W1", "W2", "W3", "W4", "W5", "W6", "W7", "W9"]


def registry() -> dict[str, tuple[str, Any]]:
    """Every system of every adapter module that can be imported."""
    found: dict[str, tuple[str, Any]] = {}
    for info in pkgutil.iter_modules(adapters.__path__):
        if info.name == "template":
            continue
        module = f"adapters.{info.name}"
        try:
            systems = importlib.import_module(module).SYSTEMS
        except ImportError as exc:
            print(f"# adapter {info.name} left out: {exc}", file=sys.stderr)
            continue
        for name, cls in systems.items():
            found[name] = (module, cls)
    return found


SPINNER = """
import os
os.nice(19)
while os.getppid() == {}:
    for _ in range(1000000):
        pass
"""


class Awake:
    """With --awake: spinners of lowest priority, so that no CPU sleeps between messages."""

    def __init__(self, on: bool):
        self.procs = (
            [
                subprocess.Popen(
                    [
                        sys.executable,
                        "-c",
                        SPINNER.format(os.getpid()),
                    ]
                )
                for _ in range(os.cpu_count() or 1)
            ]
            if on
            else []
        )

    def stop(self) -> None:
        for p in self.procs:
            p.kill()
            p.wait()


class Machine:
    """The machine-wide benchmark lock, the one `flock LOCK_FILE COMMAND` takes.

    Kept from one system to the next until it has been held for `hold` seconds.
    """

    def __init__(self, lock_file: str | None, hold: float):
        self.lock_file, self.hold, self.file, self.since = lock_file, hold, None, 0.0

    def take(self) -> None:
        if self.lock_file and not self.file:
            self.file = Path(self.lock_file).open("a")  # noqa: SIM115 - held until it is given back
            fcntl.flock(self.file, fcntl.LOCK_EX)
            self.since = time.monotonic()

    def give(self, force: bool = False) -> None:
        if self.file and (force or time.monotonic() - self.since > self.hold):
            self.file.close()
            self.file = None


def brief(figures: dict[str, Any]) -> str:
    return " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in figures.items())


def info(system: Any, start_s: float) -> dict[str, Any]:
    """What a system says of itself."""
    return {
        "nodes": system.nodes,
        "durability": system.durability,
        "notes": system.notes,
        "versions": system.versions(),
        "crash_ttl_s": system.crash_ttl,
        "start_s": round(start_s, 2),
    }


def run_system(
    name: str, module: str, cls: Any, args: Any, machine: Machine, record: dict[str, Any], save: Any
) -> None:
    options = dict(o.split("=", 1) for o in args.opt)
    workdir = Path(tempfile.mkdtemp(prefix=f"peers-{name}-", dir=args.work_dir))
    system = cls(workdir, options)
    pool: Pool | None = None
    spinners: Awake | None = None
    record.setdefault("cells", {})

    def measure(cell: str, thunk: Any) -> None:
        load = os.getloadavg()[0]
        try:
            figures = thunk()
        except Exception as exc:
            figures = {"error": str(exc).strip().splitlines()[-1][:300] if str(exc) else repr(exc)}
            if args.verbose:
                traceback.print_exc()
        figures["load_before"] = round(load, 2)
        record["cells"][cell] = figures
        print(f"{name:18} {cell:14} {brief(figures)}", flush=True)
        save()

    try:
        unlocked = []
        machine.take()
        spinners = Awake(args.awake)
        t = time.monotonic()
        system.start()
        record["info"] = info(system, time.monotonic() - t)
        record.pop("failed", None)
        pool = Pool(module, name, system, workdir)
        pool.ensure(1)
        if system.warm_seconds:
            pool.run([[("LockLoop", {"name": f"warm-{i}"})] for i in range(2)], 0.0, system.warm_seconds)
        work = Workloads(pool, args.seconds)
        for workload in args.workloads:
            for cell, thunk in getattr(work, workload)():
                if args.cells and not any(cell.startswith(c) for c in args.cells):
                    continue
                if needs(cell) not in system.features:
                    record["cells"][cell] = {"unsupported": True}
                elif cell in UNLOCKED:
                    unlocked.append((cell, thunk))
                else:
                    measure(cell, thunk)
        spinners.stop()
        if unlocked:
            machine.give(force=True)
        for cell, thunk in unlocked:
            measure(cell, thunk)
    except Exception as exc:
        record["failed"] = repr(exc)[:500]
        print(f"{name:18} FAILED {exc!r}", flush=True)
        if args.verbose:
            traceback.print_exc()
            for log in sorted(workdir.glob("*.log")):
                print(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:]))
    finally:
        if spinners:
            spinners.stop()
        if pool:
            pool.stop()
        system.stop()
        machine.give()
        shutil.rmtree(workdir, ignore_errors=True)
        save()


def main() -> None:
    found = registry()
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--systems", default="", help="comma list, or 'all'; known: " + ", ".join(found))
    p.add_argument("--workloads", default=",".join(ALL), help="comma list out of " + ",".join(ALL))
    p.add_argument("--cells", default="", help="comma list of cell prefixes, such as 'W2 16,W3'")
    p.add_argument("--seconds", type=float, default=3.0, help="measured seconds in a cell")
    p.add_argument("--out", default="results.json", help="merged into when it exists")
    p.add_argument("--lock-file", help="flock this file around each measurement")
    p.add_argument("--hold", type=float, default=0.0, help="keep that lock for further systems up to this many seconds")
    p.add_argument("--work-dir", help="where servers keep their data (default: the temporary directory)")
    p.add_argument("--floor", action="store_true", help="also measure loopback and disk")
    p.add_argument("--floor-dirs", default="", help="comma list of directories for the disk floor")
    p.add_argument("--opt", action="append", default=[], help="adapter option, such as etcd.bin=PATH")
    p.add_argument(
        "--awake",
        action="store_true",
        help="keep every CPU busy at lowest priority: shows cost without wake-ups of idle CPUs "
        "(foreign_cpus then counts the spinners)",
    )
    p.add_argument("--verbose", action="store_true")
    args = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped on the way out
    args.workloads = [w for w in args.workloads.split(",") if w]
    args.cells = [c.strip() for c in args.cells.split(",") if c.strip()]
    names = list(found) if args.systems == "all" else [s for s in args.systems.split(",") if s]
    unknown = [n for n in names if n not in found]
    if unknown:
        p.error(f"unknown systems {unknown}; known: {', '.join(found)}")
    out = Path(args.out)
    results: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"systems": {}}
    results["machine"] = {"cpus": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()}

    machine = Machine(args.lock_file, args.hold)

    def save() -> None:
        part = out.with_suffix(".part")
        part.write_text(json.dumps(results, indent=1, sort_keys=True))
        part.replace(out)

    if args.floor:
        directories = [Path(d) for d in args.floor_dirs.split(",") if d] or [Path(tempfile.gettempdir())]
        machine.take()
        results["floor"] = floor(directories, args.seconds)
        for k, v in results["floor"].items():
            print(f"{'floor':18} {k:28} {brief(v)}", flush=True)
        save()
    for name in names:
        module, cls = found[name]
        run_system(name, module, cls, args, machine, results["systems"].setdefault(name, {}), save)


if __name__ == "__main__":
    main()
