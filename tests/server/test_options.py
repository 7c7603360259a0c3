# SPDX-License-Identifier: Apache-2.0
"""What an operator may write, and the sentence that answers what he may not."""

from __future__ import annotations

import pwd
import socket
from pathlib import Path

import pytest

from replicas.daemon import listening
from replicas.daemon.address import Address, BadOptions
from replicas.daemon.options import parse

THREE = "127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003"


def test_without_options_it_is_one_durable_replica_on_loopback(tmp_path: Path) -> None:
    options = parse([], {"XDG_STATE_HOME": str(tmp_path)})
    assert str(options.listen) == "127.0.0.1:7450"
    assert options.listen.is_local
    assert options.cluster == (options.listen,)
    assert options.replica == 1
    assert not options.memory
    assert options.data_dir == tmp_path / "dthreading" / "server"


def test_the_id_of_a_replica_is_its_place_in_the_list() -> None:
    options = parse(["--cluster", THREE, "--listen", "127.0.0.1:7002", "--memory"], {})
    assert options.replica == 2
    assert [str(member) for member in options.cluster] == THREE.split(",")


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "replica.toml"
    file.write_text(
        'listen = "127.0.0.1:7003"\ncluster = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"]\n'
        'data-dir = "/somewhere"\nlease = 3\nlog-json = true\n'
    )
    options = parse(["--config", str(file), "--listen", "127.0.0.1:7001"], {})
    assert options.replica == 1
    assert options.data_dir == Path("/somewhere")
    assert options.lease_s == 3.0
    assert options.log_json


def test_embedded_is_one_durable_replica_on_a_socket_in_its_own_directory(tmp_path: Path) -> None:
    options = parse(["--embedded", str(tmp_path), "--idle-exit", "1.5"], {})
    assert options.embedded
    assert options.data_dir.parent == tmp_path
    assert Path(options.listen.path).parent == tmp_path
    assert options.idle_exit_s == 1.5


def test_a_bound_socket_says_its_own_address() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        options = parse(["--listen-fd", str(bound.fileno())], {})
        assert (options.listen.host, options.listen.port) == bound.getsockname()


@pytest.mark.parametrize(
    ("text", "host", "port", "path"),
    [
        ("127.0.0.1:7450", "127.0.0.1", 7450, ""),
        ("localhost:0", "localhost", 0, ""),
        ("[::1]:7450", "::1", 7450, ""),
        ("unix:/run/x.sock", "", 0, "/run/x.sock"),
    ],
)
def test_addresses_are_read_and_written_alike(text: str, host: str, port: int, path: str) -> None:
    address = Address.parse(text)
    assert address == Address(host, port, path)
    assert str(address) == text
    assert address.is_local


NO_ADDRESSES = ["", "7450", "127.0.0.1", "127.0.0.1:70000", "::1:7450", "unix:x", "a:b:1", "h:-1", "unix:/\udcff"]
"""The last one is a path that is not UTF-8: no other replica, and no client, could be told of it."""


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_no_address_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadOptions, match="is not an address"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--listen", "0.0.0.0:7450"], "loopback only"),
        (["--listen", "[::]:7450"], "loopback only"),
        (["--listen", "example.org:7450"], "loopback only"),
        (["--cluster", "127.0.0.1:7450,127.0.0.1:7451"], "1, 3, 5 or 7"),
        (["--cluster", "127.0.0.1:7450,127.0.0.1:7450,127.0.0.1:7451"], "names an address twice"),
        (["--cluster", THREE], "is not one of the members"),
        (["--cluster", THREE.replace("7002", "0"), "--listen", "127.0.0.1:7001"], "needs real ports"),
        (["--cluster", THREE.replace("127.0.0.1:7003", "10.0.0.1:1"), "--listen", "127.0.0.1:7001"], "loopback only"),
        (["--memory", "--data-dir", "/x"], "goes without --data-dir"),
        (["--embedded", "/x", "--memory"], "goes without --memory"),
        (["--embedded", "/x", "--cluster", THREE], "goes without --cluster"),
        (["--lease", "0.1"], "out of range"),
        (["--lease", "ten"], "invalid float value"),
        (["--heartbeat-ms", "1"], "too short"),
        (["--election-ms", "200", "--heartbeat-ms", "100"], "at least three times"),
        (["--connections-max", "1"], "too small"),
        (["--log-level", "loud"], "debug, info, warning, error"),
        (["--idle-exit", "0"], "more than 0"),
        (["--nonsense"], "--help` lists the options"),
        (["--config", "/does/not/exist.toml"], "No such file"),
        (["--listen-fd", "9999"], "not a bound socket"),
    ],
)
def test_each_mistake_has_its_sentence(argv: list[str], sentence: str) -> None:
    with pytest.raises(BadOptions) as refusal:
        parse(argv, {})
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("listen = 3", "must be a string"),
        ("lease = '3'", "must be a number"),
        ("memory = 1", "must be true or false"),
        ("heartbeat-ms = 1.5", "must be a whole number"),
        ("cluster = [1]", "must be a string"),
        ("lisen = 'x'", "unknown key 'lisen'"),
        ("config = 'x'", "unknown key 'config'"),
        ("= 3", "not a TOML file"),
    ],
)
def test_each_mistake_in_the_file_names_the_file(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "replica.toml"
    file.write_text(text)
    with pytest.raises(BadOptions) as refusal:
        parse(["--config", str(file)], {})
    assert sentence in str(refusal.value)
    assert str(file) in str(refusal.value)


def test_a_user_without_a_home_is_told_what_to_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that runs under a number, as some do: nobody knows where its user keeps things."""

    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(BadOptions, match="no home directory: name one with --data-dir"):
        parse([], {})
    with pytest.raises(BadOptions, match="no home directory: name the secret's place with --secret-file"):
        listening.secret(parse(["--data-dir", "/d"], {}))
