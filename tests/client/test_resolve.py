# SPDX-License-Identifier: Apache-2.0
"""From names to addresses, and who asks for them."""

from __future__ import annotations

import errno
import os
import pwd
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from dthreading import resolve
from dthreading.config import Settings
from dthreading.errors import GroupUnreachable, NotAuthenticated
from dthreading.finding import Finder
from dthreading.resolve import Endpoint


def test_numeric_addresses_and_paths_need_nobody() -> None:
    assert resolve.numeric("10.1.2.3:7") == Endpoint("10.1.2.3:7", socket.AF_INET, ("10.1.2.3", 7))
    assert resolve.numeric("localhost:7") == Endpoint("localhost:7", socket.AF_INET, ("127.0.0.1", 7))
    assert resolve.numeric("[::1]:7") == Endpoint("[::1]:7", socket.AF_INET6, ("::1", 7, 0, 0))
    path = resolve.numeric("unix:/run/x")
    assert path == Endpoint("unix:/run/x", socket.AF_UNIX, "/run/x")
    assert path is not None
    assert not path.guarded
    assert resolve.numeric("replica.example.org:7") is None
    assert resolve.numeric("example.org") is None


def test_a_host_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(host: str, port: int, **_: Any) -> Any:
        assert host == "replica.example.org"
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    found = resolve.endpoints("replica.example.org:7")
    assert [endpoint.name for endpoint in found] == ["[2001:db8::1]:7", "192.0.2.1:7"]


def test_srv_records_are_taken_by_priority_and_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    import dns.rdata
    import dns.resolver

    def ask(name: str, kind: str, lifetime: float) -> Any:
        assert (name, kind) == ("_dthreading._tcp.locks.example.org", "SRV")
        texts = ["10 0 7452 192.0.2.3.", "0 1 7451 192.0.2.2.", "0 9 7450 192.0.2.1."]
        return [dns.rdata.from_text("IN", "SRV", text) for text in texts]

    monkeypatch.setattr(dns.resolver, "resolve", ask)
    found = resolve.endpoints("locks.example.org")
    assert [endpoint.name for endpoint in found] == ["192.0.2.1:7450", "192.0.2.2:7451", "192.0.2.3:7452"]


def test_without_dnspython_a_dns_name_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dns", None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "dns.exception", None)  # type: ignore[arg-type]
    with pytest.raises(GroupUnreachable, match=r"pip install dthreading\[dns\]"):
        resolve.endpoints("locks.example.org")


def test_the_finder_looks_names_up_elsewhere_and_anew_each_time(
    monkeypatch: pytest.MonkeyPatch, secret_file: Path
) -> None:
    """The caller keeps the lease alive: a name server that hangs must not stop it. And addresses move."""
    asked: list[str] = []
    woken = threading.Semaphore(0)

    def endpoints(name: str) -> list[Endpoint]:
        asked.append(threading.current_thread().name)
        return [Endpoint(f"192.0.2.{len(asked)}:7", socket.AF_INET, (f"192.0.2.{len(asked)}", 7))]

    monkeypatch.setattr(resolve, "endpoints", endpoints)
    finder = Finder(
        Settings(servers=("replica.example.org:7",), namespace="", secret=secret_file), lambda: 0.0, woken.release
    )
    for round_ in (1, 2):
        assert finder.next(0.0) is None
        assert woken.acquire(timeout=10)
        assert finder.dial_at() < float("inf")
        found = finder.next(0.0)
        assert found is not None
        assert found[0].name == f"192.0.2.{round_}:7"
        finder.failed(0.0)
    assert set(asked) == {"dthreading-resolver"}


def test_all_addresses_of_a_name_are_tried(monkeypatch: pytest.MonkeyPatch, secret_file: Path) -> None:
    """The first may be a machine that is down, and the name server gives it first each time."""
    woken = threading.Semaphore(0)
    found = [Endpoint(f"192.0.2.{n}:7", socket.AF_INET, (f"192.0.2.{n}", 7)) for n in (1, 2, 3)]
    monkeypatch.setattr(resolve, "endpoints", lambda _: found)
    settings = Settings(servers=("replica.example.org:7",), namespace="", secret=secret_file)
    finder = Finder(settings, lambda: 0.0, woken.release)
    assert finder.next(0.0) is None
    assert woken.acquire(timeout=10)
    tried = []
    for _ in found:
        endpoint, _ = finder.next(0.0) or pytest.fail("it is not known where to")
        tried.append(endpoint)
        finder.failed(0.0)
    assert tried == found


def test_a_name_that_means_nothing_is_said(monkeypatch: pytest.MonkeyPatch, secret_file: Path) -> None:
    woken = threading.Semaphore(0)

    def endpoints(name: str) -> list[Endpoint]:
        raise RuntimeError("a resolver's own error")

    monkeypatch.setattr(resolve, "endpoints", endpoints)
    finder = Finder(Settings(servers=("nowhere:7",), namespace="", secret=secret_file), lambda: 0.0, woken.release)
    assert finder.next(0.0) is None
    assert woken.acquire(timeout=10)
    with pytest.raises(GroupUnreachable, match="looking up nowhere:7 failed"):
        finder.next(0.0)


