# SPDX-License-Identifier: Apache-2.0
"""Tracers that tests set: an interrupt at a chosen line, and steps counted, undisturbed by the collector.

A collection may begin at any allocation, and would run the finalizers of whatever earlier tests left behind under the
tracer: it would be interrupted, or counted, in the traced code's place.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Collection, Iterator
from types import FrameType
from typing import Any

from tests.mutants.planting import PLANTED


@contextlib.contextmanager
def traced(tracer: Callable[[FrameType, str, Any], Any]) -> Iterator[None]:
    """Has `tracer` called for each frame of this thread, and no garbage collected meanwhile."""
    before, collecting = sys.gettrace(), gc.isenabled()
    gc.disable()
    sys.settrace(tracer)
    try:
        yield
    finally:
        sys.settrace(before)
        if collecting:
            gc.enable()


@contextlib.contextmanager
def calling_at(step: int, action: Callable[[str], Any], files: Collection[str | None]) -> Iterator[None]:
    """Has `action` called, with "file:line", at the `step`th line that this thread runs of `files`."""
    seen = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        file = frame.f_code.co_filename.partition(PLANTED)[0]  # the product's, whatever is planted in it
        if file not in files:
            return None
        if event == "line":
            seen += 1
            if seen == step:
                action(f"{file}:{frame.f_lineno}")
        return trace

    with traced(trace):
        yield


def interrupted_at(step: int, function: Callable[[], Any], files: Collection[str | None]) -> str:
    """Runs `function` with KeyboardInterrupt raised at the `step`th line that it runs of `files`.

    Returns:
        Where that was, as "file:line"; "" if it did not get that far.

    """

    def strike(place: str) -> None:
        raise KeyboardInterrupt(place)

    with calling_at(step, strike, files):
        try:
            function()
        except KeyboardInterrupt as interrupt:
            return str(interrupt)
    return ""


def steps(action: Callable[[], Any]) -> int:
    """Lines of Python run and C functions called by `action`: the same on every run."""
    count = 0

    def line(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        return line

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event.startswith("c_")

    profiled = sys.getprofile()
    with traced(line):
        sys.setprofile(profile)
        try:
            action()
        finally:
            sys.setprofile(profiled)
    return count


def times_dearer(prepare: Callable[[int], Callable[[], Any]], few: int, many: int) -> float:
    """How many times the steps of what it prepares among `few` are taken by what it prepares among `many`.

    One is run before any is counted: what a process does once, like compiling the check of a message when the first
    comes, would be counted in whichever of them is run first, and by a test that is run alone only.
    """
    prepare(few)()
    return steps(prepare(many)) / steps(prepare(few))
