# SPDX-License-Identifier: Apache-2.0
"""From what `servers` says to addresses that a socket takes: host:port, unix:/path, or a DNS name with SRV records.

The only place that looks names up. It blocks, so it is never called by a thread that others wait for. Names are looked
up anew on each round of connecting: an address that has moved must not be remembered for ever.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from dthreading.errors import GroupUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Endpoint", "each", "endpoints", "numeric"]

SERVICE: Final = "_dthreading._tcp"
"""What stands before a domain in the SRV records of a group."""

DNS_LIFETIME_S: Final = 5.0
"""How long one look-up may take in all, over all name servers."""

SocketAddress: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | str


class Endpoint(NamedTuple):
    """Where one replica listens."""

    name: str
    """`address:port` or `unix:/path`."""
    family: int
    address: SocketAddress

    @property
    def guarded(self) -> bool:
        """Whether the handshake needs the secret: a Unix socket's folder has let in nobody but its user."""
        return self.family != socket.AF_UNIX


def numeric(server: str) -> Endpoint | None:
    """The endpoint of a path or a numeric address (or `localhost`), which needs no look-up; None for anything else."""
    if server.startswith("unix:"):
        return Endpoint(server, socket.AF_UNIX, server.removeprefix("unix:"))
    host, colon, port = server.rpartition(":")
    if not colon:
        return None
    host = host.removeprefix("[").removesuffix("]")
    if host == "localhost":
        host = "127.0.0.1"
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    if version == 4:
        return Endpoint(server, socket.AF_INET, (host, int(port)))
    return Endpoint(server, socket.AF_INET6, (host, int(port), 0, 0))


def endpoints(server: str) -> list[Endpoint]:
    """All endpoints that `server` stands for, in the order to try them. May block for seconds.

    Raises:
        GroupUnreachable: the name means nothing, or nobody could be asked.

    """
    known = numeric(server)
    if known is not None:
        return [known]
    host, colon, port = server.rpartition(":")
    if colon:
        return _look_up(host, int(port))
    found: list[Endpoint] = []
    trouble: GroupUnreachable | None = None
    for target, at in _services(server):
        try:
            found += _look_up(target, at)
        except GroupUnreachable as error:  # the records of a machine that is gone go last, and not together
            trouble = error
    if trouble is not None and not found:
        raise trouble
    return found


def _look_up(host: str, port: int) -> list[Endpoint]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise GroupUnreachable(f"no address for the server {host}:{port}: {error}") from None
    return [
        Endpoint(f"[{address[0]}]:{port}" if ":" in str(address[0]) else f"{address[0]}:{port}", family, address)  # type: ignore[arg-type]
        for family, _, _, _, address in found
    ]


def each(servers: Iterable[str]) -> Iterator[str]:
    """The replicas one by one, to be asked each for itself: a name with SRV records stands for several. May block."""
    for server in servers:
        if ":" in server:
            yield server
            continue
        try:
            found = endpoints(server)
        except GroupUnreachable:
            yield server  # whoever asks it hears why
        else:
            yield from (endpoint.name for endpoint in found)


def _services(domain: str) -> list[tuple[str, int]]:
    try:
        import dns.exception  # noqa: PLC0415 - 150 ms that only a DNS name is worth
        import dns.resolver  # noqa: PLC0415
    except ImportError:
        raise GroupUnreachable(
            f"the servers are given as the DNS name {domain!r}, which needs dnspython: pip install dthreading[dns], or"
            " give host:port"
        ) from None
    try:
        answer = dns.resolver.resolve(f"{SERVICE}.{domain}", "SRV", lifetime=DNS_LIFETIME_S)
    except dns.exception.DNSException as error:
        raise GroupUnreachable(f"no SRV records {SERVICE}.{domain}: {error}") from None
    records = sorted(answer, key=lambda record: (record.priority, -record.weight))
    return [(record.target.to_text(omit_final_dot=True), record.port) for record in records]
