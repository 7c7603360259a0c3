# SPDX-License-Identifier: Apache-2.0
"""The process around the client: Ctrl-C, fork, exit, children. Each in a process of its own, against a fake group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from client_fake import Fake

from dthreading.wire.messages import CloseAtEnd, Open, Withdraw
from tests.client.calling import until

ROOT = Path(__file__).resolve().parent.parent.parent

PRELUDE = """
import atexit, os, signal, sys, threading, time
from dthreading import runtime
from dthreading.errors import *
from dthreading.session import *
from dthreading.wire.messages import Lifetime

def target(name="orders"):
    return Target("test", name, "Lock", (), Lifetime.NAMED)

def call(*arguments, **more):
    return runtime.client().call(*arguments, **more)

def say(*words):
    print(*words, flush=True)
"""


class Program(subprocess.Popen[str]):
    """A child process with the prelude and some lines of its own."""

    def __init__(self, fake: Fake, secret: Path, lines: str, tmp_path: Path, *options: str) -> None:
        script = tmp_path / "program.py"
        script.write_text(PRELUDE + textwrap.dedent(lines))
        environment = {
            **os.environ,
            "DTHREADING_SERVERS": fake.address,
            "DTHREADING_SECRET_FILE": str(secret),
            "DTHREADING_NAMESPACE": "test",
            "PYTHONPATH": str(ROOT),
        }
        super().__init__(
            [sys.executable, "-W", "error", *options, str(script)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def hears(self) -> str:
        assert self.stdout is not None
        return self.stdout.readline().strip()

    def ends(self, status: int = 0, *, says: str = "", complains: str = "") -> None:
        output, errors = self.communicate(timeout=30)
        assert self.returncode == status, errors
        assert says in output
        if complains:
            assert complains in errors
        else:
            assert not errors, errors


@pytest.fixture
def run(fake: Fake, secret_file: Path, tmp_path: Path) -> Any:
    programs: list[Program] = []

    def start(lines: str, *options: str) -> Program:
        programs.append(Program(fake, secret_file, lines, tmp_path, *options))
        return programs[-1]

    yield start
    for program in programs:
        if program.poll() is None:
            program.kill()
        program.communicate()


def sessions(fake: Fake) -> list[int]:
    return list(fake.state.sessions)


# --- Ctrl-C ---


def test_ctrl_c_ends_a_wait_at_once_and_leaves_no_ghost(fake: Fake, run: Any) -> None:
    fake.state.lock("orders").holder = (1, 1, 1)
    program = run("""
        lock = target()
        try:
            say("waiting")
            call(lock, "acquire", (True, 1), ACQUIRE)
        except KeyboardInterrupt:
            say("interrupted")
        say(call(lock, "acquire", (True, 1), ACQUIRE).value)
    """)
    assert program.hears() == "waiting"
    until(lambda: fake.state.things["orders"].waiting)
    program.send_signal(signal.SIGINT)
    assert program.hears() == "interrupted"
    until(lambda: any(isinstance(one, Withdraw) and one.undo for one in list(fake.state.heard)))
    until(lambda: len(fake.state.things["orders"].waiting) == 1)
    fake.do(lambda: fake.state.hand_over(fake.state.things["orders"]))
    program.ends(says="1")


def test_ctrl_c_works_while_no_server_answers(fake: Fake, run: Any) -> None:
    fake.silent = True
    program = run("""
        say("waiting")
        call(target(), "acquire", (True, 1), ACQUIRE)
    """)
    assert program.hears() == "waiting"
    until(lambda: fake.connections)
    program.send_signal(signal.SIGINT)
    program.ends(-signal.SIGINT, complains="KeyboardInterrupt")


def test_ctrl_c_in_condition_wait_is_raised_when_the_lock_is_held_again(fake: Fake, run: Any) -> None:
    """The caller's `with` is about to release the lock: it must hold it, and know the new fence."""
    program = run("""
        kept = []
        lock = target()
        call(lock, "acquire", (True, 1), ACQUIRE)
        try:
            say("waiting")
            call(lock, "wait", (1, None), WAIT_CONDITION, kept=kept.append)
        except KeyboardInterrupt:
            say("interrupted", kept)
    """)
    assert program.hears() == "waiting"
    until(lambda: any(getattr(one, "operation", "") == "wait" for one in list(fake.state.heard)))
    program.send_signal(signal.SIGINT)
    until(lambda: any(isinstance(one, Withdraw) and not one.undo for one in list(fake.state.heard)))
    assert program.hears() == f"interrupted [Answer(value=False, session={sessions(fake)[0]})]"
    program.ends()


