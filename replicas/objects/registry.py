# SPDX-License-Identifier: Apache-2.0
"""Names -> objects, and how long each lives: the only file that makes an object or drops one.

An object is kept while somebody is attached to it or waits at it. When the last one leaves, a PRIVATE one is dropped,
and so is any other that is in its initial state: making it anew would change nothing. AUTOMATIC ones are dropped
whatever their state one lease after the last session that used their namespace (`reset`).
"""

from __future__ import annotations

from typing import Final

from dthreading.wire.limits import OP_BYTES_MAX
from dthreading.wire.messages import Attach, Lifetime
from replicas.objects import KINDS
from replicas.objects.base import Host, Refused, Replicated

__all__ = ["GONE", "Namespace", "Registry"]

_LIFETIMES: Final = tuple(map(int, Lifetime))

ARGUMENTS_SHOWN: Final = 200
"""The most characters of an object's arguments in an error."""

GONE: Final = Refused("gone", "the object was deleted, or has ended with the last session that used it")


class Namespace:
    """The sessions that use a namespace, and the objects that end one lease after the last of them."""

    __slots__ = ("automatic", "epoch", "sessions")

    def __init__(self) -> None:
        self.sessions = 0
        self.epoch = 0
        """The slot in which a session joined last: a Reset proposed before that has come too late."""
        self.automatic: dict[int, Replicated] = {}


class Registry:
    """All objects of the state."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.objects: dict[tuple[str, str], Replicated] = {}
        self.numbers: dict[int, Replicated] = {}
        """The same by their numbers, in the order in which they were made."""
        self.namespaces: dict[str, Namespace] = {}
        self.idle: dict[str, int] = {}
        """Namespaces without sessions that have automatic objects, with their epochs: what a leader may reset."""
        self.made = 0
        """How many objects there have ever been: the next one's number."""
        self._suspects: list[Replicated] = []

    # --- objects

    def attach(self, wanted: Attach) -> Replicated:
        """The object that this attachment means, made if need be, with one attachment more.

        Raises:
            Refused: it is another kind, has other arguments, is gone, or its name is too long.

        """
        if wanted.lifetime not in _LIFETIMES:
            raise Refused("value", f"{wanted.lifetime} is no lifetime")
        if wanted.kind not in KINDS:
            raise Refused("type", f"{wanted.kind[:OP_BYTES_MAX]!r} is no kind of object that these replicas know")
        found = self.objects.get((wanted.namespace, wanted.name))
        if found is None:
            found = self._make(wanted)
        elif found.kind != wanted.kind or found.arguments != wanted.arguments:
            raise Refused("mismatch", _mismatch(found, wanted))
        elif wanted.lifetime < found.lifetime:
            self._host.touch(found)
            self._outlive(found, wanted.lifetime)
        self._host.touch(found)
        found.attached += 1
        return found

    def _make(self, wanted: Attach) -> Replicated:
        limit = self._host.limits.name_bytes_max
        if len(wanted.name.encode()) > limit or len(wanted.namespace.encode()) > limit:
            raise Refused("limit", f"a name or namespace of more than {limit} bytes (name_bytes_max)")
        if not wanted.create:
            raise Refused("gone", f"{wanted.kind} {wanted.name!r} has ended with the last session that used it")
        made = KINDS[wanted.kind](self._host, *wanted.arguments)
        self.made += 1
        made.number = self.made
        made.namespace, made.name, made.lifetime = wanted.namespace, wanted.name, wanted.lifetime
        self.put(made)
        return made

    def put(self, made: Replicated) -> None:
        """An object that was just made or restored takes its place."""
        self.objects[made.namespace, made.name] = made
        self.numbers[made.number] = made
        if made.lifetime == Lifetime.AUTOMATIC:
            self.namespaces[made.namespace].automatic[made.number] = made

    def _outlive(self, found: Replicated, lifetime: int) -> None:
        if found.lifetime == Lifetime.AUTOMATIC:
            del self.namespaces[found.namespace].automatic[found.number]
        found.lifetime = lifetime
        if lifetime == Lifetime.AUTOMATIC:
            self.namespaces[found.namespace].automatic[found.number] = found

    def release(self, released: Replicated) -> None:
        """One attachment or pin less."""
        self._host.touch(released)
        assert released.attached > 0
        released.attached -= 1
        self.suspect(released)

    def suspect(self, suspected: Replicated) -> None:
        """Something that kept it may have gone: it is looked at when the command has been applied."""
        if not suspected.attached:
            self._suspects.append(suspected)

    def sweep(self) -> None:
        """Drops the suspects that nothing keeps."""
        suspects, self._suspects = self._suspects, []
        for suspected in suspects:
            if suspected.attached or any(suspected.queues) or suspected.fault is GONE:
                continue
            initial = suspected.fault is None and suspected.is_initial()
            if initial or suspected.lifetime == Lifetime.PRIVATE:
                self.drop(suspected)

    @property
    def has_suspects(self) -> bool:
        """Whether `sweep` has anything to do."""
        return bool(self._suspects)

    def drop(self, dropped: Replicated) -> None:
        """It is no more. Nobody waits at it."""
        self._host.touch(dropped)
        for session in tuple(dropped.holders()):
            self._host.unstake(session, dropped)
        dropped.fault = GONE
        del self.objects[dropped.namespace, dropped.name]
        del self.numbers[dropped.number]
        if dropped.lifetime == Lifetime.AUTOMATIC:
            del self.namespaces[dropped.namespace].automatic[dropped.number]
            self._settle_namespace(dropped.namespace)

    # --- namespaces

    def join(self, namespace: str, slot: int) -> None:
        """A session begins to use the namespace."""
        known = self.namespaces.get(namespace)
        if known is None:
            known = self.namespaces[namespace] = Namespace()
        known.sessions += 1
        known.epoch = slot
        self.idle.pop(namespace, None)

    def leave(self, namespace: str) -> bool:
        """A session that used the namespace has ended. True when it was the last and left something to reset."""
        known = self.namespaces[namespace]
        assert known.sessions > 0
        known.sessions -= 1
        self._settle_namespace(namespace)
        return namespace in self.idle

    def _settle_namespace(self, namespace: str) -> None:
        known = self.namespaces[namespace]
        if known.sessions:
            return
        if known.automatic:
            self.idle[namespace] = known.epoch
        else:
            self.idle.pop(namespace, None)
            del self.namespaces[namespace]

    def find_idle(self) -> None:
        """After a restore: which namespaces wait for their reset."""
        self.idle = {name: known.epoch for name, known in self.namespaces.items() if not known.sessions}

    def reset(self, namespace: str, epoch: int) -> None:
        """Puts the automatic objects of an idle namespace back, unless a session has come since `epoch`."""
        if self.idle.get(namespace) != epoch:
            return
        for automatic in list(self.namespaces[namespace].automatic.values()):
            assert not automatic.attached, "whoever attaches uses the namespace"
            self.drop(automatic)


def _mismatch(found: Replicated, wanted: Attach) -> str:
    return (
        f"{wanted.name!r} in namespace {wanted.namespace!r} is a {_call(found.kind, found.arguments)},"
        f" not a {_call(wanted.kind, wanted.arguments)}"
    )


def _call(kind: str, arguments: tuple[object, ...]) -> str:
    return f"{kind}({', '.join(map(repr, arguments))[:ARGUMENTS_SHOWN]})"
