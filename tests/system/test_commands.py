# SPDX-License-Identifier: Apache-2.0
"""The commands and the messages of mistakes, as a person at a terminal meets them: one clear sentence each."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.cluster import ROOT, Cluster, Node
from tests.system.programs import PATIENCE_S, Group, Programs


def run(group: Group, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=group.environment(**environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def refusal(node: Node, servers: str = "", data: Path | None = None) -> str:
    """What a server says that refuses to start at this node's address: one line."""
    with node.listening() as listening:
        arguments = ["--listen-fd", str(listening.fileno()), "--data-dir", str(data or node.data)]
        arguments += ["--secret-file", str(node.cluster.secret_file), *(["--cluster", servers] if servers else [])]
        done = subprocess.run(
            [sys.executable, "-m", "replicas.cli", *arguments], cwd=ROOT, capture_output=True, text=True,
            timeout=PATIENCE_S, check=False, pass_fds=[listening.fileno()],
        )  # fmt: skip
    assert done.returncode not in {0, 1}, done.stderr
    assert not done.stdout
    last = done.stderr.splitlines()[-1]
    assert last.startswith("dthreading-server: ")
    assert "Traceback" not in done.stderr
    return last


def test_who_holds_and_who_waits_is_shown_with_process_ids(group: Group, start: Programs) -> None:
    """`kill` needs something to work with."""
    lines = "lock = threading.Lock(name='orders'); say('begins'); lock.acquire(); say('holds'); told()"
    holder = start(lines, script="holder")
    holder.hears("begins", "holds")
    waiters = []
    for number in (1, 2):
        waiters.append(start(lines, script=f"waiter{number}"))
        group.until_waiting("orders", number)
    start("queue.PriorityQueue(3, name='work').put((1, 'x'))", script="putter").ends()
    done = run(group, "dthreading.cli", "locks", "orders")
    assert done.returncode == 0, done.stderr
    header, *rows = [row for row in done.stdout.splitlines() if "orders" in row or row.startswith((" ", "KIND"))]
    assert header.split()[0] == "KIND"
    assert re.search(rf"Lock +orders .*holder\.py \S+:{holder.pid} \(session \d+\)", rows[0]), rows[0]
    for number, (row, waiter) in enumerate(zip(rows[1:], waiters, strict=True), 1):
        assert re.search(rf"{number}\. waiter{number}\.py \S+:{waiter.pid} \(session \d+\) in Lock.acquire", row), row
    shown = json.loads(run(group, "dthreading.cli", "locks", "--json").stdout)["objects"]
    (lock,) = [one for one in shown if one["name"] == "orders" and one["namespace"] == group.namespace]
    assert [waiter["label"].split(":")[-1] for waiter in lock["waiters"]] == [str(one.pid) for one in waiters]
    (work,) = [one for one in shown if one["name"] == "work"]
    assert (work["kind"], work["size"], work["maxsize"]) == ("PriorityQueue", 1, 3)


def test_status_while_a_replica_is_down(group: Group) -> None:
    follower = group.followers()[0]
    follower.kill()
    done = run(group, "dthreading.cli", "status")
    assert done.returncode == 1
    assert f"{follower.address} did not answer: Connection refused" in done.stderr
    assert sum("leader" in row for row in done.stdout.splitlines()) == 1


def test_a_client_with_another_secret_is_told_so(group: Group, start: Programs, tmp_path: Path) -> None:
    secret = tmp_path / "other-secret"
    secret.write_text(secrets.token_hex(32))
    secret.chmod(0o600)
    for call in ("locked()", "acquire()"):
        program = start(
            f"""
            try:
                threading.Lock(name="x").{call}
            except threading.NotAuthenticated as error:
                assert isinstance(error, PermissionError)
                say(error)
        """,
            DTHREADING_SECRET_FILE=str(secret),
        )
        assert "secret" in program.hears()
        program.ends(complains=None)
        assert "Traceback" not in program.complaints()
    done = run(group, "dthreading.cli", "status", DTHREADING_SECRET_FILE=str(secret))
    assert done.returncode == 1
    assert done.stderr.count("did not answer: the server could not prove that it knows this client's secret") == 3
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["missing", "readable by others", "nonsense"])
def test_a_secret_that_cannot_be_used(start: Programs, tmp_path: Path, kind: str) -> None:
    """The sentence names the file, and what to do."""
    secret = tmp_path / "secret"
    if kind != "missing":
        secret.write_text("not hex" if kind == "nonsense" else secrets.token_hex(32))
        secret.chmod(0o644 if kind == "readable by others" else 0o600)
    program = start(
        """
        try:
            threading.Lock(name="x").acquire()
        except threading.NotAuthenticated as error:
            say(error)
    """,
        DTHREADING_SECRET_FILE=str(secret),
    )
    said = program.hears()
    assert str(secret) in said
    assert {"missing": "DTHREADING_SECRET_FILE", "readable by others": "chmod 600", "nonsense": "secret"}[kind] in said
    program.ends(complains=None)


