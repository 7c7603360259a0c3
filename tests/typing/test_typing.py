# SPDX-License-Identifier: Apache-2.0
"""The annotations of users' programs hold under mypy --strict."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", ["3.11", "3.13"])
def test_a_users_program_is_strictly_typed(version: str) -> None:
    """`x: threading.Lock` and `Queue[int]` mean what they say, misuse is an error, and later versions' names are there,
    whichever version runs this.
    """
    pytest.importorskip("mypy")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        f"--python-version={version}",
        "--warn-unused-ignores",
        "--no-incremental",
        str(HERE / "use.py"),
    ]
    done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
