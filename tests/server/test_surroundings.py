# SPDX-License-Identifier: Apache-2.0
"""What the machine around a replica may do to it: files in its way, descriptors that are not there, readers that do not
read. A replica that is told no by its surroundings says so, and neither harms what is not its own nor stops serving.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.server.cluster import ROOT, Cluster

TIMEOUT_S = 60


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the server until it ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "replicas.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


# --- files in its way


def test_a_file_in_the_place_of_the_socket_stays(tmp_path: Path) -> None:
    """It is refused; the end of a start that was refused must not clear away what it refused to touch."""
    tmp_path.chmod(0o700)
    precious = tmp_path / "precious"
    precious.write_text("a thesis")
    result = serve("--memory", "--listen", f"unix:{precious}")
    assert result.returncode == 2
    assert "there is something there that is not a socket" in result.stderr
    assert precious.read_text() == "a thesis"


def test_the_socket_of_a_living_replica_stays(tmp_path: Path) -> None:
    """Somebody starts a second replica at the address of the first: the first can be reached as before."""
    tmp_path.chmod(0o700)
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        result = serve("--memory", "--listen", f"unix:{path}")
        assert result.returncode == 2
        assert "another process listens there already" in result.stderr
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_replica_whose_directory_was_moved_away_says_how_it_is() -> None:
    """It goes on, since its files are open; whoever asks it for its status is not left without an answer."""
    with Cluster(1) as cluster:
        (node,) = cluster.nodes
        cluster.leader()
        node.data.rename(cluster.directory / "moved")
        status = node.ask("status")
        assert status["role"] == "leader"
        assert status["disk_bytes"] == 0
