# SPDX-License-Identifier: Apache-2.0
"""Replicas as real processes: start some, kill them, start them again, ask who leads. For all tests of a real group.

Ports are the operating system's choice and stay ours while a replica is down: a socket of this process keeps each one
bound (with SO_REUSEPORT, never listening, so it gets no connections), and every start hands a fresh one to the replica.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from dthreading.wire import auth
from dthreading.wire.messages import Role
from tests.server.raw import Raw, Refused

ROOT = Path(__file__).resolve().parents[2]
READY_S = 30.0
"""For one process to come up; twenty times what it takes on an idle machine."""


class Node:
    """One replica: a data directory, an address that stays, and a process or none."""

    def __init__(self, cluster: Cluster, number: int, joins: str = "") -> None:
        self.cluster = cluster
        self.number = number
        self.joins = joins
        """The members that it asks to let it in; "" for one that the group is formed with."""
        self.options: tuple[str, ...] = ()
        self.program = "replicas.cli"
        """The module that is run."""
        self.process: subprocess.Popen[str] | None = None
        self.ready_line = ""
        self.id_known = 0 if joins else number
        """What the group calls it; for one that came later, once it was asked for its status."""
        self.log = cluster.directory / f"replica-{number}.log"
        self.data = cluster.directory / f"replica-{number}"
        self._reservation = _bound(0)
        self.address = "{}:{}".format(*self._reservation.getsockname())

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, *, wait: bool = True) -> Node:
        """Start the process; with `wait`, until it says that it is ready."""
        assert not self.running
        listening = self.listening()
        arguments = [sys.executable, "-m", self.program, "--listen-fd", str(listening.fileno())]
        arguments += ["--cluster", self.cluster.servers] if self.cluster.size > 1 and not self.joins else []
        arguments += ["--join", self.joins] if self.joins else []
        arguments += ["--memory"] if self.cluster.memory else ["--data-dir", str(self.data)]
        arguments += ["--secret-file", str(self.cluster.secret_file), *self.cluster.options, *self.options]
        with listening, self.log.open("a") as log:
            self.process = subprocess.Popen(
                arguments,
                cwd=ROOT,
                env=self.cluster.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                pass_fds=[listening.fileno()],
                start_new_session=True,
            )
        if wait:
            self.wait_ready()
        return self

    def listening(self) -> socket.socket:
        """A socket for a process that is to listen at this address."""
        return _bound(self._reservation.getsockname()[1])

    def wait_ready(self) -> None:
        """Until its line on standard output has come."""
        assert self.process is not None
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(READY_S):
                raise TimeoutError(f"replica {self.number} is not ready after {READY_S} s\n{self.log_text()}")
        self.ready_line = self.process.stdout.readline().strip()
        if not self.ready_line:
            code = self.process.wait()
            raise RuntimeError(f"replica {self.number} ended with code {code}\n{self.log_text()}")

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, and wait: returns the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Until the process has ended: its exit code."""
        assert self.process is not None
        try:
            code = self.process.wait(READY_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"replica {self.number} did not end\n{self.log_text()}") from None
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None
        return code

    def log_text(self) -> str:
        """What it has logged so far, over all its starts."""
        return self.log.read_text() if self.log.exists() else ""

    def ask(self, question: str, *arguments: object, timeout_s: float = 5.0) -> Any:
        """An operator's question to this replica alone."""
        with Raw(self.address, self.cluster.secret, Role.ADMIN, timeout_s) as raw:
            answer = raw.ask(question, *arguments)
        if question == "status":
            self.id_known = answer["replica"]
        return answer

    def release(self) -> None:
        """Give the address back."""
        self._reservation.close()


