# SPDX-License-Identifier: Apache-2.0
"""Calls and their lanes: each number once, copies answered again, what was withdrawn taken back.

The way of a call: session -> lane (new, copy or stale?) -> handle -> object -> operation -> answer, or parked; the
answer of a parked call comes out of some later entry, in the same transition that grants it.
"""

from __future__ import annotations

from dthreading.wire import messages
from dthreading.wire.messages import Call, Ended, Reply, Status, Withdraw
from replicas.machine.sessions import WITHDRAWN, Lane, Session, parked, refused
from replicas.machine.state import State
from replicas.objects.base import PARKED, Caller, Operation, Refused, Replicated
from replicas.objects.registry import GONE
from replicas.objects.waiting import Waiter

__all__ = ["Calls", "find_operation"]


class Calls(State):
    """The commands that speak of calls."""

    # --- calls --------------------------------------------------------------------------------------------------------

    def _call(self, call: Call) -> None:
        session = self.sessions.get(call.session)
        if session is None:
            self._say(call.session, Ended(call.session))
            return
        if self._writer is not None:
            self._writer.save_session(session)
        lane = self._new_number(session, call.lane, call.number)
        if lane is None:
            return
        reply, target, operation = self._run(session, lane, call)
        if reply is not None:
            lane.settle(reply, target, operation)
            self._effects.replies.append((session.id, reply))
        elif call.tell and lane.waiter is not None:
            self._say(session.id, parked(call.lane, call.number))

    def _new_number(self, session: Session, number_of_lane: int, number: int) -> Lane | None:
        """The lane, ready for a call that it has not seen; None when this is a copy, which is answered again."""
        lane = session.lanes.get(number_of_lane)
        if lane is None:
            most = self.limits.lanes_per_session_max
            if len(session.lanes) >= most:
                refusal = Refused("limit", f"a session has at most {most} lanes (lanes_per_session_max)")
                self._say(session.id, refused(number_of_lane, number, refusal))
                return None
            lane = session.lanes[number_of_lane] = Lane(number)
            return lane
        if number <= lane.number:
            if number == lane.number:
                self._repeat(session, number_of_lane, lane)
            return None
        if lane.waiter is not None:
            self._abandon(session, lane.waiter)
        elif lane.subject is not None:
            self._acknowledge_lane(session, number_of_lane, lane)
        lane.number = number
        lane.reply = None
        return lane

    def _repeat(self, session: Session, number_of_lane: int, lane: Lane) -> None:
        """A copy of the lane's call: answered, never dropped. (But for an answer that was acknowledged: it came.)"""
        if lane.reply is not None:
            self._say(session.id, lane.reply)
        elif lane.waiter is not None:
            self._say(session.id, parked(number_of_lane, lane.number))

    def _run(
        self, session: Session, lane: Lane, call: Call
    ) -> tuple[Reply | None, Replicated | None, Operation | None]:
        """The operation's reply, and what it handed out; no reply when it was parked, or answered while it parked."""
        target: Replicated | None = None
        try:
            target = self.attached(session.id, call.handle)
            operation = find_operation(target, call)
            if self._writer is not None:
                self._writer.save_object(target)
            caller = Caller(target, operation, session.id, call.lane, call.number)
            answer = operation.function(target, caller, *call.arguments)
        except Refused as refusal:
            return refused(call.lane, call.number, refusal), None, None
        except MemoryError:
            raise  # not the command's doing: this process ends with it unapplied
        except Exception as error:  # noqa: BLE001 - one poison command must not end all replicas in turn
            assert target is not None
            fault = self._quarantine(target, error)
            return None if lane.reply is not None else refused(call.lane, call.number, fault), None, None
        if answer is PARKED:
            return None, None, None
        reply = Reply(call.lane, call.number, 0, answer)
        return (reply, target, operation) if operation.followed else (reply, None, None)

    def _withdraw(self, withdraw: Withdraw) -> None:
        session = self.sessions.get(withdraw.session)
        if session is None:
            self._say(withdraw.session, Ended(withdraw.session))
            return
        self._touch_session(session)
        lane = session.lanes.get(withdraw.lane)
        if lane is not None and lane.subject is not None and lane.subject.fault is GONE:
            lane.subject = lane.operation = None  # as a restored state has it
        verdict = Reply(withdraw.lane, withdraw.number, int(Status.ERROR), WITHDRAWN)
        if lane is None or withdraw.number > lane.number:
            # It has overtaken its call: the number is consumed, and the call will be a copy when it comes.
            lane = self._new_number(session, withdraw.lane, withdraw.number)
            if lane is None:
                return
        elif withdraw.number < lane.number:
            return
        elif lane.waiter is not None and not withdraw.undo:
            waiter = lane.waiter
            self._touch_around(waiter)
            self._guard(waiter.owner, waiter.owner.withdrawn, waiter)
            self.registry.suspect(waiter.owner)
            return
        elif lane.waiter is not None:
            self._abandon(session, lane.waiter)
        elif not withdraw.undo or lane.stands:
            self._repeat(session, withdraw.lane, lane)  # granted after all, or nothing that could be given back
            return
        elif lane.subject is not None:
            self._undo(session, withdraw.lane, lane)
        lane.settle(verdict)
        self._say(session.id, verdict)

    def _undo(self, session: Session, number_of_lane: int, lane: Lane) -> None:
        subject, operation, reply = lane.subject, lane.operation, lane.reply
        assert subject is not None
        assert operation is not None
        assert reply is not None
        if subject.fault is None:
            self.touch(subject)
            self._guard(subject, subject.undo, operation.name, session.id, number_of_lane, reply.value)
            self.registry.suspect(subject)

    def _abandon(self, session: Session, waiter: Waiter) -> None:
        """Takes a parked call out of everything; whoever made it has gone."""
        self._touch_around(waiter)
        queue = waiter.queue
        assert queue is not None
        waiter.leave()
        del session.waits[waiter.lane]
        session.lanes[waiter.lane].waiter = None
        self._guard(waiter.owner, waiter.owner.abandoned, waiter, queue)
        self.registry.suspect(waiter.owner)
        self.registry.suspect(queue.owner)

    def _acknowledge(self, acknowledge: messages.Acknowledge) -> None:
        session = self.sessions.get(acknowledge.session)
        if session is None:
            self._say(acknowledge.session, Ended(acknowledge.session))
            return
        self._touch_session(session)
        for number_of_lane, number in acknowledge.answers:
            lane = session.lanes.get(number_of_lane)
            if lane is None or lane.number != number or lane.waiter is not None:
                continue
            if lane.subject is not None:
                self._acknowledge_lane(session, number_of_lane, lane)
            lane.reply = None  # it came, so nobody will ask for it: a large item is not kept twice

    def _acknowledge_lane(self, session: Session, number_of_lane: int, lane: Lane) -> None:
        subject = lane.subject
        assert subject is not None
        lane.subject = lane.operation = None
        if subject.fault is None:
            self.touch(subject)
            self._guard(subject, subject.acknowledged, session.id, number_of_lane)
            self.registry.suspect(subject)


def find_operation(target: Replicated, call: Call) -> Operation:
    """The operation that the call names; raises Refused where there is none, or not with these arguments."""
    operation = target.operations.get(call.operation)
    if operation is None:
        raise Refused("type", f"a {target.kind} has no operation {call.operation!r}")
    misfit = operation.misfit(call.arguments)
    if misfit is not None:
        raise Refused("type", misfit)
    return operation
