# SPDX-License-Identifier: Apache-2.0
"""Where the group is, and every other setting of the client: the only home of their names, defaults and reasons.

`configure(...)` wins over the environment, the environment over the defaults. What `configure` was told is put into
the environment of this process as well, so that its children, made by any start method or by `subprocess`, are bound
to the same group, also when `configure()` stands under `if __name__ == "__main__"`: the environment is what every kind
of child inherits before its first line runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from dthreading.errors import WrongGroup
from dthreading.wire.limits import NAME_BYTES_MAX, SESSION_TTL_MS_MAX, SESSION_TTL_MS_MIN
from dthreading.wire.places import readable

__all__ = [
    "SETTINGS",
    "Lost",
    "OnLost",
    "Setting",
    "Settings",
    "bind",
    "configure",
    "current",
    "is_configured",
    "unbind",
]


class Lost(NamedTuple):
    """What an `on_lost` callable is told."""

    session: int
    why: str


OnLost: TypeAlias = Callable[[Lost], object] | str | None

ON_LOST_WORDS: Final = ("interrupt", "exit")


class Setting(NamedTuple):
    """One row of the table: of the documentation, and of the code below."""

    name: str
    """As an argument of `configure`; "" where only the environment has it."""
    variable: str
    """In the environment; "" where only `configure` has it."""
    kind: str
    default: str
    reason: str


SETTINGS: Final = (
    Setting(
        "servers", "DTHREADING_SERVERS", "host:port,... or unix:/path or a DNS name", "the embedded local group",
        "Where the replicas are. A name without a port is looked up as SRV records (_dthreading._tcp.NAME).",
    ),
    Setting(
        "namespace", "DTHREADING_NAMESPACE", "text", '"" with servers; the path of the script without',
        "Keeps programs, and runs of tests, apart: names are shared within a namespace only.",
    ),
    Setting(
        "lease", "DTHREADING_LEASE", "seconds", "10",
        "How long the group waits for a silent client before it gives away what that held.",
    ),
    Setting(
        "patience", "DTHREADING_PATIENCE", "seconds", "2",
        "How much longer than its timeout a timed acquire waits when the group says nothing at all.",
    ),
    Setting(
        "secret", "DTHREADING_SECRET_FILE", "path", "~/.config/dthreading/secret",
        "The file that clients and replicas share: connections over TCP are refused without it.",
    ),
    Setting(
        "on_lost", "", 'a callable, "interrupt" or "exit"', "only the logger `dthreading` tells",
        "What to do once this process's session is lost, and all that it held with it.",
    ),
    Setting(
        "", "DTHREADING_NAMING", "auto, warn or strict", "warn with servers, auto without",
        "What to say of an unnamed object that other processes cannot find by name.",
    ),
    Setting(
        "", "DTHREADING_REDELIVER", "0 or 1", "0",
        "Whether items whose getter's session ends before task_done() go back to the head of every Queue.",
    ),
)  # fmt: skip


def _started_in() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it was removed
        return ""


_STARTED_IN: Final = _started_in()
"""The folder that a relative path of the script is meant from: later the program may be anywhere."""

LEASE_S: Final = 10.0
PATIENCE_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of them, checked."""

    servers: tuple[str, ...]
    """Empty: the embedded local group."""
    namespace: str
    lease: float = LEASE_S
    patience: float = PATIENCE_S
    secret: Path | None = None
    """None: the default path."""
    on_lost: OnLost = None

    @property
    def embedded(self) -> bool:
        """Whether the group is the local one that the first process starts."""
        return not self.servers

    @property
    def group(self) -> tuple[Any, ...]:
        """What must not change once the process has talked to its group."""
        return (self.servers, self.namespace, self.secret)


_given: dict[str, Any] = {}
"""What `configure` was told, by the names of its arguments."""
_bound: Settings | None = None
"""What the process's client was made with; None before the first use."""


def configure(
    *,
    servers: str | list[str] | tuple[str, ...] | None = None,
    namespace: str | None = None,
    lease: float | None = None,
    patience: float | None = None,
    secret: str | os.PathLike[str] | None = None,
    on_lost: OnLost = None,
) -> None:
    """Says where the group is, before the first lock is used. What is left out stays as it is.

    Args:
        servers: "host:port,host:port", a list of those, "unix:/path", or a DNS name with SRV records.
        namespace: names are shared within it only.
        lease: seconds after which the group gives away what a silent client held.
        patience: seconds that a timed acquire waits beyond its timeout when nobody answers.
        secret: the path of the file with the group's secret.
        on_lost: called with `Lost(session, why)` in a thread of its own; or "interrupt" (KeyboardInterrupt in the main
            thread), or "exit" (ends the process at once, with status 70).

    Raises:
        TypeError: a namespace that is no text.
        ValueError: a value that can't be used; the sentence says which and why.
        WrongGroup: the process is bound to another group already.

    """
    told = {
        "servers": servers if servers is None or isinstance(servers, str) else ",".join(servers),
        "namespace": namespace,
        "lease": lease,
        "patience": patience,
        "secret": None if secret is None else os.fspath(secret),
        "on_lost": on_lost,
    }
    given = {**_given, **{name: value for name, value in told.items() if value is not None}}
    settings = _read(given, os.environ)
    if _bound is not None and settings.group != _bound.group:
        raise WrongGroup(
            "configure() came after the first use, and this process is bound to another group or namespace by now: call"
            " it before any lock or queue is used"
        )
    _given.update(given)
    for setting in SETTINGS:
        if setting.variable and told.get(setting.name) is not None:
            os.environ[setting.variable] = str(told[setting.name])
    if _bound is not None:
        _bind(settings)


