# SPDX-License-Identifier: Apache-2.0
"""The group as one sequential program: every entry of the log is done once more here, and each answer is compared.

Sessions, lanes, handles and lifetimes as ARCHITECTURE.md tells of them, over the models of the objects. It shares
nothing with `replicas` but the bytes of the log. So it is the witness that the log is an order in which every object
behaves as one in a single process would, that no call is done twice, and that nobody waits for what is free: whoever
can go on is told in the same entry, in the order of coming, or the answers differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dthreading.wire import messages as wire
from dthreading.wire.messages import Lifetime, Status
from replicas.machine import commands
from replicas.paxos.values import Entry, EntryKind, decode_ballot
from tests.sim.checkers import lock_models, queue_models, signal_models
from tests.sim.checkers.models import WAITS, Caller, Model, Raises, Waiting

MODELS: dict[str, type[Model]] = {
    model.kind: model
    for module in (lock_models, queue_models, signal_models)
    for model in vars(module).values()
    if isinstance(model, type) and issubclass(model, Model) and model is not Model
}

Said = tuple[int, int, int, int, Any]
"""An answer: session, lane, number, status, and the value or the error's code."""
WITHDRAWN = "runtime"


@dataclass(eq=False, slots=True)
class Pledge:
    """A fence that a grant of this entry will have."""

    lock: Any


@dataclass(eq=False, slots=True)
class Lane:
    number: int
    operation: str = ""
    waiting: Waiting | None = None
    answer: tuple[int, Any] | None = None
    handed_by: Model | None = None
    """Who hears whether the answer arrived."""


@dataclass(eq=False, slots=True)
class Session:
    nonce: bytes
    namespaces: dict[str, None]
    epoch: int = 1
    lanes: dict[int, Lane] = field(default_factory=dict)
    handles: dict[int, Model | str] = field(default_factory=dict)
    handle_top: int = 0
    has: dict[Model, None] = field(default_factory=dict)
    waits: dict[int, Waiting] = field(default_factory=dict)


