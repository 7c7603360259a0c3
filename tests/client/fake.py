# SPDX-License-Identifier: Apache-2.0
"""A replica that is no replica: one thread, real sockets, locks and queues simple enough to be right at a glance.

It speaks the whole protocol to any number of clients, remembers each lane's answer as a replica does, and does on
demand what a test needs: swallow answers, cut connections, fall silent, send its clients on.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dthreading.wire.auth import Acceptor
from dthreading.wire.codec import decode, encode
from dthreading.wire.framing import FrameDecoder, frame
from dthreading.wire.messages import (
    Acknowledge,
    Alive,
    Attach,
    Call,
    Challenge,
    Close,
    CloseAtEnd,
    Detach,
    Ended,
    Keepalive,
    Leader,
    MoveOn,
    Open,
    Opened,
    Reply,
    Resume,
    Resumed,
    Status,
    Welcome,
    Withdraw,
)

SECRET = bytes(32)


@dataclass
class Session:
    """What the fake knows of one session."""

    id: int
    nonce: bytes
    handles: dict[int, str] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)
    answers: dict[int, Reply] = field(default_factory=dict)
    close_at_end: bool = False


@dataclass
class Thing:
    """A lock and a queue in one."""

    holder: tuple[int, int, int] | None = None
    waiting: deque[tuple[int, int, int]] = field(default_factory=deque)
    items: deque[Any] = field(default_factory=deque)
    fence: int = 0


class State:
    """Shared by all fakes of one group, as the log makes it for replicas."""

    def __init__(self) -> None:
        self.sessions: dict[int, Session] = {}
        self.things: dict[str, Thing] = {}
        self.heard: list[Any] = []
        """All that clients said, in order, over all fakes."""
        self.applied: list[Call] = []
        """Calls that were done, each once."""
        self.cluster = "fake"
        self.next_session = 100

    def lock(self, name: str) -> Thing:
        return self.things.setdefault(name, Thing())

    def end(self, session: int) -> list[Reply]:
        """The session is over; what it held passes on."""
        self.sessions.pop(session, None)
        replies = []
        for thing in self.things.values():
            thing.waiting = deque(waiter for waiter in thing.waiting if waiter[0] != session)
            if thing.holder is not None and thing.holder[0] == session:
                replies += self.hand_over(thing)
        return replies

    def hand_over(self, thing: Thing) -> list[Any]:
        thing.holder = None
        if not thing.waiting:
            return []
        thing.fence += 1
        thing.holder = thing.waiting.popleft()
        session, lane, number = thing.holder
        reply = Reply(lane, number, Status.OK, thing.fence)
        self.sessions[session].answers[lane] = reply
        return [(session, reply)]


class Fake:
    """One server on a port of its own."""

    def __init__(self, state: State | None = None, path: str | None = None) -> None:
        self.state = state or State()
        self.silent = False
        """Reads and applies, and says nothing."""
        self.deaf = False
        """Does not even read."""
        self.mute_keepalives = False
        self.on_call: Callable[[Call], bool] | None = None
        """Asked before a call is applied: True swallows it."""
        self.leader = ""
        self.connections = 0
        if path is None:
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        else:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
            self.listener.listen()
            self.address = f"unix:{path}"
        self.secret = None if path else SECRET
        self._peers: dict[int, _Peer] = {}
        self._reading, self._writing = os.pipe()
        self._orders: deque[Callable[[], None]] = deque()
        self._stopping = False
        self.thread = threading.Thread(target=self._run, name="fake", daemon=True)
        self.thread.start()

    # --- for tests

    def order(self, action: Callable[[], Any]) -> Any:
        """Runs `action` in the fake's thread and returns its result."""
        done = threading.Event()
        result: list[Any] = []

        def act() -> None:
            result.append(action())
            done.set()

        self._orders.append(act)
        os.write(self._writing, b"!")
        assert done.wait(10)
        return result[0]

    def cut(self) -> None:
        """Ends all connections."""
        self.order(lambda: [self._gone(peer) for peer in list(self._peers.values())])

    def say(self, message: Any) -> None:
        """To every client."""
        self.order(lambda: [peer.say(message) for peer in self._peers.values()])

    def do(self, action: Callable[[], list[Any]]) -> None:
        """Changes the state as another client would, and answers whom that concerns."""
        self.order(lambda: self._spread(action()))

    def stop(self) -> None:
        self._stopping = True
        os.write(self._writing, b"!")
        self.thread.join(10)
        assert not self.thread.is_alive()
        os.close(self._reading)
        os.close(self._writing)

    # --- the loop

    def _run(self) -> None:
        poll = select.poll()
        while not self._stopping:
            poll = select.poll()
            poll.register(self._reading, select.POLLIN)
            poll.register(self.listener, select.POLLIN)
            if not self.deaf:
                for peer in self._peers.values():
                    poll.register(peer.socket, select.POLLIN)
            for descriptor, _ in poll.poll():
                if descriptor == self._reading:
                    os.read(self._reading, 4096)
                elif descriptor == self.listener.fileno():
                    accepted, _address = self.listener.accept()
                    self._peers[accepted.fileno()] = _Peer(self, accepted)
                    self.connections += 1
                elif descriptor in self._peers:
                    self._serve(self._peers[descriptor])
            while self._orders:
                self._orders.popleft()()
        for peer in list(self._peers.values()):
            peer.socket.close()
        self.listener.close()

    def _serve(self, peer: _Peer) -> None:
        try:
            data = peer.socket.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._gone(peer)
            return
        for body in peer.decoder.feed(data):
            message = decode(body)
            if peer.acceptor is not None:
                answer = peer.acceptor.step(message)
                peer.say(answer if answer is not None else Welcome(self.state.cluster, 1, self.leader, ()))
                if answer is None:
                    peer.acceptor = None
                elif not isinstance(answer, Challenge):
                    self._gone(peer)
            else:
                self.state.heard.append(message)
                self._step(peer, message)

    def _gone(self, peer: _Peer) -> None:
        self._peers.pop(peer.socket.fileno(), None)
        peer.socket.close()
        session = self.state.sessions.get(peer.session)
        if session is not None and session.close_at_end:
            self._spread(self.state.end(session.id))

    def _spread(self, replies: list[Any]) -> None:
        for session, reply in replies:
            for peer in self._peers.values():
                if peer.session == session:
                    peer.say(reply)

    def _step(self, peer: _Peer, message: Any) -> None:
        state = self.state
        match message:
            case Open(nonce=nonce, ttl_ms=ttl_ms):
                session = next((one for one in state.sessions.values() if one.nonce == nonce), None)
                if session is None:
                    state.next_session += 1
                    session = state.sessions[state.next_session] = Session(state.next_session, nonce)
                peer.session = session.id
                peer.say(Opened(nonce, session.id, ttl_ms))
            case Resume(session=number):
                peer.session = number
                peer.say(Resumed(number) if number in state.sessions else Ended(number))
            case _ if message.session not in state.sessions:
                peer.say(Ended(message.session))
            case Keepalive(session=number, beat=beat):
                if not self.mute_keepalives:
                    peer.say(Alive(number, beat))
            case Attach(session=number, handle=handle, name=name):
                state.sessions[number].handles.setdefault(handle, name)
            case Detach(session=number, handle=handle):
                state.sessions[number].handles.pop(handle, None)
            case Close(session=number):
                self._spread(state.end(number))
                peer.say(Ended(number))
            case CloseAtEnd(session=number):
                state.sessions[number].close_at_end = True
            case Call():
                self._call(peer, message)
            case Withdraw():
                self._withdraw(peer, message)
            case Acknowledge():
                pass

    def _call(self, peer: _Peer, call: Call) -> None:
        session = self.state.sessions[call.session]
        if call.number < session.numbers.get(call.lane, 0):
            return
        if call.number == session.numbers.get(call.lane):
            answer = session.answers.get(call.lane)
            peer.say(answer if answer is not None else Reply(call.lane, call.number, Status.PARKED, None))
            return
        if self.on_call is not None and self.on_call(call):
            return
        session.numbers[call.lane] = call.number
        session.answers.pop(call.lane, None)
        self.state.applied.append(call)
        name = session.handles.get(call.handle)
        if name is None:
            self._answer(peer, call, Status.ERROR, ("gone", "no such handle", ()))
            return
        self._operate(peer, call, self.state.lock(name), (call.session, call.lane, call.number))

    def _operate(self, peer: _Peer, call: Call, thing: Thing, caller: tuple[int, int, int]) -> None:
        match call.operation, call.arguments:
            case "acquire", (True, *_) if thing.holder is not None:
                thing.waiting.append(caller)
                if call.tell:
                    peer.say(Reply(call.lane, call.number, Status.PARKED, None))
            case "acquire", _ if thing.holder is not None:
                self._answer(peer, call, Status.OK, False)
            case "acquire", _:
                thing.holder = caller
                thing.fence += 1
                self._answer(peer, call, Status.OK, thing.fence)
            case "release", _ if thing.holder is None:
                self._answer(peer, call, Status.ERROR, ("runtime", "release unlocked lock", ()))
            case "release", _:
                replies = self.state.hand_over(thing)
                self._answer(peer, call, Status.OK, None)
                self._spread(replies)
            case "put", (item,):
                thing.items.append(item)
                self._answer(peer, call, Status.OK, None)
            case "get", _ if thing.items:
                self._answer(peer, call, Status.OK, thing.items.popleft())
            case "wait", _:
                if call.tell:
                    peer.say(Reply(call.lane, call.number, Status.PARKED, None))
            case _:
                self._answer(peer, call, Status.OK, call.arguments)

    def _answer(self, peer: _Peer, call: Call, status: Status, value: Any) -> None:
        reply = Reply(call.lane, call.number, status, value)
        self.state.sessions[call.session].answers[call.lane] = reply
        peer.say(reply)

    def _withdraw(self, peer: _Peer, withdraw: Withdraw) -> None:
        state = self.state
        session = state.sessions[withdraw.session]
        caller = (withdraw.session, withdraw.lane, withdraw.number)
        replies: list[Any] = []
        for thing in state.things.values():
            if caller in thing.waiting:
                thing.waiting.remove(caller)
            elif thing.holder == caller and withdraw.undo:
                replies = state.hand_over(thing)
            elif thing.holder == caller:
                peer.say(session.answers[withdraw.lane])
                return
        if withdraw.number < session.numbers.get(withdraw.lane, 0):
            return
        session.numbers[withdraw.lane] = withdraw.number
        status, value = (Status.ERROR, ("runtime", "withdrawn", ())) if withdraw.undo else (Status.OK, False)
        reply = session.answers[withdraw.lane] = Reply(withdraw.lane, withdraw.number, status, value)
        peer.say(reply)
        self._spread(replies)


class _Peer:
    """One connection."""

    def __init__(self, fake: Fake, accepted: socket.socket) -> None:
        self.fake = fake
        self.socket = accepted
        self.decoder = FrameDecoder()
        self.acceptor: Acceptor | None = Acceptor(fake.secret, os.urandom(16))
        self.session = 0

    def say(self, message: Any) -> None:
        if not self.fake.silent:
            with contextlib.suppress(OSError):
                self.socket.sendall(frame(encode(message)))


__all__ = ["SECRET", "Fake", "Leader", "MoveOn", "State"]