@pytest.fixture
def web_server() -> Iterator[str]:
    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield "{}:{}".format(*server.server_address)
        server.shutdown()
        thread.join()


def test_something_else_listens_at_the_address(start: Programs, web_server: str) -> None:
    program = start(
        """
        try:
            threading.Lock(name="x").locked()
        except threading.DThreadingError as error:
            say(type(error).__name__, error)
    """,
        DTHREADING_SERVERS=web_server,
        DTHREADING_LEASE="1",
    )
    said = program.hears()
    assert said.startswith(("ProtocolError", "GroupUnreachable"))  # it answers nonsense, or waits for a line
    assert web_server in said
    program.ends(complains=None)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DTHREADING_SERVERS", "localhost:port"),
        ("DTHREADING_SERVERS", "127.0.0.1:7450;127.0.0.1:7451"),
        ("DTHREADING_LEASE", "soon"),
        ("DTHREADING_LEASE", "0.01"),
        ("DTHREADING_PATIENCE", "-1"),
        ("DTHREADING_REDELIVER", "yes"),
    ],
)
def test_a_setting_that_cannot_be_used(start: Programs, variable: str, value: str) -> None:
    program = start(
        """
        try:
            items = queue.Queue(name="q")
            items.qsize()
        except ValueError as error:
            say(error)
    """,
        **{variable: value},
    )
    said = program.hears()
    assert variable in said
    assert value in said
    program.ends()


def test_who_waits_for_a_group_that_is_not_there_hears_of_it(start: Programs) -> None:
    """A wrong address, or replicas that were not started: a program must not hang in silence."""
    program = start(
        """
        import logging
        class Say(logging.Handler):
            def emit(self, record):
                say(record.name, record.levelname, record.getMessage())
        logging.getLogger().addHandler(Say())
        threading.Lock(name="x").acquire()
    """,
        DTHREADING_SERVERS="127.0.0.1:1",
        DTHREADING_LEASE="0.5",
    )
    said = program.hears()
    assert said.startswith("dthreading WARNING ")
    assert "127.0.0.1:1" in said
    program.kill()


def test_mistakes_with_the_members_are_told(tmp_path: Path) -> None:
    """Another list than the group was formed with, another's data, one directory for two."""
    with Cluster(3) as cluster:
        cluster.leader()
        first, second, third = cluster.nodes
        assert f"{first.data} is in use by another process" in refusal(second, data=first.data)
        cluster.kill()
        a, b, c = (node.address for node in cluster.nodes)
        said = refusal(first)
        assert str(first.data) in said
        assert all(address in said for address in (a, b, c)), said
        said = refusal(first, f"{a},{b},127.0.0.1:9")
        assert str(first.data) in said
        assert c in said
        said = refusal(first, f"{b},{a},{c}")
        assert str(first.data) in said
        shutil.copytree(first.data, tmp_path / "copy")
        assert "is that of replica 1" in refusal(third, cluster.servers, tmp_path / "copy")


def test_replicas_with_different_secrets_never_form_a_group_and_say_why(tmp_path: Path) -> None:
    """Both logs name the other one and the secret."""
    with contextlib.ExitStack() as stack:
        cluster = Cluster(3)
        stack.callback(cluster.close)
        other = Cluster(1)
        stack.callback(other.close)
        other.nodes[0].start()
        for node in cluster.nodes[:2]:
            node.start()
        shutil.copy(other.secret_file, tmp_path / "secret")
        cluster.secret_file, kept = tmp_path / "secret", cluster.secret_file
        third = cluster.nodes[2].start()
        cluster.secret_file = kept
        cluster.until(lambda: "secret" in third.log_text() and third.address in cluster.nodes[0].log_text())
        assert cluster.nodes[0].ask("status")["role"] == "forming"
        assert "Traceback" not in third.log_text()
        assert third.stop() == 0


def test_a_server_that_is_interrupted_while_it_forms_ends_at_once() -> None:
    cluster = Cluster(3)
    try:
        (first, *_) = cluster.nodes
        first.start()
        first.signal(signal.SIGINT)
        assert first.wait() == 0
        first.start()
    finally:
        cluster.close()
