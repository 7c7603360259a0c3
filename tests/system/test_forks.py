# SPDX-License-Identifier: Apache-2.0
"""Processes that make processes: fork, spawn, executors; and proxies that travel between them by pickle."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.server.cluster import Cluster
from tests.system.programs import Group, Programs, processes_with

QUIET = ("-W", "ignore::DeprecationWarning")
"""Python 3.12 warns of a fork in a process with threads; that is the very case that is looked at here."""


def test_a_forked_child_holds_nothing_and_disturbs_nothing(group: Group, start: Programs) -> None:
    program = start(
        """
        lock, rlock = threading.Lock(name="x"), threading.RLock(name="r")
        lock.acquire()
        rlock.acquire()
        fence = lock.fence
        child = os.fork()
        if not child:
            assert lock.fence is None
            assert lock.locked()
            assert not lock.acquire(blocking=False)
            assert not rlock._is_owned()
            assert not rlock.acquire(blocking=False)
            try:
                rlock.release()
            except RuntimeError:
                say("child")
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert lock.fence == fence
        rlock.release()
        lock.release()
        say("parent")
    """,
        options=QUIET,
    )
    program.ends(says=("child", "parent"))


@pytest.mark.parametrize("make", ["Lock()", "Condition(threading.Lock())"])
def test_a_child_that_leaves_its_parents_with_releases_nothing(group: Group, start: Programs, make: str) -> None:
    """`sys.exit()` in the child of a fork under a lock: the parent is still at its work, and holds it. A wait of the
    child on a condition may not free it either.
    """
    program = start(
        f"""
        lock = threading.{make}
        def forks(work):
            with lock:
                child = os.fork()
                if not child:
                    work()
                elif os.waitpid(child, 0)[1] == 0 and lock.locked() and lock.fence:
                    say("held")
            assert child, "the child was told nothing"
        def waits():
            try:
                getattr(lock, "wait", lambda _: None)(0)
            except RuntimeError:
                pass
            sys.exit()
        forks(waits)
        try:
            forks(lambda: None)
        except threading.LockLost:
            sys.exit()
        say("parent")
    """,
        options=QUIET,
    )
    program.ends(says=("held", "held", "parent"), complains="this process was forked")


@pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])
def test_a_child_that_leaves_its_parents_with_gives_no_permit(group: Group, start: Programs, kind: str) -> None:
    """The permit is the parent's, who is still at its work. What the child takes for itself it gives back."""
    program = start(
        f"""
        permits = threading.{kind}(2)
        try:
            with permits:
                child = os.fork()
                if child:
                    assert os.waitpid(child, 0)[1] == 0
                    say("of two", permits._value)
        except threading.LockLost:
            with permits:
                say("the child takes", permits._value)
            sys.exit()
        assert child, "the child was told nothing"
        say("parent", permits._value)
    """,
        options=QUIET,
    )
    program.ends(says=("the child takes 0", "of two 1", "parent 2"))


def test_a_child_is_granted_what_its_parent_releases(group: Group, start: Programs) -> None:
    program = start(
        """
        lock = threading.Lock(name="x")
        lock.acquire()
        if os.fork():
            say("parent", told())
            lock.release()
            assert os.wait()[1] == 0
        else:
            lock.acquire()
            say("child")
            lock.release()
    """,
        options=QUIET,
    )
    group.until_waiting("x", 1)
    program.tell("releases")
    program.ends(says=("parent releases", "child"))


def test_the_death_of_a_child_takes_nothing_of_its_parent(group: Group, start: Programs) -> None:
    """It has a copy of the connection; its end must be no end of the parent's session."""
    program = start(
        """
        lock = threading.Lock(name="x")
        lock.acquire()
        for end in (lambda: os._exit(0), lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: sys.exit(0)):
            for uses in (False, True):
                child = os.fork()
                if not child:
                    if uses:
                        lock.locked()
                    end()
                os.waitpid(child, 0)
        assert lock.fence
        lock.release()
        say("kept")
    """,
        options=QUIET,
    )
    program.ends(says=("kept",))


