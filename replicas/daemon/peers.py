# SPDX-License-Identifier: Apache-2.0
"""The links between replicas. Each replica dials every other one, and sends only on the connection that it dialed.

So a link has one owner who mends it, and no two ends ever argue about which of two connections counts. The first
frame after the handshake says who speaks and whom he means to reach; whoever is wrong about it is refused by name. A
message for a link that is down, or whose other side does not read, is dropped: Paxos sends again what matters, and old
news in a long queue would only delay the new.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from dthreading.errors import NotAuthenticated, ProtocolError
from dthreading.wire import limits
from dthreading.wire.auth import Connector
from dthreading.wire.codec import Codec, decode, encode
from dthreading.wire.messages import Challenge, Rejected, Role, Welcome
from replicas.daemon.address import Address, BadOptions
from replicas.daemon.connections import Connection, Outgoing
from replicas.daemon.journal import log
from replicas.replica.acquaintance import GIVEN_UP, LATER, REMOVED, Objection
from replicas.replica.formation import Census
from replicas.replica.messages import PeerMessage, codec

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicas.daemon.journal import Muffler
    from replicas.daemon.loop import Loop

__all__ = ["Introduction", "Peers", "dialable"]

DIAL_S_MIN: Final = 0.05
"""The first pause before a link is dialed again; it doubles, with jitter, up to `DIAL_S_MAX`."""

DIAL_S_MAX: Final = 1.0
"""A replica that comes back is heard of within this. A refused connection on loopback costs 50 us."""

SETTLED_S: Final = 1.0
"""A link to one that has refused us before is told of when it has stood so long: until then it may refuse us again."""

HANDSHAKE_S: Final = 5.0
"""From connect to welcome; a process that is stopped accepts connections in its kernel and never answers."""

UNREAD_BYTES_MAX: Final = 8 * limits.FRAME_BYTES_MAX
"""What may wait for a replica that does not read; beyond it messages to it are dropped until half has left."""

UNACKNOWLEDGED_MS_MAX: Final = 5000
"""How long the kernel may try to deliver bytes before it calls the link dead (TCP_USER_TIMEOUT, where there is one)."""


class Introduction(NamedTuple):
    """Dialing replica, first frame after the handshake. `cluster` is "" while it belongs to no formed group."""

    cluster: str
    replica: int
    incarnation: bytes
    to: int
    address: str = ""
    """Where it listens itself, for one that has not heard of it yet."""


def _too_long(introduction: Introduction) -> str | None:
    """Whoever is refused is told what it said, in one frame."""
    longest = max(map(len, (introduction.cluster, introduction.incarnation, introduction.address)))
    return f"{longest} characters" if longest > limits.NAME_BYTES_MAX else None


_introductions: Final[Codec[Introduction]] = Codec(
    {100: Introduction}, natural=[Introduction], flaws={Introduction: _too_long}
)


def dialable(addresses: dict[int, str]) -> dict[int, Address]:
    """Whom there can be a link to. What the log says is there for good, so what is no address must end nobody."""
    others = {}
    for replica, text in addresses.items():
        try:
            others[replica] = Address.parse(text)
        except BadOptions as error:
            log.error("replica %d cannot be linked to: %s (`dthreading members remove` takes it out)", replica, error)
    return others


class Host(Protocol):
    """What the links need of the daemon around them."""

    def introduction(self, to: int) -> Introduction: ...
    def refusal(self, introduction: Introduction) -> Objection | None:
        """Why this replica will not listen to whoever introduces itself so; None when it will."""

    def removed(self, sentence: str) -> None:
        """A member says that this replica was taken out of the group."""

    def given_up(self, sentence: str) -> None:
        """Another group has taken the place of this one, and says so."""

    def peer_said(self, source: int, message: PeerMessage) -> None: ...
    def link_up(self, replica: int) -> None: ...
    def luck(self) -> float: ...


class Peers:
    """All links of this replica: those it dials, by the other's id, and those that the others dialed."""

    def __init__(
        self,
        host: Host,
        outgoing: Outgoing,
        muffler: Muffler,
        loop: Loop,
        secret: Callable[[Address], bytes | None],
    ) -> None:
        self.host = host
        self.outgoing = outgoing
        self.secret = secret
        self._muffler = muffler
        self._loop = loop
        self._dialers: dict[int, _Dialer] = {}
        self._came: dict[int, Connection] = {}

    def link(self, others: dict[int, Address]) -> None:
        """Have links with these, from now on, and with nobody else."""
        for replica, dialer in list(self._dialers.items()):
            if others.get(replica) != dialer.address:
                dialer.stop()
                del self._dialers[replica]
        for replica, connection in list(self._came.items()):
            if replica not in others:
                # If it was taken out of the group, it hears so when it comes again.
                del self._came[replica]
                connection.hang_up()
        for replica, address in others.items():
            if replica not in self._dialers:
                self._dialers[replica] = dialer = _Dialer(self, replica, address, self._loop)
                dialer.dial()

    def send(self, replica: int, message: PeerMessage) -> None:
        """To that replica, if its link is up and not clogged."""
        dialer = self._dialers.get(replica)
        if dialer is not None and dialer.link is not None and not dialer.link.clogged:
            dialer.link.send(codec.encode(message))

    def close(self) -> None:
        """End all links and dial no more."""
        for dialer in self._dialers.values():
            dialer.stop()
        for connection in list(self._came.values()):
            connection.hang_up()

    def introduce_again(self) -> None:
        """The group was formed: all links begin anew, so that both ends of each are checked against its members."""
        for dialer in self._dialers.values():
            dialer.redial()
        came, self._came = self._came, {}
        for connection in came.values():
            connection.hang_up()

    @property
    def linked(self) -> tuple[int, ...]:
        """The replicas that we can send to now."""
        return tuple(replica for replica, dialer in self._dialers.items() if dialer.link is not None)

    def came(self, connection: Connection) -> None:
        """A replica has dialed us and proved that it knows the secret; its next frame introduces it."""
        connection.got = lambda body: self._introduced(connection, _introductions.decode(body))

    def complain(self, about: str, why: str) -> None:
        """One line in the log about a link."""
        self._muffler.warn(time.monotonic(), f"{about}: {why}")

    def _introduced(self, connection: Connection, introduction: Introduction) -> None:
        refusal = self.host.refusal(introduction)
        if refusal is not None:
            if refusal.code != LATER:
                self.complain(f"refused the link from {connection.peer_name}", refusal.reason)
            connection.send(encode(Rejected(*refusal)))
            connection.hang_up()
            return
        source = introduction.replica
        former = self._came.get(source)
        self._came[source] = connection
        if former is not None and former is not connection:
            # The other side has dialed anew, so its old connection is dead; its last words are in order before ours.
            former.hang_up()
        dialer = self._dialers.get(source)
        if dialer is not None:
            dialer.hurry()
        said, from_bytes = self.host.peer_said, codec.decode
        if introduction.cluster:
            connection.got = lambda body: said(source, from_bytes(body))
        else:
            connection.got = lambda body: self._from_unformed(source, from_bytes(body))

    def _from_unformed(self, source: int, message: PeerMessage) -> None:
        # Whoever is in no group yet, or in none any more, has no vote: all that he can say is what he is.
        if not isinstance(message, Census):
            raise ProtocolError(f"{type(message).__name__} from a replica that is in no group")
        self.host.peer_said(source, message)


