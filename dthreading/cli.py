# SPDX-License-Identifier: Apache-2.0
"""`dthreading status` and `dthreading locks`: what the replicas say of themselves, to people and (--json) to programs.
`dthreading members` is in members.py.

Asks each replica by itself and decides nothing: an answer is one replica's own state, without a quorum, so it is there
also when the group is not, which is when one wants to look. Nothing happens at import.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

from dthreading import __version__
from dthreading.errors import GroupUnreachable
from dthreading.wire.limits import OBJECTS_LISTED_MAX

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from dthreading.config import Settings

__all__ = ["ask_one", "complain", "main", "print_json", "print_table", "say"]

EXIT_CODES_HELP: Final = """exit codes:
  0  answered, by every replica (status) or by one (locks); members: it is so
  1  status: a replica did not answer, or hears no leader; locks, members: no replica answered; all: the answer could
     not be written
  2  bad arguments; members: refused, and nothing was changed
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        if sys.stdout is not None:  # there is none when it was closed
            sys.stdout.flush()
    except ValueError as error:
        print(f"dthreading: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader (head, less) has seen enough; the interpreter must not complain about it at its end.
        sys.stdout = None
        return 0
    except KeyboardInterrupt:
        complain("dthreading: interrupted")
        return 130
    except GroupUnreachable as error:  # an OSError, too: there is no home to look for the embedded group in
        complain(f"dthreading: {error}")
        return 1
    except OSError as error:  # whoever cannot be asked is told of in the answer, so this is its writing
        sys.stdout = None
        complain(f"dthreading: the answer cannot be written: {error.strerror or error}")
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    import argparse  # noqa: PLC0415 - nothing at import

    from dthreading import members  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        prog="dthreading",
        description="Ask a group of dthreading replicas what they are doing, and change who is in it.",
        epilog=EXIT_CODES_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dthreading {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    where = "HOST:PORT,... (default: DTHREADING_SERVERS, else this user's embedded local group)"
    common.add_argument("--servers", metavar="ADDRESSES", help=where)
    common.add_argument("--secret-file", metavar="FILE", help="default: DTHREADING_SECRET_FILE, else this user's own")
    common.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    status = commands.add_parser("status", parents=[common], help="the replicas, one a line")
    status.set_defaults(run=_status)
    locks = commands.add_parser("locks", parents=[common], help="the objects, who holds them and who waits")
    locks.add_argument("name", nargs="?", default="", metavar="NAME", help="only objects whose name contains this")
    locks.set_defaults(run=_locks)
    members.add_parser(commands, common)
    members.add_recovery(commands)
    return parser


# --- status ----------------------------------------------------------------------------------------------------------

STATUS_COLUMNS: Final = (
    "replica", "address", "role", "ballot", "chosen", "applied", "snapshot", "sessions", "objects", "waiting", "disk",
)  # fmt: skip


def _status(arguments: argparse.Namespace) -> int:
    answers = _ask_all(_settings(arguments))
    well = all("error" not in answer and answer.get("leader") is not None for answer in answers)
    if arguments.json:
        print_json({"replicas": answers})
    else:
        print_table(STATUS_COLUMNS, (_status_row(answer) for answer in answers))
        for answer in answers:
            if "error" in answer:
                complain(f"{answer['address']} did not answer: {answer['error']}")
            elif answer.get("leader") is None:
                complain(f"{answer['address']} hears no leader: without a majority of the members nothing is decided")
    return 0 if well else 1


def _status_row(answer: dict[str, Any]) -> tuple[str, ...]:
    if "error" in answer:
        return ("-", answer["address"], "unreachable", *("-" for _ in STATUS_COLUMNS[3:]))
    disk = "none" if not answer.get("durable", True) else _size(answer.get("disk_bytes", 0))
    shown = {**answer, "ballot": ".".join(map(str, answer.get("ballot", ("-",)))), "disk": disk}
    return tuple(str(shown.get(column, "-")) for column in STATUS_COLUMNS)


def _size(count: int) -> str:
    amount, unit = float(count), "B"
    for larger in ("kB", "MB", "GB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


# --- locks -----------------------------------------------------------------------------------------------------------

OBJECT_COLUMNS: Final = ("kind", "name", "namespace", "state", "held by, then waiting", "waiting")
_COMMON_KEYS: Final = frozenset(
    {"kind", "name", "namespace", "lifetime", "attached", "holders", "waiting", "waiters", "fault"}
)
"""What every object says; whatever else it says of itself is its state."""


def _locks(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    everybody = _ask_all(settings)
    answers = [answer for answer in everybody if "error" not in answer]
    # The leader has applied all that was answered; without one, whoever has applied most knows best.
    answers.sort(key=lambda answer: (answer.get("role") == "leader", answer.get("applied", 0)), reverse=True)
    for answer in answers:
        objects = ask_one(settings, answer["asked"], "locks", arguments.name)
        if isinstance(objects, str):
            print(f"{answer['asked']} did not answer: {objects}", file=sys.stderr)
            continue
        if arguments.json:
            print_json({"asked": answer["asked"], "replica": answer.get("replica"), "objects": objects})
        else:
            _print_objects(objects)
        if len(objects) == OBJECTS_LISTED_MAX:
            _say_what_is_missing(arguments.name, answer.get("objects", 0))
        return 0
    for answer in everybody:
        if "error" in answer:
            complain(f"{answer['address']} did not answer: {answer['error']}")
    complain("dthreading: no replica answered")
    return 1


def _say_what_is_missing(part: str, there: int) -> None:
    if part:
        complain(f"{OBJECTS_LISTED_MAX} objects are listed, and no more fit an answer: give more of the name")
    elif there > OBJECTS_LISTED_MAX:
        complain(
            f"{OBJECTS_LISTED_MAX} objects of {there} are listed, those first that are held or waited for: `dthreading"
            " locks NAME` lists those whose name contains NAME"
        )


def _print_objects(objects: Iterable[dict[str, Any]]) -> None:
    rows: list[tuple[str, ...]] = []
    for known in objects:
        holders = [_who(holder) for holder in known["holders"]]
        rows.append(
            (
                known["kind"],
                known["name"],
                known["namespace"],
                "broken: " + known["fault"] if known["fault"] else _state(known),
                holders[0] if holders else "-",
                str(known["waiting"] or "-"),
            )
        )
        rows += [("", "", "", "", holder, "") for holder in holders[1:]]
        waiters = known["waiters"]
        rows += [("", "", "", "", f"{place}. {_who(waiter)}", "") for place, waiter in enumerate(waiters, 1)]
        if len(waiters) < known["waiting"]:
            rows.append(("", "", "", "", f"... and {known['waiting'] - len(waiters)} more", ""))
    if rows:
        print_table(OBJECT_COLUMNS, rows)
    else:
        print("no objects: all are in their initial state, and nobody uses one")


def _state(known: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in known.items() if key not in _COMMON_KEYS) or "-"


def _who(party: dict[str, Any]) -> str:
    operation = f" in {party['operation']}" if party.get("operation") else ""
    return f"{party['label'] or '?'} (session {party['session']}){operation}"


# --- asking ----------------------------------------------------------------------------------------------------------


def _settings(arguments: argparse.Namespace) -> Settings:
    from dthreading import config  # noqa: PLC0415

    config.configure(servers=arguments.servers, secret=arguments.secret_file)
    return config.current()


def _ask_all(settings: Settings) -> list[dict[str, Any]]:
    """The status of every replica, all asked at once; where there is none, `error` says why."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    from dthreading import embedded, resolve  # noqa: PLC0415

    servers = tuple(resolve.each(settings.servers or (embedded.server_name(),)))
    with ThreadPoolExecutor(len(servers)) as pool:
        answers = list(pool.map(lambda server: ask_one(settings, server, "status"), servers))
    return [
        {"address": server, "error": answer} if isinstance(answer, str) else {**answer, "asked": server}
        for server, answer in zip(servers, answers, strict=True)
    ]


def ask_one(settings: Settings, server: str, question: str, *about: object) -> Any:
    """The answer, or as a string the reason why there is none."""
    from dthreading import asking, embedded  # noqa: PLC0415
    from dthreading.errors import DThreadingError  # noqa: PLC0415

    try:
        return asking.ask_server(settings, server, question, about)
    except (OSError, DThreadingError) as error:
        absent = isinstance(error, FileNotFoundError | ConnectionRefusedError)
        if absent and settings.embedded and server == embedded.server_name():
            return "the embedded local group does not run now: the next program that needs it starts it"
        strerror = getattr(error, "strerror", None)
        return strerror or str(error) or type(error).__name__


# --- printing --------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """The answer, on standard output."""
    print(text)


def complain(text: str) -> None:
    """Anything else, on standard error."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """One JSON document."""
    print(json.dumps(value, indent=2, default=_plain))


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else repr(value)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they need; names and labels come from clients, so nothing in them may move the cursor."""
    table = [[column.upper() for column in columns], *([_harmless(cell) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in table) for at in range(len(columns))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _harmless(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode()


if __name__ == "__main__":
    sys.exit(main())