def test_fork_while_other_threads_are_in_calls(group: Group, start: Programs) -> None:
    """One waits, others are busy; the child calls at once and owes nothing to any of them."""
    program = start(
        """
        import threading as plain
        lock, items = threading.Lock(name="x"), queue.Queue(name="q")
        stop = plain.Event()
        def busy():
            while not stop.is_set():
                items.put(b"." * 500)
                items.get()
                items.task_done()
        def wait():
            with lock:
                pass
        lock.acquire()
        threads = [threading.Thread(target=busy) for _ in range(3)] + [threading.Thread(target=wait)]
        for thread in threads: thread.start()
        for _ in range(8):
            child = os.fork()
            if not child:
                assert not lock.acquire(blocking=False)
                with threading.Lock(name="child"):
                    pass
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        stop.set()
        lock.release()
        for thread in threads: thread.join()
        assert items.empty()
        say("done")
    """,
        options=QUIET,
    )
    program.ends(says=("done",))


NEVER = "600"
"""A lease that no test waits for."""

METHODS = ("fork", "spawn", "forkserver")


@pytest.mark.parametrize("method", METHODS)
def test_objects_as_arguments_of_a_process(group: Group, start: Programs, method: str) -> None:
    """Private objects of a function, made for one child: the commonest way programs are written."""
    program = start(
        f"""
        import multiprocessing
        def work(lock, items, answers, condition, event, barrier, semaphore):
            event.wait()
            with lock, semaphore:
                answers.put(sum(items.get() for _ in range(10)))
                for _ in range(10):
                    items.task_done()
            with condition:
                condition.notify()
            barrier.wait()
        def main():
            lock, items, answers = threading.Lock(), queue.Queue(), queue.PriorityQueue()
            condition, event = threading.Condition(threading.Lock()), threading.Event()
            barrier, semaphore = threading.Barrier(2), threading.BoundedSemaphore(1)
            arguments = (lock, items, answers, condition, event, barrier, semaphore)
            with condition:
                child = multiprocessing.get_context({method!r}).Process(target=work, args=arguments)
                child.start()
                for number in range(10):
                    items.put(number)
                event.set()
                assert condition.wait()
            items.join()
            barrier.wait()
            say(answers.get())
            child.join()
            assert child.exitcode == 0, child.exitcode
        if __name__ == "__main__":
            main()
    """,
        options=QUIET,
        DTHREADING_NAMING="auto",
        DTHREADING_LEASE=NEVER,
    )
    program.ends(says=("45",))
    group.until(lambda: not group.rows())  # all sessions have ended, the child's too, and long before their leases


@pytest.mark.parametrize("method", METHODS)
def test_a_private_object_outlives_its_makers_proxy(group: Group, start: Programs, method: str) -> None:
    """`Process(args=(Queue(),))`: nobody holds the proxy while the child starts, and the items must be there."""
    program = start(
        f"""
        import gc, multiprocessing
        def work(items, sure):
            say(items.get(timeout=5))
            sure.set()
        def child(context):
            items, sure = queue.Queue(), threading.Event()
            items.put("kept")
            process = context.Process(target=work, args=(items, sure))
            process.start()
            return process
        if __name__ == "__main__":
            process = child(multiprocessing.get_context({method!r}))
            gc.collect()
            process.join()
            assert process.exitcode == 0
    """,
        options=QUIET,
        DTHREADING_NAMING="auto",
    )
    program.ends(says=("kept",))