class Reference:
    """All of it."""

    def __init__(self) -> None:
        self.slot = 0
        self.fence = 0
        self.in_force: tuple[int, ...] = (0, 0)
        self.sessions: dict[int, Session] = {}
        self.objects: dict[tuple[str, str], Model] = {}
        self.members: dict[str, int] = {}
        """Per namespace, the slot in which a session joined it last."""
        self.said: list[Said] = []
        self.ended: list[int] = []
        """Sessions that the last entry ended."""
        self.expired = False
        self.touched: set[tuple[str, str]] = set()
        self.seen: list[str] = []

    # --- an entry

    def apply(self, entry: Entry, command: Any) -> list[Said]:
        """What is answered, to whom. `command` is the entry's value, decoded."""
        self.slot = entry.slot
        self.said, self.ended, self.expired = [], [], False
        self.touched.clear()
        self.seen.clear()
        if entry.kind == EntryKind.LEADS:
            self.in_force = max(self.in_force, tuple(decode_ballot(entry.value)))
        elif entry.kind == EntryKind.COMMAND:
            self._obey(command)
            self._drop_unused()
        return self.said

    def _obey(self, command: Any) -> None:
        match command:
            case wire.Open():
                self._open(command)
            case commands.Expire(session=session, epoch=epoch, round=round, replica=replica):
                known = self.sessions.get(session)
                if known is not None and known.epoch == epoch and (round, replica) == self.in_force:
                    self.expired = True
                    self._end(session)
            case commands.Reset(namespace=namespace, epoch=epoch, round=round, replica=replica):
                unused = not any(namespace in session.namespaces for session in self.sessions.values())
                if unused and (round, replica) == self.in_force and self.members.get(namespace) == epoch:
                    self._reset(namespace)
            case wire.Close(session=session):
                if session in self.sessions:
                    self._end(session)
            case commands.Delete(namespace=namespace, name=name):
                if (namespace, name) in self.objects:
                    self._delete(self.objects[namespace, name])
            case wire.Call() | wire.Withdraw() | wire.Acknowledge() | wire.Attach() | wire.Detach() | wire.Resume():
                known = self.sessions.get(command.session)
                if known is not None:
                    getattr(self, f"_{type(command).__name__.lower()}")(known, command)

    # --- sessions and attachments

    def _open(self, opening: wire.Open) -> None:
        for known in self.sessions.values():
            if known.nonce == opening.nonce:
                known.epoch += 1
                return
        self.sessions[self.slot] = Session(opening.nonce, {opening.namespace: None})
        self.members[opening.namespace] = self.slot

    def _resume(self, session: Session, resume: wire.Resume) -> None:
        if session.nonce == resume.nonce:
            session.epoch += 1

    def _attach(self, session: Session, attach: wire.Attach) -> None:
        if attach.handle <= session.handle_top:
            return
        session.handle_top = attach.handle
        if attach.namespace not in session.namespaces:
            session.namespaces[attach.namespace] = None
            self.members[attach.namespace] = self.slot
        key = (attach.namespace, attach.name)
        found = self.objects.get(key)
        if found is None and not attach.create:
            session.handles[attach.handle] = "gone"
            return
        if found is None:
            found = self.objects[key] = MODELS[attach.kind](self, key, attach.arguments, attach.lifetime)
            self.touched.add(key)
        elif (found.kind, found.arguments) != (attach.kind, attach.arguments):
            session.handles[attach.handle] = "mismatch"
            return
        found.lifetime = min(found.lifetime, attach.lifetime)
        found.attached += 1
        session.handles[attach.handle] = found

    def _detach(self, session: Session, detach: wire.Detach) -> None:
        session.handle_top = max(session.handle_top, detach.handle)
        meant = session.handles.pop(detach.handle, None)
        if isinstance(meant, Model):
            meant.attached -= 1

    def meant(self, session: int, handle: int) -> Model:
        """The object of that handle."""
        found = self.sessions[session].handles.get(handle, "protocol")
        if isinstance(found, str):
            raise Raises(found)
        self.touched.add(found.key)
        if found.gone:
            raise Raises("gone")
        return found

    def has(self, session: int, model: Model) -> None:
        """That session has something there, which its end will concern."""
        self.sessions[session].has.setdefault(model)
        self.touched.add(model.key)

    def has_not(self, session: int, model: Model) -> None:
        """It has nothing there any more."""
        if session in self.sessions:
            self.sessions[session].has.pop(model, None)
        self.touched.add(model.key)

    def _end(self, ended: int) -> None:
        session = self.sessions[ended]
        stood = []
        for waiting in session.waits.values():
            line = waiting.line
            waiting.leave()
            stood.append((waiting, line))
            self.touched.add(waiting.owner.key)
        session.waits.clear()
        self.seen += ["session ended while it waited"] * bool(stood) + ["session ended while it held"] * bool(
            session.has
        )
        for waiting, line in stood:
            waiting.owner.left(waiting, line)  # type: ignore[arg-type]
        for model in list(session.has):
            self.touched.add(model.key)
            model.ended(ended)
        for meant in session.handles.values():
            if isinstance(meant, Model):
                meant.attached -= 1
        del self.sessions[ended]
        self.ended.append(ended)

    def _reset(self, namespace: str) -> None:
        for key, model in list(self.objects.items()):
            if key[0] == namespace and model.lifetime == Lifetime.AUTOMATIC:
                self.seen.append("automatic object put back")
                self._drop(model)

    def _delete(self, doomed: Model) -> None:
        """Whoever waits at it, or waits for it elsewhere, is told; and whoever waits for them goes on."""
        doomed.gone = True
        stood = [
            (waiting, waiting.line)
            for session in self.sessions.values()
            for waiting in session.waits.values()
            if waiting.owner is doomed or any(waiting.line is line for line in doomed.lines)
        ]
        for waiting, _ in stood:
            waiting.leave()
            waiting.owner.refused(waiting, "gone")
        self.seen += ["deleted"] + ["deleted while somebody waited"] * bool(stood)
        for waiting, line in stood:
            waiting.owner.left(waiting, line)  # type: ignore[arg-type]
        self._drop(doomed)

    def _drop_unused(self) -> None:
        unused = [one for one in self.objects.values() if not one.attached and not one.kept()]
        for model in unused:
            if model.initial() or model.lifetime == Lifetime.PRIVATE:
                self._drop(model)

    def _drop(self, model: Model) -> None:
        for session in self.sessions.values():
            session.has.pop(model, None)
            for lane in session.lanes.values():
                lane.handed_by = lane.handed_by if lane.handed_by is not model else None
        del self.objects[model.key]
        self.touched.add(model.key)

    # --- calls

    def _call(self, session: Session, call: wire.Call) -> None:
        known = session.lanes.get(call.lane)
        if known is not None and call.number <= known.number:
            self.seen.append("copy of a call")
            target = session.handles.get(call.handle)
            if isinstance(target, Model):
                self.touched.add(target.key)
            if call.number == known.number:
                self._again(call.session, call.lane, known)
            return
        lane = self._next(call.session, session, call.lane, call.number)
        lane.operation = call.operation
        caller = Caller(call.session, call.lane, call.number, call.operation)
        try:
            model = self.meant(call.session, call.handle)
            answer = model.call(caller, call.arguments)
        except Raises as error:
            self._answer(caller, lane, 1, error.code)
            return
        if answer is WAITS:
            if call.tell and lane.waiting is not None:
                self.said.append((call.session, call.lane, call.number, int(Status.PARKED), None))
            return
        self._answer(caller, lane, 0, answer)
        if call.operation in model.undoable or call.operation in model.followed:
            lane.handed_by = model

    def _next(self, id: int, session: Session, index: int, number: int) -> Lane:
        """The lane has a new call; so whoever waited there has gone, and what was answered there has arrived."""
        known = session.lanes.get(index)
        if known is not None and known.waiting is not None:
            self._gone(session, index, known)
        elif known is not None:
            self._heard(id, index, known)
        lane = session.lanes[index] = Lane(number)
        return lane

    def _again(self, session: int, index: int, lane: Lane) -> None:
        if lane.answer is not None:
            self.seen.append("answered from the lane")
            self.said.append((session, index, lane.number, *lane.answer))
        elif lane.waiting is not None:
            self.said.append((session, index, lane.number, int(Status.PARKED), None))

    def _gone(self, session: Session, index: int, lane: Lane) -> None:
        waiting = lane.waiting
        assert waiting is not None
        line = waiting.line
        assert line is not None
        self.touched.add(waiting.owner.key)
        waiting.leave()
        lane.waiting = None
        del session.waits[index]
        waiting.owner.left(waiting, line)

    def _heard(self, session: int, index: int, lane: Lane) -> None:
        model, lane.handed_by = lane.handed_by, None
        if model is not None:
            self.touched.add(model.key)
            model.heard(Caller(session, index, lane.number, lane.operation))

    def _acknowledge(self, session: Session, acknowledge: wire.Acknowledge) -> None:
        for index, number in acknowledge.answers:
            lane = session.lanes.get(index)
            if lane is not None and lane.number == number and lane.waiting is None:
                self._heard(acknowledge.session, index, lane)
                lane.answer = None

    def _withdraw(self, session: Session, withdraw: wire.Withdraw) -> None:
        id, index, number, undo = withdraw
        lane = session.lanes.get(index)
        if lane is None or number > lane.number:
            self.seen.append("withdrawn before it was seen")
            lane = self._next(id, session, index, number)
        elif number < lane.number:
            return
        elif lane.waiting is not None and not undo:
            self.seen.append("withdrawn while it waited")
            self.touched.add(lane.waiting.owner.key)
            lane.waiting.owner.timed_out(lane.waiting)
            return
        elif lane.waiting is not None:
            self.seen.append("given up while it waited")
            self._gone(session, index, lane)
        else:
            handed_by, answer = lane.handed_by, lane.answer
            can_undo = handed_by is not None and lane.operation in handed_by.undoable
            gave = answer is not None and answer[0] == 0 and answer[1] is not None and answer[1] is not False
            # A grant is never said again to whoever undoes it: it would be taken for one that was on its way.
            if not undo or (answer is not None and not can_undo and (handed_by is not None or not gave)):
                self.seen.append("withdrawn after it was granted")
                self._again(id, index, lane)
                return
            if handed_by is not None and answer is not None:
                self.seen.append("given back after it was granted")
                self.touched.add(handed_by.key)
                handed_by.taken_back(Caller(id, index, number, lane.operation), answer[1])
        lane.handed_by = None
        lane.answer = (1, WITHDRAWN)
        self.said.append((id, index, number, 1, WITHDRAWN))

    def waits(self, waiting: Waiting) -> None:
        """That call waits from now on."""
        session = self.sessions[waiting.caller.session]
        waiting.reign = self.in_force
        session.waits[waiting.caller.lane] = waiting
        session.lanes[waiting.caller.lane].waiting = waiting

    def settle(self, waiting: Waiting, status: int, value: Any) -> None:
        """It waits no more."""
        caller, model = waiting.caller, waiting.owner
        self.touched.add(model.key)
        if waiting.reign != self.in_force:
            self.seen.append("woken under a later leader")
        session = self.sessions[caller.session]
        lane = session.lanes[caller.lane]
        assert lane.waiting is waiting
        lane.waiting = None
        del session.waits[caller.lane]
        if not status and (caller.operation in model.undoable or caller.operation in model.followed):
            lane.handed_by = model
        self._answer(caller, lane, status, value)

    def _answer(self, caller: Caller, lane: Lane, status: int, value: Any) -> None:
        lane.answer = (status, value)
        self.said.append((caller.session, caller.lane, caller.number, status, value))

    # --- fences

    def pledge(self, lock: Any) -> Pledge:
        """The fence of a grant in this entry."""
        return Pledge(lock)

    def redeem(self, said: Said, value: Any) -> None:
        """An answer had pledges in it, and this is what the group said instead."""
        session, index, _, status, ours = said
        fences = [
            (one, other)
            for one, other in zip(_flat(ours), _flat(value), strict=False)
            if isinstance(one, Pledge) and one.lock.fence is one
        ]
        for pledge, fence in fences:
            assert type(fence) is int
            assert fence > self.fence, f"{pledge.lock.key} is granted with fence {fence}, after {self.fence}"
            pledge.lock.fence = fence
        lane = self.sessions[session].lanes[index]
        if fences and lane.answer is not None and lane.answer[1] is ours:
            lane.answer = (status, value)

    def fences_given(self, fences: list[int]) -> None:
        """All of one entry."""
        assert len(set(fences)) == len(fences), f"one fence for several grants: {fences}"
        self.fence = max([self.fence, *fences])


def _flat(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def has_pledge(value: Any) -> bool:
    """Whether a fence is still to be learnt there."""
    return any(isinstance(one, Pledge) for one in _flat(value))
