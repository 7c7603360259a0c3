# SPDX-License-Identifier: Apache-2.0
"""The compiled checks say exactly what the plain ones (plain.py) say: the same messages, the same errors, word for
word.

SCHEMA_CASES in the environment is how many cases each class gets; what CI runs takes a few seconds.
"""

from __future__ import annotations

import os
import random
from typing import Any, NamedTuple

import pytest

from dthreading.errors import ProtocolError
from dthreading.wire.codec import TAGS
from dthreading.wire.schema import compiled, source
from replicas.daemon.peers import Introduction
from replicas.machine.commands import Audit, Delete, Expire, Reset
from replicas.paxos.messages import MESSAGES
from replicas.replica.formation import Census
from replicas.replica.messages import Account, Forward, Missed, SnapshotPart, SnapshotRequest, Vouch, Vouched
from tests.wire import fuzz_words as words
from tests.wire import plain

CASES = int(os.environ.get("SCHEMA_CASES") or 300)


class Pair(NamedTuple):
    left: int
    right: str


class Odd(NamedTuple):
    """Every sort of field there is, and some that no message of ours has yet."""

    anything: Any
    pairs: tuple[Pair, ...]
    rows: tuple[tuple[int, Pair], ...]
    many: tuple[tuple[Any, ...], ...]
    one: tuple[bytes]
    real: float
    pair: Pair


class Empty(NamedTuple):
    """No field at all."""


CLASSES: list[Any] = [
    *TAGS.values(), *MESSAGES.values(), Census, Forward, Missed, Vouch, Vouched, SnapshotRequest, SnapshotPart, Expire,
    Reset, Delete, Account, Audit, Introduction, Pair, Odd, Empty,
]  # fmt: skip


def verdict(judge: Any, *arguments: Any) -> tuple[Any, ...]:
    try:
        made = judge(*arguments)
    except ProtocolError as error:
        return "refused", str(error)
    return "taken", words.sight(made)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_compiled_and_plain_checks_agree(cls: Any) -> None:
    luck = random.Random(cls.__name__)
    accept = compiled(cls)
    seen = set()
    for _ in range(CASES):
        fields = as_unpacked(words.message(luck, cls))
        if luck.random() < 0.6:
            fields = as_unpacked(words.misfit(luck, fields))
        expected = verdict(plain.check, cls, fields)
        assert verdict(accept, (1, *fields)) == expected, fields
        seen.add(expected[0])
    assert seen == {"taken", "refused"}, "both must have been tried"


def as_unpacked(value: Any) -> Any:
    """What msgpack would give: plain tuples instead of named ones."""
    return (
        tuple(map(as_unpacked, value))
        if isinstance(value, tuple) and type(value).__module__ != "msgpack.ext"
        else value
    )


@pytest.mark.parametrize("hint", [int, str, bytes, bool, float])
def test_a_check_that_forgets_a_field_is_noticed(hint: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison bites: without one line of one check it fails."""
    from dthreading.wire import schema

    fields = [("first", Any), ("second", hint)]
    cls = NamedTuple("Forgetful", fields)  # type: ignore[misc]
    whole = source(cls)
    lines = whole.splitlines()
    place = next(at for at, line in enumerate(lines) if f"is not {hint.__name__}" in line)
    names = schema._written(cls, False)[1]
    monkeypatch.setattr(schema, "_written", lambda *_: ("\n".join(lines[:place] + lines[place + 2 :]), names))
    monkeypatch.setitem(globals(), "CASES", 50)
    with pytest.raises(AssertionError):
        test_compiled_and_plain_checks_agree(cls)


def test_nothing_is_compiled_by_importing_us() -> None:
    """A program that imports us and uses nothing pays for nothing."""
    from dthreading.wire.codec import Codec

    codec: Codec[Any] = Codec({1: Pair, 2: Odd})
    assert not codec._checks
    codec.decode(b"\x93\x01\x05\xa1x")
    assert list(codec._checks) == [1]
