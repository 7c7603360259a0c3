# SPDX-License-Identifier: Apache-2.0
"""One session with the group, without I/O: it numbers calls, keeps them until they are answered, sends them again after
a reconnect, and knows by the clock it is handed when its lease is in danger (JEOPARDY) and when it is over (LOST).

A call travels on a *lane*, borrowed from the free list for one call; (session, lane, number) names it for ever, so it
can be sent any number of times, to any replica.

Many threads use one session and share no lock, because a call may be made inside any other call of the same thread (a
signal handler, `__del__`), where a lock of ours would be held for ever. So the methods are of two sorts:

- *any thread* (`begin`, `answered`, `finish`, `reclaim`, `holds`): they touch one lane, which is theirs while they
  have it, and containers whose single operations are atomic in C.
- *one thread* (all others): they belong to whoever serves the connection, one at a time.

What both sorts touch is ordered so that no interleaving hurts: a call is published in its lane *before* the way out is
looked up, and the way out is opened *before* the lanes are read for sending again. So a call is sent, perhaps twice.
"""

from __future__ import annotations

import itertools
from collections import deque

from dthreading.session.calls import PendingCall, Target
from dthreading.session.lanes import Lane, Lanes
from dthreading.session.lease import Lease, State
from dthreading.session.unanswered import Unanswered
from dthreading.session.words import ATTACH_TAG, CALL_TAG, check_opened, check_reply, is_sound, word
from dthreading.wire import messages as wire
from dthreading.wire.codec import encode
from dthreading.wire.framing import frame

__all__ = ["ClientSession"]


