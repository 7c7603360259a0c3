# SPDX-License-Identifier: Apache-2.0
"""What is fuzzed with words that are well-formed and absurd: each field has the right type, and a value that nobody
would say. One such question, let into the log, has once ended a whole group for good.

Clients and operators say them to a group, through the same checks as at a daemon's door. No replica may raise; none may
say what fits no frame, or is refused by whoever hears it; whom they link with can be dialed; all states are equal, and
are given back by their snapshot; no object is in quarantine, and an honest client between the others is served. Targets
are as in fuzz_targets.py.
"""

from __future__ import annotations

import random
from typing import Any, Final

from dthreading.errors import ProtocolError
from dthreading.wire import codec, limits
from dthreading.wire import messages as wire
from replicas.daemon.address import Address
from replicas.daemon.server import _flaw_of_address
from replicas.objects import KINDS, OPERATION_NAMES
from replicas.objects.base import Replicated
from tests.wire import fuzz_words as words
from tests.wire.fuzz_states import FROM_CLIENT, QUESTIONS, _Checked, _Crowd

STEPS: Final = 60
LARGE_BYTES: Final = 5_000_000
"""Characters of what is longer where it is shown: an error that names it fits no frame."""

HUGE: Final = 2 ** (8 * limits.INT_BYTES_MAX - 1)
INTS: Final = (*words.EDGES, HUGE - 1)
TOO_LARGE: Final = (HUGE, -HUGE - 1, 2 ** (8 * limits.INT_BYTES_MAX + 60))
"""Whoever calls with one is cut, so they are rare."""
FLOATS: Final = (0.0, -0.0, 1.5, 1e308, 5e-324, float("nan"), float("inf"), float("-inf"))
ADDRESSES: Final = (
    "h:1",
    "h:0",
    "r1",
    "[::1]:7",
    "unix:/x",
    "a..b:1",
    "h:65536",
    "\u2460:1",
    "h\0:1",
    "unix:/\0",
    ":1",
    "",
)


class _Framed(_Checked):
    """What replicas say to each other fits a frame as well."""

    def append(self, flight: tuple[int, int, Any]) -> None:
        from replicas.replica.messages import codec as peers

        assert len(peers.encode(flight[2])) <= limits.FRAME_BYTES_MAX, type(flight[2]).__name__
        super().append(flight)


# --- absurd values ------------------------------------------------------------------------------------------------


def integer(luck: random.Random) -> int:
    """At an edge, of either sign."""
    if luck.random() < 0.003:
        return luck.choice(TOO_LARGE)
    return luck.choice(INTS) * luck.choice((1, 1, -1)) if luck.random() < 0.5 else luck.randrange(-2, 4)


def length(luck: random.Random) -> int:
    """At a limit, or beyond."""
    return luck.choice((0, 1, 2, limits.OP_BYTES_MAX + 1, 300, limits.NAME_BYTES_MAX, limits.NAME_BYTES_MAX + 1))


def text(luck: random.Random) -> str:
    """Of characters that are longer in UTF-8, or where they are shown; sometimes far beyond all limits."""
    if luck.random() < 0.08:
        return luck.choice(("\0", "\ud7ff", "\u202e")) * LARGE_BYTES
    return luck.choice(("a", "9", "\0", "\n", "\u00b2", "\ud7ff", "\U0001f40d", "\u202e")) * length(luck)


def value(luck: random.Random, kind: type | None) -> Any:
    """Of that type; None: of any, nested."""
    match kind:
        case _ if kind is int:
            return integer(luck)
        case _ if kind is bool:
            return luck.random() < 0.5
        case _ if kind is str:
            return text(luck)
        case _ if kind is bytes:
            return b"\xdc" * (limits.ITEM_BYTES_MAX + luck.randrange(2) if luck.random() < 0.005 else length(luck))
        case _ if kind is type(None):
            return None
    return priority(luck, luck.choice((0, 1, 2, limits.NESTING_MAX - 2)))


def priority(luck: random.Random, depth: int) -> Any:
    """What may or may not be compared with another one."""
    if depth and luck.random() < 0.8:
        return tuple(priority(luck, depth - 1) for _ in range(luck.choice((0, 1, 1, 2))))
    if luck.random() < 0.1:
        return (0,) * luck.choice((1000, limits.ELEMENTS_MAX))
    return luck.choice((luck.choice(FLOATS), integer(luck), luck.choice((True, None, "a", b"a", {}, (), {"k": ()}))))


def arguments_of_kind(luck: random.Random, kind: str) -> tuple[Any, ...]:
    """What an object of that kind may be made with."""
    if luck.random() < 0.1:
        return tuple(value(luck, luck.choice((int, str, bytes, bool, None))) for _ in range(luck.randrange(4)))
    match kind:
        case "Semaphore" | "BoundedSemaphore" | "Barrier":
            return (integer(luck),)
        case "Queue" | "LifoQueue" | "PriorityQueue":
            return (integer(luck), luck.random() < 0.5)
        case "Condition":
            lock = luck.choice(("Lock", "RLock"))
            return tuple(text(luck) if luck.random() < 0.2 else word for word in ("n", lock, lock))
    return ()


