# SPDX-License-Identifier: Apache-2.0
"""What a replica's operator can choose: the command line, the TOML file, the defaults, and each sentence of refusal.

The only home of the server's option names. It reads a file and the environment, and opens nothing else.
The command line wins over the file, the file over the defaults. The file's keys are the options' names:

    listen = "127.0.0.1:7450"
    data-dir = "/var/lib/dthreading"
    cluster = ["127.0.0.1:7450", "127.0.0.1:7451", "127.0.0.1:7452"]
"""

from __future__ import annotations

import argparse
import os
import socket
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from dthreading.wire import limits
from replicas.daemon.address import Address, BadOptions
from replicas.daemon.distribution import version
from replicas.daemon.exits import EXIT_CODES_HELP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Address", "BadOptions", "Options", "parse"]

DEFAULT_LISTEN: Final = "127.0.0.1:7450"
"""Where a replica without options listens, and where a client's documentation says to look."""

GROUP_SIZES: Final = (1, 3, 5, 7)
"""The sizes a group may be formed with. An even group survives no more losses than the odd one below it."""

CONNECTIONS_MAX: Final = 16_000
"""Connections a replica holds at one time: a descriptor and about 4 KB each. Ten thousand idle ones must be no harm."""

EMBEDDED_IDLE_S: Final = 5.0
"""How long an idle and empty embedded group stays: longer than the gap between two runs of a script under edit."""

EMBEDDED_SOCKET: Final = "socket"
"""The name of the embedded group's Unix socket in its directory."""

EMBEDDED_DATA: Final = "replica"
"""The name of the embedded group's data directory in its directory."""

LOG_LEVELS: Final = ("debug", "info", "warning", "error")

LEASE_S: Final = 10.0
"""How long automatic objects outlive the last session of their namespace: by default as long as a lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Everything the operator chose, checked. Times are in the units their names say."""

    check: Path | None
    """A directory to examine, instead of serving."""
    recover: Path | None
    """A survivor's directory to make a new group of, in `data_dir`, instead of serving."""
    sure: bool
    listen: Address
    listen_fd: int | None
    cluster: tuple[Address, ...]
    """All members in the order of their ids; just `listen` for a group of one."""
    join: tuple[Address, ...]
    """Replicas of a group that runs, which this one is to join; () when it forms one."""
    replace: str
    """The member, by id or address, whose place it takes; "" for none."""
    data_dir: Path
    memory: bool
    secret_file: Path | None
    """None: the one that clients of this user look for as well."""
    embedded: bool
    idle_exit_s: float
    lease_s: float
    heartbeat_ms: int
    election_ms: int
    connections_max: int
    log_level: str
    log_json: bool

    @property
    def replica(self) -> int:
        """The id of this replica: its place in the list, from 1. One that joins is given its id by the group."""
        return 0 if self.join else self.cluster.index(self.listen) + 1