class ClientSession:
    """The client's half of a session, from before the group has opened it until it is lost or closed.

    Args:
        namespace: where its programs' names live.
        label: says to people who this is.
        ttl_ms: the lease that is asked for.
        news: takes the calls whose waiters should look: settled, or heard to be parked. Whoever wakes them clears it.

    """

    def __init__(self, *, namespace: str, label: str, ttl_ms: int, news: list[PendingCall] | None = None) -> None:
        self.namespace = namespace
        self.label = label
        self.id = 0
        self.state = State.NEW
        self.over = False
        """Invariant: once True, always; nothing begins or is sent, what is pending is or will be settled as lost."""
        self.why_over = ""
        self.handles: dict[Target, int] = {}
        self.news = news if news is not None else []
        self._ttl_ms = ttl_ms
        self._nonce = b""
        self._opening_since = 0.0
        self._lease = Lease(ttl_ms / 1000, 0.0)
        # The way out. Invariant: _ready is _outbox once the group has taken us up on this connection, else None.
        self._outbox: deque[bytes] | None = None
        self._ready: deque[bytes] | None = None
        self._waiting: deque[PendingCall] = deque()
        self._lanes = Lanes()
        self.in_flight, self.lent = self._lanes.in_flight, self._lanes.lent
        self._handle_numbers = itertools.count(1)
        self._unproved: dict[Target, int] = {}
        """Attachments of which no answer has shown yet that they are applied, in the order of their handles."""
        self._unanswered = Unanswered()

    # --- any thread ---

    def begin(self, call: PendingCall) -> bool:
        """Sends `call`, or notes it until the connection is back. False: hand it to `submit`, on the serving thread."""
        handle = self.handles.get(call.target)
        if handle is None or self.over:
            return False
        arguments = call.arguments
        if call.others:
            if any(other not in self.handles for other in call.others):
                return False
            arguments = tuple([self.handles[value] if type(value) is Target else value for value in arguments])
        lane = self._lanes.borrow()
        number = lane.number + 1
        try:
            fields = (CALL_TAG, self.id, lane.index, number, handle, call.operation, arguments, call.tell)
            call.frame = word(fields, sure=True)
        except BaseException:  # Ctrl-C, too: nobody else knows of this lane yet
            self._lanes.free.append(lane)
            raise
        call.session = self
        call.number = lane.number = number
        call.lane, lane.call = lane, call
        # Published: now the serving thread may send it again, or lose it. If it could not, nobody has sent it or will.
        if self.over and not call.sent:
            return False
        ready = self._ready
        if ready is not None:
            call.sent = True
            ready.append(call.frame)
        return True

    def answered(self, call: PendingCall, reply: wire.Reply, now: float) -> bool:
        """The call's own thread has read this: takes it, as `step` does. False: it is for `step`."""
        lane = call.lane
        if lane is None or reply.number != call.number or reply.lane != lane.index or call.settled:
            return False
        if self._unproved and not self._unproved.keys().isdisjoint((call.target, *call.others)):
            return False
        if not self.holds(now) or not is_sound(reply):
            return False
        call.heard(reply, now)
        return True

    def finish(self, call: PendingCall) -> None:
        """The caller has read the answer. The lane is free for the next call, and that is the last thing done here."""
        lane = call.lane
        assert lane is not None
        if call.manner.carries_item or lane.unacknowledged:
            self._unanswered.carried(lane, call.number if call.manner.carries_item else 0)
        call.value = None
        free = self._lanes.free
        # No Ctrl-C can come between these two: signals are looked at after a call and at the beginning of a function.
        call.finished = True
        free.append(lane)

    def reclaim(self, call: PendingCall) -> None:
        """Takes `finish` back, for a caller that was interrupted before it could return the answer, and abandons it."""
        if call.finished and call.lane is not None and self._lanes.take_back(call.lane):
            call.finished = False

    def holds(self, now: float) -> bool:
        """Whether what this session was granted is still its own, by our own clock. False is final."""
        return self.id != 0 and not self.over and self._lease.valid(now)

    # --- one thread: calls ---

    def submit(self, call: PendingCall) -> None:
        """Begins a call that `begin` could not: attaches its objects first, or keeps it until the session is open."""
        if call.abandoned or call.settled:
            return
        if self.over:
            self._lose_call(call)
        elif not self.id:
            self._waiting.append(call)
        else:
            try:
                for target in (call.target, *call.others):
                    self._attach(target)
                begun = self.begin(call)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the caller's to see
                call.error = error
                self._settle(call)
            else:
                assert begun, "attached, and in a session that is not over"

    def withdraw(self, call: PendingCall, code: str = "") -> None:
        """The caller's time is up; it waits for the verdict. A call never sent has one: error `code`; "" is False."""
        if call.settled or call.withdrawn:
            return
        call.withdrawn = True
        lane = call.lane
        if lane is not None and call.sent:
            self._say(wire.Withdraw(self.id, lane.index, call.number, False))
            return
        self.abandon(call)
        call.status, call.value = (wire.Status.ERROR, (code, "", ())) if code else (wire.Status.OK, False)
        self._settle(call)

    def abandon(self, call: PendingCall) -> None:
        """The caller has gone: what the call took or takes is given back. Until the group says that this is done, its
        lane is lent to nobody: a new call there would acknowledge a grant.
        """
        call.abandoned = True
        # Once: a caller that an interrupt strikes while it goes abandons its call again.
        lane, call.lane = call.lane, None
        if lane is None:
            if call in self._waiting:
                self._waiting.remove(call)
        elif lane.call is call and not call.finished:
            self._undo(lane, call)
        elif not call.finished:
            self._lanes.free.append(lane)  # interrupted before it was published

    def refuse(self, error: Exception) -> None:
        """The group will not have us: whoever waits for the session should know, as long as there is none to save."""
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            call.error = error
            self._settle(call)

    def detach(self, target: Target) -> None:
        """No proxy stands for `target` any more."""
        handle = self.handles.pop(target, None)
        if handle is not None:
            if target in self._unproved and not any(target in (call.target, *call.others) for call in self.pending):
                del self._unproved[target]  # else a call that may be said again has to find it attached
            self._say_unanswered(wire.Detach(self.id, handle))

    def _attach(self, target: Target) -> None:
        if target in self.handles:
            return
        handle = next(self._handle_numbers)
        attachment = self._attachment(target, handle)  # without a connection, too: what can't be said fails its caller
        if self._ready is not None:
            self._ready.append(attachment)
        self._unproved[target] = handle
        # Only now may others use it: their calls must come after the attachment.
        self.handles[target] = handle

    def _attachment(self, target: Target, handle: int) -> bytes:
        return word((ATTACH_TAG, self.id, handle, *target.described()), sure=False)

    def _undo(self, lane: Lane, call: PendingCall) -> None:
        lane.unacknowledged = 0
        lane.undo = call
        lane.call = None
        self._say(wire.Withdraw(self.id, lane.index, call.number, True))

    def _settle(self, call: PendingCall) -> None:
        call.settled = True
        if not call.unwaited:
            self.news.append(call)
        elif call.lane is not None:
            self.finish(call)

    def _lose_call(self, call: PendingCall) -> None:
        call.lost = True
        self._settle(call)

    # --- one thread: the connection ---

    def connected(self, outbox: deque[bytes], nonce: bytes, now: float) -> None:
        """A replica has accepted us. What is to be said on this connection goes into `outbox`, framed.

        Args:
            outbox: of this connection alone.
            nonce: fresh random bytes, for when the session has to be opened (anew).
            now: the clock.

        """
        assert not self.over
        self._ready = None
        self._outbox = outbox
        first: wire.Open | wire.Resume = wire.Resume(self.id, self._nonce)
        if not self.id:
            # A session counts its lease from its first Open: one sent too long ago would be born in jeopardy.
            if not self._nonce or now - self._opening_since > self._ttl_ms / 2000:
                self._nonce, self._opening_since = nonce, now
            first = wire.Open(self._nonce, self._ttl_ms, self.namespace, self.label)
        outbox.append(frame(encode(first)))

    def disconnected(self) -> None:
        """The connection is gone; nothing else has changed."""
        self._ready = self._outbox = None

    def close(self) -> None:
        """We are done: the group is told, if it can be; what is pending is lost."""
        self._acknowledge()
        self._say(wire.Close(self.id))
        self._end(State.CLOSED, "this client closed it")

    def close_at_end(self) -> None:
        """From here on the end of the connection is the end of the session: the process is exiting."""
        self._acknowledge()  # or the last item that each thread has taken would go back to its queue
        self._say(wire.CloseAtEnd(self.id))

    def step(self, message: wire.Message, now: float) -> None:
        """A replica's word about this session. Late and repeated ones do nothing, nor do those about other sessions.

        Raises:
            ProtocolError: it means nothing. Nothing was changed by it, and the connection is of no more use.

        """
        if type(message) is wire.Reply and self.holds(now):
            self._replied(message, now)  # time alone changes nothing for it while the lease runs
            return
        self.tick(now)
        if self.over:
            return
        match message:
            case wire.Alive(session=session, beat=beat) if session == self.id:
                if self._lease.acknowledged(beat, now):
                    self.state = State.CONNECTED
                    self._unanswered.acknowledged(beat)
            case wire.Opened(nonce=nonce, session=session, ttl_ms=ttl_ms) if nonce == self._nonce and not self.id:
                check_opened(message)
                self._lease = Lease(ttl_ms / 1000, self._opening_since)
                self.id = session
                self.state = State.CONNECTED
                self._take_up(now)
            case wire.Resumed(session=session) if session == self.id and self._ready is None:
                self._take_up(now)
            case wire.Ended(session=session) if session == self.id:
                self._end(State.LOST, "the group has ended it")

    def tick(self, now: float) -> None:
        """Time has passed. Any time; idempotent."""
        if self.over or not self.id:
            return
        if not self._lease.valid(now):
            self._say(wire.Close(self.id))
            self._end(State.LOST, "no keepalive was acknowledged for a whole lease")
        elif self._lease.in_jeopardy(now):
            self.state = State.JEOPARDY
        if self._ready is not None and now >= self._lease.keepalive_at:
            self._keepalive(now)

    def next_at(self, now: float) -> float:
        """When `tick` is due."""
        return float("inf") if self.over or not self.id else self._lease.next_at(now, sending=self._ready is not None)

    @property
    def ready(self) -> bool:
        """Whether the group has taken this session up on the present connection."""
        return self._ready is not None

    @property
    def pending(self) -> list[PendingCall]:
        """The calls that wait for an answer."""
        return [*self._waiting, *(call for lane in self._lanes.all() if (call := lane.pending) is not None)]

    def _take_up(self, now: float) -> None:
        """The group knows us on this connection: all that may have been lost with the former one is said again."""
        outbox = self._outbox
        if outbox is None:
            return
        for target, handle in self._unproved.items():
            outbox.append(self._attachment(target, handle))
        # Opened before the lanes are read: a call published after that finds the way out by itself.
        self._ready = outbox
        for lane in self._lanes.undos_first():
            self._say_again(lane)
        outbox.extend(self._unanswered.again(self._lease.beat))
        self._keepalive(now)
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            self.submit(call)

    def _say_again(self, lane: Lane) -> None:
        if lane.undo is not None:
            self._say(wire.Withdraw(self.id, lane.index, lane.undo.number, True))
        call = lane.pending
        if call is None:
            return
        assert self._ready is not None
        call.sent = True
        self._ready.append(call.frame)
        if call.withdrawn:
            # After its call, never instead of it: a Condition.wait that was not seen has not given up the lock.
            self._say(wire.Withdraw(self.id, lane.index, call.number, False))

    def _replied(self, reply: wire.Reply, now: float) -> None:
        lane = self._lanes.get(reply.lane)
        if lane is None:
            return
        if lane.undo is not None:
            if lane.undo.undone_by(reply):
                lane.undo = None
                self._lanes.free.append(lane)
            return
        call = lane.pending
        if call is None or call.number != reply.number:
            return
        check_reply(reply)
        if self._unproved:
            for target in (call.target, *call.others):
                self._unproved.pop(target, None)
        heard_before = call.parked_at is not None
        call.heard(reply, now)
        if call.settled:
            self._settle(call)
        elif call.tell and not heard_before:
            self.news.append(call)

    def _acknowledge(self) -> None:
        if answers := self._unanswered.acknowledgements():
            self._say_unanswered(wire.Acknowledge(self.id, answers))

    def _keepalive(self, now: float) -> None:
        self._acknowledge()
        self._say(wire.Keepalive(self.id, self._lease.next_beat(now)))

    def _end(self, state: State, why: str) -> None:
        self.over = True
        self.state = state
        self.why_over = why
        self.disconnected()
        for call in self.pending:
            self._lose_call(call)
        self._waiting.clear()

    def _say(self, message: wire.ToReplica) -> None:
        if self._ready is not None:
            self._ready.append(frame(encode(message)))

    def _say_unanswered(self, message: wire.ToReplica) -> None:
        self._unanswered.keep(frame(encode(message)), self._lease.beat)
        self._say(message)
