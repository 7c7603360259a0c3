# SPDX-License-Identifier: Apache-2.0
"""The words that clients and replicas say to each other: one class a message, and their encoding. Nothing else lives
here.

Messages are named tuples, not dataclasses: a frame is the msgpack array `[tag, *fields]`, so encoding is one `packb`
of the
tuple itself and decoding one call of the class, which costs a third of filling a frozen dataclass (SPEED matters on
this path
alone). Every message that changes replicated state names its session itself, so the frame body *is* the command in
the log:
a replica checks it on arrival and then passes the bytes on as they are.

A connection goes through `Hello` -> `Challenge` -> `Proof` -> `Welcome`, and then carries one session's traffic:

    client                                   replica
    Open | Resume                     ->
                                      <-     Opened | Resumed | Ended
    Attach, Call, Withdraw, ...       ->
                                      <-     Reply (an answer, an error, or "parked")
    Keepalive                         ->
                                      <-     Alive (only once a quorum round that began after it confirmed the leader)
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final, NamedTuple, TypeAlias

PROTOCOL_MAGIC: Final = "dthreading"
PROTOCOL_VERSION: Final = 1
"""Raised when a frame's meaning changes. The acceptor takes the connector's version or refuses it by name."""


class Role(IntEnum):
    """What the connecting side is."""

    CLIENT = 0
    REPLICA = 1
    ADMIN = 2


class Status(IntEnum):
    """What a `Reply` means."""

    OK = 0
    ERROR = 1
    """`value` is (code, message, details): see `dthreading.errors.from_wire`."""
    PARKED = 2
    """The call waits in the replicated state; its answer comes in a later `Reply`."""


# --- the handshake ------------------------------------------------------------------------------------------------


class Hello(NamedTuple):
    """Connector, first frame. `nonce` is 16 random bytes; `version` is the connector's protocol version."""

    magic: str
    version: int
    role: int
    nonce: bytes


class Challenge(NamedTuple):
    """Acceptor's answer. `proof` shows that it knows the secret (empty where none is needed), `nonce` asks for the
    same.
    """

    version: int
    nonce: bytes
    proof: bytes


class Proof(NamedTuple):
    """Connector's answer to the challenge: a MAC over both nonces, never the secret itself."""

    proof: bytes


class Welcome(NamedTuple):
    """Acceptor, last of the handshake. `cluster` is "" while the group is not formed; `leader` is "" when unknown."""

    cluster: str
    replica: int
    leader: str
    servers: tuple[str, ...]


class Rejected(NamedTuple):
    """Acceptor: this connection ends, and why. `code` is a code of `dthreading.errors`."""

    code: str
    reason: str


# --- commands: client -> replica, and into the log as they are ----------------------------------------------------


class Open(NamedTuple):
    """A new session. The same `nonce` twice is the same session. `label` says who this is (program, host, pid), for
    people.
    """

    nonce: bytes
    ttl_ms: int
    namespace: str
    label: str


class Resume(NamedTuple):
    """The client of this session is back on a new connection; raises the session's lease epoch."""

    session: int
    nonce: bytes


class Close(NamedTuple):
    """The client is done: end the session now."""

    session: int


class Attach(NamedTuple):
    """From here on `handle` means this object in this session. Handles grow and are never reused, so a late copy is
    harmless.

    `lifetime` is a `Lifetime`; `create` is False where an object that is gone must not be made anew.
    """

    session: int
    handle: int
    namespace: str
    name: str
    kind: str
    arguments: tuple[Any, ...]
    lifetime: int
    create: bool


class Detach(NamedTuple):
    """Ends that one attachment."""

    session: int
    handle: int


class Call(NamedTuple):
    """One operation on one object. (session, lane, number) names it for ever; numbers of a lane grow, and may have
    gaps.

    `tell` asks for a PARKED reply when the call has to wait (a timed call starts its timer then).
    """

    session: int
    lane: int
    number: int
    handle: int
    operation: str
    arguments: tuple[Any, ...]
    tell: bool


class Withdraw(NamedTuple):
    """The caller stopped waiting. Consumes the number, seen or not. `undo`: the caller has gone, give back what was
    granted.

    Without `undo` the verdict (granted after all, or withdrawn) comes as the call's `Reply`.
    """

    session: int
    lane: int
    number: int
    undo: bool


class Acknowledge(NamedTuple):
    """These answers, pairs of (lane, number), have reached the client; items they carried are its own now.

    Reusing a lane acknowledges its former answer by itself, so this is for clients that went quiet after a get().
    """

    session: int
    answers: tuple[tuple[int, int], ...]


# --- not logged: client -> replica --------------------------------------------------------------------------------


class Keepalive(NamedTuple):
    """`beat` grows by one each; the `Alive` that answers it extends the lease, counted from when this was *sent*."""

    session: int
    beat: int


class CloseAtEnd(NamedTuple):
    """The end of this connection is the end of the session: the process is exiting."""

    session: int


class Query(NamedTuple):
    """A person asks (role ADMIN): "status", "locks", ... Answered from one replica's own state, without a quorum."""

    number: int
    question: str
    arguments: tuple[Any, ...]


# --- replica -> client --------------------------------------------------------------------------------------------


class Opened(NamedTuple):
    """The session exists: its id is the slot of its opening."""

    nonce: bytes
    session: int
    ttl_ms: int


class Resumed(NamedTuple):
    """The session lives on, on this connection."""

    session: int


class Ended(NamedTuple):
    """Apply knows no such live session: it was closed or it expired. Final."""

    session: int


class Reply(NamedTuple):
    """The answer to a call, or the word that it is parked."""

    lane: int
    number: int
    status: int
    value: Any


class Alive(NamedTuple):
    """Answers `Keepalive(beat)`."""

    session: int
    beat: int


class Leader(NamedTuple):
    """Who leads now ("" when unknown). Clients prefer the leader and move to it when it suits them."""

    address: str


class MoveOn(NamedTuple):
    """The sender cannot serve (it hears no leader, or it was removed, or it is stopping): try the others."""

    reason: str


class Servers(NamedTuple):
    """The members of the group are others now, and listen at these addresses: where to go when this connection ends."""

    addresses: tuple[str, ...]


class Answer(NamedTuple):
    """Answers `Query(number)`."""

    number: int
    value: Any


class Lifetime(IntEnum):
    """How long an object's state lives when nobody is attached to it."""

    NAMED = 0
    """Given `name=`: until it is back in its initial state, or deleted."""
    AUTOMATIC = 1
    """Named after its place in a module: until no session of its namespace has lived for one lease."""
    PRIVATE = 2
    """Unique: while its creator's session or any attached session lives; never made anew."""


Handshake: TypeAlias = Hello | Challenge | Proof | Welcome | Rejected
Command: TypeAlias = Open | Resume | Close | Attach | Detach | Call | Withdraw | Acknowledge
ToReplica: TypeAlias = Command | Keepalive | CloseAtEnd | Query
ToClient: TypeAlias = Opened | Resumed | Ended | Reply | Alive | Leader | MoveOn | Servers | Answer | Rejected
Message: TypeAlias = Handshake | ToReplica | ToClient

COMMANDS: Final = (Open, Resume, Close, Attach, Detach, Call, Withdraw, Acknowledge)