def current() -> Settings:
    """The settings as they stand: those the process is bound to, or would be."""
    return _bound if _bound is not None else _read(_given, os.environ)


def bind() -> Settings:
    """The settings, which from now on cannot name another group: the first use has come."""
    return _bound if _bound is not None else _bind(_read(_given, os.environ))


def unbind() -> None:
    """Forgets the group and what `configure` was told: for tests, after the client was closed."""
    global _bound  # noqa: PLW0603 - the process has one group
    _bound = None
    for setting in SETTINGS:
        if _given.pop(setting.name, None) is not None:
            os.environ.pop(setting.variable, None)


def is_bound() -> bool:
    """Whether the first use has come."""
    return _bound is not None


def is_configured() -> bool:
    """Whether servers were named at all, so that names are meant to be shared."""
    return not current().embedded


def _bind(settings: Settings) -> Settings:
    global _bound  # noqa: PLW0603 - the process has one group
    _bound = settings
    return settings


def _read(given: dict[str, Any], environment: Any) -> Settings:
    values = {
        setting.name: (setting.name, given[setting.name])
        if setting.name in given
        else (setting.variable, environment.get(setting.variable))
        for setting in SETTINGS
        if setting.name
    }
    servers = _servers(*values["servers"])
    namespace = _namespace(*values["namespace"])
    settings = Settings(
        servers=servers,
        namespace=namespace if namespace is not None else _default_namespace(embedded=not servers),
        lease=_seconds(*values["lease"], LEASE_S),
        patience=_seconds(*values["patience"], PATIENCE_S),
        on_lost=_on_lost(values["on_lost"][1]),
    )
    if not SESSION_TTL_MS_MIN <= settings.lease * 1000 <= SESSION_TTL_MS_MAX:
        shortest, longest = SESSION_TTL_MS_MIN / 1000, SESSION_TTL_MS_MAX / 1000
        raise ValueError(
            f"{values['lease'][0]} {settings.lease:g}: a lease is from {shortest:g} to {longest:g} seconds"
        )
    secret = values["secret"][1]
    return replace(settings, secret=Path(secret).absolute()) if secret else settings


def _servers(name: str, value: str | None) -> tuple[str, ...]:
    if not value:
        return ()
    servers = tuple(part.strip() for part in value.split(","))
    for server in servers:
        if not server or (not server.startswith("unix:/") and not _is_name(server) and not _is_address(server)):
            raise ValueError(f"{name} {value!r}: {server!r} is not host:port, unix:/path or a DNS name")
        if server.replace(".", "").isdecimal():
            raise ValueError(f"{name} {value!r}: {server!r} has no port: write {server}:7450, or where it listens")
        if _is_name(server) and not _has_dnspython():
            raise ValueError(
                f"{name} {value!r}: the DNS name {server!r} needs dnspython: pip install dthreading[dns], or give"
                " host:port"
            )
    return servers


def _has_dnspython() -> bool:
    """No amount of waiting would bring it, so that is said at once."""
    import importlib.util  # noqa: PLC0415 - a millisecond that only a DNS name is worth

    return importlib.util.find_spec("dns") is not None


def _is_name(text: str) -> bool:
    """Whether it may be a DNS name, which stands without a port."""
    return ":" not in text and len(text.split()) == 1


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host  # IPv6 stands in brackets
    if not bare or (bare is host and set(host) & set(":; /[]")):
        return False
    return port.isascii() and port.isdecimal() and 0 < int(port) < 65536


def _namespace(name: str, value: str | None) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if value is not None and len(value.encode()) > NAME_BYTES_MAX:
        raise ValueError(f"{name} is longer than NAME_BYTES_MAX = {NAME_BYTES_MAX} bytes")
    return value


def _default_namespace(*, embedded: bool) -> str:
    """The script's real path, so that two programs of one user share nothing by accident. A child made by spawn has
    its parent's `sys.argv` and original folder, and so the same.
    """
    if not embedded:
        return ""
    script = sys.argv[0] if getattr(sys, "argv", None) else ""
    process = sys.modules.get("multiprocessing.process")
    folder = getattr(process, "ORIGINAL_DIR", None) or _STARTED_IN
    file = Path(folder, script)
    path = os.path.realpath(file) if script and file.exists() else f"{folder}/{script or '-'}"
    return readable(path).encode()[-NAME_BYTES_MAX:].decode(errors="ignore")


def _seconds(name: str, value: Any, default: float) -> float:
    if value is None or value == "":
        return default
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{name} {value!r} is not a number of seconds")
    return seconds


def _on_lost(value: OnLost) -> OnLost:
    if value is not None and not callable(value) and value not in ON_LOST_WORDS:
        raise ValueError(f'on_lost {value!r} is neither a callable nor "interrupt" nor "exit"')
    return value