def arguments_of_operation(luck: random.Random, target: object, operation: str) -> tuple[Any, ...]:
    """What that operation takes, by its types."""
    known = target.operations.get(operation) if isinstance(target, Replicated) else None
    if known is None:
        return tuple(value(luck, luck.choice((int, str, bytes, bool))) for _ in range(luck.choice((0, 1, 3, 17))))
    kinds = [None if allowed is None else luck.choice(sorted(allowed, key=str)) for allowed in known.allowed]
    return tuple(value(luck, kind) for kind in kinds[: luck.randrange(known.least, known.most + 1)])


# --- who says them ------------------------------------------------------------------------------------------------


class _Absurd(_Crowd):
    """A group, an honest client, and connections that say what is absurd."""

    damaged = 0.0

    def __init__(self, luck: random.Random) -> None:
        super().__init__(luck, luck.choice((1, 3)))
        self.group.queue = _Framed()
        self.operators = 0

    def garbage(self) -> None:
        if self.luck.random() < 0.15:
            self.ask()
            return
        super().garbage()
        self.group.settle()
        self.listen()

    def message(self, connection: int) -> Any:
        luck = self.luck
        replica = self.group.replicas[self.connections[connection]]
        session = replica._hosting.link(connection).session
        known = replica.machine.sessions.get(session) if session is not None else None
        if known is None or luck.random() < 0.02:
            if luck.random() < 0.8:
                return wire.Open(luck.randbytes(16), luck.choice((10_000, 10_000, integer(luck))), "n", "l")
            word = luck.choice((b"", luck.randbytes(16), b"x" * length(luck)))
            return wire.Open(word, integer(luck), luck.choice(("n", text(luck))), luck.choice(("l", text(luck))))
        lane, number = luck.choice((luck.randrange(4), integer(luck))), luck.choice((luck.randrange(99), integer(luck)))
        handle = luck.choice(list(known.handles)) if known.handles and luck.random() < 0.95 else integer(luck)
        match luck.choices(("Attach", "Call", "Withdraw", "any"), (6, 10 * bool(known.handles), 1, 1))[0]:
            case "Attach":
                kind = luck.choice((*sorted(KINDS), "Condition", "Condition"))
                name = luck.choice((kind, kind, kind, luck.choice("xyz"), kind + text(luck)))
                handle = known.handle_top + 1 if luck.random() < 0.98 else integer(luck)
                given = arguments_of_kind(luck, kind)
                lifetime = luck.randrange(3) if luck.random() < 0.95 else integer(luck)
                return wire.Attach(
                    known.id, handle, luck.choice("nnm"), name, kind, given, lifetime, luck.random() < 0.9
                )
            case "Call":
                target = known.handles.get(handle)
                own = sorted(target.operations) if isinstance(target, Replicated) else []
                operation = luck.choice([*own, *own, luck.choice(sorted(OPERATION_NAMES))])
                given = arguments_of_operation(luck, target, operation)
                if operation in {"wait", "notify"} and given and luck.random() < 0.8:
                    given = (luck.choice([*known.handles, 0]), *given[1:])  # the lock's
                return wire.Call(known.id, lane, number, handle, operation, given, luck.random() < 0.5)
            case "Withdraw":
                return wire.Withdraw(known.id, lane, number, luck.random() < 0.5)
        message = words.message(luck, luck.choice(FROM_CLIENT))
        return message._replace(session=known.id) if hasattr(message, "session") else message

    def ask(self) -> None:
        """An operator's question. What it may not do is to take a member out: the honest client's replica is one."""
        luck = self.luck
        self.operators += 1
        connection, home = -self.operators, luck.choice(list(self.group.replicas))
        question = luck.choice((*QUESTIONS, *QUESTIONS[4:], *["members." + text(luck)] * 3))
        target = luck.choice((text(luck), "0", "-1", "1" * 5000, "\u00b2", "\uff11", " 1"))
        address = luck.choice((*ADDRESSES, text(luck), text(luck) + ":1"))
        incarnation = luck.choice((b"i" * 16, luck.randbytes(16), b"i" * length(luck)))
        given: tuple[Any, ...] = {
            "members.add": (address, incarnation),
            "members.join": (address, incarnation, target, integer(luck)),
            "members.replace": (luck.choice((target, "1")), address, incarnation),
            "members.remove": (target,),
            "members.transfer": (target, integer(luck)),
            "delete": (text(luck), text(luck)),
        }.get(question, (value(luck, luck.choice((int, str, bytes, None))),) * luck.randrange(3))
        query = wire.Query(integer(luck), question, given)
        self.frames += 1
        try:
            body = codec.encode(query)
            heard = codec.decode(body)
            assert isinstance(heard, wire.Query)
            if len(body) <= limits.COMMAND_BYTES_MAX and not _flaw_of_address(heard):
                self.group.replicas[home].client_said(connection, heard, body)
        except (ProtocolError, TypeError):  # the daemon says ProtocolError for a question with too many arguments
            pass
        self.group.settle()
        self.group.replicas[home].client_gone(connection)

    def check(self) -> None:
        super().check()
        for outputs in self.group.outputs.values():
            for output in outputs:
                for replica, address in (output.links or {}).items():
                    if replica not in self.group.replicas:
                        Address.parse(address)


def absurd(luck: random.Random) -> int:
    """Absurd words of clients and operators."""
    crowd = _Absurd(luck)
    for step in range(STEPS):
        crowd.garbage()
        if step % 20 == 19:
            crowd.group.pass_ms(luck.choice((20, 600)))
            crowd.listen()
            crowd.is_served()
    crowd.check()
    return crowd.frames


STATEFUL: Final = {"absurd": absurd}
