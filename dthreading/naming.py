# SPDX-License-Identifier: Apache-2.0
"""How a primitive gets its name: the only home of the rules that make two processes mean the same object.

1. `name=` is the name.
2. Made once at module level or in a class body, and assigned there: `package.module.attribute`. A module's text runs
   once per process, so that place means the same everywhere, as it does for pickled functions. The target is read from
   the bytecode after the call, so no source is needed.
3. Anywhere else each evaluation makes a new object, as in `threading`: a private one, with a unique name, which other
   processes reach through a pickled proxy alone. So is a target inside a loop, and one that is evaluated again.

Private names are minted from the system's randomness, at once and without I/O: a name that was fetched later would be
another one on each side of a fork. Nothing here knows what a name is used for.
"""

from __future__ import annotations

import builtins
import os
import sys
import warnings
from opcode import opmap, opname
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dthreading.errors import AmbiguousName
from dthreading.wire.limits import NAME_BYTES_MAX
from dthreading.wire.messages import Lifetime
from dthreading.wire.places import module_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

__all__ = ["Name", "PrivateNameWarning", "check", "mint", "name_for"]

MODE_VARIABLE: Final = "DTHREADING_NAMING"
MODES: Final = ("auto", "warn", "strict")

_PRIVATE_MARK: Final = "~"
"""Stands between the place where a private object was made, which is for people, and its unique part."""

_CO_OPTIMIZED: Final = 0x1
"""Of `code.co_flags`: the body of a function. Bodies of modules and classes go without."""

_SKIPPED: Final = frozenset({opmap["CACHE"], opmap["COPY"], opmap["NOP"]})
"""What may stand between a call and the store of its result: `a = b = Lock()` copies it first."""

_EXTENDED_ARG: Final = opmap["EXTENDED_ARG"]
_JUMP_FORWARD: Final = opmap["JUMP_FORWARD"]
_CALLS: Final = frozenset(code for code, name in enumerate(opname) if name.startswith(("CALL", "PRECALL")))
_BACKWARD_JUMPS: Final = frozenset(code for code, name in enumerate(opname) if "JUMP_BACKWARD" in name)
_NAME_STORES: Final = frozenset({opmap["STORE_NAME"], opmap["STORE_GLOBAL"]})
"""What makes a name of a module or class. Names of functions are made anew in each call."""


class PrivateNameWarning(UserWarning):
    """An unnamed object was made where each evaluation makes a new one, so no other process shares it by name."""


class Name(NamedTuple):
    """A name, and how long the state under it lives."""

    text: str
    lifetime: Lifetime
    complaint: Complaint | None = None
    """What is still to be said of this private name when the object is used: a call that consumes it may rename it."""


class Complaint(NamedTuple):
    """That an object is private, and where it was made."""

    message: str
    filename: str
    line: int
    module: str
    registry: dict[Any, Any]

    def utter(self) -> None:
        """Warns or, in strict mode, raises. The interpreter's own register of warnings says it once per call site."""
        if os.environ.get(MODE_VARIABLE) == "strict":
            raise AmbiguousName(f"{self.filename}:{self.line}: {self.message}")
        warnings.warn_explicit(
            self.message, PrivateNameWarning, self.filename, self.line, module=self.module, registry=self.registry
        )


class Store(NamedTuple):
    """The instruction that takes a call's result."""

    operation: int
    target: str


_taken: set[str] = set()
"""The automatic names that this process has given out: the second evaluation of one place is another object."""


def name_for(instance: object, kind: str, given: str | None, *, configured: Callable[[], bool] = bool) -> Name:
    """The name of `instance`, whose constructor is running.

    Args:
        instance: the object under construction; `__init__` frames of its subclasses are passed over.
        kind: what is being made, for the message.
        given: the user's `name=`.
        configured: whether a group was configured; then an object that is not shared by name is worth a warning.

    """
    if given is not None:
        return Name(check(given), Lifetime.NAMED)
    frame = _calling_frame(instance)
    if frame is None:
        return Name(mint(kind), Lifetime.PRIVATE)
    text = None if _another_class_called(frame, instance) else _automatic_name(frame)
    if text is not None and text not in _taken and len(text.encode("utf-8", "replace")) <= NAME_BYTES_MAX:
        _taken.add(text)
        return Name(text, Lifetime.AUTOMATIC)
    complaint = _complaint(frame, kind, repeated=text is not None, configured=configured)
    if complaint is not None and not _consumed(frame):
        complaint.utter()
        complaint = None
    return Name(mint(_place(frame)), Lifetime.PRIVATE, complaint)


