# SPDX-License-Identifier: Apache-2.0
"""How many bytes the TCP connections of this machine have carried, by the kernel's count (sock_diag). Linux only."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TCP_ESTABLISHED: Final = 1
NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
REQUEST_DUMP: Final = 0x301
NLMSG_ERROR, NLMSG_DONE = 2, 3
INET_DIAG_INFO: Final = 2
HEADER: Final = struct.Struct("=IHHII")
MESSAGE_BYTES: Final = 72
"""Of an inet_diag_msg; its attributes follow."""
INODE_AT: Final = 68
RECEIVED_AT: Final = 128
"""Where tcp_info has tcpi_bytes_received."""
SEGMENTS_AT: Final = 152
"""Where tcp_info has tcpi_data_segs_in."""

Ends = tuple[int, int]
"""Two ports: one's own, and the peer's."""


@dataclass(frozen=True, slots=True)
class Received:
    """What one end of a connection was sent: bytes of payload, and segments that carried any."""

    inode: int
    size: int
    segments: int


@dataclass(frozen=True, slots=True)
class Carried:
    """What was sent from one process to another."""

    size: int = 0
    segments: int = 0


def carried(pids: Mapping[str, int]) -> dict[tuple[str, str], Carried]:
    """Between these processes so far, over the connections that are there now: by (sender, receiver)."""
    owners = {inode: name for name, pid in pids.items() for inode in _inodes(pid)}
    sockets = received()
    found: dict[tuple[str, str], Carried] = {}
    for (own, peer), here in sockets.items():
        there = sockets.get((peer, own))
        if there is not None and here.inode in owners and there.inode in owners:
            flow = (owners[there.inode], owners[here.inode])
            sum_ = found.get(flow, Carried())
            found[flow] = Carried(sum_.size + here.size, sum_.segments + here.segments)
    return found


def received() -> dict[Ends, Received]:
    """By each end of each connection on IPv4."""
    found: dict[Ends, Received] = {}
    extension = 1 << (INET_DIAG_INFO - 1)
    body = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, extension, 0, 1 << TCP_ESTABLISHED)
    request = body + bytes(48)  # an empty inet_diag_sockid: all of them
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as netlink:
        netlink.send(HEADER.pack(HEADER.size + len(request), SOCK_DIAG_BY_FAMILY, REQUEST_DUMP, 1, 0) + request)
        while True:
            data = memoryview(netlink.recv(1 << 20))
            while data:
                length, kind, *_ = HEADER.unpack_from(data)
                if kind == NLMSG_DONE:
                    return found
                if kind == NLMSG_ERROR:
                    raise OSError(-struct.unpack_from("=i", data, HEADER.size)[0], "sock_diag")
                _read(data[HEADER.size : length], found)
                data = data[_padded(length) :]


def _read(message: memoryview, found: dict[Ends, Received]) -> None:
    ends = struct.unpack_from(">HH", message, 4)
    (inode,) = struct.unpack_from("=I", message, INODE_AT)
    attributes = message[MESSAGE_BYTES:]
    while len(attributes) >= 4:
        length, kind = struct.unpack_from("=HH", attributes)
        if kind == INET_DIAG_INFO and length >= 4 + SEGMENTS_AT + 4:
            (size,) = struct.unpack_from("=Q", attributes, 4 + RECEIVED_AT)
            (segments,) = struct.unpack_from("=I", attributes, 4 + SEGMENTS_AT)
            found[ends] = Received(inode, size, segments)
        attributes = attributes[_padded(length) :]


def _inodes(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the directory itself, while it was listed
            name = str(path.readlink())
            if name.startswith("socket:["):
                found.append(int(name[8:-1]))
    return found


def _padded(length: int) -> int:
    return (length + 3) & ~3
