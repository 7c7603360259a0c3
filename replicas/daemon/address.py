# SPDX-License-Identifier: Apache-2.0
"""How an address is written, and whether other machines can reach it. Resolves nothing and opens nothing."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple

__all__ = ["Address", "BadOptions"]

ADDRESS_BYTES_MAX: Final = 270
"""A host's name has 253 at most, and the path of a socket about a hundred. All members' addresses are told in one frame
of each handshake, so seven of them must fit HANDSHAKE_FRAME_BYTES_MAX."""


class BadOptions(Exception):
    """The options cannot be followed; the text is one sentence for the operator."""


class Address(NamedTuple):
    """Where a replica listens: a host and a port, or (host "") the path of a Unix socket."""

    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read "host:port", "[v6]:port" or "unix:/path".

        Raises:
            BadOptions: it is none of them.

        """
        if len(text.encode("utf-8", "replace")) > ADDRESS_BYTES_MAX:
            raise BadOptions(f"{text[:40]!a}... is not an address: none is longer than {ADDRESS_BYTES_MAX} bytes")
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if not path.startswith("/"):
                raise BadOptions(
                    f"{text!r} is not an address: a Unix socket's path must be absolute, as unix:/run/x.sock"
                )
            if path.encode("utf-8", "ignore").decode() != path:
                raise BadOptions(f"{text!a} is not an address: others are told of it, so the path must be UTF-8")
            return cls("", 0, path)
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]+)):([0-9]{1,5})", text)
        if match is None:
            raise BadOptions(f"{text!r} is not an address: write host:port, [v6-address]:port or unix:/path")
        port = int(match[3])
        if port > 65535:
            raise BadOptions(f"{text!r} is not an address: a port is at most 65535")
        return cls(match[1] or match[2], port)

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it. No name but localhost is trusted to stay on loopback."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
