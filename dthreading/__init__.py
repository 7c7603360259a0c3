# SPDX-License-Identifier: Apache-2.0
"""`threading` for programs that run as many processes: `import dthreading as threading`.

A map of the package, in the order in which a call goes through it:

    locks, signals     Lock RLock Condition | Semaphore BoundedSemaphore Event Barrier: what users call
    queue              Queue LifoQueue PriorityQueue SimpleQueue (`import dthreading.queue as queue`)
    ownable, holds     what this process has acquired; `lock.fence`; LockLost
    proxy, naming      which replicated object a primitive stands for
    session, runtime   the session with the group: calls, leases, the socket
    wire               the words both sides know
    config, resolve    where the group is: `configure(servers=...)`
    errors             the error tree
    testing            an in-process group for tests

All other public names are the standard library's own: Thread, Timer, local, current_thread, excepthook, and whatever
the running version has. Importing this opens no socket and starts no thread; the first use of a primitive does.
"""

import sys as _sys
import threading as _threading
import types as _types
from threading import (
    TIMEOUT_MAX,
    BrokenBarrierError,
    ExceptHookArgs,
    Thread,
    ThreadError,
    Timer,
    active_count,
    current_thread,
    enumerate,
    get_ident,
    get_native_id,
    getprofile,
    gettrace,
    local,
    main_thread,
    setprofile,
    settrace,
    stack_size,
)
from typing import TYPE_CHECKING
from typing import Any as _Any

from dthreading.config import configure
from dthreading.errors import (
    AmbiguousName,
    DThreadingError,
    GroupUnreachable,
    InternalError,
    ItemUnreadable,
    LimitExceeded,
    LockLost,
    NotAuthenticated,
    ObjectGone,
    ObjectMismatch,
    OutcomeUnknown,
    ProtocolError,
    TasksLost,
    WrongGroup,
)
from dthreading.locks import Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore
from dthreading.naming import PrivateNameWarning
from dthreading.runtime import delete

if TYPE_CHECKING:
    import sys
    from threading import excepthook

    if sys.version_info >= (3, 12):
        from threading import setprofile_all_threads as setprofile_all_threads
        from threading import settrace_all_threads as settrace_all_threads

__version__ = "0.1.0"

__all__ = [
    "TIMEOUT_MAX",
    "AmbiguousName",
    "Barrier",
    "BoundedSemaphore",
    "BrokenBarrierError",
    "Condition",
    "DThreadingError",
    "Event",
    "ExceptHookArgs",
    "GroupUnreachable",
    "InternalError",
    "ItemUnreadable",
    "LimitExceeded",
    "Lock",
    "LockLost",
    "NotAuthenticated",
    "ObjectGone",
    "ObjectMismatch",
    "OutcomeUnknown",
    "PrivateNameWarning",
    "ProtocolError",
    "RLock",
    "Semaphore",
    "TasksLost",
    "Thread",
    "ThreadError",
    "Timer",
    "WrongGroup",
    "active_count",
    "configure",
    "current_thread",
    "delete",
    "enumerate",
    "excepthook",
    "get_ident",
    "get_native_id",
    "getprofile",
    "gettrace",
    "local",
    "main_thread",
    "setprofile",
    "settrace",
    "stack_size",
]
__all__.extend(name for name in _threading.__all__ if name not in __all__)  # noqa: PYI056 - later versions' own


class _Module(_types.ModuleType):
    """The module itself: what is not ours is looked up in `threading` at each use, and its hook is set there."""

    def __getattr__(self, name: str) -> _Any:
        if name.startswith("__") and name != "__excepthook__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        try:
            return getattr(_threading, name)
        except AttributeError:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: object) -> None:
        # `threading.excepthook = report` is how that hook is set, and the interpreter reads it from the real module.
        if name == "excepthook":
            _threading.excepthook = value  # type: ignore[assignment]  # whatever was set there may be any callable
        else:
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


_sys.modules[__name__].__class__ = _Module
