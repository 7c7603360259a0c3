# SPDX-License-Identifier: Apache-2.0
"""Runs another package's own tests with `threading` and `queue` swapped in that package's modules only.

    python -m compat.swap --package cachetools -- path/to/cachetools/tests

The package must be installed in this environment, and its tests be at hand. The group is three replicas without disks,
unless --group says otherwise. Nothing is expected of the tests: what pytest says is the outcome.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from compat.swap import hook

if TYPE_CHECKING:
    from collections.abc import Iterator


def main() -> int:
    """Starts a group, installs the hook, and hands over to pytest: its exit code is ours."""
    parser = argparse.ArgumentParser(prog="python -m compat.swap", description=__doc__.splitlines()[0])
    parser.add_argument("--package", action="append", required=True, metavar="NAME", help="swap in its modules")
    parser.add_argument("--group", choices=("replicas", "memory", "local", "none"), default="memory")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, after --")
    arguments = parser.parse_args()
    os.environ.setdefault("DTHREADING_NAMING", "auto")
    with group(arguments.group):
        if arguments.group != "none":
            hook.install(arguments.package)
        leave_room()
        code = int(pytest.main(["-p", "no:cacheprovider", *arguments.pytest]))
        close()
    print("swapped imports:", "; ".join(hook.swapped) or "NONE, so nothing was tested")
    return code if hook.swapped or arguments.group == "none" else 2


@contextlib.contextmanager
def group(kind: str) -> Iterator[None]:
    """The group, while it is needed. `none` runs the tests as they are, to compare."""
    if kind == "none":
        yield
        return
    if kind == "local":
        from dthreading.testing import local

        with local.group():
            yield
        return
    from tests.server.cluster import Cluster

    with Cluster(3, memory=kind == "memory") as cluster:
        os.environ.update(cluster.client_environment())
        cluster.leader()
        yield


def leave_room() -> None:
    """Our own `tests` must not be in the way of theirs: nothing of these sources is importable from here on."""
    root = str(Path(__file__).resolve().parents[2])
    sys.path[:] = [entry for entry in sys.path if entry not in {"", root}]
    for name in [name for name in sys.modules if name == "tests" or name.startswith("tests.")]:
        del sys.modules[name]


def close() -> None:
    """Ends the session, so that nothing of ours runs when the group stops."""
    runtime = sys.modules.get("dthreading.runtime")
    if runtime is not None:
        runtime.client().close()


if __name__ == "__main__":
    sys.exit(main())