def test_interrupts_at_any_instruction_leave_the_lock_free_or_told(fake: Fake, run: Any) -> None:
    """A storm of signals whose handler raises: whatever step they strike, nothing is held that nobody knows of."""
    program = run("""
        import random
        class Interrupt(Exception): pass
        def strike(*_): raise Interrupt
        lock = target()
        client = runtime.client()
        client.call(lock, "echo", (), READ)
        signal.signal(signal.SIGALRM, strike)
        struck = held = 0
        luck = random.Random(7)
        for _ in range(400):
            answer = None
            try:
                signal.setitimer(signal.ITIMER_REAL, luck.uniform(0.00005, 0.0006))
                answer = client.call(lock, "acquire", (False, 1), TRY_ACQUIRE)  # a plain call: signals wait for its end
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupt:
                signal.setitimer(signal.ITIMER_REAL, 0)
                struck += 1
            if answer is not None and answer.value is not False:
                held += 1
                call(lock, "release", (answer.value,), RELEASE)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        answer = call(lock, "acquire", (True, 1), ACQUIRE, 10)
        say("free" if answer.value else "held by a ghost", struck > 0, held > 0)
    """)
    program.ends(says="free True True")


# --- fork ---


def test_a_forked_child_has_a_session_of_its_own_and_holds_nothing(fake: Fake, run: Any) -> None:
    program = run(
        """
        lock = target()
        held = call(lock, "acquire", (True, 1), ACQUIRE)
        token = runtime.thread_token()
        assert runtime.client().holds_are_valid(held.session)
        child = os.fork()
        if child == 0:
            assert runtime.thread_token() != token
            assert not runtime.client().holds_are_valid(held.session)
            assert call(lock, "acquire", (False, 1), TRY_ACQUIRE).value is False
            assert runtime.client().session != held.session
            say("child")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert call(lock, "echo", (1,), READ).value == (1,)
        assert runtime.client().holds_are_valid(held.session)
        say("parent")
    """,
        "-W",
        "ignore::DeprecationWarning",
    )
    assert program.hears() == "child"
    assert program.hears() == "parent"
    program.ends()
    assert len([one for one in fake.state.heard if isinstance(one, Open)]) == 2


def test_an_interrupt_in_the_first_lines_of_a_child_leaves_the_connection_to_its_parent(fake: Fake, run: Any) -> None:
    """Ctrl-C goes to the child as well, and the interpreter drops what a hook of a fork raises. With its parent's
    client the child would make calls in its parent's session.
    """
    program = run(
        """
        lock = target()
        call(lock, "echo", (1,), READ)
        parents = runtime.client().session
        def strike():
            raise KeyboardInterrupt
        runtime._Local = strike
        sys.unraisablehook = lambda ignored: say(ignored.exc_type.__name__)
        child = os.fork()
        if child == 0:
            assert call(lock, "echo", (2,), READ).value == (2,)
            os._exit(int(runtime.client().session == parents))
        assert os.waitpid(child, 0)[1] == 0
        assert call(lock, "echo", (3,), READ).value == (3,)
        say("parent")
    """,
        "-W",
        "ignore::DeprecationWarning",
    )
    assert program.hears() == "KeyboardInterrupt"
    program.ends(says="parent")


