# SPDX-License-Identifier: Apache-2.0
"""Index the words of all .py files of this interpreter's standard library, in index_words.sqlite in the current folder.

    python index_words.py            everything in this process: one producer thread, four worker threads
    python index_words.py produce    the producer alone; start four workers beside it
    python index_words.py work       one worker

A worker may be killed at any moment: what it wrote is kept by input file, so doing a file twice changes nothing, and a
file that it had taken is done by whoever gets it next.
"""

import json
import queue
import re
import sqlite3
import sys
import sysconfig
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

LIBRARY = Path(sysconfig.get_path("stdlib"))
NOT_LIBRARY = {"site-packages", "dist-packages", "__pycache__"}
DATABASE = Path("index_words.sqlite")
WORD = re.compile(r"[a-z_]\w{2,}", re.ASCII)
INITIALS = "_abcdefghijklmnopqrstuvwxyz"
WORKERS = 4


def prepare_counting() -> None:
    """Begin with an empty table of counts: what each file says, split by the words' first letter."""
    with closing(sqlite3.connect(DATABASE)) as database, database:
        database.execute("DROP TABLE IF EXISTS counts")
        database.execute("DROP TABLE IF EXISTS words")
        database.execute("CREATE TABLE counts (file, initial, words, PRIMARY KEY (file, initial)) WITHOUT ROWID")


def begin_merging() -> None:
    """Begin the second phase with an empty table of words. The last one to reach the barrier does this."""
    with closing(sqlite3.connect(DATABASE)) as database, database:
        database.execute("DROP TABLE IF EXISTS words")
        database.execute("CREATE TABLE words (word PRIMARY KEY, times, files) WITHOUT ROWID")
    merging.set()


tasks = queue.Queue(maxsize=64)
database_lock = threading.Lock()
open_files = threading.BoundedSemaphore(3)
between_phases = threading.Barrier(WORKERS + 1, action=begin_merging)
merging = threading.Event()
stop = threading.Event()


def library_files() -> list[str]:
    """The .py files of the standard library, without what was installed beside it."""
    paths = (path.relative_to(LIBRARY) for path in LIBRARY.rglob("*.py"))
    return sorted(path.as_posix() for path in paths if NOT_LIBRARY.isdisjoint(path.parts))


def count_file(file: str) -> None:
    """Count the words of one file and keep the counts under its name."""
    with open_files:
        text = (LIBRARY / file).read_text(encoding="utf-8", errors="replace")
    by_initial: dict[str, Counter[str]] = {}
    for word, times in sorted(Counter(WORD.findall(text.lower())).items()):
        by_initial.setdefault(word[0], Counter())[word] = times
    rows = [(file, initial, json.dumps(words)) for initial, words in by_initial.items()]
    with database_lock, closing(sqlite3.connect(DATABASE)) as database, database:
        database.executemany("INSERT OR REPLACE INTO counts VALUES (?, ?, ?)", rows)


def merge_initial(initial: str) -> None:
    """Add up, over all files, the words that begin with this letter."""
    times: Counter[str] = Counter()
    files: Counter[str] = Counter()
    with database_lock, closing(sqlite3.connect(DATABASE)) as database, database:
        for (words,) in database.execute("SELECT words FROM counts WHERE initial = ?", initial):
            counts = json.loads(words)
            times.update(counts)
            files.update(counts.keys())
        rows = [(word, times[word], files[word]) for word in sorted(times)]
        database.executemany("INSERT OR REPLACE INTO words VALUES (?, ?, ?)", rows)


def put_all(kind: str, names: Iterable[str]) -> None:
    """Hand out one task for each name, and wait until all of them are done."""
    names = list(names)
    for done, name in enumerate(names):
        tasks.put((kind, name))
        if done % 100 == 0:
            print(f"{kind}: {done} of {len(names)} handed out", flush=True)
    tasks.join()
    print(f"{kind}: all {len(names)} done", flush=True)


def meet_the_workers() -> None:
    """Bring everybody to the barrier. It breaks when somebody dies there; then the meeting is called again."""
    while not merging.is_set():
        for _ in range(WORKERS):
            tasks.put(("meet", ""))
        with suppress(threading.BrokenBarrierError):
            between_phases.wait()
        tasks.join()
        if between_phases.broken:
            between_phases.reset()


def produce() -> None:
    """Hand out the work of both phases, and stop everybody at the end."""
    try:
        prepare_counting()
        put_all("count", library_files())
        meet_the_workers()
        put_all("merge", INITIALS)
    finally:
        stop.set()


def work() -> None:
    """Do tasks until told to stop."""
    done: Counter[str] = Counter()
    while not stop.is_set():
        try:
            kind, name = tasks.get(timeout=0.5)
        except queue.Empty:
            continue
        if kind == "count":
            count_file(name)
        elif kind == "merge":
            merge_initial(name)
        elif not merging.is_set():
            with suppress(threading.BrokenBarrierError):  # somebody died there: we shall be called again
                between_phases.wait()
        tasks.task_done()
        done[kind] += 1
    print(f"counted {done['count']} files, merged {done['merge']} letters", flush=True)


def main(role: str = "") -> None:
    """Play one role in this process, or all of them in threads."""
    if role == "produce":
        produce()
    elif role == "work":
        work()
    elif role == "":
        threads = [threading.Thread(target=produce), *(threading.Thread(target=work) for _ in range(WORKERS))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:
        sys.exit(f"usage: {sys.argv[0]} [produce | work]")


if __name__ == "__main__":
    main(*sys.argv[1:])
