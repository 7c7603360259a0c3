# SPDX-License-Identifier: Apache-2.0
"""A group inside the process for the tests of the mirrored API: all that is above the wire, without a socket."""

import signal
import threading

import pytest

import dthreading
from dthreading.testing import local

WAIT_S = 30
"""For what must happen. Nothing is judged by how long it took."""


@pytest.fixture(autouse=True)
def _quiet_names(monkeypatch):
    monkeypatch.setenv("DTHREADING_NAMING", "auto")


@pytest.fixture
def group():
    """The group; its objects must not have broken by the end."""
    with local.group() as running:
        yield running
        assert not running.faults


@pytest.fixture
def other(group):
    """Another process, as far as the group can tell."""
    return group.client("another process")


class Background(threading.Thread):
    """Runs a function; `result()` gives what it returned or raised."""

    def __init__(self, function, *arguments):
        super().__init__(daemon=True)
        self._function = function
        self._arguments = arguments
        self._value = None
        self._error = None
        self.start()

    def run(self):
        try:
            self._value = self._function(*self._arguments)
        except BaseException as error:
            self._error = error

    def result(self):
        self.join(WAIT_S)
        assert not self.is_alive(), "it never returned"
        if self._error is not None:
            raise self._error
        return self._value


@pytest.fixture
def background():
    """Runs a function in a thread of its own."""
    return Background


def waiting_in(group, proxy, queue="waiting"):
    """Until somebody stands in that queue of the replicated object: the state itself is asked, not a clock."""
    target = proxy._proxy_target
    pause = threading.Event()
    for _ in range(WAIT_S * 1000):
        found = group.machine.find(target.namespace, target.name)
        if found is not None and len(getattr(found, queue)):
            return
        pause.wait(0.001)
    raise AssertionError(f"nobody came to wait in {queue}")


@pytest.fixture
def interruptible():
    """Ctrl-C, from another thread: raises KeyboardInterrupt in the main one, wherever that is by then."""
    delivered = threading.Event()
    main = threading.main_thread().ident

    def deliver(*_):
        delivered.set()
        raise KeyboardInterrupt

    def interrupt():
        signal.pthread_kill(main, signal.SIGINT)
        while not delivered.wait(0.01):
            # A signal that comes just before a lock's wait begins does not wake it (CPython looks at signals before and
            # after, not at once with it); the next one does, whichever it is.
            signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGINT, deliver), signal.signal(signal.SIGUSR1, lambda *_: None)
    yield interrupt
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGUSR1, before[1])


@pytest.fixture
def until_waiting(group):
    """`until_waiting(lock)` returns when a caller is parked at it."""
    return lambda proxy, queue="waiting": waiting_in(group, proxy, queue)


@pytest.fixture
def lock(group):
    return dthreading.Lock(name="orders")