def check(name: object) -> str:
    """`name` if it can be one.

    Raises:
        TypeError: it is no string.
        ValueError: it is empty, too long, or no text that can be encoded.

    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError(f"name {name!r} has lone surrogates, so it cannot be sent") from None
    if not 0 < size <= NAME_BYTES_MAX:
        raise ValueError(f"name must have 1 to {NAME_BYTES_MAX} bytes in UTF-8, not {size}")
    return str(name)


def mint(hint: str) -> str:
    """A name that nobody else has. `hint` tells people where it was made."""
    room = NAME_BYTES_MAX // 4  # so that a derived name (`<name>.lock`) and any encoding of the hint still fit
    return f"{hint[-room:]}{_PRIVATE_MARK}{os.urandom(16).hex()}"


# --- where the constructor was called ------------------------------------------------------------------------------


def _calling_frame(instance: object) -> FrameType | None:
    """The frame whose call made `instance`: the first that is no `__init__` of that very object."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the only way to see who calls
    while frame is not None and not _constructs(frame, instance):
        frame = frame.f_back
    while frame is not None and _constructs(frame, instance):
        frame = frame.f_back
    return frame


def _constructs(frame: FrameType, instance: object) -> bool:
    code = frame.f_code
    if code.co_name != "__init__" or not code.co_argcount:
        return False
    return frame.f_locals.get(code.co_varnames[0]) is instance


def _automatic_name(frame: FrameType) -> str | None:
    """The name that the place in `frame` gives, or None when each evaluation of it makes a new object."""
    code = frame.f_code
    if code.co_flags & _CO_OPTIMIZED:
        return None
    module = module_name(frame.f_globals)
    scope = _class_scope(frame)
    if module is None or scope is None:
        return None
    store = _store_after(code, frame.f_lasti)
    if store is None or _inside_loop(code, frame.f_lasti):
        return None
    if store.operation == opmap["STORE_GLOBAL"]:
        scope = ""
    return f"{module}.{scope}{store.target}"


def _another_class_called(frame: FrameType, instance: object) -> bool:
    """Whether the call was of a class that `instance` is none of: `locks = list(map(Semaphore, sizes))` makes many."""
    code = frame.f_code
    if code.co_flags & _CO_OPTIMIZED:
        return False
    positions = list(code.co_positions())
    unit = frame.f_lasti // 2
    start = (positions[unit][0], positions[unit][2]) if 0 <= unit < len(positions) else (None, None)
    if start[1] is None:
        return False  # compiled without columns: -X no_debug_ranges
    # What was called is what was loaded last from the very place where the call's own text begins.
    for earlier in range(unit - 1, -1, -1):
        operation = opname[code.co_code[2 * earlier]]
        if (positions[earlier][0], positions[earlier][2]) == start and operation.startswith(("LOAD", "CALL")):
            if operation not in {"LOAD_NAME", "LOAD_GLOBAL"}:
                return False
            loaded = _called_name(code, earlier)
            called = frame.f_locals.get(loaded, frame.f_globals.get(loaded, getattr(builtins, loaded, None)))
            return isinstance(called, type) and not isinstance(instance, called)
    return False


def _called_name(code: CodeType, unit: int) -> str:
    instructions = code.co_code
    operation, argument, shift = instructions[2 * unit], instructions[2 * unit + 1], 8
    while unit > 0 and instructions[2 * unit - 2] == _EXTENDED_ARG:
        unit -= 1
        argument |= instructions[2 * unit + 1] << shift
        shift += 8
    # LOAD_GLOBAL's lowest bit says whether it pushes a null first; LOAD_NAME has no such bit.
    return code.co_names[argument >> 1 if operation == opmap["LOAD_GLOBAL"] else argument]


def _class_scope(frame: FrameType) -> str | None:
    """The "Outer.Inner." before an attribute, "" in a module, None where the text may run many times."""
    if frame.f_locals is frame.f_globals:
        return ""
    qualified = frame.f_locals.get("__qualname__")
    if not isinstance(qualified, str) or frame.f_locals.get("__module__") != frame.f_globals.get("__name__"):
        return None  # some `exec` with a dictionary of its own
    outer = frame.f_back
    while outer is not None and outer.f_code.co_name.startswith("<generic parameters of"):
        outer = outer.f_back
    if outer is None or outer.f_code.co_flags & _CO_OPTIMIZED:
        return None  # a class made inside a function
    if _inside_loop(outer.f_code, outer.f_lasti) or _class_scope(outer) is None:
        return None
    return f"{qualified}."


