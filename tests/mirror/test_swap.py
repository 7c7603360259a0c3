# SPDX-License-Identifier: Apache-2.0
"""The import hook of compat/swap: one package's modules see ours, everybody else the standard library's."""

import importlib
import queue
import sys
import threading

import pytest

import dthreading
import dthreading.queue
from compat.swap import hook

SOURCES = {
    "__init__.py": (
        "import threading, queue as q\nfrom threading import Lock as L, current_thread\nfrom . import inner\n"
    ),
    "inner/__init__.py": "try:\n    import queue\nexcept ImportError:\n    queue = None\n",
    "inner/deep.py": "def late():\n    from queue import Queue, Empty\n    return Queue, Empty\n__doc__ = 'kept'\n",
    "plain.py": "import os\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes a package and gives its name; nothing of it, or of the hook, is left behind."""
    for folder, name in (("swapped_of_tests", "swapped_of_tests"), ("other_of_tests", "other_of_tests")):
        for path, text in SOURCES.items():
            target = tmp_path / folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        assert name not in sys.modules
    monkeypatch.syspath_prepend(str(tmp_path))
    before = list(sys.meta_path)
    hook.swapped.clear()
    yield "swapped_of_tests"
    sys.meta_path[:] = before
    for name in [name for name in sys.modules if name.partition(".")[0].endswith("_of_tests")]:
        del sys.modules[name]


def test_imports_of_that_package_alone_are_swapped(package):
    """In all their forms, at the top and inside functions, and nowhere else."""
    hook.install([package])
    swapped = importlib.import_module(package)
    assert swapped.threading is dthreading
    assert swapped.q is dthreading.queue
    assert swapped.L is dthreading.Lock
    assert swapped.current_thread is threading.current_thread
    assert swapped.inner.queue is dthreading.queue
    deep = importlib.import_module(f"{package}.inner.deep")
    assert deep.late() == (dthreading.queue.Queue, queue.Empty)
    other = importlib.import_module("other_of_tests")
    assert other.threading is threading
    assert other.q is queue
    assert sys.modules["threading"] is threading


def test_it_says_what_it_swapped(package):
    """A run in which nothing was swapped has tested nothing, and must not pass for one that has."""
    hook.install([package])
    importlib.import_module(f"{package}.plain")
    assert hook.swapped == [f"{package}: 3", f"{package}.inner: 1"]


def test_what_was_imported_before_cannot_be_swapped(package):
    """It would keep the real ones in silence."""
    importlib.import_module(package)
    with pytest.raises(RuntimeError, match=package):
        hook.install([package])
