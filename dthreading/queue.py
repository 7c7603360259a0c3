# SPDX-License-Identifier: Apache-2.0
"""Queue, LifoQueue, PriorityQueue and SimpleQueue, as in `queue` of CPython 3.13, for all processes that use the group.

An item leaves this process as bytes (`wire.values`) and is kept by the servers; what comes out is equal to what was
put, not identical with it. A subclass may refuse or wrap items in `_put` and `_get`; it cannot keep them itself.
"""

# ruff: noqa: SLF001 - proxies know each other; the underscore is for users

from __future__ import annotations

import operator
import os
import threading as _threading
from queue import Empty, Full
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

from dthreading import runtime
from dthreading.errors import ShutDown
from dthreading.proxy import timeout_in_seconds
from dthreading.session.calls import CHANGE, GET, GET_NOWAIT, JOIN, PUT, PUT_NOWAIT, READ
from dthreading.simple_queue import SimpleQueue, read_item
from dthreading.taking import Taking
from dthreading.wire.values import encode_item, priority_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dthreading.wire.values import Priority, Serializer

__all__ = ["Empty", "Full", "LifoQueue", "PriorityQueue", "Queue", "ShutDown", "SimpleQueue"]

REDELIVER_VARIABLE = "DTHREADING_REDELIVER"

T = TypeVar("T")


class _Absent:
    """An attribute of the stdlib's queue that a distributed one cannot have."""

    def __init__(self, instead: str) -> None:
        self._instead = instead

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def _refuse(self) -> AttributeError:
        return AttributeError(f"a distributed queue has no {self._name!r}: {self._instead}")

    def __get__(self, proxy: object, owner: type | None = None) -> Any:
        raise self._refuse()

    def __set__(self, proxy: object, value: object) -> None:
        raise self._refuse()


class _Way(NamedTuple):
    """How the put or get that is under way in this thread may wait: `_put` and `_get` have no such arguments."""

    queue: object
    blocking: bool
    seconds: float | None
    reached: list[bool]
    """Grows when the servers were asked, or told."""


class _Ways(_threading.local):
    """The calling thread's: a put inside another's `_put` has a way of its own."""

    way: _Way | None = None


_ways = _Ways()

_KEPT_BY_SERVERS = (
    "the items are kept by the servers, so a subclass cannot keep them itself; it may refuse or wrap items in _put and"
    " _get, which call those of the base class"
)


