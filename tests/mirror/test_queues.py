# SPDX-License-Identifier: Apache-2.0
"""The queues above the wire: timeouts, subclasses, what cannot be, serializers, priorities, redelivery."""

import gc
import pickle
import queue as stdlib
import sys
import threading
import types
from dataclasses import dataclass, field
from typing import Any

import pytest

import dthreading
from dthreading import queue, simple_queue
from dthreading.errors import ItemUnreadable, LockLost, OutcomeUnknown, TasksLost
from dthreading.session.calls import GET, GET_NOWAIT, PUT, Target
from dthreading.wire.values import decode_item, encode_item

pytestmark = pytest.mark.usefixtures("group")

STOP = object()
ALL = pytest.mark.parametrize("kind", ["Queue", "LifoQueue", "PriorityQueue"])


def outcome(function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except Exception as error:
        return type(error)


@ALL
@pytest.mark.parametrize("maxsize", [0, 1, -1])
@pytest.mark.parametrize(
    "use",
    [
        lambda q: q.put(1, timeout=-1),
        lambda q: q.put(1, False, -1),
        lambda q: (q.put(1), q.put(1, timeout=0)),
        lambda q: (q.put(1), q.put(1, False, -1)),
        lambda q: q.get(timeout=-1),
        lambda q: q.get(False, -1),
        lambda q: q.get(timeout=0),
        lambda q: (q.put(1), q.get(timeout=0)),
        lambda q: (q.put(1), q.get(), q.task_done(), q.task_done()),
        lambda q: (q.put(1), q.empty(), q.full(), q.qsize(), q.unfinished_tasks),
        lambda q: (q.maxsize, q.put_nowait(1), q.get_nowait(), q.get_nowait()),
    ],
)
def test_they_judge_as_the_standard_library_does(kind, maxsize, use):
    """Negative timeouts above all: an error only where the standard library looks at them."""
    ours = outcome(use, getattr(queue, kind)(maxsize))
    assert ours == outcome(use, getattr(stdlib, kind)(maxsize))


def test_the_exceptions_are_the_standard_librarys_own():
    """`except queue.Empty` works whichever module it was imported from."""
    assert queue.Empty is stdlib.Empty
    assert queue.Full is stdlib.Full
    if hasattr(stdlib, "ShutDown"):
        assert queue.ShutDown is stdlib.ShutDown
    assert set(stdlib.__all__) <= set(queue.__all__)


def test_shutdown_works_on_every_version():
    """As in 3.13."""
    q = queue.Queue()
    q.put(1)
    assert not q.is_shutdown
    q.shutdown()
    assert q.is_shutdown
    assert q.get() == 1
    with pytest.raises(queue.ShutDown):
        q.get()
    with pytest.raises(queue.ShutDown):
        q.put(2)


def test_maxsize_may_be_assigned(background, until_waiting):
    """Putters who wait are let in when there is room; other processes see it too."""
    q = queue.Queue(1, name="tasks")
    q.put(1)
    putter = background(q.put, 2)
    until_waiting(q, "putters")
    q.maxsize = 2
    putter.result()
    assert queue.Queue(1, name="tasks").maxsize == 2
    assert q.full()


# --- subclasses -----------------------------------------------------------------------------------------------------


class Wrapping(queue.Queue):
    """Marks what goes in, takes the mark off what comes out, and refuses some."""

    def _init(self, maxsize):
        super()._init(maxsize)
        self.seen = set()

    def _put(self, item):
        if item == "bad":
            raise ValueError(item)
        if item not in self.seen:
            self.seen.add(item)
            super()._put((item, "mark"))

    def _get(self):
        return super()._get()[0]


def test_a_subclass_may_wrap_refuse_and_skip():
    """put and get go through _put and _get, with their own blocking and timeout."""
    q = Wrapping(1)
    with pytest.raises(ValueError, match="bad"):
        q.put("bad")
    q.put("one")
    q.put("one")
    assert q.qsize() == 1
    with pytest.raises(queue.Full):
        q.put("two", timeout=0.01)
    assert q.get() == "one"
    with pytest.raises(queue.Empty):
        q.get(timeout=0.01)


class Forwarding(queue.Queue):
    """Its _put puts into another queue first: each put has its own way to wait."""

    def __init__(self, log):
        super().__init__(1)
        self.log = log

    def _put(self, item):
        self.log.put(item)
        super()._put(item)


def test_a_put_inside_a_put_waits_in_its_own_way():
    log = queue.Queue()
    q = Forwarding(log)
    q.put(1)
    with pytest.raises(queue.Full):
        q.put(2, block=False)
    assert log.qsize() == 2


class OwnSize(queue.Queue):
    def _qsize(self):
        return 0


class OwnStorage(queue.Queue):
    def _init(self, maxsize):
        self.queue = set()


class OwnGet(queue.Queue):
    def _get(self):
        return "from nowhere"


def test_a_subclass_cannot_keep_the_items():
    """The storage is on the servers, and the error says so."""
    with pytest.raises(TypeError, match="kept by the servers"):
        OwnSize()
    with pytest.raises(AttributeError, match="kept by the servers"):
        OwnStorage()
    with pytest.raises(TypeError, match="kept by the servers"):
        OwnGet().get()


@ALL
@pytest.mark.parametrize("name", ["mutex", "not_empty", "not_full", "all_tasks_done", "queue"])
def test_private_attributes_name_the_public_way(kind, name):
    """`with q.mutex:` would protect nothing."""
    q = getattr(queue, kind)()
    assert not hasattr(q, name)
    with pytest.raises(AttributeError, match=f"has no '{name}': "):
        getattr(q, name)


class Named(queue.Queue):
    def __init__(self, name):
        super().__init__()
        self.name = name


def test_a_subclass_may_have_a_name_of_its_own():
    """An attribute that queues in the wild have must not collide with ours."""
    assert Named("mine").name == "mine"


# --- items ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("item", [lambda: 1, threading.Lock(), (1, [threading.Lock()]), object(), (1, object())])
@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue"])
def test_what_cannot_be_sent_is_a_type_error(kind, item):
    """At put, and nothing was put."""
    q = getattr(queue, kind)()
    with pytest.raises(TypeError):
        q.put(item)
    assert q.empty()


def test_a_bare_object_is_explained_unless_it_is_a_global():
    """The copy that comes out would be equal to nothing: a worker would wait for its sentinel for ever."""
    q = queue.Queue()
    with pytest.raises(TypeError, match="`item is SENTINEL` would never be true"):
        q.put(object())
    q.put(STOP)
    q.put((1, {"stop": STOP}))
    assert q.get() is STOP
    assert q.get()[1]["stop"] is STOP


class Backwards:
    """A serializer of the user's."""

    @staticmethod
    def dumps(item):
        return repr(item)[::-1].encode()

    @staticmethod
    def loads(data):
        return data.decode()[::-1]


def test_serializer():
    """Chosen by the user; a queue without it cannot read what was put with it, and says so."""
    q = queue.Queue(name="tasks", serializer=Backwards)
    q.put([1])
    assert q.get() == "[1]"
    q.put([1])
    with pytest.raises(ItemUnreadable, match="serializer="):
        queue.Queue(name="tasks").get()
    with pytest.raises(TypeError, match="must return bytes"):
        queue.SimpleQueue(serializer=type("S", (), {"dumps": staticmethod(repr), "loads": None})).put(1)


def test_a_queue_in_a_queue():
    """A proxy is sent by its name: the answer's queue may travel with the question."""
    questions, answers = queue.Queue(), queue.SimpleQueue()
    questions.put(("what", answers))
    questions.get()[1].put("that")
    assert answers.get() == "that"


@pytest.mark.parametrize("kind", ["Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"])
def test_a_pickled_queue_is_the_same_queue(kind):
    q = getattr(queue, kind)()
    other = pickle.loads(pickle.dumps(q))
    q.put(1)
    assert other.get() == 1


# --- priorities -----------------------------------------------------------------------------------------------------


@dataclass(order=True)
class Job:
    urgency: int
    what: Any = field(compare=False)


@pytest.mark.parametrize(
    "items",
    [
        [1, 2.5, 3, 2**80],
        ["a", "b"],
        [(1, "a"), (1, "b"), (2, "")],
        [[1, "a"], [1, "b"]],
        [(1, b"a", 1.0), (1, b"a", 2.0)],
        [Job(1, "x"), Job(2, print)],
        [(1, Job(1, "x")), (1, Job(2, "y"))],
        [True, 2],
        [(-1.5, None), (0, {})],
    ],
)
def test_the_smallest_comes_first(items):
    """Whatever plain values can say."""
    q = queue.PriorityQueue()
    for item in reversed(items):
        q.put(item)
    assert [q.get() for _ in items] == items


def test_ties_that_plain_values_cannot_break_are_first_come_first_served():
    """So `(priority, anything)` works, where a heap would compare the anythings."""
    q = queue.PriorityQueue()
    items = [(1, {"b": 1}), (1, {"a": 2}), (0, None), (1, {"c": 3})]
    for item in items:
        q.put(item)
    assert [q.get() for _ in items] == [items[2], items[0], items[1], items[3]]


@pytest.mark.parametrize("item", [None, {}, print, (None, 1), Wrapping, float("nan"), (1, float("nan"))])
def test_what_cannot_be_compared_is_refused(item):
    """At put, and it is not left in the queue."""
    q = queue.PriorityQueue()
    with pytest.raises((TypeError, ValueError)):
        q.put(item)
    assert q.empty()


def test_what_does_not_compare_with_the_rest_is_refused():
    q = queue.PriorityQueue()
    q.put(1)
    with pytest.raises(TypeError):
        q.put("one")
    assert q.qsize() == 1


def test_key():
    """For all that replicas cannot compare."""
    q = queue.PriorityQueue(key=lambda item: -item["n"])
    for n in (1, 3, 2):
        q.put({"n": n})
    assert [q.get()["n"] for _ in range(3)] == [3, 2, 1]


# --- other processes ------------------------------------------------------------------------------------------------


def test_redelivery(group, other):
    """An item whose getter's process ends before task_done() goes back to the head, where the queue is told to."""
    q = queue.Queue(name="tasks", redeliver=True)
    q.put("first")
    q.put("second")
    other.call(_target(q), "get", (True, 1), GET)
    group.lose(other)
    assert q.get() == "first"
    assert q.unfinished_tasks == 2


@pytest.mark.parametrize("redeliver", [True, False])
def test_a_task_is_not_done_whose_session_was_lost(group, redeliver):
    """It went back, or was counted as lost: a count that were lowered once more would end a join too early."""
    q = queue.Queue(name="tasks", redeliver=redeliver)
    q.put("one")
    assert q.get() == "one"
    group.lose(group.own)
    q.put("two")
    unfinished = q.unfinished_tasks
    with pytest.raises(LockLost):
        q.task_done()
    assert q.unfinished_tasks == unfinished
    q.get()
    q.task_done()
    assert q.unfinished_tasks == unfinished - 1


def test_redelivery_by_the_environment(monkeypatch):
    monkeypatch.setenv("DTHREADING_REDELIVER", "1")
    assert queue.Queue()._proxy_target.arguments == (0, True)
    assert queue.Queue(redeliver=False)._proxy_target.arguments == (0, False)
    monkeypatch.setenv("DTHREADING_REDELIVER", "yes")
    with pytest.raises(ValueError, match="DTHREADING_REDELIVER"):
        queue.Queue()


def test_lost_tasks_end_a_join(group, other, background, until_waiting):
    """Nobody waits for the dead."""
    q = queue.Queue(name="tasks")
    q.put("first")
    target = _target(q)
    other.call(target, "get", (True, 1), GET)
    # Its next call shows that the item has arrived: from here on the task is its own.
    with pytest.raises(queue.Empty):
        other.call(target, "get", (False, 1), GET_NOWAIT)
    waiter = background(q.join)
    until_waiting(q, "joiners")
    group.lose(other)
    with pytest.raises(TasksLost) as caught:
        waiter.result()
    assert caught.value.count == 1


def test_a_put_on_its_way_when_the_session_ends_is_of_unknown_outcome(group, background, until_waiting):
    """It is not repeated: it may be in the queue."""
    q = queue.Queue(1, name="tasks")
    q.put(1)
    putter = background(q.put, 2)
    until_waiting(q, "putters")
    group.lose(group.own)
    with pytest.raises(OutcomeUnknown):
        putter.result()


def test_a_get_goes_on_in_a_new_session(group, other, background, until_waiting):
    """Its item, if it had one, is back in the queue: it is asked again."""
    q = queue.Queue(name="tasks")
    getter = background(q.get)
    until_waiting(q, "getters")
    group.lose(group.own)
    until_waiting(q, "getters")
    other.call(_target(q), "put", (True, encode_item("late"), None, 1), PUT)
    assert getter.result() == "late"


def test_an_interrupted_get_leaves_its_item(background, until_waiting, interruptible):
    """The item that comes later is for somebody else."""
    q = queue.Queue()

    def interrupt():
        until_waiting(q, "getters")
        interruptible()

    helper = background(interrupt)
    with pytest.raises(KeyboardInterrupt):
        q.get()
    helper.result()
    q.put(1)
    assert q.get() == 1


def test_the_same_name_with_other_arguments_is_an_error_that_names_both():
    first = queue.Queue(3, name="tasks")
    first.put(1)
    with pytest.raises(dthreading.ObjectMismatch, match=r"(?s)3.*5|5.*3"):
        queue.Queue(5, name="tasks").put(1)
    with pytest.raises(dthreading.ObjectMismatch, match="Queue"):
        dthreading.Lock(name="tasks").acquire()


# --- SimpleQueue ----------------------------------------------------------------------------------------------------


def test_a_put_inside_a_put_comes_after_it(monkeypatch):
    """A finalizer or a signal handler that puts while a put is under way keeps the order, and takes no lock of ours."""
    q = queue.SimpleQueue()
    encode = simple_queue.encode_item
    nested = [2, 3]

    def interrupted(item, serializer):
        if nested:
            q.put(nested.pop(0))
        return encode(item, serializer)

    monkeypatch.setattr(simple_queue, "encode_item", interrupted)
    q.put(1)
    assert [q.get() for _ in range(3)] == [1, 2, 3]


def test_an_outer_put_that_cannot_be_sent_leaves_the_nested_ones_nothing_to_wait_for():
    """They have returned to their callers; the next put may never come."""
    q = queue.SimpleQueue()

    class Unsendable:
        def __reduce__(self):
            q.put("from inside")
            raise TypeError("no")

    with pytest.raises(TypeError, match="cannot be put"):
        q.put(Unsendable())
    assert q.get(timeout=0) == "from inside"


def test_a_nested_put_that_cannot_be_sent_is_logged_and_the_outer_one_goes_on(monkeypatch, caplog):
    """Its caller has returned, and the outer caller has no part in it."""
    q = queue.SimpleQueue()
    send = queue.SimpleQueue._send
    nested = [threading.Lock()]

    def interrupted(self, item):
        if nested:
            self.put(nested.pop())
        send(self, item)

    monkeypatch.setattr(queue.SimpleQueue, "_send", interrupted)
    q.put(1)
    assert q.get() == 1
    assert "finalizer or signal handler" in caplog.text


def test_a_put_from_a_finalizer_of_the_same_garbage_as_its_queue(group):
    """All finalizers run before the proxy lets go of its object: the last words of a program are put as well."""
    seen = []

    class Last:
        def __init__(self, q):
            self.q, self.me = q, self

        def __del__(self):
            self.q.put("last words")
            seen.append(self.q.get())

    q = queue.SimpleQueue()
    for _ in range(5):
        Last(q)
    target = q._proxy_target
    del q
    gc.collect()
    assert seen == ["last words"] * 5
    dthreading.Lock(name="x").locked()  # what was let go of is detached by now
    assert group.machine.find(target.namespace, target.name) is None


def test_a_queue_that_a_finalizer_brought_back_to_life(group):
    """It goes on, as any object does; it must not have been let go of behind its back."""
    saved = []

    class Saver:
        def __init__(self, q):
            self.q, self.me = q, self

        def __del__(self):
            saved.append(self.q)

    q = queue.SimpleQueue()
    q.put("from before")
    Saver(q)
    del q
    gc.collect()
    dthreading.Lock(name="x").locked()  # what was let go of would be detached by now
    for item in range(3):
        saved[0].put(item)
    assert [saved[0].get() for _ in range(4)] == ["from before", 0, 1, 2]


def test_simple_queue_has_no_tasks():
    for name in ("task_done", "join", "full", "shutdown", "maxsize"):
        assert not hasattr(queue.SimpleQueue(), name)
    with pytest.raises(ValueError, match="non-negative"):
        queue.SimpleQueue().get(timeout=-1)
    with pytest.raises(queue.Empty):
        queue.SimpleQueue().get(timeout=0)


def test_subscription():
    """`Queue[int]` in annotations, and called."""
    for kind in (queue.Queue, queue.PriorityQueue, queue.LifoQueue, queue.SimpleQueue):
        assert kind[int] is not None
    q = queue.Queue[int](3)
    q.put(1)
    assert q.get() == 1


def _target(q):
    q.qsize()
    target = q._proxy_target
    return Target(target.namespace, target.name, target.kind, target.arguments, target.lifetime)


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue"])
def test_an_item_that_cannot_be_read_here_is_not_lost(kind, monkeypatch):
    """It is out of the queue, as with multiprocessing's: every getter would meet it again. But its bytes are there, so
    that they can be read once what is missing is there.
    """
    tasks = getattr(queue, kind)(name="tasks")
    module = types.ModuleType("plugin")
    module.Job = type("Job", (), {"__module__": "plugin"})
    with monkeypatch.context() as here:
        here.setitem(sys.modules, "plugin", module)
        tasks.put(module.Job())
    tasks.put("next")
    with pytest.raises(ItemUnreadable, match=r"'tasks'.*No module named 'plugin'") as raised:
        tasks.get()
    assert isinstance(raised.value.__cause__, ModuleNotFoundError)
    assert tasks.get() == "next"
    monkeypatch.setitem(sys.modules, "plugin", module)
    assert type(decode_item(raised.value.payload)) is module.Job
    assert pickle.loads(pickle.dumps(raised.value)).payload == raised.value.payload
    if kind == "Queue":
        tasks.task_done()
        tasks.task_done()
        assert tasks.unfinished_tasks == 0
