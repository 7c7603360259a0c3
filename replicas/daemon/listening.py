# SPDX-License-Identifier: Apache-2.0
"""The socket that a replica listens on, the secret that guards it, and the descriptors that it may use."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dthreading.errors import NotAuthenticated
from dthreading.wire import auth
from replicas.daemon.address import Address, BadOptions

if TYPE_CHECKING:
    from replicas.daemon.options import Options

__all__ = ["bound_address", "listen", "place", "raise_descriptor_limit", "secret"]

BACKLOG: Final = 1024
"""Connections that the kernel holds for us between two turns of the loop."""

OTHER_DESCRIPTORS: Final = 200
"""Log segments, snapshots, links to other replicas, the loop's own: what is not an accepted connection."""


def listen(options: Options) -> socket.socket:
    """The socket, bound and listening.

    Raises:
        BadOptions: it cannot be; the text says why.

    """
    try:
        if options.listen_fd is not None:
            listening = socket.socket(fileno=options.listen_fd)
        elif options.listen.path:
            listening = _unix(Path(options.listen.path))
        else:
            listening = _tcp(options.listen)
        listening.setblocking(False)
        listening.listen(BACKLOG)
    except OSError as error:
        why = (
            "another process listens there already" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        )
        raise BadOptions(f"cannot listen on {options.listen}: {why}") from None
    return listening


def bound_address(listening: socket.socket) -> Address:
    """Where the socket really listens: port 0 asks the system for a free one."""
    name = listening.getsockname()
    return Address("", 0, name) if isinstance(name, str) else Address(name[0], name[1])


def place(path: str) -> tuple[int, int] | None:
    """Which file stands there; None: none. A socket that is still open keeps its number from being given out again."""
    try:
        status = os.stat(path)  # noqa: PTH116 - "" is no path at all, not this folder
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _tcp(address: Address) -> socket.socket:
    family, kind, protocol, _, target = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(target)
    except BaseException:
        listening.close()
        raise
    return listening


def _unix(path: Path) -> socket.socket:
    """A Unix socket needs no secret because the kernel lets nobody else into its folder; so that is checked here."""
    if len(os.fsencode(path)) > 103:
        raise BadOptions(f"cannot listen on unix:{path}: the path is longer than the 103 bytes that every system takes")
    _check_private(path.parent)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            _remove_stale(path)
        former = os.umask(0o177)
        try:
            listening.bind(str(path))
        finally:
            os.umask(former)
    except BaseException:
        listening.close()
        raise
    return listening


def _check_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise BadOptions(f"cannot listen in {folder}: {error.strerror}") from None
    if status.st_uid != os.geteuid():
        raise BadOptions(f"cannot listen in {folder}: the folder belongs to another user")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise BadOptions(
            f"cannot listen in {folder}: others may enter the folder, and its socket asks for no secret (chmod 700)"
        )


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; a live one stays, and binding it fails as it should."""
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise BadOptions(f"cannot listen on unix:{path}: there is something there that is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except BlockingIOError:
            pass


def secret(options: Options) -> bytes | None:
    """What guards the TCP port; None for a Unix socket.

    Raises:
        BadOptions: the file cannot be used.

    """
    if options.listen.path:
        return None
    try:
        path = options.secret_file or auth.default_secret_path()
    except RuntimeError:
        raise BadOptions("this user has no home directory: name the secret's place with --secret-file") from None
    try:
        return auth.load_secret(path) if options.join else auth.make_secret(path)
    except NotAuthenticated as error:
        raise BadOptions(str(error)) from None
    except OSError as error:
        if options.join and isinstance(error, FileNotFoundError):
            raise BadOptions(
                f"there is no secret file {path}: a replica that joins a group needs the group's own, so copy it there"
                " from one of the members (--secret-file names another place)"
            ) from None
        raise BadOptions(f"cannot use the secret file {path}: {error.strerror}") from None


def raise_descriptor_limit(connections_max: int) -> int:
    """Ask for enough descriptors; how many connections they really allow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections_max + OTHER_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft == resource.RLIM_INFINITY:
        return connections_max
    return max(min(connections_max, soft - OTHER_DESCRIPTORS), 16)
