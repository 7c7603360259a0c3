# SPDX-License-Identifier: Apache-2.0
"""`import dthreading as threading`: every public name is there, ours where they distribute, the stdlib's elsewhere."""

import queue as standard_queue
import sys
import threading

import pytest

import dthreading
import dthreading.queue

OURS = {"Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier"}


@pytest.mark.parametrize("name", threading.__all__)
def test_every_public_name_of_threading_is_there(name):
    """The very same object, but for the seven that distribute: `except` and `isinstance` work across modules."""
    assert name in dthreading.__all__
    assert (getattr(dthreading, name) is getattr(threading, name)) == (name not in OURS)


@pytest.mark.parametrize("name", standard_queue.__all__)
def test_every_public_name_of_queue_is_there(name):
    assert name in dthreading.queue.__all__
    assert hasattr(dthreading.queue, name)


def test_star_import():
    """All that `__all__` promises exists, once."""
    namespace = {}
    exec("from dthreading import *", namespace)
    assert set(dthreading.__all__) <= set(namespace)
    assert len(dthreading.__all__) == len(set(dthreading.__all__))


def test_names_below_the_surface_are_the_standard_librarys():
    """Old spellings and private helpers that programs use anyway; a name that nobody has is an AttributeError."""
    assert dthreading._DummyThread is threading._DummyThread
    assert dthreading.currentThread is threading.currentThread
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = dthreading.no_such_name
    assert not hasattr(dthreading, "__no_such_name__")


def test_the_hook_for_uncaught_exceptions_is_set_where_it_works(monkeypatch):
    """`threading.excepthook = report` must reach the interpreter, which reads it from the real module."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    seen = []
    dthreading.excepthook = seen.append
    assert dthreading.excepthook is threading.excepthook
    thread = dthreading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    assert seen[0].exc_type is ZeroDivisionError


def test_the_real_modules_stay_where_they_are():
    """logging, concurrent.futures and our own client need them."""
    assert sys.modules["threading"] is threading
    assert sys.modules["queue"] is standard_queue
    assert threading.Lock is not dthreading.Lock


@pytest.mark.parametrize("name", sorted(OURS))
def test_their_home_is_the_package(name):
    """In reprs and in pickles."""
    assert getattr(dthreading, name).__module__ == "dthreading"