def test_a_fork_while_other_threads_call_deadlocks_nobody(fake: Fake, run: Any) -> None:
    program = run(
        """
        lock = target()
        stop = threading.Event()
        def busy():
            while not stop.is_set():
                call(lock, "echo", (b"x" * 1000,), READ)
        threads = [threading.Thread(target=busy) for _ in range(4)]
        for thread in threads: thread.start()
        for _ in range(10):
            child = os.fork()
            if child == 0:
                os._exit(0 if call(lock, "echo", (1,), READ).value == (1,) else 1)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        for thread in threads: thread.join()
        say("done")
    """,
        "-W",
        "ignore::DeprecationWarning",
    )
    program.ends(says="done")


# --- signals and descriptors ---


def test_a_replica_that_hangs_up_ends_nobody_who_minds_broken_pipes(fake: Fake, run: Any) -> None:
    """A command-line tool ends by SIGPIPE when its reader is gone. The group's connection is no such pipe."""
    program = run("""
        import socket
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        lock = target()
        call(lock, "echo", (), READ)
        for _ in range(3):
            link = runtime.client()._service.dialer.link
            link.socket.shutdown(socket.SHUT_WR)  # as if the other end had reset it
            assert call(lock, "echo", (1,), READ).value == (1,)
        say("alive")
    """)
    program.ends(says="alive")


# --- exit ---


def test_a_first_use_without_a_descriptor_left_goes_on_when_there_is_one(fake: Fake, run: Any) -> None:
    """A thread that ended there would never answer anybody: all later calls would wait for ever."""
    program = run("""
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        taken = []
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        caller = threading.Thread(target=lambda: say(call(target(), "acquire", (True, 1), ACQUIRE).value), daemon=True)
        caller.start()
        dialer = runtime.client()._service.dialer
        for _ in range(5000):
            if dialer.trouble is not None:
                break
            time.sleep(0.001)
        say(dialer.trouble)
        for descriptor in taken:
            os.close(descriptor)
        caller.join(20)
    """)
    assert "Too many open files" in program.hears()
    program.ends(says="1", complains="the client's thread cannot begin: Too many open files")


def test_the_end_of_the_process_is_the_end_of_the_session(fake: Fake, run: Any) -> None:
    program = run("""
        call(target(), "acquire", (True, 1), ACQUIRE)
    """)
    program.ends()
    until(lambda: not sessions(fake))
    assert fake.state.things["orders"].holder is None


def test_locks_are_not_freed_under_daemon_threads_that_still_run(fake: Fake, run: Any) -> None:
    """The session ends with the connection, which the system closes when no thread of the process runs any more."""
    program = run("""
        lock = target()
        call(lock, "acquire", (True, 1), ACQUIRE)
        def late():
            time.sleep(0.05)
            assert call(lock, "acquire", (False, 1), TRY_ACQUIRE).value is False
            say("still held")
        atexit._clear  # the client's own handler is registered before this one, and so runs after it
        atexit.unregister(runtime._at_exit)
        atexit.register(late)
        atexit.register(runtime._at_exit)
    """)
    program.ends(says="still held")
    until(lambda: not sessions(fake))
    assert any(isinstance(one, CloseAtEnd) for one in fake.state.heard)


def test_exit_does_not_wait_for_a_group_that_is_silent(fake: Fake, run: Any) -> None:
    program = run("""
        call(target(), "echo", (), READ)
        threading.Thread(target=call, args=(target(), "acquire", (True, 1), ACQUIRE), daemon=True).start()
        say("ready")
        sys.stdin.read() if False else None
        time.sleep(0.1)
    """)
    assert program.hears() == "ready"
    fake.silent = True
    program.ends()