def default_data_dir(environment: Mapping[str, str]) -> Path:
    """Where a replica keeps its log when nobody said: the user's state directory, as the XDG rules have it."""
    base = Path(environment.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():  # counts as not set, by the specification of that variable
        try:
            base = Path.home() / ".local" / "state"
        except RuntimeError:
            raise BadOptions(
                "this user has no home directory: name one with --data-dir, or set XDG_STATE_HOME"
            ) from None
    return base / "dthreading" / "server"


def parse(argv: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Read the command line, and the file it names.

    Raises:
        BadOptions: with the one sentence that says what to change.

    """
    given = {name: value for name, value in vars(_parser().parse_args(argv)).items() if value is not None}
    file = given.pop("config", None)
    values = {**(_read_file(file) if file is not None else {}), **given}
    return _checked(values, environment)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadOptions(f"{message}; `dthreading-server --help` lists the options")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dthreading-server",
        description="One replica of a dthreading group. Without options: a durable group of one on loopback.",
        epilog=EXIT_CODES_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    where = "this replica's address: HOST:PORT or unix:/PATH (default %s; loopback only in this version)"
    add("--listen", metavar="ADDRESS", help=where % DEFAULT_LISTEN)
    add("--listen-fd", type=int, metavar="N", help="take this listening socket, already bound, instead of binding one")
    add("--cluster", metavar="A,B,C", help="the addresses of all 1, 3, 5 or 7 replicas, the same list for each of them")
    add("--join", metavar="A,B", help="join the running group of these replicas, as a new member of it")
    add("--replace", metavar="MEMBER", help="with --join: take the place of this member, named by id or address")
    add("--data-dir", metavar="DIR", help="where the log and the snapshots are kept")
    add(
        "--memory",
        action="store_true",
        default=None,
        help="keep nothing on disk: what all replicas forget is gone",
    )
    add("--config", metavar="FILE", help="a TOML file with the same names as these options")
    add("--secret-file", metavar="FILE", help="the secret that clients and replicas share; made when it is not there")
    add(
        "--lease",
        type=float,
        metavar="SECONDS",
        help=f"automatic objects outlive their last user so long (default {LEASE_S:g})",
    )
    add("--heartbeat-ms", type=int, metavar="MS", help="how often the leader is heard (default 200)")
    add("--election-ms", type=int, metavar="MS", help="silence after which a leader is replaced (default 600)")
    add("--connections-max", type=int, metavar="N", help=f"connections held at one time (default {CONNECTIONS_MAX})")
    add("--log-level", metavar="LEVEL", help="debug, info, warning or error (default info)")
    add("--log-json", action="store_true", default=None, help="log one JSON object a line")
    add("--check", metavar="DIR", help="examine this data directory, say what was found, and end")
    add(
        "--recover-unsafe",
        metavar="DIR",
        help="a majority is lost: make a new group in --data-dir of what this survivor's directory holds, and end",
    )
    add("--yes", action="store_true", default=None, help="with --recover-unsafe: do not ask")
    add("--embedded", metavar="DIR", help=argparse.SUPPRESS)
    add("--idle-exit", type=float, metavar="SECONDS", help=argparse.SUPPRESS)
    add("--version", action="version", version=f"dthreading-server {version()}")
    return parser


def _read_file(path: str) -> dict[str, Any]:
    if not path:
        raise BadOptions("--config is empty: name a file")
    try:
        with Path(path).open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise BadOptions(f"cannot read the configuration {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadOptions(f"{path} is not a TOML file: {error}") from None
    known = {name: check for name, check in _FILE_KEYS.items() if name != "config"}
    values = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            raise BadOptions(
                f"{path} has an unknown key {key!r}; known are {', '.join(sorted(known)).replace('_', '-')}"
            )
        values[name] = known[name](f"{path}: {key}", value)
    return values


def _text(where: str, value: object) -> str:
    if type(value) is not str:
        raise BadOptions(f"{where} must be a string")
    return value


def _integer(where: str, value: object) -> int:
    if type(value) is not int:
        raise BadOptions(f"{where} must be a whole number")
    return value


def _number(where: str, value: object) -> float:
    if type(value) not in {int, float}:
        raise BadOptions(f"{where} must be a number")
    return float(value)  # type: ignore[arg-type]


def _flag(where: str, value: object) -> bool:
    if type(value) is not bool:
        raise BadOptions(f"{where} must be true or false")
    return value


def _addresses(where: str, value: object) -> str:
    if type(value) is list and all(type(item) is str for item in value):
        return ",".join(value)
    return _text(f"{where}, when it is not a list of strings,", value)


_FILE_KEYS: Final[dict[str, Callable[[str, object], object]]] = {
    "listen": _text,
    "cluster": _addresses,
    "join": _addresses,
    "replace": _text,
    "data_dir": _text,
    "memory": _flag,
    "secret_file": _text,
    "lease": _number,
    "heartbeat_ms": _integer,
    "election_ms": _integer,
    "connections_max": _integer,
    "log_level": _text,
    "log_json": _flag,
}


def _checked(values: dict[str, Any], environment: Mapping[str, str]) -> Options:
    _check_paths(values)
    embedded = values.get("embedded")
    if embedded is not None:
        # Beside it stand the socket, and the log of whoever started us.
        values = {**values, "data_dir": str(Path(embedded) / EMBEDDED_DATA)}
        clash = [name for name in ("cluster", "join", "memory", "listen_fd") if values.get(name)]
        if clash:
            name = clash[0].replace("_", "-")
            raise BadOptions(f"--embedded is one durable replica in its own directory: it goes without --{name}")
    listen = _listen(values)
    recover = values.get("recover_unsafe")
    if recover is not None and not values.get("data_dir"):
        raise BadOptions(f"--recover-unsafe {recover} leaves that directory as it is: name the new one with --data-dir")
    options = Options(
        check=Path(values["check"]).absolute() if values.get("check") else None,
        recover=Path(recover).absolute() if recover is not None else None,
        sure=bool(values.get("yes")),
        listen=listen,
        listen_fd=values.get("listen_fd"),
        cluster=_cluster(values, listen),
        join=_join(values, listen),
        replace=_replace(values),
        data_dir=Path(values.get("data_dir") or default_data_dir(environment)).absolute(),
        memory=bool(values.get("memory", False)),
        secret_file=_secret_file(values, environment),
        embedded=embedded is not None,
        idle_exit_s=values.get("idle_exit", EMBEDDED_IDLE_S),
        lease_s=values.get("lease", LEASE_S),
        heartbeat_ms=values.get("heartbeat_ms", 200),
        election_ms=values.get("election_ms", 600),
        connections_max=values.get("connections_max", CONNECTIONS_MAX),
        log_level=str(values.get("log_level", "info")).lower(),
        log_json=bool(values.get("log_json", False)),
    )
    _check_numbers(options)
    if options.memory and values.get("data_dir"):
        raise BadOptions("--memory keeps nothing on disk, so it goes without --data-dir")
    return options


def _check_paths(values: dict[str, Any]) -> None:
    """An empty path is a variable that is not set: whoever examines "$DIRECTORY" wants no replica started instead."""
    for name in ("check", "recover_unsafe", "data_dir", "secret_file", "embedded"):
        if values.get(name) == "":
            raise BadOptions(f"--{name.replace('_', '-')} is empty: name a file or directory")


def _secret_file(values: dict[str, Any], environment: Mapping[str, str]) -> Path | None:
    text = values.get("secret_file") or environment.get("DTHREADING_SECRET_FILE")
    return Path(text).absolute() if text else None


def _listen(values: dict[str, Any]) -> Address:
    text = values.get("listen")
    if text is None and values.get("embedded"):
        text = f"unix:{Path(values['embedded']).absolute() / EMBEDDED_SOCKET}"
    if text is None and values.get("listen_fd") is not None:
        listen = _address_of(values["listen_fd"])
    else:
        listen = Address.parse(text or DEFAULT_LISTEN)
    if not listen.is_local:
        raise BadOptions(
            f"{listen} can be reached from other machines, and this version listens on loopback only"
            " (127.0.0.1, [::1] or a Unix socket)"
        )
    return listen


def _address_of(descriptor: int) -> Address:
    """The address that a listening socket was bound to by whoever handed it to us."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as listening:
            name = listening.getsockname()
    except OSError as error:
        raise BadOptions(f"--listen-fd {descriptor} is not a bound socket: {error.strerror}") from None
    return Address("", 0, name) if isinstance(name, str) else Address(name[0], name[1])


def _cluster(values: dict[str, Any], listen: Address) -> tuple[Address, ...]:
    text = values.get("cluster")
    if text is None:
        return (listen,)
    members = tuple(Address.parse(part.strip()) for part in text.split(","))
    if len(set(members)) != len(members):
        raise BadOptions(f"--cluster {text} names an address twice")
    if len(members) not in GROUP_SIZES:
        raise BadOptions(f"--cluster has {len(members)} members; a group is formed with 1, 3, 5 or 7")
    if any(member.port == 0 and not member.path for member in members):
        raise BadOptions("--cluster needs real ports: with port 0 the others could not find this replica")
    if listen not in members:
        raise BadOptions(f"--listen {listen} is not one of the members in --cluster {text}")
    far = [str(member) for member in members if not member.is_local]
    if far:
        raise BadOptions(f"--cluster names {far[0]}, but this version connects to loopback only")
    return members


def _join(values: dict[str, Any], listen: Address) -> tuple[Address, ...]:
    text = values.get("join")
    if text is None:
        return ()
    if values.get("cluster"):
        raise BadOptions("--cluster forms a new group and --join enters one that runs: give one of the two")
    servers = tuple(Address.parse(part.strip()) for part in text.split(","))
    if listen in servers:
        raise BadOptions(f"--join names {listen}, which is this replica's own address: name one that is in the group")
    far = [str(server) for server in servers if not server.is_local]
    if far:
        raise BadOptions(f"--join names {far[0]}, but this version connects to loopback only")
    return servers


def _replace(values: dict[str, Any]) -> str:
    if values.get("replace") and not values.get("join"):
        raise BadOptions("--replace says whose place a newcomer takes, so it goes with --join")
    return str(values.get("replace") or "")


def _check_numbers(options: Options) -> None:
    if options.log_level not in LOG_LEVELS:
        raise BadOptions(f"--log-level {options.log_level} is unknown; it is one of {', '.join(LOG_LEVELS)}")
    if not limits.SESSION_TTL_MS_MIN <= options.lease_s * 1000 <= limits.SESSION_TTL_MS_MAX:
        shortest, longest = limits.SESSION_TTL_MS_MIN / 1000, limits.SESSION_TTL_MS_MAX / 1000
        raise BadOptions(f"--lease {options.lease_s:g} is out of range: it is from {shortest:g} to {longest:g} seconds")
    if options.heartbeat_ms < 5:
        raise BadOptions(f"--heartbeat-ms {options.heartbeat_ms} is too short: at least 5")
    if options.election_ms < 3 * options.heartbeat_ms:
        raise BadOptions(
            f"--election-ms {options.election_ms} must be at least three times --heartbeat-ms {options.heartbeat_ms}:"
            " one late heartbeat is no reason for an election"
        )
    if options.connections_max < 10:
        raise BadOptions(f"--connections-max {options.connections_max} is too small: at least 10")
    if not options.idle_exit_s > 0:
        raise BadOptions("--idle-exit must be more than 0 seconds")
