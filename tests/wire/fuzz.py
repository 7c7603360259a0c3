# SPDX-License-Identifier: Apache-2.0
"""The fuzzers' command: so many frames by seeds, one case again, or a coverage-guided search of so many minutes.

    python -m tests.wire.fuzz --frames 1000000          all targets, each its share, under a limit of memory
    python -m tests.wire.fuzz --only client,doors       some of them
    python -m tests.wire.fuzz --case clients:17         one case again, with its traceback
    python -m tests.wire.fuzz --atheris 10 --only peer  ten minutes steered by coverage (pip install atheris first)

Each case is made of its target's name and its seed alone, so a failing one is repeated by naming them. Only this file
sets limits and prints; what is tried stands in fuzz_targets.py, fuzz_states.py, fuzz_absurd.py and
fuzz_doors.py.
"""

from __future__ import annotations

import argparse
import importlib
import random
import resource
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Self

MODULES = ("fuzz_targets", "fuzz_states", "fuzz_absurd", "fuzz_doors")

SHARES = {
    "client": 260, "peer": 240, "command": 120, "introduction": 30, "stream": 70, "acceptor": 60, "connector": 10,
    "item": 60, "priority": 30, "module": 10, "entry": 40, "clients": 40, "operators": 5, "replicas": 10,
    "servers": 10, "formation": 5, "doors": 5, "absurd": 20,
}  # fmt: skip
"""Of a thousand frames, how many go to each target; those with a state behind them cost ten times as much."""

MEMORY_MB = 768
"""Of address space, which is several times what is used: the interpreter and its libraries map 200 MB by themselves."""

FAILURES_MAX = 5
"""So many are shown of each target."""

Targets = dict[str, Callable[[random.Random], int]]


def load() -> Targets:
    """All targets by name. Imported late, so that a coverage-guided fuzzer can look into what they import."""
    found: Targets = {}
    for name in MODULES:
        module = importlib.import_module(f"tests.wire.{name}")
        for table in ("STATELESS", "STATEFUL", "DOORS"):
            found |= getattr(module, table, {})
    assert found.keys() == SHARES.keys()
    return found


def run(targets: Targets, frames: int, seed: int, say: Callable[[str], None] = print) -> int:
    """Tries at least so many frames; the number of cases that failed."""
    total = sum(SHARES[name] for name in targets)
    failed = tried = 0
    say(f"{'target':<13}{'cases':>9}{'frames':>10}{'failed':>8}{'us a frame':>12}")
    for name, target in targets.items():
        wanted = frames * SHARES[name] // total + 1
        done = cases = wrong = 0
        began = time.process_time()
        while done < wanted:
            number = seed * 1_000_000_000 + cases
            cases += 1
            try:
                done += target(random.Random(f"{name}-{number}"))
            except Exception as error:
                done += 1
                wrong += 1
                if wrong <= FAILURES_MAX:
                    say(f"{name}: {type(error).__name__}: {str(error)[:200]}")
                    say(f"  again: python -m tests.wire.fuzz --case {name}:{number}")
        cost_us = (time.process_time() - began) / done * 1e6
        say(f"{name:<13}{cases:>9}{done:>10}{wrong:>8}{cost_us:>12.0f}")
        failed += wrong
        tried += done
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    say(f"{tried} frames, {failed} cases failed, seed {seed}, at most {peak_mb} MB of memory in use")
    return failed


def again(targets: Targets, case: str) -> int:
    """One case, with whatever it raises."""
    name, number = case.split(":")
    try:
        frames = targets[name](random.Random(f"{name}-{int(number)}"))
    except Exception:
        traceback.print_exc()
        return 1
    print(f"{case}: {frames} frames, nothing wrong")
    return 0


class Steered(random.Random):
    """Chance that is read from bytes; when they are used up, from a generator that they seed."""

    def __new__(cls, data: bytes) -> Self:  # the base class would take it for a seed
        return super().__new__(cls)

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._rest = random.Random(data)

    def getrandbits(self, k: int, /) -> int:
        size = (k + 7) // 8
        if len(self._data) < size:
            return self._rest.getrandbits(k)
        bits = int.from_bytes(self._data[:size], "big")
        self._data = self._data[size:]
        return bits & ((1 << k) - 1)

    def random(self) -> float:
        return self.getrandbits(16) / 65536


def search(names: list[str], minutes: float, seed: int) -> None:
    """Coverage-guided: libFuzzer makes the bytes that steer a case, or that are the body itself. Does not return."""
    import atheris

    with atheris.instrument_imports(include=["dthreading", "replicas"]):
        targets = load()
        from dthreading.wire import schema
    schema_of = schema.compiled
    targets_module = importlib.import_module("tests.wire.fuzz_targets")
    codec: Any = importlib.import_module("dthreading.wire.codec")
    codec.compiled = lambda cls, *, natural: atheris.instrument_func(schema_of(cls, natural=natural))
    chosen = [targets[name] for name in names]

    def one_input(data: bytes) -> None:
        if data[:1] == b"r":
            for name in targets_module.CODECS:
                targets_module.judge(data[1:], name)
        elif data:
            chosen[data[0] % len(chosen)](Steered(data[1:]))

    limits = [f"-max_total_time={int(minutes * 60)}", f"-seed={seed + 1}", "-max_len=4096", "-rss_limit_mb=2048"]
    atheris.Setup([sys.argv[0], *limits, "-print_final_stats=1", "-artifact_prefix=/tmp/"], one_input)
    atheris.Fuzz()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.wire.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100_000, help="how many, over all targets (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="other cases than those of seed 0")
    parser.add_argument("--only", default="", help=f"comma-separated: {', '.join(SHARES)}")
    parser.add_argument("--case", help="TARGET:NUMBER of a failed case")
    parser.add_argument("--memory-mb", type=int, default=MEMORY_MB, help="limit of address space (default %(default)s)")
    parser.add_argument("--atheris", type=float, metavar="MINUTES", help="search steered by coverage")
    options = parser.parse_args(arguments)
    names = options.only.split(",") if options.only else list(SHARES)
    if options.atheris is not None:
        search(names, options.atheris, options.seed)
    if options.memory_mb:
        resource.setrlimit(resource.RLIMIT_AS, (options.memory_mb << 20, resource.RLIM_INFINITY))
    targets = load()
    if options.case:
        return again(targets, options.case)
    return min(1, run({name: targets[name] for name in names}, options.frames, options.seed))


if __name__ == "__main__":
    sys.exit(main())
