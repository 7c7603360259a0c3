# SPDX-License-Identifier: Apache-2.0
"""The state as people ask for it: who holds what, who waits for whom, who is there. Plain values, and only so many."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from dthreading.wire.limits import NAME_BYTES_MAX, OBJECTS_LISTED_MAX
from dthreading.wire.messages import Lifetime
from replicas.machine.sessions import label_of
from replicas.objects.base import Replicated

if TYPE_CHECKING:
    from replicas.machine.core import Machine

__all__ = ["QUESTIONS"]

WAITERS_MAX: Final = 50
"""The most waiters that are listed of one object; their number is told in full."""

SHOWN_MAX: Final = 200
"""The most characters of a label that are shown, which ours have at most. Logs of old hold any, as long as a frame,
and one is repeated wherever its session stands."""


def _locks(machine: Machine, part: Any = "", *_: Any) -> list[dict[str, Any]]:
    """The objects whose name contains `part`, with their holders and waiters: those first that have any."""
    text = str(part)  # once: it may be as long as a frame
    wanted = [known for (_, name), known in machine.registry.objects.items() if text in name]
    if len(wanted) > OBJECTS_LISTED_MAX:
        wanted.sort(key=_is_idle)
    return [_object(machine, known) for known in wanted[:OBJECTS_LISTED_MAX]]


def _is_idle(known: Replicated) -> bool:
    return known.fault is None and not any(map(len, known.queues)) and next(iter(known.holders()), None) is None


def _label(machine: Machine, session: int) -> str:
    return str(label_of(machine.sessions, session))[:SHOWN_MAX]


def _object(machine: Machine, known: Replicated) -> dict[str, Any]:
    waiters = [
        {
            "session": waiter.session,
            "label": _label(machine, waiter.session),
            "thread": waiter.thread,
            "operation": f"{waiter.owner.kind}.{waiter.operation.name}",
        }
        for waiter in islice(known.standing(), WAITERS_MAX)
    ]
    return {
        "kind": known.kind,
        "namespace": known.namespace,
        "name": known.name,
        "lifetime": Lifetime(known.lifetime).name.lower(),
        "attached": known.attached,
        "holders": [
            {"session": session, "label": _label(machine, session)} for session in islice(known.holders(), WAITERS_MAX)
        ],
        "waiting": sum(map(len, known.queues)),
        "waiters": waiters,
        "fault": None if known.fault is None else known.fault.message,
        **known.sight(),
    }


def _sessions(machine: Machine, *_: Any) -> list[dict[str, Any]]:
    return [
        {
            "session": session.id,
            "label": session.label[:SHOWN_MAX],
            "namespace": session.namespace[:NAME_BYTES_MAX],
            "ttl_ms": session.ttl_ms,
            "epoch": session.epoch,
            "attached": len(session.handles),
            "holds": [f"{holding.kind} {holding.name}" for holding in islice(session.stakes.values(), WAITERS_MAX)],
            "waits": [
                f"{waiter.owner.kind} {waiter.owner.name}" for waiter in islice(session.waits.values(), WAITERS_MAX)
            ],
        }
        for session in islice(machine.sessions.values(), OBJECTS_LISTED_MAX)
    ]


def _status(machine: Machine, *_: Any) -> dict[str, Any]:
    objects = machine.registry.objects
    return {
        "sessions": len(machine.sessions),
        "objects": len(objects),
        "waiting": sum(len(session.waits) for session in machine.sessions.values()),
        "broken": sum(known.fault is not None for known in objects.values()),
        "fence": machine.fence,
        "ballot_in_force": list(machine.ballot_in_force),
    }


QUESTIONS: Final[dict[str, Callable[..., Any]]] = {"locks": _locks, "sessions": _sessions, "status": _status}
