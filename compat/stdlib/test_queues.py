# SPDX-License-Identifier: Apache-2.0
"""CPython's test.test_queue, of the running interpreter, against our queues."""

from __future__ import annotations

import unittest

import pytest

import dthreading.queue
from compat.stdlib.ledger import ledger

test_queue = pytest.importorskip("test.test_queue", reason="this Python ships no test package")


@ledger("test_queue.QueueTest")
class QueueTest(test_queue.QueueTest, unittest.TestCase):
    queue = dthreading.queue


@ledger("test_queue.LifoQueueTest")
class LifoQueueTest(test_queue.LifoQueueTest, unittest.TestCase):
    queue = dthreading.queue


@ledger("test_queue.PriorityQueueTest")
class PriorityQueueTest(test_queue.PriorityQueueTest, unittest.TestCase):
    queue = dthreading.queue


@ledger("test_queue.FailingQueueTest")
class FailingQueueTest(test_queue.FailingQueueTest, unittest.TestCase):
    queue = dthreading.queue


@ledger("test_queue.SimpleQueueTest")
class SimpleQueueTest(test_queue.CSimpleQueueTest):
    queue = dthreading.queue