class _Dialer:
    """Keeps one link: dials, and dials again after a pause that grows while nobody answers."""

    def __init__(self, peers: Peers, replica: int, address: Address, loop: Loop) -> None:
        self.peers = peers
        self.replica = replica
        self.address = address
        self.link: _Dialed | None = None
        """The connection that is ready to send, once the other side has welcomed us."""
        self._loop = loop
        self._current: _Dialed | None = None
        self._pause_s = DIAL_S_MIN
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._said: str | None = None
        self._was_refused = False
        self._told = False  # that there is a link
        self._settling: asyncio.TimerHandle | None = None

    def dial(self) -> None:
        """Try once; whatever comes of it, `ended` plans the next try."""
        self._timer = None
        if self._stopped:
            return
        self._task = self._loop.spawn(self._connect(), f"dial replica {self.replica}")

    def stop(self) -> None:
        """Dial no more; what was sent leaves first."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._current is not None:
            self._current.hang_up()

    def redial(self) -> None:
        """Drop the connection, if there is one, for a new one at once."""
        self._pause_s = 0.0
        if self._current is not None:
            self._current.hang_up()

    def hurry(self) -> None:
        """The other side has just dialed us, so it is there: no need to wait before the next try."""
        if self._timer is not None and self._current is None and not self._stopped:
            self._timer.cancel()
            self.dial()

    def up(self, link: _Dialed) -> None:
        """The other side has welcomed us."""
        self._pause_s = DIAL_S_MIN
        self.link = link
        if self._was_refused:
            # It was welcomed before, too, and refused when it had said who it is: a pair of lines for each try.
            self._settling = self._loop.call_later(SETTLED_S, self._tell)
        else:
            self._tell()
        self.peers.host.link_up(self.replica)

    def _tell(self) -> None:
        self._told, self._was_refused = True, False
        log.info("linked to replica %d at %s", self.replica, self.address)

    def refused(self) -> None:
        """The other side does not want us. That it answers at all is no reason to come again at once."""
        self._pause_s = DIAL_S_MAX
        self._was_refused = True

    def ended(self, link: _Dialed | None, why: str) -> None:
        """The connection, or the attempt, has ended."""
        if link is not self._current:
            return
        if not why:
            self._said = None
        if self._settling is not None:
            self._settling.cancel()
        if self.link is not None:
            self.link = None
            told, self._told = self._told, False
            if self._pause_s and told:
                log.info("lost the link to replica %d at %s", self.replica, self.address)
        self._current = None
        if why and why != self._said:
            # Once per reason: a replica that is down for a day is one line, not 86,400.
            self._said = why
            log.warning("no link to replica %d at %s: %s", self.replica, self.address, why)
        if self._stopped:
            return
        self._timer = self._loop.call_later(self._pause_s * (0.5 + self.peers.host.luck()), self.dial)
        self._pause_s = min(max(self._pause_s, DIAL_S_MIN) * 2, DIAL_S_MAX)

    async def _connect(self) -> None:
        link = _Dialed(self)
        self._current = link
        try:
            await self._loop.connect(self.address.path or (self.address.host, self.address.port), link)
        except OSError as error:
            self.ended(link, os.strerror(error.errno) if error.errno else str(error))


class _Dialed(Connection):
    """A connection that we dialed: handshake, introduction, and from then on it only sends."""

    __slots__ = ("_connector", "_deadline", "_dialer", "_why", "clogged")

    def __init__(self, dialer: _Dialer) -> None:
        super().__init__(dialer.peers.outgoing, limits.HANDSHAKE_FRAME_BYTES_MAX)
        self._dialer = dialer
        self._why = "it closed the connection during the handshake"
        self._connector = Connector(Role.REPLICA, dialer.peers.secret(dialer.address), os.urandom(16))
        self._deadline: asyncio.TimerHandle | None = None
        self.clogged = False
        self.got = self._challenged

    def opened(self) -> None:
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            self.set_option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS_MAX)
        self.limit_unread(UNREAD_BYTES_MAX)
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE_S, self._too_slow)
        self.send(encode(self._connector.hello()))

    def lost(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._dialer.ended(self, self._why)

    def broken(self, why: str) -> None:
        self._why = why

    def pause_writing(self) -> None:
        self.clogged = True
        self._dialer.peers.complain(f"replica {self._dialer.replica} does not read", "messages to it are dropped")

    def resume_writing(self) -> None:
        self.clogged = False

    def _too_slow(self) -> None:
        self._why = f"it did not finish the handshake within {HANDSHAKE_S:g} s"
        self.cut()

    def _challenged(self, body: bytes) -> None:
        match decode(body):
            case Challenge() as challenge:
                try:
                    proof = self._connector.challenged(challenge)
                except NotAuthenticated:
                    raise ProtocolError("it could not prove that it knows our secret (--secret-file)") from None
                self.got = self._welcomed
                self.send(encode(proof))
            case message:
                self._refused(message)

    def _welcomed(self, body: bytes) -> None:
        match decode(body):
            case Welcome():
                assert self._deadline is not None
                self._deadline.cancel()
                self.got = self._spoke
                self._why = ""
                self.send(_introductions.encode(self._dialer.peers.host.introduction(self._dialer.replica)))
                self._dialer.up(self)
            case message:
                self._refused(message)

    def _spoke(self, body: bytes) -> None:
        self._refused(decode(body))

    def _refused(self, message: object) -> None:
        if isinstance(message, Rejected):
            if message.code == REMOVED:
                self._dialer.peers.host.removed(message.reason)
            if message.code == GIVEN_UP:
                self._dialer.peers.host.given_up(message.reason)
            if message.code == LATER:
                self.hang_up()
                return
            self._dialer.refused()
            raise ProtocolError(f"it refused us: {message.reason}")
        raise ProtocolError(f"it sent {type(message).__name__} where it should not")