def test_a_forked_child_may_come_late_to_what_its_parent_lets_go_of(group: Group, start: Programs) -> None:
    """The parent has no proxy left and goes on with other things; the child has not even been given the processor yet.
    What is in the queue must be there when it comes, and what the parent itself was given by pickle, too.
    """
    program = start(
        """
        import gc, pickle
        def main():
            items, given = queue.Queue(), pickle.loads(pickle.dumps(queue.Queue()))
            items.put("kept")
            given.put("kept as well")
            reading, writing = os.pipe()
            child = os.fork()
            if not child:
                os.read(reading, 1)
                say(items.get(timeout=5), given.get(timeout=5))
                return
            del items, given
            gc.collect()
            for _ in range(3):
                threading.Lock().locked()  # attached: what was let go of is said with it
            os.write(writing, b"!")
            assert os.waitpid(child, 0)[1] == 0
        main()
    """,
        options=QUIET,
        DTHREADING_NAMING="auto",
    )
    program.ends(says=("kept kept as well",))


def test_a_pickle_that_travels_by_other_ways(group: Group, start: Programs) -> None:
    """In a queue item, with the sender's own proxy gone by the time it is read."""
    program = start(
        """
        import gc, pickle
        letters = queue.Queue(name="letters")
        def send():
            answer = queue.Queue()
            letters.put(("question", answer))
            return None
        send()
        gc.collect()
        say("sent")
        told()
    """,
        script="sender",
        DTHREADING_NAMING="auto",
    )
    program.hears("sent")
    other = start(
        """
        question, answer = queue.Queue(name="letters").get()
        answer.put(question)
        say(answer.get())
    """,
        script="other",
    )
    other.ends(says=("question",))
    program.tell()
    program.ends()


def test_configure_under_the_guard_reaches_children(group: Group, start: Programs) -> None:
    servers, secret = group.cluster.servers, str(group.cluster.secret_file)
    program = start(
        f"""
        import multiprocessing, concurrent.futures
        lock = threading.Lock()
        items = queue.Queue()
        def work(number):
            with lock:
                items.put(number)
            return threading.configure() or lock.name
        if __name__ == "__main__":
            threading.configure(servers={servers!r}, secret={secret!r}, namespace={group.namespace!r}, lease=20)
            for method in {METHODS!r}:
                context = multiprocessing.get_context(method)
                child = context.Process(target=work, args=(method,))
                child.start()
                child.join()
                assert child.exitcode == 0, (method, child.exitcode)
                say(items.get())
            with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
                assert set(pool.map(work, range(6))) == {{lock.name}}
            assert sorted(items.get() for _ in range(6)) == list(range(6))
            say("done")
    """,
        options=QUIET,
        DTHREADING_SERVERS=None,
        DTHREADING_SECRET_FILE=None,
        DTHREADING_NAMESPACE=None,
    )
    program.ends(says=(*METHODS, "done"))


def test_process_pools_share_by_argument(group: Group, start: Programs) -> None:
    program = start(
        """
        from concurrent.futures import ProcessPoolExecutor
        def add(lock, path):
            with lock:
                with open(path) as file: number = int(file.read())
                with open(path, "w") as file: file.write(str(number + 1))
        def main():
            lock = threading.Lock()
            with open("number", "w") as file: file.write("0")
            with ProcessPoolExecutor(3) as pool:
                for future in [pool.submit(add, lock, "number") for _ in range(30)]:
                    future.result()
            say(open("number").read())
        if __name__ == "__main__":
            main()
    """,
        options=(*QUIET, "-W", "ignore::ResourceWarning"),
        DTHREADING_NAMING="auto",
    )
    program.ends(says=("30",))


def test_a_child_that_is_killed_or_interrupted(group: Group, start: Programs) -> None:
    """multiprocessing's terminate(), and Ctrl-C that goes to the whole process group, parent and children."""
    program = start(
        """
        import multiprocessing
        def hold(lock, ready):
            with lock:
                ready.set()
                time.sleep(600)
        def main():
            for end in ("terminate", "kill"):
                lock, ready = threading.Lock(), threading.Event()
                child = multiprocessing.get_context("spawn").Process(target=hold, args=(lock, ready))
                child.start()
                ready.wait()
                getattr(child, end)()
                child.join()
                with lock:
                    say("passed on")
            lock, ready = threading.Lock(), threading.Event()
            child = multiprocessing.get_context("spawn").Process(target=hold, args=(lock, ready))
            child.start()
            ready.wait()
            try:
                os.killpg(0, signal.SIGINT)
                child.join()
            except KeyboardInterrupt:
                child.join()
                with lock:
                    say("interrupted")
        if __name__ == "__main__":
            main()
    """,
        DTHREADING_NAMING="auto",
        DTHREADING_LEASE="1",
    )
    program.ends(says=("passed on", "passed on", "interrupted"), complains="KeyboardInterrupt")


