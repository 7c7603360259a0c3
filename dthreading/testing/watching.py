# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for locks and queues that record what is asked of them, by whichever thread, and what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from dthreading import runtime
from dthreading.errors import GroupUnreachable, LockLost, OutcomeUnknown
from dthreading.proxy import Proxy
from dthreading.testing.models import MODELS

if TYPE_CHECKING:
    from types import TracebackType

    from dthreading.holds import Hold
    from dthreading.testing.history import History
    from dthreading.testing.recorded import Call

__all__ = ["Here", "Watched"]

METHODS: Final[dict[str, tuple[tuple[str, Any], ...]]] = {
    "acquire": (("blocking", True), ("timeout", None)),
    "locked": (),
    "release": (("n", None),),
    "set": (),
    "clear": (),
    "is_set": (),
    "abort": (),
    "reset": (),
    "put": (("item", None), ("block", True), ("timeout", None)),
    "get": (("block", True), ("timeout", None)),
    "task_done": (),
    "join": (),
    "qsize": (),
    "empty": (),
    "full": (),
    "shutdown": (("immediate", False),),
}
"""By name, the parameters with their defaults: a call is recorded by position."""

READS: Final = ("n_waiting", "broken", "parties", "unfinished_tasks", "is_shutdown", "maxsize")
"""Attributes whose look is a call."""

OF_THE_CALLER: Final = (TypeError, ValueError, OverflowError, AttributeError, NotImplementedError)
"""Errors in the arguments: the object was never asked. (But for those that the object itself answers.)"""

ANSWERED: Final = frozenset({("release", "ValueError"), ("task_done", "ValueError")})


