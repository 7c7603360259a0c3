# SPDX-License-Identifier: Apache-2.0
"""Names: which place in a program means the same object everywhere, and which makes a new one each time."""

import runpy
import subprocess
import sys
import textwrap
import types
import warnings

import pytest

from dthreading import naming
from dthreading.errors import AmbiguousName
from dthreading.wire.limits import NAME_BYTES_MAX
from dthreading.wire.messages import Lifetime


class Thing:
    """Named as a primitive is: in its constructor."""

    configured = False

    def __init__(self, *, name=None):
        self.name, self.lifetime, self.complaint = naming.name_for(
            self, "Thing", name, configured=lambda: self.configured
        )


class Derived(Thing):
    def __init__(self, extra=None, **options):
        self.extra = extra
        super().__init__(**options)


@pytest.fixture(autouse=True)
def _nothing_taken(monkeypatch):
    monkeypatch.setattr(naming, "_taken", set())
    monkeypatch.delenv("DTHREADING_NAMING", raising=False)


def run_module(text, name="app.locks"):
    """Executes `text` as the module `name`, as an import does, and returns its globals."""
    module = types.ModuleType(name)
    vars(module).update(Thing=Thing, Derived=Derived)
    exec(compile(textwrap.dedent(text), f"/app/{name}.py", "exec"), vars(module))
    return vars(module)


def is_private(thing):
    return thing.lifetime is Lifetime.PRIVATE


def test_a_given_name_is_the_name():
    """`name=` wins over any place."""
    thing = run_module("thing = Thing(name='orders')")["thing"]
    assert (thing.name, thing.lifetime) == ("orders", Lifetime.NAMED)


@pytest.mark.parametrize("bad", ["", "x" * (NAME_BYTES_MAX + 1), "\ud800"])
def test_a_name_that_cannot_be_sent_is_refused(bad):
    """Refused where it is written, not by a replica later."""
    with pytest.raises(ValueError):
        Thing(name=bad)


def test_a_name_is_text():
    """A number would be another name on the other side of a format."""
    with pytest.raises(TypeError):
        Thing(name=7)


@pytest.mark.parametrize(
    ("text", "target", "name"),
    [
        ("lock = Thing()", "lock", "app.locks.lock"),
        ("lock: Thing = Thing()", "lock", "app.locks.lock"),
        ("lock = other = Thing()", "lock", "app.locks.lock"),
        ("(lock := Thing())", "lock", "app.locks.lock"),
        ("lock = Derived(7)", "lock", "app.locks.lock"),
        ("lock = Thing(**{})", "lock", "app.locks.lock"),
        ("class box: make = Thing\nlock = box.make()", "lock", "app.locks.lock"),
        ("lock = Thing(\n    name=None,\n)", "lock", "app.locks.lock"),
        ("lock = Thing() if Thing else None", "lock", "app.locks.lock"),
        ("lock = None if not Thing else Thing()", "lock", "app.locks.lock"),
        ("global lock\nlock = Thing()", "lock", "app.locks.lock"),
        ("try:\n    lock = Thing()\nfinally:\n    pass", "lock", "app.locks.lock"),
        ("if Thing:\n    lock = Thing()", "lock", "app.locks.lock"),
        ("for i in range(3):\n    pass\nlock = Thing()\nfor i in range(3):\n    pass", "lock", "app.locks.lock"),
        ("from functools import partial\nlock = partial(Thing)()", "lock", "app.locks.lock"),
    ],
)
def test_a_module_global_is_named_after_its_place(text, target, name):
    """A module's text runs once in each process, so the place is the same everywhere, as in pickle."""
    thing = run_module(text)[target]
    assert (thing.name, thing.lifetime) == (name, Lifetime.AUTOMATIC)


def test_many_names_before_it():
    """The target's index may need an EXTENDED_ARG."""
    text = "\n".join(f"name_{i} = {i}" for i in range(700)) + "\nlock = Thing()"
    assert run_module(text)["lock"].name == "app.locks.lock"


def test_class_bodies():
    """A class body at module level runs once too; so does one inside another."""
    namespace = run_module(
        """
        class Outer:
            lock = Thing()
            class Inner:
                lock = Thing()
                global exported
                exported = Thing()
        """
    )
    assert namespace["Outer"].lock.name == "app.locks.Outer.lock"
    assert namespace["Outer"].Inner.lock.name == "app.locks.Outer.Inner.lock"
    assert namespace["exported"].name == "app.locks.exported"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type parameters came with 3.12")
def test_generic_class_body():
    """The frame that holds a class's type parameters stands between, and runs once as well."""
    assert run_module("class Box[T]:\n    lock = Thing()")["Box"].lock.name == "app.locks.Box.lock"