def test_copies_are_the_same_object(group: Group, start: Programs) -> None:
    program = start(
        """
        import copy, pickle
        for make in (threading.Lock, threading.RLock, threading.Condition, threading.Event, queue.Queue,
                     queue.PriorityQueue, queue.SimpleQueue, lambda: threading.Semaphore(2),
                     lambda: threading.Barrier(2), lambda: queue.LifoQueue(3)):
            one = make()
            for other in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
                assert type(other) is type(one)
                assert other.name == one.name
        lock = threading.Lock()
        with copy.copy(lock):
            assert lock.locked()
            assert lock.fence
        items = queue.Queue(3)
        copy.deepcopy({"in": items})["in"].put(1)
        assert items.get() == 1 and copy.copy(items).maxsize == 3
        items.maxsize = 5
        assert copy.copy(items).maxsize == 5
        say("same")
    """,
        DTHREADING_NAMING="auto",
    )
    program.ends(says=("same",))


def test_a_pickle_of_another_group_is_refused(group: Group, start: Programs) -> None:
    with Cluster(1, memory=True) as other:
        other.leader()
        maker = start(
            """
            import pickle
            lock = threading.Lock(name="x")
            with open("lock.pickle", "wb") as file: pickle.dump(lock, file)
        """,
            script="maker",
            **{name: value for name, value in other.client_environment().items() if name[0] == "D"},
        )
        maker.ends()
        finder = start(
            """
            import pickle
            try:
                with open("lock.pickle", "rb") as file: pickle.load(file)
            except threading.WrongGroup as error:
                say(error)
        """,
            script="finder",
        )
        said = finder.hears()
        assert "Lock 'x' belongs to the group" in said
        assert other.servers in said
        assert "and this process is bound to the group" in said
        finder.ends()


def test_a_private_object_whose_users_have_gone_is_gone(group: Group, start: Programs) -> None:
    """It is not made anew under its name: two processes would believe that they share what they do not."""
    maker = start(
        """
        import pickle
        def make():
            items = queue.Queue()
            items.put("lost")
            with open("items.pickle", "wb") as file: pickle.dump(items, file)
        make()
    """,
        script="maker",
        DTHREADING_NAMING="auto",
    )
    maker.ends()
    group.until(lambda: not group.rows())
    finder = start(
        """
        import pickle
        from dthreading.errors import ObjectGone
        try:
            with open("items.pickle", "rb") as file: items = pickle.load(file)
        except ObjectGone as error:
            say(error)
    """,
        script="finder",
    )
    said = finder.hears()
    assert said.startswith("Queue 'maker:")
    assert said.endswith("has ended with the last session that used it")
    finder.ends()


def test_stdlib_synchronisation_in_a_child_of_subprocess(group: Group, start: Programs) -> None:
    """A child that is another program of the same environment, and one that outlives its parent."""
    program = start("""
        import subprocess
        lock = threading.Lock(name="x")
        lock.acquire()
        code = ("import dthreading; lock = dthreading.Lock(name='x'); import os;"
                "os.write(1, b'starts\\\\n'); lock.acquire(); os.write(1, b'granted\\\\n'); lock.release()")
        child = subprocess.Popen([sys.executable, "-c", code])
        told()
    """)
    program.hears("starts")
    group.until_waiting("x", 1)
    program.tell()
    program.hears("granted")
    program.ends()


