# SPDX-License-Identifier: Apache-2.0
"""Packers are kept and used again, by one call at a time: threads, and calls inside calls, never meet in one buffer."""

from __future__ import annotations

import sys
import threading
from typing import Any

import msgpack
import pytest

from dthreading.wire import codec


def expected(value: Any) -> bytes:
    return msgpack.packb(value, default=codec._pack_other)


def test_many_threads_pack_at_once() -> None:
    """Ints beyond 64 bits make the packer call Python in the middle of its work, where threads take turns."""
    wrong: list[Any] = []

    def work(seed: int) -> None:
        for number in range(400):
            value = tuple([2**70 + seed, "text" * seed, number, -(2**90), bytes(seed * 100)] * 3)
            if codec.pack(value) != expected(value):
                wrong.append(value)

    former = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(former)
    assert not wrong


def test_a_call_inside_a_call_has_a_packer_of_its_own() -> None:
    """A finalizer or a signal handler may pack while its thread is packing."""
    inner: list[bytes] = []
    begun: list[object] = []

    def other(value: object) -> msgpack.ExtType:
        if len(begun) < 3:
            begun.append(value)
            inner.append(pack((2**80, "inner")))
        return codec._pack_other(value)

    pack = codec._packing(other)
    value = ("outer", 2**70, b"x" * 50, -(2**71))
    assert pack(value) == expected(value)
    assert inner == [expected((2**80, "inner"))] * 3
    assert pack(value) == expected(value)


def test_an_interrupted_packer_is_given_up() -> None:
    """Half of what it had packed would stand before the next value."""
    pack = codec._packing(codec._pack_other)
    for _ in range(3):
        with pytest.raises(TypeError):
            pack(("half", 1, 2, object()))
        assert pack(("whole",)) == expected(("whole",))


def test_a_large_value_keeps_no_memory() -> None:
    import tracemalloc

    pack = codec._packing(codec._pack_other)
    value = bytes(8_000_000)
    assert pack(value) == expected(value)
    tracemalloc.start()
    try:
        for _ in range(3):
            pack(value)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000