def test_a_name_server_that_hangs_keeps_no_other_server_waiting(
    monkeypatch: pytest.MonkeyPatch, secret_file: Path
) -> None:
    """The system asks it for half a minute, and a lease is shorter. What is found in the end is used all the same."""
    answered, woken = threading.Event(), threading.Semaphore(0)
    asked: list[str] = []
    found = Endpoint("192.0.2.1:7", socket.AF_INET, ("192.0.2.1", 7))

    def endpoints(name: str) -> list[Endpoint]:
        asked.append(name)
        assert answered.wait(20)
        return [found]

    monkeypatch.setattr(resolve, "endpoints", endpoints)
    settings = Settings(servers=("slow.example.org:7", "127.0.0.1:7"), namespace="", secret=secret_file)
    finder = Finder(settings, lambda: 0.0, woken.release)
    now = 100.0
    assert finder.next(now) is None
    assert now < finder.dial_at() < now + 5
    now = finder.dial_at()
    with pytest.raises(GroupUnreachable, match=r"looking up slow.example.org:7 has taken"):
        finder.next(now)
    finder.failed(now)
    other = finder.next(now)
    assert other is not None
    assert other[0].name == "127.0.0.1:7"
    finder.failed(now)
    now = finder.dial_at()
    assert finder.next(now) is None
    assert asked == ["slow.example.org:7"], "it is still being asked"
    answered.set()
    assert woken.acquire(timeout=10)
    assert finder.dial_at() <= now
    assert finder.next(now) == (found, bytes(32))


def test_a_look_up_that_no_thread_can_be_started_for_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, secret_file: Path
) -> None:
    """A program at its limit of threads: a look-up that never began would be waited for until the process ends."""
    woken = threading.Semaphore(0)
    found = Endpoint("192.0.2.1:7", socket.AF_INET, ("192.0.2.1", 7))
    monkeypatch.setattr(resolve, "endpoints", lambda _: [found])
    finder = Finder(
        Settings(servers=("replica.example.org:7",), namespace="", secret=secret_file), lambda: 0.0, woken.release
    )

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(GroupUnreachable, match=r"replica.example.org:7 failed: can't start new thread"):
            finder.next(0.0)
    finder.failed(0.0)
    assert finder.dial_at() < 1
    assert finder.next(1.0) is None
    assert woken.acquire(timeout=10)
    assert finder.next(1.0) == (found, bytes(32))


def test_a_replica_without_an_address_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that was given up has still its SRV record, and no address any more."""
    monkeypatch.setattr(resolve, "_services", lambda _: [("gone", 7), ("127.0.0.2", 7), ("127.0.0.3", 7)])
    real = socket.getaddrinfo

    def look_up(host: str, *arguments: Any, **more: Any) -> Any:
        if host == "gone":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert [found.name for found in resolve.endpoints("a.example.org")] == ["127.0.0.2:7", "127.0.0.3:7"]
    monkeypatch.setattr(resolve, "_services", lambda _: [("gone", 7), ("gone", 8)])
    with pytest.raises(GroupUnreachable, match="no address for the server gone:8"):
        resolve.endpoints("a.example.org")


def test_a_secret_that_no_descriptor_is_left_for_is_no_wrong_secret(
    monkeypatch: pytest.MonkeyPatch, secret_file: Path
) -> None:
    """What waits must not be refused for good because the process has too many files open for a moment."""
    finder = Finder(Settings(servers=("127.0.0.1:7",), namespace="", secret=secret_file), lambda: 0.0, print)

    def read(_: Path) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr("dthreading.asking.load_secret", read)
        with pytest.raises(GroupUnreachable, match="Too many open files"):
            finder.next(0.0)
    finder.failed(0.0)
    assert finder.next(1.0) is not None


def test_a_user_without_a_home_is_told_how_to_name_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run under a number that no user has."""

    def nobody(_: int) -> None:
        raise KeyError

    for variable in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    finder = Finder(Settings(servers=("127.0.0.1:7",), namespace=""), lambda: 0.0, print)
    with pytest.raises(NotAuthenticated, match="DTHREADING_SECRET_FILE"):
        finder.next(0.0)


def test_a_missing_secret_is_said_before_anybody_is_dialed(tmp_path: Path) -> None:
    finder = Finder(Settings(servers=("127.0.0.1:7",), namespace="", secret=tmp_path / "none"), lambda: 0.0, print)
    with pytest.raises(NotAuthenticated, match="DTHREADING_SECRET_FILE"):
        finder.next(0.0)


def test_a_name_stands_for_replicas_that_are_asked_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dthreading status` shows all of them, and a question to any goes on to the next when the first is down."""
    monkeypatch.setattr(resolve, "_services", lambda _: [("127.0.0.1", 7), ("127.0.0.2", 7)])
    assert list(resolve.each(("a.example.org", "10.1.2.3:7"))) == ["127.0.0.1:7", "127.0.0.2:7", "10.1.2.3:7"]

    def unknown(_: str) -> None:
        raise GroupUnreachable("no SRV records")

    monkeypatch.setattr(resolve, "_services", unknown)
    assert list(resolve.each(("a.example.org", "unix:/x"))) == ["a.example.org", "unix:/x"]
