# SPDX-License-Identifier: Apache-2.0
"""What storage may say after a crash, and what it may not. The only judge of the crash search.

After a lawful crash (each sector old or new) storage says exactly one of the things that are allowed at that moment,
and neither doubt nor rot: a torn tail is cut off. Where a sector was torn it may also refuse, call it rot, or doubt
slots of what was afloat; but what it says then is a part of the truth, and nothing that was acknowledged is missing
from it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from replicas.paxos.types import NO_BALLOT, Ballot, Entry
from tests.storage.support import CONFIGURATION, Model, View

__all__ = ["Allowed", "Outcome", "brief", "chain_at"]


def chain_at(slot: int) -> int:
    """Any number that a snapshot of that slot, and of no other, carries."""
    return slot * 0x1_0000_0001 + 7


class Outcome(NamedTuple):
    """What opening a directory came to. `refused` and `rot` are sentences; where either is, nothing else counts."""

    refused: str | None = None
    rot: str | None = None
    view: View = View(None, NO_BALLOT, None, ())
    doubtful: frozenset[int] = frozenset()
    chosen: int = 0

    @property
    def told(self) -> str | None:
        return self.refused or self.rot

    @classmethod
    def of(cls, storage: Any) -> Outcome:
        recovered = storage.recovered
        if recovered.rot is not None:
            assert not recovered.durable.entries, "a rotten replica shows entries"
            return cls(rot=recovered.rot)
        durable, header = recovered.durable, recovered.snapshot
        snapshot = None
        if header is not None:
            snapshot = (header.slot, storage.read_snapshot(0, 1 << 20))
            assert len(snapshot[1]) == header.size
            assert (
                (durable.snapshot_slot, durable.chain)
                == (header.slot, header.chain)
                == (header.slot, chain_at(header.slot))
            )
            assert durable.configuration == CONFIGURATION
            assert header.digest == b"digest"
        else:
            assert (durable.snapshot_slot, durable.chain, durable.configuration) == (0, 0, None)
        first = durable.snapshot_slot + 1
        assert [told.slot for told in durable.entries] == list(range(first, first + len(durable.entries)))
        assert durable.chosen < min(durable.doubtful, default=durable.chosen + 1), "what is in doubt counts as chosen"
        view = View(recovered.identity, durable.promised, snapshot, durable.entries)
        return cls(None, None, view, durable.doubtful, durable.chosen)


class Allowed:
    """The judge at one moment. `lawful`: no sector was torn, in this crash or one before it."""

    __slots__ = ("_chosen", "_doubtful", "_exactly", "_views", "key", "lawful")

    def __init__(self, models: tuple[Model, ...]) -> None:
        self._views = tuple(model.view() for model in models)
        self._chosen = max((model.chosen for model in models), default=0)
        self._doubtful: frozenset[int] = frozenset()
        self._exactly: Outcome | None = None
        self.lawful = True
        self.key: object = (self._views, self._chosen)

    def torn(self) -> Allowed:
        """The same moment, but a sector is torn."""
        other = Allowed(())
        other._views, other._chosen, other._doubtful = self._views, self._chosen, self._doubtful
        other.lawful = False
        other.key = (self.key, "torn")
        return other

    def said(self, outcome: Outcome) -> Allowed:
        """Somebody may have acted on this outcome, so no later one may differ."""
        other = Allowed(())
        other._views, other._chosen, other._doubtful = (outcome.view,), outcome.chosen, outcome.doubtful
        other._exactly = outcome
        other.lawful = self.lawful
        other.key = (outcome, self.lawful)
        return other

    def objection(self, outcome: Outcome) -> str | None:
        """Why this must not be what storage says, or nothing."""
        if not self.lawful and outcome.told is not None:
            return None
        if self._exactly is not None:
            return None if outcome == self._exactly else f"it said before: {brief(self._exactly)}"
        if self.lawful:
            return self._strictly(outcome)
        objections = [objection for view in self._views if (objection := self._lost(view, outcome))]
        return objections[0] if len(objections) == len(self._views) else None

    def _strictly(self, outcome: Outcome) -> str | None:
        if outcome.told is not None:
            return "no sector was torn, so there is nothing to be told"
        if outcome.doubtful:
            return "no sector was torn, so there is nothing to doubt"
        if outcome.view not in self._views:
            return "this is none of what may be found:\n" + "\n".join(
                f"    {brief(Outcome(view=view))}" for view in self._views
            )
        floor = outcome.view.snapshot[0] if outcome.view.snapshot is not None else 0
        if not floor <= outcome.chosen <= max(floor, self._chosen):
            return f"up to {outcome.chosen} was never said to be chosen"
        return None

    def _lost(self, view: View, outcome: Outcome) -> str | None:
        """What is missing from, or invented in, this outcome, if this view is the truth. Doubtful slots are not
        known.
        """
        said = outcome.view
        if (said.identity, said.snapshot) != (view.identity, view.snapshot):
            return "the identity or the snapshot is neither the old nor the new one"
        if said.promised != view.promised:
            return f"{said.promised} was promised instead of {view.promised}"
        truth = {entry.slot: entry for entry in view.entries if entry.slot not in self._doubtful}
        for entry in said.entries:
            if entry.slot not in outcome.doubtful and truth.get(entry.slot) != entry:
                return f"slot {entry.slot} holds what was never written there"
        missing = truth.keys() - {entry.slot for entry in said.entries} - outcome.doubtful
        if missing:
            return f"slots {sorted(missing)} are missing in silence"
        beyond = outcome.doubtful - truth.keys() - self._doubtful
        return f"slots {sorted(beyond)} were never written, and are doubted" if beyond else None


def brief(outcome: Outcome) -> str:
    """On one line."""
    if outcome.told is not None:
        return f"{'refused' if outcome.refused else 'rot'}: {outcome.told}"
    identity, promised, snapshot, entries = outcome.view
    formation = "nobody" if identity is None else f"formed by {len(identity.formation or b'')} bytes"
    at = "no snapshot" if snapshot is None else f"snapshot {snapshot[0]} of {len(snapshot[1])} bytes"
    slots = ", ".join(_entry(entry) for entry in entries)
    doubt = f", doubtful {sorted(outcome.doubtful)}" if outcome.doubtful else ""
    return f"{formation}, promised {promised.round}.{promised.replica}, {at}, slots [{slots}]{doubt}"


def _entry(entry: Entry) -> str:
    ballot: Ballot = entry.ballot
    return f"{entry.slot}@{ballot.round}.{ballot.replica}:{len(entry.value)}"
