# SPDX-License-Identifier: Apache-2.0
"""CPython's test.lock_tests, of the running interpreter, against our primitives."""

from __future__ import annotations

import pytest

import dthreading
from compat.stdlib.ledger import ledger

lock_tests = pytest.importorskip("test.lock_tests", reason="this Python ships no test package")

# What the suite itself takes from `threading` (a Lock for a Condition, for one), it takes from us: its import, swapped.
lock_tests.threading = dthreading


@ledger("lock_tests.LockTests")
class LockTests(lock_tests.LockTests):
    locktype = staticmethod(dthreading.Lock)


@ledger("lock_tests.RLockTests")
class RLockTests(lock_tests.RLockTests):
    locktype = staticmethod(dthreading.RLock)


@ledger("lock_tests.EventTests")
class EventTests(lock_tests.EventTests):
    eventtype = staticmethod(dthreading.Event)


@ledger("lock_tests.RLockTests on a Condition")
class ConditionAsRLockTests(lock_tests.RLockTests):
    # A Condition uses an RLock by default and exports its API.
    locktype = staticmethod(dthreading.Condition)


@ledger("lock_tests.ConditionTests")
class ConditionTests(lock_tests.ConditionTests):
    condtype = staticmethod(dthreading.Condition)


@ledger("lock_tests.ConditionTests over a Lock")
class ConditionOverLockTests(lock_tests.ConditionTests):
    @staticmethod
    def condtype(lock: dthreading.Lock | None = None) -> dthreading.Condition:
        return dthreading.Condition(dthreading.Lock() if lock is None else lock)

    test_acquire = None  # says that the default lock is an RLock


@ledger("lock_tests.SemaphoreTests")
class SemaphoreTests(lock_tests.SemaphoreTests):
    semtype = staticmethod(dthreading.Semaphore)


@ledger("lock_tests.BoundedSemaphoreTests")
class BoundedSemaphoreTests(lock_tests.BoundedSemaphoreTests):
    semtype = staticmethod(dthreading.BoundedSemaphore)


@ledger("lock_tests.BarrierTests")
class BarrierTests(lock_tests.BarrierTests):
    barriertype = staticmethod(dthreading.Barrier)