def test_a_signal_in_the_parent_while_it_waits_for_children(group: Group, start: Programs) -> None:
    """SIGCHLD handlers run in the middle of calls, and call themselves."""
    program = start(
        """
        dead = queue.SimpleQueue(name="dead")
        lock = threading.Lock(name="x")
        def reap(*_):
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    return
                if not pid:
                    return
                dead.put(status)
        signal.signal(signal.SIGCHLD, reap)
        for _ in range(20):
            if not os.fork():
                os._exit(0)
            with lock:
                pass
        assert [dead.get() for _ in range(20)] == [0] * 20
        say("reaped")
    """,
        options=QUIET,
    )
    program.ends(says=("reaped",))
    assert signal.SIGCHLD


@pytest.mark.parametrize("fork", ["multiprocessing", "os.fork"])
@pytest.mark.parametrize("where", ["servers", "nothing configured"])
def test_what_a_forked_child_alone_has_used_is_there_when_it_has_ended(
    group: Group, start: Programs, tmp_path: Path, fork: str, where: str
) -> None:
    """`Process(target=work, args=(results,))`, join, get: the parent touches the queue when the child is gone."""
    nothing = {"DTHREADING_SERVERS": None, "XDG_STATE_HOME": str(tmp_path / "state")}
    program = start(
        f"""
        import multiprocessing
        def work(results, finished):
            results.put("result")
            finished.set()
        def main():
            results, finished = queue.Queue(), threading.Event()
            if {fork == "os.fork"}:
                child = os.fork()
                if not child:
                    work(results, finished)
                    sys.exit()
                os.waitpid(child, 0)
            else:
                child = multiprocessing.get_context("fork").Process(target=work, args=(results, finished))
                child.start()
                child.join()
            say(finished.is_set(), results.get(timeout=5))
        main()
    """,
        options=QUIET,
        DTHREADING_NAMING="auto",
        **(nothing if where == "nothing configured" else {}),
    )
    try:
        program.ends(says=("True result",))
    finally:
        for pid in processes_with("--embedded", str(tmp_path)):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("used", [True, False])
def test_a_daemon_goes_on_with_the_objects_of_the_process_that_started_it(
    group: Group, start: Programs, used: bool
) -> None:
    """It is forked, and its parent ends: nobody but the daemon has these objects then, and nobody else can get them."""
    program = start(
        f"""
        class Daemon:
            def __init__(self):
                self.lock, self.items = threading.RLock(), queue.Queue()
        daemon = Daemon()
        if {used}:
            with daemon.lock:
                assert daemon.items.empty()
        if os.fork():
            os._exit(0) if {used} else sys.exit(0)
        os.setsid()
        told()
        with daemon.lock:
            daemon.items.put("works")
        say(daemon.items.get())
    """,
        options=QUIET,
        DTHREADING_NAMING="auto",
        DTHREADING_LEASE="0.5",
    )
    program.ends()
    group.until(lambda: not group.rows())
    program.tell()
    program.hears("works")


def test_strict_naming_is_strict_after_a_fork_as_well(start: Programs) -> None:
    program = start(
        """
        def make(lock):
            if not os.fork():
                os._exit(0)
            os.wait()
            try:
                lock.acquire()
            except threading.AmbiguousName:
                say("ambiguous")
        make(threading.Lock())
    """,
        options=QUIET,
        DTHREADING_NAMING="strict",
    )
    program.ends(says=("ambiguous",))


def test_a_fork_while_the_group_is_away_is_not_held_up_for_long(group: Group, start: Programs) -> None:
    program = start(
        """
        def main():
            lock = threading.Lock()
            if not os.fork():
                os._exit(3)
            say(os.waitstatus_to_exitcode(os.wait()[1]))
        told()
        main()
    """,
        options=QUIET,
        DTHREADING_NAMING="auto",
        DTHREADING_PATIENCE="0.2",
    )
    group.cluster.kill()
    program.tell()
    program.ends(says=("3",), complains="before a fork")
