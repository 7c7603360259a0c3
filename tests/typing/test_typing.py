# SPDX-License-Identifier: Apache-2.0
"""The annotations of users' programs hold under mypy --strict."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.timeout(300)
def test_a_users_program_is_strictly_typed() -> None:
    """`x: threading.Lock` and `Queue[int]` mean what they say, and misuse is an error."""
    pytest.importorskip("mypy")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--warn-unused-ignores",
        "--no-incremental",
        str(HERE / "use.py"),
    ]
    done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