class Cluster:
    """A group of replicas; a context manager that leaves nothing running.

    Args:
        size: 1, 3, 5 or 7.
        directory: where data, logs and the secret go; None: a temporary one, removed at the end.
        memory: keep nothing on disk.
        options: further options for every replica.

    """

    def __init__(
        self, size: int = 3, *, directory: Path | None = None, memory: bool = False, options: tuple[str, ...] = ()
    ) -> None:
        self.size = size
        self.memory = memory
        self.options = options
        self._temporary = directory is None
        self.directory = Path(tempfile.mkdtemp(prefix="dthreading-")) if directory is None else directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.secret_file = self.directory / "secret"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DTHREADING_")},
            "PYTHONPATH": str(ROOT),
        }
        self.nodes = [Node(self, number) for number in range(1, size + 1)]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start all replicas, and wait until each is ready."""
        try:
            for node in self.nodes:
                node.start(wait=False)
            for node in self.nodes:
                node.wait_ready()
        except BaseException:
            self.close()
            raise

    def stop(self) -> list[int]:
        """SIGTERM to all at once; their exit codes."""
        running = [node for node in self.nodes if node.running]
        for node in running:
            node.signal(signal.SIGTERM)
        return [node.wait() for node in running]

    def kill(self) -> None:
        """SIGKILL to all at once: the machine room has lost its power."""
        for node in self.nodes:
            if node.running:
                node.signal(signal.SIGKILL)
        for node in self.nodes:
            if node.process is not None:
                node.wait()

    def close(self) -> None:
        """Kill what runs and remove what was made."""
        self.kill()
        for node in self.nodes:
            node.release()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def servers(self) -> str:
        """What DTHREADING_SERVERS and --cluster take: those that the group was formed with."""
        return ",".join(node.address for node in self.nodes if not node.joins)

    @property
    def secret(self) -> bytes:
        return auth.load_secret(self.secret_file)

    def client_environment(self, **more: str) -> dict[str, str]:
        """The environment of a client process of this group."""
        here = {"DTHREADING_SERVERS": self.servers, "DTHREADING_SECRET_FILE": str(self.secret_file)}
        return {**self.environment, **here, **more}

    def leader(self, timeout_s: float = READY_S) -> Node:
        """The replica that leads, as most of the running ones see it; waits until there is one."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            views: dict[int, Node] = {}
            votes: list[int] = []
            members = 1
            for node in self.nodes:
                if node.running:
                    with contextlib.suppress(OSError, EOFError, Refused):
                        status = node.ask("status", timeout_s=1.0)
                        views[status["replica"]] = node
                        votes.append(status.get("leader") or 0)
                        members = len(status["servers"])
            for number in set(votes) - {0}:
                if votes.count(number) > members // 2 and number in views:
                    return views[number]
            # Not for synchronisation: the question is asked again, and an answer is what ends the loop.
            time.sleep(0.02)
        logs = "\n".join(node.log_text()[-2000:] for node in self.nodes)
        raise TimeoutError(f"no leader after {timeout_s} s\n{logs}")

    def newcomer(self, joins: str = "", *options: str) -> Node:
        """Another replica, not started: it will ask those of `joins` (all that run now) to let it in."""
        running = ",".join(node.address for node in self.nodes if node.running)
        node = Node(self, max(node.number for node in self.nodes) + 1, joins or running)
        node.options = options
        self.nodes.append(node)
        return node

    def members(self, *arguments: str, servers: str = "", timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """`dthreading members ...`, asked of those that run."""
        servers = servers or ",".join(node.address for node in self.nodes if node.running)
        return subprocess.run(
            [sys.executable, "-m", "dthreading.cli", "members", *arguments],
            env=self.client_environment(DTHREADING_SERVERS=servers),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def until(self, condition: Callable[[], object], timeout_s: float = READY_S) -> None:
        """Ask again and again until it is so. An error of the connection counts as not yet."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, EOFError):
                if condition():
                    return
            time.sleep(0.02)
        logs = "\n".join(node.log_text()[-2000:] for node in self.nodes)
        raise TimeoutError(f"not so after {timeout_s} s\n{logs}")

    def client(self, node: Node | None = None, timeout_s: float = 20.0) -> Raw:
        """A raw client connection, to the leader unless said otherwise."""
        return Raw((node or self.leader()).address, self.secret, timeout_s=timeout_s)


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock
