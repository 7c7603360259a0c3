# SPDX-License-Identifier: Apache-2.0
"""Settings: where they come from, who wins, and the one sentence for each bad value."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dthreading import config
from dthreading.errors import WrongGroup


@pytest.fixture(autouse=True)
def unbound(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for setting in config.SETTINGS:
        if setting.variable:
            monkeypatch.delenv(setting.variable, raising=False)
    config.unbind()
    yield
    config.unbind()


def test_without_anything_the_group_is_the_embedded_one_and_the_namespace_the_script(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "program.py"
    script.touch()
    monkeypatch.setattr(sys, "argv", [str(script)])
    settings = config.current()
    assert settings.embedded
    assert settings.namespace == os.path.realpath(script)
    assert (settings.lease, settings.patience) == (10.0, 2.0)
    assert not config.is_configured()


def test_the_namespace_of_a_script_in_a_folder_whose_name_is_no_text(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    monkeypatch.setattr(sys, "argv", [str(folder / "program.py")])
    (folder / "program.py").touch()
    assert config.current().namespace == rf"{tmp_path}/caf\udce9/program.py"


ELSEWHERE = """
import multiprocessing, os
from dthreading import config
def tell(): print(config.current().namespace, flush=True)
if __name__ == "__main__":
    config.bind() if os.environ.get("EARLY") else None
    os.chdir("/")
    child = multiprocessing.get_context("spawn").Process(target=tell)
    child.start()
    child.join()
    tell()
"""


@pytest.mark.parametrize("early", ["", "1"])
def test_a_program_that_goes_to_another_folder_keeps_its_namespace(tmp_path: Path, early: str) -> None:
    """It is the same program as one that has not gone yet, or as its own child: their locks must be the same."""
    script = tmp_path / "program.py"
    script.write_text(ELSEWHERE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "EARLY": early}
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [os.path.realpath(script)] * 2


def test_a_program_whose_folder_was_removed_has_a_namespace(tmp_path: Path) -> None:
    code = f"import os, sys; os.rmdir({str(tmp_path)!r}); sys.path[:] = {sys.path!r}; from dthreading import config"
    command = [sys.executable, "-c", f"{code}; print(config.current().namespace)"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "/-c\n"), done.stderr


def test_the_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTHREADING_SERVERS", "a:1,b:2")
    monkeypatch.setenv("DTHREADING_LEASE", "5")
    assert config.current().servers == ("a:1", "b:2")
    assert config.current().namespace == ""
    config.configure(servers=["c:3", "d:4"], lease=7)
    settings = config.current()
    assert (settings.servers, settings.lease) == (("c:3", "d:4"), 7.0)
    assert config.is_configured()


def test_what_is_left_out_stays_as_it_is() -> None:
    config.configure(servers="a:1", namespace="tests")
    config.configure(lease=3)
    settings = config.current()
    assert (settings.servers, settings.namespace, settings.lease) == (("a:1",), "tests", 3.0)


def test_children_find_it_in_their_environment() -> None:
    config.configure(servers=["c:3", "d:4"], namespace="shared", lease=7, patience=0.5, secret="/some/file")
    code = "from dthreading import config; s = config.current(); print(s.servers, s.namespace, s.lease, s.secret)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "('c:3', 'd:4') shared 7.0 /some/file"


def test_another_group_after_the_first_use_is_an_error_and_changes_nothing() -> None:
    config.configure(servers="a:1")
    config.bind()
    config.configure(servers="a:1", lease=4)
    with pytest.raises(WrongGroup, match="before any lock"):
        config.configure(servers="b:1")
    assert config.current().servers == ("a:1",)
    assert os.environ["DTHREADING_SERVERS"] == "a:1"
    assert config.current().lease == 4.0


def test_a_dns_name_without_dnspython_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call would wait for ever: nothing that anybody could start would help it."""
    monkeypatch.setitem(sys.modules, "dns", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"needs dnspython: pip install dthreading\[dns\], or give"):
        config.configure(servers="a:1,locks.example.org")
    config.configure(servers="a:1,unix:/b")


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("DTHREADING_SERVERS", "host:port", "is not host:port"),
        ("DTHREADING_SERVERS", "a:1,,b:2", "is not host:port"),
        ("DTHREADING_SERVERS", "a:99999", "is not host:port"),
        ("DTHREADING_SERVERS", "a b", "is not host:port"),
        ("DTHREADING_SERVERS", "127.0.0.1", "has no port"),
        ("DTHREADING_SERVERS", "a:1,10.0.0.7", "has no port"),
        ("DTHREADING_LEASE", "soon", "is not a number of seconds"),
        ("DTHREADING_LEASE", "nan", "is not a number of seconds"),
        ("DTHREADING_LEASE", "0.1", "a lease is from 0.5"),
        ("DTHREADING_PATIENCE", "-1", "is not a number of seconds"),
        ("DTHREADING_NAMESPACE", "x" * 2000, "NAME_BYTES_MAX"),
    ],
)
def test_a_bad_value_is_named_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=sentence) as error:
        config.current()
    assert variable in str(error.value)


@pytest.mark.parametrize("namespace", [3, b"tests"])
def test_a_namespace_is_text(namespace: object) -> None:
    """Else what names it would be met much later, in the middle of a call."""
    with pytest.raises(TypeError, match=f"namespace must be a str, not {type(namespace).__name__}"):
        config.configure(namespace=namespace)  # type: ignore[arg-type]
    assert "DTHREADING_NAMESPACE" not in os.environ


def test_a_bad_on_lost_is_refused() -> None:
    with pytest.raises(ValueError, match="neither a callable"):
        config.configure(on_lost="panic")
    config.configure(on_lost="interrupt")
    assert config.current().on_lost == "interrupt"


@pytest.mark.parametrize("servers", ["unix:/run/x", "[::1]:7450", "localhost:7450", "locks.example.org", "10.0.0.1:1"])
def test_all_forms_of_servers_are_understood(servers: str) -> None:
    config.configure(servers=servers)
    assert config.current().servers == (servers,)
