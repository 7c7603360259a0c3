# SPDX-License-Identifier: Apache-2.0
"""What is shipped: the built wheel has the two packages, their types and their commands, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="the build back end belongs to the development set-up")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=100)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def information(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = [path for path in wheel.namelist() if path.endswith(f".dist-info/{name}")]
    return wheel.read(path).decode()


def test_the_wheel_has_two_packages(wheel: zipfile.ZipFile) -> None:
    """`tests`, `compat` and `examples` are no importable names on a user's machine."""
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"dthreading", "replicas"}
    assert {"dthreading/py.typed", "replicas/py.typed"} <= set(wheel.namelist())
    here = {
        path.relative_to(ROOT).as_posix() for top in ("dthreading", "replicas") for path in (ROOT / top).rglob("*.py")
    }
    assert here <= set(wheel.namelist())


def test_a_client_needs_msgpack_alone(wheel: zipfile.ZipFile) -> None:
    """Everything else is asked for by an extra."""
    needed = Parser().parsestr(information(wheel, "METADATA")).get_all("Requires-Dist", [])
    assert [line for line in needed if "extra ==" not in line] == ["msgpack>=1.0.8"]


def test_the_commands_are_there(wheel: zipfile.ZipFile) -> None:
    """The commands that the documents name, and the licence."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) == {"dthreading", "dthreading-server"}
    for name, target in scripts.items():
        assert f"{name} = {target}" in information(wheel, "entry_points.txt")
    assert "Apache License" in information(wheel, "licenses/LICENSE")
