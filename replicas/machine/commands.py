# SPDX-License-Identifier: Apache-2.0
"""What may stand in the log as a command, and its bytes: the clients' own frames, and the few that a leader adds.

A leader's commands carry the ballot of their proposer inside the value, because apply judges them from the log alone:
the ballot of an entry may differ from replica to replica (whoever learned it late has it at a later ballot), its value
never does.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

from dthreading.wire import messages
from dthreading.wire.codec import TAGS, Codec

__all__ = [
    "Admit",
    "Audit",
    "Delete",
    "Dismiss",
    "Expire",
    "Internal",
    "Logged",
    "Reset",
    "client_codec",
    "codec",
    "delete",
    "expire",
    "reset",
]


class Expire(NamedTuple):
    """The leader of ballot (round, replica) has not heard of `session` for its whole lease.

    Ignored unless that ballot is in force and `epoch` is the session's: a Resume that was chosen first has raised it.
    """

    session: int
    epoch: int
    round: int
    replica: int


class Reset(NamedTuple):
    """The leader of ballot (round, replica) has seen no session of `namespace` for one lease: its automatic objects go.

    Ignored unless that ballot is in force and `epoch` is the namespace's: a session that came since has raised it.
    """

    namespace: str
    epoch: int
    round: int
    replica: int


class Delete(NamedTuple):
    """An operator, or `dthreading.delete`, ends an object whatever its state. Its waiting callers are told."""

    namespace: str
    name: str


class Admit(NamedTuple):
    """The replica of this directory shall have an id, and vote once it is near. The same directory has one id only.

    `replaces` is the member whose place it takes, or 0; `asked` says that an operator has named it.
    """

    address: str
    incarnation: bytes
    replaces: int
    asked: bool


class Dismiss(NamedTuple):
    """That newcomer shall not become a member."""

    replica: int


class Audit(NamedTuple):
    """A leader: these parts of the state, as they are in this slot, are to be compared by all replicas.

    Changes nothing, so to a replica that does not know it, it is nothing as well.
    """

    sessions: tuple[tuple[int, tuple[int, ...]], ...]
    """Each with some of its handles."""
    objects: tuple[int, ...]


Internal: TypeAlias = Expire | Reset | Delete | Admit | Dismiss | Audit
Logged: TypeAlias = messages.Command | Internal

_CLIENT_TAGS: Final = {tag: cls for tag, cls in TAGS.items() if cls in messages.COMMANDS}
_INTERNAL_TAGS: Final[dict[int, type]] = {200: Expire, 201: Reset, 202: Delete, 203: Admit, 204: Dismiss, 205: Audit}

client_codec: Final[Codec[messages.Command]] = Codec(_CLIENT_TAGS)
"""What a client may send into the log: no tag of an internal command is known to it."""

codec: Final[Codec[Logged]] = Codec(_CLIENT_TAGS | _INTERNAL_TAGS)
"""All that may stand in the log."""


def expire(session: int, epoch: int, ballot: tuple[int, int]) -> bytes:
    """The bytes of an `Expire` that the leader of `ballot` proposes."""
    return codec.encode(Expire(session, epoch, *ballot))


def reset(namespace: str, epoch: int, ballot: tuple[int, int]) -> bytes:
    """The bytes of a `Reset` that the leader of `ballot` proposes."""
    return codec.encode(Reset(namespace, epoch, *ballot))


def delete(namespace: str, name: str) -> bytes:
    """The bytes of a `Delete`."""
    return codec.encode(Delete(namespace, name))
