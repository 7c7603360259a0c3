# SPDX-License-Identifier: Apache-2.0
"""What is done to each primitive and queue, and what is read of it after every step.

An operation is (its text, what the thread does). Those that a wait hinges on stand more than once, so that they are
chosen more often.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.stateful.duel import Duel, Make, World

Work = Callable[[dict[str, Any], World], Any]
Operation = tuple[str, Work]


@dataclass(frozen=True, repr=False)
class Spec:
    """One kind, as made and used in one duel."""

    name: str
    make: Make
    operations: tuple[Operation, ...]
    reads: Callable[[dict[str, Any]], Any]

    def may(self, duel: Duel, thread: int, text: str) -> bool:
        """Whether that operation can be compared, as things are: see where the answer is no."""
        if "maxsize =" in text:
            # There a waiting putter hears of a new bound with the next get, here at once; and if the queue is still
            # full then, it stands at the end of the line there, here where it stood.
            queue = duel.ours.objects[0]["it"]
            return not queue.full() and queue.qsize() <= int(text.rpartition(" ")[2])
        if "it.wait(" in text and text != "it.wait()" and duel.is_acting():
            # There the time of who comes during the action counts from when that has ended, here from the call.
            return False
        return "acquire" in text or not duel.has_stale_hold(thread)

    def __repr__(self) -> str:
        return f"<{self.name}>"


def call(name: str, method: str, *arguments: Any, **named: Any) -> Operation:
    """A method of one of the objects."""
    shown = ", ".join([*map(repr, arguments), *(f"{key}={value!r}" for key, value in named.items())])
    return f"{name}.{method}({shown})", lambda objects, _: getattr(objects[name], method)(*arguments, **named)


def assign(name: str, attribute: str, value: Any) -> Operation:
    """An attribute is set."""
    return f"{name}.{attribute} = {value!r}", lambda objects, _: setattr(objects[name], attribute, value)


def in_world(attribute: str, value: Any) -> Operation:
    """Something that only this process knows."""
    return f"{attribute} = {value!r}", lambda _, world: setattr(world, attribute, value)


ACQUIRES = (
    call("it", "acquire"), call("it", "acquire"), call("it", "acquire"), call("it", "acquire", False),
    call("it", "acquire", timeout=1), call("it", "acquire", True, 2.5), call("it", "acquire", timeout=0),
    call("it", "acquire", True, -1), call("it", "acquire", False, -1), call("it", "acquire", False, 1),
    call("it", "acquire", True, -2), call("it", "acquire", timeout=None), call("it", "acquire", timeout=1e20),
    call("it", "__enter__"), call("it", "__exit__", None, None, None),
    call("it", "release"), call("it", "release"), call("it", "release"), call("it", "release"),
)  # fmt: skip

LOCK = Spec(
    "Lock",
    lambda module, _, name: {"it": module.Lock(**name("it"))},
    (*ACQUIRES, call("it", "locked")),
    lambda objects: objects["it"].locked(),
)

RLOCK = Spec(
    "RLock",
    lambda module, _, name: {"it": module.RLock(**name("it"))},
    (*ACQUIRES, call("it", "_is_owned"), call("it", "_recursion_count")),
    lambda objects: objects["it"].locked(),
)


def within(name: str, method: str, *arguments: Any) -> Operation:
    """`with lock: condition.method()`, which most programs do."""

    def work(objects: dict[str, Any], _: World) -> Any:
        with objects[name]:
            return getattr(objects[name], method)(*arguments)

    return f"with {name}: {name}.{method}({', '.join(map(repr, arguments))})", work


def waiters(condition: Any) -> int:
    """How many wait to be notified."""
    return len(condition._waiters) if hasattr(condition, "_waiters") else condition._peek("waiters")


def two_conditions(kind: str) -> Make:
    def make(module: Any, _: World, name: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        lock = getattr(module, kind)(**name("it"))
        return {"it": lock, **{one: module.Condition(lock, **name(one)) for one in ("full", "empty")}}

    return make


def wait_for(name: str, timeout: float | None) -> Operation:
    return f"{name}.wait_for(flag, {timeout})", lambda objects, world: objects[name].wait_for(
        lambda: world.flag, timeout
    )


def conditions(kind: str) -> Spec:
    each = [
        operation
        for name in ("full", "empty")
        for operation in (
            call(name, "wait"), call(name, "wait", 1), call(name, "wait", 2.5), call(name, "wait", 0),
            call(name, "wait", -1), call(name, "notify"), call(name, "notify", 2), call(name, "notify", 0),
            call(name, "notify", -1), call(name, "notify_all"), wait_for(name, None), wait_for(name, 1.5),
            wait_for(name, 0), wait_for(name, -1), call(name, "release"), call(name, "acquire"),
        )
    ]  # fmt: skip
    usual = [
        operation
        for name in ("full", "full", "empty")
        for operation in (
            within(name, "wait"), within(name, "wait"), within(name, "wait", 1), within(name, "notify"),
            within(name, "notify", 2), within(name, "notify_all"),
        )
    ]  # fmt: skip
    lock = (*(call("it", "acquire"),) * 3, call("it", "acquire", timeout=1), *(call("it", "release"),) * 4)
    return Spec(
        f"Condition over {kind}",
        two_conditions(kind),
        (*each, *usual, *lock, in_world("flag", True), in_world("flag", False)),
        lambda objects: (objects["it"].locked(), waiters(objects["full"]), waiters(objects["empty"])),
    )


def semaphore(kind: str, value: int) -> Spec:
    return Spec(
        f"{kind}({value})",
        lambda module, _, name: {"it": getattr(module, kind)(value, **name("it"))},
        (
            call("it", "acquire"), call("it", "acquire"), call("it", "acquire"), call("it", "acquire", False),
            call("it", "acquire", timeout=1), call("it", "acquire", True, 2.5), call("it", "acquire", timeout=0),
            call("it", "acquire", timeout=-1), call("it", "acquire", False, 1), call("it", "acquire", True, None),
            call("it", "acquire"), call("it", "release", 3),
            call("it", "release"), call("it", "release"), call("it", "release", 2), call("it", "release", 0),
            call("it", "release", -1), call("it", "__enter__"), call("it", "__exit__", None, None, None),
        ),
        lambda objects: objects["it"]._value,
    )  # fmt: skip


EVENT = Spec(
    "Event",
    lambda module, _, name: {"it": module.Event(**name("it"))},
    (
        call("it", "wait"), call("it", "wait"), call("it", "wait", 1), call("it", "wait", 2.5), call("it", "wait", 0),
        call("it", "wait", -1), call("it", "set"), call("it", "clear"), call("it", "clear"), call("it", "is_set"),
    ),
    lambda objects: objects["it"].is_set(),
)  # fmt: skip


def barrier(parties: int, *, action: bool, timeout: float | None = None) -> Spec:
    def make(module: Any, world: World, name: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        return {"it": module.Barrier(parties, world.action if action else None, timeout, **name("it"))}

    waits = (call("it", "wait"),) * 6
    timed = (call("it", "wait", 1), call("it", "wait", timeout=2.5), call("it", "wait", 0))
    of_action = (
        *(("the gate is closed", lambda _, world: world.gate.acquire(False)),) * 4,
        ("the gate is opened", lambda _, world: world.gate.locked() and world.gate.release()),
        ("the gate is opened", lambda _, world: world.gate.locked() and world.gate.release()),
        in_world("action_fails", True),
        in_world("action_fails", False),
    )

    return Spec(
        f"Barrier({parties}, {'an action' if action else None}, {timeout})",
        make,
        (*waits, *timed, call("it", "abort"), call("it", "reset"), call("it", "reset"), *(of_action if action else ())),
        lambda objects: (objects["it"].n_waiting, objects["it"].broken, objects["it"].parties),
    )


def queue(kind: str, maxsize: int) -> Spec:
    items = {"PriorityQueue": (3, 1, 2, 1.5, True)}.get(kind, (1, "two", [3], None, (4, {"a": b"5"})))
    puts = tuple(call("it", "put", item) for item in items)
    shutdowns = (call("it", "shutdown"), call("it", "shutdown", True), call("it", "shutdown", immediate=True))
    return Spec(
        f"{kind}({maxsize})",
        lambda module, _, name: {"it": getattr(module, kind)(maxsize, **name("it"))},
        (
            *puts, *puts, call("it", "put", items[0], False), call("it", "put", items[1], timeout=1),
            call("it", "put", items[2], True, 2.5), call("it", "put", items[0], timeout=0),
            call("it", "put", items[0], timeout=-1), call("it", "put", items[0], False, -1),
            call("it", "put_nowait", items[1]),
            *(call("it", "get"),) * 8, call("it", "get", False), call("it", "get", timeout=1),
            call("it", "get", True, 2.5), call("it", "get", timeout=0), call("it", "get", timeout=-1),
            call("it", "get", False, -1), call("it", "get_nowait"),
            *(call("it", "task_done"),) * 4, call("it", "join"), call("it", "join"),
            call("it", "qsize"), call("it", "empty"), call("it", "full"), *shutdowns,
            assign("it", "maxsize", 1), assign("it", "maxsize", 3),
        ),
        read_queue,
    )  # fmt: skip


SIMPLE_QUEUE = Spec(
    "SimpleQueue",
    lambda module, _, name: {"it": module.SimpleQueue(**name("it"))},
    (
        *(call("it", "put", item) for item in (1, "two", [3], (4,), None)), call("it", "put", 5, False),
        call("it", "put", 6, timeout=-1), call("it", "put_nowait", 7), *(call("it", "get"),) * 6,
        call("it", "get", False), call("it", "get", timeout=1), call("it", "get", True, 2.5),
        call("it", "get", timeout=0), call("it", "get", timeout=-1),  # in C, (False, -1) is Empty
        call("it", "get_nowait"), call("it", "qsize"), call("it", "empty"),
    ),
    lambda objects: (objects["it"].qsize(), objects["it"].empty()),
)  # fmt: skip


def read_queue(objects: dict[str, Any]) -> Any:
    it = objects["it"]
    return it.qsize(), it.empty(), it.full(), it.unfinished_tasks, it.is_shutdown, it.maxsize


SPECS: tuple[tuple[Spec, ...], ...] = (
    (LOCK,),
    (RLOCK,),
    (conditions("Lock"),),
    (conditions("RLock"),),
    tuple(semaphore("Semaphore", value) for value in (0, 1, 2)),
    tuple(semaphore("BoundedSemaphore", value) for value in (1, 2)),
    (EVENT,),
    (barrier(2, action=False), barrier(3, action=False), barrier(1, action=False), barrier(2, action=False, timeout=2)),
    (barrier(2, action=True), barrier(3, action=True)),
    tuple(queue("Queue", maxsize) for maxsize in (0, 1, 2)),
    tuple(queue("LifoQueue", maxsize) for maxsize in (0, 2)),
    tuple(queue("PriorityQueue", maxsize) for maxsize in (0, 2)),
    (SIMPLE_QUEUE,),
)
"""By kind, the ways in which it is made."""
