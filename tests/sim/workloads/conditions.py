# SPDX-License-Identifier: Apache-2.0
"""Threads that meet under Conditions: whoever returns from wait holds the lock, alone, and no notification is lost.

The users' programs notify first and change what they share after that, both under the lock. So one that is lost in
between has woken somebody in vain, and nobody waits for ever.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable

from dthreading.session import calls
from tests.sim.client import Ask, Outcome, SimulatedClient, Sleep, Thread
from tests.sim.workloads.base import Inside, Scene, Workload, lives, target

MORE_TURNS = 6
"""So often the game goes on in peace, by notifications alone: one that was lost before would end it."""


class Room:
    """One thread's view of a lock and of the conditions over it."""

    def __init__(self, workload: Workload, client: SimulatedClient, kind: str, *conditions: str) -> None:
        name = f"{type(workload).__name__} {workload.name}"
        self.client = client
        self.number = workload.scene.thread_number()
        self.lock = target(kind, f"{name} lock")
        self.conditions = {
            condition: target("Condition", f"{name} {condition}", "simulated", f"{name} lock", kind)
            for condition in conditions
        }
        self.held: Outcome | None = None
        self.fence = 0
        self._patience = None if workload.scene.whole else 3.0
        self._saw = workload.scene.saw

    def enter(self, timeout: float | None = None) -> Generator[Ask, Outcome, bool]:
        """Take the lock."""
        outcome = yield Ask(self.lock, "acquire", (True, self.number), calls.ACQUIRE, timeout)
        if outcome.how != "ok" or outcome.value is False:
            return False
        self.fence = outcome.value if self.lock.kind == "Lock" else outcome.value[0]
        self.held = outcome
        return True

    @property
    def holds(self) -> bool:
        """Whether the lock is still ours."""
        return self.held is not None and lives(self.client, self.held)

    def wait(self, condition: str, timeout: float | None = None) -> Generator[Ask, Outcome, bool]:
        """Give the lock up, and have it again; False: it is lost."""
        arguments = (self.lock, self.number, self.fence)
        patience = timeout if timeout is not None else self._patience
        asked = Ask(self.conditions[condition], "wait", arguments, calls.WAIT_CONDITION, patience, (self.lock,))
        outcome = yield asked
        if outcome.how == "interrupted" and outcome.value is None:
            return self.holds  # it never began to wait, or the session is lost
        self.held = None
        if outcome.how not in {"ok", "interrupted"} or not outcome.value:
            self._saw("condition: the lock was lost in wait", int(outcome.how == "lost"))
            return False
        notified, self.fence = outcome.value
        self._saw("condition: notified" if notified else "condition: not notified in time")
        self.held = outcome
        return True

    def notify(self, condition: str, n: int = 1) -> Generator[Ask, Outcome, bool]:
        """Wake the first `n`, or all (-1); whether that is known to have happened, and the lock is still ours."""
        if not self.holds:
            return False
        arguments = (self.lock, self.number, n, self.fence)
        told = yield Ask(self.conditions[condition], "notify", arguments, calls.RELEASE, None, (self.lock,))
        return told.how == "ok" and self.holds

    def leave(self) -> Generator[Ask, Outcome, None]:
        """Give the lock back."""
        if self.holds:
            arguments = (self.fence,) if self.lock.kind == "Lock" else (self.fence, self.number)
            yield Ask(self.lock, "release", arguments, calls.RELEASE)
        self.held = None

    def close(self) -> Generator[Ask, Outcome, None]:
        """Wake everybody, whatever it takes."""
        done = False
        while not done:
            if not (yield from self.enter()):
                continue
            done = True
            for condition in self.conditions:
                done = (yield from self.notify(condition, -1)) and done
            yield from self.leave()


class Meeting(Workload):
    """Lock, wait or notify, unlock: for all the ways in which a wait can end."""

    def __init__(self, name: str, scene: Scene) -> None:
        super().__init__(name, scene)
        self.inside = Inside(f"room {name}")

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        for _ in range(2):
            yield self._user(client, luck, 1.5 * think_s)

    def _user(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Thread:
        room = Room(self, client, "RLock", "meeting")
        me = object()
        while self.scene.busy():
            yield self.scene.thinks(luck, think_s)
            if not (yield from room.enter()):
                continue
            assert room.held is not None
            self.inside.enter(me, client, room.held)
            if luck.random() < 0.6:
                self.inside.leave(me)
                if not (yield from room.wait("meeting", luck.choice((0.05, 0.4, 3.0)))):
                    continue
                self.inside.enter(me, client, room.held)
            else:
                yield from room.notify("meeting", luck.choice((1, 2, -1)))
            self.inside.leave(me)
            yield from room.leave()


class Buffer(Workload):
    """The bounded buffer of every textbook, built by a user from a Lock and two Conditions."""

    room = 3

    def __init__(self, name: str, scene: Scene) -> None:
        super().__init__(name, scene)
        self.made = self.taken = 0
        self.more = MORE_TURNS

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        for makes in (True, False):
            yield self._worker(client, luck, think_s, makes)

    def settled(self) -> bool:
        return not self.more and self.made == self.taken

    def _over(self, makes: bool) -> bool:
        return not self.scene.busy() and not self.more and (makes or self.made == self.taken)

    def _can(self, makes: bool) -> bool:
        return self.made - self.taken < self.room if makes else self.made > self.taken

    def _worker(self, client: SimulatedClient, luck: random.Random, think_s: float, makes: bool) -> Thread:
        room = Room(self, client, "Lock", "not full", "not empty")
        mine, theirs = ("not full", "not empty") if makes else ("not empty", "not full")
        while not self._over(makes):
            yield self.scene.thinks(luck, think_s) if self.scene.busy() else Sleep(0.01)
            if not (yield from room.enter()):
                continue
            while room.holds and not self._can(makes) and not self._over(makes):
                if not (yield from room.wait(mine)):
                    break
            if room.holds and self._can(makes) and (yield from room.notify(theirs)) and not self._over(makes):
                self._commit(makes)
            yield from room.leave()
        yield from room.close()

    def _commit(self, makes: bool) -> None:
        assert self._can(makes), "somebody else was inside"
        if not makes:
            self.taken += 1
            return
        self.made += 1
        if not self.scene.busy():
            self.more -= 1


class PingPong(Workload):
    """Strictly in turns: each turn is one notification of one thread, and without it nobody moves any more."""

    def __init__(self, name: str, scene: Scene) -> None:
        super().__init__(name, scene)
        self.turn = 0
        self.more = MORE_TURNS

    def threads(self, client: SimulatedClient, luck: random.Random, think_s: float) -> Iterable[Thread]:
        for parity in (0, 1):
            yield self._player(client, luck, think_s, parity)

    def settled(self) -> bool:
        return not self.more

    def _player(self, client: SimulatedClient, luck: random.Random, think_s: float, parity: int) -> Thread:
        room = Room(self, client, "RLock", "turn 0", "turn 1")
        over: Callable[[], bool] = lambda: not self.more  # noqa: E731 - it is asked in three places
        while not over():
            yield self.scene.thinks(luck, think_s) if self.scene.busy() else Sleep(0.01)
            if not (yield from room.enter()):
                continue
            while room.holds and self.turn % 2 != parity and not over():
                if not (yield from room.wait(f"turn {parity}")):
                    break
            turn = self.turn
            if room.holds and turn % 2 == parity and (yield from room.notify(f"turn {1 - parity}")):
                assert self.turn == turn, "somebody else was inside"
                self.turn += 1
                if not self.scene.busy() and self.more:
                    self.more -= 1
            yield from room.leave()
        yield from room.close()