class Queue(Taking, Generic[T]):
    """First in, first out.

    Args:
        maxsize: at most so many items; 0 for no limit. May be assigned later.
        name: as for `dthreading.Lock`.
        redeliver: an item whose getter's process ends before it called task_done() goes back to the head. By default
            what DTHREADING_REDELIVER says, which is no.
        serializer: turns items into bytes and back (`dumps`, `loads`), in place of msgpack and pickle.

    """

    __module__ = "dthreading.queue"
    _proxy_kind: ClassVar = "Queue"
    _proxy_probe = ("qsize", ())

    mutex = _Absent("each operation is atomic by itself; a dthreading.Lock joins several of them")
    not_empty = _Absent("get() waits")
    not_full = _Absent("put() waits")
    all_tasks_done = _Absent("join() waits")
    queue = _Absent(_KEPT_BY_SERVERS)

    def __init__(
        self,
        maxsize: int = 0,
        *,
        name: str | None = None,
        redeliver: bool | None = None,
        serializer: Serializer | None = None,
    ) -> None:
        if type(self)._qsize is not Queue._qsize:
            raise TypeError(f"{type(self).__qualname__} has a _qsize of its own: {_KEPT_BY_SERVERS}")
        maxsize = operator.index(maxsize) + 0
        if redeliver is None:
            redeliver = _redeliver_by_default()
        self._proxy_init(name, maxsize, bool(redeliver))
        self._serializer = serializer
        self._init(maxsize)

    # --- in and out

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in; while the queue is full, wait if `block`, for `timeout` seconds at most.

        Raises:
            Full: there was no room, or not in time.
            ShutDown: the queue was shut down.
            TypeError: the item cannot be sent. Nothing was put.
            OutcomeUnknown: the session ended on the way; the item was put once or not at all.

        """
        if block and timeout is not None and timeout < 0:
            _, maxsize, _, is_shutdown = self._state()
            if is_shutdown:
                raise ShutDown
            if maxsize > 0:
                raise ValueError("'timeout' must be a non-negative number")
            timeout = 0
        way = _Way(self, bool(block), timeout_in_seconds(timeout) if block else None, [])
        former, _ways.way = _ways.way, way
        try:
            self._put(item)
        finally:
            _ways.way = former

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the next item out; while there is none, wait if `block`, for `timeout` seconds at most.

        Raises:
            Empty: there was none, or not in time.
            ShutDown: the queue was shut down and is empty.
            ItemUnreadable: the item was taken and cannot be made an object of here; the error has its bytes.

        """
        if block and timeout is not None and timeout < 0:
            size, _, _, is_shutdown = self._state()
            if is_shutdown and not size:
                raise ShutDown
            raise ValueError("'timeout' must be a non-negative number")
        way = _Way(self, bool(block), timeout_in_seconds(timeout) if block else None, [])
        former, _ways.way = _ways.way, way
        try:
            item: T = self._get()
        finally:
            _ways.way = former
        if not way.reached:
            raise TypeError(f"{type(self).__qualname__}._get did not ask the base class: {_KEPT_BY_SERVERS}")
        return item

    def put_nowait(self, item: T) -> None:
        """`put(item, block=False)`."""
        self.put(item, block=False)

    def get_nowait(self) -> T:
        """`get(block=False)`."""
        return self.get(block=False)

    # --- tasks

    def task_done(self) -> None:
        """Say that one item that was taken out is dealt with.

        Raises:
            ValueError: more often than items were put.
            LockLost: the session in which the item was taken is over. What becomes of the item, or of its task, was
                settled then.

        """
        with self._proxy_giving(1) as parts:
            taken_in, _ = parts[0]
            token = runtime.thread_token()
            self._ask("task_done", (token, taken_in) if taken_in else (token,), CHANGE)
            parts.popleft()

    def join(self) -> None:
        """Wait until all items that were put are dealt with.

        Raises:
            TasksLost: some never will be: a process that had taken them has ended.

        """
        self._ask("join", (runtime.thread_token(),), JOIN)

    @property
    def unfinished_tasks(self) -> int:
        """How many items were put and are not dealt with."""
        return int(self._state()[2])

    # --- size

    @property
    def maxsize(self) -> int:
        """At most so many items; 0 or less for no limit. Assigning it lets putters in when there is room."""
        return int(self._state()[1])

    @maxsize.setter
    def maxsize(self, value: int) -> None:
        self._ask("set_maxsize", (operator.index(value) + 0,), CHANGE)

    def qsize(self) -> int:
        """How many items are in it at this moment; the next may be another."""
        return self._qsize()

    def empty(self) -> bool:
        """Whether none is in it at this moment."""
        return not self._qsize()

    def full(self) -> bool:
        """Whether as many as may be are in it at this moment."""
        size, maxsize, _, _ = self._state()
        return bool(0 < maxsize <= size)

    # --- the end

    def shutdown(self, immediate: bool = False) -> None:
        """No more puts, from any process, and gets until it is empty; `immediate` also drops what is in it."""
        self._ask("shutdown", (bool(immediate),), CHANGE)

    @property
    def is_shutdown(self) -> bool:
        """Whether it was shut down."""
        return bool(self._state()[3])

    # --- what subclasses may override

    def _init(self, maxsize: int) -> None:
        """Called once, as in the standard library; the storage is on the servers."""

    def _qsize(self) -> int:
        return int(self._ask("qsize", (), READ).value)

    def _put(self, item: T) -> None:
        way = self._way()
        waits = way.blocking and way.seconds != 0
        arguments = (waits, encode_item(item, self._serializer), self._priority(item), runtime.thread_token())
        self._ask("put", arguments, PUT if waits else PUT_NOWAIT, way.seconds if waits else None)

    def _get(self) -> T:
        way = self._way()
        waits = way.blocking and way.seconds != 0
        way.reached.append(True)
        arguments = (waits, runtime.thread_token())
        answer = self._ask("get", arguments, GET if waits else GET_NOWAIT, way.seconds if waits else None)
        self._proxy_taken.note(answer.session)
        item: T = read_item(self, answer.value, self._serializer)
        return item

    # --- inside

    def _way(self) -> _Way:
        way = _ways.way
        return way if way is not None and way.queue is self else _Way(self, blocking=True, seconds=None, reached=[])

    def _priority(self, item: T) -> Priority | None:  # noqa: ARG002 - of a PriorityQueue
        return None

    def _state(self) -> tuple[int, int, int, bool]:
        state: tuple[int, int, int, bool] = self._ask("state", (), READ).value
        return state

    def __repr__(self) -> str:
        size = self._peek("qsize")
        cls = type(self)
        shown = "unknown" if size is None else f"size={size}"
        return f"<{cls.__module__}.{cls.__qualname__} {self._proxy_place()}: {shown}>"


class LifoQueue(Queue[T]):
    """Last in, first out."""

    __module__ = "dthreading.queue"
    _proxy_kind: ClassVar = "LifoQueue"


class PriorityQueue(Queue[T]):
    """The smallest first; ties are first come, first served.

    The servers compare, so an item is ordered by itself where it is a number, string, bytes or a tuple of those, else
    by the longest such prefix: `(3, anything)` works, and so does a `dataclass(order=True)`, by its compare fields.

    Args:
        maxsize: as for `Queue`.
        name: as for `Queue`.
        redeliver: as for `Queue`.
        serializer: as for `Queue`.
        key: gives what an item is ordered by.

    """

    __module__ = "dthreading.queue"
    _proxy_kind: ClassVar = "PriorityQueue"

    def __init__(
        self,
        maxsize: int = 0,
        *,
        name: str | None = None,
        redeliver: bool | None = None,
        serializer: Serializer | None = None,
        key: Callable[[T], Any] | None = None,
    ) -> None:
        super().__init__(maxsize, name=name, redeliver=redeliver, serializer=serializer)
        self._key = key

    def _priority(self, item: T) -> Priority | None:
        return priority_of(item if self._key is None else self._key(item))


def _redeliver_by_default() -> bool:
    value = os.environ.get(REDELIVER_VARIABLE, "")
    if value not in {"", "0", "1"}:
        raise ValueError(f"{REDELIVER_VARIABLE} must be 0 or 1, not {value!r}")
    return value == "1"
