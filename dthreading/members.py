# SPDX-License-Identifier: Apache-2.0
"""`dthreading members`: who is in the group, and changing that while the group serves.

Each command says what shall be, again and again until it is so; whichever replica is asked passes it on to the leader.
So it may be interrupted and given again, and what was begun goes on meanwhile. Nothing happens at import.
"""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from dthreading.config import Settings

__all__ = ["add_parser", "add_recovery"]

AGAIN_S: Final = 0.1
"""Between two questions while the group is about it."""

STARTING_S: Final = 5.0
"""How long a newcomer may take to listen: its process was started a moment ago, perhaps by the same script."""

UNANSWERED_S: Final = 15.0
"""How long no replica may answer before the command gives up: several elections, and every address tried."""

LOOKING_S: Final = 3.0
"""The same where nothing is changed: long enough for an election."""

COLUMNS: Final = ("replica", "address", "role", "state")

HELP: Final = """commands:
  list                          the members, and newcomers with how far they are
  add ADDRESS...                make members of the newcomers that listen there (dthreading-server --join)
  remove MEMBER                 go on without it; MEMBER is an id or an address, as list shows them
  replace MEMBER ADDRESS        let the newcomer at ADDRESS take the place of MEMBER
  transfer-leader [MEMBER]      let another member lead, or this one
"""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to those of `dthreading`."""
    import argparse  # noqa: PLC0415 - nothing at import

    about = "the members of the group, and changing them while it serves"
    members = commands.add_parser(
        "members", help=about, description=about, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = members.add_subparsers(required=True, metavar="list|add|remove|replace|transfer-leader")
    listing = verbs.add_parser("list", parents=[common])
    listing.set_defaults(run=lambda arguments: _run(arguments, _list))
    adding = verbs.add_parser("add", parents=[common])
    adding.add_argument("addresses", nargs="+", metavar="ADDRESS")
    adding.set_defaults(run=lambda arguments: _run(arguments, _add))
    removing = verbs.add_parser("remove", parents=[common])
    removing.add_argument("member", metavar="MEMBER")
    removing.set_defaults(run=lambda arguments: _run(arguments, _remove))
    replacing = verbs.add_parser("replace", parents=[common])
    replacing.add_argument("member", metavar="MEMBER")
    replacing.add_argument("address", metavar="ADDRESS")
    replacing.set_defaults(run=lambda arguments: _run(arguments, _replace))
    transferring = verbs.add_parser("transfer-leader", parents=[common])
    transferring.add_argument("member", nargs="?", default="", metavar="MEMBER")
    transferring.set_defaults(run=lambda arguments: _run(arguments, _transfer))


def add_recovery(commands: Any) -> None:
    """Add `recover-unsafe`, which is done on a survivor's machine, by the server's own program."""
    about = "a majority of the members is lost for good: make a new group of what a survivor's data directory holds"
    recovering = commands.add_parser("recover-unsafe", help=about, description=about)
    recovering.add_argument("directory", metavar="DIR", help="the survivor's data directory; it stays as it is")
    recovering.add_argument("new", metavar="NEW", help="the data directory of the new group, empty or not there yet")
    recovering.add_argument("--listen", metavar="ADDRESS", required=True, help="where the new replica will listen")
    recovering.add_argument("--yes", action="store_true", help="do not ask")
    recovering.set_defaults(run=_recover)


def _recover(arguments: argparse.Namespace) -> int:
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    words = ["--recover-unsafe", arguments.directory, "--data-dir", arguments.new, "--listen", arguments.listen]
    words += ["--yes"] if arguments.yes else []
    return subprocess.call([sys.executable, "-m", "replicas.cli", *words])  # noqa: S603 - our own program


class _Refused(Exception):
    """It will not be done; the text is one sentence."""


class _Unanswered(Exception):
    """Nobody has answered for long; what was begun may go on."""


def _run(arguments: argparse.Namespace, verb: Callable[[argparse.Namespace, _Group], dict[str, Any]]) -> int:
    from dthreading import cli, config  # noqa: PLC0415

    config.configure(servers=arguments.servers, secret=arguments.secret_file)
    group = _Group(config.current(), patient=verb is not _list)
    try:
        answer = verb(arguments, group)
    except _Refused as refusal:
        cli.complain(f"dthreading: {refusal}")
        return 2
    except _Unanswered as trouble:
        cli.complain(f"dthreading: {trouble}")
        return 1
    except KeyboardInterrupt:
        cli.complain("dthreading: interrupted; what was begun goes on, and the same command shows how far it is")
        return 130
    if arguments.json:
        cli.print_json({key: value for key, value in answer.items() if key != "servers"})
    elif verb is _list:
        rows = answer["members"]
        cli.print_table(COLUMNS, [tuple(str(row[column]) for column in COLUMNS) for row in rows])
    else:
        cli.say(answer["say"])
    return 0


# --- the commands --------------------------------------------------------------------------------------------------


def _list(arguments: argparse.Namespace, group: _Group) -> dict[str, Any]:
    del arguments
    return group.ask("list")


def _add(arguments: argparse.Namespace, group: _Group) -> dict[str, Any]:
    newcomers = [group.newcomer(address) for address in dict.fromkeys(arguments.addresses)]
    # Each is asked for before any is waited for: so they come in together, if they can.
    for newcomer in newcomers:
        group.ask("add", *newcomer, once=True)
    answers = [group.ask("add", *newcomer) for newcomer in newcomers]
    return {**answers[-1], "say": "\n".join(answer["say"] for answer in answers)}


def _remove(arguments: argparse.Namespace, group: _Group) -> dict[str, Any]:
    return group.ask("remove", arguments.member)


def _replace(arguments: argparse.Namespace, group: _Group) -> dict[str, Any]:
    return group.ask("replace", arguments.member, *group.newcomer(arguments.address))


def _transfer(arguments: argparse.Namespace, group: _Group) -> dict[str, Any]:
    former = 0 if arguments.member else group.ask("list")["leader"]
    return group.ask("transfer", arguments.member, former)


# --- asking --------------------------------------------------------------------------------------------------------


class _Group:
    """The group as it is asked: the servers of the settings, and those that the group has told of since.

    Args:
        patient: say what is waited for, on standard error.

    """

    def __init__(self, settings: Settings, *, patient: bool) -> None:
        from dthreading import embedded, resolve  # noqa: PLC0415

        self._settings = settings
        self._servers = list(resolve.each(settings.servers or (embedded.server_name(),)))
        self._patient = patient
        self._said = ""

    def ask(self, verb: str, *about: object, once: bool = False) -> dict[str, Any]:
        """Asks until it is done.

        Args:
            verb: what of `members` is asked.
            about: its arguments.
            once: one answer is enough, whatever it says.

        Raises:
            _Refused: the leader refuses it.
            _Unanswered: nobody answers.

        """
        patience_s = UNANSWERED_S if self._patient else LOOKING_S
        deadline = time.monotonic() + patience_s
        why = ""
        while True:
            for server in list(self._servers):
                answer: dict[str, Any] | str = self._ask_one(server, f"members.{verb}", *about)
                if isinstance(answer, str):
                    why = f"{server}: {answer}"
                    continue
                self._learn(answer.get("servers", ()))
                if answer.get("refused"):
                    raise _Refused(answer["say"])
                if answer.get("elsewhere"):
                    why = f"{server}: {answer['say']}"
                    continue
                if answer.get("done") or once:
                    return answer
                self._say(answer["say"])
                deadline = time.monotonic() + patience_s
                break
            if time.monotonic() > deadline:
                raise _Unanswered(f"no replica could answer for the group ({why}); `dthreading status` says more")
            time.sleep(AGAIN_S)

    def newcomer(self, address: str) -> tuple[str, bytes]:
        """The address and incarnation of a replica that is to become a member: it is asked itself what it is.

        Raises:
            _Refused: nobody is there, or somebody who cannot be a member.

        """
        if ":" not in address or not (address.startswith("unix:") or address.rpartition(":")[2].isdecimal()):
            raise _Refused(f"{address!r} is not an address: write host:port, as the newcomer's --listen has it")
        deadline = time.monotonic() + STARTING_S
        nobody = (os.strerror(errno.ECONNREFUSED), os.strerror(errno.ENOENT))
        while (about := self._ask_one(address, "status")) in nobody and time.monotonic() < deadline:
            self._say(f"nobody answers at {address} yet ({about})")
            time.sleep(AGAIN_S)
        if isinstance(about, str):
            raise _Refused(
                f"no newcomer answers at {address} ({about}): start it first, with dthreading-server --listen {address}"
                " --join and the address of a member, and the secret file of the group"
            )
        if about["role"] == "forming":
            raise _Refused(
                f"the replica at {address} waits to form a group of its own (--cluster): clear its data directory and"
                " start it with --join and the address of a member"
            )
        cluster = self._cluster()
        if about["cluster"] and cluster and about["cluster"] != cluster:
            raise _Refused(
                f"the replica at {address} belongs to another group, {about['cluster']}, and this one is {cluster}:"
                " start a newcomer on an empty data directory, with --join and the address of a member"
            )
        return about["address"], about["incarnation"]

    def _cluster(self) -> str:
        """The id of the group, from whoever answers first."""
        for server in self._servers:
            answer = self._ask_one(server, "status")
            if not isinstance(answer, str) and answer["cluster"]:
                return str(answer["cluster"])
        return ""

    def _ask_one(self, server: str, question: str, *about: object) -> Any:
        from dthreading import cli  # noqa: PLC0415

        return cli.ask_one(self._settings, server, question, *about)

    def _learn(self, servers: list[str]) -> None:
        self._servers += [server for server in servers if server not in self._servers]

    def _say(self, sentence: str) -> None:
        from dthreading import cli  # noqa: PLC0415

        if self._patient and sentence != self._said:
            self._said = sentence
            cli.complain(f"waiting: {sentence}")