class Watched:
    """In front of a primitive: its methods, recorded. `watched` is the primitive itself, which a Condition needs."""

    _own: ClassVar = frozenset({"watched", "_here", "_name"})

    def __init__(self, here: Here, proxy: Any, name: str) -> None:
        self.watched = proxy
        self._here = here
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute in METHODS:
            method = getattr(self.watched, attribute)
            return lambda *given, **named: self._call(method, attribute, given, named)
        if attribute in READS:
            return self._record(self._name, attribute, (), lambda: getattr(self.watched, attribute))
        return getattr(self.watched, attribute)

    def __setattr__(self, attribute: str, value: Any) -> None:
        if attribute in self._own:
            object.__setattr__(self, attribute, value)
        elif attribute == "maxsize":
            self._record(self._name, "set_maxsize", (value,), lambda: setattr(self.watched, attribute, value))
        else:
            setattr(self.watched, attribute, value)

    def put_nowait(self, item: Any) -> None:
        """Recorded as the put that it is."""
        self.put(item, False)

    def get_nowait(self) -> Any:
        """Recorded as the get that it is."""
        return self.get(False)

    def wait(self, timeout: float | None = None) -> Any:
        """Of a Condition, Event or Barrier."""
        return self._record(self._name, "wait", (timeout,), lambda: self.watched.wait(timeout))

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Made of waits, which are what is recorded."""
        end = None if timeout is None else time.monotonic() + timeout
        result = predicate()
        while not result:
            remaining = None if end is None else end - time.monotonic()
            if remaining is not None and remaining <= 0:
                break
            self.wait(remaining)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        """Of a Condition."""
        self._record(self._name, "notify", (n,), lambda: self.watched.notify(n))

    def notify_all(self) -> None:
        """Of a Condition."""
        self._record(self._name, "notify_all", (), self.watched.notify_all)

    def __enter__(self) -> Any:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.release()
        except Exception:
            if kind is None:
                raise

    def __repr__(self) -> str:
        return f"<recorded {self.watched!r}>"

    # --- one call

    def _call(self, method: Callable[..., Any], name: str, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        rest = [named.get(parameter, default) for parameter, default in METHODS[name][len(given) :]]
        while rest and rest[-1] is None:
            rest.pop()
        target = self._here.lock_of(self._name) if name in {"acquire", "release", "locked"} else self._name
        return self._record(target, name, (*given, *rest), lambda: method(*given, **named))

    def _record(self, target: str, operation: str, arguments: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        here = self._here
        call = here.begin(target, operation, arguments)
        try:
            value = make()
        except BaseException as error:
            here.failed(call, error)
            raise
        here.returned(call, value, self._hold() if operation == "acquire" and value is True else None)
        return value

    def _hold(self) -> Hold | None:
        """What this thread has just been granted, of a lock of ours."""
        lock = getattr(self.watched, "_lock", self.watched)
        if not hasattr(lock, "_proxy_holds"):
            return None
        hold: Hold | None = lock._proxy_holds.of(runtime.thread_token())  # noqa: SLF001 - `fence` is anybody's
        return hold


class Here:
    """What a history knows of the process that records it: its objects, threads and sessions."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._proxies: list[tuple[str, Any]] = []
        self._session = 0
        self._labels: dict[int, str] = {}
        """By the group's number of a session, what the history calls it."""

    def watch(self, proxy: Any, name: str | None) -> Watched:
        """`proxy` with a recorder in front, declared in the history. See `History.watch`."""
        kind = kind_of(proxy)
        name = name or getattr(proxy, "name", None) or f"{kind} {len(self.history.objects) + 1}"
        if kind == "Condition":
            lock = proxy._lock  # noqa: SLF001 - in the standard library it has no other name, either
            known = [other for other, watched in self._proxies if watched is lock]
            lock_name = known[0] if known else getattr(lock, "name", None) or f"{name}.lock"
            self.history.declare(lock_name, kind_of(lock))
            self.history.declare(name, kind, lock_name)
        else:
            self.history.declare(name, kind, *arguments_of(kind, proxy))
        self._proxies.append((name, proxy))
        return Watched(self, proxy, name)

    def lock_of(self, name: str) -> str:
        """A Condition's lock; else the object itself."""
        kind, arguments = self.history.objects[name]
        return str(arguments[0]) if kind == "Condition" else name

    def begin(self, target: str, operation: str, arguments: tuple[Any, ...]) -> Call:
        """The calling thread makes a call."""
        self._see()
        thread = str(runtime.thread_token())
        return self.history.invoke(self.history.process, target, operation, arguments, time.monotonic(), thread=thread)

    def returned(self, call: Call, value: Any, hold: Hold | None) -> None:
        """It came back, with that hold if it was an acquire of ours."""
        self._see()
        if hold is None:
            self.history.returned(call, value, time.monotonic())
        else:
            self.history.returned(call, hold.fence, time.monotonic(), session=self._labels.get(hold.session))

    def failed(self, call: Call, error: BaseException) -> None:
        """It raised."""
        now = time.monotonic()
        if isinstance(error, LockLost | OutcomeUnknown):
            if call.session == self.history.session_of(call.process):
                self._lost()
            self.history.unknown(call, now)
        elif isinstance(error, GroupUnreachable):
            self.history.unknown(call, now)
        elif not isinstance(error, Exception):
            (self.history.gave_up if call.operation in {"acquire", "get"} else self.history.unknown)(call, now)
        elif isinstance(error, OF_THE_CALLER) and (call.operation, type(error).__name__) not in ANSWERED:
            self.history.calls.remove(call)
        else:
            self._see()
            self.history.raised(call, error, now)

    def _see(self) -> None:
        """Notices that the process has another session than before."""
        present = runtime.client().session if any(isinstance(proxy, Proxy) for _, proxy in self._proxies) else 0
        if present in {0, self._session}:
            return
        mine = f"of thread {runtime.thread_token()}"
        if self._labels.setdefault(present, mine) is not mine:
            return
        if self._session:
            self._lost()
        self._session = present
        self._labels[present] = self.history.session_of(self.history.process)

    def _lost(self) -> None:
        """The session is lost. When, nobody here can say: at any moment since it was last heard of."""
        label = self.history.session_of(self.history.process)
        own = [call for call in self.history.calls if call.session == label]
        heard = [call.returned for call in own if call.returned is not None] or [call.called for call in own[:1]]
        self._session = 0
        self.history.session_lost(None, time.monotonic(), since=max(heard, default=None))


def kind_of(proxy: Any) -> str:
    """The name of its class, or of the nearest base that has a model."""
    if isinstance(proxy, type(threading.Lock())):
        return "Lock"
    for base in type(proxy).__mro__:
        name = base.__name__.lstrip("_")
        if name in MODELS or name == "Condition":
            return name
    raise TypeError(f"there is no model of a {type(proxy).__qualname__}")


def arguments_of(kind: str, proxy: Any) -> tuple[Any, ...]:
    """What the model is to be made with."""
    match kind:
        case "Semaphore" | "BoundedSemaphore":
            return (proxy._value,)  # noqa: SLF001 - what it has now is what the history begins with
        case "Barrier":
            return (proxy.parties, proxy._action is not None, proxy._timeout)  # noqa: SLF001 - as above
        case "Queue" | "LifoQueue" | "PriorityQueue":
            ours = isinstance(proxy, Proxy)
            return (proxy.maxsize, bool(ours and proxy._proxy_target.arguments[1]))  # noqa: SLF001 - as above
    return ()
