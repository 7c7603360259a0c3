# SPDX-License-Identifier: Apache-2.0
"""`dthreading-server`: from the command line to a running replica, and from its end to an exit code.

Nothing happens at import. `main` refuses, with one sentence and code 2, whatever a later traceback would say worse.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from replicas.daemon.distribution import foreign_package, version
from replicas.daemon.exits import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicas.daemon.options import Options

__all__ = ["ExitCode", "main", "version"]

INTERRUPTED: Final = 130
"""What shells make of an interrupt. A server that is asked to stop, and does, has none."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one replica until it is asked to stop; returns an `ExitCode`."""
    if not __debug__:
        return _refuse("python -O and PYTHONOPTIMIZE remove the checks that keep the group safe; start it without them")
    _take_standard_descriptors()
    foreign = foreign_package()
    if foreign:
        return _refuse(foreign)
    from replicas.daemon import options  # noqa: PLC0415 - nothing of the server at import

    try:
        chosen = options.parse(sys.argv[1:] if argv is None else argv, os.environ)
    except options.BadOptions as error:
        return _refuse(str(error))
    try:
        if chosen.check is not None or chosen.recover is not None:
            return _offline(chosen)
        return _serve(chosen)
    except options.BadOptions as error:
        return _refuse(str(error), told=chosen.embedded)
    except KeyboardInterrupt:  # before the loop takes signals, or without it
        serving = chosen.check is None and chosen.recover is None
        return _refuse("interrupted", ExitCode.STOPPED if serving else INTERRUPTED)


def _serve(chosen: Options) -> int:
    from replicas.daemon import running  # noqa: PLC0415

    try:
        return running.run(chosen)
    except running.CannotServe as error:
        return _refuse(str(error), error.code, told=chosen.embedded)


def _take_standard_descriptors() -> None:
    """Give those of 0, 1 and 2 that were closed to nothing. Else the next files that are opened, the log's among them,
    would have the numbers that the interpreter and the C library write their last complaint to.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _offline(chosen: Options) -> int:
    from replicas.daemon import offline  # noqa: PLC0415

    def say(sentence: str) -> None:
        try:
            print(sentence, flush=True)
        except OSError as error:
            sys.stdout = None  # or the interpreter tries once more at its end, and complains
            why = f"what was found cannot be written: {error.strerror or error}"
            raise offline.Unusable(ExitCode.FAILED, why) from None

    def sure(question: str) -> bool:
        if chosen.sure:
            return True
        say(f"{question}. To go on, type: lose")
        return sys.stdin is not None and sys.stdin.readline().strip() == "lose"

    try:
        if chosen.check is not None:
            offline.check(chosen.check, say)
        if chosen.recover is not None:
            place = (chosen.recover, chosen.data_dir, str(chosen.listen))
            offline.recover_unsafe(*place, sure=sure, say=say, answers=offline.answers)
    except offline.Unusable as error:
        return _refuse(str(error), error.code)
    except OSError as error:  # a place that its user may not enter, say
        return _refuse(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return ExitCode.STOPPED


def _refuse(sentence: str, code: int = ExitCode.REFUSED, *, told: bool = False) -> int:
    """Says why. `told`: to whoever started us as well, since standard error is a file that the disk may not take."""
    from replicas.daemon.journal import say  # noqa: PLC0415

    if told:
        say(f"dthreading-server: {sentence}", sys.stdout)
    say(f"dthreading-server: {sentence}", sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
