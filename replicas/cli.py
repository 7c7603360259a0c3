# SPDX-License-Identifier: Apache-2.0
"""`dthreading-server`: from the command line to a running replica, and from its end to an exit code.

Nothing happens at import. `main` refuses, with one sentence and code 2, whatever a later traceback would say worse.
"""

from __future__ import annotations

import os
import sys
from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ExitCode", "main", "version"]


UNKNOWN: Final = "unknown"


class ExitCode(IntEnum):
    """What the end of the process means, for supervisors and scripts."""

    STOPPED = 0
    """Asked to stop (SIGTERM, SIGINT, or an embedded group that nobody uses), and stopped cleanly."""
    FAILED = 1
    """An error of ours; the log has the details. Restarting is safe."""
    REFUSED = 2
    """Bad options, or a data directory, address or secret that cannot be used. Restarting changes nothing."""
    DISK_FAILED = 3
    """Writing or syncing the log failed. What was acknowledged is on the disks of a quorum; look at this disk first."""
    TAKEN = 4
    """Another process holds the data directory (for the embedded group: it is up already, which is well)."""
    DATA_GONE = 5
    """The directory is empty, but the group knows this replica: its data is gone and it must not vote again."""


EXIT_CODES_HELP: Final = """exit codes:
  0  asked to stop, and stopped cleanly
  1  an error of ours; the log says more
  2  bad options, or an address, secret or data directory that cannot be used
  3  writing or syncing the log failed
  4  another process holds the data directory
  5  the directory is empty but the group knows this replica: its data is gone
"""


def version() -> str:
    """The version of the installed distribution, or "unknown" in a bare source tree."""
    from importlib import metadata  # noqa: PLC0415 - costs 15 ms that only --version and an error need

    try:
        return metadata.version("dthreading")
    except metadata.PackageNotFoundError:
        return UNKNOWN


def main(argv: Sequence[str] | None = None) -> int:
    """Run one replica until it is asked to stop; returns an `ExitCode`."""
    if not __debug__:
        return _refuse("python -O and PYTHONOPTIMIZE remove the checks that keep the group safe; start it without them")
    foreign = _foreign_package()
    if foreign:
        return _refuse(foreign)
    from replicas import options  # noqa: PLC0415 - nothing of the server at import

    try:
        chosen = options.parse(sys.argv[1:] if argv is None else argv, os.environ)
    except options.BadOptions as error:
        return _refuse(str(error))
    from replicas import running  # noqa: PLC0415

    try:
        return running.run(chosen)
    except options.BadOptions as error:
        return _refuse(str(error))
    except running.CannotServe as error:
        return _refuse(str(error), error.code)


def _refuse(sentence: str, code: ExitCode = ExitCode.REFUSED) -> int:
    print(f"dthreading-server: {sentence}", file=sys.stderr)
    return code


def _foreign_package() -> str | None:
    """The sentence to say when another distribution's `replicas` stands where ours should; pip permits it."""
    import replicas  # noqa: PLC0415

    found, expected = getattr(replicas, "__version__", None), version()
    if found == expected or (found is not None and expected == UNKNOWN):
        return None
    return (
        f"the package `replicas` found at {replicas.__file__} is version {found}, and the installed dthreading is"
        f" {expected}: another distribution has overwritten its files; uninstall that one and reinstall dthreading"
    )


if __name__ == "__main__":
    sys.exit(main())
