# SPDX-License-Identifier: Apache-2.0
"""The door: what a replicated object is, and how a call from the wire reaches it. Every primitive comes through here.

A replicated object is an ordinary Python class:

    class Counter(Replicated):
        kind = "Counter"

        def __init__(self, host: Host, *arguments: Any) -> None:
            super().__init__(host, *arguments)
            self.count = 0
            self.waiting = WaitQueue(self)

        @operation
        def add(self, call: Caller, n: int) -> int:         # returns the answer, or raises Refused
            self.count += n
            for waiter in self.waiting.unpark_all():
                waiter.answer(self.count)                   # answers another client's parked call
            return self.count

        @operation
        def wait(self, call: Caller) -> Any:
            return call.park(self.waiting)                  # no answer yet

        def is_initial(self) -> bool: ...
        def dump(self) -> tuple[Any, ...]: ...
        def load(self, state: tuple[Any, ...]) -> None: ...

Only methods marked `@operation` can be called from the wire. Their annotations are enforced by exact type before the
method runs, so a method never meets an argument of a type that it did not ask for. A method must be deterministic: no
clock, no chance, no `hash()`, no iteration over a set. What it raises besides `Refused` is our fault, and puts the
object into quarantine.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from dthreading.errors import is_code
from dthreading.wire.messages import Lifetime
from replicas.objects.waiting import Waiter, WaitQueue

if TYPE_CHECKING:
    from replicas.objects.limits import Limits

__all__ = ["PARKED", "Caller", "Host", "Operation", "Refused", "Replicated", "operation"]

F = TypeVar("F", bound=Callable[..., Any])


class Refused(Exception):
    """The caller gets this as an exception: a code of `dthreading.errors`, and the details that its class keeps."""

    def __init__(self, code: str, message: str = "", *details: Any) -> None:
        assert is_code(code), code
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def fresh(self) -> Refused:
        """A copy to raise, of one that is kept: an exception drags the frames of every raise along."""
        return Refused(self.code, self.message, *self.details)

    @property
    def value(self) -> tuple[str, str, tuple[Any, ...]]:
        """As a `Reply` of status ERROR carries it."""
        return (self.code, self.message, self.details)


class _Parked:
    """The type of `PARKED`."""

    def __repr__(self) -> str:
        return "PARKED"


PARKED: Final = _Parked()

FITTING_MAX: Final = 64
"""Of one operation, so many combinations of types are remembered to fit; those of our own clients are a handful."""
"""What an operation returns whose answer comes later."""


class Host(Protocol):
    """What an object may ask of the state around it. The machine is the only one that provides it."""

    limits: Limits

    def next_fence(self) -> int:
        """The next value of the one fence counter: greater than every fence ever taken."""

    def parked(self, waiter: Waiter) -> None:
        """The call waits from now on."""

    def answer(self, waiter: Waiter, value: Any) -> None:
        """The parked call returns `value`."""

    def refuse(self, waiter: Waiter, refusal: Refused) -> None:
        """The parked call raises `refusal`."""

    def stake(self, session: int, holding: Replicated) -> None:
        """`session` has something in `holding`, which is to hear of the session's end."""

    def unstake(self, session: int, holding: Replicated) -> None:
        """It has nothing there any more."""

    def touch(self, other: Replicated) -> None:
        """The running operation is about to change an object other than its own."""

    def touch_session(self, session: int) -> None:
        """A waiter of `session` is about to change."""

    def pin(self, other: Replicated) -> None:
        """`other` must not be dropped, as if somebody were attached to it."""

    def unpin(self, other: Replicated) -> None:
        """Takes one `pin` back."""

    def attached(self, session: int, handle: int) -> Replicated:
        """The object that `handle` means in `session`; raises Refused where it means none."""

    def find(self, namespace: str, name: str) -> Replicated | None:
        """The object of that name, if it exists."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One name callable from the wire."""

    name: str
    function: Callable[..., Any]
    least: int
    """The fewest arguments, and `most`: those with defaults may be left out from the end."""
    most: int
    allowed: tuple[frozenset[type] | None, ...]
    """For each argument the exact types it may have; None: any plain value."""
    reads: bool
    """Changes nothing, so it may be answered without an entry in the log."""
    undoable: bool
    """Its answer hands something out that `Replicated.undo` can take back."""
    followed: bool
    """Whether its answer has reached the caller is reported by `Replicated.acknowledged`."""

    fitting: set[tuple[type, ...]] = field(default_factory=set, compare=False)
    """Types of arguments that were found to fit: a short-cut, and no part of any state."""

    def misfit(self, arguments: tuple[Any, ...]) -> str | None:
        """What is wrong with these arguments, if anything."""
        types = (*map(type, arguments),)
        if types in self.fitting:
            return None
        if not self.least <= len(arguments) <= self.most:
            return f"{self.name}() takes {self.least} to {self.most} arguments, not {len(arguments)}"
        for argument, allowed in zip(arguments, self.allowed, strict=False):
            if allowed is not None and type(argument) not in allowed:
                return self._of_another_type(arguments)
        if len(self.fitting) < FITTING_MAX:
            self.fitting.add(types)
        return None

    def _of_another_type(self, arguments: tuple[Any, ...]) -> str:
        """Which of them it is: said only where one is wrong, since counting them costs each call."""
        for position, (argument, allowed) in enumerate(zip(arguments, self.allowed, strict=False), 1):
            if allowed is not None and type(argument) not in allowed:
                names = " or ".join(sorted(one.__name__ for one in allowed))
                return f"{self.name}(): argument {position} is {type(argument).__name__}, not {names}"
        raise AssertionError(arguments)


