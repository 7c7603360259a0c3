# SPDX-License-Identifier: Apache-2.0
"""One entry on the replicas' machine and on the reference: whether both answer the same and show the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

from dthreading.wire.messages import Reply, Status
from replicas.machine.core import Effects, Machine
from replicas.paxos.values import Entry
from tests.sim.checkers.reference import Reference, Said, has_pledge

__all__ = ["judged", "same_lines", "shows"]


def judged(reference: Reference, entry: Entry, command: Any, effects: Effects) -> list[Said]:
    """The reference does what the machine has done, which must have answered like this; returns what it answered."""
    expected = sorted(reference.apply(entry, command), key=_name)
    given = sorted(_replies(effects), key=_name)
    assert [_name(said) for said in given] == [_name(said) for said in expected], (
        f"slot {entry.slot} is {command}: it should answer {expected}, and answers {given}"
    )
    fences: list[int] = []
    for ours, theirs in zip(expected, given, strict=True):
        if has_pledge(ours[4]):
            reference.redeem(ours, theirs[4])
            fences.append(theirs[4] if type(theirs[4]) is int else max(theirs[4]))
            continue
        assert ours[4] == theirs[4], f"slot {entry.slot} is {command}: it should answer {ours}, and answers {theirs}"
    reference.fences_given(fences)
    assert [*effects.ended] == reference.ended, f"slot {entry.slot}: {effects.ended} end, not {reference.ended}"
    return given


def shows(reference: Reference, machine: Machine) -> None:
    """What this entry has touched is as the reference has it, as far as anybody may ask: so nothing was done twice in
    silence.
    """
    for key in reference.touched:
        model, shown = reference.objects.get(key), machine.registry.objects.get(key)
        assert (model is None) == (shown is None), f"slot {machine.applied}: {key} is {shown}, not {model}"
        if model is not None:
            view = tuple([getattr(shown, read)(None) for read in model.reads])
            assert view == model.view(), f"slot {machine.applied}: {key} shows {view}, not {model.view()}"


def same_lines(reference: Reference, machine: Machine) -> None:
    """The same objects, and as many who wait at each."""
    objects = machine.registry.objects
    assert set(objects) == set(reference.objects), (set(objects), set(reference.objects))
    for key, model in reference.objects.items():
        waiting = Counter(len(queue) for queue in objects[key].queues if queue)
        assert waiting == Counter(len(line) for line in model.lines if line), f"{key}: {waiting}"


def _replies(effects: Effects) -> list[Said]:
    return [
        (session, reply.lane, reply.number, int(reply.status), _said(reply))
        for session, reply in effects.replies
        if type(reply) is Reply
    ]


def _said(reply: Reply) -> Any:
    return reply.value[0] if reply.status == Status.ERROR else reply.value


def _name(said: Said) -> tuple[int, int, int, int]:
    return said[:4]
