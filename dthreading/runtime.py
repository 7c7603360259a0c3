# SPDX-License-Identifier: Apache-2.0
"""The process: its one client, made on first use; the tokens of its threads; what happens at fork and at exit.

Importing this opens nothing and starts nothing.
"""

from __future__ import annotations

import atexit
import itertools
import os
import sys
import threading
from typing import TYPE_CHECKING, Final

from dthreading import config
from dthreading.asking import ask_any
from dthreading.client import TIMEOUT_MAX, Client
from dthreading.service import logger

if TYPE_CHECKING:
    from dthreading.session import Target

__all__ = ["TIMEOUT_MAX", "Client", "client", "delete", "drop", "logger", "thread_token"]

_CLIENT: Final = "client"
_clients: Final[dict[str, Client]] = {}
"""The one client of this process, in a dictionary since `setdefault` is atomic: a signal handler may be the second."""


def client() -> Client:
    """The process's client for the configured group: made on first use, and anew in a forked child."""
    present = _clients.get(_CLIENT)
    if present is not None:
        if not present.closed:
            return present
        _clients.pop(_CLIENT, None)
    made = _clients.setdefault(_CLIENT, Client(config.bind()))
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        _hook_multiprocessing(made)
        # A child that gets a proxy as an argument has a client before multiprocessing forgets all finalizers, which it
        # takes for its parent's, and then runs these.
        util.register_after_fork(made, _hook_multiprocessing)
    return made


def drop(target: Target) -> None:
    """A proxy of `target` is gone: `Client.detach`, where there is a client. For finalizers."""
    present = _clients.get(_CLIENT)
    if present is not None:
        present.detach(target)


def delete(name: str, *, namespace: str | None = None) -> bool:
    """Ends the object of that name, whatever its state: whoever waits for it hears `ObjectGone`. For operators.

    Args:
        name: the object's name.
        namespace: where it lives; this program's, if left out.

    Returns:
        Whether there was one.

    """
    settings = config.bind()
    place = settings.namespace if namespace is None else namespace
    return bool(ask_any(settings, "delete", (place, name)))


class _Local(threading.local):
    """What each thread has of its own."""

    def __init__(self) -> None:
        self.token = next(_tokens)


_tokens: Final = itertools.count(1)
_local = _Local()


def thread_token() -> int:
    """The calling thread's number in the replicated state: minted by us, since the system reuses its own."""
    return _local.token


def _at_exit() -> None:
    present = _clients.get(_CLIENT)
    if present is not None:
        present.say_goodbye()


def _hook_multiprocessing(_: Client) -> None:
    """Children that `multiprocessing` has forked end without `atexit`, but run these."""
    sys.modules["multiprocessing.util"].Finalize(None, _at_exit, exitpriority=-100)


def _after_fork_in_child() -> None:
    global _local  # noqa: PLW0603 - the forking thread is another thread now, as far as anybody else can tell
    _local = _Local()
    parents = _clients.pop(_CLIENT, None)
    if parents is not None:
        parents.after_fork()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
    # An interrupt may have come in between, and is dropped there. This is one step in C: none can.
    os.register_at_fork(after_in_child=_clients.clear)
