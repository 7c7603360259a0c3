# SPDX-License-Identifier: Apache-2.0
"""What a message between replicas must be besides having fields of the right types, whatever the state of either end.

A replica that knows the secret is believed: what contradicts our state meets an assert, which ends us before anything
wrong is done. But a message that no state could have sent is damage, and ends its connection. That numbers are natural
is the codec's business; here is what has to fit together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from replicas.machine.audit import PART_BYTES
from replicas.paxos.messages import Accept, Chosen, Promise
from replicas.paxos.values import Configuration, EntryKind, decode_ballot, decode_configuration
from replicas.replica.formation import Census, Phase

__all__ = ["FLAWS", "account"]

_COMMAND: Final = int(EntryKind.COMMAND)
_ONE_COMMAND: Final = bytes([_COMMAND])
_KIND_MAX: Final = max(EntryKind)


def _page(message: Accept | Chosen) -> str | None:
    kinds, values = message.kinds, message.values
    if len(kinds) != len(values):
        return f"{len(kinds)} kinds of {len(values)} values"
    if message.first < 1:
        return "slots begin at 1"
    if not kinds.strip(_ONE_COMMAND):
        return None  # commands alone, as nearly always; they are opaque here
    return next((wrong for kind, value in zip(kinds, values, strict=True) if (wrong := _entry(kind, value))), None)


def _promise(message: Promise) -> str | None:
    entries = message.entries
    if not entries:
        return f"a last page that goes on at {message.next_slot}" if message.next_slot else None
    first = max(message.from_slot, message.chosen + 1)
    for slot, (found, _, kind, value) in enumerate(entries, first):
        if found != slot:
            return f"slot {found} where {slot} belongs"
        if kind != _COMMAND and (wrong := _entry(kind, value)) is not None:
            return wrong
    if message.next_slot not in {0, first + len(entries)}:
        return f"{len(entries)} entries from {first} on, and goes on at {message.next_slot}"
    return None


def _entry(kind: int, value: bytes) -> str | None:
    try:
        if kind == EntryKind.LEADS:
            decode_ballot(value)
        elif kind == EntryKind.CONFIGURATION:
            return _configuration(decode_configuration(value))
        elif kind > _KIND_MAX:
            return f"an entry of kind {kind}"
    except (AssertionError, UnicodeDecodeError):
        return f"an entry of kind {kind} that is none"
    return None


def _configuration(configuration: Configuration) -> str | None:
    count = len(configuration.members)
    ids = set(configuration.ids)
    incarnations = {member.incarnation for member in configuration.members}
    return None if len(ids) == len(incarnations) == count > 0 < min(ids) else "members that are no group"


def _census(message: Census) -> str | None:
    if message.phase == Phase.EMPTY:
        return None
    return f"phase {message.phase}" if message.phase > Phase.FORMED else _configuration(message.configuration)


def account(message: Any) -> str | None:
    """What is wrong with an `Account`, whose class knows this file."""
    return f"{len(message.parts)} bytes of parts" if len(message.parts) % PART_BYTES else None


FLAWS: Final[dict[type, Callable[[Any], str | None]]] = {
    Accept: _page,
    Chosen: _page,
    Promise: _promise,
    Census: _census,
}
"""By class, what says what is wrong with a message, or None."""
