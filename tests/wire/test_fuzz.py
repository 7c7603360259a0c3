# SPDX-License-Identifier: Apache-2.0
"""CI's share of the fuzzing: all targets by seeds in a process with little memory, each by hypothesis, and proof that a
fault would be found and named.

FUZZ_FRAMES in the environment is how many frames the process tries; for more, `python -m tests.wire.fuzz`.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dthreading.errors import ProtocolError
from dthreading.wire import codec
from dthreading.wire.messages import Status
from replicas.daemon.address import BadOptions
from replicas.replica import messages as peers
from tests.wire import fuzz, fuzz_absurd, fuzz_states, fuzz_targets

ROOT = Path(__file__).resolve().parent.parent.parent
FRAMES = int(os.environ.get("FUZZ_FRAMES") or 60_000)

EXAMPLES = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


def test_only_the_one_error_escapes_in_little_memory() -> None:
    """Ten times what the process needs would be half of what one hostile frame once took."""
    command = [sys.executable, "-m", "tests.wire.fuzz", "--frames", str(FRAMES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110 + FRAMES // 500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 cases failed, seed 0, at most " in done.stdout


@pytest.mark.parametrize("name", list(fuzz_targets.STATELESS))
def test_hypothesis_finds_nothing_either(name: str) -> None:
    """It draws each choice by itself, edges first, and would show the smallest case."""
    target = fuzz_targets.STATELESS[name]

    @settings(EXAMPLES, max_examples=40)
    @given(st.randoms(use_true_random=False))
    def hold(luck: random.Random) -> None:
        target(luck)

    hold()


@given(st.binary(max_size=300), st.sampled_from(list(fuzz_targets.CODECS)))
@settings(EXAMPLES, max_examples=300)
def test_bare_bytes_are_judged_as_the_plain_checks_judge_them(body: bytes, name: str) -> None:
    fuzz_targets.judge(body, name)


def test_a_seed_is_a_case() -> None:
    """Twice the same, or nobody could look at what was found."""
    tables = dict(codec.TAGS)
    bodies = [fuzz_targets.words.body(random.Random(f"client-{number}"), tables) for number in range(200)]
    assert bodies == [fuzz_targets.words.body(random.Random(f"client-{number}"), tables) for number in range(200)]
    assert len(set(bodies)) > 150


def test_bytes_steer_a_case() -> None:
    """What a coverage-guided fuzzer changes is what is drawn."""
    assert fuzz.Steered(b"\1\2\3").getrandbits(16) == 0x0102
    assert fuzz.Steered(b"\0\0").random() == 0.0
    assert fuzz.Steered(b"").random() == fuzz.Steered(b"").random(), "used up, and still the same each time"
    assert {fuzz.Steered(bytes([byte]) * 50).randrange(4) for byte in range(256)} == {0, 1, 2, 3}


# --- it bites -------------------------------------------------------------------------------------------------------


def found(target: str, cases: int = 1000) -> Exception:
    """What the first case raises that finds something."""
    for number in range(cases):
        try:
            fuzz.load()[target](random.Random(f"{target}-{number}"))
        except Exception as error:
            return error
    raise AssertionError("nothing was found")


def test_another_error_of_the_decoder_is_found_and_can_be_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise KeyError("planted")

    monkeypatch.setattr(codec._codec._checks, "__missing__", refuse, raising=False)
    monkeypatch.setattr(type(codec._codec._checks), "__missing__", refuse)
    codec._codec._checks.clear()
    said: list[str] = []
    assert fuzz.run({"client": fuzz.load()["client"]}, 50, 0, said.append) > 0
    line = next(line for line in said if "again:" in line)
    assert fuzz.again(fuzz.load(), line.split()[-1]) == 1
    assert "planted" in capsys.readouterr().err


def test_a_check_that_was_forgotten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(codec._codec._checks, 15, lambda fields: codec.messages.Call._make(fields[1:8]))
    assert isinstance(found("client"), AssertionError | TypeError)


def test_a_forgotten_rule_between_replicas_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the look at what has to fit together, an IndexError gets into consensus."""
    monkeypatch.setattr(peers.codec._checks, "flaws", {})
    peers.codec._checks.clear()
    assert isinstance(found("replicas"), IndexError)
    peers.codec._checks.clear()


def test_a_thief_of_sessions_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a connection is believed before its Resume was judged, the honest client is not served for long."""
    from replicas.replica.core import Replica

    genuine = Replica.client_said

    def believing(self: Any, connection: int, message: Any, body: bytes) -> None:
        if isinstance(message, codec.messages.Resume):
            self._hosting.link(connection).session = message.session
        genuine(self, connection, message, body)

    monkeypatch.setattr(Replica, "client_said", believing)
    assert isinstance(found("clients"), AssertionError)


def test_a_replica_that_differs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that skips what it cannot decode, where the others could."""
    from replicas.machine.core import Machine

    genuine = Machine._command
    skipped: list[Machine] = []

    def forgetful(self: Machine, value: bytes) -> None:
        if self.applied == 30 and not skipped:
            skipped.append(self)
            return
        genuine(self, value)

    monkeypatch.setattr(Machine, "_command", forgetful)
    found_in = None
    for number in range(20):
        skipped.clear()
        try:
            fuzz_states.clients(random.Random(f"clients-{number}"))
        except AssertionError as error:
            found_in = str(error)
            break
    assert found_in is not None


def test_an_absurd_word_that_is_let_in_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these has ended a replica: more digits than Python reads, no address in the log, an error of 20 MB."""
    with monkeypatch.context() as planted:
        planted.setattr("replicas.replica.requests.DIGITS_MAX", 10**9)
        assert isinstance(found("absurd"), ValueError)
    with monkeypatch.context() as planted:
        planted.setattr(fuzz_absurd, "_flaw_of_address", lambda query: "")
        assert isinstance(found("absurd"), BadOptions)
    with monkeypatch.context() as planted:
        planted.setattr("replicas.machine.core._longest", lambda *words: 0)
        assert isinstance(found("absurd"), AssertionError)


def test_a_session_that_lets_another_error_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from dthreading.session import core

    monkeypatch.setattr(core, "check_reply", lambda reply: Status(reply.status))
    assert isinstance(found("servers"), ValueError)


def test_a_protocol_error_is_what_it_says() -> None:
    """The one error is no accident of a base class: msgpack's own are ValueErrors, too."""
    assert not issubclass(ValueError, ProtocolError)
