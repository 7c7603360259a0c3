# SPDX-License-Identifier: Apache-2.0
"""From a message class to the function that checks an unpacked frame and makes the message of it: the only home of the
rules what a field may hold.

A check that walks through a table of types costs ten times what unpacking the frame costs, and each message is checked
on every process that it passes. So the rules are written out once for each class as straight Python (as dataclasses and
attrs do it), from the annotations of the class, and compiled when the first message of that class comes: whoever only
imports us compiles nothing. What the compiled text says is shown by `source`; the plain, slow form of the same rules is
in the tests, which compare the two.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast, get_args, get_origin, get_type_hints

from dthreading.errors import ProtocolError
from dthreading.wire import limits

__all__ = ["compiled", "source"]

_EXACT: Final = frozenset({int, str, bytes, bool, float})
_MANY_EXACT: Final = 3
"""From so many fields of plain types on, one comparison of all types is cheaper than one for each."""

_SCALARS: Final = frozenset({*_EXACT, type(None)})


def compiled(cls: type, *, natural: bool = False) -> Callable[[tuple[Any, ...]], Any]:
    """The function that takes a frame's whole array, its tag included, and returns a message of `cls`.

    It raises ProtocolError for an array that is none. `natural`: all its ints are 0 to 2**63 - 1.
    """
    text, names = _written(cls, natural)
    exec(compile(text, f"<check of {cls.__name__}>", "exec"), names)  # noqa: S102 - the text is made of our own classes
    return cast("Callable[[tuple[Any, ...]], Any]", names["accept"])


def source(cls: type, *, natural: bool = False) -> str:
    """What is compiled for `cls`, to be read by people."""
    return _written(cls, natural)[0]


def _written(cls: type, natural: bool) -> tuple[str, dict[str, Any]]:
    writer = _Writer(natural)
    fields = list(get_type_hints(cls).values())
    writer.line(1, f"if len(fields) != {len(fields) + 1}:")
    writer.line(2, f"raise ProtocolError('{cls.__name__} has {len(fields)} fields')")
    made = writer.message(cls, "fields", 1, tagged=True)
    writer.line(1, f"return {made}")
    return "\n".join(["def accept(fields):", *writer.lines, ""]), writer.names


class _Writer:
    """The text that is being written. Each method writes the check of one value and returns what stands for it then."""

    def __init__(self, natural: bool) -> None:
        self.lines: list[str] = []
        self._natural = natural
        self.names: dict[str, Any] = {
            "ProtocolError": ProtocolError,
            "SCALARS": _SCALARS,
            "check_plain": _check_plain,
            "make": tuple.__new__,
            "types_of": partial(map, type),
        }
        self._variables = 0

    def line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def _variable(self) -> str:
        self._variables += 1
        return f"v{self._variables}"

    def value(self, hint: Any, name: str, depth: int, owner: str = "") -> str:
        """Any value; `owner` is the message whose field it is, for the error."""
        if hint in _EXACT:
            self.line(depth, f"if type({name}) is not {hint.__name__}:")
            text = f"{owner}{{type({name}).__name__}} where {hint.__name__} belongs"
            self.line(depth + 1, f"raise ProtocolError(f'{text}')")
            if hint is int and not owner:  # those of a message are looked at together
                self._range([name], "an int", depth)
            return name
        if hint is Any:
            self.line(depth, f"if type({name}) not in SCALARS:")
            self.line(depth + 1, f"check_plain({name}, {limits.NESTING_MAX})")
            return name
        if get_origin(hint) is not tuple:
            assert isinstance(hint, type), hint
            assert issubclass(hint, tuple), hint
            arity = len(get_type_hints(hint))
            self._array(name, arity, f"{hint.__name__} has {arity} fields", depth)
            return self.message(hint, name, depth, tagged=False)
        inner = get_args(hint)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return self._many(inner[0], name, depth)
        self._array(name, len(inner), f"not an array of {len(inner)}", depth)
        return self._row(inner, name, depth)

    def message(self, cls: type, name: str, depth: int, *, tagged: bool) -> str:
        """The fields of a message that is known to be an array of the right length, behind a tag or not."""
        self.names[cls.__name__] = cls
        hints = list(get_type_hints(cls).values())
        variables = [self._variable() for _ in hints]
        if variables:
            self.line(depth, f"{', '.join(['_'] * tagged + variables)}, = {name}")
        made = dict(zip(variables, variables, strict=True))
        owner = f"{cls.__name__}: "
        pairs = list(zip(variables, hints, strict=True))
        # The plain ones first: a message that is not what its tag says is told by them.
        inner = self._unless_as_expected(cls, hints, name, depth, tagged=tagged)
        for variable, hint in pairs:
            if hint in _EXACT:
                self.value(hint, variable, inner, owner)
        self._range([variable for variable, hint in pairs if hint is int], f"{owner}an int", depth)
        for variable, hint in pairs:
            if hint not in _EXACT:
                made[variable] = self.value(hint, variable, depth, owner)
        # Not `cls(...)`: that is a Python function which does the same.
        if list(made.values()) != variables:
            return f"make({cls.__name__}, ({''.join(f'{value}, ' for value in made.values())}))"
        return f"make({cls.__name__}, {name}{'[1:]' if tagged else ''})"

    def _unless_as_expected(self, cls: type, hints: list[Any], name: str, depth: int, *, tagged: bool) -> int:
        """One comparison for the types of all fields, if that is worth it. Where it fails, each is looked at by itself:
        the depth of that.
        """
        if Any in hints or sum(hint in _EXACT for hint in hints) < _MANY_EXACT:
            return depth
        types = (int,) * tagged + tuple(hint if hint in _EXACT else tuple for hint in hints)
        self.names[f"types_in_{cls.__name__}"] = types
        self.line(depth, f"if (*types_of({name}),) != types_in_{cls.__name__}:")
        return depth + 1

    def _range(self, names: list[str], what: str, depth: int) -> None:
        if self._natural and names:
            # One test for all: a negative one keeps its sign, and a larger one its bit.
            self.line(depth, f"if ({' | '.join(names)}) >> 63:")
            self.line(depth + 1, f"raise ProtocolError('{what} that is not from 0 to 2**63 - 1')")

    def _array(self, name: str, length: int, otherwise: str, depth: int) -> None:
        self.line(depth, f"if type({name}) is not tuple or len({name}) != {length}:")
        self.line(depth + 1, f"raise ProtocolError('{otherwise}')")

    def _many(self, hint: Any, name: str, depth: int) -> str:
        """An array of any length of the same."""
        self.line(depth, f"if type({name}) is not tuple:")
        self.line(depth + 1, f"raise ProtocolError(f'{{type({name}).__name__}} where an array belongs')")
        element, several = self._variable(), self._variable()
        at = len(self.lines)
        self.line(depth, f"for {element} in {name}:")
        made = self.value(hint, element, depth + 1)
        if made == element:
            return name
        self.lines.insert(at, "    " * depth + f"{several} = []")
        self.line(depth + 1, f"{several}.append({made})")
        return f"tuple({several})"

    def _row(self, hints: tuple[Any, ...], name: str, depth: int) -> str:
        """An array of a few different ones."""
        variables = [self._variable() for _ in hints]
        self.line(depth, f"{', '.join(variables)}, = {name}")
        made = [self.value(hint, variable, depth) for variable, hint in zip(variables, hints, strict=True)]
        return name if made == variables else f"({''.join(f'{value}, ' for value in made)})"


def _check_plain(value: object, depth: int) -> None:
    """Lets only plain values through, nested a few levels: deeper ones would meet the interpreter's own recursion
    limit.
    """
    if type(value) in _SCALARS:
        return
    if depth == 0:
        raise ProtocolError(f"nested deeper than {limits.NESTING_MAX} levels")
    if type(value) is tuple:
        for element in cast("tuple[object, ...]", value):
            _check_plain(element, depth - 1)
    elif type(value) is dict:
        for key, element in cast("dict[object, object]", value).items():
            _check_plain(key, 1)
            _check_plain(element, depth - 1)
    else:
        raise ProtocolError(f"{type(value).__name__} where a plain value belongs")
