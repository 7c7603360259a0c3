# SPDX-License-Identifier: Apache-2.0
"""Who may talk to whom: the handshake of both ends as state machines without I/O, and the file that holds the secret.

    connector                          acceptor
    Hello(nonce a)           ->
                             <-        Challenge(nonce b, MAC("acceptor", a, b))
    Proof(MAC("connector", a, b)) ->
                             <-        Welcome | Rejected

Both prove that they know the secret and neither sends it; the acceptor proves first, so a client gives nothing to a
stranger who took its server's port. On a Unix socket in a folder that only its user can enter the kernel has checked
already, and both sides pass `secret=None`.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from dthreading.errors import NotAuthenticated, ProtocolError
from dthreading.wire.messages import (
    PROTOCOL_MAGIC,
    PROTOCOL_VERSION,
    Challenge,
    Hello,
    Proof,
    Rejected,
    Role,
)

__all__ = ["Acceptor", "Connector", "default_secret_path", "load_secret", "make_secret"]

NONCE_BYTES: Final = 16
SECRET_BYTES: Final = 32
"""256 random bits; written as hexadecimal in the file."""


def _mac(secret: bytes | None, side: bytes, role: int, connector_nonce: bytes, acceptor_nonce: bytes) -> bytes:
    if secret is None:
        return b""
    text = b"\0".join((b"dthreading 1", side, b"%d" % role, connector_nonce, acceptor_nonce))
    return hmac.new(secret, text, hashlib.sha256).digest()


class Connector:
    """The side that dialed. `nonce` is fresh random bytes, handed in because this module does no I/O of its own."""

    def __init__(self, role: Role, secret: bytes | None, nonce: bytes) -> None:
        assert len(nonce) == NONCE_BYTES
        self._role = role
        self._secret = secret
        self._nonce = nonce
        self.satisfied = False
        """Whether the acceptor has proved itself: whatever else it says before that is not to be believed."""

    def hello(self) -> Hello:
        """The first frame."""
        return Hello(PROTOCOL_MAGIC, PROTOCOL_VERSION, self._role, self._nonce)

    def challenged(self, challenge: Challenge) -> Proof:
        """The answer to the acceptor's challenge.

        Raises:
            NotAuthenticated: the acceptor could not show that it knows our secret.

        """
        expected = _mac(self._secret, b"acceptor", self._role, self._nonce, challenge.nonce)
        if not hmac.compare_digest(expected, challenge.proof):
            raise NotAuthenticated(
                "the server could not prove that it knows this client's secret: it was started by another user or with"
                " another secret file; give both the same one (DTHREADING_SECRET_FILE, dthreading-server --secret-file)"
            )
        self.satisfied = True
        return Proof(_mac(self._secret, b"connector", self._role, self._nonce, challenge.nonce))


class Acceptor:
    """The side that listened. Feed it what came; it gives the answer and, in the end, the role of the connector."""

    def __init__(self, secret: bytes | None, nonce: bytes) -> None:
        assert len(nonce) == NONCE_BYTES
        self._secret = secret
        self._nonce = nonce
        self._hello: Hello | None = None
        self.role: Role | None = None
        """The connector's role, once it is authenticated."""

    def step(self, message: object) -> Challenge | Rejected | None:
        """One handshake frame; None means that the connector is authenticated: answer with Welcome.

        Raises:
            ProtocolError: not what belongs here.

        """
        match message:
            case Hello() if self._hello is None:
                return self._greet(message)
            case Proof() if self._hello is not None and self.role is None:
                return self._check(self._hello, message)
            case _:
                raise ProtocolError(f"{type(message).__name__} in the middle of a handshake")

    def _greet(self, hello: Hello) -> Challenge | Rejected:
        if hello.magic != PROTOCOL_MAGIC or len(hello.nonce) != NONCE_BYTES or hello.role not in set(Role):
            raise ProtocolError("not a dthreading client")
        if hello.version != PROTOCOL_VERSION:
            reason = (
                f"this server speaks version {PROTOCOL_VERSION} of the protocol, the client version {hello.version}"
            )
            return Rejected("protocol", f"{reason}: install the same dthreading on both")
        self._hello = hello
        proof = _mac(self._secret, b"acceptor", hello.role, hello.nonce, self._nonce)
        return Challenge(PROTOCOL_VERSION, self._nonce, proof)

    def _check(self, hello: Hello, proof: Proof) -> Rejected | None:
        expected = _mac(self._secret, b"connector", hello.role, hello.nonce, self._nonce)
        if not hmac.compare_digest(expected, proof.proof):
            return Rejected("not_authenticated", "this server's secret is another than the client's")
        self.role = Role(hello.role)
        return None


def default_secret_path() -> Path:
    """Where a user's secret is unless DTHREADING_SECRET_FILE or an option says otherwise."""
    base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    if not base.is_absolute():  # counts as not set, by the specification of that variable
        base = Path.home() / ".config"
    return base / "dthreading" / "secret"


def load_secret(path: Path) -> bytes:
    """The secret in the file.

    Raises:
        FileNotFoundError: there is no such file.
        NotAuthenticated: others may read it, it is not ours, or it is no secret of ours.

    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        text = file.read(4096).strip()
    if status.st_uid != os.geteuid():
        raise NotAuthenticated(f"the secret file {path} belongs to another user")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise NotAuthenticated(f"the secret file {path} can be read by others: run chmod 600 on it")
    try:
        secret = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        secret = b""
    if len(secret) < SECRET_BYTES:
        raise NotAuthenticated(f"the secret file {path} does not hold {SECRET_BYTES} bytes in hexadecimal")
    return secret


def make_secret(path: Path) -> bytes:
    """The secret in the file, which is made first when there is none; when two make it at once, both get the same.

    Raises:
        NotAuthenticated: as `load_secret`.
        OSError: the folder or the file can't be written.

    """
    with contextlib.suppress(FileNotFoundError):
        return load_secret(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(SECRET_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            # A link, unlike a rename, fails when somebody else was first.
            path.hardlink_to(aside)
    finally:
        aside.unlink()
    return load_secret(path)
