# SPDX-License-Identifier: Apache-2.0
"""What the clients' threads were told of their calls, held against what the log says happened: the outcome table.

Also real time (a call's effect lies between its beginning and its end, reads and failed tries included) and what
threads may believe to hold.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any, NamedTuple

from dthreading.session.calls import OnLost, PendingCall
from dthreading.wire.messages import Status
from tests.sim.checkers.lock_models import Lock
from tests.sim.checkers.models import Model
from tests.sim.checkers.reference import MODELS, Reference, Said
from tests.sim.checkers.signal_models import Semaphore
from tests.sim.kernel import Kernel

if TYPE_CHECKING:
    from dthreading.session.core import ClientSession
    from tests.sim.client import Ask, SimulatedClient

Key = tuple[str, str]
CallName = tuple[int, int, int]

ERRORS = {
    "acquire": frozenset[str](),
    "release": frozenset({"lock_lost", "runtime", "value"}),
    "release_save": frozenset({"lock_lost", "runtime"}),
    "acquire_restore": frozenset({"lock_lost", "runtime"}),
    "wait": frozenset({"lock_lost", "runtime", "broken"}),
    "notify": frozenset({"lock_lost", "runtime"}),
    "put": frozenset({"full", "shutdown"}),
    "get": frozenset({"empty", "shutdown"}),
    "task_done": frozenset({"lock_lost", "value"}),
    "join": frozenset({"tasks_lost"}),
    "action_done": frozenset({"runtime", "broken"}),
}
"""What each operation may raise, beside "gone" where the object is private, and "mismatch" where others use its name.
All else raises nothing."""


SEMAPHORES = frozenset({"Semaphore", "BoundedSemaphore"})


class Decided(NamedTuple):
    """The log's word on one call."""

    slot: int
    status: int
    value: Any


class Belief(NamedTuple):
    """A thread holds something, as far as it knows."""

    client: SimulatedClient
    session: ClientSession
    thread: int
    call: PendingCall