@overload
def operation(function: F) -> F: ...
@overload
def operation(*, reads: bool = False, undo: bool = False, follow: bool = False) -> Callable[[F], F]: ...
def operation(
    function: F | None = None, *, reads: bool = False, undo: bool = False, follow: bool = False
) -> F | Callable[[F], F]:
    """Marks a method as callable from the wire.

    Args:
        function: the method, when the decorator is used without arguments.
        reads: it changes nothing and never parks.
        undo: what it hands out can be taken back by `Replicated.undo`, and is reported by `Replicated.acknowledged`.
        follow: it stands, whoever withdraws it, and is reported all the same.

    """

    def mark(marked: F) -> F:
        marked.__operation__ = (reads, undo, follow)  # type: ignore[attr-defined]
        return marked

    return mark if function is None else mark(function)


def _types_of(hint: Any) -> frozenset[type] | None:
    if hint is Any:
        return None
    if get_origin(hint) in {Union, UnionType}:
        return frozenset(get_args(hint))
    assert isinstance(hint, type), hint
    return frozenset({hint})


def _operation_of(name: str, function: Callable[..., Any]) -> Operation:
    reads, undoable, follow = function.__operation__  # type: ignore[attr-defined]
    parameters = list(inspect.signature(function).parameters.values())[2:]  # besides self and call
    hints = get_type_hints(function)
    return Operation(
        name=name,
        function=function,
        least=sum(parameter.default is parameter.empty for parameter in parameters),
        most=len(parameters),
        allowed=tuple(_types_of(hints[parameter.name]) for parameter in parameters),
        reads=reads,
        undoable=undoable,
        followed=undoable or follow,
    )


class Caller:
    """One call while its operation runs. Not to be kept: what waits is the `Waiter` that `park` makes."""

    __slots__ = ("_operation", "_owner", "lane", "number", "session")

    def __init__(self, owner: Replicated, operation: Operation, session: int, lane: int, number: int) -> None:
        self._owner = owner
        self._operation = operation
        self.session = session
        self.lane = lane
        self.number = number

    def park(self, queue: WaitQueue, payload: Any = None, thread: int = 0) -> _Parked:
        """Let the caller wait at the end of `queue`; the operation returns what this returns."""
        waiter = Waiter(self._owner, self._operation, self.session, self.lane, self.number, thread, payload)
        queue.park(waiter)
        self._owner.host.parked(waiter)
        return PARKED


class Replicated:
    """An object of the replicated state. See the module's docstring for how to write one."""

    kind: ClassVar[str]
    """What `Attach.kind` calls it."""
    operations: ClassVar[dict[str, Operation]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        names = sorted({name for base in cls.__mro__ for name in vars(base)})
        cls.operations = {
            name: _operation_of(name, getattr(cls, name))
            for name in names
            if hasattr(getattr(cls, name), "__operation__")
        }

    def __init__(self, host: Host, *arguments: Any) -> None:
        self.host = host
        self.arguments = arguments
        """As the first Attach named them; another Attach must name the same."""
        self.queues: tuple[WaitQueue, ...] = ()
        # The rest belongs to the machine; objects leave it alone.
        self.number = 0
        """Unique in the history of this state, and the object's name in snapshots."""
        self.namespace = ""
        self.name = ""
        self.lifetime = int(Lifetime.NAMED)
        self.attached = 0
        """Attachments and pins. While there are any the object is kept."""
        self.fault: Refused | None = None
        """Why every call is refused: the object broke (quarantine), or it is gone."""

    # --- what a class must say

    def is_initial(self) -> bool:
        """Whether it is as it was made, so that dropping it would change nothing. (Waiters are looked for apart.)"""
        raise NotImplementedError

    def dump(self) -> tuple[Any, ...]:
        """All of its state but its arguments, its queues and its rows, as plain values."""
        raise NotImplementedError

    def load(self, state: tuple[Any, ...]) -> None:
        """The inverse of `dump`, on a new object."""
        raise NotImplementedError

    # --- what a class may say

    def dump_rows(self) -> Iterable[Any]:
        """What there may be a million of, each a plain value that is never changed in place. Read after the object has
        gone on, so it must be a copy.
        """
        return ()

    def load_row(self, row: Any) -> None:
        """One of `dump_rows`, in order."""
        raise NotImplementedError

    def withdrawn(self, waiter: Waiter) -> None:
        """The caller's time is up and it waits for the verdict: answer it, now or later."""
        waiter.leave()
        waiter.answer(False)

    def abandoned(self, waiter: Waiter, queue: WaitQueue | None) -> None:
        """The caller has gone (its thread, or its session) and was taken out of `queue`. It is not to be answered.
        (None: it was on its way from one queue to another when the other one's object broke.)
        """

    def undo(self, operation: str, session: int, lane: int, answer: Any) -> None:
        """The caller has gone before it could use the `answer` of an operation marked `undo`: take it back."""

    def acknowledged(self, session: int, lane: int) -> None:
        """The answer of an operation marked `undo` or `follow` has reached its caller, whose own it is from here on."""

    def session_ended(self, session: int) -> None:
        """A session with a stake here has ended. None of its calls waits anywhere any more."""

    def reacquired(self, waiter: Waiter, fence: int) -> None:
        """A lock in whose line a waiter of this object stood is the waiter's now."""
        raise NotImplementedError

    def holders(self) -> Iterable[int]:
        """The sessions with a stake here, each once, in a fixed order."""
        return ()

    def sight(self) -> dict[str, Any]:
        """What a person who asks should see, besides holders and waiters. Plain values."""
        return {}

    # --- for the machine

    def standing(self) -> Iterator[Waiter]:
        """Everybody who stands in one of its queues."""
        for queue in self.queues:
            yield from queue
