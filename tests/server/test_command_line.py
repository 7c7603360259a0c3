# SPDX-License-Identifier: Apache-2.0
"""The two commands as their users meet them: one clear sentence and an exit code, never a traceback."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import dthreading
import replicas
from dthreading.wire.messages import Call, Reply, Status
from tests.server.cluster import ROOT, Cluster
from tests.server.raw import Raw

TIMEOUT_S = 60


def serve(*arguments: str, python: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the server until it ends by itself."""
    return run([*python, "-m", "replicas.cli", *arguments], environment)


def run(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    base = {name: value for name, value in os.environ.items() if not name.startswith(("DTHREADING_", "PYTHON"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**base, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def refused(result: subprocess.CompletedProcess[str], code: int, sentence: str) -> None:
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("dthreading-server: ")
    assert sentence in line


def test_bad_options_are_refused_in_one_sentence() -> None:
    refused(serve("--listen", "0.0.0.0:0"), 2, "loopback only")


def test_it_does_not_start_without_its_assertions(tmp_path: Path) -> None:
    """They are what keeps a bug from becoming a second holder."""
    refused(serve("--data-dir", str(tmp_path), python=("-O",)), 2, "python -O")
    refused(serve("--data-dir", str(tmp_path), PYTHONOPTIMIZE="1"), 2, "python -O")


def test_a_directory_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    result = serve("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path), "--secret-file", str(tmp_path / "s"))
    refused(result, 2, "is not a dthreading directory")
    assert sorted(path.name for path in tmp_path.iterdir()) in (["lock", "thesis.tex"], ["thesis.tex"])


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(serve("--data-dir", str(tmp_path / "file")), 2, "cannot be used as a data directory")


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = serve("--listen", address, "--data-dir", str(tmp_path / "d"), "--secret-file", str(tmp_path / "s"))
    refused(result, 2, f"cannot listen on {address}: another process listens there already")


def test_a_directory_in_use_and_damaged_data(tmp_path: Path) -> None:
    with Cluster(1, directory=tmp_path / "c") as cluster:
        (node,) = cluster.nodes
        options = ("--data-dir", str(node.data), "--secret-file", str(cluster.secret_file), "--listen", "127.0.0.1:0")
        refused(serve(*options), 4, "in use by another process")
        with cluster.client() as client:
            client.open()
            lock = client.attach("Lock", "a")
            for _ in range(5):
                client.call(lock, "acquire", True, 1)
                client.call(lock, "release", None)
        node.kill()
        segment = next(path for path in sorted(node.data.iterdir()) if path.name.startswith("log-"))
        data = bytearray(segment.read_bytes())
        data[600:700] = bytes(100)
        segment.write_bytes(data)
        refused(serve(*options), 5, "takes no part until it is replaced")


def test_a_disk_without_room_for_the_first_segment(tmp_path: Path) -> None:
    """The first start on a full disk ends like a later one: with the disk's exit code and one sentence."""
    command = [sys.executable, "-m", "replicas.cli", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data")]
    small = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))"
    refused(run(["-c", f"{small}; os.execv(sys.argv[1], sys.argv[1:])", *command], {}), 3, "File too large")


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("00" * 32)
    secret.chmod(0o644)
    result = serve("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "d"), "--secret-file", str(secret))
    refused(result, 2, "chmod 600")


def test_the_secret_is_made_for_its_user_alone(tmp_path: Path) -> None:
    """On the first start, in a folder that nobody else can enter, where clients of this user look as well."""
    with Cluster(1, directory=tmp_path / "c") as cluster:
        cluster.nodes[0].kill()
        home = tmp_path / "home"
        environment = {"XDG_CONFIG_HOME": str(home), "XDG_STATE_HOME": str(home / "state")}
        arguments = [sys.executable, "-m", "replicas.cli", "--listen", "127.0.0.1:0"]
        with subprocess.Popen(
            arguments,
            cwd=ROOT,
            env={**cluster.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = re.search(r"at (\S+), durable", line)
            assert address is not None, line
            secret = home / "dthreading" / "secret"
            assert stat.S_IMODE(secret.stat().st_mode) == 0o600
            assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
            status = run(
                ["-m", "dthreading.cli", "status", "--json", "--servers", address[1]], {"XDG_CONFIG_HOME": str(home)}
            )
            assert json.loads(status.stdout)["replicas"][0]["sessions"] == 0
            wrong = run(["-m", "dthreading.cli", "status", "--servers", address[1], "--secret-file", "/none"], {})
            assert wrong.returncode == 1
            assert "cannot be read" in wrong.stderr
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT_S) == 0


def test_another_package_named_replicas_is_named() -> None:
    """Two distributions may own one top-level package, and pip says nothing."""
    program = (
        "import replicas, sys; replicas.__version__ = {}; from replicas import cli;"
        "from replicas.daemon import distribution;"
        "distribution.version = lambda: '0.1.0'; sys.exit(cli.main([]))"
    )
    for version in ("'0.2.0'", "None"):
        result = run(["-c", program.format(version)], {})
        refused(result, 2, str(ROOT / "replicas" / "__init__.py"))
        assert version.strip("'") in result.stderr


def test_the_version_is_the_same_wherever_it_is_written() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert replicas.__version__ == dthreading.__version__ == project["version"]


def test_version_and_help() -> None:
    assert serve("--version").stdout.startswith("dthreading-server ")
    client = run(["-m", "dthreading.cli", "--version"], {})
    assert client.stdout == f"dthreading {replicas.__version__}\n"
    help_text = serve("--help").stdout
    assert "exit codes:" in help_text
    assert "--data-dir" in help_text


def test_systemd_and_json_logs(tmp_path: Path) -> None:
    """READY when it serves, STOPPING when it was asked to end; each log line is one JSON object."""
    supervisor = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(supervisor))
        notified.settimeout(TIMEOUT_S)
        cluster = Cluster(1, directory=tmp_path / "c", options=("--log-json",))
        cluster.environment["NOTIFY_SOCKET"] = str(supervisor)
        with cluster:
            assert notified.recv(4096).startswith(b"READY=1")
            assert cluster.nodes[0].stop() == 0
            assert notified.recv(4096) == b"STOPPING=1"
            lines = [json.loads(line) for line in cluster.nodes[0].log_text().splitlines()]
    assert {"time", "level", "replica", "text"} <= set(lines[0])


# --- dthreading status, dthreading locks


@pytest.fixture(scope="module")
def busy() -> Iterator[Cluster]:
    """A group of three where one client holds a lock and another waits for it."""
    with Cluster(3) as cluster, cluster.client() as holder, cluster.client() as waiter:
        holder.open(60_000, label="holder.py on here, pid 1")
        holder.call(holder.attach("Lock", "orders"), "acquire", True, 1)
        holder.call(holder.attach("Queue", "work", 0, False), "put", True, b"x", None)
        waiter.open(60_000, label="waiter\x1b[31m.py")
        waiter.say(Call(waiter.session, 0, 1, waiter.attach("Lock", "orders"), "acquire", (True, 1), True))
        assert waiter.expect(Reply).status == Status.PARKED
        yield cluster


def ask(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(["-m", "dthreading.cli", *arguments], cluster.client_environment())


def test_status_is_a_line_for_each_replica(busy: Cluster) -> None:
    result = ask(busy, "status")
    assert result.returncode == 0, result.stderr
    header, *rows = result.stdout.splitlines()
    assert header.split()[:4] == ["REPLICA", "ADDRESS", "ROLE", "BALLOT"]
    assert [row.split()[1] for row in rows] == [node.address for node in busy.nodes]
    assert sorted(row.split()[2] for row in rows) == ["follower", "follower", "leader"]


def test_locks_shows_holders_and_waiters_in_order(busy: Cluster) -> None:
    result = ask(busy, "locks", "orders")
    assert result.returncode == 0, result.stderr
    _, held, waiting = result.stdout.splitlines()
    assert held.split()[:4] == ["Lock", "orders", "test", "fence=1"]
    assert "holder.py on here, pid 1 (session " in held
    assert waiting.strip().startswith(r"1. waiter\x1b[31m.py (session "), "a label cannot move the cursor"
    assert "work" not in result.stdout


def test_locks_as_json(busy: Cluster) -> None:
    objects = json.loads(ask(busy, "locks", "--json").stdout)["objects"]
    lock = next(known for known in objects if known["name"] == "orders")
    assert [waiter["label"] for waiter in lock["waiters"]] == ["waiter\x1b[31m.py"]
    assert {known["kind"] for known in objects} == {"Lock", "Queue"}


def test_a_replica_that_is_down_is_named() -> None:
    with Cluster(3) as cluster:
        leader = cluster.leader()
        victim = next(node for node in cluster.nodes if node is not leader)
        victim.kill()
        result = ask(cluster, "status")
        assert result.returncode == 1
        assert f"{victim.address} did not answer: Connection refused" in result.stderr
        (row,) = [row for row in result.stdout.splitlines() if victim.address in row]
        assert "unreachable" in row
        answers = json.loads(ask(cluster, "status", "--json").stdout)["replicas"]
        assert ["error" in answer for answer in answers] == [node is victim for node in cluster.nodes]
        assert ask(cluster, "locks").returncode == 0


def test_objects_that_are_not_listed_are_told_of() -> None:
    """Nobody should take the thousand that fit an answer for all that there are."""
    with Cluster(1) as cluster, cluster.client() as client:
        client.open(60_000)
        client.call([client.attach("Event", f"event {number}") for number in range(1001)][-1], "is_set")
        some = ask(cluster, "locks")
        assert len(some.stdout.splitlines()) == 1 + 1000
        assert "1000 objects of 1001 are listed" in some.stderr
        named = ask(cluster, "locks", "event")
        assert "1000 objects are listed, and no more fit an answer" in named.stderr
        assert ask(cluster, "locks", "event 10").stderr == ""


def test_a_replica_without_a_leader_is_named() -> None:
    """It answers, and nothing can be decided: that must not look as if all were well."""
    with Cluster(3) as cluster:
        survivor, *others = cluster.nodes
        for node in others:
            node.kill()
        cluster.until(lambda: survivor.ask("status")["leader"] is None)
        result = ask(cluster, "status")
        assert result.returncode == 1
        assert f"{survivor.address} hears no leader" in result.stderr


def test_nobody_there() -> None:
    result = run(["-m", "dthreading.cli", "locks", "--servers", "127.0.0.1:1"], {})
    assert result.returncode == 1
    assert "no replica answered" in result.stderr
    assert "127.0.0.1:1 did not answer: " in result.stderr, "the reason is what one wants to know"
    assert run(["-m", "dthreading.cli", "locks", "--servers", "127.0.0.1:x"], {}).returncode == 2
    assert run(["-m", "dthreading.cli"], {}).returncode == 2


def test_an_embedded_group_that_nobody_uses_is_no_failure_to_worry_about(tmp_path: Path) -> None:
    """It leaves when nobody uses it; that the name of its socket is not there says nothing to who asks then."""
    for command in ("status", "locks", "members list"):
        result = run(["-m", "dthreading.cli", *command.split()], {"XDG_STATE_HOME": str(tmp_path)})
        assert result.returncode == 1
        assert "the embedded local group does not run now: the next program that needs it starts it" in result.stderr
        assert "No such file" not in result.stderr
    assert not list(tmp_path.iterdir()), "asking leaves nothing behind"


# --- the embedded group


def embedded(directory: Path, idle_s: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "replicas.cli", "--embedded", str(directory), "--idle-exit", idle_s],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_embedded_group_is_elected_by_the_lock_and_leaves_when_nobody_needs_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "log").write_text("what its starter keeps beside it\n")
    with embedded(tmp_path, "0.5") as first:
        assert first.stdout is not None
        assert "ready" in first.stdout.readline()
        address = f"unix:{tmp_path / 'socket'}"
        assert stat.S_IMODE((tmp_path / "socket").stat().st_mode) == 0o600
        with Raw(address, None) as client:
            client.open(1000)
            lock = client.attach("Lock", "a")
            client.call(lock, "acquire", True, 1)
            with embedded(tmp_path, "0.5") as second:
                assert second.wait(TIMEOUT_S) == 4, "the lock is the only election"
                assert second.stderr is not None
                assert "another process" in second.stderr.read()
        # The session of the client that went away holds the lock until its lease ends; then nobody needs the group.
        assert first.wait(TIMEOUT_S) == 0
    assert not (tmp_path / "socket").exists()
    with embedded(tmp_path, "60") as third:
        assert third.stdout is not None
        assert "ready" in third.stdout.readline()
        with Raw(address, None) as client:
            client.open(1000)
            assert client.call(client.attach("Lock", "a"), "locked") is False
        third.send_signal(signal.SIGTERM)
        assert third.wait(TIMEOUT_S) == 0


def test_a_socket_that_a_killed_group_left_is_no_obstacle(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    for _ in range(2):
        with embedded(tmp_path, "60") as process:
            assert process.stdout is not None
            assert "ready" in process.stdout.readline()
            process.kill()
    assert (tmp_path / "socket").exists()


def test_an_embedded_group_whose_socket_was_taken_away_leaves(tmp_path: Path) -> None:
    """Its directory was removed under it, or its socket by whoever cleans up in /tmp: nobody new can find it, and those
    who have would not meet them. It leaves its successor's socket alone.
    """
    tmp_path.chmod(0o700)
    with embedded(tmp_path, "60") as first:
        assert first.stdout is not None
        assert "ready" in first.stdout.readline()
        with Raw(f"unix:{tmp_path / 'socket'}", None) as client:
            client.open(60_000)
            client.call(client.attach("Lock", "a"), "acquire", True, 1)
            first.send_signal(signal.SIGSTOP)
            shutil.rmtree(tmp_path / "replica")
            (tmp_path / "socket").unlink()
            with embedded(tmp_path, "60") as second:
                assert second.stdout is not None
                assert "ready" in second.stdout.readline()
                first.send_signal(signal.SIGCONT)
                try:
                    assert first.wait(TIMEOUT_S) == 0
                    with Raw(f"unix:{tmp_path / 'socket'}", None) as other:
                        other.open(1000)
                finally:
                    first.kill()
                    second.kill()


def test_the_embedded_group_needs_a_private_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    result = serve("--embedded", str(tmp_path))
    assert result.stdout == result.stderr, "its starter reads the one, and keeps the other in a file that may be full"
    result.stdout = ""
    refused(result, 2, "chmod 700")
