# SPDX-License-Identifier: Apache-2.0
"""What a reader is shown of a history that no order explains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from dthreading.testing.linearizability import Finding
from dthreading.testing.recorded import Call

__all__ = ["describe"]

CALLS_SHOWN_MAX: Final = 40
"""The latest ones; what went before them seldom matters, and a page is what is read."""


def describe(name: str, made: tuple[str, tuple[Any, ...]], calls: Sequence[Call], finding: Finding) -> str:
    """The shortest beginning of the history that has no order, latest calls last."""
    kind, arguments = made
    what = f"{kind}({', '.join(map(repr, arguments))}) {name!r}"
    if finding.culprit is None:
        lines = [f"{what}: in the end somebody is left waiting who could go on, whatever the order of the calls:"]
        lines += [f"  ! {call}" for call in finding.forgotten]
        prefix = [call for call in calls if call not in finding.forgotten]
    else:
        end = finding.culprit.returned
        assert end is not None
        lines = [f"{what}: no order of its calls explains this one:", f"  ! {finding.culprit}"]
        prefix = [call for call in calls if call.called < end and call is not finding.culprit]
    lines += ["Up to there, by when they began ([began, came back], ~ may overlap it):"]
    if len(prefix) > CALLS_SHOWN_MAX:
        lines.append(f"    ({len(prefix) - CALLS_SHOWN_MAX} earlier calls)")
    begun = None if finding.culprit is None else finding.culprit.called
    for call in prefix[-CALLS_SHOWN_MAX:]:
        overlaps = begun is not None and (call.returned is None or call.returned > begun)
        lines.append(f"  {'~' if overlaps else ' '} {call}")
    lines += ["Before it the object may have been in state:", *(f"    {state}" for state in finding.states)]
    return "\n".join(lines)