class Told:
    """The client side of all checks."""

    def __init__(self, kernel: Kernel, reference: Reference) -> None:
        self.kernel = kernel
        self.reference = reference
        self.calls: dict[CallName, Decided] = {}
        self.answered: dict[CallName, tuple[int, int]] = {}
        """In which slot the log has answered a call last, and when."""
        self.views: dict[Key, tuple[list[int], list[tuple[Any, ...]]]] = {}
        self.beliefs: dict[Key, list[Belief]] = {}
        self.undone: set[CallName] = set()
        """Whose answer was taken back."""
        self.unreckoned: set[CallName] = set()
        """Whose thread has taken it for never done."""
        self.to_undo: set[CallName] = set()
        """Whose thread has gone, so that what it gives must be given back."""
        self.given_up: list[tuple[SimulatedClient, Ask, PendingCall]] = []
        self._giving: dict[tuple[Key, SimulatedClient], int] = {}
        """How many of a client's threads are giving permits of a semaphore back."""
        self._gave: dict[tuple[Key, SimulatedClient], int] = {}
        """In which slot that was done last."""
        self.told_slot = 0
        """The highest slot whose effect some thread has seen."""
        self.checked = 0

    # --- the log's side

    def decided(self, slot: int, replies: list[Said]) -> None:
        """The witness answers this."""
        for session, lane, number, status, value in replies:
            if status == Status.PARKED:
                continue
            name = (session, lane, number)
            self.answered[name] = slot, self.kernel.now_us
            former = self.calls.get(name)
            if former is None:
                assert name not in self.unreckoned, f"call {name} happens, and its thread does not reckon with that"
                self.calls[name] = Decided(slot, status, value)
            elif (former.status, former.value) != (status, value):
                undone = status == Status.ERROR and value == "runtime"
                assert undone, f"call {name} was answered {former}, and at {slot} {(status, value)}"
                self.undone.add(name)
        for key in self.reference.touched:
            model = self.reference.objects.get(key)
            view = model.view() if model is not None else ()
            slots, seen = self.views.setdefault(key, ([], []))
            if not seen or seen[-1] != view:
                slots.append(slot)
                seen.append(view)

    # --- the threads' side

    def asks(self, client: SimulatedClient, ask: Ask) -> int:
        """A call begins; returns what has been seen by then, for `hears`."""
        key = (ask.target.namespace, ask.target.name)
        beliefs = self.beliefs.get(key)
        if ask.operation == "release" and ask.target.kind in SEMAPHORES:
            self._giving[key, client] = self._giving.get((key, client), 0) + 1
        if ask.operation in {"release", "release_save"} and beliefs:
            self._gives_back(key, client, ask)
        elif ask.operation == "wait" and ask.others:
            lock = ask.others[0]
            self._forget((lock.namespace, lock.name), client, ask.arguments[1])
        return self.told_slot

    def hears(self, client: SimulatedClient, ask: Ask, call: PendingCall, since: int) -> bool:
        """The call has ended as `call` says; whether the log has decided so."""
        self.checked += 1
        session = call.session
        key = (ask.target.namespace, ask.target.name)
        if ask.operation == "release" and ask.target.kind in SEMAPHORES:
            self._giving[key, client] -= 1
        if call.lost:
            self._lost(ask, call)
        elif call.error is not None:
            raise call.error
        elif session is None or call.lane is None:
            self._never_sent(ask, call)
        else:
            return self._answered(client, ask, call, session, since)
        return False

    def abandons(self, client: SimulatedClient, ask: Ask, call: PendingCall) -> None:
        """The thread was interrupted; what the call gave, or gives yet, is given back."""
        if ask.manner.hands_out and call.sent:
            self.given_up.append((client, ask, call))
            if call.session is not None and call.lane is not None:
                self.to_undo.add((call.session.id, call.lane.index, call.number))
        key = (ask.target.namespace, ask.target.name)
        self.beliefs[key] = [belief for belief in self.beliefs.get(key, []) if belief.call is not call]

    def stands(self, name: CallName) -> bool:
        """Whether something is left, or may still come, of a call whose thread has gone."""
        decided = self.calls.get(name)
        nothing = decided is not None and (decided.status == Status.ERROR or decided.value is False)
        return name in self.to_undo and name not in self.undone and not nothing

    def _lost(self, ask: Ask, call: PendingCall) -> None:
        session = call.session
        assert session is None or session.over, "lost, in a session that lives"
        what = ask.manner.on_lost.name.lower()
        decided = self.calls.get((session.id, call.lane.index, call.number)) if session and call.lane else None
        happened = "had happened" if decided is not None else "had not happened"
        self.kernel.seen[f"lost, {what}, and it {happened}"] += 1

    def takes_for_undone(self, ask: Ask, call: PendingCall) -> None:
        """Its session was lost, and the thread asks again, or goes on as if nothing had been: so nothing has, nor will,
        unless the end of the session takes it back.
        """
        if ask.manner.on_lost is not OnLost.RETRY and call.session is not None and call.lane is not None:
            name = (call.session.id, call.lane.index, call.number)
            assert name not in self.calls, f"{ask} has happened, and its thread does not reckon with that"
            self.unreckoned.add(name)

    def _never_sent(self, ask: Ask, call: PendingCall) -> None:
        """Only time can have ended it; nobody else has heard of it."""
        assert call.withdrawn, ask
        expected = (Status.ERROR, ask.manner.expired) if ask.manner.expired else (Status.OK, False)
        told = (call.status, call.value[0] if call.status == Status.ERROR else call.value)
        assert told == expected, (ask, told)
        self.kernel.seen["timed out before it was sent"] += 1

    def _answered(
        self, client: SimulatedClient, ask: Ask, call: PendingCall, session: ClientSession, since: int
    ) -> bool:
        assert call.lane is not None
        value = call.value[0] if call.status == Status.ERROR else call.value
        name = (session.id, call.lane.index, call.number)
        decided = self.calls.get(name)
        if decided is None or (ask.operation in MODELS[ask.target.kind].reads and call.status != Status.ERROR):
            self._read(ask, value, since)
            return False
        assert (decided.status, decided.value) == (int(call.status), value), f"{name} {ask}: {decided}, told {value}"
        assert decided.slot > since, f"{name} {ask} began after slot {since} was seen, and is {decided.slot}"
        self.told_slot = max(self.told_slot, decided.slot)
        self._count(ask, call, value)
        if call.status == Status.ERROR:
            allowed = ERRORS.get(ask.operation, frozenset())
            timed_out = call.withdrawn and value in {ask.manner.expired, "runtime"}
            assert value in allowed or value in {"gone", "mismatch"} or timed_out, f"{ask} raised {value}"
        elif ask.operation in {"acquire", "acquire_restore"} and value is not False:
            if not self._is_given_away(client, ask, decided.slot):
                self._believes(client, session, ask, call)
        elif ask.operation == "release":
            self._gave[(ask.target.namespace, ask.target.name), client] = decided.slot
        elif ask.operation == "wait" and ask.others:
            lock = ask.others[0]
            self._believe((lock.namespace, lock.name), Belief(client, session, ask.arguments[1], call))
        return True

    def _read(self, ask: Ask, value: Any, since: int) -> None:
        """It was answered without the log: by a state that was current at some moment of the call."""
        model = MODELS[ask.target.kind]
        assert ask.operation in model.reads, f"{ask} was answered, and is not in the log"
        place = model.reads.index(ask.operation)
        slots, views = self.views.get((ask.target.namespace, ask.target.name), ([], []))
        first = max(0, bisect_right(slots, since) - 1)
        current = [view[place] for view in views[first:] if view]
        assert value in current, f"{ask} answered {value!r}; since slot {since} it was {current}"
        self.kernel.seen["read without the log"] += 1

    def _count(self, ask: Ask, call: PendingCall, value: Any) -> None:
        seen, what = self.kernel.seen, f"{ask.target.kind}.{ask.operation}"
        if call.status == Status.ERROR:
            seen[f"{what}: {value}"] += 1
        elif value is False:
            seen[f"{what}: in vain"] += 1
        else:
            seen[f"{what}: waited" if call.parked_at is not None else f"{what}: at once"] += 1
        if call.withdrawn and call.status == Status.OK and value is not False:
            seen["time was up, and it was granted all the same"] += 1

    # --- what threads believe to hold

    def _is_given_away(self, client: SimulatedClient, ask: Ask, slot: int) -> bool:
        """Permits have no names: a thread that gives one back which it took in a session that is lost gives back what
        another thread of its process took in the new one.
        """
        which = (ask.target.namespace, ask.target.name), client
        return bool(self._giving.get(which)) or self._gave.get(which, 0) > slot

    def _believes(self, client: SimulatedClient, session: ClientSession, ask: Ask, call: PendingCall) -> None:
        key = (ask.target.namespace, ask.target.name)
        self._believe(key, Belief(client, session, ask.arguments[0 if ask.operation != "acquire" else 1], call))

    def _believe(self, key: Key, belief: Belief) -> None:
        self.beliefs.setdefault(key, []).append(belief)

    def _forget(self, key: Key, client: SimulatedClient, thread: int) -> None:
        beliefs = self.beliefs.get(key, [])
        self.beliefs[key] = [b for b in beliefs if b.client is not client or b.thread != thread]

    def _gives_back(self, key: Key, client: SimulatedClient, ask: Ask) -> None:
        mine = [belief for belief in self.beliefs[key] if belief.client is client]
        others = [belief for belief in self.beliefs[key] if belief.client is not client]
        if ask.target.kind in {"Semaphore", "BoundedSemaphore"}:
            mine = mine[ask.arguments[0] :]
        elif ask.operation == "release_save":
            mine = [belief for belief in mine if belief.thread != ask.arguments[0]]
        elif ask.target.kind == "RLock":
            inner = next((belief for belief in reversed(mine) if belief.thread == ask.arguments[1]), None)
            mine = [belief for belief in mine if belief is not inner]
        else:
            mine = []
        self.beliefs[key] = mine + others

    def beliefs_hold(self, key: Key) -> None:
        """The object has just changed: whoever believes, by its own clock, to hold it, does."""
        beliefs = self.beliefs.get(key)
        if not beliefs:
            return
        beliefs[:] = [b for b in beliefs if b.client.alive and b.session.holds(b.client.now())]
        model = self.reference.objects.get(key)
        if beliefs and beliefs[0].call.target.kind in SEMAPHORES and (model is None or _counts_things(model)):
            beliefs.clear()  # its permits are nobody's, so it may also be dropped and be made anew
        for belief in beliefs:
            name = f"{belief.client.name}, thread {belief.thread}, session {belief.session.id}"
            if isinstance(model, Lock):
                held = model.holder is not None and model.holder[0] == belief.session.id
                held = held and (model.kind == "Lock" or model.holder[1] == belief.thread)  # type: ignore[index]
                assert held, f"{name} believes to hold {key}, which is {model.holder}'s"
            elif isinstance(model, Semaphore):
                count = sum(other.session is belief.session for other in beliefs)
                assert model.taken.get(belief.session.id, 0) >= count, f"{name} believes in a permit of {key}"
            else:
                assert model is not None, f"{name} believes to hold {key}, which is no more"

    def finish(self) -> None:
        """Everybody has been answered."""
        for key in list(self.beliefs):
            self.beliefs_hold(key)
        for client, ask, call in self.given_up:
            if client.alive and call.session is client.session and call.lane is not None and call.lane.undo is not call:
                self._was_undone(ask, call, call.session, call.lane.index)

    def _was_undone(self, ask: Ask, call: PendingCall, session: ClientSession, lane: int) -> None:
        """Interrupted, its session lives, and its lane has been lent to others since: nothing of it is left."""
        name = (session.id, lane, call.number)
        decided = self.calls.get(name)
        nothing = decided is None or decided.status == Status.ERROR or decided.value is False
        index_stands = ask.target.kind == "Barrier"
        assert nothing or index_stands or name in self.undone, f"{ask} was interrupted, and {decided} still stands"
        self.kernel.seen["interrupted, and nothing is left of it"] += 1


def _counts_things(model: Model) -> bool:
    return isinstance(model, Semaphore) and model.counts_things