def test_finalizers_at_shutdown_hear_an_error_and_do_not_hang(fake: Fake, run: Any) -> None:
    program = run("""
        class Late:
            def __del__(self, call=call, lock=target(), error=GroupUnreachable, arguments=("echo", (), READ)):
                try:
                    call(lock, *arguments)
                except (error, RuntimeError) as caught:
                    os.write(1, b"refused\\n")
        call(target(), "echo", (), READ)
        sys.late = Late()
        sys.late.itself = sys.late
    """)
    program.ends()


def test_a_child_of_multiprocessing_says_goodbye_too(fake: Fake, run: Any) -> None:
    """`atexit` does not run in children that multiprocessing has forked."""
    program = run(
        """
        import multiprocessing
        def work(name):
            call(target(name), "acquire", (True, 1), ACQUIRE)
        if __name__ == "__main__":
            for method in ("fork", "spawn", "forkserver"):
                child = multiprocessing.get_context(method).Process(target=work, args=(method,))
                child.start()
                child.join()
                assert child.exitcode == 0, method
            say("done")
    """,
        "-W",
        "ignore::DeprecationWarning",
    )
    program.ends(says="done")
    until(lambda: not sessions(fake))
    assert {name for name, thing in fake.state.things.items() if thing.fence} == {"fork", "spawn", "forkserver"}
    assert all(thing.holder is None for thing in fake.state.things.values())


def test_children_of_spawn_inherit_what_configure_was_told(fake: Fake, secret_file: Path, run: Any) -> None:
    """Also when configure() stands under the guard, which does not run in the child."""
    program = run(f"""
        import multiprocessing
        from dthreading import config
        def work():
            call(target("inherited"), "acquire", (True, 1), ACQUIRE)
            settings = config.current()
            assert (settings.namespace, settings.lease) == ("mine", 3.0), settings
        if __name__ == "__main__":
            for name in ("DTHREADING_SERVERS", "DTHREADING_SECRET_FILE", "DTHREADING_NAMESPACE"):
                del os.environ[name]
            config.configure(servers={fake.address!r}, secret={str(secret_file)!r}, namespace="mine", lease=3)
            child = multiprocessing.get_context("spawn").Process(target=work)
            child.start()
            child.join()
            assert child.exitcode == 0
            say("done")
    """)
    program.ends(says="done")
    assert fake.state.things["inherited"].fence == 1


# --- loss ---


@pytest.mark.parametrize(("word", "status"), [("interrupt", 3), ("exit", 70)])
def test_on_lost_ends_what_must_not_go_on(fake: Fake, run: Any, word: str, status: int) -> None:
    fake.mute_keepalives = True
    program = run(f"""
        from dthreading import config
        config.configure(lease=0.5, on_lost={word!r})
        call(target(), "acquire", (True, 1), ACQUIRE)
        say("held")
        try:
            time.sleep(30)
        except KeyboardInterrupt:
            sys.exit(3)
    """)
    assert program.hears() == "held"
    program.ends(status, complains="is lost")


# --- threads ---


def test_no_dummy_thread_is_made(fake: Fake, run: Any) -> None:
    """Threads that the stdlib does not know of (of C libraries, say) must not be entered in its list by a call."""
    program = run("""
        import _thread
        lock = target()
        done = _thread.allocate_lock()
        done.acquire()
        def work():
            runtime.thread_token()
            call(lock, "acquire", (True, 1), ACQUIRE)
            call(lock, "acquire", (True, 1), ACQUIRE, 0.01)
            done.release()
        _thread.start_new_thread(work, ())
        done.acquire()
        assert sorted(thread.name for thread in threading.enumerate()) == ["MainThread", "dthreading-client"]
        say("done")
    """)
    program.ends(says="done")


def test_importing_opens_nothing_and_starts_nothing(run: Any) -> None:
    program = run("""
        assert threading.active_count() == 1
        before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
        runtime.drop(target())
        assert not runtime._clients
        say("done")
    """)
    program.ends(says="done")
