# SPDX-License-Identifier: Apache-2.0
"""What a copy of the state may be asked: any command that a client or a leader could say next, drawn from what the
state holds, so that it meets what is there. Late, double and stale ones above all.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from dthreading.wire import messages as wire
from replicas.machine import commands
from replicas.paxos.values import Ballot
from tests.sim.checkers.lock_models import Condition, Lock
from tests.sim.checkers.models import Model
from tests.sim.checkers.queue_models import SimpleQueue
from tests.sim.checkers.reference import Reference, Session
from tests.sim.checkers.signal_models import Barrier, Semaphore

__all__ = ["Questions"]


class Questions:
    """Draws from one state."""

    def __init__(self, reference: Reference, luck: random.Random) -> None:
        self._reference = reference
        self._luck = luck
        self._takers = random.Random(0)
        self._kinds: dict[Callable[[int, Session], Any], float] = {
            self._calls: 10.0,
            self._withdraws: 4.0,
            self._acknowledges: 3.0,
            self._expires: 1.5,
            self._detaches: 1.0,
            self._resumes: 1.0,
            self._opens: 0.3,
            self._closes: 0.3,
            self._resets: 1.0,
            self._leads: 0.7,
        }

    def draw(self) -> Any:
        """A command, or a ballot that leads from now on; None where nothing fits."""
        sessions, luck = self._reference.sessions, self._luck
        if not sessions:
            return None
        busy = [id for id, session in sessions.items() if session.has or session.waits]
        session = luck.choice(busy if busy and luck.random() < 0.7 else [*sessions])
        (kind,) = luck.choices([*self._kinds], [*self._kinds.values()])
        return kind(session, sessions[session])

    # --- of clients

    def _lane(self, session: Session) -> tuple[int, int]:
        """One of its lanes, with the number of the lane's latest call; rather one in which something is open."""
        open_ones = [index for index, lane in session.lanes.items() if lane.waiting or lane.handed_by]
        some = open_ones if open_ones and self._luck.random() < 0.7 else [*session.lanes]
        index = self._luck.choice(some) if some else 0
        return index, session.lanes[index].number if some else 0

    def _about(self, number: int) -> int:
        """That number, or one of an earlier or a later call."""
        return max(0, number + self._luck.choice((0, 0, 0, -1, -1, 1)))

    def _withdraws(self, id: int, session: Session) -> Any:
        index, number = self._lane(session)
        return wire.Withdraw(id, index, self._about(number), self._luck.random() < 0.6)

    def _acknowledges(self, id: int, session: Session) -> Any:
        lanes = [self._lane(session) for _ in range(self._luck.choice((1, 1, 2)))]
        return wire.Acknowledge(id, tuple((index, self._about(number)) for index, number in lanes))

    def _detaches(self, id: int, session: Session) -> Any:
        return wire.Detach(id, self._luck.choice([*session.handles] or [1]))

    def _resumes(self, id: int, session: Session) -> Any:
        return wire.Resume(id, session.nonce if self._luck.random() < 0.8 else b"another")

    def _opens(self, id: int, session: Session) -> Any:
        return wire.Open(session.nonce, 2_000, self._luck.choice([*session.namespaces]), "")

    def _closes(self, id: int, session: Session) -> Any:
        return wire.Close(id)

    # --- of leaders

    def _ballot(self) -> tuple[int, int]:
        """The one in force, or one that was, or never will be."""
        round, replica = self._reference.in_force
        return max(0, round + self._luck.choice((0, 0, 0, 0, -1, 1))), replica

    def _expires(self, id: int, session: Session) -> Any:
        return commands.Expire(id, max(0, session.epoch + self._luck.choice((0, 0, 0, -1, 1))), *self._ballot())

    def _resets(self, id: int, session: Session) -> Any:
        namespace, epoch = self._luck.choice([*self._reference.members.items()])
        return commands.Reset(namespace, max(0, epoch + self._luck.choice((0, 0, 0, -1, 1))), *self._ballot())

    def _leads(self, id: int, session: Session) -> Any:
        return Ballot(*self._ballot())

    # --- calls

    def _calls(self, id: int, session: Session) -> Any:
        handles = {handle: meant for handle, meant in session.handles.items() if isinstance(meant, Model)}
        if not handles or self._luck.random() < 0.15:
            return self._attaches(id, session)
        luck = self._luck
        handle = luck.choice([*handles])
        model = handles[handle]
        if luck.random() < 0.5:
            free = [index for index, lane in session.lanes.items() if lane.waiting is None]
            index = luck.choice(free) if free else 200
        else:
            index = luck.choice([*session.lanes, 200, 201])
        known = session.lanes.get(index)
        number = (known.number if known is not None else 0) + luck.choice((1, 1, 1, 1, 2, 0))
        if luck.random() < 0.05 and model.reads:
            operation, arguments = luck.choice(model.reads), ()
        else:
            asked = self._operation(model, session)
            if asked is None:
                return self._attaches(id, session)
            operation, arguments = asked
        return wire.Call(id, index, max(number, 1), handle, operation, arguments, luck.random() < 0.5)

    def _attaches(self, id: int, session: Session) -> Any:
        """To something that is there."""
        luck, objects = self._luck, self._reference.objects
        if not objects:
            return None
        model = luck.choice([*objects.values()])
        handle = session.handle_top + luck.choice((1, 1, 1, 2, 0))
        return wire.Attach(id, handle, *model.key, model.kind, model.arguments, model.lifetime, luck.random() < 0.7)

    def _thread(self, model: Model, session: Session) -> int:
        """One that has to do with this object, mostly."""
        luck = self._luck
        threads = [waiting.thread for line in model.lines for waiting in line]
        if isinstance(model, Lock) and model.holder is not None:
            threads += [model.holder[1]] * 3
        if isinstance(model, SimpleQueue):
            threads += [handed.thread for handed in model.handed]
        return luck.choice(threads) if threads and luck.random() < 0.8 else luck.randint(1, 9)

    def _fence(self, lock: Lock) -> int | None:
        """That of the hold, or of another one, or none."""
        luck = self._luck
        return luck.choice((lock.fence, lock.fence, lock.fence, None, luck.randint(0, self._reference.fence + 1)))

    def _operation(self, model: Model, session: Session) -> tuple[str, tuple[Any, ...]] | None:
        luck, thread = self._luck, self._thread(model, session)
        waits = luck.random() < 0.6
        match model:
            case Condition():
                return self._of_condition(model, session, waits)
            case Lock():
                return luck.choice(self._of_lock(model, thread, waits))
            case Semaphore():
                release = ("release", (luck.choice((1, 1, 2, 3)), *self._taker()))
                return luck.choice((("acquire", (waits, thread)), release))
            case Barrier():
                late = luck.choice((("action_done", (waits,)), ("abort", ()), ("reset", ())))
                return ("wait", (luck.random() < 0.3, thread)) if luck.random() < 0.6 else late
            case SimpleQueue():
                return luck.choice(self._of_queue(model, thread, waits))
            case _:
                return luck.choice((("set", ()), ("clear", ()), ("wait", (thread,))))

    def _taker(self) -> tuple[int, ...]:
        """The session in which it was taken: its own, another's, none, or one that is over or never was."""
        luck = self._takers
        return () if luck.random() < 0.5 else (luck.choice((0, 1 << 40, *self._reference.sessions)),)

    def _of_lock(self, lock: Lock, thread: int, waits: bool) -> list[tuple[str, tuple[Any, ...]]]:
        fence = self._fence(lock)
        if lock.kind == "Lock":
            return [("acquire", (waits, thread)), ("release", (fence,))]
        depth = self._luck.randint(1, 3)
        saves = [("release_save", (thread, fence)), ("acquire_restore", (thread, depth))]
        return [("acquire", (waits, thread)), ("release", (fence, thread)), *saves]

    def _of_condition(self, condition: Condition, session: Session, waits: bool) -> tuple[str, tuple[Any, ...]] | None:
        namespace, name, _ = condition.arguments
        lock = self._reference.objects.get((namespace, name))
        handles = [handle for handle, meant in session.handles.items() if meant is lock]
        if not isinstance(lock, Lock) or not handles:
            return None
        thread, fence = self._thread(lock, session), self._fence(lock)
        if waits:
            return "wait", (handles[0], thread, fence)
        return "notify", (handles[0], thread, self._luck.choice((1, 1, 2, -1, 0)), fence)

    def _of_queue(self, queue: SimpleQueue, thread: int, waits: bool) -> list[tuple[str, tuple[Any, ...]]]:
        luck = self._luck
        priority = luck.randrange(4) if queue.kind == "PriorityQueue" else None
        item = b"probe %d" % luck.getrandbits(16)
        asked: list[tuple[str, tuple[Any, ...]]] = [("put", (waits and queue.counts, item, priority, thread))] * 3
        asked += [("get", (waits, thread))] * 3
        if queue.counts:
            asked += [("task_done", (thread, *self._taker()))] * 2 + [("join", (thread,)), ("shutdown", (waits,))]
            asked.append(("set_maxsize", (luck.choice((0, 1, 2, 5)),)))
        return asked