def _store_after(code: CodeType, call: int) -> Store | None:
    """What takes the result of the call at offset `call`, if one plain store does."""
    instructions = code.co_code
    if not 0 <= call < len(instructions) or instructions[call] not in _CALLS:
        return None  # something else than a call made the object: a `defaultdict`, an iterator
    position, extended = call + 2, 0
    while position < len(instructions):
        operation, argument = instructions[position], instructions[position + 1] | extended
        position += 2
        if operation == _EXTENDED_ARG:
            extended = argument << 8
            continue
        extended = 0
        if operation == _JUMP_FORWARD:  # the first branch of `a if c else b`
            position += 2 * argument
        elif operation not in _SKIPPED:
            return Store(operation, code.co_names[argument]) if operation in _NAME_STORES else None
    return None


def _attribute_store_after(code: CodeType, call: int) -> str | None:
    """The `lock` of `self.worker.lock = Lock()`: between the call and the store the attribute's owner is loaded."""
    instructions = code.co_code
    argument = 0
    for position in range(call + 2, len(instructions), 2):
        operation = instructions[position]
        argument = (argument << 8) | instructions[position + 1]
        if operation == opmap["STORE_ATTR"]:
            return code.co_names[argument]
        if operation != _EXTENDED_ARG:
            argument = 0
            if operation not in _SKIPPED and not opname[operation].startswith("LOAD"):
                return None
    return None


def _operation_after(code: CodeType, call: int) -> str:
    position = call + 2
    while position < len(code.co_code) and code.co_code[position] in _SKIPPED | {_EXTENDED_ARG}:
        position += 2
    return opname[code.co_code[position]] if position < len(code.co_code) else ""


def _inside_loop(code: CodeType, offset: int) -> bool:
    """Whether some jump leads from behind `offset` back to it or to before it."""
    instructions = code.co_code
    extended = 0
    for position in range(0, len(instructions), 2):
        operation, argument = instructions[position], instructions[position + 1] | extended
        extended = argument << 8 if operation == _EXTENDED_ARG else 0
        if operation in _BACKWARD_JUMPS and position > offset:
            following = position + 2
            while following < len(instructions) and instructions[following] == opmap["CACHE"]:
                following += 2
            if following - 2 * argument <= offset:
                return True
    return False


# --- what is said about private ones -------------------------------------------------------------------------------


def _mode(*, configured: Callable[[], bool]) -> str:
    mode = os.environ.get(MODE_VARIABLE) or ("warn" if configured() else "auto")
    if mode not in MODES:
        raise ValueError(f"{MODE_VARIABLE} must be one of {', '.join(MODES)}, not {mode!r}")
    return mode


def _complaint(frame: FrameType, kind: str, *, repeated: bool, configured: Callable[[], bool]) -> Complaint | None:
    if _mode(configured=configured) == "auto":
        return None
    why = "was evaluated before in this process" if repeated else "makes a new object on each evaluation"
    example = _example_name(frame, kind)
    message = (
        f"this {kind}() {why}, so it is private: no other process shares it by name."
        f" To share it, name it, as in {kind}(name={example!r});"
        f" to keep it private and hear no more of it, set {MODE_VARIABLE}=auto"
    )
    module = frame.f_globals.get("__name__", "<unknown>")
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    return Complaint(message, frame.f_code.co_filename, frame.f_lineno, module, registry)


def _consumed(frame: FrameType) -> bool:
    """Whether the object goes on into a larger expression, as in `Condition(Lock(), name="orders")`, which names it."""
    if _attribute_store_after(frame.f_code, frame.f_lasti) is not None:
        return False
    following = _operation_after(frame.f_code, frame.f_lasti)
    return not following.startswith(("STORE", "RETURN", "POP_TOP", "YIELD", "LIST_APPEND"))


def _example_name(frame: FrameType, kind: str) -> str:
    module = module_name(frame.f_globals) or "program"
    store = _store_after(frame.f_code, frame.f_lasti)
    target = store.target if store else _attribute_store_after(frame.f_code, frame.f_lasti)
    # `self.lock = Lock()` in `Worker.__init__` suggests "module.Worker.lock".
    owner = "" if frame.f_code.co_name == "<module>" else frame.f_code.co_qualname.replace(".<locals>", "") + "."
    return f"{module}.{owner.replace('__init__.', '')}{target or kind.lower()}"


def _place(frame: FrameType) -> str:
    return f"{module_name(frame.f_globals) or '?'}:{frame.f_lineno}"