@pytest.mark.parametrize(
    "text",
    [
        "def make():\n    lock = Thing()\n    return lock\nlock = make()",
        "def make():\n    return Thing()\nlock = make()",
        "def make():\n    global lock\n    lock = Thing()\nmake()",
        "def make():\n    class C:\n        lock = Thing()\n    return C.lock\nlock = make()",
        "for i in range(1):\n    lock = Thing()",
        "n = 1\nwhile n:\n    n -= 1\n    lock = Thing()",
        "for i in range(1):\n    class C:\n        lock = Thing()\nlock = C.lock",
        "for i in range(1):\n    class C:\n        class D:\n            lock = Thing()\nlock = C.D.lock",
        "lock = [Thing() for _ in range(1)][0]",
        "lock = [Thing()][0]",
        "lock, other = Thing(), Thing()",
        "box = {'lock': Thing()}\nlock = box['lock']",
        "import collections\nd = collections.defaultdict(Thing)\nlock = d['x']",
        "class C: pass\nC.lock = Thing()\nlock = C.lock",
        "lock = (lambda: Thing())()",
        "locks = list(map(lambda _: Thing(), 'ab'))\nlock = locks[0]",
        "locks = list(map(Derived, 'ab'))\nlock = locks[0]",
        "\n".join(f"n{i} = {i}" for i in range(300)) + "\nlocks = tuple(map(Derived, 'ab'))\nlock = locks[0]",
        "def f(lock=Thing()): return lock\nlock = f()",
        "exec('class X:\\n    lock = Thing()', {'Thing': Thing, '__name__': 'y'}, box := {})\nlock = box['X'].lock",
    ],
)
def test_everywhere_else_it_is_private(text):
    """Each evaluation of these places makes a new object with `threading`, so it does with us."""
    assert is_private(run_module(text)["lock"])


def test_a_place_that_is_evaluated_again_is_private():
    """A module that is reloaded gets new locks, as with `threading`; the first keeps the name."""
    first, second = run_module("lock = Thing()")["lock"], run_module("lock = Thing()")["lock"]
    assert first.lifetime is Lifetime.AUTOMATIC
    assert is_private(second)


def test_private_names_are_unique_and_say_where():
    """Unique without asking anybody; the place in front is for people."""
    made = run_module("def f(): return Thing()\nboth = f(), f()")["both"]
    assert made[0].name != made[1].name
    assert all(thing.name.startswith("app.locks:1~") for thing in made)


@pytest.mark.parametrize("run_name", ["__main__", "__mp_main__"])
def test_main_is_the_script(tmp_path, run_name):
    """The script's stem, in the program itself and in the children that multiprocessing spawns."""
    script = tmp_path / "orders.py"
    script.write_text("lock = Thing()")
    assert runpy.run_path(str(script), {"Thing": Thing}, run_name)["lock"].name == "orders.lock"


def test_main_of_a_package_is_its_module(tmp_path, monkeypatch):
    """`python -m package.module` knows its own name."""
    (tmp_path / "shop_of_tests").mkdir()
    (tmp_path / "shop_of_tests" / "till.py").write_text("lock = Thing()")
    monkeypatch.syspath_prepend(str(tmp_path))
    namespace = runpy.run_module("shop_of_tests.till", {"Thing": Thing}, "__main__")
    assert namespace["lock"].name == "shop_of_tests.till.lock"


def test_a_folder_that_is_run_is_named_after_itself(tmp_path):
    """`python folder` runs `folder/__main__.py`, whose own stem says nothing."""
    folder = tmp_path / "till"
    folder.mkdir()
    (folder / "__main__.py").write_text(
        "from dthreading import naming\n"
        "class Thing:\n"
        "    def __init__(self): self.name = naming.name_for(self, 'Thing', None).text\n"
        "lock = Thing()\nprint(lock.name)\n"
    )
    done = subprocess.run(
        [sys.executable, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout.strip() == "till.lock"


def test_warns_once_per_call_site(monkeypatch):
    """With a group configured, `self.lock = Lock()` is worth a word, once, and the word says what to write."""
    monkeypatch.setattr(Thing, "configured", True)
    text = """
    class Worker:
        def __init__(self):
            self.guard = Thing()
    workers = [Worker() for _ in range(3)]
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        run_module(text)
    assert len(caught) == 1
    assert caught[0].category is naming.PrivateNameWarning
    assert caught[0].lineno == 4
    assert "Thing(name='app.locks.Worker.guard')" in str(caught[0].message)


@pytest.mark.parametrize(("mode", "configured"), [("auto", True), (None, False)])
def test_silent(monkeypatch, mode, configured):
    """Without a configured group private objects are as good as any."""
    monkeypatch.setattr(Thing, "configured", configured)
    if mode:
        monkeypatch.setenv("DTHREADING_NAMING", mode)
    assert is_private(run_module("def f(): return Thing()\nlock = f()")["lock"])


def test_strict_refuses(monkeypatch):
    """Strict names the line and what to write; names given and places at module level are fine."""
    monkeypatch.setenv("DTHREADING_NAMING", "strict")
    with pytest.raises(AmbiguousName, match=r"app\.locks\.py:2: .*Thing\(name="):
        run_module("def f():\n    lock = Thing()\nf()")
    assert run_module("lock = Thing()\nother = Thing(name='x')")["lock"].name == "app.locks.lock"


def test_an_unknown_mode_is_refused(monkeypatch):
    """A misspelt mode must not silently mean another one."""
    monkeypatch.setenv("DTHREADING_NAMING", "stricct")
    with pytest.raises(ValueError, match="DTHREADING_NAMING"):
        run_module("def f(): return Thing()\nf()")


def test_what_goes_on_into_an_expression_is_not_judged_yet(monkeypatch):
    """`Condition(Lock(), name="orders")` names its lock; who uses an object that nobody named hears of it then."""
    monkeypatch.setenv("DTHREADING_NAMING", "strict")
    lock = run_module("def f(): return [Thing()][0]\nlock = f()")["lock"]
    with pytest.raises(AmbiguousName):
        lock.complaint.utter()
