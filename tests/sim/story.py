# SPDX-License-Identifier: Apache-2.0
"""The story of a world, for people: which lines to show, and what a message says in words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from dthreading.wire import codec
from dthreading.wire.codec import TAGS
from dthreading.wire.messages import Attach

SHOWN_BYTES_MAX = 60
"""Of a value within a message; a snapshot's part would fill the screen."""


class Narrowed:
    """Passes on the lines about one object, one session, or all. What befalls machines and links is always told.

    Messages name objects by session and handle; the Attach that passes first says which these are.
    """

    def __init__(self, tell: Callable[[str], None], name: str | None = None, session: int | None = None) -> None:
        self._tell = tell
        self._name = name
        self._session = session
        self._handles: set[tuple[str, str]] = set()

    def __call__(self, line: str) -> None:
        if self._concerns(line):
            self._tell(line)

    def _concerns(self, line: str) -> bool:
        session = re.search(r"\bsession=(\d+)", line)
        if session is None:
            return ">" not in line or (self._name is None and self._session is None)
        if self._session is not None and int(session[1]) != self._session:
            return False
        if self._name is None:
            return True
        handle = re.search(r"\bhandle=(\d+)", line)
        if handle is None:
            return "lane=" not in line
        known = session[1], handle[1]
        if f"name={self._name!r}" in line:
            self._handles.add(known)
        return known in self._handles


@runtime_checkable
class Enveloped(Protocol):
    """Bytes on a client's connection."""

    body: bytes


def kind_of(message: Any) -> str:
    """What a message is, or the one in the envelope: its tag stands behind the head of a short array."""
    body = getattr(message, "body", None)
    return TAGS[body[1]].__name__ if body else type(message).__name__


def words(message: Any) -> str:
    """A message as one line: its kind and its fields, long values cut."""
    if isinstance(message, Enveloped):
        return words(codec.decode(message.body))
    if not hasattr(message, "_asdict"):
        return _short(message)
    fields = " ".join(f"{field}={_short(value)}" for field, value in message._asdict().items())
    return f"{type(message).__name__} {fields}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_BYTES_MAX else f"{text[:SHOWN_BYTES_MAX]}... ({len(text)})"


assert {"session", "handle", "name"} <= set(Attach._fields), "Narrowed reads these"
