# SPDX-License-Identifier: Apache-2.0
"""Searches a whole small world: `python -m tests.scope paxos "ballots=2,slots=2,crashes=1"`, or `... bugs`.

`lock "acquires=2,breaks=1"` is the other model. The fields are those of `words.Scope` and `clients.LockScope`; what
was searched to the end stands in `FINISHED` of agreement.py and mutual.py.

A fault ends the search with the shortest way to it, in words, and the numbers that `--replay` takes. `bugs` plants each
bug in turn and shows how soon it is found.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import sys
from collections.abc import Callable
from typing import Any

from tests.scope import agreement, lock_bugs, mutual, paxos_bugs
from tests.scope.clients import LockScope
from tests.scope.exploring import Explorer
from tests.scope.planting import Bug
from tests.scope.words import Scope

MODELS: dict[str, tuple[type, Callable[[Any], Explorer]]] = {
    "paxos": (Scope, agreement.explorer),
    "lock": (LockScope, mutual.explorer),
}
BUGS: dict[str, tuple[Bug, ...]] = {"paxos": paxos_bugs.BUGS, "lock": lock_bugs.BUGS}


def scope_of(kind: type, text: str) -> Any:
    """The scope that "ballots=2,slots=1" means."""
    fields = ast.parse(f"dict({text})", mode="eval").body
    assert isinstance(fields, ast.Call)
    return kind(**{str(field.arg): ast.literal_eval(field.value) for field in fields.keywords})


def show_bugs(model: str, part: str) -> int:
    """A table of all bugs, and how many were not found."""
    missed = 0
    for bug in BUGS[model]:
        if part not in bug.name:
            continue
        with bug.planted():
            result = MODELS[model][1](bug.scope).run()
        missed += not result.fault
        found = f"{result.states:>8,} states, {len(result.trace):>3} steps, {result.seconds:5.1f} s: {result.fault}"
        print(f"{bug.name}\n    {found if result.fault else 'NOT FOUND'}", flush=True)
        if part:
            print(*result.trace, sep="\n")
    return missed


def main() -> int:
    """Exit code 1: a fault was found, or a planted bug was not."""
    parser = argparse.ArgumentParser(prog="python -m tests.scope", description=__doc__)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("what", metavar="scope", help='fields of the scope as name=value, or "bugs"')
    parser.add_argument("--states", type=int, default=1 << 62, help="the most to look at")
    parser.add_argument("--seconds", type=float, default=1e9, help="of CPU time, the most to use")
    parser.add_argument("--bug", default="", help="plant the bug whose name has this in it")
    parser.add_argument("--replay", help="go this way and tell it, instead of searching")
    options = parser.parse_args()
    if options.what == "bugs":
        return int(show_bugs(options.model, options.bug) > 0)
    with contextlib.ExitStack() as stack:
        for bug in BUGS[options.model]:
            if options.bug and options.bug in bug.name:
                stack.enter_context(bug.planted())
                print(f"planted: {bug.name}")
                break
        return _search(options)


def _search(options: argparse.Namespace) -> int:
    kind, build = MODELS[options.model]
    explorer = build(scope_of(kind, options.what))
    if options.replay is not None:
        print(*explorer.follow(options.replay), sep="\n")
        return 0
    result = explorer.run(states_max=options.states, seconds_max=options.seconds)
    print(result.row())
    print(*result.trace, sep="\n")
    if result.fault:
        planted = f" --bug {options.bug!r}" if options.bug else ""
        print(f"again: python -m tests.scope {options.model} {options.what!r}{planted} --replay {result.replay}")
    return int(bool(result.fault))


if __name__ == "__main__":
    sys.exit(main())
